//! `demo`: the first minute. A database, a simulated platform, ingest, worker and API of its own;
//! one session with a 40-second encoder drop; then the worker is killed and the projections are
//! rebuilt from the log. Every figure that it prints was read from the database or the simulator.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;
use store::RebuildOptions;
use uuid::Uuid;

use crate::cli::Demo;
use crate::commands::projections;
use crate::lifecycle;
use crate::output::say;

mod script;
mod show;
mod stage;
mod tutorial;

use script::Script;
use show::Show;
use stage::Stage;

/// Longest time for the whole session: a fault shows as an error, not as a wait without end.
const LIMIT: Duration = Duration::from_mins(2);

/// The last line, for programs.
#[derive(Serialize)]
struct Figures<'a> {
    session: Uuid,
    status: &'a str,
    parts: usize,
    videos_ready: usize,
    gap_ms: Option<i64>,
    platform_calls: usize,
    webhooks: usize,
    rebuild_identical: bool,
    tutorial_steps: usize,
}

/// Runs the demonstration.
pub(crate) async fn run(options: Demo) -> Result<()> {
    let stop = lifecycle::stop_on_signal()?;
    crate::telemetry::start(&crate::config::Log::default(), "off")?;
    let stage = Stage::set(&options).await?;
    let played = tokio::select! {
        played = play(&options, &stage) => played,
        () = stop.cancelled() => Err(anyhow::anyhow!("stopped by a signal")),
    };
    if played.is_ok() && !options.once {
        stage.invite();
        stop.cancelled().await;
    }
    stage.clear().await?;
    say(played?);
    Ok(())
}

/// Plays the session and returns the last line.
async fn play(options: &Demo, stage: &Stage) -> Result<String> {
    let begun = Instant::now();
    let show = Show::begin(stage.store.clone(), stage.sealing_key.clone());
    let script = Script { stage, speed: options.speed };
    let session = tokio::time::timeout(LIMIT, script.play(&show))
        .await
        .with_context(|| format!("the session did not end within {} s", LIMIT.as_secs()))??;
    let webhooks = show.end().await?;

    let (before, jobs_before) = (stage.store.digest().await?, stage.store.job_counts().await?);
    stage.kill_worker().await?;
    show::line("The worker is killed with -9. The projections are rebuilt from the log alone:");
    let rebuilt = projections::rebuild(&stage.store, &RebuildOptions::default()).await?;
    let (after, jobs_after) = (stage.store.digest().await?, stage.store.job_counts().await?);
    let identical = before == after && jobs_before == jobs_after;

    let requests = stage.simulator.requests();
    let steps = tutorial::steps_in_order(&requests, &webhooks);
    let summary = script.summary(&session).await?;
    show::summary(&summary, rebuilt, after.rows, identical, begun.elapsed());
    let figures = Figures {
        session,
        status: &summary.status,
        parts: summary.parts.len(),
        videos_ready: summary.videos_ready(),
        gap_ms: summary.gap_ms,
        platform_calls: requests.len(),
        webhooks: webhooks.len(),
        rebuild_identical: identical,
        tutorial_steps: steps,
    };
    serde_json::to_string(&figures).context("write the last line")
}
