//! Effects: what `decide` wants done, as values. `worker/react.rs` alone performs them.

use std::time::Duration;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::announcement::Announcement;
use crate::call::Call;
use crate::event::{CallIntended, Event, Meta, NewEvent, RecordedEvent, TimerElapsed};
use crate::ids::{Subject, Timestamp, derived_id, intent_id};
use crate::limit::LimitExceeded;
use crate::retry;
use crate::timer::TimerKind;

/// Job kind whose only effect is an append to its own subject when due.
pub const TIMER: &str = "timer";

/// Job kind whose only effect is an append to a subject of another slice.
pub const FORWARD: &str = "forward";

/// Kind of the jobs whose effect is a word to a job of another slice, which waits for it.
pub const RELAY: &str = "relay";

/// Something to be done.
#[must_use]
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Insert a job.
    Enqueue(NewJob),
    /// Append an event to the subject at hand.
    Append(NewEvent),
    /// Cancel the job of a platform call of the subject at hand, if it is live. Its end is told as
    /// that of a call that was given up.
    Cancel(Uuid),
}

/// A job to insert. Its slice follows from its subject.
#[derive(Debug, Clone, PartialEq)]
pub struct NewJob {
    /// Inserting an id twice inserts once.
    pub id: Uuid,
    /// Which handler runs it.
    pub kind: String,
    /// What it is about; jobs of one subject that call the platform run one at a time.
    pub subject: Subject,
    /// The handler's arguments.
    pub args: Value,
    /// When it is due.
    pub run_at: Timestamp,
    /// 1 (first) to 4.
    pub priority: i16,
    /// Failures after which it is discarded.
    pub max_attempts: i32,
    /// The key of the event that stands for this job: where that key was claimed before, the job
    /// was enqueued before, and perhaps done, and is not inserted again.
    pub once_for: Option<Uuid>,
    /// The event that caused it.
    pub causation_id: Option<Uuid>,
    /// What started the whole chain.
    pub correlation_id: Option<Uuid>,
    /// `traceparent` of the trace that it is part of.
    pub trace: Option<String>,
}

/// Arguments of a job that makes a platform call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallArgs {
    /// The call's id.
    pub intent: Uuid,
    /// What to call.
    pub call: Call,
    /// When it is given up, if it has failed or been put off until then; none: its attempts decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// Arguments of a [`FORWARD`] job: the event to append elsewhere, once for its key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ForwardArgs {
    /// Where to.
    pub subject: Subject,
    /// Its name.
    pub event_type: String,
    /// Version of its shape.
    pub schema_version: i16,
    /// Idempotency key.
    pub key: Uuid,
    /// When the fact reached us.
    pub received_at: Timestamp,
    /// The event that caused it.
    pub causation_id: Option<Uuid>,
    /// What started the whole chain.
    pub correlation_id: Option<Uuid>,
    /// Its body.
    pub payload: Value,
    /// Slice and position of the event that caused it, by which it is found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause_at: Option<(i16, i64)>,
    /// `traceparent` of the trace that it is part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

impl ForwardArgs {
    /// The event to append.
    pub fn event(&self) -> NewEvent {
        let event = NewEvent {
            event_id: self.key,
            subject: self.subject.clone(),
            event_type: self.event_type.clone(),
            schema_version: self.schema_version,
            key: None,
            received_at: self.received_at,
            causation_id: self.causation_id,
            correlation_id: self.correlation_id,
            meta: Meta::of_forward(self.trace.as_deref(), self.cause_at),
            payload: serde_json::to_vec(&self.payload).unwrap_or_default(),
        };
        event.with_key(self.key)
    }
}

/// Collects the effects of one event, with its causes.
pub(crate) struct Effects<'a> {
    cause: &'a RecordedEvent,
    at: Timestamp,
    list: Vec<Effect>,
    forwards: u16,
}

impl<'a> Effects<'a> {
    /// None yet, all to be caused by `cause`. `at` is the subject's domain time: it never runs
    /// backwards, so what a subject forwards is due in the order of its events.
    pub(crate) fn of(cause: &'a RecordedEvent, at: Timestamp) -> Self {
        Self { cause, at, list: Vec::new(), forwards: 0 }
    }

    /// All of them, in order.
    pub(crate) fn into_list(self) -> Vec<Effect> {
        self.list
    }

    /// Makes the `n`th platform call of the subject at hand: the intent and its job, once. It is
    /// tried for `limit` from now: by the log's clock, since a spool may be drained late.
    pub(crate) fn call(&mut self, n: u64, call: Call, limit: Option<Duration>) {
        let intent = intent_id(&self.cause.subject, n);
        let max = if call.is_read() { retry::MAX_READ_ATTEMPTS } else { retry::MAX_ATTEMPTS };
        let kind = call.kind();
        let until = limit.map(|limit| later(self.cause.recorded_at, limit));
        let args = CallArgs { intent, call: call.clone(), until };
        self.enqueue(intent, kind, &args, self.at, max, Some(intent));
        let event = Event::CallIntended(CallIntended { intent, call });
        self.append_keyed(&event, intent);
    }

