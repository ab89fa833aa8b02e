//! Events: what the log stores, and what it means.
//!
//! A [`RecordedEvent`] is a row of the log; [`Event`] is its meaning, read anew at every fold, so
//! that a better reading improves old history. *Inputs* (webhooks, commands, call outcomes,
//! timers) are stored as observed; *announcements* are what the product hears. Names and versions
//! stand in the log for ever: [`Event::name`] may gain a line and never change one.

use std::borrow::Cow;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use uuid::Uuid;

use crate::announcement::Announcement;
use crate::call::{Call, CallResult};
use crate::cleanup::CleanupEvent;
use crate::ids::{BroadcastId, LiveStreamId, Subject, Timestamp};
use crate::limit::LimitExceeded;
use crate::reconcile::SeenOtherwise;
use crate::slot::SlotEvent;
use crate::timer::TimerKind;
use crate::webhook::{self, Observation, Webhook};

use version::VERSIONS;

mod calls;
mod meta;
mod version;

pub use crate::cleanup::CleanupRequested;
pub use meta::{Meta, is_traceparent};
#[cfg(test)]
pub(crate) use version::current_types;
pub use version::{NewerVersion, readable};

/// An event to append. Its slice follows from its subject.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    /// Made by whoever appends: UUID v7, or derived from the key.
    pub event_id: Uuid,
    /// The grouping key.
    pub subject: Subject,
    /// The event's name in the log, such as `SessionRequested`.
    pub event_type: String,
    /// Version of the payload's shape.
    pub schema_version: i16,
    /// Idempotency key: of all events of a slice with one key, the first is stored.
    pub key: Option<Uuid>,
    /// When the fact reached us; domain time.
    pub received_at: Timestamp,
    /// The event that caused this one.
    pub causation_id: Option<Uuid>,
    /// What started the whole chain.
    pub correlation_id: Option<Uuid>,
    /// About the transport: content type, headers, what was redacted.
    pub meta: Option<Meta>,
    /// The body: raw bytes of a webhook, else JSON.
    pub payload: Vec<u8>,
}

/// An event of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedEvent {
    /// Where it stands: slice.
    pub slice: i16,
    /// Where it stands: dense number in the slice, from 1.
    pub position: i64,
    /// When it was committed, by the database's clock; never falls within a slice.
    pub recorded_at: Timestamp,
    /// When the fact reached us.
    pub received_at: Timestamp,
    /// Its id.
    pub event_id: Uuid,
    /// The grouping key.
    pub subject: Subject,
    /// Its name.
    pub event_type: String,
    /// Version of the payload's shape.
    pub schema_version: i16,
    /// The event that caused it.
    pub causation_id: Option<Uuid>,
    /// What started the whole chain.
    pub correlation_id: Option<Uuid>,
    /// About the transport.
    pub meta: Option<Value>,
    /// The body.
    pub payload: Vec<u8>,
}

/// What a fold reads of an event of the log, borrowed.
#[derive(Debug, Clone, Copy)]
pub struct StoredEvent<'a> {
    /// When the fact reached us.
    pub received_at: Timestamp,
    /// The grouping key.
    pub subject: &'a Subject,
    /// Its name.
    pub event_type: &'a str,
    /// Version of the payload's shape.
    pub schema_version: i16,
    /// The body.
    pub payload: &'a [u8],
}

impl RecordedEvent {
    /// `traceparent` of the trace that it is part of.
    pub fn trace(&self) -> Option<&str> {
        meta::trace(self.meta.as_ref()?)
    }

    /// Slice and position of the event that caused it, where it was forwarded from there.
    pub fn cause_at(&self) -> Option<(i16, i64)> {
        meta::cause_at(self.meta.as_ref()?)
    }

    /// What a fold reads of it.
    pub fn stored(&self) -> StoredEvent<'_> {
        StoredEvent {
            received_at: self.received_at,
            subject: &self.subject,
            event_type: &self.event_type,
            schema_version: self.schema_version,
            payload: &self.payload,
        }
    }
}

