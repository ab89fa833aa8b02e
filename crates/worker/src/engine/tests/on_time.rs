//! Delayed jobs start when they are due, and not when somebody happens to look.

use store::Log as _;

use super::*;

/// A process that looks only when it is told or when something is due.
fn quiet() -> Config {
    let quiet = Duration::from_mins(10);
    Config { lease: quiet, poll: quiet, ..config() }
}

fn due_in(delay: Duration, from: Timestamp) -> EnqueueOptions {
    EnqueueOptions { run_at: Some(from + delay), ..EnqueueOptions::default() }
}

#[tokio::test]
async fn a_delayed_job_starts_on_time_without_a_poll() {
    let store = store::testing::store().await;
    let worker = start(&store, quiet());
    until(async || {
        let slices = store.slice_status().await.unwrap();
        slices.iter().all(|s| s.owner.is_some()).then_some(())
    })
    .await;
    let elsewhere = store.notifier();
    let delay = Duration::from_millis(300);
    for round in 0..3 {
        let begun = Instant::now();
        let options = due_in(delay, now());
        let run_at = options.run_at.unwrap();
        let id = store.enqueue("test_ok", &json!({}), &options).await.unwrap();
        elsewhere.enqueued(store.slice_of(&Subject::job(id)));
        until(async || (starts_of(id) == [1]).then_some(())).await;
        let took = begun.elapsed();
        assert!(now() >= run_at, "round {round}: too early");
        assert!(took < delay + Duration::from_secs(2), "round {round}: {took:?}");
    }
    worker.shutdown().await;
}

/// A line on which answers about due jobs take their time.
#[derive(Debug)]
struct SlowLook;

impl Line for SlowLook {
    fn fate(&self, call: &'static str) -> Fate {
        match call {
            "due_jobs" => Fate::Answered { there: Duration::ZERO, back: Duration::from_millis(50) },
            _ => Fate::AT_ONCE,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_that_becomes_due_during_a_look_does_not_wait_for_the_next_poll() {
    let (began, base) = (Instant::now(), now());
    let clock = move || base + began.elapsed();
    let memory = Memory::new(SliceCount::DEFAULT, clock);
    let store = memory.over(Arc::new(SlowLook));
    let worker = Worker::start(Context::scripted(store, quiet(), Uuid::nil(), Arc::new(TestKinds)));
    let idle = Duration::from_secs(5);
    tokio::time::sleep(idle).await;
    let options = due_in(Duration::from_millis(20), clock());
    let id = memory.enqueue("test_ok", &json!({}), &options).await.unwrap();
    memory.notifier().enqueued(memory.slice_of(&Subject::job(id)));
    let asked = Instant::now();
    // Ids of the in-memory store are the same in every test, so the log is asked.
    let done = async || {
        tokio::time::sleep(Duration::from_millis(1)).await;
        memory.read_subject(&Subject::job(id), 0, 1).await.unwrap().pop()
    };
    assert_eq!(until(done).await.event_type, "JobCompleted");
    assert!(asked.elapsed() < Duration::from_millis(500), "{:?}", asked.elapsed());
    worker.shutdown().await;
}
