//! A history of whole sessions: every event that a worker, the platform and the product make of
//! them, with the keys and positions that the log gives.
//!
//! A *history* runs `evolve` and `decide` in memory, as `domain::scenario` does for tests, and lets
//! many sessions overlap in virtual time. Keys of announcements and forwards follow from positions,
//! so a worker that reads the history from the log decides the same again and finds all of it there:
//! it stores rows and calls nobody. That holds as long as nobody else appends meanwhile, and as
//! every session is over and every timer has fired before a worker looks.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use chrono::{DateTime, TimeDelta};
use domain::call::Call;
use domain::decide::decide;
use domain::effect::{CallArgs, Effect, FORWARD, ForwardArgs, NewJob, TIMER};
use domain::event::{
    CallFailed, CallSucceeded, Event, NewEvent, RecordedEvent, SessionOptions, SessionRef,
    SessionRequested, TimerElapsed,
};
use domain::ids::{LiveStreamId, Subject, Timestamp, derived_id, session_id};
use domain::redact::redact;
use domain::slice::SliceCount;
use domain::state::{State, evolve};
use domain::timer::Policy;
use domain::webhook;
use serde_json::json;
use uuid::Uuid;

use super::dice;
use super::platform::{self, Platform, VIDEO_TOLD};
use crate::processes::SOURCE;

mod script;

use script::Run;

/// When the first session begins: long past, so that every timer of a history is due.
const BEGIN: i64 = 1_767_600_000;

/// Sessions that overlap, but for short histories.
const CONCURRENT: u64 = 500;

/// Events of a session on average, from a count of long histories; a plan, not a promise.
pub(crate) const PER_SESSION: u64 = 84;

/// An event for the log.
#[derive(Debug, Clone)]
pub(crate) struct Emitted {
    /// Its slice.
    pub(crate) slice: i16,
    /// The event.
    pub(crate) event: NewEvent,
}

/// Something that happens at a time.
#[derive(Debug)]
enum Step {
    /// A session is asked for.
    Request(u64),
    /// The encoder begins or ceases to send.
    Encoder { stream: i64, sends: bool },
    /// The product commands a session.
    Command { session: Uuid, command: fn(SessionRef) -> Event },
    /// A call is answered.
    Answer { subject: Subject, args: Box<CallArgs>, cause: Box<NewJob> },
    /// A timer is due.
    Timer(Box<NewJob>),
    /// The platform's recording begins.
    Recording(i64),
    /// The platform tells of a live stream.
    StreamTold(i64),
    /// The platform tells of a video.
    VideoTold(i64, &'static str),
}

/// A step with its time; of equal times the one that was planned first.
#[derive(Debug)]
struct Due(Timestamp, u64, Step);

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.1 == other.1
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// What a history leaves to the next one of its log.
#[derive(Debug, Clone, Default)]
pub(crate) struct Left {
    /// How many sessions there were.
    sessions: u64,
    /// When it ended; `None`: there was none.
    now: Option<Timestamp>,
    /// The state of the source's quota, which all sessions share.
    quota: Option<State>,
}

/// A history in the making.
pub(crate) struct History {
    first: u64,
    sessions: u64,
    slices: SliceCount,
    heads: Vec<i64>,
    keys: HashSet<(i16, Uuid)>,
    policy: Policy,
    platform: Platform,
    now: Timestamp,
    planned: u64,
    agenda: BinaryHeap<Reverse<Due>>,
    states: HashMap<Subject, State>,
    unread: VecDeque<RecordedEvent>,
    emitted: Vec<Emitted>,
    inputs: u64,
    runs: HashMap<i64, Run>,
    ended: u64,
    /// Live streams that no session has.
    free: VecDeque<i64>,
}

impl History {
    /// Plans `sessions` sessions for a log whose slices end at `heads`, after what another history
    /// has `left` there.
    pub(crate) fn plan(
        slices: SliceCount,
        heads: Vec<i64>,
        installation: Uuid,
        left: Left,
        sessions: u64,
    ) -> Self {
        let begin = || DateTime::from_timestamp(BEGIN, 0).unwrap_or_default();
        let now = left.now.unwrap_or_else(begin);
        let first = left.sessions;
        let quota = left.quota.map(|state| (Subject::quota(SOURCE), state));
        let mut history = Self {
            first,
            sessions,
            slices,
            heads,
            keys: HashSet::new(),
            policy: Policy::default(),
            platform: Platform::new(installation, first),
            now,
            planned: 0,
            agenda: BinaryHeap::new(),
            states: quota.into_iter().collect(),
            unread: VecDeque::new(),
            emitted: Vec::new(),
            inputs: 0,
            runs: HashMap::new(),
            ended: 0,
            free: VecDeque::new(),
        };
        let between = script::LENGTH / u32::try_from(CONCURRENT.min(sessions).max(1)).unwrap_or(1);
        for n in 0..sessions {
            let after = between.saturating_mul(u32::try_from(n).unwrap_or(u32::MAX));
            history.after(millis(after), Step::Request(first + n));
        }
        history
    }

