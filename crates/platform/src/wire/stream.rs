//! The live stream object, its ingest secrets, and the bodies that create and change it.

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Broadcast, Overlay, fields::known, macros::object, secret};

object! {
    /// A live stream as the platform shows it.
    ///
    /// `active` is a switch and no sign of life; `live` lags behind it. The pair `started_at_primary`
    /// and `finished_at_primary` outlives a session: started later than finished means "still runs".
    Stream "live stream" {
        /// The platform's id.
        id: key,
        /// Free text, not unique.
        name: text,
        /// Whether ingest is allowed; counts against the active-stream quota.
        active: flag,
        /// Whether the primary ingest is up.
        live: flag,
        /// Whether the backup ingest is up. PUSH only.
        backup_live: flag,
        /// Whether a recording runs. Absent from the published schema: never rely on it being there.
        recording: flag,
        /// Length of the running recording, seconds.
        recording_duration_seconds as "recording_duration": amount,
        /// Whether ingest starts a recording by itself.
        auto_record: flag,
        /// Whether the platform fetches the source itself.
        pull: flag,
        /// Whether viewers can rewind.
        dvr_enabled: flag,
        /// The caller's user id.
        client_user_id: integer,
        /// The caller's opaque text, up to 4096 characters.
        client_entity_data: text_or_json,
        /// The broadcasts that show this stream.
        broadcast_ids: ids,
        /// The ingest protocol; `None` when idle.
        stream_source_type: text,
        /// When the object was made.
        created_at: time,
        /// When the primary ingest last came up.
        started_at_primary: time,
        /// When the backup ingest last came up.
        started_at_backup: time,
        /// When the primary ingest last went down; never reset.
        finished_at_primary: time,
        /// Player page.
        iframe_url: text,
        /// Playback by DASH.
        dash_url: text,
        /// Playback by HLS with CMAF segments.
        hls_cmaf_url: text,
        /// Playback by HLS with MPEG-TS segments.
        hls_mpegts_url: text,
    }
    unobserved {
        /// Source address. A secret: PULL addresses carry passwords, webhooks put the push token here.
        uri: secret,
        /// Push token.
        token: secret,
        /// RTMP push address; holds the token.
        push_url: secret,
        /// RTMP push address of the backup; holds the token.
        backup_push_url: secret,
        /// SRT push address; holds the token.
        push_url_srt: secret,
        /// SRT push address of the backup; holds the token.
        backup_push_url_srt: secret,
        /// WHIP push address; holds the token.
        push_url_whip: secret,
        /// SRT passphrase.
        srt_passphrase: secret,
        /// `origin` or `transcoded`.
        record_type: text,
        /// How far viewers can rewind, seconds.
        dvr_duration_seconds as "dvr_duration": whole,
        /// Whether overlays can be put on the picture.
        html_overlay: flag,
        /// The overlays.
        html_overlays: objects(Overlay),
        /// `regular`, `vr360`, `vr180` or `vr360tb`.
        projection: text,
        /// The set of renditions that it is transcoded to.
        quality_set_id: id,
        /// The CDN resource that serves the playback.
        cdn_id: id,
        /// Where the primary ingest comes in; `None` when idle.
        active_ingest_region_primary: text,
        /// Where the backup ingest comes in; `None` when idle.
        active_ingest_region_backup: text,
        /// The renditions that are made right now.
        transcoded_qualities: texts,
        /// Speed of transcoding; below 1 it falls behind.
        transcoding_speed: amount,
        /// Frames per second of the source.
        frame_rate: amount,
        /// Width of the source, pixels.
        video_width: whole,
        /// Height of the source, pixels.
        video_height: whole,
        /// A picture of the last seconds.
        screenshot: text,
        /// The broadcasts that show it, where they were asked for.
        broadcasts: objects(Broadcast),
    }
}

impl Stream {
    /// Whether any ingest is up. A failover to the backup is no interruption.
    ///
    /// Returns `None` when the platform says neither.
    pub fn is_live(&self) -> Option<bool> {
        match (self.live, self.backup_live) {
            (None, None) => None,
            (primary, backup) => Some(primary == Some(true) || backup == Some(true)),
        }
    }

    /// What an encoder needs to push. To be sealed by the caller before it is stored.
    pub fn ingest_credentials(&self) -> IngestCredentials {
        IngestCredentials {
            token: self.token.clone(),
            push_url: self.push_url.clone(),
            backup_push_url: self.backup_push_url.clone(),
            push_url_srt: self.push_url_srt.clone(),
            backup_push_url_srt: self.backup_push_url_srt.clone(),
            push_url_whip: self.push_url_whip.clone(),
            srt_passphrase: self.srt_passphrase.clone(),
        }
    }
}

