//! What holds at every step of a story: after each transaction of each process, and after each
//! request to the platform.
//!
//! The laws are those of [`LAWS`]. A *step* is whatever changed the tables; only what is new is
//! looked at, beside a fold of the log of our own. The first law that is broken is kept: the story
//! ends there. Not its job: the last two, which can only be told at the end (`play`, `agree`).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex};

use chrono::TimeDelta;
use domain::announcement::Announcement;
use domain::call::CallResult;
use domain::effect::TIMER;
use domain::event::{Event, RecordedEvent};
use domain::ids::{Subject, Timestamp};
use domain::live_stream::LiveStream;
use domain::scenario::invariants;
use domain::session::Session;
use domain::state::{Body, State, evolve};
use domain::timer::Policy;
use domain::webhook::{Observation, VideoStatus};
use serde_json::Value;
use store::testing::{SliceTables, Tables};
use uuid::Uuid;

use super::line::lock;
use crate::clock;

/// Each law: its name, and what it says. docs/simulation.md lists them too, which a test compares.
pub(super) const LAWS: [(&str, &str); 15] = [
    ("dense", "positions of a slice are dense, and the time of a commit does not fall"),
    ("once", "an event is stored once, and each position is applied once and in order"),
    (
        "fenced",
        "no start of a job and no reaction comes from an old epoch, and no start is made twice",
    ),
    ("fold", "every state is the fold of its log"),
    (
        "states",
        "one call at a time; parts are in order, and none is lost or resurrected; over is over",
    ),
    ("intents", "a call is intended once, and has one outcome"),
    ("waits", "what waits has a timer, and no session waits beyond its limit"),
    ("told", "an end is told once, and nothing of the session but its recording after it"),
    ("objects", "one live stream for an intent, and one broadcast for a session"),
    (
        "deletes",
        "nothing is deleted that is active, live or of a session that is not over, and no video",
    ),
    ("alone", "no two calls change one live stream at once"),
    ("late", "a part began while its session had the live stream"),
    ("parked", "no event is set aside"),
    ("ends", "every session comes to its end"),
    (
        "agrees",
        "parts, their states, lengths and gaps are what really is; nothing is left active or open, and no slot is kept",
    ),
];

/// What a timer may be late by: a takeover, and the pauses between polls.
const SLACK: TimeDelta = TimeDelta::minutes(2);

/// Fails with a law where it does not hold.
macro_rules! law {
    ($law:literal, $holds:expr, $($told:tt)+) => {
        if !$holds {
            return Err(format!(concat!($law, ": {}"), format_args!($($told)+)));
        }
    };
}

/// The laws, and what they need to know of the past. Clones share it.
#[derive(Clone)]
pub(super) struct Laws(Arc<Mutex<Book>>);

struct Book {
    policy: Policy,
    broken: Option<String>,
    slices: Vec<Seen>,
    states: HashMap<Subject, State>,
    stored: HashSet<Uuid>,
    /// Calls that were intended, and whether they have an outcome.
    intents: HashMap<Uuid, bool>,
    ended: HashSet<Uuid>,
    /// Videos that the platform told us of while they were there.
    videos: BTreeSet<i64>,
    steps: usize,
}

/// How much of a slice was looked at.
#[derive(Default)]
struct Seen {
    events: usize,
    reacted: usize,
    started: usize,
    epoch: i64,
    starts: HashSet<(Uuid, i32)>,
    /// Subjects whose state is to be compared when the slice has caught up.
    changed: HashSet<Subject>,
}

impl Laws {
    pub(super) fn new(policy: Policy) -> Self {
        Self(Arc::new(Mutex::new(Book {
            policy,
            broken: None,
            slices: Vec::new(),
            states: HashMap::new(),
            stored: HashSet::new(),
            intents: HashMap::new(),
            ended: HashSet::new(),
            videos: BTreeSet::new(),
            steps: 0,
        })))
    }

    /// Looks at the tables after a transaction.
    pub(super) fn look(&self, tables: &Tables) {
        let mut book = lock(&self.0);
        if book.broken.is_none() {
            book.broken = book.step(tables).err();
        }
    }

