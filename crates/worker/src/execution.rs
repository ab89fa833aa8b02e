//! Running handlers under apalis. The engine says what a job means; apalis runs it.
//!
//! A worker of apalis-core reads claimed jobs from a channel. Layers, outside in: the outcome
//! layer, which runs the rest in a task of its own and judges how it ended, whatever that was; the
//! handler within the time limit of its kind.

use std::pin::Pin;
use std::sync::Arc;

use apalis_core::error::WorkerError;
use apalis_core::task::data::Data;
use apalis_core::worker::builder::WorkerBuilder;
use tokio::sync::mpsc;

use crate::claimed::{ClaimedJob, Ended};
use crate::context::Context;
use crate::jobs::{self, Done, JobError};
use crate::running::RunningJobs;

mod backend;
mod outcome;

use backend::JobBackend;
use outcome::OutcomeLayer;
pub(crate) use outcome::panic_text;

/// What a handler may fail with, as apalis passes it on.
type HandlerError = JobError;

/// The handler of all kinds: finds the one for the job's kind. What takes too long is dropped.
async fn handle(job: Arc<ClaimedJob>, ctx: Data<Context>) -> Result<Done, HandlerError> {
    let limit = jobs::time_limit(&ctx, &job.kind);
    let run = tokio::time::timeout(limit, jobs::run(&ctx, &job)).await;
    run.unwrap_or_else(|_| Err(JobError::retry("the handler took too long")))
}

/// Runs handlers until the engine closes its end of the channel.
pub(crate) async fn run(
    ctx: Context,
    running: RunningJobs,
    jobs: mpsc::Receiver<Arc<ClaimedJob>>,
    ended: mpsc::UnboundedSender<Ended>,
) -> Result<(), WorkerError> {
    let name = format!("tallylight-{}", ctx.process());
    let layer = OutcomeLayer::new(ended, running, Arc::clone(&ctx.metrics().jobs));
    let backend = JobBackend::new(jobs, layer);
    let worker = WorkerBuilder::new(name).backend(backend).data(ctx).build(handle);
    let run: Pin<Box<dyn Future<Output = Result<(), WorkerError>> + Send>> = Box::pin(worker.run());
    run.await
}
