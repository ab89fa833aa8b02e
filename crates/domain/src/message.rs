//! Messages: announcements as the product reads them, over a webhook or the feed, in one form.
//!
//! A *message* has an id that stays the same wherever and however often it is told, a type that the
//! product knows it by (its *topic*), and a `sequence` that grows among the messages about one live
//! stream. Not its job: who is told, which is `endpoint`; opening personal values, which the store
//! does before.

use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::announcement::{
    Announcement, CleanupNews, CleanupRunNews, PartNews, QuotaNews, SessionNews, topic,
};
use crate::event::{Event, RecordedEvent};
use crate::ids::Timestamp;
use crate::session::Known;

/// The type of a message that only tries an endpoint.
pub const TEST: &str = "endpoint.test";

/// How ids of messages begin.
const PREFIX: &str = "evt_";

/// A message for the product. Its JSON is what a webhook carries and what the feed lists.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Message {
    /// The same wherever and however often it is told.
    pub id: String,
    /// Its topic, such as `session.live`.
    #[serde(rename = "type")]
    pub topic: &'static str,
    /// When what it tells of was known.
    pub timestamp: Timestamp,
    /// Grows among the messages about one live stream.
    pub sequence: i64,
    /// What it tells.
    pub data: Value,
}

/// Where the event of a message stands, read from the message's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageId {
    /// The slice.
    pub slice: i16,
    /// The position in it.
    pub position: i64,
    /// The last bytes of the event's id: after a restore another event may stand at the position.
    check: u32,
}

impl MessageId {
    /// The id of the message that `stored` is told by.
    pub fn of(stored: &RecordedEvent) -> Self {
        Self::at(stored.slice, stored.position, stored.event_id)
    }

    /// The id of the message that the event of this id, slice and position is told by.
    pub fn at(slice: i16, position: i64, event_id: Uuid) -> Self {
        Self { slice, position, check: check(event_id) }
    }

    /// Reads an id; `None`: it is none of an announcement.
    pub fn read(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix(PREFIX)?.split('_');
        let (slice, position) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let check = u32::from_str_radix(parts.next()?, 16).ok()?;
        let id = Self { slice, position, check };
        // One id has one spelling.
        (slice >= 0 && position > 0 && id.to_string() == text).then_some(id)
    }

    /// Whether it is the id of the message of `stored`.
    pub fn is_of(self, stored: &RecordedEvent) -> bool {
        self == Self::of(stored)
    }
}

impl std::fmt::Display for MessageId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{PREFIX}{}_{}_{:08x}", self.slice, self.position, self.check)
    }
}

fn check(id: Uuid) -> u32 {
    let [.., a, b, c, d] = *id.as_bytes();
    u32::from_be_bytes([a, b, c, d])
}

impl Message {
    /// The message of a stored event; `None`: the product is not meant to hear of it. Personal
    /// values are told as they stand in it.
    pub fn of(stored: &RecordedEvent) -> Option<Self> {
        let topic = topic(&stored.event_type)?;
        let Event::Announced(announcement) = Event::decode(stored) else { return None };
        Some(Self {
            id: MessageId::of(stored).to_string(),
            topic,
            timestamp: stored.received_at,
            sequence: stored.position,
            data: data(stored.subject.source(), &announcement),
        })
    }

    /// A message that tries `endpoint`; `id` is that of its job.
    pub fn test(endpoint: Uuid, id: Uuid, at: Timestamp) -> Self {
        Self {
            id: format!("{PREFIX}test_{}", id.simple()),
            topic: TEST,
            timestamp: at,
            sequence: 0,
            data: json!({ "endpoint": endpoint }),
        }
    }

    /// The body that is sent, and signed byte by byte.
    pub fn body(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// What a message tells, in the names of the API.
fn data(source: &str, announcement: &Announcement) -> Value {
    match announcement {
        Announcement::SessionReady(news) | Announcement::SessionInterrupted(news) => {
            let mut data = session(source, news);
            // The address of the push addresses: secrets are told nowhere else.
            data["ingest"] = format!("/v1/sessions/{}/ingest", news.session).into();
            data
        }
        Announcement::SessionTestStarted(news)
        | Announcement::SessionWentLive(news)
        | Announcement::SessionResumed(news)
        | Announcement::SessionStopped(news)
        | Announcement::SessionEnded(news)
        | Announcement::SessionFailed(news)
        | Announcement::SessionUnstable(news)
        | Announcement::RecordingReady(news) => session(source, news),
        Announcement::QuotaWaiting(news) => quota(source, news),
        Announcement::RecordingPartReady(news)
        | Announcement::RecordingPartOverdue(news)
        | Announcement::RecordingPartDeleted(news) => part(source, news),
        Announcement::CleanupDone(news) => cleanup(source, news),
        Announcement::CleanupFinished(news) => cleanup_run(source, news),
        Announcement::EndpointDisabled(news) => {
            json!({ "endpoint": news.endpoint, "reason": news.reason })
        }
    }
}

fn session(source: &str, news: &SessionNews) -> Value {
    let mut data = json!({
        "session": news.session, "source": source, "live_stream_id": news.live_stream,
        "account": news.account, "note": news.note,
    });
    if let Some(Known { at, source, within_ms }) = news.derived {
        data["derived"] = json!({ "at": at, "source": source.name(), "within_ms": within_ms });
    }
    data
}

fn quota(source: &str, news: &QuotaNews) -> Value {
    json!({
        "session": news.session, "source": source, "live_stream_id": news.live_stream,
        "account": news.account, "note": news.note, "place": news.place,
    })
}

fn part(source: &str, news: &PartNews) -> Value {
    json!({
        "session": news.session, "source": source, "account": news.account, "part": news.part,
        "video_id": news.video, "status": news.status, "duration_ms": news.duration_ms,
    })
}

fn cleanup(source: &str, news: &CleanupNews) -> Value {
    json!({
        "run": news.run, "source": source, "live_stream_id": news.live_stream,
        "account": news.account, "deleted": news.deleted, "video_ids": news.videos,
        "reason": news.reason,
    })
}

fn cleanup_run(source: &str, news: &CleanupRunNews) -> Value {
    json!({
        "run": news.run, "source": source, "policy": news.policy, "dry_run": news.dry_run,
        "looked_at": news.looked_at, "proposed": news.proposed, "left": news.left,
        "deleted": news.deleted, "videos_deleted": news.videos_deleted, "kept": news.kept,
    })
}

#[cfg(test)]
mod tests;
