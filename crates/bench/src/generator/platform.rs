//! The platform of a history: the truth about its objects, the answers to calls, the bodies of
//! webhooks, as large and with the fields that the real ones have after our client and redaction.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{SecondsFormat, TimeDelta};
use domain::call::{Call, CallResult};
use domain::ids::Timestamp;
use domain::webhook::Tag;
use serde_json::{Value, json};
use uuid::Uuid;

/// The first live stream's id is above this.
const FIRST_STREAM: i64 = 2_000_000;

/// The first broadcast's id is above this.
const FIRST_BROADCAST: i64 = 500_000;

/// The first video's id is above this.
const FIRST_VIDEO: i64 = 8_000_000;

/// Renditions of a video.
const RENDITIONS: [&str; 4] = ["vod360n", "vod480n", "vod720n", "vod1080n"];

/// A live stream as it really is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Truth {
    name: String,
    tag: String,
    active: bool,
    /// Whether the encoder sends.
    pub(crate) live: bool,
    /// Since when a recording runs.
    pub(crate) recording: Option<Timestamp>,
    broadcast: Option<i64>,
    videos: Vec<i64>,
    created_at: Timestamp,
    came_up_at: Option<Timestamp>,
    went_down_at: Option<Timestamp>,
}

/// A video.
#[derive(Debug, Clone)]
struct Video {
    stream: i64,
    name: String,
    status: &'static str,
    began: Timestamp,
    took: TimeDelta,
}

/// What a call leads to on the platform, some time later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// The encoder is let in.
    Activated(i64),
    /// The encoder is shut out.
    Deactivated(i64),
    /// The recording runs.
    Recording(i64),
    /// The recording has stopped; its file became a video.
    Stopped(i64, Option<i64>),
}

/// All objects of an account.
#[derive(Debug)]
pub(crate) struct Platform {
    installation: Uuid,
    streams: HashMap<i64, Truth>,
    videos: HashMap<i64, Video>,
    last_stream: i64,
    last_broadcast: i64,
    last_video: i64,
}

impl Platform {
    /// An empty account; objects that we create there carry the tag of `installation`. Its ids are
    /// none of the `before` sessions that earlier histories of the log may have.
    pub(crate) fn new(installation: Uuid, before: u64) -> Self {
        // A session makes at most one live stream and broadcast, and at most 8 files.
        let before = i64::try_from(before).unwrap_or_default();
        Self {
            installation,
            streams: HashMap::new(),
            videos: HashMap::new(),
            last_stream: FIRST_STREAM + before,
            last_broadcast: FIRST_BROADCAST + before,
            last_video: FIRST_VIDEO + 8 * before,
        }
    }

    /// A live stream.
    pub(crate) fn stream(&mut self, id: i64) -> &mut Truth {
        self.streams.entry(id).or_default()
    }

