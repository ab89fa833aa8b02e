//! What becomes of the jobs of a process that is cut off, in virtual time, where seconds are exact:
//! it stops its handlers before its lease ends, and whoever lives goes on soon after that.

use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use futures_util::future::BoxFuture;

use super::*;
use crate::jobs::JobError;
use crate::testing::{Run, Script};

/// Jobs that run.
const JOBS: usize = 40;

/// Handlers that end only by being stopped, and when each began and was stopped.
#[derive(Debug, Clone, Default)]
struct Endless(Arc<Mutex<Book>>);

#[derive(Debug, Default)]
struct Book {
    begun: Vec<Instant>,
    stopped: Vec<Instant>,
}

/// A run that was not stopped yet.
struct Entry(Endless);

impl Drop for Entry {
    fn drop(&mut self) {
        self.0.0.lock().unwrap().stopped.push(Instant::now());
    }
}

impl Script for Endless {
    fn knows(&self, kind: &str) -> bool {
        kind.starts_with("test_")
    }

    fn run(&self, _: Run) -> BoxFuture<'static, Result<Done, JobError>> {
        let entry = Entry(self.clone());
        Box::pin(async move {
            entry.0.0.lock().unwrap().begun.push(Instant::now());
            std::future::pending::<()>().await;
            drop(entry);
            Ok(Done::Quiet)
        })
    }
}

/// A line that can be cut: then nothing passes.
#[derive(Debug, Default)]
struct Cut(AtomicBool);

impl Line for Cut {
    fn fate(&self, _: &'static str) -> Fate {
        if self.0.load(Ordering::Relaxed) { Fate::Refused } else { Fate::AT_ONCE }
    }
}

async fn until_begun(script: &Endless, count: usize) {
    let begun = Instant::now();
    while script.0.lock().unwrap().begun.len() < count {
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(begun.elapsed() < LIMIT * 4, "{:?}", script.0.lock().unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_cut_off_stops_before_its_lease_ends_and_others_go_on_within_two_seconds_of_that() {
    for lease in [Duration::from_secs(1), Duration::from_secs(10)] {
        let (clock, started) = (now(), Instant::now());
        let memory = Memory::new(SliceCount::DEFAULT, move || clock + started.elapsed());
        let script = Endless::default();
        for _ in 0..JOBS {
            memory.enqueue("test_endless", &json!({}), &EnqueueOptions::default()).await.unwrap();
        }
        let config = || Config { lease, concurrency: 2 * JOBS, ..config() };
        let process = |line: Memory| {
            let script = Arc::new(script.clone());
            Worker::start(Context::scripted(line, config(), Uuid::now_v7(), script))
        };
        let cut = Arc::new(Cut::default());
        let first = process(memory.over(Arc::<Cut>::clone(&cut)));
        until_begun(&script, JOBS).await;
        cut.0.store(true, Ordering::Relaxed);
        let died = Instant::now();
        let second = process(memory.clone());
        until_begun(&script, 2 * JOBS).await;
        {
            let book = script.0.lock().unwrap();
            let stopped = book.stopped.iter().max().unwrap().duration_since(died);
            let went_on = book.begun.iter().max().unwrap().duration_since(died);
            assert_eq!(book.stopped.len(), JOBS, "each was stopped, and none of the other's");
            assert!(stopped < lease, "{lease:?}: stopped after {stopped:?}");
            assert!(book.stopped.iter().max() < book.begun[JOBS..].iter().min(), "one at a time");
            assert!(went_on < lease + Duration::from_secs(2), "{lease:?}: after {went_on:?}");
        }
        drop(first);
        second.shutdown().await;
    }
}