/// A session was asked for. Its subject is the request's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionRequested {
    /// The session's id, derived from source and idempotency key.
    pub session: Uuid,
    /// The platform account it runs on.
    pub source: String,
    /// The product's account that owns it, if any: its pseudonym, see [`personal`](crate::personal).
    #[serde(default)]
    pub account: Option<String>,
    /// Its name, shown on the platform; of a session with an account it is sealed.
    pub name: String,
    /// The live stream to reuse; none: a new one is created.
    #[serde(default)]
    pub live_stream: Option<LiveStreamId>,
    /// How it shall run.
    #[serde(default)]
    pub options: SessionOptions,
}

/// How a session shall run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SessionOptions {
    /// Record it.
    pub record: bool,
    /// Go live as soon as the encoder sends, without a test stage.
    pub auto_go_live: bool,
    /// Keep a rewind window for viewers.
    pub dvr: bool,
    /// The platform's transcoding region, where the account may choose one.
    pub transcoding_region: Option<String>,
    /// The platform's quality set.
    pub quality_set_id: Option<i64>,
    /// The product's own number, echoed in webhooks.
    pub client_user_id: Option<i64>,
    /// The product's own data, kept inside the ownership tag.
    pub data: Option<Value>,
    /// The two above, sealed: [`ClientValues`](crate::personal::ClientValues). They are `None` then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sealed: Option<String>,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            record: true,
            auto_go_live: false,
            dvr: false,
            transcoding_region: None,
            quality_set_id: None,
            client_user_id: None,
            data: None,
            sealed: None,
        }
    }
}

/// A session has its live stream. Told to the live stream's subject.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionBound {
    /// What was asked for.
    pub request: SessionRequested,
    /// The live stream it runs on.
    pub live_stream: LiveStreamId,
    /// Whether the live stream was made for it, and not reused.
    pub created: bool,
    /// The live stream as the platform described it on creation.
    #[serde(default)]
    pub observed: Option<Value>,
    /// Go-live was commanded before.
    #[serde(default)]
    pub go_live: bool,
    /// The end was commanded before.
    #[serde(default)]
    pub end: bool,
}

/// A command or a fact about one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRef {
    /// The session.
    pub session: Uuid,
}

/// A video or broadcast learnt which live stream it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// The live stream.
    pub live_stream: LiveStreamId,
}

/// A video or broadcast reports its present state to its live stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VideoChanged {
    /// What is known of the video.
    pub video: webhook::VideoObserved,
}

/// A broadcast reports its present state to its live stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BroadcastChanged {
    /// The broadcast.
    pub broadcast: BroadcastId,
    /// `pending`, `live`, `paused` or `finished`.
    pub status: String,
}

/// A platform call was decided; its job was inserted in the same transaction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallIntended {
    /// The call's id: key of the job, and of the ownership tag where it creates something.
    pub intent: Uuid,
    /// What is to be called.
    pub call: Call,
}

/// A platform call has been made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallSucceeded {
    /// The call's id.
    pub intent: Uuid,
    /// What the platform answered.
    pub result: CallResult,
}

/// A platform call was given up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallFailed {
    /// The call's id.
    pub intent: Uuid,
    /// Why, for people.
    pub reason: String,
}

/// A timer is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimerElapsed {
    /// Which timer.
    pub timer: TimerKind,
    /// Of which wait: a timer of an earlier one is ignored.
    pub generation: u64,
}

/// The product deleted an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountDeleted {
    /// The account's pseudonym.
    pub account: String,
}

/// What is known of an account's person was forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountErased {
    /// The account's pseudonym, which leads to nobody any more.
    pub account: String,
}

/// What is known of a live stream may be out of date or out of order: ask the platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReconcileRequested {
    /// Why, for people.
    pub reason: String,
}

/// A plain job of another service has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobEnded {
    /// The job.
    pub job: Uuid,
    /// Its kind.
    pub kind: String,
    /// Starts it took.
    pub attempt: i32,
    /// What it returned.
    #[serde(default)]
    pub value: Option<Value>,
    /// The last error, where it was discarded; the reason, where it was cancelled.
    #[serde(default)]
    pub error: Option<String>,
}

