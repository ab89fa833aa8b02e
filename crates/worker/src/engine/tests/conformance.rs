//! Conformance of the engine: the same scenarios over the store in memory, as a kit runs it, and over
//! PostgreSQL come to the same transcript. `store`'s own conformance suite compares the two by random
//! calls; here are whole lives of jobs.
//!
//! A *transcript* says of each job which of its runs began, how those that failed ended, its state
//! at the end and its events, but no times.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use domain::schedule::Missed;
use store::OnConflict::{Debounce, Existing, Ignore, Replace};
use store::{NewSchedule, PauseScope};
use tokio::runtime::{Builder, Runtime};

use super::*;
use crate::jobs::JobError;
use crate::testing::{Handlers, Kit, Run, Settings};

/// In the place of the id of a job that was refused: for what it is, and because there are too many.
const REFUSALS: [Uuid; 2] = [Uuid::nil(), Uuid::max()];

/// What a transcript says of a job.
#[derive(Debug, Clone, PartialEq)]
struct Told {
    starts: Vec<i32>,
    attempts: Vec<(i32, String)>,
    state: String,
    events: Vec<String>,
    args: Value,
}

/// What the handlers of a stage saw.
#[derive(Debug, Clone, Default)]
struct Book(Arc<Mutex<Pages>>);

#[derive(Debug, Default)]
struct Pages {
    runs: Vec<Run>,
    /// Runs of each kind now, and the most there were.
    at_once: BTreeMap<String, (i32, i32)>,
}

impl Book {
    fn pages(&self) -> std::sync::MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn starts_of(&self, id: Uuid) -> Vec<i32> {
        let pages = self.pages();
        pages.runs.iter().filter(|run| run.id == id).map(|run| run.attempt).collect()
    }

    fn handlers(&self) -> Handlers {
        let kinds =
            ["ok", "flaky", "fail", "cancel", "panic", "snooze", "hang", "hang_once", "slow"];
        kinds.into_iter().fold(Handlers::new(), |handlers, kind| {
            let book = self.clone();
            handlers.on(kind, move |run| {
                let book = book.clone();
                async move { book.handle(run).await }
            })
        })
    }

    async fn handle(self, run: Run) -> Result<Done, JobError> {
        let (kind, attempt) = (run.kind.clone(), run.attempt);
        let fails = run.args["fails"].as_i64().unwrap_or(0);
        {
            let mut pages = self.pages();
            pages.runs.push(run);
            let (now, most) = pages.at_once.entry(kind.clone()).or_default();
            *now += 1;
            *most = (*most).max(*now);
        }
        let _entry = Entry { book: self.clone(), kind: kind.clone() };
        let done = Ok(Done::Value(json!(null)));
        match kind.as_str() {
            "flaky" if i64::from(attempt) <= fails => {
                Err(JobError::Retry { after: None, reason: "not yet".to_owned() })
            }
            "fail" => Err(JobError::Fail { reason: "never".to_owned() }),
            "cancel" => Err(JobError::Cancel { reason: "not needed".to_owned() }),
            "panic" => panic!("boom"),
            "snooze" if attempt == 1 => {
                let after = Duration::from_millis(20);
                Err(JobError::Snooze { after, reason: "later".to_owned() })
            }
            "hang" => std::future::pending().await,
            "hang_once" if attempt == 1 => std::future::pending().await,
            "slow" => {
                tokio::time::sleep(Duration::from_millis(60)).await;
                done
            }
            _ => done,
        }
    }
}

/// A run that goes on.
struct Entry {
    book: Book,
    kind: String,
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some((now, _)) = self.book.pages().at_once.get_mut(&self.kind) {
            *now -= 1;
        }
    }
}

/// An engine over one of the two stores.
struct Stage {
    over: Over,
    book: Book,
    jobs: BTreeMap<&'static str, Uuid>,
    /// What each is about, and what decides its slice.
    places: BTreeMap<Uuid, (Subject, Subject)>,
}

#[expect(clippy::large_enum_variant, reason = "a test has two of them")]
enum Over {
    Memory(Kit),
    Postgres { url: String, store: Store, test: Runtime, process: Option<(Runtime, Worker)> },
}

