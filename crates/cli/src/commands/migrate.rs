//! `migrate`: brings the database to this version.

use anyhow::{Context, Result};
use domain::slice::SliceCount;
use store::OwnerConnection;

use crate::cli::Migrate;
use crate::config::Config;
use crate::database::Database;
use crate::output::say;

/// Migrates and says what is there.
pub(crate) async fn run(config: Config, options: Migrate) -> Result<()> {
    let database = Database::open(&config).await?;
    let slices = options.slices.and_then(SliceCount::new);
    let migrated =
        store::migrate(&database.config, slices).await.context("migrate the database")?;
    let what = if migrated.is_new { "new installation" } else { "installation" };
    say(format!(
        "{what} {} with {} slices is up to date",
        migrated.installation,
        migrated.slices.get()
    ));
    if migrated.is_restored {
        say(format!("it was restored: its log begins incarnation {}", migrated.incarnation));
    }
    if options.distribute {
        distribute(&database, options.dry_run).await?;
    }
    database.close().await
}

/// Distributes the tables over a Citus cluster, or says how.
async fn distribute(database: &Database, dry_run: bool) -> Result<()> {
    let mut connection = OwnerConnection::open(&database.config).await?;
    if dry_run {
        for statement in connection.catalogue().await?.statements() {
            say(format!("{statement};"));
        }
    } else {
        match connection.distribute().await? {
            0 => say("every table is distributed already"),
            tables => say(format!("{tables} tables are distributed by slice")),
        }
    }
    Ok(connection.close().await?)
}