/// The meaning of an event.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Input: the platform told something.
    WebhookReceived(Webhook),
    /// Command: run a session.
    SessionRequested(SessionRequested),
    /// Command: show it to the audience.
    GoLiveRequested(SessionRef),
    /// Command: end it.
    EndRequested(SessionRef),
    /// Command: try again what failed.
    RetryRequested(SessionRef),
    /// Command: the product's account is gone.
    AccountDeleted(AccountDeleted),
    /// The key of an account's personal values was dropped.
    AccountErased(AccountErased),
    /// Command of a cleanup run.
    CleanupRequested(CleanupRequested),
    /// Command of ingest: ask the platform how the live stream really is.
    ReconcileRequested(ReconcileRequested),
    /// A sweep saw a live stream otherwise than it was known.
    SeenOtherwise(SeenOtherwise),
    /// A session has its live stream.
    SessionBound(SessionBound),
    /// A video or broadcast has its live stream.
    Bound(Bound),
    /// Forwarded from a video.
    VideoChanged(VideoChanged),
    /// Forwarded from a broadcast.
    BroadcastChanged(BroadcastChanged),
    /// A call was decided.
    CallIntended(CallIntended),
    /// A call was made.
    CallSucceeded(CallSucceeded),
    /// A call was given up.
    CallFailed(CallFailed),
    /// A timer is due.
    TimerElapsed(TimerElapsed),
    /// A session waited too long.
    LimitExceeded(LimitExceeded),
    /// Told between live streams and their source's quota.
    Slot(SlotEvent),
    /// A plain job did its work.
    JobCompleted(JobEnded),
    /// A plain job was given up.
    JobDiscarded(JobEnded),
    /// A job was cancelled.
    JobCancelled(JobEnded),
    /// Of a cleanup run.
    Cleanup(CleanupEvent),
    /// What the product hears.
    Announced(Announcement),
    /// A type or a body that this build cannot read: kept, counted, without effect.
    Unrecognized,
}

