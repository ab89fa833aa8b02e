//! A worker in a test: jobs run by a script instead of the handlers that call the platform, and the
//! process has the id that the test gives it. The store may be `store::testing::Memory`, and the
//! clock of `Config` the test's own: docs/adr/0014-store-as-traits.md.
//!
//! [`Kit`] puts all of that together for tests of handlers: docs/testing.md.

use std::fmt;

use domain::ids::Subject;
use futures_util::future::BoxFuture;
use serde_json::Value;
use uuid::Uuid;

use crate::claimed::ClaimedJob;
use crate::jobs::{Done, JobError};
use crate::steps::Steps;

mod clock;
mod faults;
mod handlers;
mod kit;
mod report;

pub use faults::Fault;
pub use handlers::Handlers;
pub use kit::{Kit, Settings};
pub use report::Report;

/// Faults of ours that a test plants in what handlers decide, to see that they are noticed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flaws {
    /// No handler looks before it acts, whatever an earlier start may have done.
    pub never_looks: bool,
}

/// Handlers in the place of the real ones.
pub trait Script: fmt::Debug + Send + Sync {
    /// Whether it runs jobs of `kind`.
    fn knows(&self, kind: &str) -> bool;

    /// Whether the starts of jobs of `kind` are marked.
    fn is_marked(&self, _kind: &str) -> bool {
        true
    }

    /// Runs a job.
    fn run(&self, run: Run) -> BoxFuture<'static, Result<Done, JobError>>;

    /// Runs a job that may have steps.
    fn run_with(&self, run: Run, _: Steps) -> BoxFuture<'static, Result<Done, JobError>> {
        self.run(run)
    }
}

/// A start of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// The job.
    pub id: Uuid,
    /// Its slice.
    pub slice: i16,
    /// The lease it runs under.
    pub epoch: i64,
    /// Its kind.
    pub kind: String,
    /// What it is about.
    pub subject: Subject,
    /// The handler's arguments.
    pub args: Value,
    /// This start's number, from 1.
    pub attempt: i32,
}

impl Run {
    pub(crate) fn of(job: &ClaimedJob) -> Self {
        let ClaimedJob { id, slice, epoch, kind, subject, args, attempt, .. } = job.clone();
        Self { id, slice, epoch, kind, subject, args, attempt }
    }
}

#[cfg(test)]
mod tests;
