//! Keys that are taken, limits of waiting jobs, lanes and pauses: what the SQL ensures.

use domain::ids::{Subject, Timestamp};
use serde_json::{Value, json};
use sqlx::Connection as _;
use store::Consumer::Jobs;
use store::{
    Ending, EnqueueOptions, Enqueued, Error, Finish, KeyStates, Lane, OnConflict, PauseScope,
    Pauses,
};
use uuid::Uuid;

use crate::support::{Db, LONG, READ_NOW, db, subject_in};

fn keyed(subject: &Subject, on_conflict: OnConflict) -> EnqueueOptions {
    EnqueueOptions {
        subject: Some(subject.to_string()),
        key: Some("k".to_owned()),
        on_conflict: Some(on_conflict),
        ..EnqueueOptions::default()
    }
}

async fn enqueue(db: &Db, n: i64, options: &EnqueueOptions) -> Enqueued {
    db.store.enqueue_job("a_job", &json!({"n": n}), options, None).await.unwrap()
}

fn in_hours(hours: i64) -> Timestamp {
    let micros = Timestamp::from(std::time::SystemTime::now()).timestamp_micros();
    Timestamp::from_timestamp_micros(micros + hours * 3_600_000_000).unwrap()
}

async fn end(db: &Db, slice: i16, epoch: i64, id: Uuid, attempt: i32) {
    let finish = Finish { id, attempt, ending: Ending::Completed, events: Vec::new() };
    assert_eq!(db.store.finish(slice, epoch, &[finish]).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_job_that_waits_is_replaced_and_runs_with_its_new_arguments_though_it_was_read_before() {
    let db = db().await;
    let subject = subject_in(&db.store, 1);
    let replace = keyed(&subject, OnConflict::Replace);
    let first = enqueue(&db, 1, &replace).await;
    let process = Uuid::now_v7();
    let lease = db.store.claim(Jobs, 1, process, LONG).await.unwrap().unwrap();
    let read = db.store.due_jobs(process, None, 9, "").await.unwrap();
    assert_eq!(read[0].args, json!({"n": 1}));
    let second = enqueue(&db, 2, &EnqueueOptions { priority: Some(1), ..replace.clone() }).await;
    assert_eq!(second, Enqueued { id: first.id, is_new: false });
    assert_eq!(db.store.due_jobs(process, None, 9, "").await.unwrap()[0].priority, 1);
    let id = first.id.unwrap();
    let started = db.store.mark_started(1, lease.epoch, &[id]).await.unwrap();
    assert_eq!(started[0].args, Some(json!({"n": 2})));
    // What has started does not change: the key is free.
    let third = enqueue(&db, 3, &replace).await;
    assert!(third.is_new && third.id != first.id);
}

#[tokio::test]
async fn a_debounced_job_is_pushed_back_and_does_not_start_though_it_was_due_when_it_was_read() {
    let db = db().await;
    let subject = subject_in(&db.store, 1);
    let debounce = |hours| EnqueueOptions {
        run_at: Some(in_hours(hours)),
        ..keyed(&subject, OnConflict::Debounce)
    };
    let first = enqueue(&db, 1, &debounce(-1)).await;
    let process = Uuid::now_v7();
    let lease = db.store.claim(Jobs, 1, process, LONG).await.unwrap().unwrap();
    let parked = db.store.park(1, lease.epoch, &[subject.to_string()], &[]).await.unwrap();
    assert_eq!(parked, 1);
    assert_eq!(enqueue(&db, 2, &debounce(2)).await, Enqueued { id: first.id, is_new: false });
    assert_eq!(enqueue(&db, 3, &debounce(1)).await.id, first.id, "never forward");
    let id = first.id.unwrap();
    assert!(db.store.mark_started(1, lease.epoch, &[id]).await.unwrap().is_empty());
    let wait = db.store.next_due_in(process, &READ_NOW).await.unwrap().unwrap();
    assert!((7100..=7200).contains(&wait.as_secs()), "{wait:?}");
    let args: Value =
        sqlx::query_scalar("SELECT args FROM tallylight.job").fetch_one(&db.pool).await.unwrap();
    assert_eq!(args, json!({"n": 1}));
}

#[tokio::test]
async fn a_key_that_is_taken_is_never_an_error_and_a_transaction_goes_on() {
    let db = db().await;
    let mut connection = sqlx::PgConnection::connect(&db.url).await.unwrap();
    let mut tx = connection.begin().await.unwrap();
    let mut answers = Vec::new();
    for mode in ["existing", "ignore", "replace", "debounce", "existing"] {
        let row: (Option<Uuid>, bool) = sqlx::query_as(
            "SELECT id, is_new FROM tallylight.enqueue_job('a_job', '{}',
                    jsonb_build_object('key', 'k', 'on_conflict', $1::text))",
        )
        .bind(mode)
        .fetch_one(&mut *tx)
        .await
        .unwrap();
        answers.push(row);
    }
    tx.commit().await.unwrap();
    let id = answers[0].0;
    assert!(id.is_some());
    let old = (id, false);
    assert_eq!(answers, [(id, true), (None, false), old, old, old]);
    assert_eq!(db.number("SELECT count(*) FROM tallylight.job").await, 1);
}

#[tokio::test]
async fn a_key_until_the_start_is_free_from_then_on_and_a_live_one_until_the_end() {
    let db = db().await;
    let lease = db.claim(Jobs, 1).await;
    for (states, is_free) in [(KeyStates::Live, false), (KeyStates::UntilStarted, true)] {
        let subject = subject_in(&db.store, 1);
        let options =
            EnqueueOptions { key_states: Some(states), ..keyed(&subject, OnConflict::Existing) };
        let id = enqueue(&db, 1, &options).await.id.unwrap();
        assert!(!enqueue(&db, 2, &options).await.is_new);
        db.store.mark_started(1, lease.epoch, &[id]).await.unwrap();
        assert_eq!(enqueue(&db, 3, &options).await.is_new, is_free, "{states:?}");
        end(&db, 1, lease.epoch, id, 1).await;
        assert_eq!(enqueue(&db, 4, &options).await.is_new, !is_free, "{states:?}");
    }
}

#[tokio::test]
async fn a_key_of_a_period_holds_after_its_job_has_ended_and_is_removed_when_it_is_over() {
    let db = db().await;
    let subject = subject_in(&db.store, 1);
    let options = EnqueueOptions { key_period: Some(60), ..keyed(&subject, OnConflict::Existing) };
    let lease = db.claim(Jobs, 1).await;
    let first = enqueue(&db, 1, &options).await;
    let id = first.id.unwrap();
    db.store.mark_started(1, lease.epoch, &[id]).await.unwrap();
    end(&db, 1, lease.epoch, id, 1).await;
    assert_eq!(enqueue(&db, 2, &options).await, Enqueued { id: first.id, is_new: false });
    let ignore = EnqueueOptions { on_conflict: Some(OnConflict::Ignore), ..options.clone() };
    assert_eq!(enqueue(&db, 2, &ignore).await, Enqueued { id: None, is_new: false });
    let deadline = std::time::Instant::now() + LONG;
    assert_eq!(db.store.forget_job_keys(deadline).await.unwrap().keys, 0);
    db.sql("UPDATE tallylight.job_key SET until = until - interval '2 minutes'").await;
    let second = enqueue(&db, 3, &options).await;
    assert!(second.is_new, "the period is over");
    db.sql("UPDATE tallylight.job_key SET until = until - interval '2 minutes'").await;
    assert_eq!(enqueue(&db, 4, &options).await.id, second.id, "it still lives");
    db.sql("UPDATE tallylight.job_key SET until = until - interval '2 minutes'").await;
    assert_eq!(db.store.forget_job_keys(deadline).await.unwrap().keys, 1);
}

#[tokio::test]
async fn a_key_of_a_period_from_many_at_once_is_one_job() {
    let db = db().await;
    let subject = subject_in(&db.store, 1);
    let calls: Vec<_> = (0..6)
        .map(|n| {
            let (store, subject) = (db.store.clone(), subject.clone());
            tokio::spawn(async move {
                let options = EnqueueOptions {
                    key_period: Some(60),
                    ..keyed(&subject, OnConflict::Existing)
                };
                store.enqueue_job("a_job", &json!({"n": n}), &options, None).await.unwrap()
            })
        })
        .collect();
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await.unwrap());
    }
    assert_eq!(answers.iter().filter(|answer| answer.is_new).count(), 1, "{answers:?}");
    assert!(answers.iter().all(|answer| answer.id == answers[0].id), "{answers:?}");
}

