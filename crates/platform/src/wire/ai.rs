//! AI tasks: transcription of a video, and finding what should not be in it.
//!
//! No webhook tells of their end: they are polled. Results are kept for a month.

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::{macros::object, secret};

object! {
    /// An AI task as the platform shows it.
    AiTask "AI task" {
        /// The platform's id, a UUID.
        task_id: text,
        /// `PENDING`, `RECEIVED`, `STARTED`, `RETRY`, `SUCCESS`, `FAILURE`, `REVOKED`, or whatever
        /// the platform says.
        status: text,
        /// Percent done, 0 to 100.
        progress: whole,
        /// When it ran.
        processing_time: object(AiTaskTime),
        /// What was asked for.
        task_data: object(AiTaskData),
    }
    unobserved {
        /// What came of it, in a form of each work's own.
        result: json,
    }
}

impl AiTask {
    /// Whether nothing comes any more.
    pub fn is_final(&self) -> bool {
        matches!(self.status.as_deref(), Some("SUCCESS" | "FAILURE" | "REVOKED"))
    }
}

object! {
    /// When an AI task ran.
    AiTaskTime "time of an AI task" {
        /// When it began.
        started_at: time,
        /// When it ended.
        completed_at: time,
        /// How long it took, seconds.
        total_seconds as "total_time_sec": amount,
    }
}

object! {
    /// What an AI task was asked for.
    AiTaskData "data of an AI task" {
        /// `transcription` or `content-moderation`.
        task_name: text,
        /// What is looked for.
        category: text,
        /// The language that is spoken.
        audio_language: text,
        /// The language of the subtitles.
        subtitles_language: text,
        /// The caller's user id.
        client_user_id: text,
        /// The caller's opaque text: the place of the ownership tag.
        client_entity_data: text_or_json,
    }
    unobserved {
        /// The file. It may be signed.
        url: secret,
    }
}

/// The body that asks for an AI task.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct NewAiTask {
    /// What is to be done.
    #[serde(flatten)]
    pub work: AiWork,
    /// The file, MP4. It may be signed.
    #[serde(with = "secret")]
    pub url: Option<SecretString>,
    /// The caller's user id, up to 256 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_user_id: Option<String>,
    /// Opaque text up to 4096 characters: the place of the ownership tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_entity_data: Option<String>,
}

/// What an AI task does.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "task_name", rename_all = "kebab-case")]
pub enum AiWork {
    /// Writes down what is said.
    Transcription {
        /// The language that is spoken, three letters; found out unless it is set.
        #[serde(skip_serializing_if = "Option::is_none")]
        audio_language: Option<String>,
        /// The language to translate to; that of the sound unless it is set.
        #[serde(skip_serializing_if = "Option::is_none")]
        subtitles_language: Option<String>,
    },
    /// Looks for something in the picture.
    ContentModeration {
        /// What is looked for: `sport`, `nsfw`, `soft_nudity` or `hard_nudity`.
        category: String,
        /// Ends at the first of these.
        #[serde(skip_serializing_if = "Option::is_none")]
        stop_objects: Option<String>,
    },
}
