//! `migrate`: brings the database to this version.

use anyhow::{Context, Result};
use domain::slice::SliceCount;

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
    database.close().await
}
