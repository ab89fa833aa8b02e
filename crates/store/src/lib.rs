//! Everything that touches our tables: the event log, leases and checkpoints, projections, jobs.
//!
//! A transaction touches one slice. Every transaction of a consumer begins with its *fence*: the
//! checkpoint row must still have the owner's epoch, else nothing happens. No SQL stands anywhere
//! else, and nothing here decides anything.

use std::sync::Arc;
use std::time::Duration;

use domain::slice::SliceCount;
use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, Executor, PgConnection, PgPool};
use uuid::Uuid;

mod account_key;
mod as_of;
mod awaited;
mod backup;
mod cleanup;
mod consumer;
mod digest;
mod distribute;
mod ended;
mod endpoints;
mod enqueue_many;
mod erasure;
mod error;
mod feed;
mod history;
mod identity;
mod install;
mod jobs;
mod log;
mod parked;
mod partitions;
mod projection;
mod rate;
mod react;
mod read;
mod rebuild;
mod schedules;
mod seal;
mod together;
mod traits;
mod verify;
mod wake;

use digest::hex;
use identity::Identity;
use together::OneByOne;

#[cfg(feature = "testing")]
pub mod testing;

pub use account_key::{AccountKey, Keyring};
pub use as_of::{AsOf, SessionThen};
pub use awaited::AwaitedSession;
pub use backup::{OwnerConnection, Present, libpq_environment};
pub use cleanup::AfterSession;
pub use consumer::{Consumer, Lease};
pub use digest::Digest;
pub use distribute::Catalogue;
pub use ended::EndedSession;
pub use endpoints::{
    AddedEndpoint, Again, Delivery, Disabled, Endpoint, EndpointChange, Failing, Hearing,
    MOST_ENDPOINTS, NewEndpoint, Receiver, Resent, SECRET_GRACE,
};
pub use enqueue_many::PlainJob;
pub use erasure::{Erased, Holdings};
pub use error::Error;
pub use feed::Announced;
pub use history::{
    Damage, HistoryMetrics, KeysRemoved, MIN_KEY_AGE, Month, Sealed, Segment, SegmentFault,
};
pub use install::{
    Migrated, create_database, drop_database, idle_databases, migrate, migrate_restored,
};
pub use jobs::{
    Attempt, Awaits, Begin, Cancellation, Cancelled, Child, Crashes, DeadFilter, DeadJob, DueJob,
    Ending, EnqueueOptions, Enqueued, EventWait, FAIR_KEYS, Finish, Finished, Finishes, Holder,
    JobCounts, JobDays, JobFilter, JobGroup, JobHistory, JobSample, JobView, JobWaits, KeyStates,
    Lane, OnCancel, OnConflict, OnFailure, OpenStep, Parent, Pause, PauseScope, Pauses, Redrive,
    Relay, Standing, Started, StartedAll, Starts, Step, StepKind, TableRows, Ties, WaitFor, Waited,
    Word,
};
pub use log::{Appended, Stored};
pub use parked::{Mended, Next, ParkedEvent, ParkedSubject, PendingRequest, Request, SkippedEvent};
pub use partitions::Partitions;
pub use rate::{Bucket, Tokens};
pub use react::{Committed, Reacting, Reaction};
pub use read::{
    HealthFacts, LiveStreamView, Page, SessionFilter, SessionView, SliceStatus, VideoView,
};
pub use rebuild::{RebuildOptions, RebuildProgress, RebuildState, RebuildStatus, Rebuilt};
pub use schedules::{DueSchedule, Fire, Fired, Kept, NewSchedule, Schedule};
pub use seal::SealingKey;
pub use together::AppendedAll;
pub use traits::{Answer, Follow, Log, Queue, Upkeep, Work};
pub use verify::{Difference, Parting, Verified};
pub use wake::{Hint, Notifier, Wakes};

/// How to reach the database.
#[derive(Debug, Clone)]
pub struct Config {
    /// `postgres://..`, with its password.
    pub url: SecretString,
    /// Most connections of this process, besides two by which a worker keeps its slices and one by
    /// which it listens.
    pub max_connections: u32,
    /// Longest wait for one of them.
    pub acquire_timeout: Duration,
    /// Where sealed history lies, such as `file:///var/lib/tallylight/history`; `None`: this
    /// process reads and writes none, and an event that is sealed is an error.
    pub history_url: Option<String>,
    /// How much a worker keeps of jobs that have ended.
    pub job_history: JobHistory,
}

