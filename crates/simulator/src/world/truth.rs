//! What really happened: the ledger beside the state.
//!
//! The *truth* is noted where things happen, with when and by whom, and stays when objects are gone.
//! Nothing that the platform answers is read from it. One line of JSON tells one live stream with its
//! videos and broadcasts; the first line tells the run. Not its job: judging anybody.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use serde_json::{Value, json};

use super::live_stream::LiveStream;
use super::video::Video;
use super::{Line, World};

/// Who did something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Actor {
    /// A caller of the API.
    Api,
    /// A person in the platform's portal.
    Portal,
    /// The platform by itself.
    #[default]
    Platform,
}

/// When, and by whom.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Deed {
    at: DateTime<Utc>,
    by: Actor,
}

/// From when to when; not yet over while `to` is missing.
#[derive(Clone, Copy, Debug, Serialize)]
struct Stretch {
    from: DateTime<Utc>,
    to: Option<DateTime<Utc>>,
}

/// When an encoder sent on one line.
#[derive(Clone, Copy, Debug, Serialize)]
struct Sending {
    line: Line,
    #[serde(flatten)]
    stretch: Stretch,
}

/// A file that was recorded.
#[derive(Clone, Copy, Debug, Serialize)]
struct File {
    /// The video it became; none where it was too short.
    video: Option<i64>,
    #[serde(flatten)]
    stretch: Stretch,
    /// Milliseconds of media: stretches for which the source was held are no part of it.
    media_ms: i64,
}

/// A change of the switch.
#[derive(Clone, Copy, Debug, Serialize)]
struct Switch {
    active: bool,
    #[serde(flatten)]
    deed: Deed,
}

/// A change of a broadcast's label.
#[derive(Clone, Debug, Serialize)]
struct Label {
    status: String,
    #[serde(flatten)]
    deed: Deed,
}

/// What happened to one live stream.
#[derive(Clone, Debug, Serialize)]
struct StreamTruth {
    name: String,
    tag: Value,
    created: Deed,
    deleted: Option<Deed>,
    switches: Vec<Switch>,
    sending: Vec<Sending>,
    live: Vec<Stretch>,
    files: Vec<File>,
    edits: Vec<Deed>,
}

/// What happened to one broadcast.
#[derive(Clone, Debug, Serialize)]
struct BroadcastTruth {
    id: i64,
    name: String,
    stream_ids: Vec<i64>,
    created: Deed,
    deleted: Option<Deed>,
    labels: Vec<Label>,
}

/// Where a video came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Origin {
    /// A recording of a live stream.
    Recording,
    /// A clip of a live stream.
    Clip,
}

/// What happened to one video.
#[derive(Clone, Debug)]
struct VideoTruth {
    stream: i64,
    origin: Origin,
    deleted: Option<(Deed, Value)>,
}

/// What happened, to everything.
#[derive(Default)]
pub(super) struct Ledger {
    /// Who acts now.
    pub(super) actor: Actor,
    streams: BTreeMap<i64, StreamTruth>,
    broadcasts: BTreeMap<i64, BroadcastTruth>,
    videos: BTreeMap<i64, VideoTruth>,
    /// Mishaps that struck.
    pub(super) mishaps: Vec<Value>,
}

impl Ledger {
    /// Returns a deed of whoever acts now.
    fn deed(&self, at: DateTime<Utc>) -> Deed {
        Deed { at, by: self.actor }
    }

    /// A live stream was made.
    pub(super) fn stream_created(&mut self, at: DateTime<Utc>, id: i64, name: &str, tag: &Value) {
        let created = self.deed(at);
        let truth = StreamTruth {
            name: name.to_owned(),
            // A tag is text; what is no JSON stays text.
            tag: tag
                .as_str()
                .and_then(|text| serde_json::from_str(text).ok())
                .unwrap_or_else(|| tag.clone()),
            created,
            deleted: None,
            switches: Vec::new(),
            sending: Vec::new(),
            live: Vec::new(),
            files: Vec::new(),
            edits: Vec::new(),
        };
        self.streams.insert(id, truth);
    }

    /// The switch of a live stream was turned.
    pub(super) fn switched(&mut self, at: DateTime<Utc>, id: i64, active: bool) {
        let deed = self.deed(at);
        self.on_stream(id, |truth| truth.switches.push(Switch { active, deed }));
    }

    /// A live stream was edited in the portal.
    pub(super) fn edited(&mut self, at: DateTime<Utc>, id: i64) {
        let deed = self.deed(at);
        self.on_stream(id, |truth| truth.edits.push(deed));
    }

    /// A live stream was deleted.
    pub(super) fn stream_deleted(&mut self, at: DateTime<Utc>, id: i64) {
        let deed = self.deed(at);
        self.on_stream(id, |truth| {
            truth.deleted = Some(deed);
            for sending in &mut truth.sending {
                sending.stretch.to.get_or_insert(at);
            }
            for live in &mut truth.live {
                live.to.get_or_insert(at);
            }
        });
    }

    /// An encoder begins or ends to send.
    pub(super) fn sends(&mut self, at: DateTime<Utc>, id: i64, line: Line, sends: bool) {
        self.on_stream(id, |truth| {
            let open = truth.sending.iter_mut().rev().find(|one| one.line == line);
            match (open, sends) {
                (Some(last), false) => {
                    last.stretch.to.get_or_insert(at);
                }
                (_, true) => {
                    truth.sending.push(Sending { line, stretch: Stretch { from: at, to: None } });
                }
                (None, false) => {}
            }
        });
    }

