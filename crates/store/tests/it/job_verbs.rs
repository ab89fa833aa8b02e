//! What people and producers do to jobs: cancel, retry, redrive, discard; and what is kept of them.

use std::time::Duration;

use domain::ids::Subject;
use serde_json::{Value, json};
use sqlx::Executor as _;
use store::Consumer::Jobs;
use store::{
    DeadFilter, Ending, EnqueueOptions, Error, Finish, JobFilter, JobHistory, PauseScope, Redrive,
    Store,
};
use uuid::Uuid;

use crate::support::{Db, LONG, db, event, login, subject_in};

const SLICE: i16 = 2;

/// Jobs of one subject that run, in a store that keeps so much.
struct Running {
    db: Db,
    store: Store,
    epoch: i64,
    process: Uuid,
    subject: Subject,
    ids: Vec<Uuid>,
}

async fn running(count: usize, job_history: JobHistory) -> Running {
    let db = db().await;
    let config = store::Config { job_history, ..store::Config::new(db.url.as_str()) };
    let store = Store::connect(&config).await.unwrap();
    let subject = subject_in(&store, SLICE);
    let process = Uuid::now_v7();
    store.heartbeat(process, "host-a", "1.2.3", LONG).await.unwrap();
    let lease = store.claim(Jobs, SLICE, process, LONG).await.unwrap().unwrap();
    let mut ids = Vec::new();
    for n in 0..count {
        ids.push(enqueue(&store, "a_job", &subject, &json!({ "n": n, "keep": true })).await);
    }
    assert_eq!(store.mark_started(SLICE, lease.epoch, &ids).await.unwrap().len(), count);
    Running { db, store, epoch: lease.epoch, process, subject, ids }
}

async fn enqueue(store: &Store, kind: &str, subject: &Subject, args: &Value) -> Uuid {
    let options =
        EnqueueOptions { subject: Some(subject.to_string()), ..EnqueueOptions::default() };
    store.enqueue(kind, args, &options).await.unwrap()
}

impl Running {
    async fn end(&self, n: usize, ending: Ending) {
        let events = vec![event(&self.subject, "{}")];
        let finish = Finish { id: self.ids[n], attempt: 1, ending, events };
        assert_eq!(self.store.finish(SLICE, self.epoch, &[finish]).await.unwrap().len(), 1);
    }

    async fn end_all_ways(&self) {
        self.end(0, Ending::Completed).await;
        let after = Duration::from_hours(1);
        self.end(1, Ending::Retry { error: "pipe".to_owned(), after }).await;
        self.end(2, Ending::Discarded { error: "no".to_owned() }).await;
        self.end(3, Ending::Cancelled { reason: "cancelled".to_owned() }).await;
        self.end(4, Ending::Snooze { after }).await;
    }

    async fn outcomes(&self) -> Vec<Option<String>> {
        let mut outcomes = Vec::new();
        for id in &self.ids {
            let attempts = self.store.job_attempts(SLICE, *id).await.unwrap();
            outcomes.push(attempts.into_iter().next().map(|attempt| attempt.outcome));
        }
        outcomes
    }

    async fn states(&self) -> Vec<Option<String>> {
        let mut states = Vec::new();
        for id in &self.ids {
            states.push(self.store.find_job(*id).await.unwrap().map(|job| job.state));
        }
        states
    }
}

fn some(texts: [&str; 5]) -> Vec<Option<String>> {
    texts.into_iter().map(|text| (!text.is_empty()).then(|| text.to_owned())).collect()
}

#[tokio::test]
async fn what_is_kept_of_runs_and_jobs_is_a_setting() {
    let r = running(5, JobHistory::None).await;
    r.end_all_ways().await;
    assert_eq!(r.outcomes().await, some(["", "", "", "", ""]));
    assert_eq!(r.states().await, some(["", "retryable", "discarded", "", "scheduled"]));

    let r = running(5, JobHistory::Failures).await;
    r.end_all_ways().await;
    assert_eq!(r.outcomes().await, some(["", "failed", "discarded", "cancelled", ""]));
    assert_eq!(r.states().await, some(["", "retryable", "discarded", "cancelled", "scheduled"]));

    let r = running(5, JobHistory::All).await;
    r.end_all_ways().await;
    assert_eq!(r.outcomes().await, some(["completed", "failed", "discarded", "cancelled", ""]));
    let states = some(["completed", "retryable", "discarded", "cancelled", "scheduled"]);
    assert_eq!(r.states().await, states);
}

