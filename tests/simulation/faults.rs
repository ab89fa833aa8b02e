//! The faults of a life, one after another: processes die, stop, stand still, lose their line; the
//! database is away; clocks jump.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use store::testing::Memory;
use tokio::time::{Instant, sleep};
use uuid::Uuid;
use worker::{Config, Context, Worker};

use crate::clock;
use crate::line::{Faulty, Mood};
use crate::platform::{Handlers, Shared};

/// Worker processes.
pub(crate) const WORKERS: usize = 3;

/// The processes of a life.
pub(crate) struct Processes {
    pub(crate) memory: Memory,
    pub(crate) platform: Shared,
    /// Of ingest and of the backend services.
    pub(crate) lines: Vec<Arc<Faulty>>,
    pub(crate) workers: Vec<(Worker, Arc<Faulty>)>,
    pub(crate) rng: StdRng,
}

impl Processes {
    /// A line to the database.
    pub(crate) fn line(&mut self) -> Arc<Faulty> {
        Arc::new(Faulty::new(self.rng.random()))
    }

    /// Starts a worker process.
    pub(crate) fn start_worker(&mut self) -> (Worker, Arc<Faulty>) {
        let line = self.line();
        let handlers = Handlers { platform: self.platform.clone(), line: Arc::clone(&line) };
        let store = self.memory.over(Arc::clone(&line) as _);
        let process = Uuid::from_u128(self.rng.random());
        let context = Context::scripted(store, config(), process, Arc::new(handlers));
        (Worker::start(context), line)
    }

    /// Commits a fault.
    pub(crate) fn fault(&mut self) {
        let nth = self.rng.random_range(0..WORKERS);
        let time = Duration::from_millis(self.rng.random_range(100..3_000));
        match self.rng.random_range(0..11) {
            0 | 1 => self.kill(nth),
            2 => self.stop(nth),
            // Longer than a lease, often.
            3 | 4 => stall(&self.workers[nth].1, time),
            5 => self.workers[nth].1.set(Mood::Lossy, Some(time)),
            6 => self.workers[nth].1.set(Mood::Refusing, Some(time)),
            7 => stall(&self.lines[0], time),
            8 => self.lines[0].set(Mood::Lossy, Some(time)),
            // The database is away.
            9 => self.all().for_each(|line| line.set(Mood::Refusing, Some(time))),
            _ => self.jump(),
        }
    }

    /// A process dies at whatever await it stands, and another starts.
    fn kill(&mut self, nth: usize) {
        let successor = self.start_worker();
        let (worker, line) = std::mem::replace(&mut self.workers[nth], successor);
        line.set(Mood::Dead, None);
        // Its tasks see a database that does not answer, and do nothing more.
        drop(worker);
    }

    /// A process is told to stop, while whatever else goes on; another starts.
    fn stop(&mut self, nth: usize) {
        let successor = self.start_worker();
        let (worker, _) = std::mem::replace(&mut self.workers[nth], successor);
        tokio::spawn(worker.shutdown());
    }

    fn jump(&mut self) {
        let millis = self.rng.random_range(-3_000..5_000);
        if self.rng.random_ratio(1, 2) {
            clock::jump_database(millis);
        } else {
            clock::jump_process(millis);
        }
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Faulty>> {
        self.lines.iter().chain(self.workers.iter().map(|(_, line)| line))
    }

    /// Commits faults for a while.
    pub(crate) async fn suffer(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            sleep(Duration::from_millis(self.rng.random_range(50..500))).await;
            self.fault();
        }
    }

    /// From now on nothing fails.
    pub(crate) fn calm(&self) {
        self.all().for_each(|line| line.set(Mood::Calm, None));
    }
}

fn stall(line: &Faulty, time: Duration) {
    line.set(Mood::Stalled(Instant::now() + time), Some(time));
}

/// Leases of a second, and timers that come due within a run.
pub(crate) fn config() -> Config {
    let default = Config::default();
    Config {
        lease: Duration::from_secs(1),
        poll: Duration::from_millis(200),
        grace: Duration::from_millis(500),
        job_timeout: Duration::from_secs(10),
        policy: default.policy.scaled(0.1),
        clock: clock::process,
        // What is tried again is spread by nothing: the lines do that.
        chance: || 0.5,
        ..default
    }
}
