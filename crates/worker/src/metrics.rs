//! The numbers of a worker: what it applied, how far behind it is, what became of its jobs.
//!
//! Counted where it happens. Lag and parked events are read from memory when somebody asks, so
//! that a slice that stands still shows a growing lag; nothing here asks the database.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use domain::limit::Limit;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use store::{Consumer, Verified};

use crate::calls::CallMetrics;
use crate::deliveries;
use crate::gauges::Gauges;
use crate::progress::{Progress, SliceProgress};
use crate::schedules;
use crate::sweeps;

mod jobs;
mod quota;

pub(crate) use jobs::JobMetrics;
pub(crate) use quota::QuotaGauges;

/// A slice of a consumer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SliceLabels {
    consumer: &'static str,
    slice: i16,
}

/// A consumer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConsumerLabels {
    consumer: &'static str,
}

/// The numbers of one worker. A clone is the same numbers.
#[derive(Debug, Clone)]
pub struct Metrics {
    progress: Progress,
    /// Events applied, in batches and out of the parked ones.
    pub(crate) events_applied: Counter,
    /// Events without a meaning to this build, which passed.
    pub(crate) events_unrecognized: Counter,
    /// Holes found in the log.
    pub(crate) holes: Counter,
    pub(crate) verify_mismatch: Counter,
    pub(crate) replay_events_per_second: Gauge<f64, AtomicU64>,
    batch_events: Histogram,
    batch_seconds: Histogram,
    fenced: Family<ConsumerLabels, Counter>,
    rebalances: Family<ConsumerLabels, Counter>,
    limits_exceeded: Family<LimitLabels, Counter>,
    /// Looks for due jobs, of two statements each.
    pub(crate) job_looks: Counter,
    pub(crate) jobs: Arc<JobMetrics>,
    pub(crate) gauges: Gauges,
    pub(crate) calls: CallMetrics,
    pub(crate) schedules: schedules::Numbers,
    pub(crate) webhooks: deliveries::Numbers,
    pub(crate) sweeps: sweeps::Numbers,
}

/// What was exceeded.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabels {
    limit: &'static str,
}

/// None of them exceeded so far: a rule sees the first one only where there was a zero before.
fn limits_exceeded() -> Family<LimitLabels, Counter> {
    let family = Family::<LimitLabels, Counter>::default();
    for limit in Limit::ALL {
        drop(family.get_or_create(&LimitLabels { limit: limit.name() }));
    }
    family
}

impl Metrics {
    /// All at zero.
    pub(crate) fn new(progress: Progress) -> Self {
        Self {
            progress,
            events_applied: Counter::default(),
            events_unrecognized: Counter::default(),
            holes: Counter::default(),
            verify_mismatch: Counter::default(),
            replay_events_per_second: Gauge::default(),
            // 1 to 1024 events, half a millisecond to a second.
            batch_events: Histogram::new(exponential_buckets(1.0, 2.0, 11)),
            batch_seconds: Histogram::new(exponential_buckets(0.000_5, 2.0, 12)),
            fenced: Family::default(),
            rebalances: Family::default(),
            limits_exceeded: limits_exceeded(),
            job_looks: Counter::default(),
            jobs: Arc::new(JobMetrics::new()),
            gauges: Gauges::default(),
            calls: CallMetrics::default(),
            schedules: schedules::Numbers::new(),
            webhooks: deliveries::Numbers::default(),
            sweeps: sweeps::Numbers::default(),
        }
    }

    /// Puts them under a registry, which adds the prefix.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("events_applied", "Events applied", self.events_applied.clone());
        registry.register(
            "events_unrecognized",
            "Events of a type or shape that this build does not know, passed without effect",
            self.events_unrecognized.clone(),
        );
        registry.register(
            "consumer_batch_events",
            "Events in one transaction of a consumer",
            self.batch_events.clone(),
        );
        registry.register(
            "consumer_batch_seconds",
            "Seconds from reading a batch to its commit",
            self.batch_seconds.clone(),
        );
        registry.register(
            "fenced",
            "Leases found to have passed to another process",
            self.fenced.clone(),
        );
        registry.register(
            "rebalances",
            "Leases claimed or given away because the processes changed",
            self.rebalances.clone(),
        );
        registry.register(
            "limits_exceeded",
            "Waits of sessions that took longer than the policy allows, and encoders in a loop",
            self.limits_exceeded.clone(),
        );
        registry.register("holes_detected", "Missing positions; must be 0", self.holes.clone());
        self.schedules.register(registry);
        registry.register("job_looks", "Looks for due jobs", self.job_looks.clone());
        registry.register(
            "verify_mismatch",
            "Live rows found that are not what the log folds to; must be 0",
            self.verify_mismatch.clone(),
        );
        registry.register(
            "replay_events_per_second",
            "Events folded in a second when a slice was verified last",
            self.replay_events_per_second.clone(),
        );
        self.jobs.register(registry);
        self.calls.register(registry);
        self.webhooks.register(registry);
        self.sweeps.register(registry);
        registry.register_collector(Box::new(Slices(self.progress.clone())));
        registry.register_collector(Box::new(self.gauges.clone()));
    }

    /// A batch was committed.
    pub(crate) fn batch(&self, events: usize, took: Duration) {
        self.batch_events.observe(f64::from(u32::try_from(events).unwrap_or(u32::MAX)));
        self.batch_seconds.observe(took.as_secs_f64());
    }

    /// A slice was verified.
    pub(crate) fn verified(&self, verified: &Verified) {
        self.verify_mismatch.inc_by(verified.differing);
        // Positions are dense from 1: the last one counts the events.
        let seconds = verified.folded_in.as_secs_f64();
        if verified.position > 0 && seconds > 0.0 {
            self.replay_events_per_second.set(count(verified.position) / seconds);
        }
    }

    /// A lease was found to have passed on.
    pub(crate) fn limit_exceeded(&self, limit: Limit) {
        self.limits_exceeded.get_or_create(&LimitLabels { limit: limit.name() }).inc();
    }

    pub(crate) fn fenced(&self, consumer: Consumer) {
        self.fenced.get_or_create(&ConsumerLabels { consumer: consumer.name() }).inc();
    }

    /// A lease was claimed or given away.
    pub(crate) fn rebalanced(&self, consumer: Consumer) {
        self.rebalances.get_or_create(&ConsumerLabels { consumer: consumer.name() }).inc();
    }
}

