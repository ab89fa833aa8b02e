//! Waits and words in all orders of their statements: whoever comes first, a job that has what it
//! waits for is due, once, and one whose time was over gets one outcome.

use std::time::Duration;

use serde_json::json;
use store::{Awaits, Begin, EventWait, PlainJob, Ties, Word};

use super::*;
use crate::jobs::{insert, job};
use crate::support::{db, subject_in};

/// A running job that has begun a wait.
struct Waiter {
    jobs: Lease,
    react: Lease,
    wait: EventWait,
    told: Told<&'static str>,
}

/// A job that waits for an event of the slice's subject, for that long.
async fn waiter(db: &Db, slice: i16, subject: &Subject, timeout: Duration) -> Waiter {
    let id = insert(db, slice, vec![job(subject, Timestamp::default(), 2)]).await[0];
    let jobs = db.claim(Jobs, slice).await;
    db.store.mark_started(slice, jobs.epoch, &[id]).await.unwrap();
    // What the insertion of the job has passed.
    db.store.append_one(event(subject, "first")).await.unwrap();
    let after = db.head(slice).await;
    let awaits = Awaits { subject: subject.clone(), types: Vec::new(), after };
    let begin = Begin::Event { awaits: awaits.clone(), timeout };
    let stored = db.store.begin_step(slice, jobs.epoch, (id, 1), "approved", &begin).await;
    let (step, until) = ("approved".to_owned(), stored.unwrap().unwrap().until.unwrap());
    let wait = EventWait { job_slice: slice, job: id, step, awaits, until };
    Waiter { jobs, react: db.claim(React, slice).await, wait, told: Told::default() }
}

fn waits(case: &Case<Waiter>) -> [Finish; 1] {
    let step = case.world.wait.step.clone();
    let ending = Ending::Wait { step };
    [Finish { id: case.world.wait.job, attempt: 1, ending, events: Vec::new() }]
}

async fn tell_of_event(store: &Store, case: &Case<Waiter>) {
    let wait = &case.world.wait;
    let word = wait.met(case.slice, wait.awaits.after + 1);
    store.relay(case.slice, &[word]).await.unwrap();
}

/// How many jobs of the slice meet a condition.
async fn count<W>(db: &Db, case: &Case<W>, condition: &str) -> i64 {
    let query = format!("SELECT count(*) FROM tallylight.job WHERE slice = $1 AND {condition}");
    sqlx::query_scalar(AssertSqlSafe(query)).bind(case.slice).fetch_one(&db.pool).await.unwrap()
}

#[tokio::test]
async fn a_word_and_the_end_of_the_run_that_waits_for_it_meet_in_any_order() {
    let mut bench = Bench::new(2).await;
    let sessions = [
        unreliable(async |store: Store, case: Arc<Case<Waiter>>| {
            // As the engine does: until it is known.
            while store.finish(case.slice, case.world.jobs.epoch, &waits(&case)).await.is_err() {}
        }),
        session(async |store: Store, case: Arc<Case<Waiter>>| {
            tell_of_event(&store, &case).await;
        }),
    ];
    let explored = bench.explore(
        async |db, slice, subject| waiter(db, slice, subject, Duration::from_hours(1)).await,
        &sessions,
        async |db, case| {
            let due = count(db, case, "run_at <= now() AND run_epoch IS NULL").await;
            demand(due == 1, "the job waits for what it has")
        },
    );
    let explored = explored.await.unwrap();
    assert!(explored.orders >= 10, "{explored:?}");
}

