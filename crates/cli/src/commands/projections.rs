//! `projections`: rebuilds current state from the log, shows how far it is applied.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use store::{RebuildOptions, RebuildProgress, RebuildState, Rebuilt, Store};

use crate::cli::{Projections, Rebuild};
use crate::config::Config;
use crate::database::with_store;
use crate::output::say;

mod verify;

/// How often progress is shown on a terminal.
const TICK: Duration = Duration::from_millis(100);

/// How often it is told in lines.
const LINE: Duration = Duration::from_secs(5);

/// Does what was asked for.
pub(crate) async fn run(config: Config, command: Projections) -> Result<()> {
    with_store(&config, async |store| {
        match command {
            Projections::Rebuild(options) => rebuild_and_tell(store, &options).await?,
            Projections::Abort => abort(store).await?,
            Projections::Rollback => {
                store.roll_back().await?;
                say("the generation before the last rebuild is live again, brought up to date");
            }
            Projections::Verify(what) => verify::run(store, &what).await?,
            Projections::Status => status(store).await?,
        }
        Ok(())
    })
    .await
}

async fn rebuild_and_tell(store: &Store, options: &Rebuild) -> Result<()> {
    let begun = Instant::now();
    let stop_in = options.no_swap.then_some(RebuildState::Ready);
    let mut how = RebuildOptions { stop_in, ..RebuildOptions::default() };
    how.parallel = options.parallel.map_or(how.parallel, usize::from);
    let rebuilt = rebuild(store, &how).await?;
    let seconds = begun.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = rebuilt.events as f64 / seconds;
    say(format!(
        "{} events folded to {} subjects in {seconds:.1} s, {rate:.0} events/s; nothing was enqueued",
        rebuilt.events, rebuilt.subjects,
    ));
    if options.no_swap {
        say("ready: `tallylight projections rebuild` swaps it in, `projections abort` drops it");
    }
    Ok(())
}

/// Rebuilds, showing progress: a bar on a terminal, lines elsewhere.
pub(crate) async fn rebuild(store: &Store, options: &RebuildOptions) -> Result<Rebuilt> {
    let progress = Arc::new(RebuildProgress::default());
    let shown = tokio::spawn(show(progress.clone()));
    let rebuilt = store.rebuild(options, &progress).await;
    shown.abort();
    // Cancelled: its bar is cleared when it is dropped.
    let _ = shown.await;
    Ok(rebuilt?)
}

/// Shows progress for as long as it is let.
async fn show(progress: Arc<RebuildProgress>) -> Result<()> {
    if !std::io::stderr().is_terminal() {
        return tell(&progress).await;
    }
    let style = ProgressStyle::with_template(
        "  {msg:<12} {bar:24} {human_pos}/{human_len} events, {per_sec:>14}, {eta} left",
    )
    .context("draw the progress bar")?;
    let bar = ProgressBar::new(0).with_style(style);
    let bar = bar.with_finish(indicatif::ProgressFinish::AndClear);
    loop {
        let (done, goal) = progress.events();
        bar.set_length(goal);
        bar.set_position(done);
        bar.set_message(progress.state().map_or("waiting", RebuildState::name));
        tokio::time::sleep(TICK).await;
    }
}

/// Tells progress in lines.
async fn tell(progress: &RebuildProgress) -> Result<()> {
    let mut before = 0;
    loop {
        tokio::time::sleep(LINE).await;
        let (done, goal) = progress.events();
        let state = progress.state().map_or("waiting", RebuildState::name);
        let rate = (done - before) / LINE.as_secs();
        let left =
            (goal - done).checked_div(rate).map_or_else(|| "-".to_owned(), |s| s.to_string());
        say(format!("  {state}: {done} of {goal} events, {rate}/s, {left} s left"));
        before = done;
    }
}

async fn abort(store: &Store) -> Result<()> {
    if store.abort_rebuild().await? {
        say("aborted: what was rebuilt is dropped, the live projections are as they were");
        Ok(())
    } else {
        bail!("no rebuild is in work: `tallylight projections status` shows the last one")
    }
}

async fn status(store: &Store) -> Result<()> {
    if let Some(last) = store.rebuild_status().await? {
        say(format!(
            "last rebuild {} {} since {}, begun {}: {} of {} slices written, {} events, {} subjects",
            last.id,
            last.state.name(),
            last.state_at.format("%F %T"),
            last.began_at.format("%F %T"),
            last.slices,
            store.slices().get(),
            last.events,
            last.subjects,
        ));
    }
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