/// A process over PostgreSQL; it dies with its runtime, and its connections do.
fn process(url: &str, book: &Book) -> (Runtime, Worker) {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let config = Config { chance: || 0.0, ..config() };
    let handlers = Arc::new(book.handlers());
    let worker = runtime.block_on(async {
        let store = Store::connect(&store::Config::new(url)).await.unwrap();
        Worker::start(Context::scripted(store, config, Uuid::now_v7(), handlers))
    });
    (runtime, worker)
}

impl Stage {
    fn memory() -> Self {
        let book = Book::default();
        let settings = Settings { slices: SliceCount::DEFAULT, ..Settings::default() };
        let kit = Kit::with(book.handlers(), settings);
        Self { over: Over::Memory(kit), book, jobs: BTreeMap::new(), places: BTreeMap::new() }
    }

    fn postgres() -> Self {
        let book = Book::default();
        let test = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let url = test.block_on(store::testing::database());
        let store = test.block_on(Store::connect(&store::Config::new(url.as_str()))).unwrap();
        let process = Some(process(&url, &book));
        let over = Over::Postgres { url, store, test, process };
        Self { over, book, jobs: BTreeMap::new(), places: BTreeMap::new() }
    }

    /// Enqueues a job under a name; says what was refused, or whose key it was.
    fn enqueue(&mut self, name: &'static str, kind: &str, args: &Value, options: &EnqueueOptions) {
        let enqueued = match &mut self.over {
            Over::Memory(kit) => kit.enqueue_with(kind, args, options),
            Over::Postgres { store, test, .. } => test.block_on(store.enqueue(kind, args, options)),
        };
        let id = match enqueued {
            Ok(id) => id,
            Err(store::Error::Invalid { .. }) => REFUSALS[0],
            Err(store::Error::TooMany { .. }) => REFUSALS[1],
            Err(error) => panic!("{name}: {error}"),
        };
        self.jobs.insert(name, id);
        let limit = options.limit_key.clone().map(Subject::from_stored);
        let keyed = || Some(Subject::from_stored(format!("job/{kind}/{}", options.key.as_ref()?)));
        let subject = options.subject.clone().map(Subject::from_stored);
        let subject = subject.or_else(|| limit.clone()).or_else(keyed);
        let subject = subject.unwrap_or_else(|| Subject::job(id));
        self.places.insert(id, (subject.clone(), limit.unwrap_or(subject)));
    }

    fn plain(&mut self, name: &'static str, kind: &str) {
        self.enqueue(name, kind, &json!({}), &EnqueueOptions::default());
    }

    fn cancel(&mut self, name: &str) {
        let id = self.jobs[name];
        match &mut self.over {
            Over::Memory(kit) => kit.cancel(id).unwrap(),
            Over::Postgres { store, test, .. } => {
                test.block_on(store.cancel_job(id, false)).unwrap();
            }
        }
    }

    fn retry(&mut self, name: &str) {
        let id = self.jobs[name];
        match &mut self.over {
            Over::Memory(kit) => kit.retry(id).unwrap(),
            Over::Postgres { store, test, .. } => test.block_on(store.retry_dead(id)).unwrap(),
        }
    }

    /// Pauses, and is sure that it was heard.
    fn pause(&mut self, scope: PauseScope, name: &str) {
        match &mut self.over {
            Over::Memory(kit) => kit.pause(scope, name),
            Over::Postgres { store, test, .. } => {
                test.block_on(store.pause(scope, name, "me", None)).unwrap();
            }
        }
        self.restart();
    }

    fn resume(&mut self, scope: PauseScope, name: &str) {
        match &mut self.over {
            Over::Memory(kit) => kit.resume(scope, name),
            Over::Postgres { store, test, .. } => {
                test.block_on(store.resume(scope, name)).unwrap();
            }
        }
    }

    /// Puts a schedule whose next fire is long past.
    fn put_late_schedule(&mut self, schedule: &NewSchedule, late: Duration) {
        match &mut self.over {
            Over::Memory(kit) => {
                kit.put_schedule(schedule);
                let to = kit.now() - late;
                kit.store().meddle(|tables| {
                    let rows = tables.slices.iter_mut();
                    let mut rows = rows.filter_map(|s| s.schedules.get_mut(&schedule.name));
                    rows.next().unwrap().next_fire_at = Some(to);
                });
            }
            Over::Postgres { store, test, .. } => {
                test.block_on(async {
                    store.put_schedule(schedule).await.unwrap();
                    store::testing::rewind_schedule(store, &schedule.name, now() - late).await;
                });
            }
        }
        self.restart();
    }

