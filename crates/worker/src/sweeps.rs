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

/// What is remembered of one source.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sweep {
    /// When it was looked at.
    pub(crate) swept: Swept,
    /// Pages of the list of live streams, when it was last walked to its end.
    pub(crate) pages: usize,
}

/// What is remembered of all sources.
#[derive(Debug, Default)]
pub(crate) struct Sweeps {
    swept: Mutex<HashMap<String, Sweep>>,
    /// Up to which session, in the order of their ends, old recordings were gone through.
    places: Mutex<HashMap<String, AfterSession>>,
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

    /// Where the round through old recordings stands; `None`: it begins anew.
    pub(crate) fn place(&self, source: &str) -> Option<AfterSession> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).get(source).copied()
    }

    /// Remembers where it stands; `None`: it is over.
    pub(crate) fn go_on_from(&self, source: &str, place: Option<AfterSession>) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        match place {
            Some(place) => places.insert(source.to_owned(), place),
            None => places.remove(source),
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
