//! Histories: workers claim, read, react, lose their leases and try all the same, at random and at
//! once; what they did is checked as one history, and not by its end alone.
//!
//! The record is made by the transactions themselves: every event that is applied leaves a job that
//! tells by whom and under which epoch.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use domain::event::RecordedEvent;
use domain::ids::{Subject, Timestamp};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use sqlx::{Connection as _, Executor as _, PgConnection};
use store::Consumer::React;
use store::{Config, Error, Lease, Reaction, Store};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use uuid::Uuid;

use crate::jobs::job;
use crate::support::{Db, LONG, db, event, subject_in, until};

/// Slices with load; few, so that workers meet.
const SLICES: i16 = 2;

/// Workers.
const WORKERS: u64 = 3;

/// Subjects, each with an appender of its own.
const SUBJECTS: usize = 4;

/// Longest time of a load.
const PATIENCE: Duration = Duration::from_mins(1);

/// What all take part in.
struct Load {
    db: Db,
    has_ended: AtomicBool,
    /// Events that may be appended before others are applied; closed at the end.
    room: Semaphore,
    /// Events to append.
    events: usize,
    appended: AtomicUsize,
    fenced: AtomicUsize,
}

impl Load {
    /// Counts a worker that was fenced; no more is appended when enough has happened.
    fn count_fenced(&self) {
        let fenced = self.fenced.fetch_add(1, Ordering::Relaxed) + 1;
        if fenced >= 5 && self.appended.load(Ordering::Relaxed) >= self.events {
            self.room.close();
        }
    }
}

