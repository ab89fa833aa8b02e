//! The engine on a real database: what becomes of jobs, whatever their handlers do and whoever
//! dies.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use domain::call::Call;
use domain::effect::{FORWARD, ForwardArgs, NewJob, TIMER};
use domain::event::{Event, NewEvent, RecordedEvent, TimerElapsed};
use domain::ids::{Subject, Timestamp};
use domain::slice::SliceCount;
use domain::timer::TimerKind;
use serde_json::{Value, json};
use store::testing::{Fate, Line, Memory};
use store::{Consumer, Ending, EnqueueOptions, Finish, Follow as _, Queue as _, Reaction, Store};
use uuid::Uuid;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Finisher;
use crate::claimed::{ClaimedJob, Ended, Verdict};
use crate::context::now;
use crate::jobs::Done;
use crate::jobs::tests::{TestKinds, starts_of};
use crate::leases::Leases;
use crate::running::RunningJobs;
use crate::{Config, Context, Worker};

mod blocking;
mod conformance;
mod limits;
mod on_time;
mod suspects;
mod takeover;
mod unreadable;
mod waits;

/// Longest wait for what must come.
const LIMIT: Duration = Duration::from_secs(30);

pub(crate) fn config() -> Config {
    Config {
        lease: Duration::from_secs(1),
        poll: Duration::from_millis(20),
        grace: Duration::from_millis(300),
        verify_every: None,
        ..Config::default()
    }
}

pub(crate) fn start(store: &Store, config: Config) -> Worker {
    Worker::start(context(store, config))
}

/// A process that knows the tests' own kinds too.
pub(crate) fn context(store: &Store, config: Config) -> Context {
    Context::scripted(store.clone(), config, Uuid::now_v7(), Arc::new(TestKinds))
}

/// Waits until `ask` answers.
pub(crate) async fn until<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(begun.elapsed() < LIMIT, "waited too long");
        // Not as often as can be: other tests run beside.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub(super) async fn enqueue(
    store: &Store,
    kind: &str,
    args: Value,
    max_attempts: i32,
) -> (Uuid, Subject) {
    let options = EnqueueOptions { max_attempts: Some(max_attempts), ..EnqueueOptions::default() };
    let id = store.enqueue(kind, &args, &options).await.unwrap();
    (id, Subject::job(id))
}

/// The outcome of a job without a subject of its own.
pub(super) async fn outcome(store: &Store, subject: &Subject) -> RecordedEvent {
    until(async || store.read_subject(subject, 0, 10).await.unwrap().pop()).await
}

async fn outcome_of(kind: &str, args: Value, max_attempts: i32) -> (Event, Uuid, Store) {
    let store = store::testing::store().await;
    let (id, subject) = enqueue(&store, kind, args, max_attempts).await;
    let worker = start(&store, Config { job_timeout: Duration::from_millis(200), ..config() });
    let event = outcome(&store, &subject).await;
    worker.shutdown().await;
    (Event::decode(&event), id, store)
}

#[tokio::test]
async fn a_done_job_is_gone_and_its_value_is_in_the_log() {
    let store = store::testing::store().await;
    let (id, subject) = enqueue(&store, "test_ok", json!({}), 3).await;
    let worker = start(&store, config());
    let Event::JobCompleted(ended) = Event::decode(&outcome(&store, &subject).await) else {
        panic!("the job was not completed")
    };
    assert_eq!((ended.job, ended.value), (id, Some(json!({"start": 1}))));
    // The daily upkeep runs too, and is due again tomorrow.
    until(async || {
        let counts = store.job_counts().await.unwrap();
        ((counts.available, counts.running, counts.dead) == (0, 0, 0)).then_some(())
    })
    .await;
    worker.shutdown().await;
}

#[tokio::test]
async fn a_failed_job_runs_again_until_it_is_done() {
    let (event, id, _) = outcome_of("test_flaky", json!({"fails_until": 2}), 5).await;
    assert!(matches!(event, Event::JobCompleted(_)), "{event:?}");
    assert_eq!(starts_of(id), [1, 2, 3]);
}

