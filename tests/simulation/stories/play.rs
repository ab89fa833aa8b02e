//! Plays a story in virtual time: two workers, the product, encoders, and whatever goes wrong; then
//! a calm end.
//!
//! The *installation* is real workers with their real handlers and their real client, over the store
//! in memory; only the network is ours. A step that cannot be done (a drop of an encoder that is not
//! connected) is *void*: it is passed over and told. Everything follows from story and seed.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use domain::call::Call;
use domain::event::{Event, NewEvent, RecordedEvent, SessionOptions, SessionRef, SessionRequested};
use domain::ids::{LiveStreamId, Subject, derived_id, session_id};
use domain::redact::redact_platform;
use domain::slice::SliceCount;
use domain::state::{Body, State};
use domain::summary;
use domain::timer::Policy;
use domain::view::{Row, RowKey, SessionRow};
use domain::webhook;
use platform::{Client, Credentials};
use serde_json::json;
use simulator::testing::Encoder;
use simulator::{Effect, ErrorShape, Line, Refusal, Rule, WebhookFaults};
use store::testing::Memory;
use store::{EnqueueOptions, Follow as _, Log as _, Notifier, Queue as _};
use tokio::time::{Instant, sleep};
use uuid::Uuid;
use worker::{Config, Context, Worker};

use super::agree;
use super::expect::{self, Seen};
use super::laws::Laws;
use super::line::{Life, Way};
use super::platform::Shared;
use super::story::{Act, Death, Expected, Step, Story, What};
use crate::clock;

/// The source.
pub(super) const SOURCE: &str = "demo";

/// Slices.
const SLICES: i16 = 4;

/// Workers.
const WORKERS: usize = 2;

/// How long an encoder tries to connect: its session may wait for its live stream or for a slot.
const TRIES: Duration = Duration::from_mins(1);

/// Longest time from the last step to where every session is over: a call is tried for 15 minutes, a
/// renewed look at a video comes after 10, and a sweep of all is made every hour.
const PATIENCE: Duration = Duration::from_hours(3);

/// How long nothing more happens before the product ends what is left.
const AFTERMATH: Duration = Duration::from_secs(20);

/// Webhooks that are late come up to so much later.
const LATE: Duration = Duration::from_secs(20);

/// Faults of ours, to see them noticed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sabotage {
    /// In what handlers decide.
    pub(super) worker: worker::testing::Flaws,
    /// In what is kept of decisions.
    pub(super) store: store::testing::Flaws,
}

/// What a story came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// The law that was broken; none: all is well.
    pub(super) broken: Option<String>,
    /// Steps that could not be done, by their numbers.
    pub(super) void: Vec<usize>,
    /// Sessions that were played.
    pub(super) sessions: usize,
    /// Transactions that changed something.
    pub(super) steps: usize,
    /// Requests to the platform.
    pub(super) requests: usize,
    /// Virtual time that passed.
    pub(super) passed: Duration,
    /// A digest of the log.
    pub(super) hash: u64,
    /// The log in words and what really happened, where a law was broken.
    pub(super) timeline: Vec<String>,
}

/// Plays a story.
pub(super) fn play(story: &Story, seed: u64, sabotage: Sabotage) -> Told {
    clock::reset();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        clock::begin();
        let told = Stage::set(story, seed, sabotage).tell(story).await;
        clock::end();
        told
    })
}

/// Everything that runs.
struct Stage {
    memory: Memory,
    platform: Shared,
    laws: Laws,
    notifier: Notifier,
    workers: Vec<(Worker, Life)>,
    sabotage: Sabotage,
    /// Processes that were started.
    started: u64,
    /// Workers that died at a request and were replaced.
    replaced: usize,
    /// Sessions by their names.
    sessions: BTreeMap<String, Uuid>,
    commands: u64,
    void: Vec<usize>,
    begun: Instant,
}