    /// Notes that a law is broken.
    pub(super) fn breaks(&self, law: &str, told: &str) {
        lock(&self.0).broken.get_or_insert_with(|| format!("{law}: {told}"));
    }

    /// The law that was broken first.
    pub(super) fn broken(&self) -> Option<String> {
        lock(&self.0).broken.clone()
    }

    /// Transactions that changed something.
    pub(super) fn steps(&self) -> usize {
        lock(&self.0).steps
    }

    /// The videos that the platform told us of while they were there, with their live streams. What is
    /// gone before anybody told of it belongs to nobody: the word of its end names no live stream.
    pub(super) fn videos(&self) -> BTreeSet<i64> {
        lock(&self.0).videos.clone()
    }

    /// Looks whether any session waits beyond its limit.
    pub(super) fn look_at_waits(&self) {
        let mut book = lock(&self.0);
        let late = book.overdue(clock::database());
        if book.broken.is_none() {
            book.broken = late;
        }
    }

    /// Judges a request to delete, before it is made.
    pub(super) fn deletes(&self, path: &str, world: &Value) {
        let mut book = lock(&self.0);
        if book.broken.is_none() {
            book.broken = book.delete(path, world).err();
        }
    }

    /// Judges what there is, after something was made.
    pub(super) fn created(&self, truth: &[Value]) {
        let mut book = lock(&self.0);
        if book.broken.is_none() {
            book.broken = objects(truth).err();
        }
    }
}

impl Book {
    fn step(&mut self, tables: &Tables) -> Result<(), String> {
        self.slices.resize_with(tables.slices.len(), Seen::default);
        for (slice, of) in tables.slices.iter().enumerate() {
            let mut seen = std::mem::take(&mut self.slices[slice]);
            let looked = self.look_at(of, &mut seen);
            self.slices[slice] = seen;
            looked.map_err(|broken| format!("{broken} (slice {slice})"))?;
        }
        Ok(())
    }

    fn look_at(&mut self, of: &SliceTables, seen: &mut Seen) -> Result<(), String> {
        let is_new = of.events.len() > seen.events
            || of.reacted.len() > seen.reacted
            || of.started.len() > seen.started;
        if !is_new {
            return Ok(());
        }
        self.steps += 1;
        self.events(of, seen)?;
        reactions(of, seen)?;
        starts(of, seen)?;
        law!("parked", of.parked.is_empty(), "{:?}", of.parked);
        if of.react.position == of.head() {
            for subject in seen.changed.drain() {
                self.compare(of, &subject)?;
            }
        }
        Ok(())
    }

    /// Folds what is new.
    fn events(&mut self, of: &SliceTables, seen: &mut Seen) -> Result<(), String> {
        for (n, event) in of.events.iter().enumerate().skip(seen.events) {
            let before = n.checked_sub(1).map(|n| &of.events[n]);
            let position = before.map_or(0, |before| before.position) + 1;
            law!("dense", event.position == position, "{} comes after {before:?}", event.position);
            let falls = before.is_some_and(|before| before.recorded_at > event.recorded_at);
            law!("dense", !falls, "the time of {position} falls");
            law!("once", self.stored.insert(event.event_id), "stored twice: {event:?}");
            self.fold(event)?;
            seen.changed.insert(event.subject.clone());
        }
        seen.events = of.events.len();
        Ok(())
    }

    fn fold(&mut self, stored: &RecordedEvent) -> Result<(), String> {
        let event = Event::decode(stored);
        self.intent(&event)?;
        self.told(&event)?;
        self.videos.extend(told_videos(&event));
        let before = self.states.remove(&stored.subject);
        let after = evolve(before.clone(), stored, &event);
        if let Some(after) = after {
            invariants::check(before.as_ref(), &after)
                .map_err(|broken| format!("states: {broken} ({})", stored.subject))?;
            if let Body::LiveStream(stream) = &after.body {
                late(stream)?;
            }
            self.states.insert(stored.subject.clone(), after);
        }
        Ok(())
    }

    fn intent(&mut self, event: &Event) -> Result<(), String> {
        if let Event::CallIntended(call) = event {
            let before = self.intents.insert(call.intent, false);
            law!("intents", before.is_none(), "intended twice: {call:?}");
        } else if let Event::CallSucceeded(call) = event {
            self.outcome(call.intent)?;
        } else if let Event::CallFailed(call) = event {
            self.outcome(call.intent)?;
        }
        Ok(())
    }

