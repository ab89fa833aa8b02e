//! A platform that obeys: it answers each call as the real one does when nothing goes wrong, and
//! keeps the truth that polls are answered from. It sends no webhook: the test does.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Value, json};

use crate::call::{Call, CallResult};
use crate::ids::{LiveStreamId, Timestamp, VideoId};

/// What the platform answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// The call was made.
    Done(CallResult),
    /// The call was given up, for this reason.
    Failed(String),
}

/// A live stream as it really is.
#[expect(clippy::struct_excessive_bools, reason = "the platform's own flags")]
#[derive(Debug, Clone, Copy, Default)]
pub struct Truth {
    /// The switch.
    pub active: bool,
    /// Primary ingest.
    pub live: bool,
    /// Backup ingest.
    pub backup_live: bool,
    /// A recording runs.
    pub recording: bool,
}

/// The obedient platform.
#[derive(Debug, Default)]
pub struct Platform {
    streams: BTreeMap<i64, Truth>,
    deleted: BTreeSet<i64>,
    videos: BTreeMap<i64, Value>,
    created: i64,
    /// Live stream and label of each.
    broadcasts: BTreeMap<i64, (i64, String)>,
    broadcasts_made: i64,
    /// Lists tell no broadcasts.
    pub lists_no_broadcasts: bool,
    scripted: BTreeMap<&'static str, VecDeque<Answer>>,
    held: BTreeSet<&'static str>,
    /// Live streams that may be active; none: any number.
    pub slots: Option<usize>,
}

impl Platform {
    /// An empty account. Ids begin with those of the platform's tutorial.
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Answers the next call of `kind` so; may be said several times.
    pub fn script(&mut self, kind: &'static str, answer: Answer) {
        self.scripted.entry(kind).or_default().push_back(answer);
    }

    /// Forgets what was scripted for calls of `kind`.
    pub fn forget_script(&mut self, kind: &'static str) {
        self.scripted.remove(kind);
    }

    /// Keeps calls of `kind` in flight until the test answers them.
    pub fn hold(&mut self, kind: &'static str) {
        self.held.insert(kind);
    }

    /// Answers calls of `kind` again.
    pub fn release(&mut self, kind: &'static str) {
        self.held.remove(kind);
    }

    /// Changes a live stream without a webhook.
    pub fn set(&mut self, live_stream: i64, change: impl FnOnce(&mut Truth)) {
        change(self.streams.entry(live_stream).or_default());
    }

    /// Deletes a live stream, as people do in the platform's portal.
    pub fn delete_stream(&mut self, live_stream: i64) {
        self.deleted.insert(live_stream);
    }

    /// Gives a broadcast another label without a webhook.
    pub fn label_broadcast(&mut self, broadcast: i64, status: &str) {
        if let Some((_, label)) = self.broadcasts.get_mut(&broadcast) {
            status.clone_into(label);
        }
    }

    /// Deletes a broadcast.
    pub fn delete_broadcast(&mut self, broadcast: i64) {
        self.broadcasts.remove(&broadcast);
    }

    /// The broadcasts of a live stream, as a list tells them.
    pub(crate) fn broadcasts_of(&self, live_stream: i64) -> Vec<Value> {
        let of = self.broadcasts.iter().filter(|(_, (stream, _))| *stream == live_stream);
        let of = of.filter(|_| !self.lists_no_broadcasts);
        of.map(|(id, (_, status))| json!({"id": id, "status": status})).collect()
    }

    /// Adds a video of `live_stream`, or changes it.
    pub fn add_video(&mut self, live_stream: i64, id: i64, status: &str, began: Timestamp) {
        let video = json!({
            "id": id, "status": status, "duration": 48_410, "stream_id": live_stream,
            "recording_started_at": began.to_rfc3339(), "name": "Stream Record",
        });
        self.videos.insert(id, video);
    }

    /// Sets the status of a video, if there is one.
    pub fn set_video(&mut self, id: i64, status: &str) {
        if let Some(video) = self.videos.get_mut(&id) {
            video["status"] = json!(status);
        }
    }

    /// The ids of all videos.
    pub fn videos(&self) -> Vec<i64> {
        self.videos.keys().copied().collect()
    }

    /// Forgets a video: asked for, it is gone.
    pub fn delete_video(&mut self, id: i64) {
        self.videos.remove(&id);
    }

    /// A webhook that tells a live stream as it is.
    pub(crate) fn webhook_of(&self, live_stream: i64) -> Value {
        let truth = self.streams.get(&live_stream).copied().unwrap_or_default();
        json!({"type": "stream", "message": {"stream": {
            "id": live_stream, "live": truth.live, "backup_live": truth.backup_live,
            "recording": truth.recording,
        }}})
    }

    /// The answer to `call`; `None`: it is held.
    pub(super) fn answer(&mut self, call: &Call, now: Timestamp) -> Option<Answer> {
        let kind = call.kind();
        if self.held.contains(kind) {
            return None;
        }
        let scripted = self.scripted.get_mut(kind).and_then(VecDeque::pop_front);
        Some(scripted.unwrap_or_else(|| self.obey(call, now)))
    }

