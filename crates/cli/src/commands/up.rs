//! `up`: everything in one process, on the managed database unless one is configured. What is not
//! configured is made and kept beside the database: an API token, a webhook secret, a sealing key.
//!
//! Where a configured database is away, webhooks are taken all the same, and the other roles start
//! once it is there.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use secrecy::{ExposeSecret, SecretString};
use simulator::Simulator;
use store::Store;
use tokio_util::sync::CancellationToken;

use crate::admin::Admin;
use crate::cli::Up;
use crate::config::{ApiToken, Config, Source, WebhookToken};
use crate::database::{self, Database};
use crate::home::{Home, SEALING_KEY};
use crate::output::say;
use crate::{admin, lifecycle, roles};

/// Name of the simulated source.
const SIMULATED: &str = "simulator";

/// Starts everything and runs until a signal.
pub(crate) async fn run(mut config: Config, options: Up) -> Result<()> {
    let stop = lifecycle::stop_on_signal()?;
    let spool = roles::lock_spool(&config)?;
    let database = Database::open(&config).await?;
    let found = database.prepare_or_trust(spool.known()).await?;
    let home = Home::beside(&database::settings(&config).data_dir)?;
    let made_token = complete(&mut config, &home)?;
    let simulator =
        if options.simulator { Some(add_simulator(&mut config, &home).await?) } else { None };

    let mut admin = Admin::new();
    let store = found.store().clone();
    let ingest = roles::start_ingest(&config, store, spool, &mut admin, stop.clone()).await?;
    tracing::info!(address = %ingest.address, "taking webhooks");
    if let Some(simulator) = &simulator {
        let secret = home.secret("webhook-secret")?;
        let secret = secret.expose_secret();
        simulator.set_webhook_url(Some(format!(
            "http://{}/webhooks/{SIMULATED}/{secret}",
            ingest.address
        )));
    }
    let told =
        Told { home: &home, ingest: ingest.address, made_token, simulator: simulator.as_ref() };
    let others = match database.until_there(found, &stop).await {
        Ok(Some(store)) => others(&config, store, admin, &stop, &told).await,
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    stop.cancel();
    ingest.stopped().await;
    if let Some(simulator) = simulator {
        simulator.shutdown().await;
    }
    database.close().await?;
    others
}

/// What is told when everything is up.
struct Told<'a> {
    home: &'a Home,
    ingest: SocketAddr,
    made_token: bool,
    simulator: Option<&'a Simulator>,
}

/// Runs the roles that need the database, until `stop`.
async fn others(
    config: &Config,
    store: Store,
    mut admin: Admin,
    stop: &CancellationToken,
    told: &Told<'_>,
) -> Result<()> {
    let key = config.sealing_key()?.context("make a sealing key")?;
    let (sealing, stopping) = (Some(key.clone()), stop.clone());
    let api = roles::start_api(config, store.clone(), sealing, &mut admin, stopping).await?;
    let worker = roles::start_worker(config, store.clone(), key, &mut admin)?;
    let admin = admin.start(config, stop.clone()).await?;
    welcome(config, told, api.address);

    let died = tokio::select! {
        () = stop.cancelled() => false,
        () = worker.ended() => true,
    };
    stop.cancel();
    api.stopped().await;
    worker.shutdown().await;
    admin::stopped(admin).await;
    store.close().await;
    if died {
        anyhow::bail!("the worker died; the log says why");
    }
    Ok(())
}

/// Fills in what is not configured. Returns whether an API token was made.
fn complete(config: &mut Config, home: &Home) -> Result<bool> {
    if config.sealing_key()?.is_none() {
        config.sealing.key = Some(home.secret(SEALING_KEY)?);
    }
    let made_token = config.api.tokens.is_empty();
    if made_token {
        config.api.tokens.push(ApiToken {
            name: "local".to_owned(),
            token: Some(home.secret("api-token")?),
            token_file: None,
            sha256: None,
            scopes: ["admin".to_owned()].into(),
            not_after: None,
        });
    }
    for source in &mut config.sources {
        if source.webhook_tokens.is_empty() {
            source.webhook_tokens.push(path_token(home.secret("webhook-secret")?));
        }
    }
    Ok(made_token)
}

fn path_token(secret: SecretString) -> WebhookToken {
    WebhookToken { token: Some(secret), ..WebhookToken::default() }
}

/// Starts the simulated platform and makes it a source.
async fn add_simulator(config: &mut Config, home: &Home) -> Result<Simulator> {
    let token = format!("1_{}", home.secret("simulator-token")?.expose_secret());
    let simulator = Simulator::start(simulator::Config {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        token: Some(token.clone()),
        ..simulator::Config::default()
    })
    .await
    .context("start the simulated platform")?;
    config.sources.push(Source {
        name: SIMULATED.to_owned(),
        base_url: simulator.base_url(),
        token: Some(SecretString::from(token)),
        webhook_tokens: vec![path_token(home.secret("webhook-secret")?)],
        ..Source::default()
    });
    Ok(simulator)
}

/// Says where everything is.
fn welcome(config: &Config, told: &Told<'_>, api: SocketAddr) {
    let Told { home, ingest, made_token, simulator } = *told;
    say("Tallylight is up.");
    say(format!("  API        http://{api}"));
    if made_token {
        say(format!("  token      in {}", home.path("api-token").display()));
    }
    for source in &config.sources {
        say(format!("  webhooks   http://{ingest}/webhooks/{}/SECRET", source.name));
    }
    if let Some(simulator) = simulator {
        say(format!("  simulator  {}", simulator.base_url()));
    }
    if config.sources.is_empty() {
        say(
            "  No source is configured: add [[sources]] to tallylight.toml, or try `tallylight up --simulator`.",
        );
    } else {
        say(format!(
            "  the webhook's SECRET, unless configured, is in {}",
            home.path("webhook-secret").display()
        ));
    }
    say("Ctrl-C ends it.");
}