    /// A run begins or ends.
    pub(super) fn lives(&mut self, at: DateTime<Utc>, id: i64, lives: bool) {
        self.on_stream(id, |truth| {
            if lives {
                truth.live.push(Stretch { from: at, to: None });
            } else if let Some(last) = truth.live.last_mut() {
                last.to.get_or_insert(at);
            }
        });
    }

    /// A recorded file was closed.
    pub(super) fn file_closed(
        &mut self,
        (from, to): (DateTime<Utc>, DateTime<Utc>),
        id: i64,
        media: TimeDelta,
        video: Option<i64>,
    ) {
        let stretch = Stretch { from, to: Some(to) };
        let file = File { video, stretch, media_ms: media.num_milliseconds() };
        self.on_stream(id, |truth| truth.files.push(file));
    }

    /// A video was made of a live stream.
    pub(super) fn video_made(&mut self, id: i64, stream: i64, origin: Origin) {
        self.videos.insert(id, VideoTruth { stream, origin, deleted: None });
    }

    /// A video was deleted.
    pub(super) fn video_deleted(&mut self, at: DateTime<Utc>, video: &Video) {
        let deed = self.deed(at);
        if let Some(truth) = self.videos.get_mut(&video.id) {
            truth.deleted = Some((deed, video.truth()));
        }
    }

    /// A broadcast was made or changed, and looks like this.
    pub(super) fn broadcast(&mut self, at: DateTime<Utc>, id: i64, view: &Value) {
        let deed = self.deed(at);
        let text = |field: &str| view[field].as_str().unwrap_or_default().to_owned();
        let truth = self.broadcasts.entry(id).or_insert_with(|| BroadcastTruth {
            id,
            name: text("name"),
            stream_ids: Vec::new(),
            created: deed,
            deleted: None,
            labels: Vec::new(),
        });
        let ids = view["stream_ids"].as_array().into_iter().flatten();
        truth.stream_ids = ids.filter_map(Value::as_i64).collect();
        let status = text("status");
        if truth.labels.last().is_none_or(|last| last.status != status) {
            truth.labels.push(Label { status, deed });
        }
    }

    /// A broadcast was deleted.
    pub(super) fn broadcast_deleted(&mut self, at: DateTime<Utc>, id: i64) {
        let deed = self.deed(at);
        if let Some(truth) = self.broadcasts.get_mut(&id) {
            truth.deleted = Some(deed);
        }
    }

    fn on_stream(&mut self, id: i64, note: impl FnOnce(&mut StreamTruth)) {
        if let Some(truth) = self.streams.get_mut(&id) {
            note(truth);
        }
    }

    /// How often live streams were made and deleted under one ownership key.
    fn keys(&self) -> Value {
        let mut keys: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
        for truth in self.streams.values() {
            let Some(key) = truth.tag["key"].as_str() else { continue };
            let (created, deleted) = keys.entry(key).or_default();
            *created += 1;
            *deleted += u32::from(truth.deleted.is_some());
        }
        let count = |(key, (created, deleted)): (&str, _)| {
            (key.to_owned(), json!({"created": created, "deleted": deleted}))
        };
        Value::Object(keys.into_iter().map(count).collect())
    }
}

impl World {
    /// Tells the truth: the run, then up to `limit` live streams with ids above `after`, as one JSON
    /// document each.
    pub(crate) fn truth(&mut self, now: DateTime<Utc>, after: i64, limit: usize) -> Vec<Value> {
        self.advance(now);
        let run = json!({
            "type": "run",
            "now": self.now,
            "time_scale": self.pace.time_scale(),
            "active_streams": self.active_streams(),
            "active_quota": self.active_quota,
            "keys": self.ledger.keys(),
            "mishaps": self.ledger.mishaps,
        });
        let ids = self.ledger.streams.range(after.saturating_add(1)..).take(limit);
        let streams = ids.map(|(id, truth)| self.stream_truth(*id, truth));
        std::iter::once(run).chain(streams).collect()
    }

    /// Tells one live stream.
    fn stream_truth(&self, id: i64, truth: &StreamTruth) -> Value {
        let broadcasts = self.ledger.broadcasts.values();
        let broadcasts: Vec<&BroadcastTruth> =
            broadcasts.filter(|one| one.stream_ids.contains(&id)).collect();
        let videos = self.ledger.videos.iter().filter(|(_, video)| video.stream == id);
        let videos: Vec<Value> = videos.map(|(id, video)| self.video_truth(*id, video)).collect();
        let mut line = json!(truth);
        line["type"] = "live_stream".into();
        line["id"] = id.into();
        line["active"] = self.streams.get(&id).is_some_and(LiveStream::is_active).into();
        line["encoder"] = json!(self.crew.state(id));
        line["broadcasts"] = json!(broadcasts);
        line["videos"] = videos.into();
        line
    }

    /// Tells one video.
    fn video_truth(&self, id: i64, truth: &VideoTruth) -> Value {
        let (deleted, mut told) = match &truth.deleted {
            Some((deed, last)) => (Some(deed), last.clone()),
            None => (None, self.videos.get(&id).map(Video::truth).unwrap_or_default()),
        };
        told["id"] = id.into();
        told["origin"] = json!(truth.origin);
        told["deleted"] = json!(deleted);
        told
    }
}

impl Video {
    /// What a line of the truth says of a video.
    fn truth(&self) -> Value {
        json!({
            "from": self.recording_started_at,
            "duration_ms": self.duration.num_milliseconds(),
            "status": self.status.word(),
            "error": self.error,
            "changed_at": self.updated_at,
        })
    }
}
