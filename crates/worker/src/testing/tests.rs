//! What a kit does, as a user of it would ask.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use domain::event::{Event, NewEvent};
use domain::ids::{Subject, Timestamp};
use domain::schedule::Missed;
use serde_json::json;
use store::{EnqueueOptions, NewSchedule, PauseScope};
use uuid::Uuid;

use super::*;
use crate::jobs::{Done, JobError};
use crate::{WaitFor, Waited};

/// Does its work, and counts how often.
fn counting() -> (Handlers, Arc<AtomicU32>) {
    let count = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&count);
    let handlers = Handlers::new().on("count", move |run| {
        let n = counter.fetch_add(1, Ordering::Relaxed) + 1;
        async move { Ok(Done::Value(json!({ "n": n, "attempt": run.attempt }))) }
    });
    (handlers, count)
}

fn retry(reason: &str) -> Result<Done, JobError> {
    Err(JobError::Retry { after: None, reason: reason.to_owned() })
}

#[test]
fn a_drain_runs_everything_that_is_due_in_its_order_and_nothing_else() {
    let (handlers, count) = counting();
    let mut kit = Kit::new(handlers);
    assert!(kit.drain().is_empty(), "the worker's own upkeep is none of the test's");
    let jobs: Vec<Uuid> = (0..20).map(|n| kit.enqueue("count", &json!({ "n": n }))).collect();
    let run_at = Some(kit.now() + Duration::from_hours(2));
    let options = EnqueueOptions { run_at, ..EnqueueOptions::default() };
    let later = kit.enqueue_with("count", &json!({}), &options).unwrap();
    let report = kit.drain();
    assert_eq!(report.jobs("completed"), jobs);
    assert_eq!(report.runs.iter().map(|run| run.id).collect::<Vec<_>>(), jobs);
    assert_eq!((report.events.len(), count.load(Ordering::Relaxed)), (20, 20));
    assert_eq!(kit.state(later), "scheduled");
    assert_eq!(kit.assert_enqueued("count", &json!({})), later);
    assert!(kit.advance(Duration::from_hours(1)).is_empty());
    assert_eq!(kit.advance(Duration::from_hours(1)).jobs("completed"), [later]);
    kit.refute_enqueued("count");
}

#[test]
fn one_job_runs_at_a_time_where_that_is_asked_for() {
    let (handlers, count) = counting();
    let mut kit = Kit::new(handlers);
    let jobs = [(); 3].map(|()| kit.enqueue("count", &json!({})));
    for (n, job) in (1..).zip(jobs) {
        let run = kit.run_one().unwrap();
        assert_eq!((run.id, run.attempt, count.load(Ordering::Relaxed)), (job, 1, n));
        assert_eq!(kit.state(job), "completed");
    }
    assert_eq!(kit.run_one(), None);
}

#[test]
fn failures_are_tried_again_when_time_passes_until_none_is_left() {
    let handlers = Handlers::new().on("flaky", |_| async { retry("not yet") });
    let mut kit = Kit::new(handlers);
    let options = EnqueueOptions { max_attempts: Some(3), ..EnqueueOptions::default() };
    let job = kit.enqueue_with("flaky", &json!({}), &options).unwrap();
    assert_eq!(kit.drain().jobs("failed"), [job]);
    assert_eq!(kit.state(job), "retryable");
    let report = kit.advance(Duration::from_mins(1));
    assert_eq!(report.starts_of(job), [2, 3]);
    assert_eq!((report.jobs("discarded"), kit.state(job)), (vec![job], "discarded"));
    let [event] = &kit.events(&Subject::job(job))[..] else { panic!("one event") };
    assert!(matches!(Event::decode(event), Event::JobDiscarded(_)));
    kit.retry(job).unwrap();
    assert_eq!(kit.drain().starts_of(job), [4]);
}

