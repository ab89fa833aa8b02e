//! Settings of a worker process.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use domain::cleanup::Rules;
use domain::ids::Timestamp;
use domain::timer::Policy;
use platform::outbound::Outbound;
use rand::RngExt as _;

use crate::calls::Rates;
use crate::handlers::Handlers;

/// Settings; the defaults suit production.
#[derive(Debug, Clone)]
pub struct Config {
    /// How long a lease lasts without renewal: the time a dead process's slices stand still.
    pub lease: Duration,
    /// Longest wait for news that no wake-up told.
    pub poll: Duration,
    /// Jobs that run at once.
    pub concurrency: usize,
    /// Longest run of a handler, but where its kind has a limit of its own; above the platform client's own 30 s for one call, since a
    /// handler may look before it acts.
    pub job_timeout: Duration,
    /// Most events of a slice folded in one transaction; fewer where they take long.
    pub batch: usize,
    /// Slices folded at once.
    pub folds: usize,
    /// Most subjects of a slice whose folded state is kept in memory.
    pub cached_states: usize,
    /// A slice that has something to apply and does not move for this long is ill.
    pub stall: Duration,
    /// Time that running handlers get when the process stops.
    pub grace: Duration,
    /// How long sessions wait for what.
    pub policy: Policy,
    /// A month of the log is sealed this long after its end; `None`: never.
    pub seal_after: Option<Duration>,
    /// Jobs are counted for the numbers of this process this often, at most; `None`: never.
    pub sample_every: Option<Duration>,
    /// Live rows of some slices are compared with the log this often; `None`: never.
    pub verify_every: Option<Duration>,
    /// Idempotency keys are removed at this age; at least 7 days.
    pub keys_for: Duration,
    /// The history of jobs is dropped at this age; at least a day.
    pub keep_job_history: Duration,
    /// Where jobs of kind `http_call` may call.
    pub outbound: Outbound,
    /// Where messages to endpoints may be sent.
    pub endpoints: Outbound,
    /// An endpoint that accepted nothing for this long is disabled; `None`: never.
    pub disable_endpoints_after: Option<Duration>,
    /// How fast targets may be called, by all processes together.
    pub rates: Rates,
    /// What cleanup may delete, by source; one that is missing has the default rules.
    pub cleanup: HashMap<String, Rules>,
    /// Kinds of one's own.
    pub handlers: Handlers,
    /// The clock that dates what this process observes.
    pub clock: fn() -> Timestamp,
    /// Chance, from 0 to 1: it spreads what is tried again.
    pub chance: fn() -> f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(10),
            poll: Duration::from_millis(200),
            concurrency: 64,
            job_timeout: Duration::from_mins(2),
            batch: 1_000,
            folds: 4,
            cached_states: 2_048,
            stall: Duration::from_secs(30),
            grace: Duration::from_secs(10),
            policy: Policy::default(),
            seal_after: None,
            sample_every: Some(Duration::from_secs(15)),
            verify_every: Some(Duration::from_hours(24)),
            keys_for: Duration::from_hours(90 * 24),
            keep_job_history: Duration::from_hours(30 * 24),
            outbound: Outbound::default(),
            endpoints: Outbound::default(),
            disable_endpoints_after: Some(Duration::from_hours(5 * 24)),
            rates: Rates::default(),
            cleanup: HashMap::new(),
            handlers: Handlers::default(),
            clock: || SystemTime::now().into(),
            chance: || rand::rng().random(),
        }
    }
}