impl Event {
    /// The event's name in the log.
    pub fn name(&self) -> &'static str {
        match self {
            Self::WebhookReceived(_) => "WebhookReceived",
            Self::SessionRequested(_) => "SessionRequested",
            Self::GoLiveRequested(_) => "GoLiveRequested",
            Self::EndRequested(_) => "EndRequested",
            Self::RetryRequested(_) => "RetryRequested",
            Self::AccountDeleted(_) => "AccountDeleted",
            Self::AccountErased(_) => "AccountErased",
            Self::CleanupRequested(_) => "CleanupRequested",
            Self::ReconcileRequested(_) => "ReconcileRequested",
            Self::SeenOtherwise(_) => "SeenOtherwise",
            Self::SessionBound(_) => "SessionBound",
            Self::Bound(_) => "Bound",
            Self::VideoChanged(_) => "VideoChanged",
            Self::BroadcastChanged(_) => "BroadcastChanged",
            Self::CallIntended(_) => "CallIntended",
            Self::CallSucceeded(_) => "CallSucceeded",
            Self::CallFailed(_) => "CallFailed",
            Self::TimerElapsed(_) => "TimerElapsed",
            Self::LimitExceeded(_) => "LimitExceeded",
            Self::Slot(s) => s.name(),
            Self::JobCompleted(_) => "JobCompleted",
            Self::JobDiscarded(_) => "JobDiscarded",
            Self::JobCancelled(_) => "JobCancelled",
            Self::Cleanup(c) => c.name(),
            Self::Announced(a) => a.name(),
            Self::Unrecognized => "Unrecognized",
        }
    }

    /// The event as stored: name, version and body. Webhooks are stored raw by ingest, so this
    /// form of one holds what was read of it.
    pub fn encode(&self) -> (&'static str, i16, Vec<u8>) {
        let body = match self {
            Self::WebhookReceived(w) => json(&w.observation),
            Self::SessionRequested(b) => json(b),
            Self::GoLiveRequested(b) | Self::EndRequested(b) | Self::RetryRequested(b) => json(b),
            Self::AccountDeleted(b) => json(b),
            Self::AccountErased(b) => json(b),
            Self::CleanupRequested(b) => json(b),
            Self::ReconcileRequested(b) => json(b),
            Self::SeenOtherwise(b) => json(b),
            Self::SessionBound(b) => json(b),
            Self::Bound(b) => json(b),
            Self::VideoChanged(b) => json(b),
            Self::BroadcastChanged(b) => json(b),
            Self::CallIntended(b) => json(b),
            Self::CallSucceeded(b) => json(b),
            Self::CallFailed(b) => json(b),
            Self::TimerElapsed(b) => json(b),
            Self::LimitExceeded(b) => json(b),
            Self::Slot(s) => s.body(),
            Self::JobCompleted(b) | Self::JobDiscarded(b) | Self::JobCancelled(b) => json(b),
            Self::Cleanup(c) => c.body(),
            Self::Announced(a) => a.body(),
            Self::Unrecognized => Vec::new(),
        };
        // What has no version of its own is never stored.
        (self.name(), VERSIONS.of(self.name()).unwrap_or_default(), body)
    }

    /// Reads a stored event. Never fails: what cannot be read is [`Event::Unrecognized`], and so is
    /// a body of a version newer than this build's, which [`readable`] tells apart.
    pub fn decode(stored: &RecordedEvent) -> Self {
        let stored = stored.stored();
        raised(&stored).map_or(Self::Unrecognized, |body| Self::of(stored.event_type, &body))
    }

    /// Reads a stored event for a fold alone: as [`decode`](Self::decode), except that a body which
    /// changes no state of the subject's kind is not parsed, and is [`Event::Unrecognized`].
    pub fn decode_for_fold(stored: StoredEvent<'_>) -> Self {
        let kind = stored.subject.kind_and_id().map_or("", |(kind, _)| kind);
        if !is_folded(kind, stored.event_type) {
            return Self::Unrecognized;
        }
        let Ok(body) = raised(&stored) else { return Self::Unrecognized };
        let bytes = storable(&body);
        let fast = std::str::from_utf8(&bytes).ok().and_then(|text| match stored.event_type {
            "CallIntended" => calls::intended(text).map(Self::CallIntended),
            "CallSucceeded" => calls::succeeded(text).map(Self::CallSucceeded),
            _ => None,
        });
        fast.unwrap_or_else(|| Self::of(stored.event_type, &body))
    }

    /// Reads a body of the current version of its type.
    fn of(event_type: &str, bytes: &[u8]) -> Self {
        match event_type {
            "WebhookReceived" => Self::WebhookReceived(webhook::read(bytes)),
            "SessionRequested" => read(bytes, Self::SessionRequested),
            "GoLiveRequested" => read(bytes, Self::GoLiveRequested),
            "EndRequested" => read(bytes, Self::EndRequested),
            "RetryRequested" => read(bytes, Self::RetryRequested),
            "AccountDeleted" => read(bytes, Self::AccountDeleted),
            "AccountErased" => read(bytes, Self::AccountErased),
            "CleanupRequested" => read(bytes, Self::CleanupRequested),
            "ReconcileRequested" => read(bytes, Self::ReconcileRequested),
            "SeenOtherwise" => read(bytes, Self::SeenOtherwise),
            "SessionBound" => read(bytes, Self::SessionBound),
            "Bound" => read(bytes, Self::Bound),
            "VideoChanged" => read(bytes, Self::VideoChanged),
            "BroadcastChanged" => read(bytes, Self::BroadcastChanged),
            "CallIntended" => read(bytes, Self::CallIntended),
            "CallSucceeded" => read(bytes, Self::CallSucceeded),
            "CallFailed" => read(bytes, Self::CallFailed),
            "TimerElapsed" => read(bytes, Self::TimerElapsed),
            "LimitExceeded" => read(bytes, Self::LimitExceeded),
            "JobCompleted" => read(bytes, Self::JobCompleted),
            "JobDiscarded" => read(bytes, Self::JobDiscarded),
            "JobCancelled" => read(bytes, Self::JobCancelled),
            name if name.starts_with("Slot") => {
                SlotEvent::read(name, bytes).map_or(Self::Unrecognized, Self::Slot)
            }
            name => {
                let announced = Announcement::read(name, bytes).map(Self::Announced);
                let cleanup = || CleanupEvent::read(name, bytes).map(Self::Cleanup);
                announced.or_else(cleanup).unwrap_or(Self::Unrecognized)
            }
        }
    }

    /// What a webhook observed, if this is one.
    pub fn observation(&self) -> Option<&Observation> {
        if let Self::WebhookReceived(webhook) = self { Some(&webhook.observation) } else { None }
    }
}