#[tokio::test]
async fn an_attempt_tells_token_process_build_error_and_trace() {
    let r = running(1, JobHistory::Failures).await;
    sqlx::query("UPDATE tallylight.job SET trace = $1")
        .bind(TRACE)
        .execute(&r.db.pool)
        .await
        .unwrap();
    let after = Duration::from_secs(1);
    r.end(0, Ending::Retry { error: "broken".to_owned(), after }).await;
    let attempt = r.store.job_attempts(SLICE, r.ids[0]).await.unwrap().remove(0);
    assert_eq!((attempt.attempt, attempt.epoch, attempt.process), (1, r.epoch, Some(r.process)));
    assert_eq!(attempt.host.as_deref(), Some("host-a"));
    assert_eq!(attempt.version.as_deref(), Some("1.2.3"));
    assert_eq!((attempt.error.as_deref(), attempt.trace.as_deref()), (Some("broken"), Some(TRACE)));
    assert!(attempt.started_at.unwrap() <= attempt.ended_at);
}

#[tokio::test]
async fn a_crash_tells_by_a_digest_which_arguments_were_the_same() {
    let r = running(3, JobHistory::None).await;
    let change =
        "UPDATE tallylight.job SET args = '{\"n\": 0, \"keep\": true}' WHERE args ->> 'n' = '1'";
    r.db.sql(change).await;
    r.db.expire(Jobs, SLICE).await;
    let next = r.store.claim(Jobs, SLICE, Uuid::now_v7(), LONG).await.unwrap().unwrap();
    assert_eq!(r.store.note_crashes(&[(SLICE, next.epoch)]).await.unwrap().runs, 3);
    let mut digests = Vec::new();
    for id in &r.ids {
        let attempt = r.store.job_attempts(SLICE, *id).await.unwrap().remove(0);
        assert_eq!((attempt.outcome.as_str(), attempt.process), ("crashed", Some(r.process)));
        let shown = r.store.find_job(*id).await.unwrap().unwrap().args_digest;
        assert_eq!(attempt.args_digest.as_ref(), Some(&shown));
        digests.push(shown);
    }
    assert_eq!(digests[0], digests[1]);
    assert_ne!(digests[0], digests[2]);
}

#[tokio::test]
async fn a_run_whose_process_lives_is_lost_and_not_crashed_whoever_comes_first() {
    let r = running(2, JobHistory::None).await;
    r.db.expire(Jobs, SLICE).await;
    let next = r.store.claim(Jobs, SLICE, Uuid::now_v7(), LONG).await.unwrap().unwrap();
    // The one before it is noted, the other after it was noted and started again.
    assert_eq!(r.store.acquit(SLICE, r.epoch, &[(r.ids[0], 1)]).await.unwrap(), 1);
    assert_eq!(r.store.note_crashes(&[(SLICE, next.epoch)]).await.unwrap().runs, 1);
    assert!(r.store.job_attempts(SLICE, r.ids[0]).await.unwrap().is_empty());
    let started = r.store.mark_started(SLICE, next.epoch, &r.ids).await.unwrap();
    let crashes = |id| started.iter().find(|start| start.id == id).unwrap().crashes;
    assert_eq!((crashes(r.ids[0]), crashes(r.ids[1])), (0, 1));
    let noted = r.store.job_attempts(SLICE, r.ids[1]).await.unwrap().remove(0);
    assert_eq!(noted.outcome, "crashed");
    assert_eq!(r.store.acquit(SLICE, r.epoch, &[(r.ids[1], 1)]).await.unwrap(), 1);
    let lost = r.store.job_attempts(SLICE, r.ids[1]).await.unwrap().remove(0);
    assert_eq!((lost.outcome.as_str(), lost.process), ("lost", Some(r.process)));
    assert!(lost.error.unwrap().contains("its process lived"));
    let job = r.store.find_job(r.ids[1]).await.unwrap().unwrap();
    assert_eq!((job.state.as_str(), job.crashes), ("running", 0));
}