    fn outcome(&mut self, intent: Uuid) -> Result<(), String> {
        let had_one = self.intents.insert(intent, true);
        law!("intents", had_one == Some(false), "{intent}: an outcome after {had_one:?}");
        Ok(())
    }

    fn told(&mut self, event: &Event) -> Result<(), String> {
        let Event::Announced(told) = event else { return Ok(()) };
        let Some(session) = session_of(told) else { return Ok(()) };
        if matches!(told, Announcement::SessionEnded(_)) {
            law!("told", self.ended.insert(session), "{session} has ended twice");
        } else if told.name().starts_with("Session") {
            let is_over = self.ended.contains(&session);
            law!("told", !is_over, "{} of {session}, which has ended", told.name());
        }
        Ok(())
    }

    /// Compares a state with the fold, and looks that something moves it.
    fn compare(&self, of: &SliceTables, subject: &Subject) -> Result<(), String> {
        let folded = self.states.get(subject);
        let stored = of.states.get(subject).map(|(state, _)| state);
        let expected = folded.map(|state| serde_json::to_value(state).unwrap());
        law!("fold", stored == expected.as_ref(), "{subject}: {stored:?}, and not {expected:?}");
        let Some(State { body: Body::LiveStream(stream), .. }) = folded else { return Ok(()) };
        let waits = stream.in_flight.is_none() && stream.next_call().is_none();
        if waits && stream.sessions.iter().any(|session| !session.is_over()) {
            let is_timer =
                |job: &store::testing::JobRow| job.kind == TIMER && job.subject == *subject;
            law!("waits", of.jobs.values().any(is_timer), "nothing wakes {subject}: {stream:?}");
        }
        Ok(())
    }

    /// The session that waits beyond its limit.
    fn overdue(&self, now: Timestamp) -> Option<String> {
        self.states.values().find_map(|state| {
            let Body::LiveStream(stream) = &state.body else { return None };
            stream.sessions.iter().find_map(|session| {
                let waiting = session.waiting?;
                let limit = TimeDelta::from_std(self.policy.limits.of(waiting.what)?).ok()?;
                let is_late = now - waiting.since > limit + SLACK;
                is_late.then(|| format!("waits: {} waits for {waiting:?} at {now}", session.name))
            })
        })
    }

    fn delete(&self, path: &str, world: &Value) -> Result<(), String> {
        let Some(rest) = path.strip_prefix("/streaming/") else { return Ok(()) };
        law!("deletes", !rest.starts_with("videos/"), "a video is deleted: {path}");
        let Some(id) = rest.strip_prefix("streams/").and_then(|id| id.parse::<i64>().ok()) else {
            return Ok(());
        };
        let streams = world["streams"].as_array();
        let stream = streams.into_iter().flatten().find(|one| one["id"] == id);
        let Some(stream) = stream else { return Ok(()) };
        for flag in ["active", "live", "backup_live", "recording"] {
            law!("deletes", stream[flag] != true, "live stream {id} is deleted, and is {flag}");
        }
        let is_used = |stream: &LiveStream| {
            stream.id.0 == id && stream.sessions.iter().any(|session| !session.is_over())
        };
        let used = self
            .states
            .values()
            .any(|state| matches!(&state.body, Body::LiveStream(stream) if is_used(stream)));
        law!("deletes", !used, "live stream {id} is deleted, and a session is on it");
        Ok(())
    }
}

/// Each position is applied once, in order, under epochs that do not fall.
fn reactions(of: &SliceTables, seen: &mut Seen) -> Result<(), String> {
    for (n, now) in of.reacted.iter().enumerate().skip(seen.reacted) {
        let before = n.checked_sub(1).map(|n| of.reacted[n]);
        let (from, epoch) = before.map_or((0, 0), |before| (before.to, before.epoch));
        law!("once", now.from == from && now.to >= from, "{now:?} after {before:?}");
        law!("fenced", now.epoch >= epoch, "{now:?} after {before:?}");
    }
    seen.reacted = of.reacted.len();
    Ok(())
}

