//! An engine in memory for tests of handlers: the real worker over the in-memory store, in virtual
//! time, with faults on demand.
//!
//! What a kit ensures: the states, limits, retries and recoveries of its jobs are those of the real
//! engine, since it is the real engine; `store`'s conformance suite and the scenarios of
//! `engine/tests/conformance.rs` hold the store in memory to PostgreSQL. Time passes only inside of
//! its calls, and there at once; all of its chance comes from a seed, so a test that fails fails
//! again. A kit is quiet, or *drained*, if nothing is due, runs, or is to be ended or applied.
//!
//! Not its job: HTTP and SQL of handlers. A handler that waits for a real network does so in real
//! time while virtual time runs ahead.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::event::NewEvent;
use domain::ids::{Subject, Timestamp};
use domain::slice::SliceCount;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;
use store::testing::{Fate, JobRow, Memory};
use store::{EnqueueOptions, Error, Hint, Log as _, NewSchedule, PauseScope, Queue as _};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::clock::{self, Clock};
use super::faults::{Fault, Faults, Suffering};
use super::report::{Report, Seen};
use super::{Run, Script};
use crate::{Config, Context, Worker};

/// The shortest look at whether a kit is quiet, in its time; without news it looks ever more rarely.
const STEP: Duration = Duration::from_millis(1);

/// The longest.
const LONG_STEP: Duration = Duration::from_secs(1);

/// A kit in which nothing happens for so many leases is as quiet as it will be: what is due there
/// waits for something else.
const LULL: u32 = 3;

/// How long a kit may go on, in its time, before it is told that it never ends.
const ENDLESS: Duration = Duration::from_hours(24);

/// What a kit is like.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Decides all chance: jitter and ids of processes.
    pub seed: u64,
    /// Slices; one of them holds all jobs in one order.
    pub slices: SliceCount,
    /// Its time when it begins.
    pub begins_at: Timestamp,
    /// The worker's settings; its clock and its chance are the kit's.
    pub config: Config,
}

impl Default for Settings {
    /// One slice, in November 2023, with the usual settings but longer leases: virtual time passes
    /// the faster, the less there is to be done in it.
    fn default() -> Self {
        let config = Config {
            lease: Duration::from_mins(2),
            poll: Duration::from_secs(30),
            verify_every: None,
            ..Config::default()
        };
        Self {
            seed: 0,
            slices: SliceCount::new(1).unwrap_or(SliceCount::DEFAULT),
            begins_at: Timestamp::from_timestamp(1_700_000_000, 0).unwrap_or_default(),
            config,
        }
    }
}

/// An engine in memory. Its calls block, so it belongs into a plain `#[test]`, not an async one.
///
/// ```
/// use std::time::Duration;
///
/// use serde_json::json;
/// use worker::jobs::{Done, JobError};
/// use worker::testing::{Handlers, Kit};
///
/// let handlers = Handlers::new().on("send_mail", |run| async move {
///     match run.attempt {
///         1 => Err(JobError::Retry { after: None, reason: "greylisted".to_owned() }),
///         _ => Ok(Done::Value(json!({ "sent": true }))),
///     }
/// });
/// let mut kit = Kit::new(handlers);
/// let mail = kit.enqueue("send_mail", &json!({ "to": "a@example.com" }));
///
/// assert_eq!(kit.drain().jobs("failed"), [mail]);
/// assert_eq!(kit.state(mail), "retryable");
/// assert_eq!(kit.advance(Duration::from_secs(1)).jobs("completed"), [mail]);
/// ```
pub struct Kit {
    memory: Memory,
    clock: Arc<Mutex<Clock>>,
    faults: Faults,
    handlers: Arc<dyn Script>,
    settings: Settings,
    rng: StdRng,
    /// How far the processes' clock is ahead of the database's, in milliseconds.
    ahead: i64,
    life: Option<Life>,
    seen: Seen,
}

/// A process: its runtime, which drops all it does when it dies, and its worker.
struct Life {
    runtime: Runtime,
    worker: Worker,
}

impl fmt::Debug for Kit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { settings, handlers, .. } = self;
        f.debug_struct("Kit")
            .field("seed", &settings.seed)
            .field("handlers", handlers)
            .finish_non_exhaustive()
    }
}

impl Kit {
    /// A kit whose jobs are run by `handlers`, with the usual settings.
    pub fn new(handlers: impl Script + 'static) -> Self {
        Self::with(handlers, Settings::default())
    }

