//! Handlers of one's own: kinds of jobs beside those that Tallylight brings.
//!
//! A program hands them to its processes, and its jobs are then as all others: enqueued by SQL, HTTP
//! or command, with limits, steps, dead letters and a history. How to write one is told in
//! `docs/handlers.md`, how to test one in `docs/testing.md`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use domain::ids::Subject;
use futures_util::future::BoxFuture;
use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

use crate::claimed::ClaimedJob;
use crate::jobs::{self, Done, JobError};
use crate::steps::Steps;

/// A start of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// The job. It stays the same from start to start: an idempotency key for what it calls.
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
    /// This start's number, from 1. Above 1: an earlier start may have had its effect.
    pub attempt: i32,
}

impl Run {
    pub(crate) fn of(job: &ClaimedJob) -> Self {
        Self {
            id: job.id,
            slice: job.slice,
            epoch: job.epoch,
            kind: job.kind.clone(),
            subject: job.subject.clone(),
            args: job.args.clone(),
            attempt: job.attempt,
        }
    }

    /// The arguments as a type.
    ///
    /// # Errors
    /// [`JobError::Retry`] where they are none: a newer build may know them, during a rolling deploy.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, JobError> {
        T::deserialize(&self.args)
            .map_err(|error| JobError::retry(format!("its arguments cannot be read: {error}")))
    }
}

/// What runs jobs of some kinds.
pub trait Script: fmt::Debug + Send + Sync {
    /// Whether it runs jobs of `kind`.
    fn knows(&self, kind: &str) -> bool;

    /// Whether the starts of jobs of `kind` are marked.
    fn is_marked(&self, _kind: &str) -> bool {
        true
    }

    /// How long a run of `kind` may take; `None`: as long as others.
    fn time_limit(&self, _kind: &str) -> Option<Duration> {
        None
    }

    /// Runs a job.
    fn run(&self, run: Run) -> BoxFuture<'static, Result<Done, JobError>>;

    /// Runs a job that may have steps.
    fn run_with(&self, run: Run, _: Steps) -> BoxFuture<'static, Result<Done, JobError>> {
        self.run(run)
    }
}

type Handler =
    Arc<dyn Fn(Run, Option<Steps>) -> BoxFuture<'static, Result<Done, JobError>> + Send + Sync>;

/// Handlers by the kind of their jobs.
#[derive(Clone, Default)]
pub struct Handlers {
    by_kind: BTreeMap<String, Handler>,
    /// How the kinds run, where somebody said.
    manners: BTreeMap<String, Manner>,
}

/// How jobs of a kind run.
#[derive(Debug, Clone, Copy, Default)]
struct Manner {
    is_unmarked: bool,
    time_limit: Option<Duration>,
}

/// A kind that cannot be one's own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KindError {
    /// Tallylight has a handler for it.
    #[error("the kind \"{kind}\" is one of Tallylight's own: give yours another name")]
    Taken {
        /// The kind.
        kind: String,
    },
    /// No job could have it.
    #[error(
        "\"{kind}\" cannot be a kind: it must be 1 to 63 of a-z, 0-9, _ and begin with a letter"
    )]
    Name {
        /// What was given.
        kind: String,
    },
    /// It was said how it runs, and not what runs it.
    #[error("the kind \"{kind}\" has a time limit or is unmarked, but has no handler")]
    NoHandler {
        /// The kind.
        kind: String,
    },
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
        self.manners.entry(kind.into()).or_default().is_unmarked = true;
        self
    }

    /// The same with runs of `kind` that may take so long, instead of the two minutes that others
    /// may. What takes longer is stopped at its next await, and has failed.
    #[must_use]
    pub fn time_limit(mut self, kind: impl Into<String>, limit: Duration) -> Self {
        self.manners.entry(kind.into()).or_default().time_limit = Some(limit);
        self
    }

    /// The kinds that have a handler.
    pub fn kinds(&self) -> impl Iterator<Item = &str> {
        self.by_kind.keys().map(String::as_str)
    }

    /// Whether these can stand beside Tallylight's own.
    ///
    /// # Errors
    /// The first kind that cannot.
    pub fn check(&self) -> Result<(), KindError> {
        for kind in self.kinds().map(ToOwned::to_owned) {
            if jobs::knows(&kind) {
                return Err(KindError::Taken { kind });
            }
            if !is_name(&kind) {
                return Err(KindError::Name { kind });
            }
        }
        match self.manners.keys().find(|kind| !self.by_kind.contains_key(*kind)) {
            Some(kind) => Err(KindError::NoHandler { kind: kind.clone() }),
            None => Ok(()),
        }
    }

    fn manner(&self, kind: &str) -> Manner {
        self.manners.get(kind).copied().unwrap_or_default()
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

/// What the database takes as a kind.
fn is_name(kind: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    kind.len() <= 63
        && kind.starts_with(|c: char| c.is_ascii_lowercase())
        && kind.bytes().all(plain)
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
        !self.manner(kind).is_unmarked
    }

    fn time_limit(&self, kind: &str) -> Option<Duration> {
        self.manner(kind).time_limit
    }

    fn run(&self, run: Run) -> BoxFuture<'static, Result<Done, JobError>> {
        self.handle(run, None)
    }

    fn run_with(&self, run: Run, steps: Steps) -> BoxFuture<'static, Result<Done, JobError>> {
        self.handle(run, Some(steps))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(kind: &str) -> Handlers {
        Handlers::new().on(kind, |_| async { Ok(Done::Quiet) })
    }

    #[test]
    fn kinds_of_ones_own_stand_beside_ours() {
        on("send_mail").time_limit("send_mail", Duration::from_hours(1)).check().unwrap();
        let taken = ["http_call", "timer", "fetch_video", "deliver_webhook"];
        for kind in taken.map(str::to_owned) {
            assert_eq!(on(&kind).check(), Err(KindError::Taken { kind }));
        }
        for kind in ["", "Mail", "9_lives", "send-mail", &"a".repeat(64)].map(str::to_owned) {
            assert_eq!(on(&kind).check(), Err(KindError::Name { kind }));
        }
        let kind = "send_mial".to_owned();
        let misspelt = on("send_mail").unmarked(&kind);
        assert_eq!(misspelt.check(), Err(KindError::NoHandler { kind }));
    }
}
