//! `demo`: the first minute. A database, a simulated platform, ingest, worker and API of its own;
//! one session with a 40-second encoder drop; then the worker is killed and the projections are
//! rebuilt from the log. Every figure that it prints was read from the database or the simulator.
//! With a script it plays that instead, and prints the transcript.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;
use store::{RebuildOptions, Store};
use uuid::Uuid;

use crate::cli::Demo;
use crate::commands::projections;
use crate::lifecycle;
use crate::output::say;

mod player;
mod script;
mod show;
mod stage;
mod story;
mod tutorial;

use player::Player;
use script::Script;
use show::Show;
use stage::Stage;
use story::Story;

/// Longest time for the whole session: a fault shows as an error, not as a wait without end.
const LIMIT: Duration = Duration::from_mins(2);

/// How often is looked whether all is applied.
const LOOK: Duration = Duration::from_millis(20);

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
    let story = options.script.as_deref().map(read_story).transpose()?;
    let stage = Stage::set(&options, story.as_ref()).await?;
    let played = async {
        match &story {
            Some(story) => tell(&options, &stage, story).await,
            None => play(&options, &stage).await,
        }
    };
    let played = tokio::select! {
        played = played => played,
        () = stop.cancelled() => Err(anyhow::anyhow!("stopped by a signal")),
    };
    if played.is_ok() && !options.once && story.is_none() {
        stage.invite();
        stop.cancelled().await;
    }
    stage.clear().await?;
    say(played?);
    Ok(())
}

/// Reads a script.
fn read_story(path: &Path) -> Result<Story> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    Story::read(&text).with_context(|| format!("read {}", path.display()))
}

/// Plays a script and returns the last line.
async fn tell(options: &Demo, stage: &Stage, story: &Story) -> Result<String> {
    let show = Show::begin(stage.store.clone(), stage.sealing_key.clone());
    let played = Player::new(stage, &show, options.speed).play(story).await;
    // What the log says is told also where the story fails.
    show.end().await?;
    played?;
    Ok("| The story went as it is written.".to_owned())
}

/// Waits until every event is applied.
async fn until_applied(store: &Store) -> Result<()> {
    let is_level = async {
        while store.slice_status().await?.iter().any(|slice| slice.lag() > 0) {
            tokio::time::sleep(LOOK).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(LIMIT, is_level).await.context("the log is not applied to its end")?
}

/// Live jobs and dead letters. Which of the live ones are due changes as time passes.
async fn jobs(store: &Store) -> Result<(i64, i64)> {
    let jobs = store.job_counts().await?;
    let waiting = jobs.available + jobs.scheduled + jobs.retryable;
    Ok((waiting + jobs.running + jobs.cancelled, jobs.dead))
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

    until_applied(&stage.store).await?;
    stage.kill_worker().await?;
    // Nobody works any more: what differs from now on is the rebuild's doing.
    let (before, jobs_before) = (stage.store.digest().await?, jobs(&stage.store).await?);
    show::line("The worker is killed with -9. The projections are rebuilt from the log alone:");
    let rebuilt = projections::rebuild(&stage.store, &RebuildOptions::default()).await?;
    let (after, jobs_after) = (stage.store.digest().await?, jobs(&stage.store).await?);
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
