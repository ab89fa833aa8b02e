//! Stores for tests: a database of its own for every test, made from a migrated template on the one
//! throwaway cluster of the test binary; and [`Memory`], the store without a database, on a clock
//! and over lines that the test rules.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use domain::ids::Timestamp;
use domain::slice::SliceCount;
use sqlx::{Connection as _, PgConnection};
use tokio::sync::Mutex;

use crate::{Config, Store, create_database, migrate};

mod endpoints;
mod jobs;
mod lanes;
mod memory;
mod rate;
mod reactions;
mod samples;
mod schedules;
mod standing;
mod tables;
mod waits;

pub use endpoints::EndpointRow;
pub use jobs::{DeadRow, JobRow, Order};
pub use memory::{Fate, Line, Memory};
pub use rate::BucketRow;
pub use reactions::{ParkedRow, Reacted};
pub use schedules::ScheduleRow;
pub use tables::{Checkpoint, Flaws, SliceTables, Tables};
pub use waits::{ChildRow, StepRow};

/// The templates by their number of slices, each migrated once per test binary.
static TEMPLATES: Mutex<BTreeSet<i16>> = Mutex::const_new(BTreeSet::new());

/// Numbers the databases.
static NEXT: AtomicU32 = AtomicU32::new(1);

/// Databases whose tests have ended.
static ENDED: std::sync::Mutex<Vec<String>> = std::sync::Mutex::new(Vec::new());

thread_local! {
    /// The databases of the test that this thread runs. A test has a thread of its own.
    static OWN: Own = const { Own(RefCell::new(Vec::new())) };
}

/// Databases that end with their thread.
struct Own(RefCell<Vec<String>>);

impl Drop for Own {
    fn drop(&mut self) {
        let mut ended = ENDED.lock().unwrap_or_else(PoisonError::into_inner);
        ended.append(&mut self.0.borrow_mut());
    }
}

/// Creates a migrated database and returns its address.
///
/// # Panics
/// Where no cluster can be started: a test cannot go on.
pub async fn database() -> String {
    database_of(SliceCount::DEFAULT).await
}

/// Creates a migrated database of that many slices and returns its address.
///
/// # Panics
/// As [`database`].
#[expect(clippy::expect_used, reason = "a test without its database has failed")]
pub async fn database_of(slices: SliceCount) -> String {
    // Finding, initialising and starting a cluster blocks.
    let cluster = tokio::task::spawn_blocking(postgres::shared_throwaway)
        .await
        .expect("the start of the test cluster does not panic")
        .expect("start the test cluster");
    let template = format!("template_tallylight_{}", slices.get());
    {
        let mut made = TEMPLATES.lock().await;
        if !made.contains(&slices.get()) {
            let config = Config::new(cluster.url(&template));
            create_database(&config).await.expect("create the template");
            migrate(&config, Some(slices)).await.expect("migrate the template");
            made.insert(slices.get());
        }
    }
    let admin = cluster.url("postgres");
    let mut admin = PgConnection::connect(&admin).await.expect("connect to the test cluster");
    let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let ended = std::mem::take(&mut *ENDED.lock().unwrap_or_else(PoisonError::into_inner));
    // The cluster may lie in memory, so that databases nobody needs go.
    let drops = ended.iter().map(|name| format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"));
    for statement in drops.chain([format!("CREATE DATABASE {name} TEMPLATE {template}")]) {
        let made = sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut admin).await;
        made.expect("create a database");
    }
    admin.close().await.expect("close the connection");
    OWN.with(|own| own.0.borrow_mut().push(name.clone()));
    cluster.url(&name)
}

/// Connects to a database of its own.
///
/// # Panics
/// As [`database`].
#[expect(clippy::expect_used, reason = "a test without its database has failed")]
pub async fn store() -> Store {
    // A machine that runs many tests at once is slow, not broken.
    let acquire_timeout = Duration::from_secs(30);
    let config = Config { acquire_timeout, ..Config::new(database().await) };
    Store::connect(&config).await.expect("connect to the test's database")
}

