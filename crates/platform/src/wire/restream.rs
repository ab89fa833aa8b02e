//! Restreams: a live stream that the platform sends on to another service.

use secrecy::SecretString;

use super::{
    macros::{body, object},
    secret,
};

object! {
    /// A restream as the platform shows it. The published schema has no `id`.
    #[derive(Default)]
    Restream "restream" {
        /// The platform's id.
        id: id,
        /// Free text, not unique.
        name: text,
        /// The live stream that is sent on.
        stream_id: id,
        /// Whether it is sent right now.
        live: flag,
        /// Whether it may be sent. About an hour without a source ends it until it is set again.
        active: flag,
        /// The caller's user id.
        client_user_id: integer,
        /// Whether it is sent without sound.
        no_audio: flag,
        /// `drop` or `silence`.
        no_audio_mode: text,
        /// `original` or `transcoded`.
        source: text,
    }
    unobserved {
        /// Where it is sent to; holds the key of the other service.
        uri: secret,
    }
}

body! {
    /// The body that creates or changes a restream.
    RestreamFields {
        /// Free text. There is no opaque field for a tag, so what finds the restream after a lost
        /// answer has to be part of the name.
        name: String,
        /// Whether it may be sent; `true` unless it is set.
        active: bool,
        /// Where it is sent to: `rtmp`, `rtmps`, or `srt` with `mode=caller`.
        #[serde(with = "secret")]
        uri: SecretString,
        /// The live stream that is sent on.
        stream_id: i64,
        /// The caller's user id.
        client_user_id: i64,
        /// Whether it is sent without sound.
        no_audio: bool,
        /// `drop` or `silence`.
        no_audio_mode: String,
        /// `original` or `transcoded`.
        source: String,
    }
}