/// No start has two owners, and none comes from an old epoch.
fn starts(of: &SliceTables, seen: &mut Seen) -> Result<(), String> {
    for (id, attempt, epoch) in &of.started[seen.started..] {
        law!("fenced", seen.starts.insert((*id, *attempt)), "start {attempt} of {id} twice");
        law!("fenced", *epoch >= seen.epoch, "start {attempt} of {id} under {epoch}");
        seen.epoch = *epoch;
    }
    seen.started = of.started.len();
    Ok(())
}

/// A part began before its session was off air; and not before it was there, unless that was when
/// nobody had the live stream.
fn late(stream: &LiveStream) -> Result<(), String> {
    for session in &stream.sessions {
        let Some(bound) = session.moments.first() else { continue };
        for part in &session.recording.parts {
            // What is only reckoned from a file's end is late by what it was held open.
            let Some(began) = part.video.recording_started_at else { continue };
            let name = &session.name;
            let video = part.video.id.0;
            let had_it = |s: &Session| {
                s.began_at.is_some_and(|since| since <= began)
                    && s.off_air_at.is_none_or(|off| began <= off)
            };
            let is_older = began < bound.at && stream.sessions.iter().any(had_it);
            law!("late", !is_older, "video {video} is older than its session {name}");
            let is_after = session.off_air_at.is_some_and(|off| began > off);
            law!("late", !is_after, "video {video} began after its session {name} was off air");
        }
    }
    Ok(())
}

/// The videos that an event tells of as being there, and of whose live streams.
fn told_videos(event: &Event) -> Vec<i64> {
    if let Some(Observation::Video(seen)) = event.observation() {
        let is_there = seen.status != VideoStatus::Deleted && seen.live_stream.is_some();
        return is_there.then_some(seen.id.0).into_iter().collect();
    }
    let Event::CallSucceeded(call) = event else { return Vec::new() };
    let id = |video: &Value| video["id"].as_i64();
    if let CallResult::Videos { observed } = &call.result {
        return observed.iter().filter_map(id).collect();
    }
    let (CallResult::Video { observed } | CallResult::RecordingStopped { video: Some(observed) }) =
        &call.result
    else {
        return Vec::new();
    };
    id(observed).into_iter().collect()
}

/// The session that an announcement is about.
fn session_of(told: &Announcement) -> Option<Uuid> {
    match told {
        Announcement::SessionReady(news)
        | Announcement::SessionTestStarted(news)
        | Announcement::SessionWentLive(news)
        | Announcement::SessionInterrupted(news)
        | Announcement::SessionResumed(news)
        | Announcement::SessionStopped(news)
        | Announcement::SessionEnded(news)
        | Announcement::SessionFailed(news)
        | Announcement::SessionUnstable(news)
        | Announcement::RecordingReady(news) => Some(news.session),
        Announcement::RecordingPartReady(news)
        | Announcement::RecordingPartOverdue(news)
        | Announcement::RecordingPartDeleted(news) => Some(news.session),
        Announcement::QuotaWaiting(news) => Some(news.session),
        Announcement::CleanupDone(_)
        | Announcement::CleanupFinished(_)
        | Announcement::EndpointDisabled(_) => None,
    }
}

/// One live stream for an intent, and one broadcast at a time for a live stream.
fn objects(truth: &[Value]) -> Result<(), String> {
    let keys = truth.first().and_then(|run| run["keys"].as_object());
    for (key, count) in keys.into_iter().flatten() {
        let made = count["created"].as_u64().unwrap_or_default();
        law!("objects", made <= 1, "{made} live streams were made for the intent {key}");
    }
    for stream in truth.iter().skip(1) {
        let mut open: BTreeMap<&str, usize> = BTreeMap::new();
        for broadcast in stream["broadcasts"].as_array().into_iter().flatten() {
            if broadcast["deleted"].is_null() {
                *open.entry(broadcast["name"].as_str().unwrap_or_default()).or_default() += 1;
            }
        }
        let twice = open.values().any(|count| *count > 1);
        law!("objects", !twice, "live stream {} has {open:?} broadcasts", stream["id"]);
    }
    Ok(())
}
