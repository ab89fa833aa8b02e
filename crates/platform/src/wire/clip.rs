//! Clips: pieces that are cut out of what viewers of a live stream can rewind to.

use serde::{Deserialize, Serialize};

use super::macros::object;

object! {
    /// A clip as the platform shows it.
    Clip "clip" {
        /// The platform's id: letters and digits.
        id: text,
        /// When it was asked for.
        created_at: time,
        /// Where it begins, Unix time in seconds.
        start: integer,
        /// Its length, seconds.
        duration_seconds as "duration": whole,
        /// Until when it can be fetched, Unix time in seconds.
        expiration: integer,
        /// Whether a video is made of it, which stays.
        vod_required: flag,
        /// That video.
        video_id: id,
        /// The renditions.
        renditions: texts,
        /// Playback by HLS.
        hls_master: text,
        /// Download address; too early (425) until its end has come.
        mp4_master: text,
    }
}

/// The body that cuts a clip.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct NewClip {
    /// Where it begins, Unix time in seconds; now unless it is set. With it, the clip can be found
    /// after a lost answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<i64>,
    /// Its length, seconds, at most what viewers can rewind.
    #[serde(rename = "duration")]
    pub duration_seconds: u32,
    /// Until when it can be fetched, Unix time in seconds: 1 minute to 4 hours after its end. The
    /// platform's default is one hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration: Option<i64>,
    /// Whether a video is made of it, which stays and costs. Always sent: the platform's default
    /// is `true`.
    pub vod_required: bool,
}