#[tokio::test]
async fn a_job_is_discarded_after_its_last_attempt_and_can_be_retried() {
    let (event, id, store) = outcome_of("test_flaky", json!({"fails_until": 2}), 2).await;
    let Event::JobDiscarded(ended) = event else { panic!("{event:?}") };
    assert!(ended.error.unwrap().contains("not yet"));
    assert_eq!(store.dead_jobs(10).await.unwrap()[0].id, id);

    store.retry_dead(id).await.unwrap();
    let worker = start(&store, config());
    let done = until(async || {
        let events = store.read_subject(&Subject::job(id), 0, 10).await.unwrap();
        events.into_iter().map(|e| Event::decode(&e)).find(|e| matches!(e, Event::JobCompleted(_)))
    })
    .await;
    assert!(matches!(done, Event::JobCompleted(_)));
    assert_eq!(starts_of(id), [1, 2, 3]);
    worker.shutdown().await;
}

#[tokio::test]
async fn a_job_that_says_never_is_discarded_at_once() {
    let (event, id, _) = outcome_of("test_fail", json!({}), 5).await;
    assert!(matches!(event, Event::JobDiscarded(_)), "{event:?}");
    assert_eq!(starts_of(id), [1]);
}

#[tokio::test]
async fn a_panic_is_an_outcome() {
    let (event, _, _) = outcome_of("test_panic", json!({}), 1).await;
    let Event::JobDiscarded(ended) = event else { panic!("{event:?}") };
    assert!(ended.error.unwrap().contains("boom"));
}

#[tokio::test]
async fn a_time_out_is_an_outcome() {
    let (event, _, _) = outcome_of("test_hang", json!({}), 1).await;
    let Event::JobDiscarded(ended) = event else { panic!("{event:?}") };
    assert!(ended.error.unwrap().contains("too long"));
}

#[tokio::test]
async fn a_snooze_counts_no_failure() {
    let (event, id, _) = outcome_of("test_snooze", json!({}), 1).await;
    assert!(matches!(event, Event::JobCompleted(_)), "{event:?}");
    assert_eq!(starts_of(id), [1, 2]);
}

#[tokio::test]
async fn a_recurring_job_is_not_given_up_for_failures_between_runs_that_did_their_work() {
    let store = store::testing::store().await;
    let (id, _) = enqueue(&store, "test_recurring", json!({}), 2).await;
    let worker = start(&store, config());
    until(async || (starts_of(id).len() > 5).then_some(())).await;
    worker.shutdown().await;
    assert_eq!(store.job_counts().await.unwrap().dead, 0);
}

#[tokio::test]
async fn news_of_events_ask_for_no_jobs() {
    let store = store::testing::store().await;
    // Neither polls nor renewals for as long as the test takes.
    let quiet = Duration::from_mins(10);
    let worker = start(&store, Config { lease: quiet, poll: quiet, ..config() });
    until(async || {
        let slices = store.slice_status().await.unwrap();
        let counts = store.job_counts().await.unwrap();
        let is_idle = (counts.available, counts.running) == (0, 0) && counts.scheduled > 0;
        (is_idle && slices.iter().all(|s| s.owner.is_some())).then_some(())
    })
    .await;
    let elsewhere = store.notifier();
    let subject = Subject::from_stored("a/unrecognized".to_owned());
    let slice = store.slice_of(&subject);
    let tell = async || {
        let told = Event::TimerElapsed(TimerElapsed { timer: TimerKind::Poll, generation: 1 });
        let told = NewEvent::new(subject.clone(), &told, now(), Uuid::now_v7());
        let position = store.append_one(told).await.unwrap().unwrap().position;
        elsewhere.moved(slice);
        until(async || (store.checkpoint(slice).await.unwrap().0 >= position).then_some(())).await;
    };
    tell().await;
    let looks = || worker.context().metrics().job_looks.get();
    let before = looks();
    for _ in 0..100 {
        tell().await;
    }
    // What the start of the worker left to do may have come in between.
    assert!(looks() - before < 10, "{} looks for 100 events", looks() - before);
    // A job is found at once all the same.
    let (id, subject) = enqueue(&store, "test_ok", json!({}), 3).await;
    elsewhere.enqueued(store.slice_of(&subject));
    until(async || (starts_of(id) == [1]).then_some(())).await;
    worker.shutdown().await;
}

