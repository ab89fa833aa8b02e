//! Subtitles of a video.

use super::macros::{body, object};

object! {
    /// A subtitle as the platform shows it.
    Subtitle "subtitle" {
        /// The platform's id.
        id: key,
        /// Free text.
        name: text,
        /// Three letters, ISO 639-2/B.
        language: text,
    }
    unobserved {
        /// The text, as WebVTT.
        vtt: text,
    }
}

body! {
    /// The body that creates or changes a subtitle. To create one, `language` and either `vtt` or
    /// `auto_transcribe_audio_language` are needed.
    SubtitleFields {
        /// Free text.
        name: String,
        /// Three letters, ISO 639-2/B.
        language: String,
        /// The text, as WebVTT.
        vtt: String,
        /// Has it written from the sound: `auto` or the language that is spoken.
        auto_transcribe_audio_language: String,
        /// Has it translated: `default` or languages with commas between.
        auto_translate_subtitles_language: String,
    }
}
