//! Webhooks and platform objects, read leniently: never fails, guesses nothing.
//!
//! The platform's bodies are snapshots without identity, and every field may be missing or odd.
//! What is unclear reads as `None` and changes nothing. The same reading serves webhooks, poll
//! answers and call outcomes, since all carry the same objects.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::ids::{BroadcastId, LiveStreamId, Subject, Timestamp, VideoId};

pub(crate) mod seen;

/// A webhook as read.
#[derive(Debug, Clone, PartialEq)]
pub struct Webhook {
    /// What it tells.
    pub observation: Observation,
}

/// What a platform object looked like when it was told or asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "object", rename_all = "snake_case")]
pub enum Observation {
    /// A live stream.
    LiveStream(LiveStreamObserved),
    /// A video.
    Video(VideoObserved),
    /// A broadcast.
    Broadcast(BroadcastObserved),
    /// Anything else: kept and counted.
    Unrecognized,
}

/// A live stream as observed; `None`: not told.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LiveStreamObserved {
    /// The switch: whether encoders are let in. Counts against the quota.
    pub active: Option<bool>,
    /// Primary or pull ingest runs.
    pub live: Option<bool>,
    /// Backup ingest runs.
    pub backup_live: Option<bool>,
    /// A recording runs.
    pub recording: Option<bool>,
    /// Players get an answer.
    pub transcoding: Option<bool>,
    /// Our ownership tag, if the object carries one.
    pub tag: Option<Tag>,
    /// Addresses for players.
    pub playback: Option<Playback>,
    /// When the primary encoder's connection came up last; only the API tells.
    pub started_at: Option<Timestamp>,
    /// The same of the backup encoder.
    pub started_at_backup: Option<Timestamp>,
    /// When the primary encoder's connection went down last; kept while it is up again.
    pub finished_at: Option<Timestamp>,
}

/// Addresses for players; not secret.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Playback {
    /// HLS manifest.
    pub hls_url: Option<String>,
    /// DASH manifest.
    pub dash_url: Option<String>,
    /// The platform's player page.
    pub iframe_url: Option<String>,
}

/// The ownership tag in a live stream's `client_entity_data`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tag {
    /// Version of the tag.
    pub v: i64,
    /// `tallylight`.
    pub owner: String,
    /// Which installation made it.
    pub installation: Uuid,
    /// Which intent made it.
    pub key: Uuid,
    /// The caller's own data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
}

impl Tag {
    /// The tag of an object that `installation` makes for `key`.
    pub fn new(installation: Uuid, key: Uuid, data: Option<Value>) -> Self {
        Self { v: 1, owner: "tallylight".to_owned(), installation, key, data }
    }

    /// Reads a tag; `None` where the text is somebody else's.
    pub fn read(text: &str) -> Option<Self> {
        let tag: Self = serde_json::from_str(text).ok()?;
        (tag.owner == "tallylight").then_some(tag)
    }

    /// The text to put into `client_entity_data`.
    pub fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// How far a video is. Ordered: a webhook never lowers it.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum VideoStatus {
    /// Known by name only.
    #[default]
    Unknown,
    /// The object exists, its file does not.
    Empty,
    /// Queued or transcoding.
    Pending,
    /// At least one rendition can be played. May be the last status.
    Viewable,
    /// All renditions can be played.
    Ready,
    /// Failed.
    Error,
    /// Deleted; nothing resurrects it.
    Deleted,
}

impl VideoStatus {
    /// Its name, as the platform and our API write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Empty => "empty",
            Self::Pending => "pending",
            Self::Viewable => "viewable",
            Self::Ready => "ready",
            Self::Error => "error",
            Self::Deleted => "deleted",
        }
    }

    /// The status of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        match name {
            "unknown" => Some(Self::Unknown),
            "deleted" => Some(Self::Deleted),
            name => Self::read(name),
        }
    }

    /// Whether a video in this status can be played.
    pub fn is_playable(self) -> bool {
        matches!(self, Self::Viewable | Self::Ready)
    }

    /// Reads the platform's word. `new` is named once in its documentation and means empty.
    fn read(text: &str) -> Option<Self> {
        match text {
            "new" | "empty" => Some(Self::Empty),
            "pending" => Some(Self::Pending),
            "viewable" => Some(Self::Viewable),
            "ready" => Some(Self::Ready),
            "error" => Some(Self::Error),
            _ => None,
        }
    }
}

