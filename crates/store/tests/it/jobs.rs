//! Claiming and marking jobs; dead letters.

use std::collections::HashSet;
use std::time::Duration;

use domain::effect::NewJob;
use domain::ids::{Subject, Timestamp};
use serde_json::json;
use store::Consumer::{Jobs, React};
use store::{Ending, EnqueueOptions, Error, Finish, Reaction, Starts, Store};
use uuid::Uuid;

use crate::support::{Db, LONG, READ_NOW, db, subject_in, until};

/// A job of a slice, due at `run_at`.
pub(crate) fn job(subject: &Subject, run_at: Timestamp, priority: i16) -> NewJob {
    NewJob {
        id: Uuid::now_v7(),
        kind: "a_job".to_owned(),
        subject: subject.clone(),
        args: json!({"n": 1}),
        run_at,
        priority,
        max_attempts: 3,
        once_for: None,
        causation_id: None,
        correlation_id: None,
        trace: None,
    }
}

/// Inserts jobs of a slice, as a reaction does.
pub(crate) async fn insert(db: &Db, slice: i16, jobs: Vec<NewJob>) -> Vec<Uuid> {
    let ids = jobs.iter().map(|job| job.id).collect();
    let lease = db.claim(React, slice).await;
    let reaction = Reaction { to: lease.position + 1, jobs, ..Reaction::default() };
    let lease = db.store.commit_reaction(&lease, &reaction, LONG).await.unwrap().lease;
    db.store.release(React, slice, lease.epoch).await.unwrap();
    ids
}

fn seconds_ago(seconds: i64) -> Timestamp {
    Timestamp::from(std::time::SystemTime::now()) - Duration::from_secs(seconds.unsigned_abs())
}

fn in_an_hour() -> Timestamp {
    Timestamp::from(std::time::SystemTime::now()) + Duration::from_hours(1)
}

async fn due(store: &Store, process: Uuid) -> Vec<Uuid> {
    store.due_jobs(process, None, 100, "").await.unwrap().iter().map(|job| job.id).collect()
}

#[tokio::test]
async fn due_jobs_come_by_priority_then_time_and_of_held_slices_alone() {
    let db = db().await;
    let (here, there) = (subject_in(&db.store, 1), subject_in(&db.store, 2));
    let at = seconds_ago(100);
    let ids = insert(
        &db,
        1,
        vec![
            job(&here, seconds_ago(10), 2),
            job(&here, in_an_hour(), 1),
            job(&here, at, 2),
            job(&here, seconds_ago(5), 1),
            job(&here, at, 2),
            job(&here, seconds_ago(900), 4),
        ],
    )
    .await;
    insert(&db, 2, vec![job(&there, at, 1)]).await;
    let process = Uuid::now_v7();
    assert!(due(&db.store, process).await.is_empty(), "nothing is held");
    db.store.claim(Jobs, 1, process, LONG).await.unwrap().unwrap();
    assert_eq!(due(&db.store, process).await, [ids[3], ids[2], ids[4], ids[0], ids[5]]);
    assert!(due(&db.store, Uuid::now_v7()).await.is_empty(), "another process");
    let first = &db.store.due_jobs(process, None, 1, "").await.unwrap();
    let first: Vec<Uuid> = first.iter().map(|job| job.id).collect();
    assert_eq!(first, [ids[3], ids[2], ids[5]], "one of each priority");
    db.store.claim(Jobs, 2, process, LONG).await.unwrap().unwrap();
    assert_eq!(due(&db.store, process).await.len(), 6);
}