impl Config {
    /// The usual settings for `url`.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: SecretString::from(url.into()),
            max_connections: 8,
            acquire_timeout: Duration::from_secs(5),
            history_url: None,
            job_history: JobHistory::default(),
        }
    }
}

/// The database of one installation.
#[derive(Debug, Clone)]
pub struct Store {
    pool: PgPool,
    /// Connections for leases alone: whoever works may use up all others, and would lose the
    /// slices that it works on. A worker keeps its leases on a thread and a runtime of its own,
    /// which these connections belong to.
    lifeline: PgPool,
    slices: SliceCount,
    installation: Uuid,
    /// What every new connection is asked.
    identity: Arc<Identity>,
    history: Option<history::Archive>,
    history_metrics: HistoryMetrics,
    job_history: JobHistory,
    one_by_one: Arc<OneByOne>,
}

impl Store {
    /// Connects to a database that `migrate` has prepared.
    ///
    /// # Errors
    /// [`Error::Unreachable`] where nothing answers, [`Error::NotMigrated`] where the tables of
    /// this version are missing, [`Error::Restored`] where they were restored since,
    /// [`Error::Invalid`] for a place of history that is not supported.
    pub async fn connect(config: &Config) -> Result<Self, Error> {
        let identity = Arc::new(Identity::default());
        let pool = checked_pool(config, config.max_connections, &identity)?;
        let found = match install::installation(&pool).await {
            Ok(found) => found,
            Err(error) => return Err(with_cause(config, error).await),
        };
        identity.settle(found);
        Self::of(config, pool, (found.id, found.slices), identity)
    }

    /// The database of an installation that is known from an earlier connection. Connects when it
    /// is used first, and takes no connection that leads to another installation.
    ///
    /// # Errors
    /// [`Error::BadUrl`], [`Error::Invalid`] for a place of history that is not supported.
    pub fn known(config: &Config, installation: Uuid, slices: SliceCount) -> Result<Self, Error> {
        let identity = Arc::new(Identity::known(installation, slices));
        let pool = checked_pool(config, config.max_connections, &identity)?;
        Self::of(config, pool, (installation, slices), identity)
    }

    fn of(
        config: &Config,
        pool: PgPool,
        (installation, slices): (Uuid, SliceCount),
        identity: Arc<Identity>,
    ) -> Result<Self, Error> {
        let lifeline = checked_pool(config, LEASE_CONNECTIONS, &identity)?;
        let history = config.history_url.as_deref().map(history::Archive::new).transpose()?;
        let history_metrics = HistoryMetrics::new();
        Ok(Self {
            pool,
            lifeline,
            slices,
            installation,
            identity,
            history,
            history_metrics,
            job_history: config.job_history,
            one_by_one: Arc::default(),
        })
    }

    /// Finds out whether the database is this installation's: at once where the last new connection
    /// was, else by another one.
    ///
    /// # Errors
    /// [`Error::OtherInstallation`], [`Error::OtherIncarnation`], [`Error::NotMigrated`] or
    /// [`Error::Restored`] where the address leads elsewhere now, [`Error::Unreachable`].
    pub async fn check_installation(&self) -> Result<(), Error> {
        self.identity.admit(&self.pool).await
    }

    /// The number of slices.
    pub fn slices(&self) -> SliceCount {
        self.slices
    }

    /// Which installation this is; part of the ownership tag.
    pub fn installation(&self) -> Uuid {
        self.installation
    }

    /// Which history the positions of the log belong to. It changes with a restore, after which
    /// positions are given out again: whoever keeps positions, or anything made from them, outside
    /// this database keeps it beside them, and begins anew where it differs. `None`: the process
    /// started without the database, and has not been told yet.
    pub fn incarnation(&self) -> Option<Uuid> {
        self.identity.incarnation()
    }

    /// Asks the database for a sign of life.
    ///
    /// # Errors
    /// As [`Self::check_installation`].
    pub async fn ping(&self) -> Result<(), Error> {
        let mut connection = self.identity.connection(&self.pool).await?;
        sqlx::query!("SELECT 1 AS one").fetch_one(&mut *connection).await?;
        Ok(())
    }

