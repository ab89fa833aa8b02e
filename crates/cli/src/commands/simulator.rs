//! `simulator`: a platform that behaves, or misbehaves, as the real one.

use anyhow::{Context, Result};
use simulator::Simulator;

use crate::cli;
use crate::lifecycle;
use crate::output::say;

/// Runs it until a signal.
pub(crate) async fn run(options: cli::Simulator) -> Result<()> {
    let stop = lifecycle::stop_on_signal()?;
    let config = simulator::Config {
        listen: options.listen,
        allow_remote: options.allow_remote,
        webhook_url: options.webhook_url,
        seed: options.seed,
        time_scale: options.time_scale,
        legacy_broadcast_webhooks: options.legacy_broadcast_webhooks,
        token: options.token,
        active_quota: options.active_quota,
        encoders: options.faults.encoders.then(simulator::Encoders::default),
        faults: options.faults.at_scale(options.time_scale),
        ..simulator::Config::default()
    };
    let simulator = Simulator::start(config).await.context("start the simulated platform")?;
    let url = simulator.base_url();
    say(format!("simulated platform at {url}"));
    say(format!("an encoder connects: curl -X POST {url}/_control/streams/ID/push"));
    say(
        "and so: drop, return, stop. Its requests and webhooks: /_control/requests, /_control/webhooks",
    );
    say("what really happened: /_truth; what goes wrong: /_control/faults, /_control/mishaps/NAME");
    stop.cancelled().await;
    simulator.shutdown().await;
    Ok(())
}