/// A rendition of a video.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rendition {
    /// Its name, such as `vod720n`.
    pub name: String,
    /// `processing`, `complete` or `error`.
    pub status: String,
}

/// A video as observed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VideoObserved {
    /// The video.
    pub id: VideoId,
    /// The live stream it was recorded from. Bodies before September 2025 lack it.
    #[serde(default)]
    pub live_stream: Option<LiveStreamId>,
    /// Whether the body spoke of a live stream at all, if only to say that there is none.
    #[serde(default)]
    pub tells_live_stream: bool,
    /// How far it is.
    #[serde(default)]
    pub status: VideoStatus,
    /// Its name.
    #[serde(default)]
    pub name: Option<String>,
    /// Milliseconds.
    #[serde(default)]
    pub duration_ms: Option<i64>,
    /// When its recording began; only the API tells.
    #[serde(default)]
    pub recording_started_at: Option<Timestamp>,
    /// Its renditions.
    #[serde(default)]
    pub renditions: Vec<Rendition>,
    /// Why it failed; only the API tells.
    #[serde(default)]
    pub error: Option<String>,
    /// HLS manifest.
    #[serde(default)]
    pub hls_url: Option<String>,
}

impl VideoObserved {
    /// Whether it can change no more: ready, failed, deleted, or viewable with no rendition left in
    /// work and one that failed.
    pub fn is_final(&self) -> bool {
        match self.status {
            VideoStatus::Ready | VideoStatus::Error | VideoStatus::Deleted => true,
            VideoStatus::Viewable => {
                let is = |status: &str| self.renditions.iter().any(|r| r.status == status);
                (is("error") || self.error.is_some()) && !is("processing")
            }
            VideoStatus::Unknown | VideoStatus::Empty | VideoStatus::Pending => false,
        }
    }

    /// Whether it may be a recording of a live stream: it tells when that began, or has the name
    /// that the platform gives recordings, or tells nothing of it. What else belongs to a live
    /// stream, such as a clip of it, is no part of a session's recording.
    pub(crate) fn may_be_recording(&self) -> bool {
        let is_named = |name: &str| name.starts_with(RECORDING_NAME.trim_end_matches([':', ' ']));
        self.recording_started_at.is_some() || self.name.as_deref().is_none_or(is_named)
    }

    /// When its recording began: as told, else the end that the platform writes into the name of
    /// a recording (`Stream Record: NAME, 2022-06-03 13:25:16 +0000`) less its duration.
    pub fn began_at(&self) -> Option<Timestamp> {
        self.recording_started_at.or_else(|| {
            let end = recording_end(self.name.as_deref()?)?;
            let duration = TimeDelta::try_milliseconds(self.duration_ms.unwrap_or_default())?;
            end.checked_sub_signed(duration)
        })
    }

    /// When its file was closed: as its name tells, else so long after its beginning as it lasts.
    pub fn ended_at(&self) -> Option<Timestamp> {
        self.name.as_deref().and_then(recording_end).or_else(|| {
            let duration = TimeDelta::try_milliseconds(self.duration_ms?)?;
            self.recording_started_at?.checked_add_signed(duration)
        })
    }
}

/// How the platform begins the name of a recording.
pub(crate) const RECORDING_NAME: &str = "Stream Record: ";

/// The end that the platform writes into the name of a recording.
pub(crate) fn recording_end(name: &str) -> Option<Timestamp> {
    let (_, end) = name.strip_prefix(RECORDING_NAME)?.rsplit_once(", ")?;
    let end = chrono::DateTime::parse_from_str(end, "%Y-%m-%d %H:%M:%S %z").ok()?;
    Some(end.with_timezone(&chrono::Utc))
}

