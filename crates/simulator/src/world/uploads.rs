//! Videos that are no recordings: made from a file that is fetched or uploaded, and changed.

use chrono::TimeDelta;
use serde_json::{Map, Value, json};

use super::accepts::Accepts;
use super::routes::unwrapped;
use super::shelf::{Kind, Start};
use super::video::{Video, VideoStatus};
use super::{ErrorShape, Reply, Request, World, error_body};

/// The fields of a video that a body sets.
pub(super) const KIND: Kind = Kind {
    wrapper: Some("video"),
    fields: &[
        ("name", Accepts::Name, Start::Null),
        ("description", Accepts::Text { max: 65_536 }, Start::Null),
        ("client_user_id", Accepts::Number, Start::Null),
        ("directory_id", Accepts::Number, Start::Null),
        ("quality_set_id", Accepts::Number, Start::Null),
        ("priority", Accepts::NumberIn { min: -10, max: 10 }, Start::Number(0)),
        ("clip_start_seconds", Accepts::Number, Start::Null),
        ("clip_duration_seconds", Accepts::Number, Start::Null),
        ("origin_url", Accepts::Text { max: 8192 }, Start::Null),
        ("projection", Accepts::Name, Start::Word("regular")),
        ("share_url", Accepts::Text { max: 8192 }, Start::Word("")),
        ("custom_iframe_url", Accepts::Text { max: 8192 }, Start::Word("")),
        ("screenshot_id", Accepts::Number, Start::Number(-1)),
    ],
    required: &["name"],
};

/// Most videos of one batch.
const MOST_VIDEOS: usize = 500;
/// How long a fetched file is taken to be.
const FETCHED: TimeDelta = TimeDelta::seconds(60);

impl World {
    /// Makes a video. The API reference answers with a list, the platform's library reads one.
    pub(super) fn create_video(&mut self, request: &Request) -> Reply {
        let Some(body) = request.object() else { return Reply::unreadable() };
        let made = self.make_video(unwrapped(body, "video").unwrap_or_default());
        let as_list = self.behaviour.create_video_answers_list;
        match made {
            Ok(view) if as_list => Reply::ok(json!([view])),
            Ok(view) => Reply::ok(view),
            Err(refusal) => refusal,
        }
    }

    /// Makes many videos; the first bad one refuses them all.
    pub(super) fn create_videos(&mut self, request: &Request) -> Reply {
        let body = request.object().and_then(|mut body| body.remove("videos"));
        let Some(Value::Array(items)) = body else { return Reply::unreadable() };
        if items.len() > MOST_VIDEOS {
            let text = "Bad Request. Too many videos";
            return Reply { status: 400, body: error_body(ErrorShape::B, 400, text) };
        }
        let bodies = items.into_iter().map(|item| match item {
            Value::Object(body) => body,
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => Map::new(),
        });
        let bodies: Vec<_> = bodies.collect();
        for body in &bodies {
            if let Err(refusal) = KIND.filled(body.clone()) {
                return refusal;
            }
        }
        Reply::ok(bodies.into_iter().filter_map(|body| self.make_video(body).ok()).collect())
    }

    /// Changes what the body names, which is flat here.
    pub(super) fn patch_video(&mut self, id: &str, request: &Request) -> Reply {
        let Some(body) = request.object() else { return Reply::unreadable() };
        let now = self.now;
        let video = id.parse().ok().and_then(|id: i64| self.videos.get_mut(&id));
        let Some(video) = video else { return Reply::not_found() };
        if let Err(refusal) = KIND.apply(&mut video.fields, body) {
            return refusal;
        }
        video.updated_at = now;
        Reply::ok(video.view())
    }

    /// Where the file of a video is uploaded to.
    pub(super) fn upload_parameters(&mut self, id: &str) -> Reply {
        let token = self.dice.token();
        match id.parse().ok().and_then(|id: i64| self.videos.get(&id)) {
            Some(video) => Reply::ok(json!({
                "servers": [{"id": 15, "hostname": "upload.gvideo.example"}],
                "token": token,
                "video": video.view(),
            })),
            None => Reply::not_found(),
        }
    }

    /// Makes a video: with an address it is fetched and transcoded, without it waits for its file.
    fn make_video(&mut self, body: Map<String, Value>) -> Result<Value, Reply> {
        let fields = KIND.filled(body)?;
        let is_fetched = fields.get("origin_url").is_some_and(Value::is_string);
        let id = self.next_video;
        self.next_video += 1;
        let video = Video {
            id,
            fields,
            stream_id: None,
            record_type: Value::Null,
            duration: if is_fetched { FETCHED } else { TimeDelta::zero() },
            recording_started_at: None,
            created_at: self.now,
            updated_at: self.now,
            status: if is_fetched { VideoStatus::Pending } else { VideoStatus::Empty },
            error: None,
            renditions: Vec::new(),
            slug: self.dice.slug(),
        };
        let view = video.view();
        self.videos.insert(id, video);
        if is_fetched {
            self.transcoding_is_queued(id);
        }
        Ok(view)
    }
}
