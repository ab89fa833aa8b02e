//! `ingest`, `worker`, `api`: one role per process, against a database that was migrated.

use anyhow::{Context, Result, bail};

use crate::config::Config;
use crate::database::Database;
use crate::{lifecycle, roles};

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
    let database = Database::open(&config).await?;
    let server = roles::start_ingest(&config, database.connect().await?, stop.clone()).await?;
    tracing::info!(address = %server.address, sources = config.sources.len(), "taking webhooks");
    server.stopped().await;
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
    let worker = roles::start_worker(&config, database.connect().await?, key)?;
    tracing::info!(sources = config.sources.len(), "working");
    tokio::select! {
        () = stop.cancelled() => {}
        () = worker.ended() => bail!("the worker died; the log says why"),
    }
    worker.shutdown().await;
    database.close().await
}

/// Runs the API.
pub(crate) async fn api(config: Config) -> Result<()> {
    require_sources(&config)?;
    let stop = lifecycle::stop_on_signal()?;
    let database = Database::open(&config).await?;
    let key = config.sealing_key()?;
    let server = roles::start_api(&config, database.connect().await?, key, stop.clone()).await?;
    tracing::info!(address = %server.address, "serving the API");
    server.stopped().await;
    database.close().await
}