#[tokio::test]
async fn a_due_job_is_told_as_it_was_enqueued() {
    let db = db().await;
    let subject = subject_in(&db.store, 1);
    let mut one = job(&subject, Timestamp::from_timestamp(1_700_000_000, 5_000).unwrap(), 3);
    one.causation_id = Some(Uuid::now_v7());
    one.correlation_id = Some(Uuid::now_v7());
    insert(&db, 1, vec![one.clone()]).await;
    let process = Uuid::now_v7();
    db.store.claim(Jobs, 1, process, LONG).await.unwrap();
    let told = db.store.due_jobs(process, None, 1, "").await.unwrap().pop().unwrap();
    assert_eq!((told.slice, told.id, told.kind, told.subject), (1, one.id, one.kind, one.subject));
    assert_eq!((told.args, told.run_at, told.max_attempts), (one.args, one.run_at, 3));
    assert_eq!((told.attempt, told.errors), (0, 0));
    assert_eq!((told.causation_id, told.correlation_id), (one.causation_id, one.correlation_id));
}

#[tokio::test]
async fn the_next_due_job_is_waited_for() {
    let db = db().await;
    let subject = subject_in(&db.store, 1);
    let process = Uuid::now_v7();
    db.store.claim(Jobs, 1, process, LONG).await.unwrap();
    assert_eq!(db.store.next_due_in(process, &READ_NOW).await.unwrap(), None);
    insert(&db, 1, vec![job(&subject, seconds_ago(5), 1), job(&subject, in_an_hour(), 4)]).await;
    let wait = db.store.next_due_in(process, &READ_NOW).await.unwrap().unwrap();
    assert!((3500..=3600).contains(&wait.as_secs()), "{wait:?}");
    assert_eq!(db.store.next_due_in(Uuid::now_v7(), &READ_NOW).await.unwrap(), None);
    let before = [(1, Duration::from_mins(1))];
    let since = db.store.next_due_in(process, &before).await.unwrap();
    assert_eq!(since, Some(Duration::ZERO), "it became due after its slice was read");
}

#[tokio::test]
async fn due_jobs_are_read_of_some_slices_alone() {
    let db = db().await;
    let process = Uuid::now_v7();
    for slice in [1, 2] {
        db.store.claim(Jobs, slice, process, LONG).await.unwrap();
        insert(&db, slice, vec![job(&subject_in(&db.store, slice), seconds_ago(5), 1)]).await;
    }
    assert_eq!(db.store.due_jobs(process, None, 9, "").await.unwrap().len(), 2);
    let of = db.store.due_jobs(process, Some(&[2, 3]), 9, "").await.unwrap();
    assert_eq!(of.iter().map(|job| job.slice).collect::<Vec<_>>(), [2]);
}

#[tokio::test]
async fn a_job_is_marked_once_in_an_epoch() {
    let db = db().await;
    let subject = subject_in(&db.store, 1);
    let ids =
        insert(&db, 1, vec![job(&subject, seconds_ago(1), 2), job(&subject, seconds_ago(1), 2)])
            .await;
    let process = Uuid::now_v7();
    let lease = db.store.claim(Jobs, 1, process, LONG).await.unwrap().unwrap();
    let started = db.store.mark_started(1, lease.epoch, &[ids[0], Uuid::now_v7()]).await.unwrap();
    assert_eq!(started.len(), 1);
    assert_eq!((started[0].id, started[0].attempt, started[0].crashes), (ids[0], 1, 0));
    assert!(db.store.mark_started(1, lease.epoch, &ids[..1]).await.unwrap().is_empty());
    assert_eq!(due(&db.store, process).await, ids[1..], "what runs is not due");
    let marking = (0..4).map(|_| {
        let (store, id) = (db.store.clone(), ids[1]);
        tokio::spawn(async move { store.mark_started(1, lease.epoch, &[id]).await.unwrap().len() })
    });
    let mut marked = 0;
    for one in marking.collect::<Vec<_>>() {
        marked += one.await.unwrap();
    }
    assert_eq!(marked, 1);
}

