//! The ledger: workers are killed, stopped and cut off again and again while they run jobs whose
//! handlers note each beginning and each end in a table. In the end it must show that no job was
//! lost, no two runs held one token, no key ran twice at once, and no job ran again without cause.
//!
//! A *token* is what a run holds: job, epoch of the lease, number of the start. Whoever keeps a
//! ledger outside refuses an older token than it has seen of a key, and so does this one: a process
//! that was stopped beyond its lease goes on for a moment when it wakes.
//!
//! 20 kills by default; `TALLYLIGHT_LEDGER_KILLS` makes it more, `TALLYLIGHT_LEDGER_SEED` repeats the
//! faults of an earlier run (not their timing).

#![expect(clippy::print_stdout, reason = "what was done is told, and the seed repeats it")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use sqlx::{Connection as _, PgConnection};
use store::Store;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::system::{Cluster, until_within};

mod book;
mod hand;

use hand::{Hand, Trouble};

/// Worker processes.
const HANDS: usize = 3;

/// Kills of a run, where nothing else is asked for.
const KILLS: u64 = 20;

/// Keys of the jobs, each of which runs one job at a time.
const KEYS: u32 = 12;

/// What each hand has to cope with all the time: a clock that is wrong by an hour, and a pool that
/// its own work uses up.
const TROUBLES: [Trouble; HANDS] = [
    Trouble { ahead_ms: 3_600_000, connections: 8 },
    Trouble { ahead_ms: -3_600_000, connections: 8 },
    Trouble { ahead_ms: 0, connections: 1 },
];

/// Longest wait for a worker that runs jobs.
const BEGINS: Duration = Duration::from_secs(4);

/// A setting of this test.
#[expect(clippy::disallowed_methods, reason = "tests have no configuration file")]
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Something that fails.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// Of a worker, by SIGKILL.
    Kill,
    /// A worker stands still for longer than its leases last.
    Freeze,
    /// The server stops as on a power cut, and starts again.
    RestartDatabase,
    /// Connections are ended by the server.
    CutConnections,
    /// Somebody forgets a transaction that holds locks of slices and jobs.
    IdleInTransaction,
}

/// The workers, their database, and those who enqueue.
struct Works {
    cluster: Cluster,
    hands: Vec<Hand>,
    /// Jobs whose enqueueing was committed.
    jobs: Arc<Mutex<Vec<Uuid>>>,
    has_ended: Arc<AtomicBool>,
    rng: StdRng,
    killed: u64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_becomes_of_workers_no_job_is_lost_and_none_runs_twice_without_cause() {
    let seed = setting("TALLYLIGHT_LEDGER_SEED").unwrap_or_else(rand::random);
    let kills = setting("TALLYLIGHT_LEDGER_KILLS").unwrap_or(KILLS);
    println!("seed {seed}, {kills} kills");
    let mut works = Works::start(seed).await;
    let enqueueing = works.enqueue();
    let mut faults = Vec::new();
    while works.killed < kills {
        sleep(Duration::from_millis(works.rng.random_range(0..300))).await;
        let fault = match works.rng.random_range(0..24) {
            0 | 1 => Fault::Freeze,
            2 => Fault::RestartDatabase,
            3 | 4 => Fault::CutConnections,
            5 => Fault::IdleInTransaction,
            _ => Fault::Kill,
        };
        faults.push(fault);
        works.commit(fault).await;
    }
    // One of each at least.
    for fault in
        [Fault::Freeze, Fault::RestartDatabase, Fault::CutConnections, Fault::IdleInTransaction]
    {
        works.commit(fault).await;
    }
    println!("{faults:?}");
    works.has_ended.store(true, Ordering::Relaxed);
    enqueueing.await.unwrap();
    works.check(kills).await;
    works.hands.clear();
    works.cluster.end().await;
}

impl Works {
    async fn start(seed: u64) -> Self {
        let cluster = Cluster::new().await;
        let mut connection = cluster.connection().await;
        book::create(&mut connection).await;
        let hands = TROUBLES.iter().map(|trouble| Hand::spawn(&cluster.url, *trouble)).collect();
        let (jobs, has_ended, rng) = (Arc::default(), Arc::default(), StdRng::seed_from_u64(seed));
        Self { cluster, hands, jobs, has_ended, rng, killed: 0 }
    }

