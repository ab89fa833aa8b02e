//! Installing: migrations, the installation's row, heads and checkpoints, partitions ahead, roles.

use domain::slice::SliceCount;
use sqlx::{Executor, PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

use crate::consumer::Consumer;
use crate::{Config, Error, migration_pool, partitions, pool, with_cause};

/// The lock that migrations of one database take in turn.
const MIGRATION_LOCK: i64 = 0x7461_6c6c_796c_6967;

/// The migrations of this version. They are noted in our own schema, since the product may keep
/// its tables in the same database and migrate them by the same means.
fn migrator() -> sqlx::migrate::Migrator {
    let mut migrator = sqlx::migrate!("../../migrations");
    migrator.create_schema("tallylight");
    migrator.dangerous_set_table_name("tallylight.migration");
    // An older binary may meet a schema that a newer one has extended.
    migrator.set_ignore_missing(true);
    // We hold a lock of our own, and a migrator that waits for its turn may wait for long.
    migrator.set_locking(false);
    migrator
}

/// The newest migration of this version.
fn newest() -> i64 {
    migrator().iter().map(|migration| migration.version).max().unwrap_or_default()
}

/// What `migrate` found or made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migrated {
    /// Which installation it is.
    pub installation: Uuid,
    /// Its number of slices.
    pub slices: SliceCount,
    /// Which history the positions of its log belong to.
    pub incarnation: Uuid,
    /// It was made now.
    pub is_new: bool,
    /// It was restored from a backup, and its incarnation was begun now.
    pub is_restored: bool,
}

/// What is known of where a schema comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// Nothing but what it shows itself.
    Unknown,
    /// It was restored just now.
    Restored,
}

/// Brings a database to this version. `slices` counts when the installation is made; asked for
/// later, it must be the same. Callers at the same time take turns; nothing limits how long a
/// migration runs.
///
/// # Errors
/// [`Error::SlicesFixed`] for another number of slices, [`Error::Migrate`] where a migration fails,
/// also because somebody held a table for more than 5 s: run it again.
pub async fn migrate(config: &Config, slices: Option<SliceCount>) -> Result<Migrated, Error> {
    migrate_from(config, slices, Origin::Unknown).await
}

/// As [`migrate`], of a schema that was restored just now: its log begins a new incarnation, even
/// where the backup is older than incarnations and so does not show that it was restored.
///
/// # Errors
/// As for [`migrate`].
pub async fn migrate_restored(config: &Config) -> Result<Migrated, Error> {
    migrate_from(config, None, Origin::Restored).await
}

async fn migrate_from(
    config: &Config,
    slices: Option<SliceCount>,
    origin: Origin,
) -> Result<Migrated, Error> {
    let pool = migration_pool(config)?;
    let migrated = migrate_in(&pool, slices, origin).await;
    // Closing releases the lock, also after a failure.
    pool.close().await;
    match migrated {
        Ok(migrated) => Ok(migrated),
        Err(error) => Err(with_cause(config, error).await),
    }
}

async fn migrate_in(
    pool: &PgPool,
    slices: Option<SliceCount>,
    origin: Origin,
) -> Result<Migrated, Error> {
    let mut turn = pool.acquire().await?;
    turn.execute("SET lock_timeout = 0").await?;
    sqlx::query!("SELECT pg_advisory_lock($1)", MIGRATION_LOCK).execute(&mut *turn).await?;
    migrator().run(pool).await.map_err(|source| Error::Migrate { source })?;
    let migrated = install(pool, slices, origin).await?;
    partitions::ensure(pool, None).await?;
    ensure_roles(pool).await?;
    Ok(migrated)
}

