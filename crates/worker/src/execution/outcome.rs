//! The outcome layer: runs a job in a task of its own and tells the engine how it ended.
//!
//! Outermost, so that a time-out, a panic and a cancellation are outcomes too. A run that is
//! dropped without a verdict tells that it was interrupted.

use std::any::Any;
use std::convert::Infallible;
use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use apalis_core::error::BoxDynError;
use apalis_core::task::Task;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;
use tower::{Layer, Service};

use crate::claimed::{ClaimedJob, Ended, Verdict};
use crate::jobs::{Done, JobError};
use crate::metrics::JobMetrics;
use crate::running::RunningJobs;

/// Wraps the handlers of a worker.
#[derive(Debug, Clone)]
pub(super) struct OutcomeLayer {
    ended: mpsc::UnboundedSender<Ended>,
    running: RunningJobs,
    metrics: Arc<JobMetrics>,
}

impl OutcomeLayer {
    pub(super) fn new(
        ended: mpsc::UnboundedSender<Ended>,
        running: RunningJobs,
        metrics: Arc<JobMetrics>,
    ) -> Self {
        Self { ended, running, metrics }
    }
}

impl<S> Layer<S> for OutcomeLayer {
    type Service = OutcomeService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        OutcomeService { inner, layer: self.clone() }
    }
}

/// The wrapped handlers.
#[derive(Debug, Clone)]
pub(super) struct OutcomeService<S> {
    inner: S,
    layer: OutcomeLayer,
}

impl<S> Service<Task<Arc<ClaimedJob>>> for OutcomeService<S>
where
    S: Service<Task<Arc<ClaimedJob>>, Response = Done, Error = BoxDynError>,
    S::Future: Send + 'static,
{
    type Response = ();
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<(), Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        // Readiness of the layers inside is never refused: the engine counts the slots.
        let _ = self.inner.poll_ready(cx);
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, task: Task<Arc<ClaimedJob>>) -> Self::Future {
        let job = Arc::clone(&task.args);
        let run = AbortOnDrop(tokio::spawn(self.inner.call(task)));
        self.layer.running.set_handle(job.id, run.0.abort_handle());
        let report = Report { layer: self.layer.clone(), job: Some(job), begun: Instant::now() };
        Box::pin(async move {
            report.send(judge(run.join().await));
            Ok(())
        })
    }
}

/// The task of a run. Dropping it cancels the run: a detached one would go on calling.
struct AbortOnDrop(JoinHandle<Result<Done, BoxDynError>>);

impl AbortOnDrop {
    async fn join(mut self) -> Result<Result<Done, BoxDynError>, JoinError> {
        (&mut self.0).await
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Tells the engine once.
struct Report {
    layer: OutcomeLayer,
    job: Option<Arc<ClaimedJob>>,
    begun: Instant,
}

impl Report {
    fn send(mut self, verdict: Verdict) {
        self.tell(verdict);
    }

    fn tell(&mut self, verdict: Verdict) {
        if let Some(job) = self.job.take() {
            self.layer.metrics.ran(&job.kind, self.begun.elapsed());
            // The engine outlives its handlers; if it is gone, so is the process.
            let _ = self.layer.ended.send(Ended { job, verdict });
        }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        self.tell(Verdict::Interrupted);
    }
}

/// How a run ended, from what its task returned.
fn judge(run: Result<Result<Done, BoxDynError>, JoinError>) -> Verdict {
    match run {
        Ok(Ok(done)) => Verdict::Done(done),
        Ok(Err(error)) => judge_error(&*error),
        Err(error) if error.is_cancelled() => Verdict::Interrupted,
        Err(error) => {
            let reason =
                format!("the handler panicked: {}", panic_text(error.into_panic().as_ref()));
            Verdict::Retry { after: None, reason }
        }
    }
}

/// How a failed run ended: the handler's own word if it is found among the causes.
fn judge_error(error: &(dyn Error + Send + Sync + 'static)) -> Verdict {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(error) = current.downcast_ref::<JobError>() {
            return error.clone().into();
        }
        cause = current.source();
    }
    Verdict::Retry { after: None, reason: error.to_string() }
}

impl From<JobError> for Verdict {
    fn from(error: JobError) -> Self {
        match error {
            JobError::Retry { after, reason } => Self::Retry { after, reason },
            JobError::Snooze { after, reason } => Self::Snooze { after, reason },
            JobError::Wait { step } => Self::Wait { step },
            JobError::Fail { reason } => Self::Fail { reason },
            JobError::Cancel { reason } => Self::Cancel { reason },
        }
    }
}

/// The text of a panic.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text")
}
