//! `cleanup`: makes runs and explains them. The workers judge and delete.

use std::time::Duration;

use anyhow::{Result, bail};
use domain::cleanup::report::{Candidate, Report};
use domain::cleanup::{CleanupPolicy, run_id};
use domain::event::RecordedEvent;
use domain::ids::Subject;
use serde_json::json;
use store::{EnqueueOptions, Store};
use tokio::time::Instant;
use uuid::Uuid;

use crate::cli::{Cleanup, CleanupRun};
use crate::config::Config;
use crate::database::with_store;
use crate::output::say;

/// Time between two looks for a run that is in the making.
const LOOK: Duration = Duration::from_millis(250);

/// Events of a run that are read in one go.
const PAGE: i64 = 500;

/// Does what was asked for.
pub(crate) async fn run(config: Config, command: Cleanup) -> Result<()> {
    let sources: Vec<String> = config.sources.iter().map(|source| source.name.clone()).collect();
    with_store(&config, async |store| match command {
        Cleanup::Run(options) => make(store, &sources, options).await,
        Cleanup::Show { run } => show(store, &sources, run).await,
    })
    .await
}

/// Makes the runs and tells each when all is judged, and what is deleted when that is over too.
async fn make(store: &Store, sources: &[String], options: CleanupRun) -> Result<()> {
    let sources: Vec<&String> = match &options.source {
        Some(only) => sources.iter().filter(|source| *source == only).collect(),
        None => sources.iter().collect(),
    };
    if sources.is_empty() {
        bail!("no such source is configured: see [[sources]] in tallylight.toml");
    }
    let until = Instant::now() + options.wait;
    let policies = options.policy.map_or(CleanupPolicy::ALL.to_vec(), |policy| vec![policy]);
    for policy in policies {
        let args = json!({
            "policy": policy, "source": options.source, "dry_run": !options.delete,
            "cap": options.cap, "after_days": options.after_days,
        });
        let job = store.enqueue_job("clean_up", &args, &EnqueueOptions::default(), None).await?;
        let Some(job) = job.id else { bail!("the job was not enqueued") };
        store.notifier().enqueued(store.slice_of(&Subject::job(job)));
        for source in &sources {
            let subject = Subject::cleanup(source, run_id(job, source));
            match finished(store, &subject, until).await? {
                Some(report) => tell(&report),
                None => bail!(
                    "the run by {policy} on {source} has not begun: does a worker run? \
                     `tallylight jobs why {job}` says more"
                ),
            }
        }
    }
    Ok(())
}

/// The report of a run once it is over, or as far as it is when the time is up.
async fn finished(store: &Store, subject: &Subject, until: Instant) -> Result<Option<Report>> {
    loop {
        let report = Report::of(&events(store, subject).await?);
        let is_over = report.as_ref().is_some_and(|report| report.status == "finished");
        if is_over || Instant::now() >= until {
            return Ok(report);
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn show(store: &Store, sources: &[String], run: Uuid) -> Result<()> {
    for source in sources {
        if let Some(report) = Report::of(&events(store, &Subject::cleanup(source, run)).await?) {
            tell(&report);
            return Ok(());
        }
    }
    bail!("no run {run} on any source that is configured here")
}

async fn events(store: &Store, subject: &Subject) -> Result<Vec<RecordedEvent>> {
    let mut events: Vec<RecordedEvent> = Vec::new();
    loop {
        let after = events.last().map_or(0, |event| event.position);
        let more = store.read_subject(subject, after, PAGE).await?;
        if more.is_empty() {
            return Ok(events);
        }
        events.extend(more);
    }
}

/// Explains a run.
fn tell(report: &Report) {
    let dry = if report.dry_run { ", dry run" } else { "" };
    say(format!("{} on {}: {}{dry}", report.policy, report.source, report.status));
    say(format!("  run    {}", report.run));
    say(format!("  job    {}", report.job));
    say(format!("  rule   {}; at most {}", report.rule, report.cap));
    for candidate in &report.candidates {
        say(format!("  {}", line(candidate)));
    }
    let Report { looked_at, proposed, kept, left, deleted, videos_deleted, spared, .. } = report;
    say(format!("  {looked_at} looked at: {proposed} proposed, {kept} kept, {left} left"));
    if !report.dry_run {
        say(format!(
            "  {deleted} live streams and {videos_deleted} videos deleted, {spared} kept after all"
        ));
    }
}

/// A candidate on one line.
fn line(candidate: &Candidate) -> String {
    let Candidate { live_stream_id, video_ids, proposed, reason, outcome } = candidate;
    let videos: Vec<String> = video_ids.iter().map(ToString::to_string).collect();
    let what = match videos.as_slice() {
        [] => format!("live stream {live_stream_id}"),
        videos => format!("live stream {live_stream_id}, videos {}", videos.join(", ")),
    };
    let verdict = if *proposed { "delete" } else { "keep  " };
    match outcome {
        None => format!("{verdict} {what}: {reason}"),
        Some(outcome) => {
            let became = match (outcome.deleted, outcome.video_ids.len()) {
                (true, _) => "deleted".to_owned(),
                (false, 0) => format!("kept: {}", outcome.reason),
                (false, n) => format!("{n} videos deleted"),
            };
            format!("{verdict} {what}: {reason} -> {became}")
        }
    }
}