    /// Does what is called for and answers, with what it leads to.
    pub(crate) fn obey(
        &mut self,
        call: &Call,
        intent: Uuid,
        now: Timestamp,
    ) -> (CallResult, Option<Effect>) {
        match call {
            Call::CreateLiveStream { name, .. } => (self.create(name, intent, now), None),
            Call::UpdateLiveStream { live_stream, name, .. } => {
                self.stream(live_stream.0).name.clone_from(name);
                (self.told(live_stream.0), None)
            }
            Call::ObserveLiveStream { live_stream } => (self.told(live_stream.0), None),
            Call::ActivateLiveStream { live_stream } => {
                self.stream(live_stream.0).active = true;
                (self.told(live_stream.0), Some(Effect::Activated(live_stream.0)))
            }
            Call::DeactivateLiveStream { live_stream } => {
                self.stream(live_stream.0).active = false;
                // `live` lags behind `active`: it is told as it was.
                (self.told(live_stream.0), Some(Effect::Deactivated(live_stream.0)))
            }
            Call::CreateBroadcast { live_stream, name, .. } => {
                self.last_broadcast += 1;
                let id = self.last_broadcast;
                self.stream(live_stream.0).broadcast = Some(id);
                (broadcast(id, name, "pending"), None)
            }
            Call::SetBroadcastStatus { broadcast: id, status } => {
                (broadcast(id.0, "", status), None)
            }
            Call::StartRecording { live_stream } => {
                let result = CallResult::RecordingStarted { warnings: Vec::new() };
                (result, Some(Effect::Recording(live_stream.0)))
            }
            Call::StopRecording { live_stream, .. } => {
                let video = self.close_file(live_stream.0, now);
                let observed = video.map(|id| self.video(id));
                let result = CallResult::RecordingStopped { video: observed };
                (result, Some(Effect::Stopped(live_stream.0, video)))
            }
            Call::ListVideos { live_stream } => {
                let videos = self.stream(live_stream.0).videos.clone();
                let observed = videos.iter().map(|id| self.video(*id)).collect();
                (CallResult::Videos { observed }, None)
            }
            Call::FetchVideo { video } if self.videos.contains_key(&video.0) => {
                (CallResult::Video { observed: self.video(video.0) }, None)
            }
            Call::FetchVideo { .. } | Call::ObserveBroadcast { .. } => (CallResult::Gone, None),
            Call::ObserveQuota { .. } => {
                let (active, inactive) = (Vec::new(), Vec::new());
                (CallResult::ActiveStreams { active, inactive }, None)
            }
            Call::ProbeLiveStream { .. } => {
                (CallResult::AirTimes { times: Vec::new(), precision_s: 10 }, None)
            }
            Call::ClearDvr { .. } | Call::DeleteBroadcast { .. } => (CallResult::Done, None),
            Call::DeleteLiveStream { .. } => (CallResult::Deleted { videos: Vec::new() }, None),
            Call::DeleteRecordings { videos, .. } => {
                (CallResult::RecordingsDeleted { videos: videos.clone(), kept: Vec::new() }, None)
            }
        }
    }

    fn create(&mut self, name: &str, intent: Uuid, now: Timestamp) -> CallResult {
        self.last_stream += 1;
        let id = self.last_stream;
        let tag = Tag::new(self.installation, intent, Some(json!({"course": "algebra"}))).text();
        let truth = Truth { name: name.to_owned(), tag, created_at: now, ..Truth::default() };
        self.streams.insert(id, truth);
        self.told(id)
    }

    /// Sets whether the encoder sends, and when that was.
    pub(crate) fn set_live(&mut self, id: i64, live: bool, now: Timestamp) {
        let truth = self.stream(id);
        truth.live = live;
        *(if live { &mut truth.came_up_at } else { &mut truth.went_down_at }) = Some(now);
    }

    /// Ends the file of a running recording; returns the video that it became.
    pub(crate) fn close_file(&mut self, id: i64, now: Timestamp) -> Option<i64> {
        let truth = self.streams.get_mut(&id)?;
        let began = truth.recording.take()?;
        self.last_video += 1;
        truth.videos.push(self.last_video);
        let name = format!("Stream Record: {}, {}", truth.name, now.format("%Y-%m-%d %H:%M:%S %z"));
        let video = Video { stream: id, name, status: "empty", began, took: now - began };
        self.videos.insert(self.last_video, video);
        Some(self.last_video)
    }

    /// Sets how far a video is.
    pub(crate) fn set_video(&mut self, id: i64, status: &'static str) {
        if let Some(video) = self.videos.get_mut(&id) {
            video.status = status;
        }
    }

