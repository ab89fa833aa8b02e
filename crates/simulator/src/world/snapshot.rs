//! Webhooks: snapshots of state without identity, time or signature.
//!
//! A *webhook* is decided when something changes and leaves in the order of the changes. The world
//! decides each one once; sending, losing and repeating it is not its job.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::live_stream::LiveStream;
use super::video::Video;
use super::{World, timestamp};
use crate::UserIdForm;

/// Nominal seconds after which a change made by a request is told: usually after its answer.
const AFTER_THE_ANSWER_S: (f64, f64) = (0.2, 0.5);

/// One webhook to send.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Webhook {
    /// When it leaves; never earlier than the one before.
    pub(crate) due: DateTime<Utc>,
    /// The value of `type`.
    pub(crate) kind: &'static str,
    /// The id of the object it tells of.
    pub(crate) about: i64,
    /// The whole body.
    pub(crate) body: Value,
    /// True: the request that caused it is answered after it was delivered.
    pub(crate) before_answer: bool,
}

impl World {
    /// Tells a stream's state now, if it differs from what was told last.
    pub(super) fn tell_stream(&mut self, id: i64) {
        self.tell_stream_after(id, 0.0);
    }

    /// Tells a stream's state as it is now, but a moment later.
    pub(super) fn tell_stream_soon(&mut self, id: i64) {
        let (low, high) = AFTER_THE_ANSWER_S;
        let delay = self.dice.between(low, high);
        self.tell_stream_after(id, delay);
    }

    /// Decides a stream webhook.
    fn tell_stream_after(&mut self, id: i64, nominal_seconds: f64) {
        let now = self.now;
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let to_tell = stream.to_tell();
        if to_tell == stream.told {
            return;
        }
        stream.told = to_tell;
        stream.past.push((now, to_tell));
        let stream = stream.clone();
        let body = self.stream_snapshot(&stream);
        self.send(("stream", id), &json!({"stream": body}), nominal_seconds, false);
    }

    /// Returns the body of a stream webhook.
    fn stream_snapshot(&self, stream: &LiveStream) -> Value {
        if self.behaviour.legacy_stream_webhooks {
            let (live, recording) = (stream.primary.live, stream.is_recording());
            return json!({"id": stream.id, "live": live, "recording": recording});
        }
        let user_id = stream.options.value("client_user_id");
        let user_id = match self.behaviour.user_id_form {
            UserIdForm::Integer => user_id,
            UserIdForm::Text if user_id.is_null() => user_id,
            UserIdForm::Text => user_id.to_string().into(),
            UserIdForm::Null => Value::Null,
        };
        let push = self.behaviour.source_type;
        json!({
            "id": stream.id,
            "live": stream.primary.live,
            "backup_live": stream.backup.live,
            "recording": stream.is_recording(),
            "client_user_id": user_id,
            "client_entity_data": stream.options.value("client_entity_data"),
            "pull": stream.is_pull(),
            "uri": stream.source_uri(push),
            "stream_source_type": stream.source_type(push),
            "transcoding": stream.transcoding,
        })
    }

    /// Tells a video's state.
    pub(super) fn tell_video(&mut self, id: i64) {
        let Some(video) = self.videos.get(&id) else { return };
        let body = video_snapshot(video, self.behaviour.legacy_video_webhooks);
        self.send(("video", id), &json!({"video": body}), 0.0, false);
    }

    /// Tells that a video is gone: the only webhook with a time in it.
    pub(super) fn tell_video_deleted(&mut self, video: &Video) {
        let body = json!({
            "id": video.id,
            "slug": video.slug,
            "name": video.name(),
            "status": video.status.word(),
            "deleted_at": timestamp(self.now),
        });
        let (low, high) = AFTER_THE_ANSWER_S;
        let delay = self.dice.between(low, high);
        self.send(("video_delete", video.id), &json!({"video": body}), delay, false);
    }

    /// Tells a broadcast's new status, before the request that set it is answered: so its place in a
    /// receiver's log is certain.
    pub(super) fn tell_broadcast(&mut self, id: i64, status: &Value) {
        let body = json!({"broadcast": {"id": id, "status": status}});
        self.send(("broadcast", id), &body, 0.0, true);
    }

    /// Tells whether a restream is sent.
    pub(super) fn tell_restream(&mut self, id: i64) {
        let Some(row) = self.restreams.get(&id.to_string()) else { return };
        let body = json!({
            "id": id, "name": row["name"], "stream_id": row["stream_id"], "live": row["live"],
        });
        self.send(("restream", id), &json!({"restream": body}), 0.0, false);
    }

    /// Puts a webhook into the outbox.
    fn send(
        &mut self,
        (kind, about): (&'static str, i64),
        message: &Value,
        nominal_seconds: f64,
        before_answer: bool,
    ) {
        if self.is_down() {
            return;
        }
        let due = self.pace.after(self.now, nominal_seconds).max(self.last_due);
        self.last_due = due;
        let body = json!({"type": kind, "message": message});
        self.outbox.push(Webhook { due, kind, about, body, before_answer });
    }
}

/// Returns the body of a video webhook. The oldest form has no renditions while it is pending.
fn video_snapshot(video: &Video, legacy: bool) -> Value {
    let mut body = json!({
        "id": video.id,
        "slug": video.slug,
        "name": video.name(),
        "duration": video.duration.num_milliseconds(),
        "status": video.status.word(),
    });
    let renditions = video.renditions.iter().map(|rendition| {
        let mut view = json!({"name": rendition.name, "status": rendition.status.word()});
        if !legacy {
            view["mp4_url"] = video.mp4_url(rendition).into();
        }
        view
    });
    if !legacy {
        body["stream_id"] = video.stream_id.into();
    }
    if !legacy || !video.renditions.is_empty() {
        body["converted_videos"] = renditions.collect();
    }
    body
}
