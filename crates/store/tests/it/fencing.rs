//! The fence: a process that lost its lease does nothing, in whichever order things happen.

use domain::ids::Subject;
use sqlx::{PgConnection, Postgres, Transaction};
use store::Consumer::{self, Jobs, React};
use store::{Ending, EnqueueOptions, Error, Finish, Lease, Reaction};
use uuid::Uuid;

use crate::support::{Db, LONG, db, event, subject_in};

/// A reaction of one announcement.
fn reaction(db: &Db, lease: &Lease) -> Reaction {
    let subject = subject_in(&db.store, lease.slice);
    Reaction { to: lease.position + 1, events: vec![event(&subject, "")], ..Reaction::default() }
}

/// A job that runs under a lease of its slice, and how its run ends.
async fn running(db: &Db) -> (Lease, Finish) {
    let subject = subject_in(&db.store, 9);
    let options = EnqueueOptions { subject: Some(subject.to_string()), ..Default::default() };
    let id = db.store.enqueue("a_job", &serde_json::json!({}), &options).await.unwrap();
    let lease = db.claim(Jobs, 9).await;
    let started = db.store.mark_started(9, lease.epoch, &[id]).await.unwrap();
    (lease, finish(id, started[0].attempt, &subject))
}

fn finish(id: Uuid, attempt: i32, subject: &Subject) -> Finish {
    Finish { id, attempt, ending: Ending::Completed, events: vec![event(subject, "done")] }
}

/// Another process takes a slice over, in a transaction that is still open.
async fn take_over(db: &Db, consumer: Consumer, slice: i16) -> Transaction<'static, Postgres> {
    let mut tx = db.pool.begin().await.unwrap();
    sqlx::query(
        "UPDATE tallylight.checkpoint SET epoch = epoch + 1 WHERE consumer = $1 AND slice = $2",
    )
    .bind(consumer.name())
    .bind(slice)
    .execute(&mut *tx)
    .await
    .unwrap();
    tx
}

/// Holds up whoever appends to a slice.
async fn lock_head(on: &mut PgConnection, slice: i16) {
    sqlx::query("SELECT FROM tallylight.slice_head WHERE slice = $1 FOR UPDATE")
        .bind(slice)
        .execute(on)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_zombie_does_nothing() {
    let db = db().await;
    let react = db.claim(React, 2).await;
    let (jobs, finish) = running(&db).await;
    db.expire(React, 2).await;
    db.expire(Jobs, 9).await;
    db.claim(React, 2).await;
    db.claim(Jobs, 9).await;

    let error = db.store.commit_reaction(&react, &reaction(&db, &react), LONG).await.unwrap_err();
    assert!(matches!(error, Error::Fenced { slice: 2 }), "{error}");
    let error = db.store.finish(9, jobs.epoch, std::slice::from_ref(&finish)).await.unwrap_err();
    assert!(matches!(error, Error::Fenced { slice: 9 }), "{error}");
    let error = db.store.mark_started(9, jobs.epoch, &[finish.id]).await.unwrap_err();
    assert!(matches!(error, Error::Fenced { slice: 9 }), "{error}");
    assert_eq!(db.number("SELECT count(*) FROM tallylight.event").await, 0);
    assert_eq!(db.number("SELECT attempt::bigint FROM tallylight.job").await, 1);
}

#[tokio::test]
async fn a_takeover_waits_for_a_finish_that_began_before_it() {
    let db = db().await;
    let (lease, finish) = running(&db).await;
    db.expire(Jobs, 9).await;
    let mut head = db.pool.begin().await.unwrap();
    lock_head(&mut head, 9).await;
    let store = db.store.clone();
    let finishing = tokio::spawn(async move { store.finish(9, lease.epoch, &[finish]).await });
    db.blocked(1).await;
    let store = db.store.clone();
    let takeover = tokio::spawn(async move { store.claim(Jobs, 9, Uuid::now_v7(), LONG).await });
    db.blocked(2).await;
    assert!(!takeover.is_finished());
    head.rollback().await.unwrap();
    assert_eq!(finishing.await.unwrap().unwrap().len(), 1);
    assert_eq!(takeover.await.unwrap().unwrap().unwrap().epoch, lease.epoch + 1);
    assert_eq!(db.number("SELECT count(*) FROM tallylight.job").await, 0);
    assert_eq!(db.head(9).await, 1);
}

#[tokio::test]
async fn a_finish_waits_for_a_takeover_that_began_before_it_and_is_fenced() {
    let db = db().await;
    let (lease, finish) = running(&db).await;
    let takeover = take_over(&db, Jobs, 9).await;
    let store = db.store.clone();
    let finishing = tokio::spawn(async move { store.finish(9, lease.epoch, &[finish]).await });
    db.blocked(1).await;
    takeover.commit().await.unwrap();
    let error = finishing.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Fenced { slice: 9 }), "{error}");
    assert_eq!(db.number("SELECT count(*) FROM tallylight.job").await, 1);
    assert_eq!(db.head(9).await, 0);
}