    /// Sets a timer of the subject at hand, once per generation.
    pub(crate) fn timer(&mut self, timer: TimerKind, generation: u64, run_at: Timestamp) {
        let subject = self.cause.subject.as_str();
        let id = derived_id("timer", &[subject, timer.name(), &generation.to_string()]);
        self.enqueue(id, TIMER, &TimerElapsed { timer, generation }, run_at, i32::MAX, None);
    }

    /// Cancels a platform call of the subject at hand.
    pub(crate) fn cancel(&mut self, intent: Uuid) {
        self.list.push(Effect::Cancel(intent));
    }

    /// Says that a session exceeded a limit, once for each wait.
    pub(crate) fn limit_exceeded(&mut self, exceeded: LimitExceeded) {
        let mut parts = vec![
            exceeded.session.to_string(),
            exceeded.limit.name().to_owned(),
            exceeded.since.timestamp_micros().to_string(),
        ];
        parts.extend(exceeded.videos.iter().map(ToString::to_string));
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let key = derived_id("limit", &parts);
        self.append_keyed(&Event::LimitExceeded(exceeded), key);
    }

    /// Appends `event` to another subject, once.
    pub(crate) fn forward(&mut self, subject: Subject, event: &Event, key: Option<Uuid>) {
        let n = self.forwards;
        self.forwards += 1;
        let key = key.unwrap_or_else(|| self.derive("forward", n));
        let (event_type, schema_version, payload) = event.encode();
        let args = ForwardArgs {
            subject,
            event_type: event_type.to_owned(),
            schema_version,
            key,
            received_at: self.cause.received_at,
            causation_id: Some(self.cause.event_id),
            correlation_id: Some(self.cause.correlation_id.unwrap_or(self.cause.event_id)),
            payload: serde_json::from_slice(&payload).unwrap_or_default(),
            cause_at: Some((self.cause.slice, self.cause.position)),
            trace: self.cause.trace().map(str::to_owned),
        };
        let id = ordered_id(self.cause.slice, self.cause.position, n);
        self.enqueue(id, FORWARD, &args, self.at, i32::MAX, None);
    }

    /// Appends an announcement to the subject at hand.
    pub(crate) fn announce(&mut self, announcement: Announcement) {
        let n = u16::try_from(self.list.len()).unwrap_or(u16::MAX);
        self.append_keyed(&Event::Announced(announcement), self.derive("append", n));
    }

    /// Appends `event` to the subject at hand, once for `key`.
    pub(crate) fn append_once(&mut self, event: &Event, key: Uuid) {
        self.append_keyed(event, key);
    }

    fn append_keyed(&mut self, event: &Event, key: Uuid) {
        let event = NewEvent::new(self.cause.subject.clone(), event, self.cause.received_at, key);
        self.list.push(Effect::Append(event.with_key(key).caused_by(self.cause)));
    }

    fn derive(&self, scope: &str, n: u16) -> Uuid {
        let (slice, position) = (self.cause.slice.to_string(), self.cause.position.to_string());
        derived_id(scope, &[&slice, &position, &n.to_string()])
    }

    fn enqueue<A: Serialize>(
        &mut self,
        id: Uuid,
        kind: &str,
        args: &A,
        run_at: Timestamp,
        max_attempts: i32,
        once_for: Option<Uuid>,
    ) {
        self.list.push(Effect::Enqueue(NewJob {
            id,
            kind: kind.to_owned(),
            subject: self.cause.subject.clone(),
            args: serde_json::to_value(args).unwrap_or_default(),
            run_at,
            // A wait that is over must not stand in line behind calls.
            priority: if kind == TIMER { 1 } else { 2 },
            max_attempts,
            once_for,
            causation_id: Some(self.cause.event_id),
            correlation_id: Some(self.cause.correlation_id.unwrap_or(self.cause.event_id)),
            trace: self.cause.trace().map(str::to_owned),
        }));
    }
}

/// `wait` after `time`; a time too far away to be written is as good as none.
pub(crate) fn later(time: Timestamp, wait: Duration) -> Timestamp {
    let wait = TimeDelta::from_std(wait).unwrap_or(TimeDelta::MAX);
    time.checked_add_signed(wait).unwrap_or(Timestamp::MAX_UTC)
}

/// A job id that sorts by the position of the event that caused it, then by `n`: forwards of one
/// slice run in this order.
fn ordered_id(slice: i16, position: i64, n: u16) -> Uuid {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&position.to_be_bytes());
    bytes[8..10].copy_from_slice(&slice.to_be_bytes());
    bytes[14..].copy_from_slice(&n.to_be_bytes());
    Uuid::from_bytes(bytes)
}