    fn restart(&mut self) {
        match &mut self.over {
            Over::Memory(kit) => kit.restart(),
            Over::Postgres { url, process: living, .. } => {
                let (runtime, worker) = living.take().unwrap();
                runtime.block_on(worker.shutdown());
                *living = Some(process(url, &self.book));
            }
        }
    }

    /// The process dies as it stands, and another takes over.
    fn crash(&mut self) {
        match &mut self.over {
            Over::Memory(kit) => kit.crash(),
            Over::Postgres { url, store, test, process: living } => {
                living.take().unwrap().0.shutdown_timeout(Duration::from_secs(5));
                test.block_on(store::testing::end_leases(store));
                *living = Some(process(url, &self.book));
            }
        }
    }

    /// Waits until a condition holds.
    fn until(&mut self, what: &str, mut is: impl FnMut(&mut Self) -> bool) {
        let (begun, mut steps) = (Instant::now(), 0);
        while !is(self) {
            match &mut self.over {
                Over::Memory(kit) => kit.wait(Duration::from_millis(100)),
                Over::Postgres { .. } => std::thread::sleep(Duration::from_millis(5)),
            }
            steps += 1;
            let is_late = match self.over {
                Over::Memory(_) => steps > 20_000,
                Over::Postgres { .. } => begun.elapsed() > LIMIT,
            };
            assert!(!is_late, "waited too long: {what}; {:?}", self.told());
        }
    }

    fn until_state(&mut self, name: &'static str, state: &str) {
        self.until(&format!("{name} is {state}"), |stage| stage.state(name) == state);
    }

    fn until_begun(&mut self, name: &'static str, starts: usize) {
        let id = self.jobs[name];
        let is = |stage: &mut Self| stage.book.starts_of(id).len() >= starts;
        self.until(&format!("{name} begins"), is);
    }

    fn state(&mut self, name: &str) -> String {
        let id = self.jobs[name];
        if REFUSALS.contains(&id) {
            return "refused".to_owned();
        }
        match &mut self.over {
            Over::Memory(kit) => kit.state(id).to_owned(),
            // What was completed leaves events alone.
            Over::Postgres { store, test, .. } => test
                .block_on(store.find_job(id))
                .unwrap()
                .map_or_else(|| "completed".to_owned(), |job| job.state),
        }
    }

    /// The transcript.
    fn told(&mut self) -> BTreeMap<&'static str, Told> {
        let mut told = BTreeMap::new();
        for (name, id) in self.jobs.clone() {
            let mut starts = self.book.starts_of(id);
            starts.sort_unstable();
            let last = self.book.pages().runs.iter().rev().find(|run| run.id == id).cloned();
            let args = last.map(|run| run.args).unwrap_or_default();
            let (attempts, events) = self.history(id);
            let state = self.state(name);
            told.insert(name, Told { starts, attempts, state, events, args });
        }
        told
    }

    /// Runs that failed, and events.
    fn history(&mut self, id: Uuid) -> (Vec<(i32, String)>, Vec<String>) {
        let (subject, place) = self.places[&id].clone();
        let types = |events: Vec<RecordedEvent>| events.into_iter().map(|e| e.event_type).collect();
        match &mut self.over {
            Over::Memory(kit) => {
                let attempts = kit.store().look(|tables| {
                    let all = tables.slices.iter().flat_map(|slice| &slice.attempts);
                    let of = all.filter(|((of, _), _)| *of == id);
                    of.map(|((_, n), how)| (*n, (*how).to_owned())).collect()
                });
                (attempts, types(kit.events(&subject)))
            }
            Over::Postgres { store, test, .. } => test.block_on(async {
                let slice = store.slice_of(&place);
                let attempts = store.job_attempts(slice, id).await.unwrap();
                let attempts = attempts.into_iter().map(|a| (a.attempt, a.outcome)).collect();
                (attempts, types(store.read_subject(&subject, 0, 100).await.unwrap()))
            }),
        }
    }

    fn end(self) {
        if let Over::Postgres { process: Some((runtime, worker)), .. } = self.over {
            runtime.block_on(worker.shutdown());
        }
    }
}