    /// Closes all connections; calls after it fail.
    pub async fn close(&self) {
        self.lifeline.close().await;
        self.pool.close().await;
    }
}

/// Limits of a serving connection, so that no statement, lock or forgotten transaction holds up a
/// slice. No statement here is long enough to be worth compiling, and one that the planner takes
/// for long would wait for that. Set by a statement and not at the start of the connection, which
/// poolers refuse.
const SERVING: &str = "SET lock_timeout = '2s'; SET statement_timeout = '30s'; \
                       SET idle_in_transaction_session_timeout = '5s'; SET jit = off";

/// A connection that was idle for longer than this is asked for a sign of life before its use.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);

/// Connections by which a worker keeps its slices: one for each consumer.
const LEASE_CONNECTIONS: u32 = 2;

/// The pool of a serving process, of connections to one installation.
fn checked_pool(
    config: &Config,
    max_connections: u32,
    identity: &Arc<Identity>,
) -> Result<PgPool, Error> {
    let identity = Arc::clone(identity);
    let options = pool_options(config).max_connections(max_connections).after_connect(
        move |connection, _| {
            let identity = Arc::clone(&identity);
            Box::pin(async move {
                connection.execute(SERVING).await?;
                identity.check(connection).await
            })
        },
    );
    Ok(options.connect_lazy_with(connect_options(config)?))
}

/// A pool of connections to whatever is there.
fn pool(config: &Config) -> Result<PgPool, Error> {
    let options = pool_options(config).max_connections(config.max_connections).after_connect(
        |connection, _| Box::pin(async move { connection.execute(SERVING).await.map(|_| ()) }),
    );
    Ok(options.connect_lazy_with(connect_options(config)?))
}

/// While a migration waits for a table, everybody behind it waits too; how long it runs is its
/// own affair. What exists already is no news.
const MIGRATING: &str = "SET lock_timeout = '5s'; SET client_min_messages = 'warning'";

/// The pool of a migration: one connection to hold its turn, one to work.
fn migration_pool(config: &Config) -> Result<PgPool, Error> {
    let options = pool_options(config).max_connections(2).after_connect(|connection, _| {
        Box::pin(async move { connection.execute(MIGRATING).await.map(|_| ()) })
    });
    Ok(options.connect_lazy_with(connect_options(config)?))
}

fn pool_options(config: &Config) -> PgPoolOptions {
    PgPoolOptions::new()
        .acquire_timeout(config.acquire_timeout)
        // A connection that was just used costs no question.
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move {
                if meta.idle_for > TRUSTED_IDLE {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
}

/// How to connect. The driver itself asks for UTC.
fn connect_options(config: &Config) -> Result<PgConnectOptions, Error> {
    let options: PgConnectOptions = config
        .url
        .expose_secret()
        .parse()
        .map_err(|source: sqlx::Error| Error::BadUrl { reason: redacted(&source) })?;
    Ok(options
        .application_name("tallylight")
        .log_slow_statements(tracing::log::LevelFilter::Debug, Duration::from_secs(1)))
}

/// Longest try to learn why nothing answers.
const LEARN: Duration = Duration::from_secs(1);

/// A pool that got no connection in time does not tell why; one more try does.
async fn with_cause(config: &Config, error: Error) -> Error {
    let Error::Unreachable { source: sqlx::Error::PoolTimedOut } = &error else { return error };
    let Ok(options) = connect_options(config) else { return error };
    match tokio::time::timeout(LEARN, PgConnection::connect_with(&options)).await {
        Ok(Err(cause)) => Error::Unreachable { source: cause },
        Ok(Ok(_)) | Err(_) => error,
    }
}

/// The text of a configuration error, which may quote the address: only its kind is kept.
fn redacted(source: &sqlx::Error) -> String {
    let text = source.to_string();
    text.split("://").next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreadable_address_is_not_quoted() {
        for url in
            ["postgres://me:hunter2@[::1", "not an address hunter2", "postgres://u:hunter2@h:no/x"]
        {
            let error = pool(&Config::new(url)).unwrap_err();
            assert!(matches!(error, Error::BadUrl { .. }), "{error}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
}