impl Stage {
    fn set(story: &Story, seed: u64, sabotage: Sabotage) -> Self {
        let slices = SliceCount::new(SLICES).unwrap();
        let memory = Memory::flawed(slices, clock::database, sabotage.store);
        let laws = Laws::new(Policy::default());
        let watch = laws.clone();
        memory.watch(move |tables| watch.look(tables));
        let platform = Shared::new(seed, story, laws.clone());
        let notifier = memory.notifier();
        tokio::spawn(carry(platform.clone(), memory.clone()));
        let mut stage = Self {
            memory,
            platform,
            laws,
            notifier,
            workers: Vec::new(),
            sabotage,
            started: 0,
            replaced: 0,
            sessions: BTreeMap::new(),
            commands: 0,
            void: Vec::new(),
            begun: Instant::now(),
        };
        stage.workers = (0..WORKERS).map(|_| stage.start_worker()).collect();
        stage
    }

    fn start_worker(&mut self) -> (Worker, Life) {
        let life = Life::default();
        self.started += 1;
        let way = Way { life: life.clone(), platform: self.platform.clone() };
        let client = client().over(Arc::new(way));
        let platforms = HashMap::from([(SOURCE.to_owned(), client)]);
        let store = self.memory.over(Arc::new(life.clone()));
        let process = Uuid::from_u64_pair(3, self.started);
        let context = Context::ruled(store, platforms, config(), process, self.sabotage.worker);
        (Worker::start(context), life)
    }

    /// A worker dies, and another starts. The dead one is kept: nobody tells it that it is dead.
    fn replace_worker(&mut self, nth: usize) {
        self.workers[nth].1.end();
        self.platform.forget_changes();
        let successor = self.start_worker();
        let (dead, _) = std::mem::replace(&mut self.workers[nth], successor);
        drop(dead);
    }

    /// Tells the story, and what came of it.
    async fn tell(mut self, story: &Story) -> Told {
        for (n, step) in story.steps.iter().enumerate() {
            self.pass(Duration::from_secs_f64(step.after)).await;
            if self.laws.broken().is_some() {
                break;
            }
            if !self.step(step).await {
                self.void.push(n);
            }
        }
        // What the last step leads to is part of the story.
        self.pass(AFTERMATH).await;
        self.end().await;
        let broken = self.laws.broken().or_else(|| self.disagrees());
        Told {
            void: self.void.clone(),
            sessions: self.sessions.len(),
            steps: self.laws.steps(),
            requests: self.platform.requests(),
            passed: self.begun.elapsed(),
            hash: self.memory.look(|tables| crate::run::digest(tables).1),
            timeline: broken.as_ref().map(|_| self.timeline()).unwrap_or_default(),
            broken,
        }
    }

    /// Lets time pass; those who die at a request meanwhile are replaced.
    async fn pass(&mut self, time: Duration) {
        let end = Instant::now() + time;
        loop {
            self.bury();
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || self.laws.broken().is_some() {
                return;
            }
            tokio::select! {
                biased;
                () = self.platform.death() => {}
                () = sleep(left) => {}
            }
        }
    }

    /// Starts a successor for each worker that died at a request.
    fn bury(&mut self) {
        if self.platform.died() == self.replaced {
            return;
        }
        for nth in 0..WORKERS {
            if self.workers[nth].1.is_over() {
                self.replaced += 1;
                self.replace_worker(nth);
            }
        }
    }

    /// Does a step. Returns whether it could be done.
    async fn step(&mut self, step: &Step) -> bool {
        match &step.what {
            What::Ask { session, on } => return self.ask(session, on.as_deref()).await,
            What::Command { session, command } => return self.command(session, command).await,
            What::Encoder { session, line, act } => {
                return self.encoder(session, *line, *act).await;
            }
            What::LoseWebhooks { only } => {
                let lost = WebhookFaults { lose: 1.0, only: only.clone(), ..Default::default() };
                self.platform.change(|faults| faults.webhooks = lost);
            }
            What::RepeatWebhooks => {
                let twice = WebhookFaults { duplicate: 1.0, ..Default::default() };
                self.platform.change(|faults| faults.webhooks = twice);
            }
            What::DelayWebhooks => {
                let delay_ms = u64::try_from(LATE.as_millis()).unwrap();
                let late = WebhookFaults { delay_ms, ..Default::default() };
                self.platform.change(|faults| faults.webhooks = late);
            }
            What::LoseReply { request } => self.rule(Rule::once(request, Effect::ApplyThenReset)),
            What::Refuse { request, status } => {
                let refusal = Refusal::new(*status, ErrorShape::E, "A fault of the story");
                self.rule(Rule::once(request, Effect::Status(refusal)));
            }
            What::Heal => self.platform.heal(),
            What::Mishap { mishap, session } => {
                let stream = session.as_ref().map(|session| self.stream(session));
                return stream != Some(None) && self.platform.strike(*mishap, stream.flatten());
            }
            What::WorkerDies(Death::Now) => self.replace_worker(0),
            What::WorkerDies(death) => self.platform.kill_at(death.clone()),
            What::Expect(expected) => self.expect(expected, &step.text).await,
        }
        true
    }

