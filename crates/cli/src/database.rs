//! The database of a command: the configured one, else `DATABASE_URL`, else a managed cluster.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use secrecy::ExposeSecret;
use store::Store;
use tokio_util::sync::CancellationToken;

use crate::config::Config;

/// How soon to look again for a database that is away.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The managed cluster's database.
const DATABASE: &str = "tallylight";

/// A database and, where it is managed, the cluster that must outlive its use.
pub(crate) struct Database {
    /// How to reach it.
    pub(crate) config: store::Config,
    cluster: Option<postgres::Cluster>,
}

/// A database, be it there or not.
pub(crate) enum Found {
    /// It answers, and has the tables of this version.
    There(Store),
    /// It does not answer; this is what is known of it.
    Away(Store),
}

impl Found {
    /// For who can do without an answer.
    pub(crate) fn store(&self) -> &Store {
        match self {
            Self::There(store) | Self::Away(store) => store,
        }
    }
}

/// Does something with the installation that the configuration names, and closes what it opened
/// for it, also where it failed.
///
/// # Errors
/// Those of opening, connecting, closing, and of what is done.
pub(crate) async fn with_store<T>(
    config: &Config,
    task: impl AsyncFnOnce(&Store) -> Result<T>,
) -> Result<T> {
    let database = Database::open(config).await?;
    let store = database.connect().await?;
    let done = task(&store).await;
    store.close().await;
    database.close().await?;
    done
}

impl Database {
    /// Finds the database; starts the managed cluster where none is configured.
    ///
    /// # Errors
    /// Where PostgreSQL is neither configured nor found; the message names both commands that
    /// help.
    pub(crate) async fn open(config: &Config) -> Result<Self> {
        if let Some(url) = config.database_url()? {
            let config = store_config(config, url.expose_secret());
            return Ok(Self { config, cluster: None });
        }
        let settings = settings(config);
        tracing::info!(dir = %settings.data_dir.display(), "no database is configured: managed PostgreSQL");
        let cluster = start_cluster(settings).await?;
        let config = store_config(config, &cluster.url(DATABASE));
        store::create_database(&config).await.context("create the managed database")?;
        Ok(Self { config, cluster: Some(cluster) })
    }

    /// Whether the database is a managed cluster of this machine.
    pub(crate) fn is_managed(&self) -> bool {
        self.cluster.is_some()
    }

    /// Connects to a database that was migrated, for ingest. While it is away the process starts by
    /// what `known` says of it, and checks that once it is back.
    ///
    /// # Errors
    /// As [`Self::connect`]; where nothing is known, the message says that a first start needs the
    /// database.
    pub(crate) async fn connect_or_trust(&self, known: Option<ingest::Known>) -> Result<Store> {
        match Store::connect(&self.config).await {
            Err(error @ store::Error::Unreachable { .. }) => self.trust(known, error),
            connected => connected.context("connect to the database"),
        }
    }

    /// Migrates and connects; while the database is away, as [`Self::connect_or_trust`].
    pub(crate) async fn prepare_or_trust(&self, known: Option<ingest::Known>) -> Result<Found> {
        match store::migrate(&self.config, None).await {
            Err(error @ store::Error::Unreachable { .. }) => {
                Ok(Found::Away(self.trust(known, error)?))
            }
            migrated => {
                migrated.context("migrate the database")?;
                Ok(Found::There(self.connect().await?))
            }
        }
    }

    /// The store that was found, once it is there; `None`: `stop` came first.
    pub(crate) async fn until_there(
        &self,
        found: Found,
        stop: &CancellationToken,
    ) -> Result<Option<Store>> {
        if let Found::There(store) = found {
            return Ok(Some(store));
        }
        loop {
            let migrated = tokio::select! {
                () = stop.cancelled() => return Ok(None),
                migrated = store::migrate(&self.config, None) => migrated,
            };
            match migrated {
                Err(error) if error.is_transient() => {
                    tokio::select! {
                        () = stop.cancelled() => return Ok(None),
                        () = tokio::time::sleep(LOOK_AGAIN) => {}
                    }
                }
                migrated => {
                    migrated.context("migrate the database")?;
                    return self.connect().await.map(Some);
                }
            }
        }
    }

    /// The database that `known` tells of, though it does not answer.
    fn trust(&self, known: Option<ingest::Known>, error: store::Error) -> Result<Store> {
        let Some(known) = known else {
            return Err(error).context(
                "connect to the database, which the first start of ingest on a spool directory \
                 needs: from then on it starts without",
            );
        };
        tracing::warn!(
            installation = %known.installation,
            error = %format!("{:#}", anyhow::Error::new(error)),
            "the database is away: events are spooled until it is back"
        );
        Ok(Store::known(&self.config, known.installation, known.slices)?)
    }

    /// Connects to a database that was migrated.
    pub(crate) async fn connect(&self) -> Result<Store> {
        Store::connect(&self.config).await.context("connect to the database")
    }

    /// Stops the managed cluster, if this process started it.
    pub(crate) async fn close(self) -> Result<()> {
        let Some(cluster) = self.cluster else { return Ok(()) };
        let stopped = tokio::task::spawn_blocking(move || cluster.stop()).await;
        stopped.context("stop PostgreSQL")?.context("stop PostgreSQL")
    }
}

/// Where the managed cluster lies.
pub(crate) fn settings(config: &Config) -> postgres::Settings {
    let mut settings = postgres::Settings::for_current_user();
    if let Some(dir) = &config.database.data_dir {
        settings.data_dir = absolute(dir.clone());
    }
    settings.pg_bin.clone_from(&config.database.pg_bin);
    settings
}

/// Starts the managed cluster, offering to install PostgreSQL where there is somebody to ask.
pub(crate) async fn start_cluster(settings: postgres::Settings) -> Result<postgres::Cluster> {
    tokio::task::spawn_blocking(move || match postgres::Cluster::start(&settings) {
        Err(error) if error.is_not_installed() && crate::commands::db::offer_install()? => {
            postgres::Cluster::start(&settings).context("start PostgreSQL")
        }
        other => other.context("start PostgreSQL"),
    })
    .await
    .context("start PostgreSQL")?
}

fn store_config(config: &Config, url: &str) -> store::Config {
    store::Config {
        max_connections: config.database.max_connections,
        history_url: config.history.url.clone(),
        job_history: config.jobs.history.into(),
        ..store::Config::new(url)
    }
}

/// PostgreSQL's programs run elsewhere, so the path must not depend on where we are.
fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}
