//! The video object: one file of a recording (or an upload) and its renditions.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::fields::{self, Fields, known, time_value};

/// A video as the platform shows it.
///
/// `viewable` may be its last status (a rendition failed), and a failed upload stays `empty` with
/// `error` set. `updated_at` only grows and orders the answers of GET; webhooks lack it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Video {
    /// The platform's id.
    pub id: i64,
    /// For recordings `Stream Record: {stream's name}, {end}`.
    pub name: Option<String>,
    /// Part of the playback addresses.
    pub slug: Option<String>,
    /// `empty`, `pending`, `viewable`, `ready`, `error`, or whatever the platform says.
    pub status: Option<String>,
    /// Why processing failed; may be set at any status.
    pub error: Option<String>,
    /// Length in milliseconds (`duration` on the wire).
    pub duration_ms: Option<i64>,
    /// The live stream that it was recorded from. The stream may be gone already.
    pub stream_id: Option<i64>,
    /// When its recording began.
    pub recording_started_at: Option<DateTime<Utc>>,
    /// When the object was made.
    pub created_at: Option<DateTime<Utc>>,
    /// When the object last changed.
    pub updated_at: Option<DateTime<Utc>>,
    /// The caller's user id.
    pub client_user_id: Option<i64>,
    /// The renditions, often lower qualities first.
    pub converted_videos: Option<Vec<Rendition>>,
    /// Playback by HLS.
    pub hls_url: Option<String>,
    /// Playback by HLS with CMAF segments.
    pub hls_cmaf_url: Option<String>,
    /// Playback by DASH.
    pub dash_url: Option<String>,
    /// Player page.
    pub iframe_url: Option<String>,
}

/// One transcoded form of a video.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Rendition {
    /// The quality, e.g. `vod720p`.
    pub name: Option<String>,
    /// `processing`, `complete`, `error`, or whatever the platform says.
    pub status: Option<String>,
    /// Why it failed.
    pub error: Option<String>,
    /// Percent done, 0 to 100.
    pub progress: Option<i64>,
    /// Height in pixels.
    pub height: Option<i64>,
    /// Width in pixels.
    pub width: Option<i64>,
    /// Size in bytes.
    pub size: Option<i64>,
    /// Download address.
    pub mp4_url: Option<String>,
}

impl Video {
    /// Reads a video; `None` without a usable id.
    fn read(fields: &Fields<'_>) -> Option<Self> {
        Some(Self {
            id: fields.id("id")?,
            name: fields.text("name"),
            slug: fields.text("slug"),
            status: fields.text("status"),
            error: fields.non_empty_text("error"),
            duration_ms: fields.whole_amount("duration"),
            stream_id: fields.id("stream_id"),
            recording_started_at: fields.time("recording_started_at"),
            created_at: fields.time("created_at"),
            updated_at: fields.time("updated_at"),
            client_user_id: fields.integer("client_user_id"),
            converted_videos: fields.objects("converted_videos", Rendition::read),
            hls_url: fields.text("hls_url"),
            hls_cmaf_url: fields.text("hls_cmaf_url"),
            dash_url: fields.text("dash_url"),
            iframe_url: fields.text("iframe_url"),
        })
    }

    /// The view for the event log: known fields under the platform's names, no secrets.
    /// `duration` is in milliseconds.
    pub fn observed(&self) -> Value {
        let renditions = self.converted_videos.as_ref();
        let renditions: Option<Value> =
            renditions.map(|renditions| renditions.iter().map(Rendition::observed).collect());
        known([
            ("id", self.id.into()),
            ("name", self.name.clone().into()),
            ("slug", self.slug.clone().into()),
            ("status", self.status.clone().into()),
            ("error", self.error.clone().into()),
            ("duration", self.duration_ms.into()),
            ("stream_id", self.stream_id.into()),
            ("recording_started_at", time_value(self.recording_started_at)),
            ("created_at", time_value(self.created_at)),
            ("updated_at", time_value(self.updated_at)),
            ("client_user_id", self.client_user_id.into()),
            ("converted_videos", renditions.into()),
            ("hls_url", self.hls_url.clone().into()),
            ("hls_cmaf_url", self.hls_cmaf_url.clone().into()),
            ("dash_url", self.dash_url.clone().into()),
            ("iframe_url", self.iframe_url.clone().into()),
        ])
    }
}

impl<'de> Deserialize<'de> for Video {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        fields::deserialize(deserializer, "video", Self::read)
    }
}

impl Rendition {
    /// Reads a rendition; every field may be missing.
    fn read(fields: &Fields<'_>) -> Self {
        Self {
            name: fields.text("name"),
            status: fields.text("status"),
            error: fields.non_empty_text("error"),
            progress: fields.whole_amount("progress"),
            height: fields.whole_amount("height"),
            width: fields.whole_amount("width"),
            size: fields.whole_amount("size"),
            mp4_url: fields.text("mp4_url"),
        }
    }

    /// The view for the event log.
    fn observed(&self) -> Value {
        known([
            ("name", self.name.clone().into()),
            ("status", self.status.clone().into()),
            ("error", self.error.clone().into()),
            ("mp4_url", self.mp4_url.clone().into()),
        ])
    }
}