#[tokio::test]
async fn a_limit_key_with_as_many_jobs_as_it_may_have_refuses_more_by_a_code_of_its_own() {
    let db = db().await;
    let options = |most| EnqueueOptions {
        limit_key: Some("account/7".to_owned()),
        limit_waiting: Some(most),
        ..EnqueueOptions::default()
    };
    enqueue(&db, 1, &options(2)).await;
    enqueue(&db, 2, &options(2)).await;
    let error = db.store.enqueue("a_job", &json!({}), &options(2)).await.unwrap_err();
    assert!(matches!(&error, Error::TooMany { reason } if reason.contains("account/7")), "{error}");
    assert_eq!(db.number("SELECT count(*) FROM tallylight.job").await, 2);
    let code = sqlx::query("SELECT tallylight.enqueue('a_job', '{}', '{\"limit_key\": \"account/7\", \"limit_waiting\": 1}')")
        .execute(&db.pool)
        .await
        .unwrap_err();
    assert_eq!(code.as_database_error().unwrap().code().unwrap(), "TL030");
    enqueue(&db, 3, &options(3)).await;
    // The key is the subject and decides the slice.
    let own = db.store.slice_of(&Subject::from_stored("account/7".to_owned()));
    let slices: Vec<(i16, String)> =
        sqlx::query_as("SELECT DISTINCT slice, subject FROM tallylight.job")
            .fetch_all(&db.pool)
            .await
            .unwrap();
    assert_eq!(slices, [(own, "account/7".to_owned())]);
}

