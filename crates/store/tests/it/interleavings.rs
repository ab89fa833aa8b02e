//! All orders of the statements of two to four sessions, on a real PostgreSQL: the log stays dense,
//! what was acknowledged is stored once, and nobody works under another's lease.
//!
//! The sessions are calls of the store, stepped through a gate before the server. Some tests take a
//! protection away and demand that an order is found that breaks the rule: so the search can fail.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use domain::event::NewEvent;
use domain::ids::{Subject, Timestamp};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use store::Consumer::{Jobs, React};
use store::{Ending, EnqueueOptions, Error, Finish, Lease, OnConflict, Reaction, Store};
use uuid::Uuid;

use self::driver::{Bench, Case, Counterexample, Explored, session, unreliable};
use crate::support::{Db, LONG, event, keyed};

mod driver;
mod gate;
mod waits;

/// What sessions tell, each with the number of steps done when it was told.
type Told<T> = Mutex<Vec<(usize, T)>>;

fn tell<W, T>(case: &Case<W>, told: &Told<T>, what: T) {
    told.lock().unwrap().push((case.now(), what));
}

/// A `react` lease on a slice, and what was told.
struct Leased {
    lease: Lease,
    told: Told<&'static str>,
}

/// A slice with one event, and a lease on it.
async fn leased(db: &Db, slice: i16, subject: &Subject) -> Leased {
    db.store.append_one(event(subject, "first")).await.unwrap();
    Leased { lease: db.claim(React, slice).await, told: Told::default() }
}

/// As [`leased`], but the lease has run out.
async fn expired(db: &Db, slice: i16, subject: &Subject) -> Leased {
    let leased = leased(db, slice, subject).await;
    db.expire(React, slice).await;
    leased
}

/// Reacts to the next event of the slice, announcing `what`.
async fn react<W>(
    store: &Store,
    case: &Case<W>,
    lease: &Lease,
    what: &'static str,
) -> Result<(), Error> {
    let events = vec![event(&case.subject, what)];
    let reaction = Reaction { to: lease.position + 1, events, ..Reaction::default() };
    store.commit_reaction(lease, &reaction, LONG).await.map(|_| ())
}

/// The payloads of the slice, in order.
async fn payloads<W>(db: &Db, case: &Case<W>) -> Vec<String> {
    let events = db.store.read_after(case.slice, 0, Timestamp::default(), 100).await.unwrap();
    events.into_iter().map(|e| String::from_utf8(e.payload).unwrap()).collect()
}

/// How many of the events are not the one that was there first.
async fn announced<W>(db: &Db, case: &Case<W>) -> usize {
    payloads(db, case).await.iter().filter(|payload| *payload != "first").count()
}

/// A rule, as the answer of a check.
fn demand(holds: bool, rule: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(rule.to_owned()) }
}

/// Demands that a search was one.
#[track_caller]
fn searched(explored: &Explored, orders: usize) {
    assert!(explored.orders >= orders, "{explored:?}");
    assert!(explored.blocked > 0, "{explored:?}");
}

#[tokio::test]
async fn whoever_appends_rolls_back_and_reads_in_any_order_the_slice_is_dense() {
    let mut bench = Bench::new(3).await;
    let sessions = [
        unreliable(async |store: Store, case: Arc<Case<Leased>>| {
            let _ = react(&store, &case, &case.world.lease, "reaction").await;
        }),
        session(async |store: Store, case: Arc<Case<Leased>>| {
            let two = [event(&case.subject, "one"), event(&case.subject, "two")];
            let appended = store.append(case.slice, None, &two).await.unwrap();
            assert_eq!(appended.stored(&two).count(), 2);
        }),
        session(async |store: Store, case: Arc<Case<Leased>>| {
            let read = async || store.read_after(case.slice, 0, Timestamp::default(), 9).await;
            // A hole is an error of the read.
            let (early, late) = (read().await.unwrap(), read().await.unwrap());
            assert!(late.starts_with(&early), "{early:?} was read before {late:?}");
        }),
    ];
    let explored = bench.explore(leased, &sessions, async |db, case| {
        let payloads = payloads(db, case).await;
        let one = payloads.iter().position(|payload| payload == "one").ok_or("it is lost")?;
        demand(payloads[one + 1] == "two", "another event lies within a batch")?;
        demand(payloads.len() <= 4, "something is stored twice")
    });
    searched(&explored.await.unwrap(), 100);
}