/// Plays a scenario on both stages and compares what came of it.
fn compare(scenario: impl Fn(&mut Stage) -> Vec<String>) {
    let play = |mut stage: Stage| {
        let said = scenario(&mut stage);
        let told = stage.told();
        stage.end();
        (said, told)
    };
    let (memory, postgres) = (play(Stage::memory()), play(Stage::postgres()));
    assert_eq!(memory, postgres, "left: in memory, right: on PostgreSQL");
}

fn attempts(most: i32) -> EnqueueOptions {
    EnqueueOptions { max_attempts: Some(most), ..EnqueueOptions::default() }
}

#[test]
fn handlers_that_fail_wait_panic_or_cancel_come_to_the_same() {
    compare(|stage| {
        stage.enqueue("twice", "flaky", &json!({"fails": 2}), &attempts(5));
        stage.enqueue("too_often", "flaky", &json!({"fails": 9}), &attempts(3));
        stage.enqueue("snoozes", "snooze", &json!({}), &attempts(1));
        stage.enqueue("panics", "panic", &json!({}), &attempts(2));
        for kind in ["ok", "fail", "cancel"] {
            stage.plain(kind, kind);
        }
        for (name, state) in [
            ("twice", "completed"),
            ("too_often", "discarded"),
            ("snoozes", "completed"),
            ("panics", "discarded"),
            ("ok", "completed"),
            ("fail", "discarded"),
            ("cancel", "cancelled"),
        ] {
            stage.until_state(name, state);
        }
        // What was given up is tried again.
        stage.retry("too_often");
        stage.until_begun("too_often", 6);
        stage.until_state("too_often", "discarded");
        stage.until("it is told", |stage| stage.history(stage.jobs["too_often"]).1.len() == 2);
        Vec::new()
    });
}

#[test]
fn jobs_that_are_cancelled_come_to_the_same() {
    compare(|stage| {
        let run_at = Some(now() + Duration::from_hours(24 * 365));
        let later = EnqueueOptions { run_at, ..EnqueueOptions::default() };
        stage.enqueue("waits", "ok", &json!({}), &later);
        stage.plain("runs", "hang");
        stage.until_begun("runs", 1);
        for name in ["waits", "runs"] {
            stage.cancel(name);
            let is = |stage: &mut Stage| stage.history(stage.jobs[name]).1.len() == 1;
            stage.until("its end is told", is);
        }
        Vec::new()
    });
}

#[test]
fn jobs_whose_process_dies_come_to_the_same() {
    compare(|stage| {
        stage.plain("once", "hang_once");
        stage.plain("always", "hang");
        for n in 1..=4 {
            stage.until_begun("always", n);
            if n == 1 {
                stage.until_begun("once", 1);
            } else {
                stage.until_state("once", "completed");
            }
            stage.crash();
        }
        stage.until_state("always", "quarantined");
        Vec::new()
    });
}

#[test]
fn jobs_of_one_key_run_as_their_limit_says_and_in_order() {
    compare(|stage| {
        let limited = |limit| EnqueueOptions {
            limit_key: Some("account/1".to_owned()),
            limit: Some(limit),
            limit_waiting: Some(6),
            ..EnqueueOptions::default()
        };
        stage.pause(PauseScope::Kind, "slow");
        let names = ["a", "b", "c", "d", "e", "f", "one too many"];
        for name in names {
            stage.enqueue(name, "slow", &json!({}), &limited(2));
        }
        stage.resume(PauseScope::Kind, "slow");
        for name in &names[..6] {
            stage.until_state(name, "completed");
        }
        let fifo =
            EnqueueOptions { subject: Some("a/b/1".to_owned()), ..EnqueueOptions::default() };
        let in_order = ["g", "h", "i", "j"];
        for name in in_order {
            stage.enqueue(name, "ok", &json!({}), &fifo);
        }
        for name in in_order {
            stage.until_state(name, "completed");
        }
        let pages = stage.book.pages();
        let order = |name: &str| pages.runs.iter().position(|run| run.id == stage.jobs[name]);
        assert!(in_order.is_sorted_by_key(|name| order(name)));
        vec![format!("{:?}", pages.at_once["slow"])]
    });
}