#[tokio::test]
async fn a_finish_goes_on_when_the_takeover_is_rolled_back() {
    let db = db().await;
    let (lease, finish) = running(&db).await;
    let takeover = take_over(&db, Jobs, 9).await;
    let store = db.store.clone();
    let finishing = tokio::spawn(async move { store.finish(9, lease.epoch, &[finish]).await });
    db.blocked(1).await;
    takeover.rollback().await.unwrap();
    assert_eq!(finishing.await.unwrap().unwrap().len(), 1);
    assert_eq!(db.head(9).await, 1);
}

#[tokio::test]
async fn a_takeover_finds_the_lease_renewed_by_the_reaction_it_waited_for() {
    let db = db().await;
    let lease = db.claim(React, 2).await;
    db.expire(React, 2).await;
    let mut head = db.pool.begin().await.unwrap();
    lock_head(&mut head, 2).await;
    let (store, what) = (db.store.clone(), reaction(&db, &lease));
    let reacting = tokio::spawn(async move { store.commit_reaction(&lease, &what, LONG).await });
    db.blocked(1).await;
    let store = db.store.clone();
    let takeover = tokio::spawn(async move { store.claim(React, 2, Uuid::now_v7(), LONG).await });
    db.blocked(2).await;
    head.rollback().await.unwrap();
    assert_eq!(reacting.await.unwrap().unwrap().events, 1);
    assert_eq!(takeover.await.unwrap().unwrap(), None);
}

#[tokio::test]
async fn a_reaction_waits_for_a_takeover_that_began_before_it_and_is_fenced() {
    let db = db().await;
    let lease = db.claim(React, 2).await;
    let takeover = take_over(&db, React, 2).await;
    let (store, what) = (db.store.clone(), reaction(&db, &lease));
    let reacting = tokio::spawn(async move { store.commit_reaction(&lease, &what, LONG).await });
    db.blocked(1).await;
    takeover.commit().await.unwrap();
    let error = reacting.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Fenced { slice: 2 }), "{error}");
    assert_eq!(db.head(2).await, 0);
}

#[tokio::test]
async fn a_start_mark_waits_for_a_takeover_and_marks_nothing() {
    let db = db().await;
    let (lease, finish) = running(&db).await;
    db.sql("UPDATE tallylight.job SET run_epoch = NULL").await;
    let takeover = take_over(&db, Jobs, 9).await;
    let store = db.store.clone();
    let id = finish.id;
    let marking = tokio::spawn(async move { store.mark_started(9, lease.epoch, &[id]).await });
    db.blocked(1).await;
    takeover.commit().await.unwrap();
    assert!(matches!(marking.await.unwrap(), Err(Error::Fenced { slice: 9 })));
    assert_eq!(db.number("SELECT count(*) FROM tallylight.job WHERE run_epoch IS NULL").await, 1);
}