#[tokio::test]
async fn without_the_lock_of_the_head_an_order_is_found_that_breaks_the_log() {
    let mut bench = Bench::new(2).await;
    let definition = "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE proname = 'append_batch'";
    let append: String = sqlx::query_scalar(definition).fetch_one(&bench.db.pool).await.unwrap();
    let unlocked = append.replace("FOR NO KEY UPDATE", "");
    assert_ne!(append, unlocked);
    bench.db.pool.execute(AssertSqlSafe(unlocked)).await.unwrap();
    let sessions = [
        session(async |store: Store, case: Arc<Case<Leased>>| {
            let _ = react(&store, &case, &case.world.lease, "reaction").await;
        }),
        session(async |store: Store, case: Arc<Case<Leased>>| {
            let _ = store.append_one(event(&case.subject, "one")).await;
        }),
    ];
    let found = bench.explore(leased, &sessions, async |_, _| Ok(())).await.unwrap_err();
    assert!(found.reason.contains("positions"), "{found:?}");
}

#[tokio::test]
async fn a_key_that_several_sessions_bring_also_twice_in_one_call_is_stored_once() {
    const KEY: Uuid = Uuid::from_u128(1);
    let mut bench = Bench::new(3).await;
    let sessions = [
        session(async |store: Store, case: Arc<Case<Leased>>| {
            let events = [keyed(&case.subject, KEY), keyed(&case.subject, KEY)];
            let appended = store.append(case.slice, None, &events).await.unwrap();
            for stored in appended.stored(&events) {
                assert_eq!(stored.event_id, events[0].event_id);
                tell(&case, &case.world.told, "stored");
            }
        }),
        unreliable(async |store: Store, case: Arc<Case<Leased>>| {
            let events = vec![keyed(&case.subject, KEY)];
            let reaction = Reaction { to: 1, events, ..Reaction::default() };
            // A key that is claimed and rolled back is free again.
            if let Ok(done) = store.commit_reaction(&case.world.lease, &reaction, LONG).await
                && done.events == 1
            {
                tell(&case, &case.world.told, "stored");
            }
        }),
        session(async |store: Store, case: Arc<Case<Leased>>| {
            if store.append_one(keyed(&case.subject, KEY)).await.unwrap().is_some() {
                tell(&case, &case.world.told, "stored");
            }
        }),
    ];
    let explored = bench.explore(leased, &sessions, async |db, case| {
        demand(announced(db, case).await == 1, "the key is not stored once")?;
        let told = case.world.told.lock().unwrap().len();
        demand(told <= 1, "two were told that theirs is stored")
    });
    searched(&explored.await.unwrap(), 100);
}

/// Sends a batch until it is acknowledged, as a lane does, while somebody else appends.
async fn sent_again(batch: Option<Uuid>) -> Result<Explored, Counterexample> {
    let mut bench = Bench::new(2).await;
    let sessions = [
        unreliable(move |store: Store, case: Arc<Case<()>>| async move {
            let events = [event(&case.subject, "one"), event(&case.subject, "two")];
            while let Err(error) = store.append(case.slice, batch, &events).await {
                assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
            }
        }),
        session(async |store: Store, case: Arc<Case<()>>| {
            for what in ["other", "another"] {
                store.append_one(event(&case.subject, what)).await.unwrap();
            }
        }),
    ];
    let explored = bench.explore(
        async |_, _, _| (),
        &sessions,
        async |db, case| {
            let payloads = payloads(db, case).await;
            let one = payloads.iter().position(|payload| payload == "one").ok_or("it is lost")?;
            demand(payloads[one + 1] == "two", "the batch is torn")?;
            demand(payloads.len() == 4, "the batch is stored twice")
        },
    );
    explored.await
}

#[tokio::test]
async fn a_batch_sent_again_is_stored_once_whichever_try_comes_first() {
    let explored = sent_again(Some(Uuid::from_u128(2))).await.unwrap();
    assert!(explored.orders >= 20, "{explored:?}");
}

#[tokio::test]
async fn without_a_batch_id_an_order_is_found_that_stores_a_batch_twice() {
    let found = sent_again(None).await.unwrap_err();
    assert!(found.reason.contains("twice"), "{found:?}");
}

