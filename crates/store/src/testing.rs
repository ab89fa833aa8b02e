//! Stores for tests: a database of its own for every test, made from a migrated template on the one
//! throwaway cluster of the test binary; and [`Memory`], the store without a database, on a clock
//! and over lines that the test rules.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::OnceCell;

use crate::{Config, Store, create_database, migrate};

mod endpoints;
mod jobs;
mod lanes;
mod memory;
mod rate;
mod reactions;
mod schedules;
mod tables;

pub use endpoints::EndpointRow;
pub use jobs::{DeadRow, JobRow};
pub use memory::{Fate, Line, Memory};
pub use rate::BucketRow;
pub use reactions::{ParkedRow, Reacted};
pub use schedules::ScheduleRow;
pub use tables::{Checkpoint, Flaws, SliceTables, Tables};

/// The template, migrated once per test binary.
static TEMPLATE: OnceCell<()> = OnceCell::const_new();

/// Numbers the databases.
static NEXT: AtomicU32 = AtomicU32::new(1);

/// Creates a migrated database and returns its address.
///
/// # Panics
/// Where no cluster can be started: a test cannot go on.
#[expect(clippy::expect_used, reason = "a test without its database has failed")]
pub async fn database() -> String {
    // Finding, initialising and starting a cluster blocks.
    let cluster = tokio::task::spawn_blocking(postgres::shared_throwaway)
        .await
        .expect("the start of the test cluster does not panic")
        .expect("start the test cluster");
    TEMPLATE
        .get_or_init(|| async {
            let config = Config::new(cluster.url("template_tallylight"));
            create_database(&config).await.expect("create the template");
            migrate(&config, None).await.expect("migrate the template");
        })
        .await;
    let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let admin = sqlx::PgPool::connect(&cluster.url("postgres")).await.expect("connect");
    let create = format!("CREATE DATABASE {name} TEMPLATE template_tallylight");
    sqlx::query(sqlx::AssertSqlSafe(create)).execute(&admin).await.expect("create a database");
    admin.close().await;
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