    /// Waits until something expected is so.
    async fn expect(&mut self, expected: &Expected, text: &str) {
        let end = Instant::now() + PATIENCE;
        while !self.holds(expected) && self.laws.broken().is_none() {
            if Instant::now() >= end {
                return self.laws.breaks("expected", text);
            }
            self.pass(Duration::from_secs(1)).await;
        }
    }

    fn holds(&self, expected: &Expected) -> bool {
        let session = expect::session_of(expected).and_then(|name| self.sessions.get(name));
        let row = session.and_then(|session| self.read(*session));
        let (state, truth) = (self.platform.state(), self.platform.truth());
        let told = self.laws.videos();
        let seen = Seen { row: row.as_ref(), state: &state, truth: &truth, told: &told };
        expect::holds(expected, &seen)
    }

    fn rule(&self, rule: Rule) {
        self.platform.change(|faults| faults.rules.push(rule));
    }

    async fn ask(&mut self, name: &str, on: Option<&str>) -> bool {
        let session = session_id(SOURCE, name);
        let live_stream = on.map(|other| self.stream(other));
        if live_stream == Some(None) || self.sessions.contains_key(name) {
            return false;
        }
        self.sessions.insert(name.to_owned(), session);
        let requested = SessionRequested {
            session,
            source: SOURCE.to_owned(),
            account: None,
            name: name.to_owned(),
            live_stream: live_stream.flatten().map(LiveStreamId),
            options: SessionOptions {
                auto_go_live: true,
                data: Some(json!({ "story": name })),
                ..SessionOptions::default()
            },
        };
        self.request(session, &Event::SessionRequested(requested)).await;
        true
    }

    async fn command(&mut self, name: &str, command: &str) -> bool {
        let Some(session) = self.sessions.get(name).copied() else { return false };
        let of = SessionRef { session };
        let event = match command {
            "go-live" => Event::GoLiveRequested(of),
            "retry" => Event::RetryRequested(of),
            _ => Event::EndRequested(of),
        };
        self.request(session, &event).await;
        true
    }

    /// Appends a command, as the API does.
    async fn request(&mut self, session: Uuid, event: &Event) {
        self.commands += 1;
        let id = derived_id("command", &[&self.commands.to_string()]);
        let subject = Subject::request(SOURCE, session);
        let event = NewEvent::new(subject, event, clock::process(), id).with_key(id);
        let slice = self.memory.slice_of(&event.subject);
        self.memory.append_one(event).await.unwrap();
        self.notifier.moved(slice);
    }

    async fn encoder(&mut self, name: &str, line: Line, act: Act) -> bool {
        let act = match act {
            Act::Connect => Encoder::Push,
            Act::Drop => Encoder::Drop,
            Act::Stop => Encoder::Stop,
        };
        let end = Instant::now() + TRIES;
        loop {
            let stream = self.stream(name);
            if stream.is_some_and(|stream| self.platform.encoder(stream, line, act)) {
                return true;
            }
            let may_try = act == Encoder::Push && !self.is_over(name);
            if !may_try || Instant::now() >= end || self.laws.broken().is_some() {
                return false;
            }
            self.pass(Duration::from_secs(1)).await;
        }
    }

    /// Reads the row of a session, once it has its live stream.
    fn row<T>(&self, session: Uuid, read: impl Fn(&SessionRow) -> T) -> Option<T> {
        self.memory.look(|tables| {
            let key = RowKey::Session(session);
            let row = tables.slices.iter().find_map(|slice| slice.rows.get(&key));
            let Some((Row::Session(row), _)) = row else { return None };
            Some(read(row))
        })
    }

