//! Numbers of history. Gauges are set by the `maintain` job, so that no scrape asks the database.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Numbers of history in this process.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Segments noted.
    pub(super) segments: Gauge,
    /// Events in them.
    pub(super) sealed_events: Gauge,
    /// Events outside of the monthly partitions.
    pub(super) default_partition_rows: Gauge,
    /// Idempotency keys removed for their age.
    pub(super) keys_removed: Counter,
}

impl Metrics {
    /// All of them at zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts them under `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("segments", "Sealed segments of the log", self.segments.clone());
        registry.register("sealed_events", "Events in sealed segments", self.sealed_events.clone());
        registry.register(
            "default_partition_rows",
            "Events that met no monthly partition; alarm above 0",
            self.default_partition_rows.clone(),
        );
        registry.register(
            "event_keys_removed",
            "Idempotency keys removed for their age",
            self.keys_removed.clone(),
        );
    }
}