/// What an encoder needs to push to one live stream. `Debug` shows none of it.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct IngestCredentials {
    /// Push token.
    pub token: Option<SecretString>,
    /// RTMP address.
    pub push_url: Option<SecretString>,
    /// RTMP address of the backup.
    pub backup_push_url: Option<SecretString>,
    /// SRT address.
    pub push_url_srt: Option<SecretString>,
    /// SRT address of the backup.
    pub backup_push_url_srt: Option<SecretString>,
    /// WHIP address.
    pub push_url_whip: Option<SecretString>,
    /// SRT passphrase.
    pub srt_passphrase: Option<SecretString>,
}

impl IngestCredentials {
    /// Whether the answer held none of them: answers of PATCH may be cut down to a few fields.
    pub fn is_empty(&self) -> bool {
        self.parts().iter().all(|(_, secret)| secret.is_none())
    }

    /// The secrets in the clear as a JSON object, for sealing. Never log or store the result.
    pub fn expose(&self) -> Value {
        known(self.parts().map(|(name, secret)| {
            (name, secret.as_ref().map(|secret| secret.expose_secret().to_owned()).into())
        }))
    }

    /// Every secret under the platform's name for it.
    fn parts(&self) -> [(&'static str, &Option<SecretString>); 7] {
        [
            ("token", &self.token),
            ("push_url", &self.push_url),
            ("backup_push_url", &self.backup_push_url),
            ("push_url_srt", &self.push_url_srt),
            ("backup_push_url_srt", &self.backup_push_url_srt),
            ("push_url_whip", &self.push_url_whip),
            ("srt_passphrase", &self.srt_passphrase),
        ]
    }
}

/// The body that creates a live stream. `None` leaves a field to the platform's default.
///
/// Serializing it exposes `uri` and `srt_passphrase`: it is meant for the platform alone.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct NewStream {
    /// Free text; the platform refuses a blank one.
    pub name: String,
    /// Whether ingest is allowed at once. Needs a free slot of the active-stream quota.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active: Option<bool>,
    /// Whether ingest starts a recording by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_record: Option<bool>,
    /// `origin` or `transcoded`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record_type: Option<String>,
    /// Whether viewers can rewind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dvr_enabled: Option<bool>,
    /// How far viewers can rewind, seconds, 30 to 14400.
    #[serde(rename = "dvr_duration", skip_serializing_if = "Option::is_none")]
    pub dvr_duration_seconds: Option<u32>,
    /// Whether overlays can be put on the picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub html_overlay: Option<bool>,
    /// `regular`, `vr360`, `vr180` or `vr360tb`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub projection: Option<String>,
    /// The set of renditions to transcode to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quality_set_id: Option<i64>,
    /// The CDN resource that serves the playback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cdn_id: Option<i64>,
    /// The transcoding region, for accounts that may choose one. Not in the published schema; the
    /// platform's tutorial sends it on create and on reuse.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transcoding_region: Option<String>,
    /// The caller's user id; webhooks repeat it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_user_id: Option<i64>,
    /// Opaque text up to 4096 characters; webhooks repeat it. The place of the ownership tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_entity_data: Option<String>,
    /// The broadcasts that show this stream.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub broadcast_ids: Vec<i64>,
    /// Whether the platform fetches the source itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull: Option<bool>,
    /// PULL only: source addresses, separated by blanks.
    #[serde(with = "secret", skip_serializing_if = "Option::is_none")]
    pub uri: Option<SecretString>,
    /// 10 to 80 printable ASCII characters.
    #[serde(with = "secret", skip_serializing_if = "Option::is_none")]
    pub srt_passphrase: Option<SecretString>,
}

/// The body that changes a live stream: only the fields that are `Some` are sent.
///
/// The platform's schema marks `name` as required here too, and a strict platform answers 422
/// "name: can't be blank"; then send the current name along.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct StreamPatch {
    /// Free text, not blank.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether ingest is allowed. `true` needs a free slot of the active-stream quota.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active: Option<bool>,
    /// Whether ingest starts a recording by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_record: Option<bool>,
    /// Whether viewers can rewind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dvr_enabled: Option<bool>,
    /// How far viewers can rewind, seconds, 30 to 14400.
    #[serde(rename = "dvr_duration", skip_serializing_if = "Option::is_none")]
    pub dvr_duration_seconds: Option<u32>,
    /// The transcoding region, for accounts that may choose one. Not in the published schema; the
    /// platform's tutorial sends it on create and on reuse.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transcoding_region: Option<String>,
    /// The set of renditions to transcode to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quality_set_id: Option<i64>,
    /// The caller's user id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_user_id: Option<i64>,
    /// Opaque text up to 4096 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_entity_data: Option<String>,
    /// The broadcasts that show this stream; `Some` replaces the list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broadcast_ids: Option<Vec<i64>>,
}