#[tokio::test]
async fn who_may_work_may_sample_note_and_acquit() {
    let r = running(1, JobHistory::Failures).await;
    let url = login(&r.db, "worker").await;
    let store = Store::connect(&store::Config::new(url)).await.unwrap();
    assert_eq!(store.sample_jobs(SLICE).await.unwrap().groups.len(), 1);
    assert_eq!(store.job_tables().await.unwrap().len(), 4);
    r.db.expire(Jobs, SLICE).await;
    let next = store.claim(Jobs, SLICE, Uuid::now_v7(), LONG).await.unwrap().unwrap();
    assert_eq!(store.note_crashes(&[(SLICE, next.epoch)]).await.unwrap().runs, 1);
    store.mark_started(SLICE, next.epoch, &r.ids).await.unwrap();
    assert_eq!(store.acquit(SLICE, r.epoch, &[(r.ids[0], 1)]).await.unwrap(), 1);
}

#[tokio::test]
async fn days_of_history_are_made_ahead_and_dropped_with_their_age() {
    let r = running(3, JobHistory::All).await;
    let month = Duration::from_hours(24 * 30);
    // One day of both, where midnight has passed since.
    let first = r.store.keep_job_history(month).await.unwrap();
    assert!(first.made <= 2 && first.dropped == 0, "migrations have made them: {first:?}");
    let again = r.store.keep_job_history(month).await.unwrap();
    assert_eq!((again.made, again.dropped), (0, 0), "they are there");
    r.end(0, Ending::Completed).await;
    let days = "SELECT count(*) FROM pg_class WHERE relnamespace = 'tallylight'::regnamespace
                 AND relname ~ '^job_(attempt|history)_[0-9]' AND relkind = 'r'";
    let before = r.db.number(days).await;
    assert!(before >= 16, "a week ahead of both, {before}");
    // A day of long ago, and a row that met no day.
    r.db.pool
        .execute(
            "CREATE TABLE tallylight.job_attempt_2020_01_01 PARTITION OF tallylight.job_attempt
               FOR VALUES FROM ('2020-01-01 00:00+00') TO ('2020-01-02 00:00+00');
             INSERT INTO tallylight.job_attempt (slice, job, attempt, kind, epoch, ended_at, outcome)
             VALUES (1, gen_random_uuid(), 1, 'a_job', 1, '2020-01-01 12:00+00', 'failed'),
                    (1, gen_random_uuid(), 1, 'a_job', 1, '2020-02-01 12:00+00', 'failed')",
        )
        .await
        .unwrap();
    let kept = r.store.keep_job_history(Duration::from_hours(24)).await.unwrap();
    assert_eq!((kept.made, kept.dropped), (0, 1));
    assert_eq!(r.db.number("SELECT count(*) FROM tallylight.job_attempt").await, 1);
    assert_eq!(r.db.number(days).await, before);
    let error = r.store.keep_job_history(Duration::from_hours(1)).await.unwrap_err();
    assert!(matches!(error, Error::Data { .. }), "{error}");
}

#[tokio::test]
async fn a_cancelled_job_is_neither_due_nor_started() {
    let db = db().await;
    let subject = subject_in(&db.store, SLICE);
    let id = enqueue(&db.store, "a_job", &subject, &json!({})).await;
    let process = Uuid::now_v7();
    let lease = db.store.claim(Jobs, SLICE, process, LONG).await.unwrap().unwrap();
    let cancel = async || db.store.cancel_job(id, false).await.unwrap().unwrap();
    assert_eq!((cancel().await.state.as_str(), cancel().await.slice), ("cancelled", SLICE));
    assert!(db.store.due_jobs(process, None, 10, "").await.unwrap().is_empty());
    assert!(db.store.mark_started(SLICE, lease.epoch, &[id]).await.unwrap().is_empty());
    let found = db.store.cancellations(process).await.unwrap();
    assert_eq!((found.len(), found[0].job.id, found[0].is_running), (1, id, false));
    assert_eq!(db.store.job_counts().await.unwrap().cancelled, 1);
    assert_eq!(db.store.cancel_job(Uuid::now_v7(), true).await.unwrap(), None);
}