/// A broadcast as observed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BroadcastObserved {
    /// The broadcast.
    pub id: BroadcastId,
    /// `pending`, `live`, `paused` or `finished`; `None`: another word.
    pub status: Option<String>,
}

/// Reads a webhook's body.
pub fn read(bytes: &[u8]) -> Webhook {
    let observation =
        parse(bytes, seen::body).map_or(Observation::Unrecognized, |body| observe(&body));
    Webhook { observation }
}

/// The subject of a webhook that `source` sent. Ingest needs nothing else of a body.
pub fn subject(source: &str, bytes: &[u8]) -> Subject {
    parse(bytes, seen::route)
        .and_then(|body| about(source, &body))
        .unwrap_or_else(|| Subject::unrecognized(source))
}

/// The object that a body speaks of.
fn about(source: &str, body: &Value) -> Option<Subject> {
    let (kind, entity) = entity(body)?;
    Some(Subject::object(source, kind, id(entity.get("id"))?))
}

/// Kinds of subjects that no webhook may write to.
const OUR_KINDS: [&str; 4] = ["request", "account", "quota", "unrecognized"];

/// The type and the object of a body: `vod` and `video_delete` speak of a video.
fn entity(body: &Value) -> Option<(&str, &Value)> {
    let kind = body.get("type")?.as_str()?;
    let is_name = (1..=40).contains(&kind.len())
        && kind.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if !is_name || OUR_KINDS.contains(&kind) {
        return None;
    }
    let kind = if matches!(kind, "vod" | "video_delete") { "video" } else { kind };
    Some((kind, body.get("message")?.get(kind)?))
}

/// What a body tells.
fn observe(body: &Value) -> Observation {
    let Some((kind, object)) = entity(body) else { return Observation::Unrecognized };
    if id(object.get("id")).is_none() {
        return Observation::Unrecognized;
    }
    match kind {
        "stream" => Observation::LiveStream(live_stream(object)),
        "broadcast" => broadcast(object).map_or(Observation::Unrecognized, Observation::Broadcast),
        "video" => video(object).map_or(Observation::Unrecognized, |mut video| {
            if body.get("type").and_then(Value::as_str) == Some("video_delete") {
                video.status = VideoStatus::Deleted;
            }
            Observation::Video(video)
        }),
        _ => Observation::Unrecognized,
    }
}

/// Reads a live stream object.
pub fn live_stream(object: &Value) -> LiveStreamObserved {
    let flag = |name: &str| object.get(name).and_then(Value::as_bool);
    let playback = Playback {
        hls_url: text(object.get("hls_cmaf_url")).or_else(|| text(object.get("hls_mpegts_url"))),
        dash_url: text(object.get("dash_url")),
        iframe_url: text(object.get("iframe_url")),
    };
    LiveStreamObserved {
        active: flag("active"),
        live: flag("live"),
        backup_live: flag("backup_live"),
        recording: flag("recording").or_else(|| recording_by_duration(object)),
        transcoding: flag("transcoding"),
        tag: object.get("client_entity_data").and_then(Value::as_str).and_then(Tag::read),
        playback: (playback != Playback::default()).then_some(playback),
        started_at: object.get("started_at_primary").and_then(timestamp),
        started_at_backup: object.get("started_at_backup").and_then(timestamp),
        finished_at: object.get("finished_at_primary").and_then(timestamp),
    }
}

/// Whether a recording runs, where only its duration is told: the platform's API describes the
/// flag in words and leaves it out of the object. `null` may also mean that it is not told.
fn recording_by_duration(object: &Value) -> Option<bool> {
    object.get("recording_duration").and_then(Value::as_f64).map(|seconds| seconds > 0.0)
}