/// Makes the rows that an installation needs, where they are missing.
async fn install(
    pool: &PgPool,
    slices: Option<SliceCount>,
    origin: Origin,
) -> Result<Migrated, Error> {
    let mut tx = pool.begin().await?;
    let made = sqlx::query!(
        "INSERT INTO tallylight.installation (id, slices) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        Uuid::now_v7(),
        slices.unwrap_or(SliceCount::DEFAULT).get(),
    )
    .execute(&mut *tx)
    .await?;
    let incarnation = settle_incarnation(&mut tx, origin).await?;
    let row = sqlx::query!("SELECT id, slices, incarnation FROM tallylight.installation")
        .fetch_one(&mut *tx)
        .await?;
    let present = SliceCount::new(row.slices).ok_or(Error::NotMigrated)?;
    if let Some(wanted) = slices.filter(|wanted| *wanted != present) {
        return Err(Error::SlicesFixed { wanted: wanted.get(), present: present.get() });
    }
    sqlx::query!(
        "INSERT INTO tallylight.slice_head (slice) SELECT generate_series(0, $1 - 1)
         ON CONFLICT DO NOTHING",
        i32::from(present.get()),
    )
    .execute(&mut *tx)
    .await?;
    for consumer in Consumer::ALL {
        sqlx::query!(
            "INSERT INTO tallylight.checkpoint (consumer, slice) SELECT $1, generate_series(0, $2 - 1)
             ON CONFLICT DO NOTHING",
            consumer.name(),
            i32::from(present.get()),
        )
        .execute(&mut *tx)
        .await?;
    }
    sqlx::query!(
        "UPDATE tallylight.installation SET migrated_to = $1 WHERE migrated_to < $1",
        newest(),
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(Migrated {
        installation: row.id,
        slices: present,
        incarnation: row.incarnation,
        is_new: made.rows_affected() > 0,
        is_restored: incarnation.is_some(),
    })
}

/// Begins a new incarnation where the schema was restored; returns it then.
async fn settle_incarnation(
    connection: &mut PgConnection,
    origin: Origin,
) -> Result<Option<Uuid>, Error> {
    let begun = sqlx::query_scalar!(
        "SELECT tallylight.begin_incarnation() FROM tallylight.installation
          WHERE $1 OR schema_oid <> to_regnamespace('tallylight')::oid",
        origin == Origin::Restored,
    )
    .fetch_optional(connection)
    .await?;
    Ok(begun.flatten())
}

/// Makes the group roles and their grants. Where the migrating role may not, an administrator can
/// do it later; who has one role for everything needs none of them.
async fn ensure_roles(pool: &PgPool) -> Result<(), Error> {
    let missing = sqlx::query_scalar!("SELECT tallylight.ensure_roles()")
        .fetch_one(pool)
        .await?
        .unwrap_or_default();
    if !missing.is_empty() {
        let create: Vec<String> =
            missing.iter().map(|role| format!("CREATE ROLE {role} NOLOGIN;")).collect();
        tracing::warn!(
            create = create.join(" "),
            "group roles are missing: let an administrator create them, then migrate again"
        );
    }
    Ok(())
}

/// Which installation a database holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Installation {
    pub(crate) id: Uuid,
    pub(crate) slices: SliceCount,
    pub(crate) incarnation: Uuid,
}

/// Reads which installation this is. One whose tables are older than this version is not migrated,
/// nor is one that was restored since.
pub(crate) async fn installation(executor: impl PgExecutor<'_>) -> Result<Installation, Error> {
    let row = sqlx::query!(
        r#"SELECT id, slices, migrated_to, incarnation,
                  schema_oid <> to_regnamespace('tallylight')::oid AS "restored!"
             FROM tallylight.installation"#
    )
    .fetch_optional(executor)
    .await?
    .filter(|row| row.migrated_to >= newest())
    .ok_or(Error::NotMigrated)?;
    if row.restored {
        return Err(Error::Restored);
    }
    let slices = SliceCount::new(row.slices).ok_or(Error::NotMigrated)?;
    Ok(Installation { id: row.id, slices, incarnation: row.incarnation })
}

/// Creates the database of `url` through the server's `postgres` database, if it is missing.
/// Returns whether it was.
///
/// # Errors
/// As for any connection; the role must be allowed to create databases.
pub async fn create_database(config: &Config) -> Result<bool, Error> {
    use secrecy::ExposeSecret;
    use sqlx::migrate::MigrateDatabase;
    let url = config.url.expose_secret();
    if sqlx::Postgres::database_exists(url).await? {
        return Ok(false);
    }
    match sqlx::Postgres::create_database(url).await {
        Ok(()) => Ok(true),
        // By somebody else, in this moment.
        Err(error) if is_duplicate_database(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn is_duplicate_database(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| matches!(code.as_ref(), "42P04" | "23505"))
}

/// Drops the database of `url`, if it exists, whoever is connected.
///
/// # Errors
/// As for any connection.
pub async fn drop_database(config: &Config) -> Result<(), Error> {
    use secrecy::ExposeSecret;
    use sqlx::migrate::MigrateDatabase;
    sqlx::Postgres::force_drop_database(config.url.expose_secret()).await?;
    Ok(())
}

/// Names of databases of the server that begin with `prefix` and that nobody is connected to.
///
/// # Errors
/// As for any connection.
pub async fn idle_databases(config: &Config, prefix: &str) -> Result<Vec<String>, Error> {
    let pool = pool(config)?;
    let names = sqlx::query_scalar!(
        r#"SELECT datname::text AS "name!" FROM pg_database d
            WHERE starts_with(datname::text, $1)
              AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.datname = d.datname)"#,
        prefix,
    )
    .fetch_all(&pool)
    .await?;
    pool.close().await;
    Ok(names)
}