#[tokio::test]
async fn options_that_do_not_go_together_are_refused_in_words() {
    let db = db().await;
    for (options, words) in [
        (json!({"limit": 2}), "need \"limit_key\""),
        (json!({"limit_waiting": 2}), "need \"limit_key\""),
        (json!({"ordered": true}), "needs \"limit_key\" or \"subject\""),
        (json!({"limit_key": "a", "ordered": "true"}), "\"ordered\" must"),
        (json!({"limit_key": "a", "limit": 0}), "\"limit\" must"),
        (json!({"limit_key": "a", "limit": 1001}), "\"limit\" must"),
        (json!({"limit_key": ""}), "\"limit_key\" must"),
        (json!({"fair_key": ""}), "\"fair_key\" must"),
        (json!({"queue": "No"}), "\"queue\" must"),
        (json!({"queue": "platform"}), "reserved"),
        (json!({"on_conflict": "replace"}), "need \"key\""),
        (json!({"key_period": 9}), "need \"key\""),
        (json!({"key": "k", "on_conflict": "panic"}), "must be existing"),
        (json!({"key": "k", "key_states": "dead"}), "must be live"),
        (json!({"key": "k", "key_period": 0}), "\"key_period\" must"),
        (json!({"key": "k", "on_conflict": "replace", "key_states": "live"}), "until the start"),
        (json!({"key": "k", "on_conflict": "debounce", "key_period": 9}), "until the start"),
    ] {
        let error = sqlx::query("SELECT tallylight.enqueue('a_job', '{}', $1)")
            .bind(options.clone())
            .execute(&db.pool)
            .await
            .expect_err(&options.to_string());
        assert!(error.to_string().contains(words), "{options}: {error}");
    }
}

#[tokio::test]
async fn parked_jobs_are_found_by_their_key_in_order_and_by_any_later_holder() {
    let db = db().await;
    let subject = subject_in(&db.store, 1);
    let key = subject.to_string();
    let options = EnqueueOptions { subject: Some(key.clone()), ..EnqueueOptions::default() };
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(enqueue(&db, n, &options).await.id.unwrap());
    }
    let first = db.claim(Jobs, 1).await;
    // The first one runs, and will have to run again: it keeps its place.
    db.store.mark_started(1, first.epoch, &ids[..1]).await.unwrap();
    assert_eq!(db.store.park(1, first.epoch, std::slice::from_ref(&key), &[]).await.unwrap(), 5);
    db.expire(Jobs, 1).await;
    let process = Uuid::now_v7();
    let second = db.store.claim(Jobs, 1, process, LONG).await.unwrap().unwrap();
    let fenced = db.store.park(1, first.epoch, std::slice::from_ref(&key), &[]).await;
    assert!(matches!(fenced, Err(Error::Fenced { .. })));
    assert!(db.store.due_jobs(process, None, 9, "").await.unwrap().is_empty());
    assert_eq!(db.store.parked_keys(&[0, 1]).await.unwrap(), [(1, key.clone())]);
    let keys = [(1, key.clone())];
    let found = db.store.parked_jobs(process, &keys, 2).await.unwrap();
    assert_eq!(found.iter().map(|job| job.id).collect::<Vec<_>>(), ids[..2]);
    assert!(found.iter().all(|job| job.lane == Lane::Parked));
    // Started from where it lies; one that waits for a time is found by time again.
    db.store.mark_started(1, second.epoch, &ids).await.unwrap();
    assert_eq!(db.store.still_parked(&keys).await.unwrap(), keys, "running ones count");
    let ending = Ending::Snooze { after: std::time::Duration::from_hours(1) };
    let finishes: Vec<Finish> = (0..)
        .zip(&ids)
        .map(|(n, id)| (id, if n == 0 { 2 } else { 1 }))
        .map(|(id, attempt)| Finish { id: *id, attempt, ending: ending.clone(), events: vec![] })
        .collect();
    db.store.finish(1, second.epoch, &finishes).await.unwrap();
    assert!(db.store.still_parked(&keys).await.unwrap().is_empty());
    assert!(db.store.next_due_in(process, &READ_NOW).await.unwrap().is_some());
}

