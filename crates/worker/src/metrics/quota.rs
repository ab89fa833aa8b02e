//! Gauges of the quotas of active live streams: what the last samples of their states found.
//!
//! The process that holds the slice of a quota reads its state as often as it counts jobs, one row
//! for each source; a scrape reads memory. A quota that nobody holds here is not told here.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use domain::ids::{Subject, Timestamp};
use domain::quota::Quota;
use domain::state::Body;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use store::Error;

use crate::context::Context;

/// The quotas that were looked at last, by source.
#[derive(Debug, Clone, Default)]
pub(crate) struct QuotaGauges(Arc<Mutex<BTreeMap<String, Numbers>>>);

/// What is told of a quota.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Numbers {
    /// None: no bound is known.
    slots: Option<u32>,
    granted: usize,
    foreign: usize,
    waiting: usize,
    /// Seconds that the first has waited.
    oldest: Option<f64>,
}

/// A source.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabels {
    source: String,
}

impl Numbers {
    fn of(quota: &Quota, now: Timestamp) -> Self {
        let waited = |since: Timestamp| millis((now - since).num_milliseconds().max(0)) / 1000.0;
        Self {
            slots: quota.slots(),
            granted: quota.grants.len(),
            foreign: quota.others.len(),
            waiting: quota.queue.len(),
            oldest: quota.queue.iter().map(|claim| claim.since).min().map(waited),
        }
    }
}

impl QuotaGauges {
    /// Looks at the quotas whose slices are `held`; others are forgotten.
    pub(crate) async fn look(&self, ctx: &Context, held: &[i16]) -> Result<(), Error> {
        let mut seen = BTreeMap::new();
        for source in ctx.sources() {
            let subject = Subject::quota(source);
            let slice = ctx.store().slice_of(&subject);
            if !held.contains(&slice) {
                continue;
            }
            let states = ctx.store().load_states(slice, std::slice::from_ref(&subject)).await?;
            if let Some(Body::Quota(quota)) = states.get(&subject).map(|state| &state.body) {
                seen.insert(source.clone(), Numbers::of(quota, ctx.now()));
            }
        }
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = seen;
        Ok(())
    }

    /// Tells them.
    pub(crate) fn encode(&self, encoder: &mut DescriptorEncoder) -> std::fmt::Result {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut tell = |name, help, value: &dyn Fn(&Numbers) -> Option<f64>| {
            let family: Family<SourceLabels, Gauge<f64, AtomicU64>> = Family::default();
            for (source, numbers) in &seen {
                if let Some(value) = value(numbers) {
                    family.get_or_create(&SourceLabels { source: source.clone() }).set(value);
                }
            }
            let encoder = encoder.encode_descriptor(name, help, None, family.metric_type())?;
            family.encode(encoder)
        };
        tell("quota_slots", "Slots for active live streams, where a bound is known", &|n| {
            n.slots.map(f64::from)
        })?;
        tell("quota_granted", "Slots granted to sessions", &|n| Some(count(n.granted)))?;
        tell("quota_foreign", "Active live streams that no grant stands for", &|n| {
            Some(count(n.foreign))
        })?;
        tell("quota_waiting", "Sessions that wait for a slot", &|n| Some(count(n.waiting)))?;
        tell("quota_oldest_wait_seconds", "How long the first of them has waited", &|n| {
            Some(n.oldest.unwrap_or_default())
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn count(n: usize) -> f64 {
    n as f64
}

#[expect(clippy::cast_precision_loss, reason = "2^52 ms are a hundred thousand years")]
fn millis(n: i64) -> f64 {
    n as f64
}
