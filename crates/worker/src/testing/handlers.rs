//! Handlers of a kit, by kind.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::{Run, Script};
use crate::jobs::{Done, JobError};

type Handler = Arc<dyn Fn(Run) -> BoxFuture<'static, Result<Done, JobError>> + Send + Sync>;

/// Handlers by the kind of their jobs.
#[derive(Clone, Default)]
pub struct Handlers(BTreeMap<String, Handler>);

impl Handlers {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with `handler` for jobs of `kind`, in the place of an earlier one.
    #[must_use]
    pub fn on<F>(
        mut self,
        kind: impl Into<String>,
        handler: impl Fn(Run) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<Done, JobError>> + Send + 'static,
    {
        self.0.insert(kind.into(), Arc::new(move |run| Box::pin(handler(run))));
        self
    }
}

impl fmt::Debug for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Script for Handlers {
    fn knows(&self, kind: &str) -> bool {
        self.0.contains_key(kind)
    }

    fn run(&self, run: Run) -> BoxFuture<'static, Result<Done, JobError>> {
        match self.0.get(&run.kind) {
            Some(handler) => handler(run),
            // Nobody asks for a kind that is not known.
            None => Box::pin(async move {
                Err(JobError::Fail { reason: format!("no handler for \"{}\"", run.kind) })
            }),
        }
    }
}