    /// A live stream as the API tells it, after our client has taken the secrets out.
    fn told(&self, id: i64) -> CallResult {
        let truth = self.streams.get(&id).cloned().unwrap_or_default();
        let page = format!("https://acme.gvideo.io/streams/2675_{id}");
        let manifest = format!("https://acme.gvideo.io/cmaf/2675_{id}");
        CallResult::LiveStream {
            observed: json!({
                "id": id, "name": truth.name, "active": truth.active, "live": truth.live,
                "backup_live": false, "recording": truth.recording.is_some(),
                "auto_record": false, "pull": false, "dvr_enabled": false,
                "client_user_id": 17, "client_entity_data": truth.tag,
                "broadcast_ids": truth.broadcast.into_iter().collect::<Vec<_>>(),
                "stream_source_type": truth.live.then_some("srt"),
                "created_at": written(truth.created_at),
                "started_at_primary": truth.came_up_at.map(written),
                "finished_at_primary": truth.went_down_at.map(written),
                "iframe_url": page, "dash_url": format!("{manifest}/index.mpd"),
                "hls_cmaf_url": format!("{manifest}/master.m3u8"),
                "hls_mpegts_url": format!("{manifest}/master_mpegts.m3u8"),
            }),
        }
    }

    /// A video as the API tells it.
    fn video(&self, id: i64) -> Value {
        let Some(video) = self.videos.get(&id) else { return Value::Null };
        json!({
            "id": id, "name": video.name, "slug": format!("MTdaAbW7IzBs{id}"),
            "status": video.status, "duration": video.took.num_milliseconds(),
            "stream_id": video.stream, "recording_started_at": written(video.began),
            "created_at": written(video.began + video.took), "client_user_id": 17,
            "converted_videos": renditions(video.status),
            "hls_url": format!("https://acme.gvideo.io/videos/2675_MTdaAbW7IzBs{id}/master.m3u8"),
            "iframe_url": format!("https://acme.gvideo.io/videos/2675_MTdaAbW7IzBs{id}"),
        })
    }

    /// A webhook that tells a live stream as it is.
    pub(crate) fn stream_webhook(&self, id: i64) -> Vec<u8> {
        let truth = self.streams.get(&id).cloned().unwrap_or_default();
        let body = json!({"type": "stream", "message": {"stream": {
            "id": id, "live": truth.live, "backup_live": false,
            "recording": truth.recording.is_some(), "client_user_id": 17,
            "client_entity_data": truth.tag, "pull": false,
            "uri": format!("srt://vp-push-ed1-srt.gvideo.co:5001?streamid={id}#aaabbbcccddd"),
            "stream_source_type": truth.live.then_some("srt"), "transcoding": truth.live,
        }}});
        body.to_string().into_bytes()
    }

    /// A webhook that tells a video as it is.
    pub(crate) fn video_webhook(&self, id: i64) -> Vec<u8> {
        let Some(video) = self.videos.get(&id) else { return Vec::new() };
        let body = json!({"type": "video", "message": {"video": {
            "id": id, "slug": format!("MTdaAbW7IzBs{id}"), "name": video.name,
            "duration": video.took.num_milliseconds(), "stream_id": video.stream,
            "status": video.status, "converted_videos": renditions(video.status),
        }}});
        body.to_string().into_bytes()
    }
}

fn broadcast(id: i64, name: &str, status: &str) -> CallResult {
    CallResult::Broadcast {
        observed: json!({
            "id": id, "name": name, "status": status, "client_user_id": 17,
            "share_url": null, "pending_message": "", "show_dvr_after_finish": false,
            "iframe_url": format!("https://acme.gvideo.io/broadcasts/2675_{id}"),
        }),
    }
}

/// Renditions of a video in a status: viewable means that half of them are there.
fn renditions(status: &str) -> Vec<Value> {
    let complete = match status {
        "viewable" => 2,
        "ready" => RENDITIONS.len(),
        _ => return Vec::new(),
    };
    let rendition = |(n, name): (usize, &&str)| json!({"name": name, "status": if n < complete { "complete" } else { "processing" }});
    RENDITIONS.iter().enumerate().map(rendition).collect()
}

/// A time as the platform writes it.
fn written(time: Timestamp) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Time until the platform tells of a video after its file was closed, with its status by then.
pub(crate) const VIDEO_TOLD: [(Duration, &str); 3] = [
    (Duration::from_secs(4), "pending"),
    (Duration::from_secs(70), "viewable"),
    (Duration::from_secs(190), "ready"),
];