/// Changes the names in all session requests, as damage does.
///
/// # Panics
/// As [`database`].
#[expect(clippy::expect_used, reason = "a test that cannot go on has failed")]
pub async fn forge_requests(store: &Store) {
    sqlx::raw_sql("UPDATE tallylight.session_request SET name = 'forged'")
        .execute(&store.pool)
        .await
        .expect("forge them");
}

/// Removes an event from the log, as damage does: the owner of the tables alone can.
///
/// # Panics
/// As [`database`].
#[expect(clippy::expect_used, reason = "a test that cannot go on has failed")]
pub async fn lose_event(store: &Store, slice: i16, position: i64) {
    let statement = format!(
        "ALTER TABLE tallylight.event DISABLE TRIGGER event_append_only;
         DELETE FROM tallylight.event WHERE slice = {slice} AND position = {position};
         ALTER TABLE tallylight.event ENABLE TRIGGER event_append_only"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&store.pool).await.expect("lose it");
}

/// Lets a database turn out to be of the installation `id`, as another one behind the same address
/// would.
///
/// # Panics
/// As [`database`].
#[expect(clippy::expect_used, reason = "a test that cannot go on has failed")]
pub async fn become_installation(store: &Store, id: uuid::Uuid) {
    let statement = format!("UPDATE tallylight.installation SET id = '{id}'");
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&store.pool).await.expect("become it");
}

/// Gives a schedule an option that no version knows, as a later one might.
///
/// # Panics
/// Where the database refuses it.
#[expect(clippy::expect_used, reason = "a test that cannot go on has failed")]
pub async fn break_schedule(store: &Store, name: &str) {
    sqlx::query("UPDATE tallylight.schedule SET opts = '{\"colour\": \"red\"}' WHERE name = $1")
        .bind(name)
        .execute(&store.pool)
        .await
        .expect("the table is there");
}

/// Ends all leases, and forgets the processes, as when all of them died long ago.
///
/// # Panics
/// Where the database refuses it.
#[expect(clippy::expect_used, reason = "a test that cannot go on has failed")]
pub async fn end_leases(store: &Store) {
    let ended = "UPDATE tallylight.checkpoint SET lease_until = now() - interval '1 second'
                  WHERE owner IS NOT NULL;
                 DELETE FROM tallylight.process";
    sqlx::raw_sql(ended).execute(&store.pool).await.expect("end them");
}

/// Sets the next fire of a schedule, as if nobody had looked at it since.
///
/// # Panics
/// Where the database refuses it.
#[expect(clippy::expect_used, reason = "a test that cannot go on has failed")]
pub async fn rewind_schedule(store: &Store, name: &str, to: Timestamp) {
    sqlx::query("UPDATE tallylight.schedule SET next_fire_at = $2 WHERE name = $1")
        .bind(name)
        .bind(to)
        .execute(&store.pool)
        .await
        .expect("the table is there");
}

/// Makes jobs due that wait for their next try.
///
/// # Panics
/// Where the database refuses it.
#[expect(clippy::expect_used, reason = "a test that cannot go on has failed")]
pub async fn hurry_retries(store: &Store) {
    sqlx::query("UPDATE tallylight.job SET run_at = now() WHERE errors > 0 AND run_epoch IS NULL")
        .execute(&store.pool)
        .await
        .expect("hurry them");
}

/// Lets endpoints that are failing have failed since some days ago.
///
/// # Panics
/// Where the database refuses it.
#[expect(clippy::expect_used, reason = "a test that cannot go on has failed")]
pub async fn fail_for_days(store: &Store, days: i32) {
    sqlx::query(
        "UPDATE tallylight.endpoint SET failing_since = now() - make_interval(days => $1)
          WHERE failing_since IS NOT NULL",
    )
    .bind(days)
    .execute(&store.pool)
    .await
    .expect("let them have failed");
}