    /// Enqueues jobs until the end, as another service would.
    fn enqueue(&mut self) -> JoinHandle<()> {
        let (jobs, has_ended) = (Arc::clone(&self.jobs), Arc::clone(&self.has_ended));
        let (url, mut rng) = (self.cluster.url.clone(), StdRng::seed_from_u64(self.rng.random()));
        tokio::spawn(async move {
            let mut connection = None;
            while !has_ended.load(Ordering::Relaxed) {
                sleep(Duration::from_millis(15)).await;
                let Some(open) = &mut connection else {
                    connection = PgConnection::connect(&url).await.ok();
                    continue;
                };
                let key = format!("account/{}", rng.random_range(0..KEYS));
                // Some take so long that many a process dies under them.
                let most = if rng.random_ratio(1, 4) { 600 } else { 60 };
                let args = json!({"key": key, "ms": rng.random_range(1..most)});
                let enqueued = sqlx::query_scalar("SELECT tallylight.enqueue($1, $2, $3)")
                    .bind(hand::KIND)
                    .bind(&args)
                    .bind(json!({"limit_key": key, "max_attempts": 999}));
                match enqueued.fetch_one(open).await {
                    Ok(id) => jobs.lock().unwrap().push(id),
                    Err(_) => connection = None,
                }
            }
        })
    }

    /// A worker that runs jobs: the death of one that has not begun shows nothing. Any one, where all
    /// of them are a long time about it.
    async fn victim(&mut self) -> usize {
        let begun = Instant::now();
        let mut connection = self.cluster.connection().await;
        while begun.elapsed() < BEGINS {
            let at_work = book::at_work(&mut connection).await;
            let is_at_work = |nth: &usize| at_work.contains(&self.hands[*nth].process);
            let hands: Vec<usize> = (0..HANDS).filter(is_at_work).collect();
            if !hands.is_empty() {
                return hands[self.rng.random_range(0..hands.len())];
            }
            sleep(Duration::from_millis(20)).await;
        }
        self.rng.random_range(0..HANDS)
    }

    async fn commit(&mut self, fault: Fault) {
        let nth = self.victim().await;
        let time = Duration::from_millis(self.rng.random_range(1_200..2_200));
        match fault {
            Fault::Kill => {
                self.hands[nth] = Hand::spawn(&self.cluster.url, TROUBLES[nth]);
                self.killed += 1;
            }
            Fault::Freeze => self.hands[nth].pause(time).await,
            Fault::RestartDatabase => {
                self.cluster.stop_immediately().await;
                self.cluster.start().await;
            }
            Fault::CutConnections => {
                let mut connection = self.cluster.connection().await;
                let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                            WHERE datname = current_database() AND pid <> pg_backend_pid()
                              AND random() < 0.6";
                sqlx::query(cut).execute(&mut connection).await.unwrap();
            }
            Fault::IdleInTransaction => {
                let mut connection = self.cluster.connection().await;
                let mut forgotten = connection.begin().await.unwrap();
                for lock in [
                    "SELECT FROM tallylight.slice_head WHERE slice < 8 FOR UPDATE",
                    "SELECT FROM tallylight.job WHERE kind = 'ledger' LIMIT 50 FOR UPDATE SKIP LOCKED",
                ] {
                    sqlx::query(lock).execute(&mut *forgotten).await.unwrap();
                }
                sleep(time).await;
                forgotten.rollback().await.unwrap();
            }
        }
    }

    async fn check(&mut self, kills: u64) {
        let store = Store::connect(&store::Config::new(self.cluster.url.as_str())).await.unwrap();
        let jobs = std::mem::take(&mut *self.jobs.lock().unwrap());
        let patience = Duration::from_secs(60 + kills);
        let mut quarantined = 0;
        until_within(patience, "every job is done", async || {
            // So many processes died with them that they were set aside.
            for dead in store.dead_jobs(100).await.ok()? {
                assert_eq!(dead.state, "quarantined", "{dead:?}");
                store.retry_dead(dead.id).await.ok()?;
                quarantined += 1;
            }
            let counts = store.job_counts().await.ok()?;
            (counts.available + counts.running + counts.retryable + counts.dead == 0).then_some(())
        })
        .await;
        let mut connection = self.cluster.connection().await;
        let ledger = book::read(&mut connection).await;
        let told = ledger.check(&jobs);
        let book::Shown { runs, repeated_for_a_lost_lease, repeated_for_a_failure, given_up } =
            told;
        println!(
            "{} jobs in {runs} runs, {quarantined} set aside; again for a lost lease: \
             {repeated_for_a_lost_lease}, for a failure: {repeated_for_a_failure}; {given_up} runs \
             were given up",
            jobs.len()
        );
        assert!(repeated_for_a_lost_lease > 0, "the faults hit nothing");
        book::check_outcomes(&mut connection, &jobs).await;
        store.close().await;
    }
}