#[tokio::test]
async fn a_run_that_fails_after_its_cancellation_is_not_tried_again() {
    let r = running(1, JobHistory::Failures).await;
    let cancelled = r.store.cancel_job(r.ids[0], false).await.unwrap().unwrap();
    assert_eq!(cancelled.state, "running");
    assert!(r.store.cancellations(r.process).await.unwrap()[0].is_running);
    // Its holder has not heard of it yet.
    r.end(0, Ending::Retry { error: "no".to_owned(), after: Duration::ZERO }).await;
    assert!(r.store.due_jobs(r.process, None, 10, "").await.unwrap().is_empty());
    assert!(!r.store.cancellations(r.process).await.unwrap()[0].is_running);
}

#[tokio::test]
async fn of_a_start_and_a_cancellation_at_once_the_first_wins() {
    let db = db().await;
    let lease = db.store.claim(Jobs, SLICE, Uuid::now_v7(), LONG).await.unwrap().unwrap();
    for _ in 0..30 {
        let subject = subject_in(&db.store, SLICE);
        let id = enqueue(&db.store, "a_job", &subject, &json!({})).await;
        let ids = [id];
        let (started, cancelled) = tokio::join!(
            db.store.mark_started(SLICE, lease.epoch, &ids),
            db.store.cancel_job(id, false)
        );
        let is_started = started.unwrap().len() == 1;
        let state = cancelled.unwrap().unwrap().state;
        assert_eq!(state, if is_started { "running" } else { "cancelled" });
    }
}

/// Dead letters: two of one kind and one of another.
async fn graveyard() -> Running {
    let r = running(2, JobHistory::Failures).await;
    r.end(0, Ending::Discarded { error: "Connection refused".to_owned() }).await;
    r.end(1, Ending::Quarantined { error: "its process died".to_owned() }).await;
    let other = enqueue(&r.store, "b_job", &r.subject, &json!({})).await;
    r.store.mark_started(SLICE, r.epoch, &[other]).await.unwrap();
    let ending = Ending::Discarded { error: "bad args".to_owned() };
    let finish = Finish { id: other, attempt: 1, ending, events: Vec::new() };
    r.store.finish(SLICE, r.epoch, &[finish]).await.unwrap();
    r
}

#[tokio::test]
async fn dead_letters_are_found_by_every_condition_and_page_by_page() {
    let r = graveyard().await;
    let count =
        async |filter: DeadFilter| r.store.dead_page(&filter, None, 10).await.unwrap().len();
    let none = DeadFilter::default;
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(count(DeadFilter::all()).await, 3);
    assert_eq!(count(DeadFilter { kind: text("a_job"), ..none() }).await, 2);
    assert_eq!(count(DeadFilter { state: text("quarantined"), ..none() }).await, 1);
    assert_eq!(count(DeadFilter { error: text("REFUSED"), ..none() }).await, 1);
    assert_eq!(count(DeadFilter { subject: text(r.subject.as_str()), ..none() }).await, 3);
    assert_eq!(count(DeadFilter { subject: text("x"), ..none() }).await, 0);
    assert_eq!(count(DeadFilter { kind: text("a_job"), error: text("bad"), ..none() }).await, 0);
    let all = r.store.dead_jobs(10).await.unwrap();
    let last = all[2].died_at;
    assert_eq!(count(DeadFilter { until: Some(last), ..none() }).await, 0);
    assert_eq!(count(DeadFilter { since: Some(last), ..none() }).await, 3);

    let first = r.store.dead_page(&DeadFilter::all(), None, 2).await.unwrap();
    let end = Some((first[1].died_at, first[1].id));
    let rest = r.store.dead_page(&DeadFilter::all(), end, 2).await.unwrap();
    assert_eq!([first, rest].concat(), all);
}