/// A worker whose lease has run out reacts, while another takes over and reacts, and events come.
async fn zombie(bench: &mut Bench) -> Result<Explored, Counterexample> {
    let sessions = [
        session(async |store: Store, case: Arc<Case<Leased>>| {
            match react(&store, &case, &case.world.lease, "zombie").await {
                Ok(()) => tell(&case, &case.world.told, "zombie"),
                Err(error) => assert!(matches!(error, Error::Fenced { .. }), "{error:?}"),
            }
        }),
        session(async |store: Store, case: Arc<Case<Leased>>| {
            let claim = store.claim(React, case.slice, Uuid::now_v7(), LONG).await.unwrap();
            let Some(lease) = claim else { return };
            tell(&case, &case.world.told, "claim");
            assert_eq!(lease.epoch, case.world.lease.epoch + 1);
            if lease.position == 0 {
                // A zombie that got through would fence the holder; the check below tells it.
                let _ = react(&store, &case, &lease, "holder").await;
            }
        }),
        session(async |store: Store, case: Arc<Case<Leased>>| {
            store.append_one(event(&case.subject, "first")).await.unwrap();
        }),
    ];
    let explored = bench.explore(expired, &sessions, async |db, case| {
        demand(announced(db, case).await == 1, "the event has not one effect")?;
        demand(!is_late(&case.world.told), "an effect of an old epoch")
    });
    explored.await
}

/// Whether the zombie did something at a step after that of the claim.
fn is_late(told: &Told<&'static str>) -> bool {
    let told = told.lock().unwrap();
    let at = |who| told.iter().find(|(_, what)| *what == who).map(|(step, _)| *step);
    at("claim").zip(at("zombie")).is_some_and(|(claim, zombie)| zombie > claim)
}

#[tokio::test]
async fn a_zombie_and_the_holder_react_in_any_order_and_each_event_has_one_effect() {
    searched(&zombie(&mut Bench::new(3).await).await.unwrap(), 30);
}

#[tokio::test]
async fn without_the_check_of_the_epoch_an_order_is_found_in_which_a_zombie_acts() {
    let mut bench = Bench::new(3).await;
    bench.gates[0].sabotage("AND c.epoch = r.epoch", "");
    let found = zombie(&mut bench).await.unwrap_err();
    assert!(found.reason.contains("old epoch"), "{found:?}");
}

/// A holder reacts until it is told so, and its connection breaks.
async fn reacts_again(bench: &mut Bench) -> Result<Explored, Counterexample> {
    let sessions = [
        unreliable(async |store: Store, case: Arc<Case<Leased>>| {
            loop {
                match react(&store, &case, &case.world.lease, "holder").await {
                    // Fenced by its own try that it was not told of.
                    Ok(()) | Err(Error::Fenced { .. }) => return,
                    Err(error) => assert!(error.is_transient(), "{error:?}"),
                }
            }
        }),
        session(async |store: Store, case: Arc<Case<Leased>>| {
            store.append_one(event(&case.subject, "first")).await.unwrap();
        }),
    ];
    let explored = bench.explore(leased, &sessions, async |db, case| {
        demand(announced(db, case).await == 1, "the event has not one effect")
    });
    explored.await
}

#[tokio::test]
async fn a_reaction_repeated_because_nobody_told_its_end_has_one_effect() {
    searched(&reacts_again(&mut Bench::new(2).await).await.unwrap(), 20);
}

#[tokio::test]
async fn without_the_check_of_the_position_an_order_is_found_in_which_an_event_acts_twice() {
    let mut bench = Bench::new(2).await;
    bench.gates[0].sabotage("AND c.position = r.position", "");
    let found = reacts_again(&mut bench).await.unwrap_err();
    assert!(found.reason.contains("one effect"), "{found:?}");
}

/// A job that runs under a lease that has run out.
struct Run {
    id: Uuid,
    epoch: i64,
    told: Told<&'static str>,
}

async fn run(db: &Db, slice: i16, subject: &Subject) -> Run {
    let options = EnqueueOptions { subject: Some(subject.to_string()), ..Default::default() };
    let id = db.store.enqueue("a_job", &serde_json::json!({}), &options).await.unwrap();
    let epoch = db.claim(Jobs, slice).await.epoch;
    assert_eq!(db.store.mark_started(slice, epoch, &[id]).await.unwrap()[0].attempt, 1);
    db.expire(Jobs, slice).await;
    Run { id, epoch, told: Told::default() }
}