#[tokio::test]
async fn an_unknown_kind_waits_and_holds_up_nobody() {
    let store = store::testing::store().await;
    let (_, unknown) = enqueue(&store, "from_the_future", json!({}), 3).await;
    let (_, known) = enqueue(&store, "test_ok", json!({}), 3).await;
    let worker = start(&store, config());
    outcome(&store, &known).await;
    worker.shutdown().await;
    assert!(store.read_subject(&unknown, 0, 10).await.unwrap().is_empty());
    assert_eq!(store.job_counts().await.unwrap().dead, 0);
}

#[tokio::test]
async fn a_call_whose_source_is_unknown_here_waits() {
    let store = store::testing::store().await;
    let subject = Subject::from_stored("gone/stream/1".to_owned());
    let args = json!({"intent": Uuid::nil(), "call": {"kind": "clear_dvr", "live_stream": 1}});
    insert(&store, &subject, vec![job(&subject, "clear_dvr", 1, args, now())]).await;
    let worker = start(&store, config());
    // It was started, and waits for a process that knows the source; so does the daily upkeep.
    until(async || {
        let counts = store.job_counts().await.unwrap();
        (counts.scheduled >= 2 && counts.available == 0 && counts.running == 0).then_some(())
    })
    .await;
    worker.shutdown().await;
    assert_eq!(store.job_counts().await.unwrap().dead, 0);
}

#[tokio::test]
async fn nobody_enqueues_a_platform_call_from_outside() {
    let store = store::testing::store().await;
    for kind in Call::KINDS.into_iter().chain([TIMER, FORWARD]) {
        let refused = store.enqueue(kind, &json!({}), &EnqueueOptions::default()).await;
        assert!(refused.is_err(), "{kind} would run without its decision");
    }
}

#[tokio::test]
async fn jobs_of_a_dead_process_run_again_when_its_lease_has_ended() {
    let store = store::testing::store().await;
    let (id, subject) = enqueue(&store, "test_ok", json!({}), 3).await;
    let slice = store.slice_of(&subject);
    // A process that claims, marks the job as started, and dies.
    let dead = Uuid::now_v7();
    let ttl = Duration::from_secs(1);
    for slice in store.slices().slices() {
        store.claim(Consumer::Jobs, slice, dead, ttl).await.unwrap().unwrap();
    }
    assert_eq!(store.mark_started(slice, 1, &[id]).await.unwrap().len(), 1);
    let begun = Instant::now();
    let worker = start(&store, config());
    let event = outcome(&store, &subject).await;
    assert!(matches!(Event::decode(&event), Event::JobCompleted(_)));
    assert_eq!(starts_of(id), [2], "the first start was the dead process's");
    // On a machine that does much else besides, far later than the lease and still not at once.
    assert!(begun.elapsed() < LIMIT / 2, "{:?}", begun.elapsed());
    worker.shutdown().await;
}

#[tokio::test]
async fn a_job_that_kills_its_process_again_and_again_is_quarantined() {
    let store = store::testing::store().await;
    let (id, subject) = enqueue(&store, "test_ok", json!({}), 99).await;
    let slice = store.slice_of(&subject);
    for _ in 0..=crate::jobs::MAX_CRASHES {
        let dead = Uuid::now_v7();
        let lease = store.claim(Consumer::Jobs, slice, dead, Duration::ZERO).await.unwrap();
        store.mark_started(slice, lease.unwrap().epoch, &[id]).await.unwrap();
    }
    let worker = start(&store, config());
    let event = outcome(&store, &subject).await;
    worker.shutdown().await;
    assert!(matches!(Event::decode(&event), Event::JobDiscarded(_)));
    assert_eq!(store.dead_jobs(10).await.unwrap()[0].state, "quarantined");
    assert!(starts_of(id).is_empty());
}