#[tokio::test]
async fn redrive_counts_first_and_edits_by_a_merge_patch() {
    let r = graveyard().await;
    let filter = DeadFilter { kind: Some("a_job".to_owned()), ..DeadFilter::default() };
    let edit = Some(json!({"keep": null, "new": {"a": 1}}));
    let how = Redrive { edit, dry_run: true, decided: false };
    assert_eq!(r.store.redrive(&filter, &how).await.unwrap(), 2);
    assert_eq!(r.store.dead_jobs(10).await.unwrap().len(), 3, "nothing has moved");
    let how = Redrive { dry_run: false, ..how };
    assert_eq!(r.store.redrive(&filter, &how).await.unwrap(), 2);
    let due = r.store.due_jobs(r.process, None, 10, "").await.unwrap();
    let mut args: Vec<Value> = due.iter().map(|job| job.args.clone()).collect();
    args.sort_by_key(Value::to_string);
    assert_eq!(args, [json!({"n": 0, "new": {"a": 1}}), json!({"n": 1, "new": {"a": 1}})]);
    assert!(due.iter().all(|job| (job.attempt, job.errors) == (1, 0)), "budgets are fresh");
    let all = DeadFilter::all();
    assert_eq!(r.store.discard_dead(&all, true).await.unwrap(), 1);
    assert_eq!(r.store.discard_dead(&all, false).await.unwrap(), 1);
    assert!(r.store.dead_jobs(10).await.unwrap().is_empty());
    let error = r.store.redrive(&DeadFilter::default(), &Redrive::default()).await.unwrap_err();
    assert!(error.to_string().contains("the filter is empty"), "{error}");
}

#[tokio::test]
async fn an_edit_that_makes_arguments_too_large_lets_nothing_run_again() {
    let r = graveyard().await;
    let edit = Some(json!({ "text": "x".repeat(1 << 20) }));
    let how = Redrive { edit, ..Redrive::default() };
    let error = r.store.redrive(&DeadFilter::all(), &how).await.unwrap_err();
    assert!(error.to_string().contains("args have more than 1 MiB"), "{error}");
    assert_eq!(r.store.dead_jobs(10).await.unwrap().len(), 3, "nothing has moved");
}

#[tokio::test]
async fn a_dead_call_runs_again_only_for_who_says_so() {
    let r = graveyard().await;
    r.db.sql("UPDATE tallylight.job_dead SET kind = 'clear_dvr'").await;
    assert_eq!(r.store.redrive(&DeadFilter::all(), &Redrive::default()).await.unwrap(), 0);
    let all = Redrive { decided: true, ..Redrive::default() };
    assert_eq!(r.store.redrive(&DeadFilter::all(), &all).await.unwrap(), 3);
}

#[tokio::test]
async fn live_jobs_are_listed_by_state_kind_and_subject_in_order() {
    let r = running(2, JobHistory::Failures).await;
    r.end(0, Ending::Retry { error: "x".to_owned(), after: Duration::from_hours(1) }).await;
    enqueue(&r.store, "b_job", &r.subject, &json!({})).await;
    let list = async |state: Option<&str>, kind: Option<&str>| {
        let text = |text: Option<&str>| text.map(str::to_owned);
        let subject = Some(r.subject.to_string());
        let filter = JobFilter { state: text(state), kind: text(kind), subject };
        let jobs = r.store.live_jobs(&filter, None, 10).await.unwrap();
        jobs.into_iter().map(|job| (job.kind, job.state)).collect::<Vec<_>>()
    };
    let job = |kind: &str, state: &str| (kind.to_owned(), state.to_owned());
    let all = [job("a_job", "running"), job("b_job", "available"), job("a_job", "retryable")];
    assert_eq!(list(None, None).await, all);
    assert_eq!(list(Some("retryable"), None).await, all[2..]);
    assert_eq!(list(None, Some("b_job")).await, all[1..2]);
    let waiting = r.store.live_jobs(&JobFilter::default(), None, 10).await.unwrap().remove(1);
    let standing = r.store.standing(&waiting).await.unwrap().unwrap();
    assert_eq!((standing.holder, standing.is_held), (Some(r.process), true));
    assert_eq!(standing.key_busy_with, Some(r.ids[1]));
    assert_eq!(standing.paused, Vec::<String>::new());
    r.store.pause(PauseScope::Kind, "b_job", "me", None).await.unwrap();
    let standing = r.store.standing(&waiting).await.unwrap().unwrap();
    assert_eq!(standing.paused, ["kind b_job"]);
}