#[tokio::test]
async fn an_event_is_found_by_the_look_or_by_the_reaction_whenever_it_comes() {
    let mut bench = Bench::new(2).await;
    let sessions = [
        session(async |store: Store, case: Arc<Case<Waiter>>| {
            let wait = &case.world.wait;
            store.await_event(wait).await.unwrap();
            let subject = &wait.awaits.subject;
            let found = store.read_subject(subject, wait.awaits.after, 10).await.unwrap();
            if !found.is_empty() {
                tell(&case, &case.world.told, "found");
            }
        }),
        session(async |store: Store, case: Arc<Case<Waiter>>| {
            store.append_one(event(&case.subject, "it")).await.unwrap();
            let lease = &case.world.react;
            let to = lease.position + 1;
            let reaction = Reaction { to, ..Reaction::default() };
            let lease = store.commit_reaction(lease, &reaction, LONG).await.unwrap().lease;
            // One more, which finds nobody: the flag goes while somebody may be adding himself.
            store.append_one(event(&case.subject, "another")).await.unwrap();
            let reaction = Reaction { to: to + 1, ..Reaction::default() };
            store.commit_reaction(&lease, &reaction, LONG).await.unwrap();
        }),
    ];
    let explored = bench.explore(
        async |db, slice, subject| waiter(db, slice, subject, Duration::from_hours(1)).await,
        &sessions,
        async |db, case| {
            let is_found = !case.world.told.lock().unwrap().is_empty();
            let relays = count(db, case, "kind = 'relay'").await;
            demand(is_found || relays == 1, "the event is missed")
        },
    );
    searched(&explored.await.unwrap(), 20);
}

#[tokio::test]
async fn whoever_comes_first_of_an_event_and_the_end_of_its_time_stays() {
    let mut bench = Bench::new(2).await;
    let sessions = [
        session(async |store: Store, case: Arc<Case<Waiter>>| {
            let (epoch, wait) = (case.world.jobs.epoch, &case.world.wait);
            let given_up = store.give_up_step(case.slice, epoch, wait.job, &wait.step).await;
            let is_event = given_up.unwrap().unwrap().value.is_some();
            tell(&case, &case.world.told, if is_event { "event" } else { "timed out" });
        }),
        session(async |store: Store, case: Arc<Case<Waiter>>| {
            tell_of_event(&store, &case).await;
        }),
    ];
    let explored = bench.explore(
        async |db, slice, subject| waiter(db, slice, subject, Duration::ZERO).await,
        &sessions,
        async |db, case| {
            let steps = db.store.steps(case.slice, case.world.wait.job).await.unwrap();
            let told = case.world.told.lock().unwrap()[0].1;
            let is_event = steps[0].value.is_some();
            demand(steps[0].is_closed && (told == "event") == is_event, "it got both")
        },
    );
    let explored = explored.await.unwrap();
    assert!(explored.orders >= 4, "{explored:?}");
}

#[tokio::test]
async fn of_two_last_children_that_end_at_once_one_wakes_the_parent() {
    const SLICE: i16 = 3;
    let db = db().await;
    let subject = subject_in(&db.store, SLICE);
    let parent = insert(&db, SLICE, vec![job(&subject, Timestamp::default(), 2)]).await[0];
    let jobs = db.claim(Jobs, SLICE).await;
    db.store.mark_started(SLICE, jobs.epoch, &[parent]).await.unwrap();
    let options = EnqueueOptions::default();
    let child = PlainJob { kind: "plain".to_owned(), args: json!({}), options };
    let children = vec![child; 2];
    let begin = Begin::Children { children, ties: Ties::default() };
    db.store.begin_step(SLICE, jobs.epoch, (parent, 1), "parts", &begin).await.unwrap();
    let step = "parts".to_owned();
    let ending = Ending::Wait { step };
    let finish = Finish { id: parent, attempt: 1, ending, events: Vec::new() };
    db.store.finish(SLICE, jobs.epoch, &[finish]).await.unwrap();

    let word = |n: i32| Word {
        job: parent,
        step: "parts".to_owned(),
        subject: None,
        n: Some(n),
        rank: Some(3),
        state: Some("completed".to_owned()),
        value: None,
        error: None,
    };
    // The first has spoken and is not committed when the second speaks.
    let mut first = db.pool.begin().await.unwrap();
    sqlx::query("SELECT tallylight.relay($1, $2)")
        .bind(SLICE)
        .bind(json!([word(1)]))
        .execute(&mut *first)
        .await
        .unwrap();
    let (store, last) = (db.store.clone(), word(2));
    let second = tokio::spawn(async move { store.relay(SLICE, &[last]).await });
    db.blocked(1).await;
    first.commit().await.unwrap();
    second.await.unwrap().unwrap();
    let due = "SELECT count(*) FROM tallylight.job WHERE kind = 'a_job' AND run_at <= now()";
    assert_eq!(db.number(due).await, 1);
}