#[tokio::test]
async fn a_clean_stop_gives_running_jobs_back_without_counting_anything() {
    let store = store::testing::store().await;
    let (id, subject) = enqueue(&store, "test_hang_once", json!({}), 1).await;
    let first = start(&store, config());
    until(async || (starts_of(id) == [1]).then_some(())).await;
    first.shutdown().await;
    let begun = Instant::now();
    let second = start(&store, Config { lease: Duration::from_secs(20), ..config() });
    // One attempt was allowed: an interruption that counted as a failure would have discarded it.
    let event = outcome(&store, &subject).await;
    assert!(matches!(Event::decode(&event), Event::JobCompleted(_)));
    assert!(begun.elapsed() < Duration::from_secs(10), "leases were released by the stop");
    second.shutdown().await;
}

#[tokio::test]
async fn jobs_of_one_subject_run_one_at_a_time() {
    let store = store::testing::store().await;
    let options = EnqueueOptions { subject: Some("a/b/1".to_owned()), ..Default::default() };
    let first = store.enqueue("test_hang", &json!({}), &options).await.unwrap();
    let worker = start(&store, config());
    until(async || (starts_of(first) == [1]).then_some(())).await;
    let second = store.enqueue("test_ok", &json!({}), &options).await.unwrap();
    let (_, other) = enqueue(&store, "test_ok", json!({}), 1).await;
    outcome(&store, &other).await;
    assert!(starts_of(second).is_empty(), "it waits for the first of its subject");
    worker.shutdown().await;
}

/// Inserts jobs of the engine's own kinds, as a reaction does.
pub(super) async fn insert(store: &Store, subject: &Subject, jobs: Vec<NewJob>) {
    let slice = store.slice_of(subject);
    let process = Uuid::now_v7();
    let lease = store.claim(Consumer::React, slice, process, LIMIT).await.unwrap().unwrap();
    let reaction = Reaction { jobs, ..Reaction::default() };
    store.commit_reaction(&lease, &reaction, LIMIT).await.unwrap();
    store.release(Consumer::React, slice, lease.epoch).await.unwrap();
}

pub(super) fn job(subject: &Subject, kind: &str, n: u8, args: Value, run_at: Timestamp) -> NewJob {
    NewJob {
        id: Uuid::from_u128(u128::from(n)),
        kind: kind.to_owned(),
        subject: subject.clone(),
        args,
        run_at,
        priority: 2,
        max_attempts: 3,
        once_for: None,
        causation_id: None,
        correlation_id: None,
        trace: None,
    }
}

#[tokio::test]
async fn a_timer_appends_its_event_once_when_it_is_due() {
    let store = store::testing::store().await;
    let subject = Subject::from_stored("a/stream/1".to_owned());
    let args = json!(TimerElapsed { timer: TimerKind::Poll, generation: 4 });
    let due = now() + Duration::from_millis(300);
    insert(&store, &subject, vec![job(&subject, TIMER, 1, args, due)]).await;
    let workers = [start(&store, config()), start(&store, config())];
    let event = outcome(&store, &subject).await;
    assert!(event.received_at >= due, "not before it is due");
    assert!(matches!(Event::decode(&event), Event::TimerElapsed(t) if t.generation == 4));
    for worker in workers {
        worker.shutdown().await;
    }
    let all = store.read_subject(&subject, 0, 100).await.unwrap();
    let timers = all.iter().filter(|e| e.event_type == "TimerElapsed").count();
    assert_eq!(timers, 1);
}

