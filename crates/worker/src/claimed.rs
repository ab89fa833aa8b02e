//! A job on its way through this process: claimed, run, ended.

use std::sync::Arc;
use std::time::Duration;

use domain::ids::Subject;
use serde_json::Value;
use store::DueJob;
use uuid::Uuid;

use crate::jobs::Done;

/// Crashes from which on a job is a *suspect*, which runs while no other suspect runs in its
/// process: then the next crash tells which of them takes processes with it, and the others end and
/// are cleared. Not from the first on, since a process that was merely killed, by a deployment or
/// for want of memory, leaves as many as it ran, which are to go on at once and side by side.
pub const SUSPECT: i32 = 2;

/// A job whose start is marked: this process may run it.
#[derive(Debug, Clone)]
pub(crate) struct ClaimedJob {
    /// Its slice.
    pub(crate) slice: i16,
    /// The lease it runs under.
    pub(crate) epoch: i64,
    /// Its id.
    pub(crate) id: Uuid,
    /// Which handler runs it.
    pub(crate) kind: String,
    /// What it is about.
    pub(crate) subject: Subject,
    /// The handler's arguments.
    pub(crate) args: Value,
    /// This start's number. Above 1: an earlier one may have had its effect. Look first.
    pub(crate) attempt: i32,
    /// Failures so far.
    pub(crate) errors: i32,
    /// Failures after which it is discarded.
    pub(crate) max_attempts: i32,
    /// The event that caused it.
    pub(crate) causation_id: Option<Uuid>,
    /// What started the whole chain.
    pub(crate) correlation_id: Option<Uuid>,
    /// What it has of steps and of a parent.
    pub(crate) waits: Option<Value>,
}

impl ClaimedJob {
    /// A due job, started under `epoch`.
    pub(crate) fn new(due: DueJob, epoch: i64, attempt: i32) -> Self {
        Self {
            waits: due.waits,
            slice: due.slice,
            epoch,
            id: due.id,
            kind: due.kind,
            subject: due.subject,
            args: due.args,
            attempt,
            errors: due.errors,
            max_attempts: due.max_attempts,
            causation_id: due.causation_id,
            correlation_id: due.correlation_id,
        }
    }
}

/// A run that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The job.
    pub(crate) job: Arc<ClaimedJob>,
    /// How it ended.
    pub(crate) verdict: Verdict,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// The handler did its work.
    Done(Done),
    /// It failed; perhaps not the next time.
    Retry {
        /// What the other side asked to wait.
        after: Option<Duration>,
        /// Why, for people.
        reason: String,
    },
    /// It is not time yet; no failure.
    Snooze {
        /// How long.
        after: Duration,
        /// Why, for people.
        reason: String,
    },
    /// It waits for a step of its own; no failure.
    Wait {
        /// The step.
        step: String,
    },
    /// It failed for good.
    Fail {
        /// Why, for people.
        reason: String,
    },
    /// Nobody needs it any more.
    Cancel {
        /// Why, for people.
        reason: String,
    },
    /// It was interrupted by a stop, a lost lease or a cancellation.
    Interrupted,
}
