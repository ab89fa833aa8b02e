//! The backend of our own on apalis-core: claimed jobs from a channel, nothing stored.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use apalis_core::backend::finalize::Ephemeral;
use apalis_core::backend::{Backend, BackendConfig};
use apalis_core::task::Task;
use apalis_core::worker::context::WorkerContext;
use tokio::sync::mpsc;

use super::OutcomeLayer;
use crate::claimed::ClaimedJob;

/// Yields claimed jobs. Errors of the database never reach apalis: they would end its worker.
pub(super) struct JobBackend {
    claimed: mpsc::Receiver<Arc<ClaimedJob>>,
    layer: OutcomeLayer,
}

impl JobBackend {
    pub(super) fn new(claimed: mpsc::Receiver<Arc<ClaimedJob>>, layer: OutcomeLayer) -> Self {
        Self { claimed, layer }
    }
}

impl Backend for JobBackend {
    type Task = Task<Arc<ClaimedJob>>;
    type Error = Infallible;

    /// Always ready: the engine counts the slots.
    fn poll_ready(
        &mut self,
        _: &mut Context<'_>,
        _: &WorkerContext,
    ) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        worker: &WorkerContext,
    ) -> Poll<Option<Result<Self::Task, Self::Error>>> {
        if let Some(job) = ready!(self.claimed.poll_recv(cx)) {
            return Poll::Ready(Some(Ok(Task::new(job))));
        }
        // Without this, `run()` would wait for ever after the last job.
        let _ = worker.stop();
        Poll::Ready(None)
    }

    fn poll_close(
        &mut self,
        _: &mut Context<'_>,
        _: &WorkerContext,
    ) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }
}

impl BackendConfig for JobBackend {
    type Args = Arc<ClaimedJob>;
    type Id = String;
    type Kind = Ephemeral;
    type Config = ();
    type Layer = OutcomeLayer;

    fn config(&self) -> &Self::Config {
        &()
    }

    fn middleware(&mut self, _: &mut WorkerContext) -> Self::Layer {
        self.layer.clone()
    }
}
