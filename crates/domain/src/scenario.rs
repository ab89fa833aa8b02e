//! Given, when, then: whole sessions in memory, for the tests of this crate and of others.
//!
//! A [`Scenario`] is an installation in small: a log with dense positions and idempotency keys,
//! `evolve` and `decide` for every event, forwards and appends performed, timers in virtual time,
//! and an obedient [`Platform`] that answers calls, unless told to hold or to fail them. Every
//! state goes through JSON between two events, as in the database, and no subject ever has two
//! calls in flight. Not its job: leases, retries of a job, HTTP.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::announcement::Announcement;
use crate::call::{Call, CallResult};
use crate::cleanup::CleanupPolicy;
use crate::decide::decide;
use crate::effect::{CallArgs, Effect, FORWARD, ForwardArgs, NewJob, TIMER};
use crate::event::{
    AccountDeleted, CallFailed, CallSucceeded, CleanupRequested, Event, NewEvent,
    ReconcileRequested, RecordedEvent, SessionRef, SessionRequested, TimerElapsed,
};
use crate::ids::{LiveStreamId, Subject, Timestamp, VideoId, derived_id, session_id};
use crate::live_stream::LiveStream;
use crate::reconcile::Swept;
use crate::redact::redact_platform;
use crate::session::{Session, Status};
use crate::slice::SliceCount;
use crate::state::{Body, State, evolve};
use crate::timer::Policy;
use crate::webhook;

pub mod invariants;
mod platform;
mod sweep;

pub use platform::{Answer, Platform};

/// The source of every scenario.
pub const SOURCE: &str = "gcore-main";

/// Events that may follow from one before it counts as a loop: a session's whole life has 50.
const MAX_REACTIONS: usize = 2000;

/// A call in flight.
#[derive(Debug, Clone, PartialEq)]
pub struct Pending {
    /// What it is about.
    pub subject: Subject,
    /// Its id.
    pub intent: Uuid,
    /// What is called.
    pub call: Call,
    /// When it is given up.
    pub until: Option<Timestamp>,
}

/// An installation in memory.
#[derive(Debug)]
pub struct Scenario {
    /// The platform that answers calls.
    pub platform: Platform,
    /// How long is waited for what.
    pub policy: Policy,
    /// The sweeps so far.
    swept: Swept,
    now: Timestamp,
    log: Vec<RecordedEvent>,
    unread: VecDeque<RecordedEvent>,
    positions: BTreeMap<i16, i64>,
    keys: HashSet<(i16, Uuid)>,
    job_ids: HashSet<(i16, Uuid)>,
    states: BTreeMap<Subject, State>,
    timers: Vec<NewJob>,
    held: Vec<Pending>,
    /// Calls so far, by intent.
    made: HashSet<Uuid>,
    calls: Vec<&'static str>,
    announced: Vec<Announcement>,
    /// Rows are kept as the projections keep them: the last of each session.
    sessions: BTreeMap<Uuid, Session>,
}

impl Default for Scenario {
    fn default() -> Self {
        Self::new()
    }
}

impl Scenario {
    /// Nothing has happened yet.
    pub fn new() -> Self {
        let now = chrono::DateTime::from_timestamp(1_654_262_600, 0).unwrap_or_default();
        Self {
            platform: Platform::new(),
            policy: Policy::default(),
            swept: Swept::all(now, false),
            now,
            log: Vec::new(),
            unread: VecDeque::new(),
            positions: BTreeMap::new(),
            keys: HashSet::new(),
            job_ids: HashSet::new(),
            states: BTreeMap::new(),
            timers: Vec::new(),
            held: Vec::new(),
            made: HashSet::new(),
            calls: Vec::new(),
            announced: Vec::new(),
            sessions: BTreeMap::new(),
        }
    }

    /// The virtual time.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    // When.