#[tokio::test]
async fn paused_jobs_are_set_aside_and_taken_back_and_timers_never_wait() {
    let db = db().await;
    let subject = subject_in(&db.store, 1);
    let of = |queue: &str, fair_key: Option<&str>| EnqueueOptions {
        subject: Some(subject.to_string()),
        queue: Some(queue.to_owned()),
        fair_key: fair_key.map(str::to_owned),
        ..EnqueueOptions::default()
    };
    enqueue(&db, 1, &of("mails", None)).await;
    enqueue(&db, 2, &of("mails", Some("ann"))).await;
    enqueue(&db, 3, &of("other", None)).await;
    let process = Uuid::now_v7();
    let lease = db.store.claim(Jobs, 1, process, LONG).await.unwrap().unwrap();
    db.store.pause(PauseScope::Queue, "mails", "me", Some("why")).await.unwrap();
    let pauses = db.store.pauses().await.unwrap();
    let fair_keys = ["ann".to_owned()];
    let moved = db.store.set_aside(1, lease.epoch, &pauses, &fair_keys, &[]).await.unwrap();
    assert_eq!(moved, 2);
    assert_eq!(db.store.due_jobs(process, None, 9, "").await.unwrap().len(), 1);
    assert!(db.store.take_back(1, lease.epoch, &pauses).await.unwrap());
    assert_eq!(db.store.due_jobs(process, None, 9, "").await.unwrap().len(), 1, "still paused");
    assert!(db.store.take_back(1, lease.epoch, &Pauses::default()).await.unwrap());
    let back = db.store.due_jobs(process, None, 9, "").await.unwrap();
    let lanes: Vec<Lane> = back.iter().map(|job| job.lane).collect();
    assert_eq!(lanes, [Lane::Open, Lane::Shared, Lane::Open]);
    for kind in ["timer", "forward"] {
        assert!(db.store.pause(PauseScope::Kind, kind, "me", None).await.is_err());
    }
}

#[tokio::test]
async fn an_ordered_job_holds_its_key_from_its_first_start_until_it_ends_or_recurs() {
    let db = db().await;
    let subject = subject_in(&db.store, 1);
    let options = EnqueueOptions {
        subject: Some(subject.to_string()),
        ordered: Some(true),
        ..EnqueueOptions::default()
    };
    let id = enqueue(&db, 1, &options).await.id.unwrap();
    let behind = enqueue(&db, 2, &options).await.id.unwrap();
    let lease = db.store.claim(Jobs, 1, Uuid::now_v7(), LONG).await.unwrap().unwrap();
    let key = [(1, subject.to_string())];
    let held = async || {
        let holders = db.store.holders(&key).await.unwrap();
        let holders: Vec<Uuid> = holders.into_iter().map(|holder| holder.id).collect();
        let behind = db.store.find_job(behind).await.unwrap().unwrap();
        let waits_for = db.store.standing(&behind).await.unwrap().unwrap().key_busy_with;
        assert_eq!(waits_for, holders.first().copied(), "the other waits for it");
        holders == [id]
    };
    let after = std::time::Duration::from_hours(1);
    let error = || "x".to_owned();
    assert!(!held().await, "it has not started");
    for (attempt, ending, holds) in [
        (1, Ending::Retry { error: error(), after }, true),
        (2, Ending::Snooze { after }, true),
        (3, Ending::Released, true),
        (4, Ending::Again { after }, false),
        (5, Ending::Discarded { error: error() }, false),
    ] {
        assert_eq!(db.store.mark_started(1, lease.epoch, &[id]).await.unwrap()[0].attempt, attempt);
        assert!(held().await, "in run {attempt}");
        let finish = Finish { id, attempt, ending, events: Vec::new() };
        db.store.finish(1, lease.epoch, &[finish]).await.unwrap();
        assert_eq!(held().await, holds, "after run {attempt}");
    }
    db.store.retry_dead(id).await.unwrap();
    assert!(!held().await, "it begins anew");
    db.store.mark_started(1, lease.epoch, &[id]).await.unwrap();
    assert!(held().await, "and keeps its order as before");
}
