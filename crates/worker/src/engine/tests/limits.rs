//! Limits, fairness and pauses: in virtual time over the store in memory where somebody dies or
//! time counts, on PostgreSQL where many jobs do.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use futures_util::future::BoxFuture;
use store::PauseScope;

use super::*;
use crate::jobs::JobError;
use crate::testing::{Run, Script};

/// Handlers that take their time, and a ledger of what ran.
#[derive(Debug, Default)]
struct Ledger(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    /// Runs of each subject now, and the most there were.
    runs: HashMap<String, (i32, i32)>,
    /// `n` of the arguments, in the order of the starts.
    begun: Vec<i64>,
    /// Of those that came to their end.
    done: Vec<i64>,
    cancelled: i32,
}

/// A run in the ledger, until it ends or is cancelled.
struct Entry {
    ledger: Arc<Ledger>,
    subject: String,
    n: Option<i64>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut book = self.ledger.0.lock().unwrap();
        book.runs.get_mut(&self.subject).unwrap().0 -= 1;
        match self.n {
            Some(n) => book.done.push(n),
            None => book.cancelled += 1,
        }
    }
}

/// A script that keeps a ledger.
#[derive(Debug, Clone, Default)]
struct Kept(Arc<Ledger>);

impl Script for Kept {
    fn knows(&self, kind: &str) -> bool {
        kind.starts_with("test_")
    }

    fn run(&self, run: Run) -> BoxFuture<'static, Result<Done, JobError>> {
        let ledger = Arc::clone(&self.0);
        Box::pin(async move {
            let n = run.args["n"].as_i64().unwrap();
            let subject = run.subject.to_string();
            {
                let mut book = ledger.0.lock().unwrap();
                book.begun.push(n);
                let (now, most) = book.runs.entry(subject.clone()).or_default();
                *now += 1;
                *most = (*most).max(*now);
            }
            let mut entry = Entry { ledger, subject, n: None };
            let takes = run.args["ms"].as_u64().unwrap_or(1);
            tokio::time::sleep(Duration::from_millis(takes)).await;
            entry.n = Some(n);
            Ok(Done::Value(json!(n)))
        })
    }
}

/// A line that can be cut: then nothing passes.
#[derive(Debug, Default)]
struct Cut(AtomicBool);

impl Line for Cut {
    fn fate(&self, _: &'static str) -> Fate {
        if self.0.load(Ordering::Relaxed) { Fate::Refused } else { Fate::AT_ONCE }
    }
}

/// A store in memory whose clock goes with the runtime's.
fn in_virtual_time() -> Memory {
    let (begun, started) = (now(), Instant::now());
    Memory::new(SliceCount::DEFAULT, move || begun + started.elapsed())
}

fn worker(memory: &Memory, config: Config, script: &Kept) -> Worker {
    let script = Arc::new(script.clone());
    Worker::start(Context::scripted(memory.clone(), config, Uuid::now_v7(), script))
}