    /// A kit with settings of the test's own.
    pub fn with(handlers: impl Script + 'static, settings: Settings) -> Self {
        // Replaced as soon as there is a runtime, before anybody asks.
        let clock = Arc::new(Mutex::new(Clock::at(settings.begins_at)));
        let database = Arc::clone(&clock);
        let now = move || database.lock().unwrap_or_else(PoisonError::into_inner).now();
        let mut kit = Self {
            memory: Memory::new(settings.slices, now),
            clock,
            faults: Faults::default(),
            handlers: Arc::new(handlers),
            rng: StdRng::seed_from_u64(settings.seed),
            settings,
            ahead: 0,
            life: None,
            seen: Seen::default(),
        };
        kit.start(kit.settings.begins_at, kit.settings.config.concurrency);
        // The worker's own upkeep is done before the test begins.
        kit.drain();
        kit
    }

    /// Starts a process.
    fn start(&mut self, at: Timestamp, concurrency: usize) {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        #[expect(clippy::expect_used, reason = "a test without a runtime has failed")]
        let runtime = runtime.expect("a runtime with nothing but time needs nothing");
        let config = Config {
            concurrency,
            clock: clock::process,
            chance: clock::chance,
            ..self.settings.config.clone()
        };
        let handlers = Suffering {
            handlers: Arc::clone(&self.handlers),
            faults: self.faults.clone(),
            memory: self.memory.clone(),
        };
        let store = self.memory.over(Arc::new(self.faults.clone()));
        let process = Uuid::from_u128(self.rng.random());
        let worker = runtime.block_on(async {
            let clock = Clock::at(at);
            *self.clock.lock().unwrap_or_else(PoisonError::into_inner) = clock;
            clock::set(clock, self.ahead, self.rng.random());
            Worker::start(Context::scripted(store, config, process, Arc::new(handlers)))
        });
        self.life = Some(Life { runtime, worker });
    }

    /// Does something in the process, after which its loops look at everything.
    fn within<T>(&mut self, what: impl AsyncFnOnce(&Self) -> T) -> T {
        let dice = self.rng.random();
        #[expect(clippy::expect_used, reason = "a kit has a process but in its own methods")]
        let life = self.life.as_ref().expect("the process lives");
        life.runtime.block_on(async {
            clock::set(
                *self.clock.lock().unwrap_or_else(PoisonError::into_inner),
                self.ahead,
                dice,
            );
            let answer = what(self).await;
            life.worker.context().hint(&Hint::Everything);
            answer
        })
    }

    /// The present, by its database.
    pub fn now(&mut self) -> Timestamp {
        self.within(async |kit| kit.clock.lock().unwrap_or_else(PoisonError::into_inner).now())
    }

    /// The store in memory: for handlers that enqueue, and for what the kit has no method for.
    pub fn store(&self) -> &Memory {
        &self.memory
    }

    /// Enqueues a job, due at once.
    ///
    /// # Panics
    /// Where the engine refuses it.
    pub fn enqueue(&mut self, kind: &str, args: &Value) -> Uuid {
        let enqueued = self.enqueue_with(kind, args, &EnqueueOptions::default());
        enqueued.unwrap_or_else(|error| panic!("the job was refused: {error}"))
    }

    /// Enqueues a job.
    ///
    /// # Errors
    /// As `tallylight.enqueue` refuses it.
    pub fn enqueue_with(
        &mut self,
        kind: &str,
        args: &Value,
        options: &EnqueueOptions,
    ) -> Result<Uuid, Error> {
        self.within(async |kit| kit.memory.enqueue(kind, args, options).await)
    }

    /// Appends an event.
    ///
    /// # Errors
    /// As the log refuses it.
    pub fn append(&mut self, event: &NewEvent) -> Result<(), Error> {
        self.within(async |kit| {
            let slice = kit.memory.slice_of(&event.subject);
            kit.memory.append(slice, None, std::slice::from_ref(event)).await.map(drop)
        })
    }

    /// Keeps a schedule that nothing is wrong with.
    pub fn put_schedule(&mut self, schedule: &NewSchedule) {
        self.within(async |kit| kit.memory.put_schedule(schedule));
    }

    /// Cancels a job; one that has ended stays as it is.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a job that a session waits for.
    pub fn cancel(&mut self, job: Uuid) -> Result<(), Error> {
        self.within(async |kit| kit.memory.cancel_job(job, false).map(drop))
    }

    /// Gives a dead letter new attempts.
    ///
    /// # Errors
    /// [`Error::NoSuchJob`].
    pub fn retry(&mut self, job: Uuid) -> Result<(), Error> {
        self.within(async |kit| kit.memory.retry_dead(job))
    }