#[test]
fn a_seed_says_everything() {
    let history = |seed| {
        let handlers = Handlers::new().on("flaky", |run| async move {
            if run.attempt < 4 { retry("not yet") } else { Ok(Done::Value(json!(null))) }
        });
        let mut kit = Kit::with(handlers, Settings { seed, ..Settings::default() });
        for n in 0..5 {
            kit.enqueue("flaky", &json!({ "n": n }));
        }
        kit.fault("flaky", Fault::CrashAfter);
        let Report { runs, ended, events } = kit.advance(Duration::from_mins(5));
        let events: Vec<_> = events.into_iter().map(|e| (e.recorded_at, e.event_id)).collect();
        (runs, ended, events.len(), events.first().map(|(at, _)| *at))
    };
    assert_eq!(history(7), history(7));
    assert_ne!(history(7), history(8));
}

#[test]
fn a_handler_whose_process_dies_runs_again_with_the_next_attempt() {
    for (fault, effects) in [(Fault::CrashBefore, 1), (Fault::CrashAfter, 2)] {
        let (handlers, count) = counting();
        let mut kit = Kit::new(handlers);
        let job = kit.enqueue("count", &json!({}));
        kit.fault("count", fault);
        let report = kit.drain();
        assert_eq!(report.starts_of(job), [1, 2], "{fault:?}");
        assert_eq!(report.ended, [(job, 2, "completed")]);
        // Its lease has to end first.
        assert_eq!(count.load(Ordering::Relaxed), effects, "{fault:?}: look first, then act");
    }
}

#[test]
fn who_kills_its_process_again_and_again_is_quarantined() {
    let (handlers, _) = counting();
    let mut kit = Kit::new(handlers);
    let job = kit.enqueue("count", &json!({}));
    (0..4).for_each(|_| kit.fault("count", Fault::CrashBefore));
    let report = kit.drain();
    assert_eq!((report.jobs("quarantined"), kit.state(job)), (vec![job], "quarantined"));
    assert_eq!(report.starts_of(job), [1, 2, 3, 4]);
}

#[test]
fn a_lease_that_passes_on_stops_the_handler_and_is_no_crash() {
    let done = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&done);
    let handlers = Handlers::new().on("long", move |_| {
        let counter = Arc::clone(&counter);
        async move {
            tokio::time::sleep(Duration::from_mins(1)).await;
            counter.fetch_add(1, Ordering::Relaxed);
            Ok(Done::Value(json!(null)))
        }
    });
    let mut kit = Kit::new(handlers);
    let job = kit.enqueue("long", &json!({}));
    kit.fault("long", Fault::LoseLease);
    let report = kit.drain();
    assert_eq!(report.starts_of(job), [1, 2]);
    assert_eq!(report.jobs("completed"), [job]);
    assert_eq!(done.load(Ordering::Relaxed), 1, "the first run was stopped before its effect");
}

#[test]
fn a_job_ends_once_whatever_becomes_of_its_commits() {
    for lost in [false, true] {
        let (handlers, count) = counting();
        let mut kit = Kit::new(handlers);
        let jobs: Vec<Uuid> = (0..10).map(|_| kit.enqueue("count", &json!({}))).collect();
        if lost {
            kit.lose_replies(3);
        } else {
            kit.refuse_commits(3);
        }
        let report = kit.drain();
        let mut completed = report.jobs("completed");
        completed.sort();
        assert_eq!((completed, report.events.len()), (jobs, 10), "{lost}");
        assert_eq!(count.load(Ordering::Relaxed), 10, "{lost}: no handler ran twice");
    }
}

#[test]
fn a_panic_and_a_handler_that_takes_too_long_are_failures() {
    let (handlers, count) = counting();
    let mut kit = Kit::new(handlers);
    let job = kit.enqueue("count", &json!({}));
    kit.fault("count", Fault::Panic);
    kit.fault("count", Fault::Slow(Duration::from_hours(1)));
    let report = kit.advance(Duration::from_mins(10));
    let how: Vec<_> = report.ended.iter().map(|(_, n, how)| (*n, *how)).collect();
    assert_eq!(how, [(1, "failed"), (2, "failed"), (3, "completed")]);
    assert_eq!((count.load(Ordering::Relaxed), kit.state(job)), (1, "completed"));
}

