//! Everything dies, again and again: endpoint, workers and PostgreSQL are killed, paused and started
//! at random, under load. Then the faults stop, and the log must hold what was acknowledged.
//!
//! Short by default; `TALLYLIGHT_KILL_LOOP_SECONDS` makes it longer, `TALLYLIGHT_KILL_LOOP_SEED`
//! repeats the faults of an earlier run (not their timing).

#![expect(clippy::print_stdout, reason = "what was done is told, and the seed repeats it")]

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use domain::event::RecordedEvent;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rustix::process::{Pid, Signal, kill_process};
use simulator::Simulator;
use sqlx::{Connection as _, PgConnection};
use store::Store;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::system::{
    Cluster, Load, PATIENCE, Process, Secrets, Setup, config_text, load, until, until_within,
    write_config,
};

/// Senders, each with a subject of its own.
const SENDERS: i64 = 50;

/// Webhook endpoints, each with a spool of its own. A sender keeps to one: between them there is
/// no order.
const ENDPOINTS: usize = 2;

/// Worker processes.
const WORKERS: usize = 3;

/// How long faults happen, where nothing else is asked for.
const SHORT: Duration = Duration::from_secs(15);

/// Lines of each process that are told when the test fails.
const LAST_WORDS: usize = 100;

/// An installation whose parts may die.
struct Mortal {
    cluster: Cluster,
    config_file: PathBuf,
    ingests: Vec<Ingest>,
    workers: Vec<Process>,
    load: Arc<Load>,
    /// Jobs whose enqueueing was committed.
    jobs: Arc<Mutex<Vec<Uuid>>>,
    secrets: Secrets,
    rng: StdRng,
    /// Worker processes that were killed.
    killed_workers: u32,
    /// Longest wait for all to be well: what the faults have delayed takes its time too.
    patience: Duration,
    _simulator: Simulator,
    _directory: tempfile::TempDir,
}

/// A webhook endpoint.
struct Ingest {
    process: Process,
    /// With its own spool.
    config_file: PathBuf,
}

/// A fault.
#[derive(Debug, Clone, Copy)]
enum Fault {
    KillWorker,
    StopWorker,
    PauseWorker,
    KillIngest,
    PauseIngest,
    KillDatabase,
    KillBackend,
    CutConnections,
}

const FAULTS: [Fault; 8] = [
    Fault::KillWorker,
    Fault::StopWorker,
    Fault::PauseWorker,
    Fault::KillIngest,
    Fault::PauseIngest,
    Fault::KillDatabase,
    Fault::KillBackend,
    Fault::CutConnections,
];

/// A setting of this test.
#[expect(clippy::disallowed_methods, reason = "tests have no configuration file")]
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_dies_each_acknowledged_event_is_stored_once_in_order_and_applied() {
    let seed = setting("TALLYLIGHT_KILL_LOOP_SEED").unwrap_or_else(rand::random);
    let length = setting("TALLYLIGHT_KILL_LOOP_SECONDS").map_or(SHORT, Duration::from_secs);
    println!("seed {seed}, {length:?}");
    let mut mortal = Mortal::start(seed, length).await;
    let senders = mortal.send();
    // On a slow machine faults from the first moment on may leave nothing to be checked.
    until("a job is enqueued", async || (!mortal.jobs.lock().unwrap().is_empty()).then_some(()))
        .await;
    let end = Instant::now() + length;
    let mut faults = Vec::new();
    while Instant::now() < end {
        // Faults come neither all at once nor so rarely that everything has recovered.
        let pause = mortal.rng.random_range(100..700);
        sleep(Duration::from_millis(pause)).await;
        let fault = FAULTS[mortal.rng.random_range(0..FAULTS.len())];
        faults.push(fault);
        mortal.commit(fault).await;
    }
    println!("{} faults: {faults:?}", faults.len());
    mortal.recover().await;
    mortal.load.has_ended.store(true, Ordering::Relaxed);
    senders.join_all().await;
    mortal.check().await;
    mortal.end().await;
}

impl Mortal {
    async fn start(seed: u64, length: Duration) -> Self {
        let cluster = Cluster::new().await;
        let (setup, secrets) = (Setup::default(), Secrets::new());
        let platform = Some(secrets.platform.clone());
        let simulator = simulator::Config { token: platform, ..setup.simulator.clone() };
        let simulator = Simulator::start(simulator).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let write = |name: String| {
            let config_file = directory.path().join(format!("{name}.toml"));
            let spool = directory.path().join(name);
            let text = config_text(&setup, &cluster.url, &simulator.base_url(), &secrets, &spool);
            // All of them log in at once whenever the server has died, which costs more than any
            // work that they do here.
            let text = text.replace("max_connections = 8", "max_connections = 4");
            write_config(&config_file, &text);
            config_file
        };
        let ingests = (0..ENDPOINTS).map(|n| {
            let config_file = write(format!("spool-{n}"));
            Ingest { process: Process::spawn(&config_file, &["ingest"]), config_file }
        });
        let ingests = ingests.collect();
        let config_file = write("others".to_owned());
        let workers = (0..WORKERS).map(|_| Process::spawn(&config_file, &["worker"])).collect();
        let mut mortal = Self {
            cluster,
            ingests,
            workers,
            config_file,
            load: Arc::new(Load::of(ENDPOINTS)),
            jobs: Arc::default(),
            secrets,
            rng: StdRng::seed_from_u64(seed),
            killed_workers: 0,
            patience: PATIENCE + length * 2,
            _simulator: simulator,
            _directory: directory,
        };
        for n in 0..ENDPOINTS {
            mortal.find_ingest(n).await;
        }
        mortal
    }