/// Reads the gauges of the held slices when somebody asks.
#[derive(Debug)]
struct Slices(Progress);

impl Collector for Slices {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let all = self.0.all();
        let mut gauge = |name, help, value: fn(&SliceProgress) -> f64| {
            let family: Family<SliceLabels, Gauge<f64, AtomicU64>> = Family::default();
            for (slice, progress) in &all {
                let labels = SliceLabels { consumer: Consumer::React.name(), slice: *slice };
                family.get_or_create(&labels).set(value(progress));
            }
            let encoder = encoder.encode_descriptor(name, help, None, family.metric_type())?;
            family.encode(encoder)
        };
        gauge("consumer_lag_events", "Events that are not applied yet", |p| count(p.lag()))?;
        gauge(
            "consumer_lag_seconds",
            "Age of the oldest event that is not applied yet",
            SliceProgress::lag_seconds,
        )?;
        gauge("parked", "Events set aside that wait", |p| count(p.parked))
    }
}

/// A count as a gauge has it.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn count(n: i64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use store::Lease;

    use super::*;

    #[test]
    fn every_number_is_told_with_its_labels() {
        let progress = Progress::default();
        let at = domain::ids::Timestamp::default();
        progress.opened(&Lease { slice: 3, epoch: 1, position: 5, recorded_at: at }, 2);
        progress.saw_head(3, 9);
        let metrics = Metrics::new(progress);
        metrics.events_applied.inc();
        metrics.batch(10, Duration::from_millis(3));
        metrics.verified(&Verified {
            slice: 3,
            position: 500,
            rows: 9,
            differing: 2,
            differences: Vec::new(),
            parked: Vec::new(),
            folded_in: Duration::from_millis(2),
        });
        metrics.fenced(Consumer::Jobs);
        metrics.rebalanced(Consumer::React);
        metrics.jobs.started("clear_dvr", Duration::from_millis(20));
        metrics.jobs.ran("clear_dvr", Duration::from_secs(7));
        metrics.jobs.ended("clear_dvr", "completed");
        metrics.jobs.dropped("clear_dvr");
        let mut registry = Registry::default();
        metrics.register(registry.sub_registry_with_prefix("tallylight"));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "tallylight_events_applied_total 1",
            "tallylight_consumer_lag_events{consumer=\"react\",slice=\"3\"} 4.0",
            "tallylight_parked{consumer=\"react\",slice=\"3\"} 2.0",
            "tallylight_consumer_lag_seconds{consumer=\"react\",slice=\"3\"}",
            "tallylight_consumer_batch_events_count 1",
            "tallylight_fenced_total{consumer=\"jobs\"} 1",
            "tallylight_rebalances_total{consumer=\"react\"} 1",
            "tallylight_holes_detected_total 0",
            "tallylight_verify_mismatch_total 2",
            "tallylight_replay_events_per_second 250000.0",
            "tallylight_jobs_claimed_total{kind=\"clear_dvr\"} 1",
            "tallylight_jobs_ended_total{kind=\"clear_dvr\",outcome=\"completed\"} 1",
            "tallylight_jobs_ended_total{kind=\"clear_dvr\",outcome=\"failed\"} 0",
            "tallylight_job_pickup_seconds_bucket{le=\"0.025\",kind=\"clear_dvr\"} 1",
            "tallylight_job_run_seconds_bucket{le=\"5.0\",kind=\"clear_dvr\"} 0",
            "tallylight_job_ends_dropped_total{kind=\"clear_dvr\"} 1",
            "tallylight_jobs_crashed_total 0",
            "tallylight_jobs_acquitted_total 0",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