    /// Pauses a queue, kind or key, at once; a worker of another process sees it within a poll.
    pub fn pause(&mut self, scope: PauseScope, name: &str) {
        self.memory.meddle(|tables| {
            let names = paused(&mut tables.pauses, scope);
            names.push(name.to_owned());
            names.sort();
            names.dedup();
        });
        self.restart();
    }

    /// Ends a pause.
    pub fn resume(&mut self, scope: PauseScope, name: &str) {
        self.memory.meddle(|tables| paused(&mut tables.pauses, scope).retain(|one| one != name));
        self.restart();
    }

    /// Something befalls the next run of `kind`; several faults befall as many runs, in order.
    pub fn fault(&mut self, kind: &str, fault: Fault) {
        self.faults.add(kind, fault);
    }

    /// Refuses the next `count` commits of starts and ends: they are not executed.
    pub fn refuse_commits(&mut self, count: usize) {
        self.faults.add_commits(count, Fate::Refused);
    }

    /// Loses the replies to the next `count` commits of starts and ends: they are executed, and the
    /// engine hears that the connection broke.
    pub fn lose_replies(&mut self, count: usize) {
        let at_once = Duration::ZERO;
        self.faults.add_commits(count, Fate::Lost { there: at_once, heard: at_once });
    }

    /// Lets each of the next `count` commits of starts and ends take so long.
    pub fn slow_commits(&mut self, count: usize, time: Duration) {
        self.faults.add_commits(count, Fate::Answered { there: time, back: Duration::ZERO });
    }

    /// Sets the process's clock ahead of the database's by so many milliseconds, or behind.
    pub fn skew(&mut self, millis: i64) {
        self.ahead = millis;
    }

    /// Lets the process die as it stands, and another one take over when its lease has ended.
    pub fn crash(&mut self) {
        self.faults.crash();
        self.succeed();
    }

    /// Puts another process into the place of one that died.
    fn succeed(&mut self) {
        let at = self.now();
        self.life = None;
        self.faults.take_crash();
        self.start(at, self.settings.config.concurrency);
    }

    /// Stops the process as a deployment does, and starts another one.
    pub fn restart(&mut self) {
        self.restart_with(self.settings.config.concurrency);
    }

    fn restart_with(&mut self, concurrency: usize) {
        let Some(Life { runtime, worker }) = self.life.take() else { return };
        let at = runtime.block_on(async {
            worker.shutdown().await;
            self.clock.lock().unwrap_or_else(PoisonError::into_inner).now()
        });
        drop(runtime);
        self.start(at, concurrency);
    }

    /// Runs everything that is due, to quiescence: also what becomes due meanwhile. Time passes as
    /// far as handlers sleep and leases have to end.
    ///
    /// # Panics
    /// Where it never comes to an end: a job enqueues another one again and again, or is due again
    /// at once whenever it has run.
    pub fn drain(&mut self) -> Report {
        self.settle(false);
        self.report()
    }

    /// Lets time pass; retries, timers and schedules become due in it and run.
    ///
    /// # Panics
    /// As [`Self::drain`].
    pub fn advance(&mut self, time: Duration) -> Report {
        self.wait(time);
        self.settle(false);
        self.report()
    }

    /// Lets time pass and no more: what runs may go on running.
    pub fn wait(&mut self, time: Duration) {
        let end = self.now() + time;
        while let Ok(left) = (end - self.now()).to_std()
            && !left.is_zero()
        {
            self.within(async |kit| pass(kit, left).await);
            self.replace_the_dead();
        }
    }

    /// Runs one due job to the end of its run; `None` where none is due. What has no handler, such as
    /// a timer, may be done besides.
    ///
    /// # Panics
    /// As [`Self::drain`].
    pub fn run_one(&mut self) -> Option<Run> {
        let before = self.faults.begun(0).len();
        self.faults.allow_starts(Some(1));
        self.restart_with(1);
        self.settle(true);
        self.faults.allow_starts(None);
        self.restart();
        let begun = self.faults.begun(before);
        begun.into_iter().next()
    }

    /// Waits until it is quiet; where only one job may start, until that one has ended.
    fn settle(&mut self, one: bool) {
        let begun = self.faults.begun(0).len();
        let end = self.now() + ENDLESS;
        loop {
            let is_quiet = self.within(async |kit| quieten(kit, one.then_some(begun)).await);
            if self.replace_the_dead() {
                continue;
            }
            if is_quiet {
                return;
            }
            assert!(self.now() < end, "{ENDLESS:?} of the kit's time have passed, and it goes on");
        }
    }

