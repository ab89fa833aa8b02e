//! Cancelled jobs, and runs that ended with their process.

use std::time::Duration;

use domain::call::Call;
use domain::event::Event;
use domain::ids::{LiveStreamId, Subject};
use serde_json::json;
use store::{Consumer, DeadFilter, EnqueueOptions, Error, Redrive};
use uuid::Uuid;

use crate::context::now;
use crate::engine::tests::{config, enqueue, insert, job, outcome, start, until};
use crate::jobs::tests::starts_of;

#[tokio::test]
async fn a_waiting_job_that_is_cancelled_is_never_started_and_ends_with_its_event() {
    let store = store::testing::store().await;
    let (id, subject) = enqueue(&store, "test_ok", json!({}), 3).await;
    let cancelled = store.cancel_job(id, false).await.unwrap().unwrap();
    assert_eq!(
        (cancelled.slice, cancelled.state.as_str()),
        (store.slice_of(&subject), "cancelled")
    );
    let worker = start(&store, config());
    let event = outcome(&store, &subject).await;
    worker.shutdown().await;
    let Event::JobCancelled(ended) = Event::decode(&event) else { panic!("{event:?}") };
    assert_eq!((ended.job, ended.attempt, ended.error.as_deref()), (id, 0, Some("cancelled")));
    assert!(starts_of(id).is_empty());
    assert_eq!(store.find_job(id).await.unwrap().unwrap().state, "cancelled", "it is history");
    assert_eq!(store.cancel_job(id, false).await.unwrap(), None);
}

