//! Where the simulator listens, whom it tells and which platform it plays.
//!
//! Reads no environment: whoever starts the simulator fills this in.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::{Behaviour, Encoders, Faults};

/// Settings of one simulator; `Config::default()` is a platform on a free loopback port.
#[derive(Clone)]
pub struct Config {
    /// Address to listen on; port 0 takes a free one. Default `127.0.0.1:0`.
    pub listen: SocketAddr,
    /// True: an address that other machines reach is accepted. `/_control` stays loopback only.
    pub allow_remote: bool,
    /// Where webhooks go; `None` drops them with a note in the log.
    pub webhook_url: Option<String>,
    /// How long one webhook may take to be answered, not scaled. Default 5 s.
    pub webhook_timeout: Duration,
    /// Two worlds with one seed, given the same requests at the same times, do the same.
    pub seed: u64,
    /// All delays of the platform are divided by it. Default 1: as slow as the real one.
    pub time_scale: f64,
    /// True: a broadcast's change of status is told by webhook, before the PATCH is answered.
    pub legacy_broadcast_webhooks: bool,
    /// The one accepted permanent token, `<id>_<secret>` or `<id>$<secret>`; `None` accepts any
    /// well-formed one.
    pub token: Option<String>,
    /// The one user who may log in for a JWT.
    pub username: String,
    /// The password of that user.
    pub password: String,
    /// Life of an access token, not scaled: clients read real clocks. Default 1 h.
    pub access_token_life: Duration,
    /// Life of a refresh token, not scaled. Default 24 h.
    pub refresh_token_life: Duration,
    /// How many streams may have `active:true` at once. Default 3, as for pay-as-you-go accounts.
    pub active_quota: u32,
    /// Encoders that come by themselves to each stream that is switched on; `None`: nobody does.
    pub encoders: Option<Encoders>,
    /// What goes wrong from the start.
    pub faults: Faults,
    /// Answers to what no public document answers.
    pub behaviour: Behaviour,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            allow_remote: false,
            webhook_url: None,
            webhook_timeout: Duration::from_secs(5),
            seed: 1,
            time_scale: 1.0,
            legacy_broadcast_webhooks: false,
            token: None,
            username: "owner@example.com".to_owned(),
            password: "simulator".to_owned(),
            access_token_life: Duration::from_hours(1),
            refresh_token_life: Duration::from_hours(24),
            active_quota: 3,
            encoders: None,
            faults: Faults::default(),
            behaviour: Behaviour::default(),
        }
    }
}

/// Leaves out the token, the password and the webhook address, whose path may hold a secret.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("listen", &self.listen)
            .field("allow_remote", &self.allow_remote)
            .field("webhook_timeout", &self.webhook_timeout)
            .field("seed", &self.seed)
            .field("time_scale", &self.time_scale)
            .field("legacy_broadcast_webhooks", &self.legacy_broadcast_webhooks)
            .field("active_quota", &self.active_quota)
            .field("encoders", &self.encoders)
            .field("faults", &self.faults)
            .field("behaviour", &self.behaviour)
            .finish_non_exhaustive()
    }
}