    /// Starts a process for one that died. Returns whether there was any.
    fn replace_the_dead(&mut self) -> bool {
        let is_dead = self.faults.has_crashed();
        if is_dead {
            self.succeed();
        }
        is_dead
    }

    /// What has happened since the last report.
    fn report(&mut self) -> Report {
        self.memory.look(|tables| self.seen.report(tables, &self.faults))
    }

    /// Live jobs of a kind, the oldest first.
    pub fn enqueued(&self, kind: &str) -> Vec<(Uuid, JobRow)> {
        self.memory.look(|tables| {
            let jobs = tables.slices.iter().flat_map(|slice| &slice.jobs);
            let of = jobs.filter(|(_, job)| job.kind == kind);
            let mut of: Vec<_> = of.map(|(id, job)| (*id, job.clone())).collect();
            of.sort_by_key(|(id, job)| (job.enqueued_at, *id));
            of
        })
    }

    /// Demands that a job of `kind` waits or runs whose arguments have all fields of `args`.
    ///
    /// # Panics
    /// Where there is none.
    pub fn assert_enqueued(&self, kind: &str, args: &Value) -> Uuid {
        let has_all = |job: &JobRow| {
            let wanted = args.as_object().into_iter().flatten();
            wanted.clone().all(|(name, value)| job.args.get(name) == Some(value))
        };
        let jobs = self.enqueued(kind);
        let found = jobs.iter().find(|(_, job)| has_all(job));
        let args_of = || jobs.iter().map(|(_, job)| &job.args).collect::<Vec<_>>();
        found.unwrap_or_else(|| panic!("no job {kind} with {args}, but {:?}", args_of())).0
    }

    /// Demands that no job of `kind` waits or runs.
    ///
    /// # Panics
    /// Where there is one.
    pub fn refute_enqueued(&self, kind: &str) {
        let jobs = self.enqueued(kind);
        assert!(jobs.is_empty(), "jobs {kind}: {jobs:?}");
    }

    /// The state of a job, by its usual name; `unknown` for an id that no job ever had.
    pub fn state(&mut self, job: Uuid) -> &'static str {
        let now = self.now();
        self.memory.look(|tables| tables.state_of(now, job))
    }

    /// The events of a subject, in order. A job without a subject has its own: `Subject::job(id)`.
    pub fn events(&mut self, subject: &Subject) -> Vec<domain::event::RecordedEvent> {
        self.memory.look(|tables| {
            let all = tables.slices.iter().flat_map(|slice| &slice.events);
            all.filter(|event| event.subject == *subject).cloned().collect()
        })
    }
}

/// The list of one scope.
fn paused(pauses: &mut store::Pauses, scope: PauseScope) -> &mut Vec<String> {
    match scope {
        PauseScope::Queue => &mut pauses.queues,
        PauseScope::Kind => &mut pauses.kinds,
        PauseScope::Key => &mut pauses.keys,
    }
}

/// Lets time pass, until the process dies.
async fn pass(kit: &Kit, time: Duration) {
    tokio::select! {
        biased;
        () = kit.faults.death() => {}
        () = sleep(time) => {}
    }
}

/// Waits for quiescence, or until a job has run after the first `begun` ones; returns early where
/// the process dies, and where it has not come to an end for long.
async fn quieten(kit: &Kit, begun: Option<usize>) -> bool {
    let end = Instant::now() + ENDLESS;
    let (mut step, mut last, mut changed) = (STEP, None, Instant::now());
    // The loops hear what is new first.
    sleep(STEP).await;
    while !kit.faults.has_crashed() && Instant::now() < end {
        let (is_busy, waits, news) = kit.memory.look(|tables| {
            let now = kit.clock.lock().unwrap_or_else(PoisonError::into_inner).now();
            (tables.is_busy(), tables.has_due(now), tables.happened())
        });
        let has_begun = begun.is_none_or(|begun| !kit.faults.begun(begun).is_empty());
        if !is_busy && (!waits || begun.is_some() && has_begun) {
            return true;
        }
        if last.replace(news) == Some(news) {
            step = (step * 2).min(LONG_STEP);
        } else {
            (step, changed) = (STEP, Instant::now());
        }
        if !is_busy && changed.elapsed() > kit.settings.config.lease * LULL {
            return true;
        }
        sleep(step).await;
    }
    false
}

/// Ids of jobs, each once, in their order.
pub(super) fn distinct(ids: impl Iterator<Item = Uuid>) -> Vec<Uuid> {
    let mut seen = HashSet::new();
    ids.filter(|id| seen.insert(*id)).collect()
}
