//! Sending messages to endpoints: section `webhooks`, as it is written and as the worker takes it.

use std::time::Duration;

use anyhow::{Context, Result};
use platform::outbound::Outbound;
use serde::Deserialize;

use super::Config;

/// Messages to endpoints of the product.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Webhooks {
    /// Endpoints may lie in a private network or on this machine, and be plain http.
    pub(crate) private: bool,
    /// An endpoint that accepted nothing for this long is disabled; 0: never.
    #[serde(deserialize_with = "super::duration")]
    pub(crate) disable_after: Duration,
}

impl Default for Webhooks {
    fn default() -> Self {
        Self { private: false, disable_after: Duration::from_hours(5 * 24) }
    }
}

impl Config {
    /// Where messages may be sent.
    ///
    /// # Errors
    /// Where the machine has no root certificates.
    pub(crate) fn endpoints(&self) -> Result<Outbound> {
        Outbound::anywhere(self.webhooks.private).context("set up the sending of webhooks")
    }
}
