//! The live stream object, its ingest secrets, and the bodies that create and change it.

use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::{
    fields::{self, Fields, known, time_value},
    secret,
};

/// A live stream as the platform shows it.
///
/// `active` is a switch and no sign of life; `live` lags behind it. The pair `started_at_primary`
/// and `finished_at_primary` outlives a session: started later than finished means "still runs".
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stream {
    /// The platform's id.
    pub id: i64,
    /// Free text, not unique.
    pub name: Option<String>,
    /// Whether ingest is allowed; counts against the active-stream quota.
    pub active: Option<bool>,
    /// Whether the primary ingest is up.
    pub live: Option<bool>,
    /// Whether the backup ingest is up. PUSH only.
    pub backup_live: Option<bool>,
    /// Whether a recording runs. Absent from the published schema: never rely on it being there.
    pub recording: Option<bool>,
    /// Length of the running recording, seconds.
    pub recording_duration_seconds: Option<f64>,
    /// Whether ingest starts a recording by itself.
    pub auto_record: Option<bool>,
    /// Whether the platform fetches the source itself.
    pub pull: Option<bool>,
    /// Whether viewers can rewind.
    pub dvr_enabled: Option<bool>,
    /// The caller's user id.
    pub client_user_id: Option<i64>,
    /// The caller's opaque text, up to 4096 characters.
    pub client_entity_data: Option<String>,
    /// The broadcasts that show this stream.
    pub broadcast_ids: Option<Vec<i64>>,
    /// The ingest protocol; `None` when idle.
    pub stream_source_type: Option<String>,
    /// When the object was made.
    pub created_at: Option<DateTime<Utc>>,
    /// When the primary ingest last came up.
    pub started_at_primary: Option<DateTime<Utc>>,
    /// When the backup ingest last came up.
    pub started_at_backup: Option<DateTime<Utc>>,
    /// When the primary ingest last went down; never reset.
    pub finished_at_primary: Option<DateTime<Utc>>,
    /// Player page.
    pub iframe_url: Option<String>,
    /// Playback by DASH.
    pub dash_url: Option<String>,
    /// Playback by HLS with CMAF segments.
    pub hls_cmaf_url: Option<String>,
    /// Playback by HLS with MPEG-TS segments.
    pub hls_mpegts_url: Option<String>,
    /// Source address. A secret: PULL addresses carry passwords, webhooks put the push token here.
    pub uri: Option<SecretString>,
    /// Push token.
    pub token: Option<SecretString>,
    /// RTMP push address; holds the token.
    pub push_url: Option<SecretString>,
    /// RTMP push address of the backup; holds the token.
    pub backup_push_url: Option<SecretString>,
    /// SRT push address; holds the token.
    pub push_url_srt: Option<SecretString>,
    /// SRT push address of the backup; holds the token.
    pub backup_push_url_srt: Option<SecretString>,
    /// WHIP push address; holds the token.
    pub push_url_whip: Option<SecretString>,
    /// SRT passphrase.
    pub srt_passphrase: Option<SecretString>,
}

impl Stream {
    /// Reads a stream; `None` without a usable id.
    fn read(fields: &Fields<'_>) -> Option<Self> {
        Some(Self {
            id: fields.id("id")?,
            name: fields.text("name"),
            active: fields.flag("active"),
            live: fields.flag("live"),
            backup_live: fields.flag("backup_live"),
            recording: fields.flag("recording"),
            recording_duration_seconds: fields.amount("recording_duration"),
            auto_record: fields.flag("auto_record"),
            pull: fields.flag("pull"),
            dvr_enabled: fields.flag("dvr_enabled"),
            client_user_id: fields.integer("client_user_id"),
            client_entity_data: fields.text_or_json("client_entity_data"),
            broadcast_ids: fields.ids("broadcast_ids"),
            stream_source_type: fields.text("stream_source_type"),
            created_at: fields.time("created_at"),
            started_at_primary: fields.time("started_at_primary"),
            started_at_backup: fields.time("started_at_backup"),
            finished_at_primary: fields.time("finished_at_primary"),
            iframe_url: fields.text("iframe_url"),
            dash_url: fields.text("dash_url"),
            hls_cmaf_url: fields.text("hls_cmaf_url"),
            hls_mpegts_url: fields.text("hls_mpegts_url"),
            uri: fields.secret("uri"),
            token: fields.secret("token"),
            push_url: fields.secret("push_url"),
            backup_push_url: fields.secret("backup_push_url"),
            push_url_srt: fields.secret("push_url_srt"),
            backup_push_url_srt: fields.secret("backup_push_url_srt"),
            push_url_whip: fields.secret("push_url_whip"),
            srt_passphrase: fields.secret("srt_passphrase"),
        })
    }

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

    /// The view for the event log: known fields under the platform's names, no secrets.
    pub fn observed(&self) -> Value {
        known([
            ("id", self.id.into()),
            ("name", self.name.clone().into()),
            ("active", self.active.into()),
            ("live", self.live.into()),
            ("backup_live", self.backup_live.into()),
            ("recording", self.recording.into()),
            ("recording_duration", self.recording_duration_seconds.into()),
            ("auto_record", self.auto_record.into()),
            ("pull", self.pull.into()),
            ("dvr_enabled", self.dvr_enabled.into()),
            ("client_user_id", self.client_user_id.into()),
            ("client_entity_data", self.client_entity_data.clone().into()),
            ("broadcast_ids", self.broadcast_ids.clone().into()),
            ("stream_source_type", self.stream_source_type.clone().into()),
            ("created_at", time_value(self.created_at)),
            ("started_at_primary", time_value(self.started_at_primary)),
            ("started_at_backup", time_value(self.started_at_backup)),
            ("finished_at_primary", time_value(self.finished_at_primary)),
            ("iframe_url", self.iframe_url.clone().into()),
            ("dash_url", self.dash_url.clone().into()),
            ("hls_cmaf_url", self.hls_cmaf_url.clone().into()),
            ("hls_mpegts_url", self.hls_mpegts_url.clone().into()),
        ])
    }
}

impl<'de> Deserialize<'de> for Stream {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        fields::deserialize(deserializer, "live stream", Self::read)
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