    /// Starts the load: a sender for each subject, and one that enqueues jobs.
    fn send(&self) -> JoinSet<()> {
        let mut senders = JoinSet::new();
        for sender in 0..SENDERS {
            let (load, secret) = (Arc::clone(&self.load), self.secrets.path.clone());
            senders.spawn(async move { load.send(&secret, sender).await });
        }
        let (load, jobs) = (Arc::clone(&self.load), Arc::clone(&self.jobs));
        senders.spawn(enqueue(load, jobs, self.cluster.url.clone()));
        senders
    }

    async fn commit(&mut self, fault: Fault) {
        let worker = self.rng.random_range(0..WORKERS);
        let ingest = self.rng.random_range(0..ENDPOINTS);
        let pause = Duration::from_millis(self.rng.random_range(200..2500));
        match fault {
            Fault::KillWorker => {
                self.workers[worker].kill();
                self.killed_workers += 1;
                self.workers[worker] = Process::spawn(&self.config_file, &["worker"]);
            }
            Fault::StopWorker => {
                self.workers[worker].signal(Signal::TERM);
                self.workers[worker].exited().await;
                self.workers[worker] = Process::spawn(&self.config_file, &["worker"]);
            }
            Fault::PauseWorker => self.workers[worker].pause(pause).await,
            Fault::KillIngest => {
                *self.load.endpoints[ingest].lock().unwrap() = None;
                self.ingests[ingest].process.kill();
                self.ingests[ingest].start();
                self.find_ingest(ingest).await;
            }
            Fault::PauseIngest => self.ingests[ingest].process.pause(pause).await,
            Fault::KillDatabase => {
                self.cluster.stop_immediately().await;
                self.cluster.start().await;
            }
            Fault::KillBackend => self.signal_backends(1, Signal::KILL).await,
            Fault::CutConnections => self.signal_backends(1000, Signal::TERM).await,
        }
    }

    /// Waits until an endpoint listens, starting it again where it found no database.
    async fn find_ingest(&mut self, n: usize) {
        let ingest = &mut self.ingests[n];
        let address = until("the endpoint listens", async || {
            if ingest.process.has_exited() {
                ingest.start();
            }
            ingest.process.known_address()
        })
        .await;
        *self.load.endpoints[n].lock().unwrap() = Some(address);
    }

    /// Signals up to `count` of the server's processes that serve clients.
    async fn signal_backends(&mut self, count: i64, signal: Signal) {
        let mut connection = self.cluster.connection().await;
        let pids: Vec<i32> = sqlx::query_scalar(
            "SELECT pid FROM pg_stat_activity
              WHERE datname = current_database() AND pid <> pg_backend_pid()
              ORDER BY random() LIMIT $1",
        )
        .bind(count)
        .fetch_all(&mut connection)
        .await
        .unwrap();
        for pid in pids {
            // It may have ended since.
            let _ = kill_process(Pid::from_raw(pid).unwrap(), signal);
        }
        // With its server, where that starts all its processes again.
        let _ = connection.close().await;
    }

    /// Starts whatever is not running.
    async fn recover(&mut self) {
        let mut connection = self.cluster.connection().await;
        sqlx::query("SELECT 1").execute(&mut connection).await.unwrap();
        for worker in &mut self.workers {
            if worker.has_exited() {
                *worker = Process::spawn(&self.config_file, &["worker"]);
            }
        }
        for n in 0..ENDPOINTS {
            self.find_ingest(n).await;
        }
    }

    async fn check(&mut self) {
        let store = Store::connect(&store::Config::new(self.cluster.url.as_str())).await.unwrap();
        let acknowledged = std::mem::take(&mut *self.load.acknowledged.lock().unwrap());
        let enqueued = std::mem::take(&mut *self.jobs.lock().unwrap());
        self.until_stored(&acknowledged).await;
        self.until_still(&store).await;
        self.redrive(&store).await;
        let status = store.slice_status().await.unwrap();
        assert_eq!(
            status.iter().map(|slice| slice.parked).sum::<i64>(),
            0,
            "events were set aside"
        );
        let events = load::log(&store).await;
        println!(
            "{} events, {} webhooks and {} jobs acknowledged",
            events.len(),
            acknowledged.len(),
            enqueued.len()
        );
        load::check(&events, &acknowledged);
        check_jobs(&events, &enqueued);
        self.check_fold(&store).await;
    }