#[tokio::test]
async fn forwards_arrive_in_order_and_once() {
    let store = store::testing::store().await;
    let from = Subject::from_stored("a/request/1".to_owned());
    let to = Subject::from_stored("a/unrecognized".to_owned());
    let args = |n: u8| {
        json!(ForwardArgs {
            subject: to.clone(),
            event_type: format!("Told{n}"),
            schema_version: 1,
            key: Uuid::from_u128(u128::from(n)),
            received_at: now(),
            causation_id: None,
            correlation_id: None,
            payload: json!({}),
            cause_at: None,
            trace: None,
        })
    };
    let at = now();
    let jobs = (1..=20).map(|n| job(&from, FORWARD, n, args(n), at)).collect();
    // One of them had been delivered by a process that died before it could say so.
    let delivered: ForwardArgs = serde_json::from_value(args(1)).unwrap();
    store.append_one(delivered.event()).await.unwrap();
    insert(&store, &from, jobs).await;
    let worker = start(&store, config());
    let told = until(async || {
        let told = store.read_subject(&to, 0, 100).await.unwrap();
        (told.len() >= 20).then_some(told)
    })
    .await;
    worker.shutdown().await;
    let names: Vec<String> = told.into_iter().map(|e| e.event_type).collect();
    let expected: Vec<String> = (1..=20).map(|n| format!("Told{n}")).collect();
    assert_eq!(names, expected);
}

/// What stores the ends of one slice, and a due job of it, started.
async fn finisher_with_started_job(store: &Store) -> (Finisher, ClaimedJob) {
    let (id, subject) = enqueue(store, "test_ok", json!({}), 3).await;
    let slice = store.slice_of(&subject);
    let ctx = context(store, config());
    let lease = store.claim(Consumer::Jobs, slice, ctx.process(), LIMIT).await.unwrap().unwrap();
    let leases = Leases::default();
    leases.insert(Consumer::Jobs, lease, Instant::now() + LIMIT);
    let due = store.due_jobs(ctx.process(), None, 10, "").await.unwrap().remove(0);
    let started = store.mark_started(slice, lease.epoch, &[id]).await.unwrap();
    let running = RunningJobs::default();
    assert!(running.add(&due, lease.epoch));
    let job = ClaimedJob::new(due, lease.epoch, started[0].attempt);
    let finisher = Finisher {
        ctx,
        leases,
        running,
        ended: mpsc::unbounded_channel().1,
        freed: mpsc::unbounded_channel().0,
        owed: Vec::new(),
    };
    (finisher, job)
}

#[tokio::test]
async fn a_run_whose_outcome_is_refused_has_failed_and_holds_nothing_up() {
    let store = store::testing::store().await;
    let (mut finisher, mut job) = finisher_with_started_job(&store).await;
    // No text of PostgreSQL holds this.
    job.subject = Subject::from_stored("a/unrecognized\0".to_owned());
    finisher.finish(Ended { job: job.into(), verdict: Verdict::Done(Done::Value(json!(1))) }).await;
    assert_eq!(finisher.owed.len(), 1);
    finisher.pay().await;
    assert!(finisher.owed.is_empty() && finisher.running.count() == 0);
    let counts = store.job_counts().await.unwrap();
    // Its wait is drawn, and may be over already.
    let again = counts.retryable + counts.available;
    assert_eq!((counts.running, again, counts.dead), (0, 1, 0), "it is tried again");
}

#[tokio::test]
async fn an_end_that_could_not_be_stored_is_stored_when_the_database_is_back() {
    let store = store::testing::store().await;
    let (mut finisher, job) = finisher_with_started_job(&store).await;
    let subject = job.subject.clone();
    finisher.owed.push(Ended { job: job.into(), verdict: Verdict::Done(Done::Value(json!(1))) });
    finisher.pay().await;
    assert!(finisher.owed.is_empty() && finisher.running.count() == 0);
    assert_eq!(outcome(&store, &subject).await.event_type, "JobCompleted");
    assert_eq!(store.job_counts().await.unwrap().running, 0);
}

