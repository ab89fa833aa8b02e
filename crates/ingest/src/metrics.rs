//! What happened, as numbers: counted where it happens, read from memory when asked for.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::lanes::Pulse;

/// One label: how a request ended.
type Outcome = [(&'static str, &'static str); 1];

/// A secret of a source's path, by its name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Secret {
    source: String,
    secret: String,
}

/// The numbers of one endpoint and its lanes.
#[derive(Debug)]
pub struct Metrics {
    requests: Family<Outcome, Counter>,
    secrets: Family<Secret, Counter>,
    /// Webhooks answered 200.
    pub stored: Counter,
    /// Requests with an unknown source, a wrong token or one that has ended.
    pub not_found: Counter,
    /// Requests with a right token from outside the source's networks: look at the settings.
    pub outside_networks: Counter,
    /// Bodies above the limit.
    pub too_large: Counter,
    /// Bodies that took too long.
    pub timed_out: Counter,
    /// Bodies that broke off.
    pub broken_off: Counter,
    /// Webhooks and batches answered 503.
    pub unavailable: Counter,
    /// Batches of events without a token that is known.
    pub unauthorized: Counter,
    /// Batches of events answered 200.
    pub batches: Counter,
    /// Stored webhooks that name no object.
    pub unrecognized: Counter,
    /// Secrets replaced in stored webhooks.
    pub redacted: Counter,
    /// Stored webhooks marked as the repeat of another.
    pub repeated: Counter,
    /// Events committed.
    pub events_appended: Counter,
    /// Events that the database refused, kept in another form or told to their caller.
    pub events_refused: Counter,
    /// Events given up by a lane: their callers were told to come back.
    pub events_given_up: Counter,
    /// Events written to the spool.
    pub events_spooled: Counter,
    /// Calls repeated because they failed or their outcome was unknown.
    pub append_retries: Counter,
    /// Records of the spool that could not be read when they were drained.
    pub spool_lost_records: Counter,
    /// Events of each committed call.
    pub append_batch_events: Histogram,
    /// Time of each committed call.
    pub append_seconds: Histogram,
    spool_bytes: Gauge,
    spool_records: Gauge,
    ages: Ages,
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let requests = Family::<Outcome, Counter>::default();
        let of = |outcome| requests.get_or_create_owned(&[("outcome", outcome)]);
        Self {
            stored: of("stored"),
            not_found: of("not_found"),
            outside_networks: of("outside_networks"),
            too_large: of("too_large"),
            timed_out: of("timed_out"),
            broken_off: of("broken_off"),
            unavailable: of("unavailable"),
            unauthorized: of("unauthorized"),
            batches: of("batch"),
            unrecognized: Counter::default(),
            redacted: Counter::default(),
            repeated: Counter::default(),
            events_appended: Counter::default(),
            events_refused: Counter::default(),
            events_given_up: Counter::default(),
            events_spooled: Counter::default(),
            append_retries: Counter::default(),
            spool_lost_records: Counter::default(),
            // A batch has 1 to 1000 events.
            append_batch_events: Histogram::new(exponential_buckets(1.0, 2.0, 11)),
            // A commit takes half a millisecond on a fast disk, and is repeated after 8 s.
            append_seconds: Histogram::new(exponential_buckets(0.000_5, 2.0, 15)),
            spool_bytes: Gauge::default(),
            spool_records: Gauge::default(),
            ages: Ages::default(),
            requests,
            secrets: Family::default(),
        }
    }

    /// Puts them under `registry`.
    pub fn register(&self, registry: &mut Registry) {
        let mut counter = |name: &str, help: &str, counter: &Counter| {
            registry.register(name, help, counter.clone());
        };
        counter("webhooks_unrecognized", "Webhooks that name no object", &self.unrecognized);
        counter(
            "webhooks_redacted_secrets",
            "Secrets and echoes of personal values replaced in webhooks",
            &self.redacted,
        );
        counter("webhooks_repeated", "Webhooks equal to one just before", &self.repeated);
        counter("events_appended", "Events committed to the log", &self.events_appended);
        counter("events_refused", "Events the database refused", &self.events_refused);
        counter("events_given_up", "Events not stored in time, told so", &self.events_given_up);
        counter("events_spooled", "Events written to the spool", &self.events_spooled);
        counter("append_retries", "Appends repeated", &self.append_retries);
        counter("spool_lost_records", "Unreadable spool records", &self.spool_lost_records);
        registry.register("ingest_requests", "Requests by how they ended", self.requests.clone());
        let secrets = self.secrets.clone();
        registry.register("webhook_secret_uses", "Requests by the secret in their path", secrets);
        let (events, seconds) = (self.append_batch_events.clone(), self.append_seconds.clone());
        registry.register("append_batch_events", "Events of a committed call", events);
        registry.register("append_seconds", "Time of a committed call", seconds);
        let (bytes, records) = (self.spool_bytes.clone(), self.spool_records.clone());
        registry.register("spool_bytes", "Length of all spool files", bytes);
        registry.register("spool_records", "Spooled batches not committed", records);
        registry.register_collector(Box::new(self.ages.clone()));
    }

    /// Requests that came with a secret of a source, by its name.
    pub(crate) fn secret(&self, source: &str, secret: &str) -> Counter {
        let (source, secret) = (source.to_owned(), secret.to_owned());
        self.secrets.get_or_create_owned(&Secret { source, secret })
    }

    /// The spool has this much now.
    pub(crate) fn spooled(&self, bytes: u64, records: u64) {
        self.spool_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.spool_records.set(i64::try_from(records).unwrap_or(i64::MAX));
    }

    /// Spooled batches that are not committed.
    pub fn spool_records(&self) -> i64 {
        self.spool_records.get()
    }

    /// Watches a lane: since when its oldest event waits, and since when its oldest record does.
    pub(crate) fn watch(&self, waiting: Arc<Pulse>, spooled: Arc<Pulse>) {
        self.ages.lock().push((waiting, spooled));
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Of a lane: its oldest event, and its oldest record.
type Pulses = (Arc<Pulse>, Arc<Pulse>);

/// The lanes' pulses, read when somebody asks.
#[derive(Clone, Default)]
struct Ages(Arc<Mutex<Vec<Pulses>>>);

impl Ages {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Pulses>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Ages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ages").field(&self.lock().len()).finish()
    }
}

impl Collector for Ages {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let pulses = self.lock();
        let oldest = |of: fn(&Pulses) -> Duration| {
            pulses.iter().map(of).max().unwrap_or_default().as_secs_f64()
        };
        let ages = [
            ("queue_age", "How long the oldest queued event waits", oldest(|p| p.0.age())),
            ("spool_age", "How long the oldest spooled batch waits", oldest(|p| p.1.age())),
        ];
        for (name, help, seconds) in ages {
            let gauge = ConstGauge::new(seconds);
            let told =
                encoder.encode_descriptor(name, help, Some(&Unit::Seconds), gauge.metric_type())?;
            gauge.encode(told)?;
        }
        Ok(())
    }
}