/// Ends a run, appending its outcome; whether it was the one that ended it.
async fn end(store: &Store, case: &Case<Run>, epoch: i64, attempt: i32) -> Result<bool, Error> {
    let events: Vec<NewEvent> = vec![event(&case.subject, "outcome")];
    let finish = Finish { id: case.world.id, attempt, ending: Ending::Completed, events };
    Ok(!store.finish(case.slice, epoch, &[finish]).await?.is_empty())
}

/// A worker whose lease has run out ends a run, while another takes over and starts the job again.
async fn zombie_run(bench: &mut Bench) -> Result<Explored, Counterexample> {
    let sessions = [
        session(async |store: Store, case: Arc<Case<Run>>| {
            match end(&store, &case, case.world.epoch, 1).await {
                Ok(true) => tell(&case, &case.world.told, "zombie"),
                Ok(false) => panic!("nobody else may end this run"),
                Err(error) => assert!(matches!(error, Error::Fenced { .. }), "{error:?}"),
            }
        }),
        session(async |store: Store, case: Arc<Case<Run>>| {
            let claim = store.claim(Jobs, case.slice, Uuid::now_v7(), LONG).await.unwrap();
            let Some(lease) = claim else { return };
            tell(&case, &case.world.told, "claim");
            let started = store.mark_started(case.slice, lease.epoch, &[case.world.id]).await;
            let Some(started) = started.unwrap().pop() else { return };
            assert_eq!((started.attempt, started.crashes), (2, 1));
            assert!(end(&store, &case, lease.epoch, 2).await.unwrap());
        }),
    ];
    let explored = bench.explore(run, &sessions, async |db, case| {
        demand(payloads(db, case).await == ["outcome"], "the job has not one outcome")?;
        demand(!is_late(&case.world.told), "an effect of an old epoch")
    });
    explored.await
}

#[tokio::test]
async fn a_zombie_and_the_holder_end_a_job_in_any_order_and_it_has_one_outcome() {
    searched(&zombie_run(&mut Bench::new(2).await).await.unwrap(), 10);
}

#[tokio::test]
async fn with_a_fence_that_does_not_last_an_order_is_found_in_which_a_zombie_ends_a_job() {
    let mut bench = Bench::new(2).await;
    bench.gates[0].sabotage("FOR SHARE OF c", "");
    let found = zombie_run(&mut bench).await.unwrap_err();
    assert!(found.reason.contains("old epoch"), "{found:?}");
}

#[tokio::test]
async fn two_that_claim_one_lease_never_hold_it_at_once() {
    let mut bench = Bench::new(3).await;
    let claims = |name: &'static str| {
        session(move |store: Store, case: Arc<Case<Leased>>| async move {
            let claim = store.claim(React, case.slice, Uuid::now_v7(), LONG).await.unwrap();
            let Some(lease) = claim else { return };
            tell(&case, &case.world.told, name);
            react(&store, &case, &lease, name).await.unwrap();
        })
    };
    let releases = session(async |store: Store, case: Arc<Case<Leased>>| {
        store.release(React, case.slice, case.world.lease.epoch).await.unwrap();
    });
    let sessions = [claims("one"), claims("two"), releases];
    let explored = bench.explore(leased, &sessions, async |db, case| {
        let holders: HashSet<_> =
            case.world.told.lock().unwrap().iter().map(|(_, who)| *who).collect();
        demand(holders.len() <= 1, "two hold the lease")?;
        demand(announced(db, case).await == holders.len(), "the holder did not work")
    });
    let explored = explored.await.unwrap();
    assert!(explored.orders >= 12, "{explored:?}");
}