    /// The row of a session, once it has its live stream, as the product reads it: of one that is
    /// over with what its videos have become since.
    fn read(&self, session: Uuid) -> Option<SessionRow> {
        let mut session = self.row(session, Clone::clone)?;
        if session.status == "ended" {
            let videos = self.memory.look(|tables| {
                let rows = tables.slices.iter().flat_map(|slice| slice.rows.values());
                let video = |(row, _): &(Row, i64)| {
                    let Row::Video(row) = row else { return None };
                    Some((row.id, row.status.clone()))
                };
                rows.filter_map(video).collect()
            });
            session.detail.hear(&videos);
        }
        Some(session)
    }

    fn stream(&self, name: &str) -> Option<i64> {
        self.row(*self.sessions.get(name)?, |row| row.live_stream.0)
    }

    /// Whether a session is over; one that never had a live stream is by its request.
    fn is_over(&self, name: &str) -> bool {
        let Some(session) = self.sessions.get(name) else { return true };
        if let Some(is_over) = self.row(*session, |row| row.status == "ended") {
            return is_over;
        }
        self.memory.look(|tables| {
            let key = RowKey::Request(*session);
            let row = tables.slices.iter().find_map(|slice| slice.rows.get(&key));
            matches!(row, Some((Row::Request(row), _)) if row.status == "ended")
        })
    }

    /// The network is well, the product ends what is left, and all comes to its end.
    async fn end(&mut self) {
        self.platform.heal();
        let names: Vec<String> = self.sessions.keys().cloned().collect();
        for name in &names {
            if !self.is_over(name) {
                self.command(name, "end").await;
            }
        }
        let end = Instant::now() + PATIENCE;
        let mut looked = Instant::now();
        let mut is_swept = false;
        while Instant::now() < end && self.laws.broken().is_none() {
            let is_over = names.iter().all(|name| self.is_over(name)) && self.is_still();
            if is_over && !self.has_leftovers() {
                if std::mem::replace(&mut is_swept, true) {
                    return;
                }
                self.sweep().await;
            }
            self.pass(Duration::from_secs(5)).await;
            if looked.elapsed() > Duration::from_mins(1) {
                looked = Instant::now();
                self.laws.look_at_waits();
            }
        }
        let open = names.iter().find(|name| !self.is_over(name));
        if let Some(name) = open.filter(|_| self.laws.broken().is_none()) {
            let status = self.sessions.get(name);
            let status = status.and_then(|id| self.row(*id, |row| row.status.clone()));
            let status = status.unwrap_or_else(|| "requested".to_owned());
            self.laws.breaks("ends", &format!("{name} does not end: it is {status}"));
        }
    }

    /// Looks at all live streams, and at the videos of sessions that are over, as the worker does every
    /// hour and every six: nobody else learns what was left, or deleted without a webhook.
    async fn sweep(&self) {
        let (args, options) = (json!({"source": SOURCE}), EnqueueOptions::default());
        for kind in SWEEPS {
            self.memory.enqueue(kind, &args, &options).await.unwrap();
        }
    }

    /// Whether everything is applied, and only the worker's own upkeep is left.
    fn is_still(&self) -> bool {
        let now = clock::database();
        self.memory.look(|tables| {
            tables.slices.iter().all(|slice| {
                let is_upkeep = |job: &store::testing::JobRow| {
                    let kind = job.kind.as_str();
                    ["maintain", "verify"].contains(&kind)
                        || SWEEPS.contains(&kind) && job.args["recurs"] == true
                };
                // A call that waits for its next try is work, a timer that waits for its time is not.
                let works = |job: &store::testing::JobRow| {
                    let is_due = job.run_epoch.is_some() || job.run_at <= now;
                    !is_upkeep(job) && (is_due || Call::KINDS.contains(&job.kind.as_str()))
                };
                slice.head() == slice.react.position && !slice.jobs.values().any(works)
            })
        })
    }

