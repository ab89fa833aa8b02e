//! The numbers of calls: to whom, how they ended, what held them up.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::breaker::Stand;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    target: String,
    sign: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PauseLabels {
    target: String,
    by: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TargetLabels {
    target: String,
}

/// The numbers of calls of one worker. A clone is the same numbers.
#[derive(Debug, Clone, Default)]
pub(crate) struct CallMetrics {
    calls: Family<CallLabels, Counter>,
    paused: Family<PauseLabels, Counter>,
    breaker: Family<TargetLabels, Gauge>,
    opened: Family<TargetLabels, Counter>,
    taken: Family<TargetLabels, Counter>,
}

impl CallMetrics {
    /// Puts them under a registry, which adds the prefix.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register("calls", "Requests by target and sign", self.calls.clone());
        registry.register("calls_paused", "Calls put off, by what", self.paused.clone());
        registry.register(
            "breaker_state",
            "0: calls pass, 1: a probe decides, 2: calls are paused",
            self.breaker.clone(),
        );
        registry.register(
            "breaker_opened",
            "Times that calls to a target were paused",
            self.opened.clone(),
        );
        registry.register(
            "rate_tokens_taken",
            "Tokens taken out of the shared rates",
            self.taken.clone(),
        );
    }

    /// A request ended.
    pub(super) fn called(&self, target: &str, sign: platform::Sign) {
        let labels = CallLabels { target: target.to_owned(), sign: sign.as_str() };
        self.calls.get_or_create(&labels).inc();
    }

    /// A call was put off.
    pub(super) fn paused(&self, target: &str, by: &'static str) {
        self.paused.get_or_create(&PauseLabels { target: target.to_owned(), by }).inc();
    }

    /// How a breaker stands.
    pub(super) fn stands(&self, target: &str, stand: Stand) {
        let state = match stand {
            Stand::Closed => 0,
            Stand::HalfOpen => 1,
            Stand::Open => 2,
        };
        self.breaker.get_or_create(&TargetLabels { target: target.to_owned() }).set(state);
    }

    /// A breaker opened.
    pub(super) fn opened(&self, target: &str) {
        self.opened.get_or_create(&TargetLabels { target: target.to_owned() }).inc();
    }

    /// Tokens were taken.
    pub(super) fn taken(&self, target: &str, tokens: u32) {
        let labels = TargetLabels { target: target.to_owned() };
        self.taken.get_or_create(&labels).inc_by(u64::from(tokens));
    }
}