impl NewEvent {
    /// An event about `subject`, to be completed by its causes. Without a key its id is `id`;
    /// with one its id follows from the key, so that a repeat can be named.
    pub fn new(subject: Subject, event: &Event, received_at: Timestamp, id: Uuid) -> Self {
        let (name, schema_version, payload) = event.encode();
        Self {
            event_id: id,
            subject,
            event_type: name.to_owned(),
            schema_version,
            key: None,
            received_at,
            causation_id: None,
            correlation_id: None,
            meta: None,
            payload,
        }
    }

    /// The same event, stored once for `key`.
    #[must_use]
    pub fn with_key(mut self, key: Uuid) -> Self {
        self.event_id = crate::ids::derived_id("event", &[&key.to_string()]);
        self.key = Some(key);
        self
    }

    /// The same event, caused by `cause` and part of its trace.
    #[must_use]
    pub fn caused_by(mut self, cause: &RecordedEvent) -> Self {
        self.causation_id = Some(cause.event_id);
        self.correlation_id = Some(cause.correlation_id.unwrap_or(cause.event_id));
        self.meta = self.meta.or_else(|| Meta::of_trace(cause.trace()?));
        self
    }
}

/// The body in the current version of its type.
fn raised<'a>(stored: &StoredEvent<'a>) -> Result<Cow<'a, [u8]>, NewerVersion> {
    VERSIONS.raise(stored.event_type, stored.schema_version, stored.payload)
}

/// Whether a fold of a subject of `kind` reads events of this name. Others, announcements foremost,
/// tell nothing that its state does not know; that they came is all that is folded of them.
fn is_folded(kind: &str, name: &str) -> bool {
    let call = matches!(name, "CallIntended" | "CallSucceeded" | "CallFailed");
    let told = name == "WebhookReceived";
    let command = matches!(name, "GoLiveRequested" | "EndRequested" | "RetryRequested");
    match kind {
        "request" => call || command || name == "SessionRequested",
        "stream" => {
            let forwarded = matches!(name, "SessionBound" | "VideoChanged" | "BroadcastChanged");
            let other = matches!(name, "CleanupRequested" | "ReconcileRequested" | "TimerElapsed");
            let other = other
                || matches!(name, "LimitExceeded" | "SlotGranted" | "SlotQueued" | "SeenOtherwise");
            told || call || command || forwarded || other
        }
        "video" => told || call || matches!(name, "Bound" | "VideoDeleted"),
        "broadcast" => told || name == "Bound",
        "account" => matches!(name, "AccountDeleted" | "AccountErased"),
        "quota" => {
            let slot = matches!(name, "SlotRequested" | "SlotReleased" | "SlotsConfigured");
            call || slot || name == "TimerElapsed"
        }
        "cleanup" => {
            matches!(name, "CleanupStarted" | "CleanupJudged" | "CleanupListed" | "CleanupSettled")
        }
        _ => false,
    }
}

/// Serializes a body. Our own types always can be; an empty body would be read as unrecognized.
pub(crate) fn json<T: Serialize>(body: &T) -> Vec<u8> {
    serde_json::to_vec(body).unwrap_or_default()
}

/// Reads a body into the event that `wrap` makes of it.
fn read<T: DeserializeOwned>(bytes: &[u8], wrap: impl FnOnce(T) -> Event) -> Event {
    let bytes = storable(bytes);
    // Checked as a whole, the encoding costs a fraction of checking it text by text.
    let read = match std::str::from_utf8(&bytes) {
        Ok(text) => serde_json::from_str(text),
        Err(_) => serde_json::from_slice(&bytes),
    };
    read.map_or(Event::Unrecognized, wrap)
}

/// The body without U+0000, which texts of the platform may carry (error messages, observed
/// objects) and PostgreSQL's `jsonb`, where states live, refuses.
pub(crate) fn storable(bytes: &[u8]) -> Cow<'_, [u8]> {
    // Every body passes here, and nearly none has one.
    if memchr::memmem::find(bytes, b"\\u0000").is_none() {
        return Cow::Borrowed(bytes);
    }
    Cow::Owned(String::from_utf8_lossy(bytes).replace("\\u0000", "\\ufffd").into_bytes())
}

#[cfg(test)]
mod tests;