#[tokio::test]
async fn a_lock_of_the_checkpoint_as_a_swap_takes_it_delays_the_holder_and_loses_nothing() {
    let mut bench = Bench::new(3).await;
    let swap = bench.gates[1].url.clone();
    let sessions = [
        session(async |store: Store, case: Arc<Case<Leased>>| {
            react(&store, &case, &case.world.lease, "holder").await.unwrap();
        }),
        session(move |_, case: Arc<Case<Leased>>| {
            let url = swap.clone();
            async move {
                let mut connection = PgConnection::connect(&url).await.unwrap();
                let mut tx = connection.begin().await.unwrap();
                let locked: i64 = sqlx::query_scalar(
                    "SELECT position FROM tallylight.checkpoint
                      WHERE consumer = 'react' AND slice = $1 FOR UPDATE",
                )
                .bind(case.slice)
                .fetch_one(&mut *tx)
                .await
                .unwrap();
                let again: i64 = sqlx::query_scalar(
                    "SELECT position FROM tallylight.checkpoint
                      WHERE consumer = 'react' AND slice = $1",
                )
                .bind(case.slice)
                .fetch_one(&mut *tx)
                .await
                .unwrap();
                assert_eq!(locked, again, "the checkpoint moved under the lock");
                tx.commit().await.unwrap();
            }
        }),
        session(async |store: Store, case: Arc<Case<Leased>>| {
            let held = [(case.slice, case.world.lease.epoch)];
            assert_eq!(store.renew(React, &held, LONG).await.unwrap(), [case.slice]);
        }),
    ];
    let explored = bench.explore(leased, &sessions, async |db, case| {
        demand(announced(db, case).await == 1, "the event has not one effect")
    });
    searched(&explored.await.unwrap(), 100);
}

/// A job with a key that waits to be started.
struct Keyed {
    options: EnqueueOptions,
    id: Uuid,
    epoch: i64,
    told: Told<i64>,
}

async fn with_key(db: &Db, slice: i16, subject: &Subject) -> Keyed {
    let options = EnqueueOptions {
        subject: Some(subject.to_string()),
        key: Some("k".to_owned()),
        on_conflict: Some(OnConflict::Replace),
        ..Default::default()
    };
    let id = db.store.enqueue("a_job", &serde_json::json!({"n": 1}), &options).await.unwrap();
    Keyed { options, id, epoch: db.claim(Jobs, slice).await.epoch, told: Told::default() }
}

/// Two replace the arguments of a job while its holder, who has read it, starts and ends it.
async fn replaced_while_it_starts(bench: &mut Bench) -> Result<Explored, Counterexample> {
    let replaces = |n: i64| {
        session(move |store: Store, case: Arc<Case<Keyed>>| async move {
            let args = serde_json::json!({"n": n});
            store.enqueue_job("a_job", &args, &case.world.options, None).await.unwrap();
        })
    };
    let holder = session(async |store: Store, case: Arc<Case<Keyed>>| {
        let Keyed { id, epoch, .. } = case.world;
        let started = store.mark_started(case.slice, epoch, &[id]).await.unwrap();
        let args = started[0].args.clone().unwrap_or(serde_json::json!({"n": 1}));
        tell(&case, &case.world.told, args["n"].as_i64().unwrap());
        let ending = Ending::Completed;
        let finish = Finish { id, attempt: 1, ending, events: Vec::new() };
        assert_eq!(store.finish(case.slice, epoch, &[finish]).await.unwrap().len(), 1);
    });
    let sessions = [replaces(2), holder, replaces(3)];
    let explored = bench.explore(with_key, &sessions, async |db, case| {
        let waits: Vec<i64> = sqlx::query_scalar(
            "SELECT (args ->> 'n')::bigint FROM tallylight.job WHERE slice = $1",
        )
        .bind(case.slice)
        .fetch_all(&db.pool)
        .await
        .unwrap();
        let ran = case.world.told.lock().unwrap()[0].1;
        demand(waits.len() <= 1, "two jobs wait with one key")?;
        // Of two that replace, the later one wins.
        let is_kept = |n: i64| ran == n || waits.contains(&n);
        demand(is_kept(2) || is_kept(3), "what was asked for last is lost")?;
        demand(ran != 1 || !waits.is_empty(), "new arguments are lost")
    });
    explored.await
}

#[tokio::test]
async fn arguments_that_are_replaced_while_the_job_starts_run_with_it_or_wait_in_a_new_one() {
    let explored = replaced_while_it_starts(&mut Bench::new(3).await).await.unwrap();
    // Each of them is one call that waits for nobody between its statements.
    assert!(explored.orders >= 10, "{explored:?}");
}

#[tokio::test]
async fn without_the_arguments_in_the_answer_of_a_start_an_order_is_found_that_loses_them() {
    let mut bench = Bench::new(3).await;
    bench.gates[1].sabotage("crashes, args", "crashes, NULL::jsonb AS args");
    let found = replaced_while_it_starts(&mut bench).await.unwrap_err();
    assert!(found.reason.contains("lost"), "{found:?}");
}
