//! Options of `simulator`: which platform is played, and what goes wrong on it.

use std::net::SocketAddr;
use std::time::Duration;

use ::simulator::{CallFaults, Mishap, WebhookFaults};
use clap::Args;

use super::positive;

/// Options of the simulator.
#[derive(Debug, Clone, Args)]
pub(crate) struct Simulator {
    /// Where it listens
    #[arg(long, default_value = "127.0.0.1:8090", value_name = "ADDR")]
    pub(crate) listen: SocketAddr,
    /// Listen on an address that other machines can reach
    #[arg(long)]
    pub(crate) allow_remote: bool,
    /// Where webhooks are sent, such as http://127.0.0.1:8080/webhooks/NAME/TOKEN
    #[arg(
        long,
        value_name = "URL",
        env = "TALLYLIGHT_SIMULATOR_WEBHOOK_URL",
        hide_env_values = true
    )]
    pub(crate) webhook_url: Option<String>,
    /// Seed of its chance
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) seed: u64,
    /// How many times faster than real time
    #[arg(long, default_value_t = 1.0, value_parser = positive, value_name = "FACTOR")]
    pub(crate) time_scale: f64,
    /// Send the broadcast webhooks that the platform sent before September 2025
    #[arg(long)]
    pub(crate) legacy_broadcast_webhooks: bool,
    /// The one API token that is accepted [default: any well-formed one]
    #[arg(long, value_name = "TOKEN", env = "TALLYLIGHT_SIMULATOR_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// How many live streams may be active at once
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub(crate) active_quota: u32,
    /// What goes wrong
    #[command(flatten)]
    pub(crate) faults: Faults,
}

/// What goes wrong, by chance from the seed.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "What goes wrong")]
pub(crate) struct Faults {
    /// Share of API calls that fail, 0 to 1
    #[arg(long, default_value_t = 0.0, value_parser = share, value_name = "SHARE")]
    pub(crate) fail_calls: f64,
    /// Share of the failing calls that have their effect all the same
    #[arg(long, default_value_t = 0.5, value_parser = share, value_name = "SHARE")]
    pub(crate) after_effect: f64,
    /// Share of webhooks that are never sent
    #[arg(long, default_value_t = 0.0, value_parser = share, value_name = "SHARE")]
    pub(crate) lose_webhooks: f64,
    /// Share of webhooks that are sent twice
    #[arg(long, default_value_t = 0.0, value_parser = share, value_name = "SHARE")]
    pub(crate) repeat_webhooks: f64,
    /// Share of webhooks that wait and let others overtake
    #[arg(long, default_value_t = 0.0, value_parser = share, value_name = "SHARE")]
    pub(crate) reorder_webhooks: f64,
    /// What platform and people do by themselves, times an hour, such as restarts=0.5; may be repeated
    #[arg(long, value_parser = mishap, value_name = "NAME=TIMES")]
    pub(crate) mishap: Vec<(Mishap, f64)>,
    /// Encoders come by themselves to every live stream that is activated; they drop and return
    #[arg(long)]
    pub(crate) encoders: bool,
}

/// Longest wait of a webhook that is overtaken, in seconds of the platform's time.
const OVERTAKEN_S: f64 = 10.0;

impl Faults {
    /// The same for the platform, whose time runs `scale` times faster than real.
    pub(crate) fn at_scale(&self, scale: f64) -> ::simulator::Faults {
        let wait = Duration::from_secs_f64(OVERTAKEN_S / scale.max(f64::EPSILON));
        let late_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        ::simulator::Faults {
            calls: CallFaults {
                rate: self.fail_calls,
                after_effect: self.after_effect,
                ..CallFaults::default()
            },
            webhooks: WebhookFaults {
                lose: self.lose_webhooks,
                duplicate: self.repeat_webhooks,
                reorder: self.reorder_webhooks,
                late_ms,
                ..WebhookFaults::default()
            },
            mishaps: self.mishap.iter().copied().collect(),
            ..::simulator::Faults::default()
        }
    }
}

/// A share of a whole.
fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("a number from 0 to 1 is needed".to_owned()),
    }
}

/// A mishap and how often it comes in an hour.
fn mishap(text: &str) -> Result<(Mishap, f64), String> {
    let (name, times) = text.split_once('=').ok_or("NAME=TIMES is needed")?;
    let mishap = Mishap::ALL.into_iter().find(|one| one.to_string() == name).ok_or_else(|| {
        format!("known are {}", Mishap::ALL.map(|one| one.to_string()).join(", "))
    })?;
    match times.parse::<f64>() {
        Ok(times) if times.is_finite() && times >= 0.0 => Ok((mishap, times)),
        _ => Err("times an hour, a number from 0 up, are needed".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mishap_is_named_with_its_rate() {
        assert_eq!(mishap("restarts=0.5"), Ok((Mishap::Restarts, 0.5)));
        for wrong in ["restarts", "restarts=-1", "restarts=often"] {
            assert!(mishap(wrong).is_err(), "{wrong}");
        }
        assert!(mishap("explodes=1").is_err_and(|told| told.contains("switches_off")));
        assert!(share("1.5").is_err() && share("0.3") == Ok(0.3));
    }
}
