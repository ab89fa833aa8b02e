//! The numbers of jobs by kind: runs and how they ended, how long jobs waited for their start, how
//! long they ran.
//!
//! A kind is looked up once a call and without an allocation, since this stands in the way of every
//! job. Kinds are those of this build, so there are few.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// How runs end.
const OUTCOMES: [&str; 8] = [
    "completed",
    "failed",
    "snoozed",
    "waiting",
    "discarded",
    "quarantined",
    "cancelled",
    "interrupted",
];

/// Bounds in seconds: from an idle engine's pickup to a backlog, from a quick handler to one near
/// its time limit.
const SECONDS: [f64; 16] = [
    0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    300.0,
];

/// Jobs of a kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: String,
}

/// Runs of a kind by how they ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    kind: String,
    outcome: &'static str,
}

/// The numbers of one kind, each also a member of its family.
#[derive(Debug)]
struct OfKind {
    claimed: Counter,
    pickup: Histogram,
    run: Histogram,
    ended: [Counter; OUTCOMES.len()],
    dropped: Counter,
}

/// A family of histograms.
type Times = Family<KindLabels, Histogram, fn() -> Histogram>;

/// The numbers of jobs of one worker.
#[derive(Debug)]
pub(crate) struct JobMetrics {
    kinds: RwLock<HashMap<String, Arc<OfKind>>>,
    claimed: Family<KindLabels, Counter>,
    pickup: Times,
    run: Times,
    ended: Family<OutcomeLabels, Counter>,
    dropped: Family<KindLabels, Counter>,
    /// Runs of former holders found to have ended with their process.
    pub(crate) crashed: Counter,
    /// Runs of this process that lost their lease and lived.
    pub(crate) acquitted: Counter,
}

impl JobMetrics {
    /// All at zero.
    pub(crate) fn new() -> Self {
        let times: fn() -> Histogram = || Histogram::new(SECONDS);
        Self {
            kinds: RwLock::default(),
            claimed: Family::default(),
            pickup: Times::new_with_constructor(times),
            run: Times::new_with_constructor(times),
            ended: Family::default(),
            dropped: Family::default(),
            crashed: Counter::default(),
            acquitted: Counter::default(),
        }
    }

    /// Puts them under a registry, which adds the prefix.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register("jobs_claimed", "Runs of jobs started", self.claimed.clone());
        registry.register(
            "job_pickup_seconds",
            "From when a job was due, by the database's clock, to its start",
            self.pickup.clone(),
        );
        registry.register("job_run_seconds", "Time of a run of a job", self.run.clone());
        registry.register("jobs_ended", "Runs of jobs ended, by outcome", self.ended.clone());
        registry.register(
            "job_ends_dropped",
            "Ends of runs that were not stored, since their lease had passed or somebody else had ended the job",
            self.dropped.clone(),
        );
        registry.register(
            "jobs_crashed",
            "Runs of former holders found to have ended with their process",
            self.crashed.clone(),
        );
        registry.register(
            "jobs_acquitted",
            "Runs that lost their lease while this process lived",
            self.acquitted.clone(),
        );
    }

    /// A job of `kind` starts that has been due for so long.
    pub(crate) fn started(&self, kind: &str, waited: Duration) {
        let of = self.of(kind);
        of.claimed.inc();
        of.pickup.observe(waited.as_secs_f64());
    }

    /// A handler has ended after so long.
    pub(crate) fn ran(&self, kind: &str, took: Duration) {
        self.of(kind).run.observe(took.as_secs_f64());
    }

    /// A run ended.
    pub(crate) fn ended(&self, kind: &str, outcome: &'static str) {
        let nth = OUTCOMES.iter().position(|known| *known == outcome);
        if let Some(ended) = nth.and_then(|nth| self.of(kind).ended.get(nth).cloned()) {
            ended.inc();
        }
    }

    /// The end of a run was not stored.
    pub(crate) fn dropped(&self, kind: &str) {
        self.of(kind).dropped.inc();
    }

    /// The numbers of a kind.
    fn of(&self, kind: &str) -> Arc<OfKind> {
        if let Some(of) = self.kinds.read().unwrap_or_else(PoisonError::into_inner).get(kind) {
            return Arc::clone(of);
        }
        let labels = KindLabels { kind: kind.to_owned() };
        let ended = OUTCOMES.map(|outcome| {
            let labels = OutcomeLabels { kind: kind.to_owned(), outcome };
            self.ended.get_or_create_owned(&labels)
        });
        let of = Arc::new(OfKind {
            claimed: self.claimed.get_or_create_owned(&labels),
            pickup: self.pickup.get_or_create_owned(&labels),
            run: self.run.get_or_create_owned(&labels),
            dropped: self.dropped.get_or_create_owned(&labels),
            ended,
        });
        let mut kinds = self.kinds.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(kinds.entry(kind.to_owned()).or_insert(of))
    }
}
