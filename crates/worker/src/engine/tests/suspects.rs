//! Jobs that their processes have died with: which of them is guilty is found out, and the others
//! go on. In virtual time over the store in memory.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI32};

use futures_util::future::BoxFuture;

use super::*;
use crate::SUSPECT;
use crate::jobs::JobError;
use crate::testing::{Run, Script};

/// A line that is cut when its process dies: nothing passes any more, and nothing of what the
/// process did is heard of.
#[derive(Debug, Default)]
struct Death(AtomicBool);

impl Line for Death {
    fn fate(&self, _: &'static str) -> Fate {
        if self.0.load(Ordering::Relaxed) { Fate::Refused } else { Fate::AT_ONCE }
    }
}

/// A kind as most are, and one of the platform calls.
const SLOW: &str = "test_slow";
const CALL: &str = "create_broadcast";

/// Handlers that take their time; some kill the process that runs now.
#[derive(Debug, Default)]
struct Deadly {
    process: Mutex<Arc<Death>>,
    /// Runs of suspects now, and the most there were; the same of all others.
    suspects: (AtomicI32, AtomicI32),
    others: (AtomicI32, AtomicI32),
}

impl Deadly {
    /// Begins a process.
    fn begin(self: &Arc<Self>, memory: &Memory) -> Worker {
        let line = Arc::<Death>::default();
        *self.process.lock().unwrap() = Arc::clone(&line);
        let script = Arc::new(Handlers(Arc::clone(self)));
        Worker::start(Context::scripted(memory.over(line), config(), Uuid::now_v7(), script))
    }
}

#[derive(Debug)]
struct Handlers(Arc<Deadly>);

impl Script for Handlers {
    fn knows(&self, kind: &str) -> bool {
        [SLOW, CALL].contains(&kind)
    }

    fn run(&self, run: Run) -> BoxFuture<'static, Result<Done, JobError>> {
        let deadly = Arc::clone(&self.0);
        Box::pin(async move {
            if run.args["kills"] == json!(true) {
                // The others that run are in the middle of it.
                tokio::time::sleep(Duration::from_millis(20)).await;
                deadly.process.lock().unwrap().0.store(true, Ordering::Relaxed);
                return std::future::pending().await;
            }
            let is_suspect = run.args["suspect"] == json!(true);
            let (now, most) = if is_suspect { &deadly.suspects } else { &deadly.others };
            most.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(50)).await;
            now.fetch_sub(1, Ordering::Relaxed);
            Ok(Done::Value(json!(null)))
        })
    }
}

fn in_virtual_time() -> Memory {
    let (begun, started) = (now(), Instant::now());
    Memory::new(SliceCount::DEFAULT, move || begun + started.elapsed())
}

/// Waits in virtual time.
async fn until_then(is: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < LIMIT * 4, "waited too long");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Jobs of the tests that are still live.
fn live(memory: &Memory) -> usize {
    memory.look(|tables| {
        let jobs = tables.slices.iter().flat_map(|slice| slice.jobs.values());
        jobs.filter(|job| [SLOW, CALL].contains(&job.kind.as_str())).count()
    })
}

#[tokio::test(start_paused = true)]
async fn suspects_run_one_at_a_time_and_beside_all_others() {
    let memory = in_virtual_time();
    for n in 0..12 {
        let args = json!({"suspect": n % 2 == 0});
        memory.enqueue(SLOW, &args, &EnqueueOptions::default()).await.unwrap();
    }
    memory.meddle(|tables| {
        let jobs = tables.slices.iter_mut().flat_map(|slice| slice.jobs.values_mut());
        for job in jobs.filter(|job| job.args["suspect"] == json!(true)) {
            job.crashes = SUSPECT;
        }
    });
    let deadly = Arc::<Deadly>::default();
    let worker = deadly.begin(&memory);
    until_then(|| live(&memory) == 0).await;
    worker.shutdown().await;
    assert_eq!(deadly.suspects.1.load(Ordering::Relaxed), 1);
    assert_eq!(deadly.others.1.load(Ordering::Relaxed), 6);
}

#[tokio::test(start_paused = true)]
async fn of_many_that_ran_when_processes_died_only_the_guilty_one_is_quarantined() {
    // One process more than it may take with it, and one that ends the others.
    assert_eq!(processes_of_a_guilty(SLOW).await, 3 + 2);
    assert_eq!(processes_of_a_guilty(CALL).await, 10 + 2, "a session is lost with it");
}

/// Runs jobs of `kind` of which one kills, until it is quarantined and the others have ended.
/// Returns how many processes that took.
async fn processes_of_a_guilty(kind: &str) -> usize {
    let memory = in_virtual_time();
    for n in 0..8 {
        let args = json!({"kills": n == 3});
        memory.enqueue(SLOW, &args, &EnqueueOptions::default()).await.unwrap();
    }
    // A platform call is enqueued by reactions alone.
    memory.meddle(|tables| {
        let jobs = tables.slices.iter_mut().flat_map(|slice| slice.jobs.values_mut());
        jobs.for_each(|job| kind.clone_into(&mut job.kind));
    });
    let deadly = Arc::<Deadly>::default();
    let mut processes = vec![deadly.begin(&memory)];
    let is_dead = |deadly: &Deadly| deadly.process.lock().unwrap().0.load(Ordering::Relaxed);
    let is_found =
        || memory.look(|tables| tables.slices.iter().any(|slice| !slice.dead.is_empty()));
    while !is_found() {
        until_then(|| is_dead(&deadly) || is_found()).await;
        if is_dead(&deadly) {
            processes.push(deadly.begin(&memory));
        }
    }
    until_then(|| live(&memory) == 0).await;
    let dead: Vec<Value> = memory.look(|tables| {
        let dead = tables.slices.iter().flat_map(|slice| slice.dead.values());
        dead.map(|dead| dead.job.args.clone()).collect()
    });
    assert_eq!(dead, [json!({"kills": true})]);
    processes.len()
}
