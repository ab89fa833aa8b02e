//! One run: lives, the last of which ends in calm, and the check.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use domain::slice::SliceCount;
use ingest::{Known, Lanes, Metrics, SpoolDir, lanes, spool};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use store::testing::{Flaws, Memory, Tables};
use store::{Follow as _, Log as _};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::faults::{Processes, WORKERS};
use crate::load::{Book, Load};
use crate::platform::Shared;
use crate::{check, clock};

/// Slices.
const SLICES: i16 = 4;

/// Longest time from the last fault to where everything is applied.
const PATIENCE: Duration = Duration::from_mins(5);

/// Protections that are taken away.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sabotage {
    pub(crate) flaws: Flaws,
    pub(crate) overtakes_spool: bool,
}

/// What a run is like, beside its seed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plan {
    pub(crate) sabotage: Sabotage,
}

/// What a run came to. Two runs of one seed come to the same.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) events: usize,
    acknowledged: usize,
    passed: Duration,
    /// Of the whole log and of all that was done.
    hash: u64,
}

/// What outlives a power cut.
struct World {
    memory: Memory,
    platform: Shared,
    book: Arc<Mutex<Book>>,
    directory: TempDir,
    rng: StdRng,
    plan: Plan,
}

/// Runs a seed.
///
/// # Errors
/// The promise that was broken.
pub(crate) fn run(seed: u64, plan: &Plan) -> Result<Told, String> {
    clock::reset();
    let slices = SliceCount::new(SLICES).unwrap();
    let mut world = World {
        memory: Memory::flawed(slices, clock::database, plan.sabotage.flaws),
        platform: Shared::default(),
        book: Arc::default(),
        directory: directory(),
        rng: StdRng::seed_from_u64(seed),
        plan: plan.clone(),
    };
    for _ in 0..world.rng.random_range(0..3) {
        live(&mut world, false)?;
        world.memory.look(check::always)?;
    }
    live(&mut world, true)?;
    let book = world.book.lock().unwrap();
    let acknowledged = book.webhooks.len() + book.keyed.len() + book.commands.len();
    let (events, hash) = world.memory.look(digest);
    Ok(Told { events, acknowledged, passed: clock::passed(), hash })
}

/// A directory for the spool: in memory where the system has that, since a sync of a disk would
/// take most of the time of a run.
fn directory() -> TempDir {
    let shared_memory = Path::new("/dev/shm");
    if shared_memory.is_dir() {
        tempfile::tempdir_in(shared_memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

/// A life in a runtime of its own. It ends with a power cut: whatever runs is dropped as it stands.
fn live(world: &mut World, is_last: bool) -> Result<(), String> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        clock::begin();
        let ended = live_in(world, is_last).await;
        clock::end();
        ended
    })
}

async fn live_in(world: &mut World, is_last: bool) -> Result<(), String> {
    let seed = world.rng.random();
    let mut processes = Processes {
        memory: world.memory.clone(),
        platform: world.platform.clone(),
        lines: Vec::new(),
        workers: Vec::new(),
        rng: StdRng::seed_from_u64(seed),
    };
    let (ingest, api) = (processes.line(), processes.line());
    processes.lines = vec![Arc::clone(&ingest), Arc::clone(&api)];
    let lanes = start_lanes(world, world.memory.over(ingest));
    for _ in 0..WORKERS {
        let worker = processes.start_worker();
        processes.workers.push(worker);
    }
    let book = Arc::clone(&world.book);
    let load = Load { book, lanes: lanes.clone(), api: world.memory.over(api), seed };
    let mut senders = load.start();
    let time = Duration::from_millis(world.rng.random_range(400..3_000));
    processes.suffer(time).await;
    if !is_last {
        return Ok(());
    }
    processes.calm();
    senders.shutdown().await;
    drop(load);
    until_still(world, &lanes).await?;
    if !lanes.drain().await {
        return Err("the lanes did not drain".to_owned());
    }
    let left = spooled(world.directory.path());
    if !left.is_empty() {
        return Err(format!("drained, and in the spool there is still {left:?}"));
    }
    // What the drain has asked for is applied too.
    until_still(world, &lanes).await?;
    let book = world.book.lock().unwrap();
    world.memory.look(|tables| check::at_the_end(tables, &book))
}

fn start_lanes(world: &mut World, store: Memory) -> Lanes {
    let mut config = spool::Config::new(world.directory.path());
    // Now and then too small, and of many files.
    config.max_bytes = if world.rng.random_ratio(1, 5) { 20_000 } else { 1 << 20 };
    config.file_bytes = world.rng.random_range(1_000..50_000);
    let known = Known { installation: store.installation(), slices: store.slices() };
    let metrics = Arc::new(Metrics::new());
    let dir = SpoolDir::lock(config).unwrap();
    let spool = dir.open_inline(known, Arc::clone(&metrics)).unwrap();
    let patience = lanes::Config {
        batch_events: 5,
        slices_per_lane: 2,
        spool_after: Duration::from_millis(300),
        deadline: Duration::from_secs(2),
        attempt: Duration::from_millis(700),
        clock: clock::process,
        overtakes_spool: world.plan.sabotage.overtakes_spool,
        ..lanes::Config::default()
    };
    let notifier = store.notifier();
    Lanes::start(store, notifier, spool, metrics, patience)
}

/// Files of the spool.
fn spooled(dir: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|e| e == "spool" || e == "damaged")).collect()
}

/// Waits until everything is stored, applied and done.
async fn until_still(world: &World, lanes: &Lanes) -> Result<(), String> {
    let end = Instant::now() + PATIENCE;
    loop {
        let works = world.memory.look(|tables| check::works(tables, clock::database()));
        let keeps = lanes.is_spooling() || !lanes.oldest().is_zero();
        if works.is_none() && !keeps {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(format!("still not still: {works:?}, lanes {keeps}"));
        }
        sleep(Duration::from_millis(5)).await;
    }
}

/// What happened, without the ids that a process makes up.
pub(crate) fn digest(tables: &Tables) -> (usize, u64) {
    let mut hash = DefaultHasher::new();
    let mut events = 0;
    for slice in &tables.slices {
        events += slice.events.len();
        for event in &slice.events {
            (event.position, event.recorded_at, event.received_at).hash(&mut hash);
            (&event.subject, &event.event_type, &event.payload).hash(&mut hash);
        }
        slice.reacted.hash(&mut hash);
        (&slice.enqueued, &slice.started, &slice.ended).hash(&mut hash);
    }
    (events, hash.finish())
}