    /// Whether a broadcast is known to be left behind: its deletion is tried again every hour.
    fn has_leftovers(&self) -> bool {
        self.memory.look(|tables| {
            tables.slices.iter().flat_map(|slice| slice.states.values()).any(|(state, _)| {
                let state = serde_json::from_value::<State>(state.clone());
                let body = state.ok().map(|state| state.body);
                matches!(body, Some(Body::LiveStream(stream)) if !stream.left_broadcasts.is_empty())
            })
        })
    }

    /// All events in the order in which they came in, and then what really happened.
    fn timeline(&self) -> Vec<String> {
        let mut events = self.memory.look(|tables| {
            let events = tables.slices.iter().flat_map(|slice| &slice.events);
            events.map(|stored| (stored.received_at, told(stored))).collect::<Vec<_>>()
        });
        events.sort_by_key(|(at, _)| *at);
        let truth = self.platform.truth();
        let events = events.into_iter().map(|(_, told)| told);
        events.chain(truth.iter().map(|stream| format!("truth: {stream}"))).collect()
    }

    /// What does not agree with the platform in the end.
    fn disagrees(&self) -> Option<String> {
        let (truth, told) = (self.platform.truth(), self.laws.videos());
        let rows = |(name, id): (&String, &Uuid)| Some((name.clone(), self.read(*id)?));
        let rows: Vec<(String, SessionRow)> = self.sessions.iter().filter_map(rows).collect();
        let quota = self.memory.look(|tables| {
            tables
                .slices
                .iter()
                .find_map(|slice| slice.states.get(&Subject::quota(SOURCE)).cloned())
        });
        let quota = quota.and_then(|(state, _)| serde_json::from_value::<State>(state).ok());
        let Some(State { body: Body::Quota(quota), .. }) = quota else {
            return agree::disagreement(&rows, &truth, &told, None);
        };
        agree::disagreement(&rows, &truth, &told, Some(&quota))
    }
}

/// An event on a line.
fn told(stored: &RecordedEvent) -> String {
    let event = Event::decode(stored);
    let (at, sort) = (stored.received_at.format("%H:%M:%S%.3f"), summary::sort(&event));
    format!("{at} {:<28} {sort:<9} {}", stored.subject.as_str(), summary::words(stored, &event))
}

/// The jobs that look for what nobody told.
const SWEEPS: [&str; 2] = ["reconcile", "sweep_recordings"];

/// Carries webhooks from the platform into the log, as ingest does.
async fn carry(platform: Shared, memory: Memory) {
    let notifier = memory.notifier();
    for n in 0_u64.. {
        for (m, body) in (0_u64..).zip(platform.arrived()) {
            let subject = webhook::subject(SOURCE, body.as_bytes());
            let slice = memory.slice_of(&subject);
            let event = NewEvent {
                event_id: Uuid::from_u64_pair(n, m),
                subject,
                event_type: "WebhookReceived".to_owned(),
                schema_version: 1,
                key: None,
                received_at: clock::process(),
                causation_id: None,
                correlation_id: None,
                meta: None,
                payload: redact_platform(body.as_bytes()).0,
            };
            memory.append_one(event).await.unwrap();
            notifier.moved(slice);
        }
        let due = platform.next_due().map(|due| (due - clock::database()).to_std());
        tokio::select! {
            biased;
            () = platform.planned() => {}
            () = sleep(due.and_then(Result::ok).unwrap_or(Duration::from_mins(1))), if due.is_some() => {}
        }
    }
}

/// A client whose network is never used: making one takes longer than many requests.
fn client() -> &'static Client {
    static CLIENT: OnceLock<Client> = OnceLock::new();
    CLIENT.get_or_init(|| {
        let token = Credentials::Token("1_simulation".to_owned().into());
        Client::new(platform::Config::new("http://127.0.0.1:9", token)).unwrap()
    })
}

/// The usual settings, with little that has to be looked at again and again: virtual time passes the
/// faster, the less there is to be done in it.
fn config() -> Config {
    Config {
        poll: Duration::from_secs(15),
        lease: Duration::from_secs(30),
        sample_every: None,
        verify_every: None,
        clock: clock::process,
        // What is tried again is spread by nothing.
        chance: || 0.5,
        ..Config::default()
    }
}