#[tokio::test]
async fn a_mark_of_an_older_epoch_was_a_crash() {
    let db = db().await;
    let subject = subject_in(&db.store, 1);
    let ids =
        insert(&db, 1, vec![job(&subject, seconds_ago(1), 2), job(&subject, seconds_ago(1), 2)])
            .await;
    let first = db.claim(Jobs, 1).await;
    db.store.mark_started(1, first.epoch, &ids[..1]).await.unwrap();
    db.expire(Jobs, 1).await;
    let process = Uuid::now_v7();
    let second = db.store.claim(Jobs, 1, process, LONG).await.unwrap().unwrap();
    let again: HashSet<Uuid> = due(&db.store, process).await.into_iter().collect();
    assert_eq!(again, ids.iter().copied().collect(), "a takeover finds what ran");
    let mut started = db.store.mark_started(1, second.epoch, &ids).await.unwrap();
    started.sort_by_key(|s| s.attempt);
    assert_eq!((started[0].id, started[0].attempt, started[0].crashes), (ids[1], 1, 0));
    assert_eq!((started[1].id, started[1].attempt, started[1].crashes), (ids[0], 2, 1));
}

#[tokio::test]
async fn jobs_are_counted_by_what_they_wait_for() {
    let db = db().await;
    let subject = subject_in(&db.store, 1);
    let due = seconds_ago(1);
    let ids = insert(
        &db,
        1,
        vec![
            job(&subject, due, 2),
            job(&subject, due, 2),
            job(&subject, due, 2),
            job(&subject, in_an_hour(), 2),
        ],
    )
    .await;
    let lease = db.claim(Jobs, 1).await;
    db.store.mark_started(1, lease.epoch, &ids[..2]).await.unwrap();
    bury(&db, 1, lease.epoch, ids[0], 1).await;
    let counts = db.store.job_counts().await.unwrap();
    assert_eq!((counts.available, counts.scheduled, counts.running, counts.dead), (1, 1, 1, 1));
}

