//! A worker process of the ledger: this very test program, started once more, runs the real worker
//! with handlers that note what they do.

use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use domain::ids::Timestamp;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use store::Store;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;
use worker::jobs::{Done, JobError};
use worker::testing::{Handlers, Run};
use worker::{Config, Context, Worker};

use super::book::{self, Entry};

/// The kind of the jobs.
pub(super) const KIND: &str = "ledger";

/// Tells this program that it is to be a worker: its id, connections, milliseconds, address of the
/// database.
const IS_WORKER: &str = "TALLYLIGHT_LEDGER_WORKER";

/// How far the clock of this process is ahead, in milliseconds.
static AHEAD: AtomicI64 = AtomicI64::new(0);

/// What a worker has to cope with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trouble {
    pub(super) ahead_ms: i64,
    pub(super) connections: u32,
}

/// A worker process. Dropping it kills it.
pub(super) struct Hand {
    child: Child,
    pub(super) process: Uuid,
}

impl Hand {
    pub(super) fn spawn(url: &str, trouble: Trouble) -> Self {
        let Trouble { ahead_ms, connections } = trouble;
        let process = Uuid::now_v7();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "ledger::hand::is_a_worker_where_it_is_told_to_be", "--nocapture"])
            .env(IS_WORKER, format!("{process} {connections} {ahead_ms} {url}"))
            // It ends with us: the pipe does.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, process }
    }

    /// Lets it do nothing for a while, as a machine that is suspended.
    pub(super) async fn pause(&mut self, time: Duration) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::STOP).unwrap();
        tokio::time::sleep(time).await;
        kill_process(pid, Signal::CONT).unwrap();
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// No test, but the beginning of a worker process.
#[test]
#[expect(clippy::disallowed_methods, reason = "so it is told what to be")]
fn is_a_worker_where_it_is_told_to_be() {
    let Ok(told) = std::env::var(IS_WORKER) else { return };
    let mut told = told.splitn(4, ' ');
    let process = told.next().unwrap().parse().unwrap();
    let connections = told.next().unwrap().parse().unwrap();
    AHEAD.store(told.next().unwrap().parse().unwrap(), Ordering::Relaxed);
    let url = told.next().unwrap().to_owned();
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(work(url, process, connections));
}

/// A clock that may be wrong.
fn clock() -> Timestamp {
    let off = Duration::from_millis(AHEAD.load(Ordering::Relaxed).unsigned_abs());
    let now = SystemTime::now();
    Timestamp::from(if AHEAD.load(Ordering::Relaxed) < 0 { now - off } else { now + off })
}

async fn work(url: String, process: Uuid, connections: u32) {
    let config = store::Config { max_connections: connections, ..store::Config::new(url.as_str()) };
    let store = loop {
        if let Ok(store) = Store::connect(&config).await {
            break store;
        }
    };
    let pool = PgPoolOptions::new()
        .max_connections(4)
        .acquire_timeout(Duration::from_secs(2))
        .connect_lazy(&url)
        .unwrap();
    let (gone, mut went) = mpsc::unbounded_channel::<Word>();
    let writer = pool.clone();
    tokio::spawn(async move {
        while let Some(word) = went.recv().await {
            match word {
                Word::Gone(entry) => while book::note(&writer, &entry, "gone").await.is_err() {},
                // Who asked may have gone meanwhile.
                Word::AllNoted(asked) => _ = asked.send(()),
            }
        }
    });
    let handlers = Handlers::new().on(KIND, move |run| {
        let entry = Entry::of(&run, process);
        handle(pool.clone(), entry, run, gone.clone())
    });
    let config = Config {
        lease: Duration::from_secs(1),
        poll: Duration::from_millis(100),
        concurrency: 6,
        verify_every: None,
        clock,
        // What failed is soon tried again.
        chance: || 0.1,
        ..Config::default()
    };
    let worker = Worker::start(Context::scripted(store, config, process, Arc::new(handlers)));
    worker.ended().await;
}

/// Notes that it begins, takes its time, notes that it ends.
async fn handle(
    pool: PgPool,
    entry: Entry,
    run: Run,
    gone: mpsc::UnboundedSender<Word>,
) -> Result<Done, JobError> {
    // What was given up here is noted before another run begins: between the two the process may die.
    let (asked, noted) = oneshot::channel();
    let _ = gone.send(Word::AllNoted(asked));
    let _ = noted.await;
    let mut going = Going { entry: entry.clone(), gone, has_ended: false };
    note(&pool, &entry, "begin").await?;
    tokio::time::sleep(Duration::from_millis(run.args["ms"].as_u64().unwrap_or_default())).await;
    note(&pool, &entry, "end").await?;
    going.has_ended = true;
    Ok(Done::Value(json!(null)))
}

async fn note(pool: &PgPool, entry: &Entry, what: &str) -> Result<(), JobError> {
    let again = |reason: String| JobError::Retry { after: None, reason };
    match book::note(pool, entry, what).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(again("a later token was seen".to_owned())),
        Err(error) => Err(again(error.to_string())),
    }
}

/// What is said to the one who notes what was given up.
enum Word {
    /// A run was given up.
    Gone(Entry),
    /// Says when all before it is noted.
    AllNoted(oneshot::Sender<()>),
}

/// A run that goes on: where it is given up, that is noted, unless its process dies.
struct Going {
    entry: Entry,
    gone: mpsc::UnboundedSender<Word>,
    has_ended: bool,
}

impl Drop for Going {
    fn drop(&mut self) {
        if !self.has_ended {
            let _ = self.gone.send(Word::Gone(self.entry.clone()));
        }
    }
}
