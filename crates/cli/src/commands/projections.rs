//! `projections`: rebuilds current state from the log, shows how far it is applied.

use std::time::Instant;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use store::{Rebuilt, Store};

use crate::cli::Projections;
use crate::config::Config;
use crate::database::Database;
use crate::output::say;

/// Does what was asked for.
pub(crate) async fn run(config: Config, command: Projections) -> Result<()> {
    let database = Database::open(&config).await?;
    let store = database.connect().await?;
    match command {
        Projections::Rebuild => {
            let begun = Instant::now();
            let rebuilt = rebuild(&store).await?;
            say(format!(
                "{} events folded to {} subjects in {:.1} s; nothing was enqueued",
                rebuilt.events,
                rebuilt.subjects,
                begun.elapsed().as_secs_f32()
            ));
        }
        Projections::Status => status(&store).await?,
    }
    store.close().await;
    database.close().await
}

/// Rebuilds slice by slice, showing progress on a terminal.
pub(crate) async fn rebuild(store: &Store) -> Result<Rebuilt> {
    let bar = ProgressBar::new(u64::from(store.slices().get().unsigned_abs()));
    let style = ProgressStyle::with_template("  rebuilding {bar:24} {pos}/{len} slices")
        .context("draw the progress bar")?;
    bar.set_style(style);
    let mut total = Rebuilt::default();
    for slice in store.slices().slices() {
        let rebuilt = store.rebuild_slice(slice).await?;
        total.events += rebuilt.events;
        total.subjects += rebuilt.subjects;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(total)
}

async fn status(store: &Store) -> Result<()> {
    say("slice      head   applied     lag  parked  owner");
    for s in store.slice_status().await? {
        let owner = s.owner.map_or_else(|| "-".to_owned(), |owner| owner.to_string());
        say(format!(
            "{:>5}  {:>8}  {:>8}  {:>6}  {:>6}  {owner}",
            s.slice,
            s.head,
            s.position,
            s.head - s.position,
            s.parked
        ));
    }
    Ok(())
}