#[tokio::test]
async fn an_end_that_is_owed_is_dropped_when_the_lease_has_passed_on() {
    let store = store::testing::store().await;
    let (mut finisher, job) = finisher_with_started_job(&store).await;
    let slice = job.slice;
    store.release(Consumer::Jobs, slice, job.epoch).await.unwrap();
    store.claim(Consumer::Jobs, slice, Uuid::now_v7(), LIMIT).await.unwrap().unwrap();
    finisher.owed.push(Ended { job: job.into(), verdict: Verdict::Interrupted });
    finisher.pay().await;
    assert!(finisher.owed.is_empty() && finisher.running.count() == 0);
    assert!(!finisher.leases.has(Consumer::Jobs, slice));
}

/// Takes the slice of a job over, again.
async fn take_over(store: &Store, slice: i16, epoch: i64) -> i64 {
    store.release(Consumer::Jobs, slice, epoch).await.unwrap();
    store.claim(Consumer::Jobs, slice, Uuid::now_v7(), LIMIT).await.unwrap().unwrap().epoch
}

/// Crashes of a job as the next start of it finds them, after the lease was lost and its successor
/// started it, or did not yet.
async fn crashes_after_a_lost_lease(is_started: bool, is_alive: bool) -> i32 {
    let store = store::testing::store().await;
    let (mut finisher, job) = finisher_with_started_job(&store).await;
    let (id, slice) = (job.id, job.slice);
    let mut epoch = take_over(&store, slice, job.epoch).await;
    if is_started {
        assert_eq!(store.mark_started(slice, epoch, &[id]).await.unwrap()[0].crashes, 1);
    }
    if is_alive {
        finisher.owed.push(Ended { job: job.into(), verdict: Verdict::Interrupted });
        finisher.pay().await;
    }
    if is_started {
        let again = Finish { id, attempt: 2, ending: Ending::Released, events: Vec::new() };
        assert_eq!(store.finish(slice, epoch, &[again]).await.unwrap().len(), 1);
        epoch = take_over(&store, slice, epoch).await;
    }
    store.mark_started(slice, epoch, &[id]).await.unwrap()[0].crashes
}

#[tokio::test]
async fn a_lost_lease_is_a_crash_only_where_the_process_died() {
    for is_started in [true, false] {
        assert_eq!(crashes_after_a_lost_lease(is_started, true).await, 0);
        assert_eq!(crashes_after_a_lost_lease(is_started, false).await, 1);
    }
}

/// A line that loses the answer of the first start, which is marked, and that of the next, which
/// is not.
#[derive(Debug, Default)]
struct LosesStarts(AtomicU32);

impl Line for LosesStarts {
    fn fate(&self, call: &'static str) -> Fate {
        let at_once = Duration::ZERO;
        if call != "mark_all" {
            return Fate::AT_ONCE;
        }
        match self.0.fetch_add(1, Ordering::Relaxed) {
            0 => Fate::Lost { there: at_once, heard: at_once },
            1 => Fate::Refused,
            _ => Fate::AT_ONCE,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_whose_answer_was_lost_is_not_lost_itself() {
    let memory = Memory::new(SliceCount::DEFAULT, now);
    let id = memory.enqueue("test_ok", &json!({}), &EnqueueOptions::default()).await.unwrap();
    let store = memory.over(Arc::new(LosesStarts::default()));
    let worker =
        Worker::start(Context::scripted(store, config(), Uuid::nil(), Arc::new(TestKinds)));
    let subject = Subject::job(id);
    let done = async || {
        tokio::time::sleep(Duration::from_millis(10)).await;
        memory.read_subject(&subject, 0, 10).await.unwrap().pop()
    };
    assert_eq!(until(done).await.event_type, "JobCompleted");
    worker.shutdown().await;
}