    /// Asks for a session, changed by `change`, and lets everything follow. Returns its id.
    pub fn request(&mut self, key: &str, change: impl FnOnce(&mut SessionRequested)) -> Uuid {
        let session = session_id(SOURCE, key);
        let mut request = SessionRequested {
            session,
            source: SOURCE.to_owned(),
            account: Some("user-17".to_owned()),
            name: "test_stream".to_owned(),
            live_stream: None,
            options: crate::event::SessionOptions::default(),
        };
        change(&mut request);
        self.on_request(session, &Event::SessionRequested(request));
        session
    }

    /// Commands to show a session.
    pub fn go_live(&mut self, session: Uuid) {
        self.on_request(session, &Event::GoLiveRequested(SessionRef { session }));
    }

    /// Commands to end a session.
    pub fn end(&mut self, session: Uuid) {
        self.on_request(session, &Event::EndRequested(SessionRef { session }));
    }

    /// Commands to try again what failed.
    pub fn retry(&mut self, session: Uuid) {
        self.on_request(session, &Event::RetryRequested(SessionRef { session }));
    }

    fn on_request(&mut self, session: Uuid, event: &Event) {
        self.event(Subject::request(SOURCE, session), event);
    }

    /// Says that an account of the product was deleted.
    pub fn delete_account(&mut self, account: &str) {
        let event = Event::AccountDeleted(AccountDeleted { account: account.to_owned() });
        self.event(Subject::account(SOURCE, account), &event);
    }

    /// Proposes to delete a live stream; returns the run.
    pub fn clean_up(&mut self, live_stream: i64) -> Uuid {
        let run = derived_id("run", &[&self.log.len().to_string()]);
        self.clean_up_by(live_stream, run, &[]);
        run
    }

    /// Proposes for a run to delete a live stream, or these recordings of it.
    pub fn clean_up_by(&mut self, live_stream: i64, run: Uuid, videos: &[i64]) {
        let request = CleanupRequested {
            run,
            reason: "idle for 30 days, its account deleted".to_owned(),
            delete_recordings: false,
            policy: CleanupPolicy::default(),
            made_before: None,
            videos: videos.iter().copied().map(VideoId).collect(),
        };
        let subject = Subject::live_stream(SOURCE, LiveStreamId(live_stream));
        self.event(subject, &Event::CleanupRequested(request));
    }

    /// Asks for a look at a live stream, as ingest does after it stored webhooks late.
    pub fn reconcile(&mut self, live_stream: i64) {
        let request = ReconcileRequested { reason: "webhooks were stored late".to_owned() };
        let subject = Subject::live_stream(SOURCE, LiveStreamId(live_stream));
        self.event(subject, &Event::ReconcileRequested(request));
    }

    /// Receives a webhook, as ingest does, and lets everything follow.
    pub fn webhook(&mut self, body: &[u8]) {
        let event = NewEvent {
            event_id: derived_id("webhook", &[&self.log.len().to_string()]),
            subject: webhook::subject(SOURCE, body),
            event_type: "WebhookReceived".to_owned(),
            schema_version: 1,
            key: None,
            received_at: self.now,
            causation_id: None,
            correlation_id: None,
            meta: None,
            payload: redact_platform(body).0,
        };
        self.append(event);
        self.follow();
    }

    /// Lets the encoder connect, told by a webhook.
    pub fn encoder_connects(&mut self, live_stream: i64) {
        self.platform.set(live_stream, |s| s.live = true);
        self.tell(live_stream);
    }

    /// Lets the encoder's connection drop, told by a webhook; a recording stops with it.
    pub fn encoder_drops(&mut self, live_stream: i64) {
        self.platform.set(live_stream, |s| {
            s.live = false;
            s.recording = false;
        });
        self.tell(live_stream);
    }

    /// Lets the recording that was commanded take effect, told by a webhook.
    pub fn recording_shows(&mut self, live_stream: i64, recording: bool) {
        self.platform.set(live_stream, |s| s.recording = recording);
        self.tell(live_stream);
    }

    /// Sends the webhook of a live stream as the platform has it.
    pub fn tell(&mut self, live_stream: i64) {
        let body = self.platform.webhook_of(live_stream);
        self.webhook(body.to_string().as_bytes());
    }

