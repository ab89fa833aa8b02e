//! What this process remembers of its sweeps, by source: when it looked last, how long the list of
//! live streams was, and how far it came with old recordings.
//!
//! Nowhere else, on purpose: a process that remembers nothing looks at everything at once, and that
//! is right after it started, took a slice over or stood still.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use domain::reconcile::Swept;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use store::AfterSession;
use uuid::Uuid;

/// What is remembered of one source.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sweep {
    /// When it was looked at.
    pub(crate) swept: Swept,
    /// Pages of the list of live streams, when it was last walked to its end.
    pub(crate) pages: usize,
}

/// How far a round through old recordings has come.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Round {
    /// The last session that was looked at, in the order of their ends.
    pub(crate) after: AfterSession,
    /// Videos that were looked at.
    pub(crate) looks: usize,
    /// Of these, seen otherwise than they were known.
    pub(crate) differences: usize,
}

/// What is remembered of all sources.
#[derive(Debug, Default)]
pub(crate) struct Sweeps {
    swept: Mutex<HashMap<String, Sweep>>,
    /// By job.
    rounds: Mutex<HashMap<Uuid, Round>>,
}

impl Sweeps {
    /// The last sweep of a source by this process.
    pub(crate) fn of(&self, source: &str) -> Option<Sweep> {
        self.swept.lock().unwrap_or_else(PoisonError::into_inner).get(source).copied()
    }

    /// Remembers a sweep.
    pub(crate) fn remember(&self, source: &str, sweep: Sweep) {
        self.swept.lock().unwrap_or_else(PoisonError::into_inner).insert(source.to_owned(), sweep);
    }

    /// How far the round of a job has come; `None`: it begins.
    pub(crate) fn round(&self, job: Uuid) -> Option<Round> {
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner).get(&job).copied()
    }

    /// Remembers how far it has come; `None`: it is over.
    pub(crate) fn go_on_from(&self, job: Uuid, round: Option<Round>) {
        let mut rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        match round {
            Some(round) => rounds.insert(job, round),
            None => rounds.remove(&job),
        };
    }
}

/// A source.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    source: String,
}

/// The numbers of sweeps.
#[derive(Debug, Clone, Default)]
pub(crate) struct Numbers {
    looks: Family<Labels, Counter>,
    differences: Family<Labels, Counter>,
}

impl Numbers {
    /// Puts them under a registry.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "sweep_looks",
            "Live streams and videos that sweeps looked at",
            self.looks.clone(),
        );
        registry.register(
            "sweep_differences",
            "Live streams that a sweep saw otherwise than they were known: what no webhook told",
            self.differences.clone(),
        );
    }

    /// A sweep looked at so many, of which so many differed.
    pub(crate) fn swept(&self, source: &str, looks: usize, differences: usize) {
        let labels = Labels { source: source.to_owned() };
        let count = |n: usize| u64::try_from(n).unwrap_or_default();
        self.looks.get_or_create(&labels).inc_by(count(looks));
        self.differences.get_or_create(&labels).inc_by(count(differences));
    }
}