    /// Retries the jobs that so many processes died with that they were set aside. Nothing else may
    /// have ended a job.
    async fn redrive(&mut self, store: &Store) {
        loop {
            let dead = store.dead_jobs(100).await.unwrap();
            if dead.is_empty() {
                return;
            }
            println!("{} jobs set aside", dead.len());
            for job in dead {
                assert!(job.state == "quarantined" && self.killed_workers > 3, "{job:?}");
                store.retry_dead(job.id).await.unwrap();
            }
            self.workers.push(Process::spawn(&self.config_file, &["worker"]));
            self.until_still(store).await;
        }
    }

    /// Waits until the endpoint has drained its spool.
    async fn until_stored(&self, acknowledged: &[load::Acknowledged]) {
        let ids: Vec<Uuid> = acknowledged.iter().map(|(id, ..)| *id).collect();
        let mut connection = self.cluster.connection().await;
        until_within(self.patience, "every acknowledged webhook is stored", async || {
            let stored: i64 = sqlx::query_scalar(
                "SELECT count(DISTINCT event_id) FROM tallylight.event WHERE event_id = ANY ($1)",
            )
            .bind(&ids)
            .fetch_one(&mut connection)
            .await
            .unwrap();
            (usize::try_from(stored).unwrap() == ids.len()).then_some(())
        })
        .await;
    }

    /// Waits until everything is applied and every due job is done, and ends the workers there.
    async fn until_still(&mut self, store: &Store) {
        let is_applied = async || {
            let status = store.slice_status().await.unwrap();
            status.iter().all(|slice| slice.position == slice.head)
        };
        loop {
            until_within(
                self.patience,
                "everything is applied and every job is done",
                async || {
                    let counts = store.job_counts().await.unwrap();
                    let is_done = counts.available + counts.running == 0;
                    (is_done && is_applied().await).then_some(())
                },
            )
            .await;
            self.workers.clear();
            if is_applied().await {
                return;
            }
            self.workers.push(Process::spawn(&self.config_file, &["worker"]));
        }
    }

    /// The rows that the workers made, through all of it, are those that the log makes, whoever
    /// compares them.
    async fn check_fold(&self, store: &Store) {
        let live = store.digest().await.unwrap();
        assert!(live.rows >= SENDERS, "{live:?}");
        let verified = self.command(&["projections", "verify"]).await;
        assert!(verified.contains("compared, 0 differ"), "{verified}");
        self.command(&["projections", "rebuild"]).await;
        assert_eq!(store.digest().await.unwrap(), live);
        let status = self.command(&["status"]).await;
        // Slice, head, applied, lag.
        let lags = status.lines().filter_map(|line| {
            let numbers = line.rsplit_once("] ")?.1.split_whitespace().map(str::parse::<i64>);
            numbers.collect::<Vec<_>>().get(3)?.clone().ok()
        });
        assert_eq!(lags.collect::<Vec<_>>(), vec![0; 16], "{status}");
    }

    /// Runs a command to its end, which must be a success, and returns what it said.
    async fn command(&self, arguments: &[&str]) -> String {
        let mut process = Process::spawn(&self.config_file, arguments);
        let status = process.exited().await;
        assert!(status.success(), "{arguments:?}: {}", process.output());
        process.output()
    }

    async fn end(mut self) {
        self.ingests.clear();
        self.workers.clear();
        self.cluster.end().await;
    }
}

/// What the processes said last, where the test fails.
impl Drop for Mortal {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for process in self.ingests.iter().map(|ingest| &ingest.process).chain(&self.workers) {
            let output = process.output();
            let lines: Vec<&str> = output.lines().collect();
            println!("{}", lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n"));
        }
    }
}

impl Ingest {
    /// Starts it, where it has ended.
    fn start(&mut self) {
        self.process = Process::spawn(&self.config_file, &["ingest"]);
    }
}

/// Enqueues jobs as another service would.
async fn enqueue(load: Arc<Load>, jobs: Arc<Mutex<Vec<Uuid>>>, url: String) {
    let mut connection = None;
    while !load.has_ended.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(50)).await;
        let Some(open) = &mut connection else {
            connection = PgConnection::connect(&url).await.ok();
            continue;
        };
        let enqueued = sqlx::query_scalar("SELECT tallylight.enqueue('maintain', '{}')");
        match enqueued.fetch_one(open).await {
            Ok(id) => jobs.lock().unwrap().push(id),
            Err(_) => connection = None,
        }
    }
}

/// Each acknowledged job has one outcome.
fn check_jobs(events: &[RecordedEvent], acknowledged: &[Uuid]) {
    assert!(!acknowledged.is_empty());
    let mut outcomes: HashMap<&str, usize> = HashMap::new();
    for event in events.iter().filter(|event| event.event_type == "JobCompleted") {
        *outcomes.entry(event.subject.as_str()).or_default() += 1;
    }
    for id in acknowledged {
        let subject = domain::ids::Subject::job(*id);
        assert_eq!(outcomes.get(subject.as_str()), Some(&1), "outcomes of {subject}");
    }
}