    /// Sends the webhook of a video in `status`, without its live stream, as before 2025.
    pub fn tell_video(&mut self, video: i64, status: &str) {
        self.platform.set_video(video, status);
        let body = json!({"type": "video", "message": {"video": {
            "id": video, "name": "Stream Record", "duration": 48_410, "status": status,
        }}});
        self.webhook(body.to_string().as_bytes());
    }

    /// Sends the webhook of a broadcast.
    pub fn tell_broadcast(&mut self, broadcast: i64, status: &str) {
        self.platform.label_broadcast(broadcast, status);
        let body = json!({"type": "broadcast", "message": {"broadcast": {
            "id": broadcast, "status": status,
        }}});
        self.webhook(body.to_string().as_bytes());
    }

    /// Appends an event of `subject` and lets everything follow.
    pub fn event(&mut self, subject: Subject, event: &Event) {
        let id = derived_id("test", &[&self.log.len().to_string()]);
        self.append(NewEvent::new(subject, event, self.now, id));
        self.follow();
    }

    /// Answers the held call of `kind`.
    ///
    /// # Panics
    ///
    /// If no call of that kind is held.
    pub fn answer(&mut self, kind: &str, answer: Answer) {
        let at = self.held.iter().position(|held| held.call.kind() == kind);
        let Some(at) = at else { panic!("no call {kind} in flight, but {:?}", self.held) };
        let pending = self.held.remove(at);
        self.outcome(&pending, answer);
        self.follow();
    }

    /// Answers the held call of `kind` as the platform would have.
    ///
    /// # Panics
    ///
    /// If no call of that kind is held.
    pub fn let_go(&mut self, kind: &str) {
        let at = self.held.iter().position(|held| held.call.kind() == kind);
        let Some(at) = at else { panic!("no call {kind} in flight, but {:?}", self.held) };
        let pending = self.held.remove(at);
        let answer = self.platform.obey(&pending.call, self.now);
        self.outcome(&pending, answer);
        self.follow();
    }