#[test]
fn ordered_jobs_of_a_key_wait_for_the_end_of_the_one_before_however_it_comes() {
    compare(|stage| {
        let ordered = EnqueueOptions {
            limit_key: Some("account/1".to_owned()),
            ordered: Some(true),
            ..EnqueueOptions::default()
        };
        let names = ["fails twice", "is later", "dies with it", "is given up"];
        stage.pause(PauseScope::Key, "account/1");
        stage.enqueue(names[0], "flaky", &json!({"fails": 2}), &ordered);
        stage.enqueue(names[1], "snooze", &json!({}), &ordered);
        stage.enqueue(names[2], "hang_once", &json!({}), &ordered);
        stage.enqueue(names[3], "fail", &json!({}), &ordered);
        stage.enqueue("last", "ok", &json!({}), &ordered);
        stage.resume(PauseScope::Key, "account/1");
        stage.until_begun(names[2], 1);
        stage.crash();
        stage.until_state("last", "completed");
        let pages = stage.book.pages();
        let name = |id| stage.jobs.iter().find(|(_, of)| **of == id).map_or("?", |(name, _)| *name);
        let begun: Vec<&str> = pages.runs.iter().map(|run| name(run.id)).collect();
        assert_eq!(
            begun,
            [
                "fails twice",
                "fails twice",
                "fails twice",
                "is later",
                "is later",
                "dies with it",
                "dies with it",
                "is given up",
                "last"
            ]
        );
        Vec::new()
    });
}

#[test]
fn jobs_with_a_key_are_one_job_on_both() {
    compare(|stage| {
        let keyed = |on_conflict| EnqueueOptions {
            key: Some("k".to_owned()),
            on_conflict,
            ..EnqueueOptions::default()
        };
        stage.pause(PauseScope::Kind, "ok");
        stage.enqueue("first", "ok", &json!({"n": 1}), &keyed(Some(Replace)));
        stage.enqueue("same", "ok", &json!({"n": 2}), &keyed(Some(Existing)));
        stage.enqueue("replaces", "ok", &json!({"n": 3}), &keyed(Some(Replace)));
        stage.enqueue("pushes back", "ok", &json!({"n": 4}), &keyed(Some(Debounce)));
        stage.enqueue("is ignored", "ok", &json!({"n": 5}), &keyed(Some(Ignore)));
        stage.resume(PauseScope::Kind, "ok");
        stage.until_begun("first", 1);
        stage.until_state("first", "completed");
        let is = |a: &str, b: &str| (stage.jobs[a] == stage.jobs[b]).to_string();
        let said = ["same", "replaces", "pushes back", "is ignored"].map(|name| is("first", name));
        said.into_iter().collect()
    });
}

#[test]
fn missed_fires_are_caught_up_alike() {
    compare(|stage| {
        stage.put_late_schedule(
            &NewSchedule {
                name: "daily".to_owned(),
                cron: "0 0 * * *".to_owned(),
                time_zone: "UTC".to_owned(),
                kind: "ok".to_owned(),
                args: json!({"of": "daily"}),
                options: json!({}),
                missed: Missed::CatchUp(3),
                paused: None,
            },
            Duration::from_hours(24 * 9),
        );
        stage.until("three fires", |stage| stage.book.pages().runs.len() >= 3);
        let pages = stage.book.pages();
        pages.runs.iter().map(|run| run.args.to_string()).collect()
    });
}

#[test]
fn what_is_paused_waits_on_both() {
    compare(|stage| {
        stage.pause(PauseScope::Queue, "mails");
        let mails = EnqueueOptions { queue: Some("mails".to_owned()), ..EnqueueOptions::default() };
        stage.enqueue("paused", "ok", &json!({}), &mails);
        stage.plain("free", "ok");
        stage.until_state("free", "completed");
        let said = vec![stage.state("paused")];
        stage.resume(PauseScope::Queue, "mails");
        stage.until_state("paused", "completed");
        said
    });
}