#[tokio::test]
async fn a_running_job_that_is_cancelled_is_aborted_and_does_not_go_on() {
    let store = store::testing::store().await;
    let worker = start(&store, config());
    let (id, subject) = enqueue(&store, "test_hang", json!({}), 3).await;
    until(async || (starts_of(id) == [1]).then_some(())).await;
    assert_eq!(store.cancel_job(id, false).await.unwrap().unwrap().state, "running");
    let event = outcome(&store, &subject).await;
    worker.shutdown().await;
    assert!(matches!(Event::decode(&event), Event::JobCancelled(ended) if ended.attempt == 1));
    let attempts = store.job_attempts(store.slice_of(&subject), id).await.unwrap();
    assert_eq!(attempts.len(), 1);
    assert_eq!((attempts[0].attempt, attempts[0].outcome.as_str()), (1, "cancelled"));
    assert_eq!(attempts[0].version.as_deref(), Some(env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn a_handler_may_end_its_job_as_cancelled() {
    let store = store::testing::store().await;
    let (id, subject) = enqueue(&store, "test_cancel", json!({}), 3).await;
    let worker = start(&store, config());
    let event = outcome(&store, &subject).await;
    worker.shutdown().await;
    let Event::JobCancelled(ended) = Event::decode(&event) else { panic!("{event:?}") };
    assert_eq!((ended.job, ended.error.as_deref()), (id, Some("not needed")));
    assert!(store.dead_jobs(10).await.unwrap().is_empty(), "that is no failure");
}

#[tokio::test]
async fn a_cancelled_call_fails_for_the_session_that_waits_for_it() {
    let store = store::testing::store().await;
    let subject = Subject::from_stored("gone/stream/1".to_owned());
    let call = Call::ClearDvr { live_stream: LiveStreamId(1) };
    let args = json!(domain::effect::CallArgs { intent: Uuid::nil(), call, until: None });
    let waiting = job(&subject, "clear_dvr", 1, args, now() + Duration::from_hours(1));
    let id = waiting.id;
    insert(&store, &subject, vec![waiting]).await;
    let refused = store.cancel_job(id, false).await.unwrap_err();
    assert!(
        matches!(&refused, Error::Invalid { reason } if reason.contains("by force")),
        "{refused}"
    );
    let worker = start(&store, config());
    store.cancel_job(id, true).await.unwrap().unwrap();
    let event = outcome(&store, &subject).await;
    worker.shutdown().await;
    let Event::CallFailed(failed) = Event::decode(&event) else { panic!("{event:?}") };
    assert_eq!((failed.intent, failed.reason.as_str()), (Uuid::nil(), "cancelled"));
}

#[tokio::test]
async fn a_call_that_is_put_off_again_and_again_is_given_up_when_its_time_is_over() {
    let store = store::testing::store().await;
    // No process has this source, so its calls are put off and burn no attempt.
    let subject = Subject::from_stored("gone/stream/1".to_owned());
    let call = Call::ClearDvr { live_stream: LiveStreamId(1) };
    let until = now() + Duration::from_millis(300);
    let args = json!(domain::effect::CallArgs { intent: Uuid::nil(), call, until: Some(until) });
    let due = job(&subject, "clear_dvr", 14, args, now());
    insert(&store, &subject, vec![due]).await;
    let worker = start(&store, config());
    let event = outcome(&store, &subject).await;
    worker.shutdown().await;
    let Event::CallFailed(failed) = Event::decode(&event) else { panic!("{event:?}") };
    assert!(failed.reason.ends_with("(its time is over)"), "{}", failed.reason);
    assert!(now() >= until);
}

#[tokio::test]
async fn a_job_that_was_cancelled_while_its_process_died_is_not_started_again() {
    let store = store::testing::store().await;
    let (id, subject) = enqueue(&store, "test_ok", json!({}), 3).await;
    let slice = store.slice_of(&subject);
    let dead = store.claim(Consumer::Jobs, slice, Uuid::now_v7(), Duration::ZERO).await.unwrap();
    store.mark_started(slice, dead.unwrap().epoch, &[id]).await.unwrap();
    assert_eq!(store.cancel_job(id, false).await.unwrap().unwrap().state, "running");
    let worker = start(&store, config());
    let event = outcome(&store, &subject).await;
    worker.shutdown().await;
    assert!(matches!(Event::decode(&event), Event::JobCancelled(_)));
    assert!(starts_of(id).is_empty());
    let outcomes: Vec<String> =
        store.job_attempts(slice, id).await.unwrap().into_iter().map(|a| a.outcome).collect();
    assert_eq!(outcomes, ["crashed"]);
}

#[tokio::test]
async fn a_quarantine_tells_which_args_killed_which_build() {
    let store = store::testing::store().await;
    let (id, subject) = enqueue(&store, "test_ok", json!({"poison": true}), 99).await;
    let slice = store.slice_of(&subject);
    let mut killed = Vec::new();
    for n in 0..=crate::jobs::MAX_CRASHES {
        let process = Uuid::now_v7();
        store.heartbeat(process, "host-a", &format!("9.{n}"), Duration::ZERO).await.unwrap();
        let lease = store.claim(Consumer::Jobs, slice, process, Duration::ZERO).await.unwrap();
        let epoch = lease.unwrap().epoch;
        // What an engine does with a slice that it takes.
        let crashes = store.note_crashes(&[(slice, epoch)]).await.unwrap();
        assert_eq!(crashes.runs, u64::from(n > 0));
        store.mark_started(slice, epoch, &[id]).await.unwrap();
        killed.push((process, format!("9.{n}")));
    }
    let worker = start(&store, config());
    outcome(&store, &subject).await;
    worker.shutdown().await;
    let dead = store.dead_page(&DeadFilter::id(id), None, 10).await.unwrap().remove(0);
    assert_eq!((dead.state.as_str(), &dead.args), ("quarantined", &json!({"poison": true})));
    let told = dead.killed.unwrap();
    let shown = store.find_job(id).await.unwrap().unwrap();
    assert_eq!(shown.killed.as_ref(), Some(&told));
    let is_same = |k: &serde_json::Value| k["args_digest"] == json!(shown.args_digest);
    assert!(told.as_array().unwrap().iter().all(is_same), "{told}");
    let told: Vec<(Uuid, String)> = told
        .as_array()
        .unwrap()
        .iter()
        .map(|k| {
            (
                k["process"].as_str().unwrap().parse().unwrap(),
                k["version"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    assert_eq!(told, killed);
}

#[tokio::test]
async fn a_job_of_an_unknown_kind_raises_an_alarm_and_burns_nothing() {
    let store = store::testing::store().await;
    let (id, _) = enqueue(&store, "from_the_future", json!({}), 1).await;
    let worker = start(&store, config());
    let note = until(async || worker.context().health().notes.pop()).await;
    worker.shutdown().await;
    assert!(note.contains("from_the_future"), "{note}");
    let waiting = store.find_job(id).await.unwrap().unwrap();
    let burnt = (waiting.attempt, waiting.errors, waiting.crashes);
    assert_eq!((waiting.state.as_str(), burnt), ("scheduled", (0, 0, 0)));
}

/// A trace of the caller's.
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[tokio::test]
async fn what_a_job_appends_is_part_of_the_trace_that_enqueued_it() {
    let store = store::testing::store().await;
    let subject = Subject::from_stored("gone/stream/1".to_owned());
    let mut traced = job(&subject, "test_ok", 1, json!({}), now());
    traced.trace = Some(TRACE.to_owned());
    let mut untraced =
        job(&Subject::from_stored("gone/stream/2".to_owned()), "test_ok", 2, json!({}), now());
    untraced.trace = None;
    let other = untraced.subject.clone();
    insert(&store, &subject, vec![traced]).await;
    insert(&store, &other, vec![untraced]).await;
    let worker = start(&store, config());
    assert_eq!(outcome(&store, &subject).await.trace(), Some(TRACE));
    assert_eq!(outcome(&store, &other).await.trace(), None);
    worker.shutdown().await;
}

#[tokio::test]
async fn a_retried_dead_letter_runs_with_its_edited_arguments() {
    let store = store::testing::store().await;
    let options = EnqueueOptions { max_attempts: Some(1), ..EnqueueOptions::default() };
    let id = store.enqueue("test_flaky", &json!({"fails_until": 9}), &options).await.unwrap();
    let subject = Subject::job(id);
    let worker = start(&store, config());
    assert_eq!(outcome(&store, &subject).await.event_type, "JobDiscarded");
    let edit = Some(json!({"fails_until": null}));
    let how = Redrive { edit, ..Redrive::default() };
    let filter = DeadFilter { error: Some("NOT YET".to_owned()), ..DeadFilter::default() };
    assert_eq!(store.redrive(&filter, &Redrive { dry_run: true, ..how.clone() }).await.unwrap(), 1);
    assert_eq!(store.redrive(&filter, &how).await.unwrap(), 1);
    until(async || {
        let last = outcome(&store, &subject).await;
        (last.event_type == "JobCompleted").then_some(())
    })
    .await;
    worker.shutdown().await;
    assert_eq!(starts_of(id), [1, 2]);
}
