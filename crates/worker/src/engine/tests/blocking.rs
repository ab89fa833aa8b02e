//! Handlers that block their thread instead of waiting.

use futures_util::future::BoxFuture;
use tokio::runtime::Builder;

use super::*;
use crate::jobs::JobError;
use crate::jobs::tests::BEGUN;
use crate::testing::{Run, Script};

/// How long a handler blocks: longer than its lease lasts.
const BLOCKED: Duration = Duration::from_secs(2);

/// Blocks where it is told to.
#[derive(Debug)]
struct Blocks;

impl Script for Blocks {
    fn knows(&self, kind: &str) -> bool {
        kind.starts_with("test_")
    }

    fn run(&self, run: Run) -> BoxFuture<'static, Result<Done, JobError>> {
        Box::pin(async move {
            BEGUN.lock().unwrap().push((run.id, run.attempt));
            if run.kind == "test_block" {
                std::thread::sleep(BLOCKED);
            }
            Ok(Done::Value(json!(null)))
        })
    }
}

/// All threads of the process are blocked, and nobody takes its jobs from it.
#[tokio::test]
async fn handlers_that_block_all_threads_keep_their_leases_and_run_once() {
    let url = store::testing::database().await;
    let connect = async || Store::connect(&store::Config::new(url.as_str())).await.unwrap();
    let (store, own) = (connect().await, connect().await);
    let blocked = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let context = Context::scripted(own, config(), Uuid::now_v7(), Arc::new(Blocks));
    let worker = blocked.spawn(async { Worker::start(context) }).await.unwrap();
    let mut jobs = Vec::new();
    for _ in 0..2 {
        jobs.push(enqueue(&store, "test_block", json!({}), 1).await);
    }
    for (id, _) in &jobs {
        until(async || (!starts_of(*id).is_empty()).then_some(())).await;
    }
    // Would take over what it finds without a holder.
    let other = start(&store, config());
    let (_, free) = enqueue(&store, "test_ok", json!({}), 1).await;
    for (id, subject) in &jobs {
        assert_eq!(outcome(&store, subject).await.event_type, "JobCompleted");
        assert_eq!(starts_of(*id), [1], "no other process took it over");
    }
    outcome(&store, &free).await;
    other.shutdown().await;
    blocked.spawn(worker.shutdown()).await.unwrap();
    blocked.shutdown_background();
}