#[tokio::test]
async fn producers_cancel_retry_and_redrive_plain_jobs_by_sql() {
    let r = graveyard().await;
    let live = enqueue(&r.store, "a_job", &r.subject, &json!({})).await;
    let mut tx = r.db.pool.begin().await.unwrap();
    tx.execute("SET LOCAL ROLE tallylight_producer").await.unwrap();
    let cancelled: Option<String> = sqlx::query_scalar("SELECT tallylight.cancel($1)")
        .bind(live)
        .fetch_one(&mut *tx)
        .await
        .unwrap();
    assert_eq!(cancelled.as_deref(), Some("cancelled"));
    let retried: bool = sqlx::query_scalar("SELECT tallylight.retry($1)")
        .bind(r.ids[0])
        .fetch_one(&mut *tx)
        .await
        .unwrap();
    assert!(retried);
    let count: i64 =
        sqlx::query_scalar("SELECT tallylight.redrive('{\"state\": \"discarded\"}', NULL, true)")
            .fetch_one(&mut *tx)
            .await
            .unwrap();
    assert_eq!(count, 1);
    tx.commit().await.unwrap();
    assert_eq!(r.store.dead_jobs(10).await.unwrap().len(), 2);
    for beyond in [
        "SELECT tallylight.cancel_job(gen_random_uuid(), true)",
        "SELECT tallylight.redrive_jobs('{\"all\": true}', NULL, false, true)",
        "SELECT tallylight.discard_dead('{\"all\": true}')",
        "SELECT count(*) FROM tallylight.job_dead",
        "SELECT count(*) FROM tallylight.job_attempt",
    ] {
        let mut tx = r.db.pool.begin().await.unwrap();
        tx.execute("SET LOCAL ROLE tallylight_producer").await.unwrap();
        let error = tx.execute(beyond).await.unwrap_err();
        assert!(error.to_string().contains("permission denied"), "{beyond}: {error}");
    }
}

/// A trace of the caller's.
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[tokio::test]
async fn a_callers_trace_is_kept_and_an_odd_one_is_left_out() {
    let r = running(0, JobHistory::Failures).await;
    for (trace, kept) in [(TRACE, Some(TRACE)), ("00-zz-1-01", None), ("", None)] {
        let mut tx = r.db.pool.begin().await.unwrap();
        sqlx::query("SELECT set_config('tallylight.traceparent', $1, true)")
            .bind(trace)
            .execute(&mut *tx)
            .await
            .unwrap();
        let id: Uuid = sqlx::query_scalar("SELECT tallylight.enqueue('a_job')")
            .fetch_one(&mut *tx)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        let job = r.store.find_job(id).await.unwrap().unwrap();
        assert_eq!(job.trace.as_deref(), kept);
    }
    // The setting has ended with its transaction.
    let id = enqueue(&r.store, "a_job", &r.subject, &json!({})).await;
    assert_eq!(r.store.find_job(id).await.unwrap().unwrap().trace, None);
}

#[tokio::test]
async fn every_kind_that_sessions_wait_for_is_known_as_such() {
    let db = db().await;
    for kind in domain::call::Call::KINDS.into_iter().chain(["timer", "forward"]) {
        let is_decided: bool = sqlx::query_scalar("SELECT tallylight.is_decided($1)")
            .bind(kind)
            .fetch_one(&db.pool)
            .await
            .unwrap();
        assert!(is_decided, "{kind}");
    }
}
