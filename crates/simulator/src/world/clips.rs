//! Clips: pieces cut out of the rewind window of a stream that has one, and the video made of each.

use crate::ClipVideo;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::truth::Origin;
use super::{CLIENT_ID, ErrorShape, Reply, Request, World, error_body, timestamp};

/// How long a clip can be fetched after its end, unless the request says.
const DEFAULT_LIFE: TimeDelta = TimeDelta::hours(1);

/// One clip.
#[derive(Clone, Debug)]
pub(super) struct Clip {
    id: String,
    /// The stream that it is cut out of.
    pub(super) stream: i64,
    created_at: DateTime<Utc>,
    start: i64,
    duration: i64,
    expiration: i64,
    video: Option<i64>,
}

impl Clip {
    /// Returns the clip as the API answers it.
    fn view(&self) -> Value {
        let base = format!(
            "https://demo.gvideo.example/rec/{CLIENT_ID}_{}/rec_{}_qsid42_master",
            self.stream, self.id
        );
        json!({
            "id": self.id,
            "created_at": timestamp(self.created_at),
            "start": self.start,
            "duration": self.duration,
            "expiration": self.expiration,
            "vod_required": self.video.is_some(),
            "video_id": self.video,
            "renditions": ["media_1_360", "media_2_720"],
            "hls_master": format!("{base}.m3u8"),
            "mp4_master": format!("{base}.mp4"),
        })
    }
}

impl World {
    /// The clips of a stream that can still be fetched.
    pub(super) fn list_clips(&self, stream: i64) -> Reply {
        let now = self.now.timestamp();
        let clips = self.clips.iter().filter(|clip| clip.stream == stream && clip.expiration > now);
        Reply::ok(clips.map(Clip::view).collect())
    }

    /// Cuts a clip; it is there at once, its video takes its time.
    pub(super) fn create_clip(&mut self, stream: i64, request: &Request) -> Reply {
        let Some(body) = request.object() else { return Reply::unreadable() };
        let has_window =
            self.streams.get(&stream).is_some_and(|one| one.options.flag("dvr_enabled"));
        if !has_window {
            return refused("Unprocessable Entity. DVR is disabled for this stream");
        }
        let number = |field| body.get(field).and_then(Value::as_i64);
        let Some(duration) = number("duration").filter(|seconds| *seconds > 0) else {
            return refused("Unprocessable Entity. Duration is not valid");
        };
        let start = number("start").unwrap_or(self.now.timestamp());
        let end = start.saturating_add(duration);
        let expiration = number("expiration").unwrap_or(end + DEFAULT_LIFE.num_seconds());
        if !(end + 60..=end + 4 * 60 * 60).contains(&expiration) {
            return refused("Unprocessable Entity. Expiration is not valid");
        }
        let wants_video = body.get("vod_required").and_then(Value::as_bool).unwrap_or(true);
        let began = DateTime::from_timestamp(start, 0).unwrap_or(self.now);
        let video = wants_video.then(|| self.add_clip_video(stream, began, duration.min(14_400)));
        let id = self.dice.slug().to_ascii_lowercase();
        let created_at = self.now;
        let clip = Clip { id, stream, created_at, start, duration, expiration, video };
        let view = clip.view();
        self.clips.push(clip);
        Reply::ok(view)
    }
}

impl World {
    /// Makes the video of a clip. It is a video of its own and no part of a recording, whatever it
    /// says of the stream.
    fn add_clip_video(&mut self, stream: i64, began: DateTime<Utc>, seconds: i64) -> i64 {
        let id = self.add_recorded_video(stream, began, TimeDelta::seconds(seconds));
        self.ledger.video_made(id, stream, Origin::Clip);
        if let Some(video) = self.videos.get_mut(&id) {
            let name = video.name().replacen("Stream Record", "Clip", 1);
            video.fields.insert("name".to_owned(), name.into());
            if self.behaviour.clip_video == ClipVideo::Plain {
                video.stream_id = None;
                video.recording_started_at = None;
                video.record_type = Value::Null;
            }
        }
        id
    }
}

/// 422 in shape B.
fn refused(text: &str) -> Reply {
    Reply { status: 422, body: error_body(ErrorShape::B, 422, text) }
}