/// Reads a video object; `None` without a usable id.
pub fn video(object: &Value) -> Option<VideoObserved> {
    let error = text(object.get("error")).filter(|e| !e.is_empty());
    let status = object.get("status").and_then(Value::as_str).and_then(VideoStatus::read);
    // A failed upload stays `empty` with an error: a failure all the same.
    let status = match (status, &error) {
        (Some(VideoStatus::Empty), Some(_)) => VideoStatus::Error,
        (status, _) => status.unwrap_or_default(),
    };
    Some(VideoObserved {
        id: VideoId(id(object.get("id"))?),
        live_stream: id(object.get("stream_id")).map(LiveStreamId),
        // An odd value tells nothing.
        tells_live_stream: object
            .get("stream_id")
            .is_some_and(|told| told.is_null() || id(Some(told)).is_some()),
        status,
        name: text(object.get("name")),
        duration_ms: object.get("duration").and_then(Value::as_i64).filter(|ms| *ms >= 0),
        recording_started_at: object.get("recording_started_at").and_then(timestamp),
        renditions: renditions(object.get("converted_videos")),
        error,
        hls_url: text(object.get("hls_url")),
    })
}

/// Reads a broadcast object; `None` without a usable id.
pub fn broadcast(object: &Value) -> Option<BroadcastObserved> {
    let status = object
        .get("status")
        .and_then(Value::as_str)
        .map(str::to_ascii_lowercase)
        .filter(|s| matches!(s.as_str(), "pending" | "live" | "paused" | "finished"));
    Some(BroadcastObserved { id: BroadcastId(id(object.get("id"))?), status })
}

/// Reads renditions; odd items are left out.
fn renditions(list: Option<&Value>) -> Vec<Rendition> {
    let items = list.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let read = |item: &Value| {
        Some(Rendition { name: text(item.get("name"))?, status: text(item.get("status"))? })
    };
    items.iter().filter_map(read).collect()
}

/// A positive integer, as a number or as digits in a string.
fn id(value: Option<&Value>) -> Option<i64> {
    let id = match value? {
        Value::Number(n) => n.as_i64()?,
        Value::String(s) if s.bytes().all(|b| b.is_ascii_digit()) => s.parse().ok()?,
        Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            return None;
        }
    };
    (id > 0).then_some(id)
}

/// Text without U+0000, which PostgreSQL cannot hold.
fn text(value: Option<&Value>) -> Option<String> {
    value?.as_str().map(|s| s.replace('\0', "\u{fffd}"))
}

/// A time in RFC 3339.
fn timestamp(value: &Value) -> Option<Timestamp> {
    let time = chrono::DateTime::parse_from_rfc3339(value.as_str()?).ok()?;
    Some(time.with_timezone(&chrono::Utc))
}

/// Parses what is read of a body; where that fails, once more after repairing what is only badly
/// encoded.
fn parse(bytes: &[u8], seen: fn(&[u8]) -> serde_json::Result<Value>) -> Option<Value> {
    seen(bytes).ok().or_else(|| seen(repair(bytes).as_bytes()).ok())
}

/// Replaces bytes that are no UTF-8, a byte order mark, raw control characters and half surrogates.
fn repair(bytes: &[u8]) -> String {
    let lossy = String::from_utf8_lossy(bytes);
    let plain = lossy.trim_start_matches('\u{feff}').replace(|c: char| c.is_control(), " ");
    let mut repaired = String::with_capacity(plain.len());
    let mut rest = plain.as_str();
    while let Some(at) = rest.find("\\u") {
        let (before, escape) = rest.split_at(at);
        repaired.push_str(before);
        let unit = |s: &str| s.get(2..6).and_then(|h| u16::from_str_radix(h, 16).ok());
        let next = escape.get(6..).filter(|s| s.starts_with("\\u")).and_then(unit);
        let taken = match (unit(escape), next) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (Some(0xd800..=0xdfff), _) => {
                repaired.push_str("\\ufffd");
                rest = &escape[6..];
                continue;
            }
            (Some(_), _) => 6,
            (None, _) => 2,
        };
        repaired.push_str(&escape[..taken]);
        rest = &escape[taken..];
    }
    repaired.push_str(rest);
    repaired
}

#[cfg(test)]
mod tests;
