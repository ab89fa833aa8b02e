//! Messages on their way to endpoints: how many at once to each, and the numbers of how they went.
//!
//! An endpoint that answers slowly must not hold all the places that jobs run in: each has a few
//! of a process, and what finds none free waits. Not its job: whether an endpoint is called at all,
//! which `calls` decides, and sending, which `jobs::deliver_webhook` does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use uuid::Uuid;

/// Messages to one endpoint at once, of a process: with the usual 64 places, eight endpoints have to
/// be slow together before anybody else waits.
const MOST: usize = 8;

/// The messages that are being sent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Deliveries(Arc<Mutex<HashMap<Uuid, usize>>>);

/// A place of an endpoint, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    deliveries: Deliveries,
    endpoint: Uuid,
}

impl Deliveries {
    /// A place of an endpoint; `None`: all are taken.
    pub(crate) fn take(&self, endpoint: Uuid) -> Option<Place> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(endpoint).or_default();
        if *count >= MOST {
            return None;
        }
        *count += 1;
        Some(Place { deliveries: self.clone(), endpoint })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.deliveries.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.endpoint) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.endpoint);
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

/// The numbers of messages of one worker. A clone is the same numbers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Numbers {
    sent: Family<OutcomeLabels, Counter>,
    /// Endpoints that this process disabled.
    pub(crate) disabled: Counter,
}

impl Numbers {
    /// Puts them under a registry, which adds the prefix.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "webhooks_sent",
            "Tries to send a message, by outcome",
            self.sent.clone(),
        );
        registry.register(
            "endpoints_disabled",
            "Endpoints disabled because they accepted nothing",
            self.disabled.clone(),
        );
    }

    /// A try ended: `accepted`, `failed`, or `dropped` since nobody is there to hear it any more.
    pub(crate) fn ended(&self, outcome: &'static str) {
        self.sent.get_or_create(&OutcomeLabels { outcome }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_has_a_few_places_and_gets_them_back() {
        let deliveries = Deliveries::default();
        let (slow, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let mut places: Vec<Place> = (0..MOST).map(|_| deliveries.take(slow).unwrap()).collect();
        assert!(deliveries.take(slow).is_none());
        assert!(deliveries.take(other).is_some(), "others are not held up");
        places.pop();
        assert!(deliveries.take(slow).is_some());
        places.clear();
        assert!(deliveries.0.lock().unwrap().is_empty(), "nothing is remembered of who is idle");
    }
}