    /// Lets the next thing happen. Its events, in the order of the log; `None` at the end.
    pub(crate) fn next(&mut self) -> Option<std::vec::Drain<'_, Emitted>> {
        let Reverse(Due(at, _, step)) = self.agenda.pop()?;
        self.now = at;
        self.perform(step);
        while let Some(stored) = self.unread.pop_front() {
            self.react(&stored);
        }
        Some(self.emitted.drain(..))
    }

    /// Where the slices end after all that was emitted.
    pub(crate) fn heads(&self) -> &[i64] {
        &self.heads
    }

    /// What the next history of this log goes on from.
    pub(crate) fn left(&self) -> Left {
        Left {
            sessions: self.first + self.sessions,
            now: Some(self.now),
            quota: self.states.get(&Subject::quota(SOURCE)).cloned(),
        }
    }

    /// Sessions that are over.
    #[cfg(test)]
    fn ended(&self) -> u64 {
        self.ended
    }

    fn after(&mut self, wait: Duration, step: Step) {
        let at = self.now + TimeDelta::from_std(wait).unwrap_or_default();
        self.at(at, step);
    }

    fn at(&mut self, at: Timestamp, step: Step) {
        self.planned += 1;
        self.agenda.push(Reverse(Due(at.max(self.now), self.planned, step)));
    }

    fn perform(&mut self, step: Step) {
        match step {
            Step::Request(n) => self.request(n),
            Step::Encoder { stream, sends } => self.encoder(stream, sends),
            Step::Command { session, command } => {
                let event = command(SessionRef { session });
                self.input(Subject::request(SOURCE, session), &event);
            }
            Step::Answer { subject, args, cause } => self.answer(subject, &args, &cause),
            Step::Timer(job) => self.timer(&job),
            Step::Recording(stream) => {
                let now = self.now;
                let truth = self.platform.stream(stream);
                if truth.live && truth.recording.is_none() {
                    truth.recording = Some(now);
                    self.webhook(&self.platform.stream_webhook(stream));
                }
            }
            Step::StreamTold(stream) => self.webhook(&self.platform.stream_webhook(stream)),
            Step::VideoTold(video, status) => {
                self.platform.set_video(video, status);
                self.webhook(&self.platform.video_webhook(video));
            }
        }
    }

    /// A session is asked for: every fourth reuses a live stream, if one is free.
    fn request(&mut self, n: u64) {
        let session = session_id(SOURCE, &format!("session-{n}"));
        let reused = (n % 4 == 3).then(|| self.free.pop_front()).flatten();
        let options = SessionOptions {
            auto_go_live: n.is_multiple_of(3),
            client_user_id: Some(17),
            data: Some(json!({"course": "algebra"})),
            ..SessionOptions::default()
        };
        let request = SessionRequested {
            session,
            source: SOURCE.to_owned(),
            account: Some(format!("account-{}", n % 1000)),
            name: format!("Algebra {n}"),
            live_stream: reused.map(LiveStreamId),
            options,
        };
        if let Some(stream) = reused {
            self.runs.insert(stream, Run::of(n, session));
        }
        self.input(Subject::request(SOURCE, session), &Event::SessionRequested(request));
    }

    /// Appends what ingest or the API would.
    fn input(&mut self, subject: Subject, event: &Event) {
        let id = self.input_id();
        self.append(NewEvent::new(subject, event, self.now, id));
    }

    fn webhook(&mut self, body: &[u8]) {
        let bytes = body.len();
        let (payload, redacted) = redact(body);
        let event = NewEvent {
            event_id: self.input_id(),
            subject: webhook::subject(SOURCE, &payload),
            event_type: "WebhookReceived".to_owned(),
            schema_version: 1,
            key: None,
            received_at: self.now,
            causation_id: None,
            correlation_id: None,
            meta: Some(
                json!({
                    "content_type": "application/json", "remote": "92.223.112.17",
                    "redacted": redacted, "bytes": bytes,
                })
                .into(),
            ),
            payload,
        };
        self.append(event);
    }

    /// UUID v7 of the virtual time, and the same in every run.
    fn input_id(&mut self) -> Uuid {
        self.inputs += 1;
        let mut random = [0; 10];
        random[2..].copy_from_slice(&self.inputs.to_be_bytes());
        let millis = u64::try_from(self.now.timestamp_millis()).unwrap_or_default();
        uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
    }

    /// Gives the event the next position of its slice, once for its key.
    fn append(&mut self, event: NewEvent) {
        let slice = self.slices.slice_of(&event.subject);
        if event.key.is_some_and(|key| !self.keys.insert((slice, key))) {
            return;
        }
        let Some(head) = self.heads.get_mut(usize::from(slice.unsigned_abs())) else { return };
        *head += 1;
        self.unread.push_back(recorded(&event, slice, *head, self.now));
        self.emitted.push(Emitted { slice, event });
    }