/// An effect, as its transaction recorded it.
#[derive(Debug, sqlx::FromRow)]
struct Effect {
    position: i64,
    epoch: i64,
    worker: i64,
    subject: String,
    n: i64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_works_when_each_event_has_one_effect_in_order_and_epochs_do_not_overlap() {
    let load = load(rand::random(), db().await, 200).await;
    for slice in 0..SLICES {
        check(&load.db, slice).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_is_held_open_stops_nobody() {
    let db = db().await;
    let mut held = PgConnection::connect(&db.url).await.unwrap();
    held.execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
    held.execute("SELECT FROM tallylight.slice_head").await.unwrap();
    let load = load(rand::random(), db, 200).await;
    let seen: i64 = sqlx::query_scalar("SELECT sum(position)::bigint FROM tallylight.slice_head")
        .fetch_one(&mut held)
        .await
        .unwrap();
    assert_eq!(seen, 0, "the snapshot was not held through it");
    for slice in 0..SLICES {
        check(&load.db, slice).await;
    }
    held.execute("ROLLBACK").await.unwrap();
    // Old versions of the rows that everybody updates can go.
    load.db.sql("VACUUM tallylight.slice_head").await;
    let versions = "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'slice_head'";
    until(async || (load.db.number(versions).await == 0).then_some(())).await;
}

/// Runs appenders and workers until `events` are appended, some were fenced, and all is applied.
#[expect(clippy::print_stdout, reason = "a run that failed can be repeated by its seed")]
async fn load(seed: u64, mut db: Db, events: usize) -> Arc<Load> {
    println!("seed {seed}");
    // All connect at once, which takes its time in a build for tests.
    let config = Config { acquire_timeout: PATIENCE, ..Config::new(db.url.as_str()) };
    db.store = Store::connect(&config).await.unwrap();
    let load = Arc::new(Load {
        db,
        has_ended: AtomicBool::new(false),
        room: Semaphore::new(40),
        events,
        appended: AtomicUsize::new(0),
        fenced: AtomicUsize::new(0),
    });
    let (mut appenders, mut workers) = (JoinSet::new(), JoinSet::new());
    for n in 0..SUBJECTS {
        let slice = i16::try_from(n).unwrap() % SLICES;
        appenders.spawn(append(load.clone(), subject_in(&load.db.store, slice)));
    }
    for worker in 0..WORKERS {
        workers.spawn(work(load.clone(), worker, StdRng::seed_from_u64(seed ^ worker)));
    }
    // A worker ends the load when enough has happened.
    timeout(PATIENCE, async {
        // The last of them may still append after the end.
        appenders.join_all().await;
        load.has_ended.store(true, Ordering::Relaxed);
        workers.join_all().await;
    })
    .await
    .expect("work goes on");
    load
}

/// Appends to a subject, numbered, one or two at a time.
async fn append(load: Arc<Load>, subject: Subject) {
    let store = &load.db.store;
    let slice = store.slice_of(&subject);
    let mut n = 0;
    while let Ok(room) = load.room.acquire_many(2).await {
        let events = [event(&subject, n.to_string()), event(&subject, (n + 1).to_string())];
        let events = &events[..=(n % 2)];
        store.append(slice, None, events).await.unwrap();
        n += events.len();
        room.forget();
        load.room.add_permits(2 - events.len());
        load.appended.fetch_add(events.len(), Ordering::Relaxed);
    }
}

/// Does at random what a worker does, well or badly, until all is applied.
async fn work(load: Arc<Load>, worker: u64, mut rng: StdRng) {
    let mut leases: HashMap<i16, Lease> = HashMap::new();
    loop {
        let slice = rng.random_range(0..SLICES);
        let Some(lease) = leases.get(&slice).copied() else {
            let claimed = load.db.store.claim(React, slice, Uuid::now_v7(), LONG).await.unwrap();
            leases.extend(claimed.map(|lease| (slice, lease)));
            if claimed.is_none() && rng.random_ratio(1, 10) {
                // Time passes: whoever held it has forgotten it, or works on as a zombie.
                load.db.expire(React, slice).await;
            }
            if is_over(&load).await {
                return;
            }
            continue;
        };
        match rng.random_range(0..20) {
            0 => {
                load.db.store.release(React, slice, lease.epoch).await.unwrap();
                leases.remove(&slice);
            }
            // Dies and is born again: the lease is nobody's until it has run out.
            1 => {
                leases.remove(&slice);
            }
            // Runs out, and is held all the same: from here it may be a zombie.
            2..6 => load.db.expire(React, slice).await,
            _ => match react(&load, worker, &lease, &mut rng).await {
                Ok(lease) => {
                    leases.insert(slice, lease);
                }
                Err(Error::Fenced { .. }) => {
                    load.count_fenced();
                    leases.remove(&slice);
                }
                Err(error) => panic!("{error:?}"),
            },
        }
        if is_over(&load).await {
            return;
        }
    }
}

/// Whether nothing is appended any more, and all is applied.
async fn is_over(load: &Load) -> bool {
    load.has_ended.load(Ordering::Relaxed)
        && load.db.store.slice_status().await.unwrap().iter().all(|s| s.position == s.head)
}

/// Applies a batch of a slice.
async fn react(load: &Load, worker: u64, lease: &Lease, rng: &mut StdRng) -> Result<Lease, Error> {
    let store = &load.db.store;
    let limit = rng.random_range(1..8);
    let events = store.read_after(lease.slice, lease.position, lease.recorded_at, limit).await?;
    let Some(last) = events.last() else { return Ok(*lease) };
    let record = |event: &RecordedEvent| {
        let mut job = job(&event.subject, Timestamp::default(), 2);
        let n: i64 = std::str::from_utf8(&event.payload).unwrap().parse().unwrap();
        job.args =
            json!({"position": event.position, "epoch": lease.epoch, "worker": worker, "n": n});
        job
    };
    let reaction = Reaction {
        to: last.position,
        recorded_at: last.recorded_at,
        jobs: events.iter().map(record).collect(),
        ..Reaction::default()
    };
    let lease = store.commit_reaction(lease, &reaction, LONG).await?.lease;
    load.room.add_permits(events.len());
    Ok(lease)
}

/// Checks the history of a slice.
async fn check(db: &Db, slice: i16) {
    let effects: Vec<Effect> = sqlx::query_as(
        "SELECT (args ->> 'position')::bigint AS position, (args ->> 'epoch')::bigint AS epoch,
                (args ->> 'worker')::bigint AS worker, (args ->> 'n')::bigint AS n, subject
           FROM tallylight.job WHERE slice = $1 ORDER BY 1",
    )
    .bind(slice)
    .fetch_all(&db.pool)
    .await
    .unwrap();
    let positions: Vec<i64> = effects.iter().map(|effect| effect.position).collect();
    assert_eq!(positions, (1..=db.head(slice).await).collect::<Vec<i64>>(), "of slice {slice}");
    assert!(effects.is_sorted_by_key(|effect| effect.epoch), "epochs overlap: {effects:?}");
    let mut workers = HashMap::new();
    let mut numbers: HashMap<&str, i64> = HashMap::new();
    for effect in &effects {
        let worker = *workers.entry(effect.epoch).or_insert(effect.worker);
        assert_eq!(worker, effect.worker, "two under epoch {}", effect.epoch);
        let next = numbers.entry(&effect.subject).or_default();
        assert_eq!(effect.n, *next, "of {}", effect.subject);
        *next += 1;
    }
}