    /// Lets time pass; timers fire in their order. A held call is one that is answered by errors
    /// again and again: it is given up when its time is over.
    pub fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let timer = self.next_timer(until);
            let timer_at = timer.and_then(|at| self.timers.get(at)).map(|timer| timer.run_at);
            if self.sweep_until(timer_at.unwrap_or(until)) {
                continue;
            }
            if let Some(held) = self.next_given_up(timer_at.unwrap_or(until)) {
                let pending = self.held.remove(held);
                self.now = self.now.max(pending.until.unwrap_or(self.now));
                self.outcome(&pending, Answer::Failed("500".to_owned()));
                self.follow();
                continue;
            }
            let Some(at) = timer else { break };
            let timer = self.timers.remove(at);
            self.now = self.now.max(timer.run_at);
            if let Ok(elapsed) = serde_json::from_value::<TimerElapsed>(timer.args) {
                self.event(timer.subject, &Event::TimerElapsed(elapsed));
            }
        }
        self.now = until;
    }

    fn next_given_up(&self, until: Timestamp) -> Option<usize> {
        let due = |pending: &Pending| pending.until.is_some_and(|at| at <= until);
        self.held.iter().position(due)
    }

    fn next_timer(&self, until: Timestamp) -> Option<usize> {
        let due = self.timers.iter().enumerate().filter(|(_, timer)| timer.run_at <= until);
        due.min_by_key(|(n, timer)| (timer.run_at, *n)).map(|(n, _)| n)
    }

    // Then.

    /// Asserts the kinds of the calls that were intended since this was asked last.
    ///
    /// # Panics
    ///
    /// If they differ.
    #[track_caller]
    pub fn then_calls(&mut self, kinds: &[&str]) {
        assert_eq!(std::mem::take(&mut self.calls), kinds, "calls");
    }

    /// Asserts the names of the announcements since this was asked last.
    ///
    /// # Panics
    ///
    /// If they differ.
    #[track_caller]
    pub fn then_announced(&mut self, names: &[&str]) {
        let announced = std::mem::take(&mut self.announced);
        let announced: Vec<&str> = announced.iter().map(Announcement::name).collect();
        assert_eq!(announced, names, "announcements");
    }

    /// Asserts where a session stands, ended ones included.
    ///
    /// # Panics
    ///
    /// If it stands elsewhere.
    #[track_caller]
    pub fn then_status(&self, session: Uuid, status: Status) {
        assert_eq!(self.session(session).status, status, "status");
    }

    /// Asserts that nothing at all was called or announced.
    ///
    /// # Panics
    ///
    /// If something was.
    #[track_caller]
    pub fn then_nothing(&mut self) {
        self.then_calls(&[]);
        self.then_announced(&[]);
    }

    /// Forgets calls and announcements so far: what follows is asserted.
    pub fn given(&mut self) {
        self.calls.clear();
        self.announced.clear();
    }

    /// The announcements since they were asked for last.
    pub fn announcements(&mut self) -> Vec<Announcement> {
        std::mem::take(&mut self.announced)
    }

    /// The calls since they were asked for last.
    pub fn calls(&mut self) -> Vec<&'static str> {
        std::mem::take(&mut self.calls)
    }

    /// The calls in flight that the platform holds.
    pub fn held(&self) -> &[Pending] {
        &self.held
    }

    /// All events so far.
    pub fn log(&self) -> &[RecordedEvent] {
        &self.log
    }

    /// The timers that have not fired.
    pub fn timers(&self) -> &[NewJob] {
        &self.timers
    }

    /// The state of a subject.
    pub fn state(&self, subject: &Subject) -> Option<&State> {
        self.states.get(subject)
    }

    /// All states.
    pub fn states(&self) -> impl Iterator<Item = (&Subject, &State)> {
        self.states.iter()
    }

    /// A session as it was last seen on its live stream.
    ///
    /// # Panics
    ///
    /// If it was never bound to one.
    #[track_caller]
    pub fn session(&self, session: Uuid) -> &Session {
        let Some(found) = self.sessions.get(&session) else { panic!("no session {session}") };
        found
    }

    /// A live stream.
    ///
    /// # Panics
    ///
    /// If nothing is known of it.
    #[track_caller]
    pub fn live_stream(&self, id: i64) -> &LiveStream {
        let subject = Subject::live_stream(SOURCE, LiveStreamId(id));
        let Some(State { body: Body::LiveStream(found), .. }) = self.states.get(&subject) else {
            panic!("no live stream {id}")
        };
        found
    }

    // The way round.

    /// Appends once for the event's key, with the next position of its slice.
    fn append(&mut self, event: NewEvent) {
        let slice = SliceCount::DEFAULT.slice_of(&event.subject);
        if event.key.is_some_and(|key| !self.keys.insert((slice, key))) {
            return;
        }
        let position = self.positions.entry(slice).or_default();
        *position += 1;
        let recorded = RecordedEvent {
            slice,
            position: *position,
            recorded_at: self.now,
            received_at: event.received_at,
            event_id: event.event_id,
            subject: event.subject,
            event_type: event.event_type,
            schema_version: event.schema_version,
            causation_id: event.causation_id,
            correlation_id: event.correlation_id,
            meta: event.meta.map(|meta| meta.value()),
            payload: event.payload,
        };
        self.log.push(recorded.clone());
        self.unread.push_back(recorded);
    }

    /// Reacts to all events until nothing is left to do but to wait.
    fn follow(&mut self) {
        for _ in 0..MAX_REACTIONS {
            let Some(event) = self.unread.pop_front() else { return };
            self.react(&event);
        }
        panic!("one event leads to calls without end: {:?}", self.calls)
    }

    fn react(&mut self, stored: &RecordedEvent) {
        let event = Event::decode(stored);
        assert_ne!(
            (&event, stored.event_type.as_str()),
            (&Event::Unrecognized, "CallSucceeded"),
            "an outcome of ours can be read"
        );
        let before = self.states.get(&stored.subject).cloned();
        let after = evolve(before.clone(), stored, &event).map(|state| through_json(&state));
        let effects = decide(&self.policy, before.as_ref(), stored, &event, after.as_ref());
        if let Some(state) = after {
            if let Err(broken) = invariants::check(before.as_ref(), &state) {
                panic!("{broken}");
            }
            if let Body::LiveStream(live_stream) = &state.body {
                for session in &live_stream.sessions {
                    self.sessions.insert(session.id, session.clone());
                }
            }
            self.states.insert(stored.subject.clone(), state);
        }
        self.observe(&event);
        self.perform(effects);
        assert_one_call_each(&self.held);
    }

    fn observe(&mut self, event: &Event) {
        if let Event::Announced(announcement) = event {
            self.announced.push(announcement.clone());
        }
    }

    /// Jobs first, then events: as the worker commits them.
    fn perform(&mut self, effects: Vec<Effect>) {
        let (mut events, mut jobs, mut cancelled) = (Vec::new(), Vec::new(), Vec::new());
        for effect in effects {
            match effect {
                Effect::Enqueue(job) => {
                    let slice = SliceCount::DEFAULT.slice_of(&job.subject);
                    let claimed = job.once_for.is_some_and(|k| self.keys.contains(&(slice, k)));
                    if !claimed && self.job_ids.insert((slice, job.id)) {
                        jobs.push(job);
                    }
                }
                Effect::Append(event) => events.push(event),
                Effect::Cancel(intent) => cancelled.push(intent),
            }
        }
        for event in events {
            self.append(event);
        }
        for job in jobs {
            self.run(job);
        }
        for intent in cancelled {
            let Some(at) = self.held.iter().position(|held| held.intent == intent) else {
                continue;
            };
            let pending = self.held.remove(at);
            self.outcome(&pending, Answer::Failed("cancelled".to_owned()));
        }
    }

    fn run(&mut self, job: NewJob) {
        match job.kind.as_str() {
            TIMER => self.timers.push(job),
            FORWARD => {
                if let Ok(forward) = serde_json::from_value::<ForwardArgs>(job.args) {
                    self.append(forward.event());
                }
            }
            _ => {
                let Ok(CallArgs { intent, call, until }) = serde_json::from_value(job.args) else {
                    panic!("job {} has no arguments of a call", job.kind)
                };
                assert_eq!(call.kind(), job.kind, "a job's kind is its call's");
                assert!(self.made.insert(intent), "an intent is called once: {call:?}");
                self.calls.push(call.kind());
                let pending = Pending { subject: job.subject, intent, call, until };
                if let Some(answer) = self.platform.answer(&pending.call, self.now) {
                    self.outcome(&pending, answer);
                } else {
                    self.held.push(pending);
                }
            }
        }
    }

    fn outcome(&mut self, of: &Pending, answer: Answer) {
        let intent = of.intent;
        let event = match answer {
            Answer::Done(result) => {
                let result = result.without_echo();
                Event::CallSucceeded(CallSucceeded { intent, result })
            }
            Answer::Failed(reason) => Event::CallFailed(CallFailed { intent, reason }),
        };
        let key = derived_id("outcome", &[&intent.to_string()]);
        self.append(NewEvent::new(of.subject.clone(), &event, self.now, key).with_key(key));
    }
}

/// The state as the database gives it back.
fn through_json(state: &State) -> State {
    let read = serde_json::to_value(state).and_then(serde_json::from_value::<State>);
    match read {
        Ok(read) => {
            assert_eq!(&read, state, "a state survives its database");
            read
        }
        Err(error) => panic!("a state is not read back: {error}: {state:?}"),
    }
}

fn assert_one_call_each(held: &[Pending]) {
    let subjects: BTreeSet<&Subject> = held.iter().map(|pending| &pending.subject).collect();
    assert_eq!(subjects.len(), held.len(), "two calls in flight for one subject: {held:?}");
}

/// The objects in a list, for answers.
pub(crate) fn array(values: &[Value]) -> CallResult {
    CallResult::Videos { observed: values.to_vec() }
}