#[test]
fn what_is_paused_waits_and_what_is_cancelled_ends() {
    let (handlers, count) = counting();
    let mut kit = Kit::new(handlers);
    kit.pause(PauseScope::Kind, "count");
    let [kept, cancelled] = [(); 2].map(|()| kit.enqueue("count", &json!({})));
    kit.cancel(cancelled).unwrap();
    let report = kit.drain();
    assert_eq!(report.jobs("cancelled"), [cancelled], "{report:?}");
    kit.resume(PauseScope::Kind, "count");
    let report = kit.drain();
    assert_eq!(report.jobs("completed"), [kept], "{report:?} {:?}", kit.enqueued("count"));
    assert_eq!(count.load(Ordering::Relaxed), 1);
}

#[test]
fn a_schedule_fires_as_time_passes() {
    let (handlers, count) = counting();
    let mut kit = Kit::new(handlers);
    kit.put_schedule(&NewSchedule {
        name: "hourly".to_owned(),
        cron: "0 * * * *".to_owned(),
        time_zone: "UTC".to_owned(),
        kind: "count".to_owned(),
        args: json!({}),
        options: json!({}),
        missed: Missed::Skip,
        paused: None,
    });
    kit.advance(Duration::from_hours(6));
    assert_eq!(count.load(Ordering::Relaxed), 6);
}

#[test]
fn a_handler_may_enqueue_and_the_drain_runs_that_too() {
    let memory: Arc<std::sync::OnceLock<store::testing::Memory>> = Arc::default();
    let store = Arc::clone(&memory);
    let handlers = counting().0.on("parent", move |_| {
        let store = store.get().unwrap().clone();
        async move {
            use store::Queue as _;
            store.enqueue("count", &json!({ "of": "parent" }), &EnqueueOptions::default()).await?;
            Ok(Done::Value(json!(null)))
        }
    });
    let mut kit = Kit::new(handlers);
    memory.set(kit.store().clone()).unwrap();
    kit.enqueue("parent", &json!({}));
    let report = kit.drain();
    assert_eq!(report.jobs("completed").len(), 2);
    assert_eq!(report.runs[1].args, json!({ "of": "parent" }));
}

#[test]
fn a_process_whose_clock_is_wrong_by_an_hour_starts_jobs_when_they_are_due() {
    let hour = 3_600_000;
    for ahead in [-hour, hour] {
        let (handlers, _) = counting();
        let mut kit = Kit::new(handlers);
        kit.skew(ahead);
        kit.restart();
        let due = kit.now() + Duration::from_mins(10);
        let options = EnqueueOptions { run_at: Some(due), ..EnqueueOptions::default() };
        let job = kit.enqueue_with("count", &json!({}), &options).unwrap();
        assert!(kit.advance(Duration::from_mins(10) - Duration::from_secs(1)).is_empty());
        assert_eq!(kit.advance(Duration::from_secs(2)).jobs("completed"), [job]);
    }
}

fn paid(received_at: Timestamp) -> NewEvent {
    NewEvent {
        event_id: Uuid::from_u128(1),
        subject: Subject::from_stored("orders/1".to_owned()),
        event_type: "Paid".to_owned(),
        schema_version: 1,
        key: None,
        received_at,
        causation_id: None,
        correlation_id: None,
        meta: None,
        payload: b"{}".to_vec(),
    }
}

/// Charges, waits for a while, and then for an event or its time.
fn orders() -> (Handlers, Arc<AtomicU32>) {
    let charges = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&charges);
    let handlers = Handlers::new().on_steps("order", move |_, steps| {
        let counter = Arc::clone(&counter);
        async move {
            let charge = || async move { Ok(counter.fetch_add(1, Ordering::Relaxed) + 41) };
            let charge: u32 = steps.step("charge", charge).await?;
            steps.sleep("cooling off", Duration::from_hours(2)).await?;
            let subject = Subject::from_stored("orders/1".to_owned());
            let paid = WaitFor::new(subject, Duration::from_hours(4)).types(["Paid"]);
            let told = match steps.wait_for("paid", paid).await? {
                Waited::Event(paid) => json!({ "charge": charge, "paid": paid.position }),
                Waited::TimedOut => json!({ "charge": charge }),
            };
            Ok(Done::Value(told))
        }
    });
    (handlers, charges)
}

