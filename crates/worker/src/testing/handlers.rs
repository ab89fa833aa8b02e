//! Handlers of a kit, by kind.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::{Run, Script};
use crate::jobs::{Done, JobError};
use crate::steps::Steps;

type Handler =
    Arc<dyn Fn(Run, Option<Steps>) -> BoxFuture<'static, Result<Done, JobError>> + Send + Sync>;

/// Handlers by the kind of their jobs.
#[derive(Clone, Default)]
pub struct Handlers {
    by_kind: BTreeMap<String, Handler>,
    unmarked: BTreeSet<String>,
}

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
        self.by_kind.insert(kind.into(), Arc::new(move |run, _| Box::pin(handler(run))));
        self
    }

    /// The same with a handler that has [`Steps`]: what is done is kept, and it may wait.
    #[must_use]
    pub fn on_steps<F>(
        mut self,
        kind: impl Into<String>,
        handler: impl Fn(Run, Steps) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<Done, JobError>> + Send + 'static,
    {
        let with_steps: Handler = Arc::new(move |run, steps| match steps {
            Some(steps) => Box::pin(handler(run, steps)),
            None => Box::pin(async { Err(JobError::fail("it runs with steps alone")) }),
        });
        self.by_kind.insert(kind.into(), with_steps);
        self
    }

    /// The same with starts of `kind` that are not marked: they cost no write, and no crash of them
    /// is counted.
    #[must_use]
    pub fn unmarked(mut self, kind: impl Into<String>) -> Self {
        self.unmarked.insert(kind.into());
        self
    }

    fn handle(&self, run: Run, steps: Option<Steps>) -> BoxFuture<'static, Result<Done, JobError>> {
        match self.by_kind.get(&run.kind) {
            Some(handler) => handler(run, steps),
            // Nobody asks for a kind that is not known.
            None => Box::pin(async move {
                Err(JobError::Fail { reason: format!("no handler for \"{}\"", run.kind) })
            }),
        }
    }
}

impl fmt::Debug for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_kind.keys()).finish()
    }
}

impl Script for Handlers {
    fn knows(&self, kind: &str) -> bool {
        self.by_kind.contains_key(kind)
    }

    fn is_marked(&self, kind: &str) -> bool {
        !self.unmarked.contains(kind)
    }

    fn run(&self, run: Run) -> BoxFuture<'static, Result<Done, JobError>> {
        self.handle(run, None)
    }

    fn run_with(&self, run: Run, steps: Steps) -> BoxFuture<'static, Result<Done, JobError>> {
        self.handle(run, Some(steps))
    }
}