/// Waits in virtual time.
async fn until_then(script: &Kept, is: impl Fn(&Book) -> bool) {
    let begun = Instant::now();
    while !is(&script.0.0.lock().unwrap()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(begun.elapsed() < LIMIT * 4, "{:?}", script.0.0.lock().unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_of_a_key_run_than_its_limit_though_its_owner_is_cut_off() {
    let memory = in_virtual_time();
    let script = Kept::default();
    for n in 0..300 {
        let limit_key = Some("account/1".to_owned());
        let options = EnqueueOptions { limit_key, limit: Some(3), ..Default::default() };
        memory.enqueue("test_slow", &json!({"n": n, "ms": 100}), &options).await.unwrap();
    }
    let cut = Arc::new(Cut::default());
    let first = worker(&memory.over(Arc::<Cut>::clone(&cut)), config(), &script);
    until_then(&script, |book| book.done.len() > 100).await;
    // It neither hears nor is heard: it ends its handlers by its own clock.
    cut.0.store(true, Ordering::Relaxed);
    let second = worker(&memory, config(), &script);
    until_then(&script, |book| book.done.len() > 200).await;
    cut.0.store(false, Ordering::Relaxed);
    let all = |book: &Book| (0..300).all(|n| book.done.contains(&n));
    until_then(&script, all).await;
    {
        let book = script.0.0.lock().unwrap();
        assert_eq!(book.runs["account/1"].1, 3, "as many as allowed, and never more");
        assert!(book.cancelled <= 3, "only what ran when the line was cut");
    }
    first.shutdown().await;
    second.shutdown().await;
    assert!(memory.look(|t| {
        t.slices
            .iter()
            .all(|s| s.jobs.values().all(|j| j.queue != "default" || j.unique_key.is_some()))
    }));
}

#[tokio::test(start_paused = true)]
async fn short_jobs_of_a_parked_key_keep_its_limit_and_start_once() {
    let memory = in_virtual_time();
    let script = Kept::default();
    for n in 0..300 {
        let limit_key = Some("account/1".to_owned());
        let options = EnqueueOptions { limit_key, limit: Some(3), ..Default::default() };
        // Many end between two reads of what is due.
        memory.enqueue("test_slow", &json!({"n": n, "ms": 1}), &options).await.unwrap();
    }
    let worker = worker(&memory, Config { poll: LIMIT, ..config() }, &script);
    until_then(&script, |book| (0..300).all(|n| book.done.contains(&n))).await;
    worker.shutdown().await;
    let book = script.0.0.lock().unwrap();
    assert_eq!(book.runs["account/1"].1, 3, "as many as allowed, and never more");
    assert_eq!(book.begun.len(), 300);
}

/// `n` of jobs that fail the first time, with a later job of their key waiting and due.
#[derive(Debug, Clone, Default)]
struct FailsFirst(Kept);

impl Script for FailsFirst {
    fn knows(&self, kind: &str) -> bool {
        self.0.knows(kind)
    }

    /// Ordered jobs are marked all the same.
    fn is_marked(&self, _kind: &str) -> bool {
        false
    }

    fn run(&self, run: Run) -> BoxFuture<'static, Result<Done, JobError>> {
        let fails = run.attempt == 1 && run.args["fails"] == true;
        let runs = self.0.run(run);
        Box::pin(async move {
            let done = runs.await?;
            let reason = "the first time".to_owned();
            if fails { Err(JobError::Retry { after: None, reason }) } else { Ok(done) }
        })
    }
}

#[tokio::test(start_paused = true)]
async fn ordered_jobs_of_a_key_with_a_backlog_keep_their_order_though_some_fail_and_owners_change()
{
    let memory = in_virtual_time();
    let script = FailsFirst::default();
    let expected: Vec<i64> =
        (0..1_000).flat_map(|n| vec![n; if n % 50 == 0 { 2 } else { 1 }]).collect();
    for n in 0..1_000 {
        let options = EnqueueOptions {
            limit_key: Some("account/1".to_owned()),
            ordered: Some(true),
            ..Default::default()
        };
        let args = json!({"n": n, "ms": 20, "fails": n % 50 == 0});
        memory.enqueue("test_slow", &args, &options).await.unwrap();
    }
    let start = || {
        let script = Arc::new(script.clone());
        Worker::start(Context::scripted(memory.clone(), config(), Uuid::now_v7(), script))
    };
    for next in [300, 600, 1_000] {
        let worker = start();
        until_then(&script.0, |book| book.done.contains(&(next - 1))).await;
        worker.shutdown().await;
    }
    let mut begun = script.0.0.0.lock().unwrap().begun.clone();
    // What a stop interrupts begins again, at once and before all others.
    begun.dedup();
    let mut expected = expected;
    expected.dedup();
    assert_eq!(begun, expected);
}

#[tokio::test(start_paused = true)]
async fn who_has_few_jobs_is_not_held_up_by_who_has_many() {
    let memory = in_virtual_time();
    let script = Kept::default();
    // All in one slice, which one limit key of each job's own would not be.
    let count = SliceCount::DEFAULT;
    let subjects = (0..).map(|n| Subject::from_stored(format!("a/b/{n}")));
    let subjects = subjects.filter(|subject| count.slice_of(subject) == 3);
    for (n, subject) in (0_i64..).zip(subjects.take(503)) {
        let fair_key = Some(if n < 500 { "big" } else { "small" }.to_owned());
        let options =
            EnqueueOptions { subject: Some(subject.to_string()), fair_key, ..Default::default() };
        memory.enqueue("test_slow", &json!({"n": n}), &options).await.unwrap();
    }
    let worker = worker(&memory, Config { concurrency: 1, ..config() }, &script);
    until_then(&script, |book| (500..503).all(|n| book.done.contains(&n))).await;
    let before = script.0.0.lock().unwrap().begun.len();
    worker.shutdown().await;
    assert!(before < 20, "{before} starts before the three were done");
}

#[tokio::test(start_paused = true)]
async fn of_more_fair_keys_than_a_look_sees_each_has_its_turn() {
    let memory = in_virtual_time();
    let script = Kept::default();
    let count = SliceCount::DEFAULT;
    let subjects = (0..).map(|n| Subject::from_stored(format!("a/b/{n}")));
    let subjects = subjects.filter(|subject| count.slice_of(subject) == 3);
    let jobs = (0_i64..).zip(subjects.take(600));
    for (n, subject) in jobs {
        // Those of the first 150 are due tomorrow: they must not hide the others.
        let run_at = (n < 150).then(|| now() + Duration::from_hours(24));
        let fair_key = Some(format!("account/{n:03}"));
        let subject = Some(subject.to_string());
        let options = EnqueueOptions { subject, fair_key, run_at, ..Default::default() };
        memory.enqueue("test_slow", &json!({"n": n}), &options).await.unwrap();
    }
    let worker = worker(&memory, config(), &script);
    until_then(&script, |book| book.done.len() == 450).await;
    worker.shutdown().await;
}

/// Subjects of one slice.
fn neighbours(store: &Store, slice: i16) -> impl Iterator<Item = Subject> {
    let subjects = (0..).map(|n| Subject::from_stored(format!("a/b/{n}")));
    let store = store.clone();
    subjects.filter(move |subject| store.slice_of(subject) == slice)
}

fn numbered(subject: &Subject, kind: &str, n: u128, run_at: Timestamp) -> NewJob {
    NewJob { id: Uuid::from_u128(n), ..job(subject, kind, 0, json!({"n": n.to_string()}), run_at) }
}

#[tokio::test]
async fn a_key_with_a_hundred_thousand_jobs_hides_nobody() {
    let store = store::testing::store().await;
    let mut subjects = neighbours(&store, 3);
    let (hot, other) = (subjects.next().unwrap(), subjects.next().unwrap());
    let at = now() - Duration::from_mins(10);
    let kind = |n| if n == 0 { "test_hang" } else { "test_ok" };
    let base = 0xa_0000_0000;
    let jobs = (0..100_000).map(|n| numbered(&hot, kind(n), base + n, at)).collect();
    insert(&store, &hot, jobs).await;
    // A machine that does much else besides takes a while to move so many.
    let worker = start(&store, Config { lease: LIMIT, ..config() });
    until(async || (starts_of(Uuid::from_u128(base)) == [1]).then_some(())).await;
    let options = EnqueueOptions { subject: Some(other.to_string()), ..Default::default() };
    let id = store.enqueue("test_ok", &json!({}), &options).await.unwrap();
    until(async || (starts_of(id) == [1]).then_some(())).await;
    assert!(starts_of(Uuid::from_u128(base + 1)).is_empty(), "its first job still runs");
    worker.shutdown().await;
}

#[tokio::test]
async fn a_long_key_is_drained_in_order_by_whoever_holds_it() {
    let store = store::testing::store().await;
    let hot = neighbours(&store, 3).next().unwrap();
    let at = now() - Duration::from_mins(10);
    let base: u128 = 0xb_0000_0000;
    let jobs = (0..200).map(|n| numbered(&hot, "test_ok", base + n, at)).collect();
    insert(&store, &hot, jobs).await;
    let begun = || {
        let all = crate::jobs::tests::BEGUN.lock().unwrap();
        let own =
            all.iter().map(|(id, _)| id.as_u128()).filter(|id| (base..base + 200).contains(id));
        // One whose lease ended under it runs again, in its place.
        let mut first = Vec::new();
        for n in own.map(|id| id - base) {
            if !first.contains(&n) {
                first.push(n);
            }
        }
        first
    };
    // The first holder has parked them when it stops; the next must find them.
    for until_begun in [20, 200] {
        let worker = start(&store, config());
        until(async || (begun().len() >= until_begun).then_some(())).await;
        worker.shutdown().await;
    }
    assert_eq!(begun(), (0..200).collect::<Vec<u128>>());
    until(async || (store.job_counts().await.unwrap().available == 0).then_some(())).await;
}

#[tokio::test]
async fn what_is_paused_burns_nothing_hides_nobody_and_comes_back() {
    let store = store::testing::store().await;
    store.pause(PauseScope::Queue, "mails", "me", None).await.unwrap();
    let mut subjects = neighbours(&store, 3);
    let mut paused = Vec::new();
    for subject in subjects.by_ref().take(150) {
        let (subject, queue) = (Some(subject.to_string()), Some("mails".to_owned()));
        let options = EnqueueOptions { subject, queue, ..Default::default() };
        paused.push(store.enqueue("test_ok", &json!({}), &options).await.unwrap());
    }
    let subject = subjects.next().map(|subject| subject.to_string());
    let options = EnqueueOptions { subject, ..Default::default() };
    let other = store.enqueue("test_ok", &json!({}), &options).await.unwrap();
    let worker = start(&store, config());
    until(async || (starts_of(other) == [1]).then_some(())).await;
    assert!(paused.iter().all(|id| starts_of(*id).is_empty()));
    // Another process holds the slice when the pause ends.
    worker.shutdown().await;
    let worker = start(&store, config());
    assert!(store.resume(PauseScope::Queue, "mails").await.unwrap());
    until(async || paused.iter().all(|id| starts_of(*id) == [1]).then_some(())).await;
    worker.shutdown().await;
}

#[tokio::test]
async fn a_paused_kind_and_a_paused_key_wait_and_what_runs_goes_on() {
    let store = store::testing::store().await;
    let subjects: Vec<Subject> = neighbours(&store, 3).take(2).collect();
    let enqueue = async |kind: &str, subject: &Subject| {
        let options = EnqueueOptions { subject: Some(subject.to_string()), ..Default::default() };
        store.enqueue(kind, &json!({}), &options).await.unwrap()
    };
    let runs = enqueue("test_hang", &subjects[0]).await;
    let worker = start(&store, config());
    until(async || (starts_of(runs) == [1]).then_some(())).await;
    store.pause(PauseScope::Kind, "test_snooze", "me", None).await.unwrap();
    store.pause(PauseScope::Key, subjects[1].as_str(), "me", None).await.unwrap();
    // Longer than a poll: whoever asks for jobs after this knows of the pauses.
    let looks = || worker.context().metrics().job_looks.get();
    let (before, began) = (looks(), Instant::now());
    until(async || (looks() > before + 2 && began.elapsed() > config().poll * 2).then_some(()))
        .await;
    let of_kind = enqueue("test_snooze", &subjects[0]).await;
    let of_key = enqueue("test_ok", &subjects[1]).await;
    let (_, free) = super::enqueue(&store, "test_ok", json!({}), 1).await;
    outcome(&store, &free).await;
    assert!(starts_of(of_kind).is_empty() && starts_of(of_key).is_empty());
    assert!(store.job_counts().await.unwrap().running >= 1, "it was not cancelled");
    assert_eq!(starts_of(runs), [1]);
    store.resume(PauseScope::Key, subjects[1].as_str()).await.unwrap();
    until(async || (starts_of(of_key) == [1]).then_some(())).await;
    worker.shutdown().await;
}

#[tokio::test]
async fn the_outcome_of_a_job_in_the_slice_of_its_limit_comes_to_its_subject() {
    let store = store::testing::store().await;
    let subject = neighbours(&store, 3).next().unwrap();
    let elsewhere = neighbours(&store, 4).next().unwrap();
    let options = EnqueueOptions {
        subject: Some(subject.to_string()),
        limit_key: Some(elsewhere.to_string()),
        ..Default::default()
    };
    let id = store.enqueue("test_ok", &json!({}), &options).await.unwrap();
    let worker = start(&store, config());
    let Event::JobCompleted(ended) = Event::decode(&outcome(&store, &subject).await) else {
        panic!("the job was not completed")
    };
    assert_eq!(ended.job, id);
    worker.shutdown().await;
}