    /// The live streams that are active.
    pub fn active(&self) -> impl Iterator<Item = LiveStreamId> {
        self.streams.iter().filter(|(_, truth)| truth.active).map(|(id, _)| LiveStreamId(*id))
    }

    /// Does what is called for.
    pub fn obey(&mut self, call: &Call, now: Timestamp) -> Answer {
        Answer::Done(match call {
            Call::CreateLiveStream { only_look: true, .. }
            | Call::CreateBroadcast { only_look: true, .. } => CallResult::Gone,
            Call::CreateLiveStream { .. } => self.create_live_stream(),
            Call::UpdateLiveStream { live_stream, .. }
            | Call::ObserveLiveStream { live_stream } => self.told(live_stream.0),
            Call::ActivateLiveStream { live_stream } => {
                let others = self.active().filter(|id| *id != *live_stream).count();
                if self.slots.is_some_and(|slots| others >= slots) {
                    let reason = "limit of active streams exceeded".to_owned();
                    return Answer::Done(CallResult::Deferred { reason });
                }
                self.set(live_stream.0, |s| s.active = true);
                self.told(live_stream.0)
            }
            Call::DeactivateLiveStream { live_stream } => {
                self.set(live_stream.0, |s| s.active = false);
                // `live` lags behind `active`: it is told as it was.
                self.told(live_stream.0)
            }
            Call::CreateBroadcast { live_stream, .. } => self.create_broadcast(live_stream.0),
            Call::SetBroadcastStatus { broadcast, status } => {
                self.label_broadcast(broadcast.0, status);
                self.broadcast(broadcast.0)
            }
            Call::ObserveBroadcast { broadcast } => self.broadcast(broadcast.0),
            Call::StartRecording { .. } => CallResult::RecordingStarted { warnings: Vec::new() },
            Call::StopRecording { live_stream, .. } => {
                let id = 803_111 + i64::try_from(self.videos.len()).unwrap_or_default();
                self.add_video(live_stream.0, id, "empty", now - chrono::TimeDelta::seconds(60));
                CallResult::RecordingStopped { video: self.videos.get(&id).cloned() }
            }
            Call::ListVideos { live_stream } => {
                let of = |v: &&Value| v["stream_id"] == json!(live_stream.0);
                super::array(&self.videos.values().filter(of).cloned().collect::<Vec<_>>())
            }
            Call::FetchVideo { video } => self
                .videos
                .get(&video.0)
                .map_or(CallResult::Gone, |video| CallResult::Video { observed: video.clone() }),
            Call::ObserveQuota { check } => {
                let active: Vec<LiveStreamId> = self.active().collect();
                let inactive = check.iter().copied().filter(|id| !active.contains(id)).collect();
                CallResult::ActiveStreams { active, inactive }
            }
            Call::ProbeLiveStream { .. } => {
                CallResult::AirTimes { times: Vec::new(), precision_s: 10 }
            }
            Call::ClearDvr { .. } => CallResult::Done,
            Call::DeleteBroadcast { broadcast } => {
                self.delete_broadcast(broadcast.0);
                CallResult::Gone
            }
            Call::DeleteLiveStream { .. } => CallResult::Deleted { videos: Vec::new() },
            Call::DeleteRecordings { videos, .. } => {
                CallResult::RecordingsDeleted { videos: videos.clone(), kept: Vec::new() }
            }
        })
    }

    fn create_live_stream(&mut self) -> CallResult {
        let id = 320_423 + self.created;
        self.created += 1;
        self.set(id, |s| s.active = false);
        self.told(id)
    }

    fn create_broadcast(&mut self, live_stream: i64) -> CallResult {
        let id = 192_470 + self.broadcasts_made;
        self.broadcasts_made += 1;
        self.broadcasts.insert(id, (live_stream, "pending".to_owned()));
        self.broadcast(id)
    }

    /// A live stream as the API tells it.
    pub(super) fn stream(&self, id: i64) -> Option<Value> {
        let truth = self.streams.get(&id).copied().unwrap_or_default();
        let told = json!({
            "id": id, "active": truth.active, "live": truth.live,
            "backup_live": truth.backup_live, "recording": truth.recording,
        });
        Some(told).filter(|_| !self.deleted.contains(&id))
    }

    /// A video as the API tells it.
    pub(crate) fn video(&self, id: VideoId) -> Option<&Value> {
        self.videos.get(&id.0)
    }

    fn broadcast(&self, id: i64) -> CallResult {
        let broadcast = self.broadcasts.get(&id);
        broadcast.map_or(CallResult::Gone, |(_, status)| CallResult::Broadcast {
            observed: json!({"id": id, "status": status}),
        })
    }

    fn told(&self, id: i64) -> CallResult {
        self.stream(id).map_or(CallResult::Gone, |observed| CallResult::LiveStream { observed })
    }
}