#[test]
fn a_handler_with_steps_goes_on_as_time_passes_and_events_come_whatever_dies() {
    for is_paid in [false, true] {
        let (handlers, charges) = orders();
        let mut kit = Kit::new(handlers);
        let order = kit.enqueue("order", &json!({}));
        kit.fault("order", Fault::CrashAfter);
        kit.drain();
        assert_eq!((kit.state(order), charges.load(Ordering::Relaxed)), ("scheduled", 1));
        kit.advance(Duration::from_hours(3));
        assert_eq!(kit.state(order), "scheduled", "it waits for the event now");
        if is_paid {
            let paid = paid(kit.now());
            kit.append(&paid).unwrap();
            kit.drain();
        } else {
            kit.advance(Duration::from_hours(4));
        }
        assert_eq!((kit.state(order), charges.load(Ordering::Relaxed)), ("completed", 1));
        let [event] = &kit.events(&Subject::job(order))[..] else { panic!("one event") };
        let Event::JobCompleted(ended) = Event::decode(event) else { panic!("{event:?}") };
        let value = ended.value.unwrap();
        assert_eq!((&value["charge"], value["paid"].is_null()), (&json!(41), !is_paid));
    }
}

#[test]
fn a_start_that_is_not_marked_counts_no_crash() {
    let (handlers, count) = counting();
    let mut kit = Kit::new(handlers.unmarked("count"));
    let job = kit.enqueue("count", &json!({}));
    (0..5).for_each(|_| kit.fault("count", Fault::CrashBefore));
    let report = kit.drain();
    assert_eq!(report.jobs("completed"), [job]);
    assert_eq!((count.load(Ordering::Relaxed), report.starts_of(job)), (1, vec![1; 6]));
}

#[test]
fn while_the_start_of_a_job_is_marked_others_are_chosen_and_none_beyond_its_limit() {
    let (handlers, unmarked) = counting();
    let [now, most] = [(); 2].map(|()| Arc::new(AtomicU32::new(0)));
    let (running, at_once) = (Arc::clone(&now), Arc::clone(&most));
    let handlers = handlers.unmarked("count").on("marked", move |_| {
        let (running, at_once) = (Arc::clone(&running), Arc::clone(&at_once));
        async move {
            at_once.fetch_max(running.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_secs(1)).await;
            running.fetch_sub(1, Ordering::Relaxed);
            Ok(Done::Value(json!(null)))
        }
    });
    let mut kit = Kit::new(handlers);
    kit.slow_commits(1, Duration::from_secs(10));
    let options =
        EnqueueOptions { limit_key: Some("key".to_owned()), limit: Some(1), ..Default::default() };
    let first = kit.enqueue_with("marked", &json!({}), &options).unwrap();
    kit.wait(Duration::from_secs(1));
    kit.enqueue("count", &json!({}));
    let second = kit.enqueue_with("marked", &json!({}), &options).unwrap();
    kit.wait(Duration::from_secs(1));
    let of = |count: &AtomicU32| count.load(Ordering::Relaxed);
    assert_eq!((of(&unmarked), of(&most)), (1, 0), "the first is still being marked");
    let report = kit.drain();
    assert_eq!([first, second].map(|job| report.starts_of(job)), [[1], [1]]);
    assert_eq!((of(&now), of(&most)), (0, 1));
}

#[test]
fn a_kind_may_have_a_time_limit_of_its_own() {
    let slow = |_: Run| async {
        tokio::time::sleep(Duration::from_mins(30)).await;
        Ok(Done::Quiet)
    };
    let handlers = Handlers::new().on("render", slow).on("mail", slow);
    let mut kit = Kit::new(handlers.time_limit("render", Duration::from_hours(1)));
    let render = kit.enqueue("render", &json!({}));
    let mail = kit.enqueue("mail", &json!({}));

    let report = kit.drain();

    assert_eq!(report.jobs("completed"), [render]);
    assert_eq!(report.jobs("failed"), [mail], "others have two minutes");
}

#[test]
fn arguments_that_are_no_such_type_are_a_failure_that_says_so() {
    let handlers = Handlers::new().on("count", |run| async move {
        let counted: Vec<u32> = run.parse()?;
        Ok(Done::Value(json!(counted.len())))
    });
    let mut kit = Kit::new(handlers);
    let job = kit.enqueue("count", &json!({ "not": "a list" }));

    assert_eq!(kit.drain().jobs("failed"), [job]);
    assert_eq!(kit.state(job), "retryable");
}
