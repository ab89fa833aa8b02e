//! `ingest`, `worker`, `api`: one role per process, against a database that was migrated.

use anyhow::{Context, Result, bail};

use crate::admin::Admin;
use crate::config::Config;
use crate::database::Database;
use crate::{admin, lifecycle, roles};

/// A role without a source would run and do nothing.
fn require_sources(config: &Config) -> Result<()> {
    if config.sources.is_empty() {
        bail!(
            "no source is configured: add [[sources]] with the platform's credentials to \
             tallylight.toml, or begin with `tallylight up --simulator`"
        );
    }
    Ok(())
}

/// Runs the webhook endpoint.
pub(crate) async fn ingest(config: Config) -> Result<()> {
    require_sources(&config)?;
    let stop = lifecycle::stop_on_signal()?;
    let spool = roles::lock_spool(&config)?;
    let database = Database::open(&config).await?;
    let mut admin = Admin::new();
    let store = database.connect_or_trust(spool.known()).await?;
    let server = roles::start_ingest(&config, store, spool, &mut admin, stop.clone()).await?;
    let admin = admin.start(&config, stop).await?;
    tracing::info!(address = %server.address, sources = config.sources.len(), "taking webhooks");
    server.stopped().await;
    admin::stopped(admin).await;
    database.close().await
}

/// Runs a worker.
pub(crate) async fn worker(config: Config) -> Result<()> {
    require_sources(&config)?;
    let stop = lifecycle::stop_on_signal()?;
    let key = config.sealing_key()?.context(
        "start the worker: no sealing key is configured. Set sealing.key_file to a file with 64 \
         hexadecimal digits; `openssl rand -hex 32` makes them",
    )?;
    let database = Database::open(&config).await?;
    let mut admin = Admin::new();
    let worker = roles::start_worker(&config, database.connect().await?, key, &mut admin)?;
    let admin = admin.start(&config, stop.clone()).await?;
    tracing::info!(sources = config.sources.len(), "working");
    tokio::select! {
        () = stop.cancelled() => {}
        () = worker.ended() => bail!("the worker died; the log says why"),
    }
    worker.shutdown().await;
    admin::stopped(admin).await;
    database.close().await
}

/// Runs the API.
pub(crate) async fn api(config: Config) -> Result<()> {
    require_sources(&config)?;
    let stop = lifecycle::stop_on_signal()?;
    let database = Database::open(&config).await?;
    let key = config.sealing_key()?;
    let mut admin = Admin::new();
    let store = database.connect().await?;
    let server = roles::start_api(&config, store, key, &mut admin, stop.clone()).await?;
    let admin = admin.start(&config, stop).await?;
    tracing::info!(address = %server.address, "serving the API");
    server.stopped().await;
    admin::stopped(admin).await;
    database.close().await
}