async fn bury(db: &Db, slice: i16, epoch: i64, id: Uuid, attempt: i32) {
    let ending = Ending::Discarded { error: "no".to_owned() };
    let finish = Finish { id, attempt, ending, events: Vec::new() };
    assert_eq!(db.store.finish(slice, epoch, &[finish]).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_dead_job_comes_back_with_new_budgets_and_goes_on_counting_starts() {
    let db = db().await;
    let subject = subject_in(&db.store, 1);
    let ids = insert(&db, 1, vec![job(&subject, seconds_ago(1), 3)]).await;
    let process = Uuid::now_v7();
    let lease = db.store.claim(Jobs, 1, process, LONG).await.unwrap().unwrap();
    db.store.mark_started(1, lease.epoch, &ids).await.unwrap();
    bury(&db, 1, lease.epoch, ids[0], 1).await;
    let dead = db.store.dead_jobs(10).await.unwrap();
    assert_eq!((dead[0].id, dead[0].attempt, dead[0].state.as_str()), (ids[0], 1, "discarded"));
    assert_eq!((dead[0].last_error.as_deref(), &dead[0].args), (Some("no"), &json!({"n": 1})));

    let (one, two) = tokio::join!(db.store.retry_dead(ids[0]), db.store.retry_dead(ids[0]));
    assert!(one.is_ok() != two.is_ok(), "one of two wins: {one:?} {two:?}");
    let back = db.store.due_jobs(process, None, 10, "").await.unwrap();
    assert_eq!(
        (back[0].id, back[0].attempt, back[0].errors, back[0].max_attempts),
        (ids[0], 1, 0, 3)
    );
    assert!(db.store.dead_jobs(10).await.unwrap().is_empty());
    let started = db.store.mark_started(1, lease.epoch, &ids).await.unwrap();
    assert_eq!((started[0].attempt, started[0].crashes), (2, 0));
    let error = db.store.retry_dead(Uuid::now_v7()).await.unwrap_err();
    assert!(matches!(error, Error::NoSuchJob { .. }), "{error}");
}

/// Counters of the jobs table. Backends report them when they end.
async fn counter(db: &Db, name: &'static str) -> i64 {
    let query =
        format!("SELECT {name} FROM pg_stat_user_tables WHERE relid = 'tallylight.job'::regclass");
    sqlx::query_scalar(sqlx::AssertSqlSafe(query)).fetch_one(&db.pool).await.unwrap()
}

#[tokio::test]
async fn a_start_mark_writes_no_index() {
    let db = db().await;
    let subject = subject_in(&db.store, 1);
    let jobs = (0..200).map(|_| job(&subject, seconds_ago(1), 2)).collect();
    let ids = insert(&db, 1, jobs).await;
    let lease = db.claim(Jobs, 1).await;
    let other = Store::connect(&store::Config::new(db.url.as_str())).await.unwrap();
    for chunk in ids.chunks(50) {
        assert_eq!(other.mark_started(1, lease.epoch, chunk).await.unwrap().len(), 50);
    }
    other.close().await;
    until(async || (counter(&db, "n_tup_upd").await == 200).then_some(())).await;
    assert_eq!(counter(&db, "n_tup_hot_upd").await, 200);
}

#[tokio::test]
async fn claims_read_what_is_due_and_never_the_whole_table() {
    let db = db().await;
    db.sql(
        "INSERT INTO tallylight.job (slice, id, kind, subject, priority, run_at)
         SELECT n % 16, gen_random_uuid(), 'a_job', 's/' || n, 1 + n % 4, now() + n * interval '1 minute'
           FROM generate_series(1, 50000) AS n",
    )
    .await;
    let process = Uuid::now_v7();
    for slice in 0..16 {
        db.store.claim(Jobs, slice, process, LONG).await.unwrap().unwrap();
    }
    let due = EnqueueOptions { subject: Some("x".to_owned()), ..EnqueueOptions::default() };
    for _ in 0..5 {
        db.store.enqueue("a_job", &json!({}), &due).await.unwrap();
    }
    for analyzed in [false, true] {
        if analyzed {
            db.sql("ANALYZE tallylight.job").await;
        }
        let read = "idx_tup_fetch + (SELECT sum(idx_tup_read)::bigint FROM pg_stat_user_indexes
                                      WHERE relid = 'tallylight.job'::regclass)";
        let (scans, index) = (counter(&db, "seq_scan").await, counter(&db, "idx_scan").await);
        let before = counter(&db, read).await;
        let other = Store::connect(&store::Config {
            max_connections: 1,
            ..store::Config::new(db.url.as_str())
        })
        .await
        .unwrap();
        // From the sixth on the plan is the generic one.
        for _ in 0..10 {
            assert_eq!(other.due_jobs(process, None, 64, "").await.unwrap().len(), 5);
            assert!(other.next_due_in(process, &READ_NOW).await.unwrap().is_some());
        }
        other.close().await;
        until(async || (counter(&db, "idx_scan").await >= index + 20 * 64).then_some(())).await;
        assert_eq!(counter(&db, "seq_scan").await, scans, "analyzed: {analyzed}");
        let read = counter(&db, read).await - before;
        assert!(read < 10 * (64 + 5) * 3, "{read} rows read, analyzed: {analyzed}");
    }
}

#[tokio::test]
async fn a_mark_that_arrives_after_it_was_taken_back_marks_nothing() {
    let db = db().await;
    let subject = subject_in(&db.store, 1);
    let id = insert(&db, 1, vec![job(&subject, seconds_ago(1), 2)]).await[0];
    let epoch = db.claim(Jobs, 1).await.epoch;
    let mark = |attempt| Starts { slice: 1, epoch, ids: vec![id], attempts: vec![Some(attempt)] };
    // Its answer never came, and it has not arrived yet either.
    let late = mark(0);
    let release = Finish { id, attempt: 1, ending: Ending::Released, events: Vec::new() };
    db.store.finish(1, epoch, &[release]).await.unwrap();
    assert_eq!(db.store.mark_all(&[late]).await.unwrap().started, []);
    let started = db.store.mark_all(&[mark(1)]).await.unwrap().started;
    assert_eq!(started.iter().map(|s| (s.attempt, s.crashes)).collect::<Vec<_>>(), [(2, 0)]);
}