    fn react(&mut self, stored: &RecordedEvent) {
        let event = Event::decode(stored);
        let before = self.states.remove(&stored.subject);
        let after = evolve(before.clone(), stored, &event);
        let effects = decide(&self.policy, before.as_ref(), stored, &event, after.as_ref());
        if let Some(state) = after {
            self.states.insert(stored.subject.clone(), state);
        }
        if stored.event_type == "SessionEnded" {
            self.session_ended(&event);
        }
        let mut jobs = Vec::new();
        for effect in effects {
            match effect {
                Effect::Append(event) => self.append(event),
                // Calls of this platform do not keep failing.
                Effect::Cancel(_) => {}
                // Decided by the event before, whose `CallIntended` is not folded yet.
                Effect::Enqueue(job) if self.is_enqueued(stored.slice, &job) => {}
                Effect::Enqueue(job) => jobs.push(job),
            }
        }
        for job in jobs {
            self.enqueued(job);
        }
    }

    fn is_enqueued(&self, slice: i16, job: &NewJob) -> bool {
        job.once_for.is_some_and(|key| self.keys.contains(&(slice, key)))
    }

    /// What becomes of a job: forwards at once, the rest in its time.
    fn enqueued(&mut self, job: NewJob) {
        match job.kind.as_str() {
            TIMER => self.at(job.run_at, Step::Timer(Box::new(job))),
            FORWARD => {
                if let Ok(forward) = serde_json::from_value::<ForwardArgs>(job.args) {
                    self.append(forward.event());
                }
            }
            _ => {
                let Ok(args) = serde_json::from_value::<CallArgs>(job.args.clone()) else { return };
                let wait = dice::draw("latency", self.planned, 60..400);
                let subject = job.subject.clone();
                let (args, cause) = (Box::new(args), Box::new(job));
                self.after(Duration::from_millis(wait), Step::Answer { subject, args, cause });
            }
        }
    }

    /// A timer's event, as the worker appends it.
    fn timer(&mut self, job: &NewJob) {
        let Ok(elapsed) = serde_json::from_value::<TimerElapsed>(job.args.clone()) else { return };
        let key = derived_id("timer-elapsed", &[&job.id.to_string()]);
        self.outcome(job.subject.clone(), &Event::TimerElapsed(elapsed), key, job);
    }

    /// A call's outcome, as the worker appends it. Of 50 questions one is not answered.
    fn answer(&mut self, subject: Subject, args: &CallArgs, cause: &NewJob) {
        let CallArgs { intent, call, .. } = args;
        let key = derived_id("outcome", &[&intent.to_string(), "1"]);
        if let Call::ObserveLiveStream { .. } = call
            && dice::draw("answer", self.planned, 0..50) == 0
        {
            let reason = "the platform did not answer within 10 s".to_owned();
            let failed = Event::CallFailed(CallFailed { intent: *intent, reason });
            return self.outcome(subject, &failed, key, cause);
        }
        let (result, effect) = self.platform.obey(call, *intent, self.now);
        if let Call::CreateLiveStream { .. } = call {
            self.created(&subject, &result);
        }
        let event = Event::CallSucceeded(CallSucceeded { intent: *intent, result });
        self.outcome(subject, &event, key, cause);
        match effect {
            None => {}
            Some(platform::Effect::Activated(stream)) => self.activated(stream),
            Some(platform::Effect::Deactivated(stream)) => {
                self.after(Duration::from_secs(3), Step::Encoder { stream, sends: false });
            }
            Some(platform::Effect::Recording(stream)) => {
                self.after(Duration::from_secs(4), Step::Recording(stream));
            }
            Some(platform::Effect::Stopped(stream, video)) => {
                self.after(Duration::from_secs(2), Step::StreamTold(stream));
                self.process(video);
            }
        }
    }

    fn outcome(&mut self, subject: Subject, event: &Event, key: Uuid, cause: &NewJob) {
        let mut event = NewEvent::new(subject, event, self.now, key).with_key(key);
        event.causation_id = cause.causation_id;
        event.correlation_id = cause.correlation_id;
        self.append(event);
    }

    /// Lets the platform tell of a video while it is processed.
    fn process(&mut self, video: Option<i64>) {
        let Some(video) = video else { return };
        for (wait, status) in VIDEO_TOLD {
            self.after(wait, Step::VideoTold(video, status));
        }
    }
}

/// The event as the log has it.
fn recorded(event: &NewEvent, slice: i16, position: i64, now: Timestamp) -> RecordedEvent {
    RecordedEvent {
        slice,
        position,
        recorded_at: now,
        received_at: event.received_at,
        event_id: event.event_id,
        subject: event.subject.clone(),
        event_type: event.event_type.clone(),
        schema_version: event.schema_version,
        causation_id: event.causation_id,
        correlation_id: event.correlation_id,
        meta: None,
        payload: event.payload.clone(),
    }
}

/// A time in whole milliseconds: what the log stores comes back the same.
fn millis(time: Duration) -> Duration {
    Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or_default())
}

#[cfg(test)]
mod tests;
