//! `history`: seals closed months of the log, lists segments, verifies them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use store::{Sealed, Store};

use crate::cli::History;
use crate::config::Config;
use crate::database::with_store;
use crate::output::{complain, say};

/// No limit on a run that somebody watches; what was done stays if it is stopped.
const UNLIMITED: Duration = Duration::from_hours(24 * 365);

/// Does what was asked for.
pub(crate) async fn run(config: Config, command: History) -> Result<()> {
    let age = |given: Option<Duration>| {
        given.or(config.history.seal_after).context(
            "nothing is sealed unless told: set history.seal_after or give --seal-after, such as \"13 months\"",
        )
    };
    with_store(&config, async |store| {
        match command {
            History::Plan { seal_after } => plan(store, age(seal_after)?).await?,
            History::Seal { seal_after } => seal(store, age(seal_after)?).await?,
            History::List => list(store).await?,
            History::Verify => verify(store).await?,
        }
        Ok(())
    })
    .await
}

async fn plan(store: &Store, seal_after: Duration) -> Result<()> {
    let months = store.history_plan(seal_after).await?;
    if months.is_empty() {
        say("no past month is in the database");
    }
    for month in months {
        let state = match (&month.kept, month.attached) {
            (Some(reason), _) => format!("kept: {reason}"),
            (None, true) => "to be sealed".to_owned(),
            (None, false) => "sealed, to be dropped".to_owned(),
        };
        say(format!("{}  about {:>10} events  {state}", month.from.format("%Y-%m"), month.events));
    }
    Ok(())
}

async fn seal(store: &Store, seal_after: Duration) -> Result<()> {
    let mut sealed = Sealed::default();
    for month in store.history_plan(seal_after).await? {
        if month.kept.is_some() {
            break;
        }
        let before = sealed;
        store.seal_month(&month, Instant::now() + UNLIMITED, &mut sealed).await?;
        say(format!(
            "{}  {} events in {} segments, {} bytes",
            month.from.format("%Y-%m"),
            sealed.events - before.events,
            sealed.segments - before.segments,
            sealed.bytes - before.bytes,
        ));
    }
    store.measure_history().await?;
    say(format!("{} months left the database", sealed.months));
    Ok(())
}

async fn list(store: &Store) -> Result<()> {
    let segments = store.segments().await?;
    if segments.is_empty() {
        say("nothing is sealed");
        return Ok(());
    }
    say("slice        from          to       bytes  recorded                  file");
    for s in segments {
        let (begun, ended) = (s.from_at.format("%F"), s.to_at.format("%F"));
        say(format!(
            "{:>5}  {:>10}  {:>10}  {:>10}  {begun} to {ended}  {}",
            s.slice, s.from, s.to, s.bytes, s.file
        ));
    }
    Ok(())
}

async fn verify(store: &Store) -> Result<()> {
    let segments = store.segments().await?;
    let bar = ProgressBar::new(segments.len() as u64);
    let style = ProgressStyle::with_template("  verifying {bar:24} {pos}/{len} segments")
        .context("draw the progress bar")?;
    bar.set_style(style);
    let (mut wrong, mut events, mut bytes) = (0_usize, 0, 0);
    for segment in &segments {
        if let Err(error) = store.verify_segment(segment).await {
            wrong += 1;
            bar.suspend(|| complain(&anyhow::Error::new(error)));
        }
        events += segment.events();
        bytes += segment.bytes;
        bar.inc(1);
    }
    bar.finish_and_clear();
    for finding in store.history_holes().await? {
        wrong += 1;
        say(format!("WRONG  {finding}"));
    }
    if store.has_history() {
        for file in store.unnoted_files().await? {
            say(format!("note   {file} belongs to no segment and can be removed"));
        }
    }
    if wrong > 0 {
        bail!("{wrong} found wrong");
    }
    say(format!("{} segments with {events} events in {bytes} bytes are sound", segments.len()));
    Ok(())
}
