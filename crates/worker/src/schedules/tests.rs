//! Schedules in running workers: on time, each moment once, whoever comes and goes.

use std::sync::Arc;

use domain::ids::Subject;
use domain::slice::SliceCount;
use serde_json::json;
use store::testing::Memory;
use store::{Fired, Log as _, NewSchedule, Store};
use uuid::Uuid;

use super::*;
use crate::engine::tests::{config, start, until};
use crate::jobs::tests::{TestKinds, starts_of};
use crate::{Config, Worker};

/// Every second.
fn every_second(name: &str) -> NewSchedule {
    NewSchedule {
        name: name.to_owned(),
        cron: "* * * * * *".to_owned(),
        time_zone: "UTC".to_owned(),
        kind: "test_ok".to_owned(),
        args: json!({}),
        options: json!({}),
        missed: Missed::CatchUp(100),
        paused: None,
    }
}

async fn fires(store: &Store, name: &str) -> Vec<Fired> {
    let mut fires = store.schedule_fires(name, 1_000).await.unwrap();
    fires.reverse();
    fires
}

#[tokio::test]
async fn a_schedule_is_heard_of_and_its_jobs_run_on_time() {
    let store = store::testing::store().await;
    let quiet = Duration::from_mins(10);
    let worker = start(&store, Config { lease: quiet, poll: quiet, ..config() });
    until(async || {
        let slices = store.slice_status().await.unwrap();
        slices.iter().all(|s| s.owner.is_some()).then_some(())
    })
    .await;
    store.put_schedule(&every_second("tick")).await.unwrap();
    let fires = until(async || {
        let fires = fires(&store, "tick").await;
        let is_run = |fire: &Fired| fire.job.is_some_and(|job| starts_of(job) == [1]);
        (fires.iter().filter(|fire| is_run(fire)).count() >= 2).then_some(fires)
    })
    .await;
    for fire in &fires {
        let late = (fire.fired_at - fire.fire_at).as_seconds_f64();
        assert!((0.0..2.0).contains(&late), "{late} s late");
    }
    store.pause_schedule("tick").await.unwrap();
    worker.shutdown().await;
}

#[tokio::test]
async fn every_moment_fires_once_while_workers_come_and_go() {
    let store = store::testing::store().await;
    let names: Vec<String> = (0..8).map(|n| format!("tick-{n}")).collect();
    for name in &names {
        store.put_schedule(&every_second(name)).await.unwrap();
    }
    let mut workers = vec![start(&store, config()), start(&store, config())];
    for round in 1..=3 {
        until(async || (fires(&store, "tick-0").await.len() >= 2 * round).then_some(())).await;
        workers.push(start(&store, config()));
        workers.remove(0).shutdown().await;
    }
    for worker in workers {
        worker.shutdown().await;
    }
    for name in &names {
        let fires = fires(&store, name).await;
        let seconds: Vec<i64> = fires.iter().map(|fire| fire.fire_at.timestamp()).collect();
        assert!(seconds.len() >= 3, "{name}: {seconds:?}");
        let all: Vec<i64> = (seconds[0]..=seconds[seconds.len() - 1]).collect();
        assert_eq!(seconds, all, "{name}: each second, and once");
        let mut jobs: Vec<Uuid> = fires.iter().filter_map(|fire| fire.job).collect();
        jobs.sort_unstable();
        jobs.dedup();
        assert_eq!(jobs.len(), fires.len(), "{name}: a job for each");
    }
}

#[tokio::test]
async fn a_schedule_whose_job_is_refused_says_so_and_goes_on() {
    let store = store::testing::store().await;
    store.put_schedule(&every_second("tick")).await.unwrap();
    store::testing::break_schedule(&store, "tick").await;
    let worker = start(&store, config());
    let told = until(async || store.schedule("tick").await.unwrap().unwrap().last_error).await;
    assert!(told.contains("unknown option \"colour\""), "{told}");
    store
        .put_schedule(&NewSchedule { options: json!({"priority": 1}), ..every_second("tick") })
        .await
        .unwrap();
    until(async || (!fires(&store, "tick").await.is_empty()).then_some(())).await;
    worker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_look_that_finds_nothing_due_is_rare() {
    let (began, base) = (Instant::now(), crate::context::now());
    let clock = move || base + began.elapsed();
    let memory = Memory::new(SliceCount::DEFAULT, clock);
    memory.put_schedule(&NewSchedule { cron: "0 * * * *".to_owned(), ..every_second("hourly") });
    let line = Arc::new(Counting::default());
    let store = memory.over(line.clone());
    let quiet = Duration::from_mins(10);
    let config = Config { lease: quiet, poll: quiet, ..config() };
    let context = Context::scripted(store, config, Uuid::nil(), Arc::new(TestKinds));
    let worker = Worker::start(context);
    tokio::time::sleep(Duration::from_mins(1)).await;
    let before = line.looks();
    tokio::time::sleep(Duration::from_hours(3)).await;
    let looks = line.looks() - before;
    assert!((3..=2 * 180 + 10).contains(&looks), "{looks} looks in 3 hours");
    let slice = memory.slice_of(&Subject::schedule("hourly"));
    let fires = memory.look(|tables| tables.slices[usize::try_from(slice).unwrap()].fires.len());
    assert_eq!(fires, 3);
    worker.shutdown().await;
}

/// Counts looks for due schedules.
#[derive(Debug, Default)]
struct Counting(std::sync::atomic::AtomicU32);

impl Counting {
    fn looks(&self) -> u32 {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }
}

impl store::testing::Line for Counting {
    fn fate(&self, call: &'static str) -> store::testing::Fate {
        if call == "due_schedules" {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        store::testing::Fate::AT_ONCE
    }
}
