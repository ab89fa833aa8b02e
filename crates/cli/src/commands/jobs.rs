//! `jobs`: looks at jobs, cancels, lets dead ones run again. Enqueueing is in `enqueue`, pauses in
//! `pauses`, why a job does not run in `why`.

use anyhow::{Context, Result, bail};
use domain::ids::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use store::{Attempt, DeadFilter, JobFilter, JobView, JobWaits, Redrive, Store};
use uuid::Uuid;

use crate::cli::{Dead, Jobs};
use crate::config::Config;
use crate::database::with_store;
use crate::output::say;

mod enqueue;
mod pauses;
mod why;

/// Does what was asked for.
pub(crate) async fn run(config: Config, command: Jobs) -> Result<()> {
    with_store(&config, async |store| perform(&config, store, command).await).await
}

async fn perform(config: &Config, store: &Store, command: Jobs) -> Result<()> {
    match command {
        Jobs::Status => status(store).await,
        Jobs::List { state, kind, subject, limit, json } => {
            let filter = JobFilter { state, kind, subject };
            list(store, &filter, limit, json).await
        }
        Jobs::Show { id, json } => show(store, id, json).await,
        Jobs::Why { id, subject, json } => why::run(store, config, id, subject, json).await,
        Jobs::Cancel { id, force } => cancel(store, id, force).await,
        Jobs::Dead { filter, limit, json } => dead(store, filter, limit, json).await,
        Jobs::Retry { id } => {
            store.retry_dead(id).await?;
            say(format!("job {id} runs again"));
            Ok(())
        }
        Jobs::Redrive { filter, edit, force, dry_run } => {
            let edit = edit.map(|edit| serde_json::from_str(&edit));
            let edit: Option<Value> = edit.transpose().context("read the edit as JSON")?;
            let how = Redrive { edit, dry_run, decided: force };
            let count = store.redrive(&condition(filter), &how).await?;
            say(told(count, dry_run, "run again"));
            Ok(())
        }
        Jobs::Discard { filter, dry_run } => {
            let count = store.discard_dead(&condition(filter), dry_run).await?;
            say(told(count, dry_run, "are thrown away"));
            Ok(())
        }
        Jobs::Pause { what, reason } => pauses::pause(store, &what, reason.as_deref()).await,
        Jobs::Resume { what } => pauses::resume(store, &what).await,
        Jobs::Paused => pauses::list(store).await,
        Jobs::Enqueue(job) => enqueue::run(store, *job, &config.kinds()).await,
    }
}

async fn status(store: &Store) -> Result<()> {
    let counts = store.job_counts().await?;
    say(format!("available    {}", counts.available));
    say(format!("scheduled    {}", counts.scheduled));
    say(format!("retryable    {}", counts.retryable));
    say(format!("running      {}", counts.running));
    say(format!("cancelled    {}", counts.cancelled));
    say(format!("discarded    {}", counts.discarded()));
    say(format!("quarantined  {}", counts.quarantined));
    Ok(())
}

async fn list(store: &Store, filter: &JobFilter, limit: i64, json: bool) -> Result<()> {
    let jobs = store.live_jobs(filter, None, limit).await?;
    if jobs.is_empty() && !json {
        say("no such jobs");
    }
    for job in jobs {
        if json {
            say(json!(job));
            continue;
        }
        let due = job.run_at.map(time).unwrap_or_default();
        let error = job.last_error.map(|error| format!(": {error}")).unwrap_or_default();
        say(format!(
            "{}  {:<9}  {due}  {}  {}  start {}, {} of {} failures{error}",
            job.id, job.state, job.kind, job.subject, job.attempt, job.errors, job.max_attempts
        ));
    }
    Ok(())
}

/// A job with its runs.
#[derive(Debug, Serialize)]
struct Shown {
    job: JobView,
    waits: JobWaits,
    attempts: Vec<Attempt>,
}

async fn show(store: &Store, id: Uuid, json: bool) -> Result<()> {
    let Some(job) = store.find_job(id).await? else {
        bail!(
            "no job {id} is live, dead or of the kept history; `jobs.history = \"all\"` keeps those \
             that did their work"
        );
    };
    let attempts = store.job_attempts(job.slice, id).await?;
    let waits = store.job_waits(job.slice, id).await?;
    if json {
        say(json!(Shown { job, waits, attempts }));
        return Ok(());
    }
    describe(&job);
    describe_waits(&waits);
    for attempt in &attempts {
        say(run_line(attempt));
    }
    Ok(())
}

/// Says what a job is and how it stands.
fn describe(job: &JobView) {
    say(format!("job        {}", job.id));
    say(format!("state      {}", job.state));
    say(format!("kind       {}", job.kind));
    say(format!("subject    {} (slice {})", job.subject, job.slice));
    say(format!("args       {} (digest {})", job.args, short(&job.args_digest)));
    say(format!("priority   {}", job.priority));
    if let Some(run_at) = job.run_at {
        say(format!("due        {}", time(run_at)));
    }
    say(format!("enqueued   {}", time(job.enqueued_at)));
    if let Some(ended_at) = job.ended_at {
        say(format!("ended      {}", time(ended_at)));
    }
    say(format!(
        "starts     {}, {} of {} failures, {} with their process",
        job.attempt, job.errors, job.max_attempts, job.crashes
    ));
    if let Some(error) = &job.last_error {
        say(format!("error      {error}"));
    }
    for killed in job.killed.iter().filter_map(Value::as_array).flatten() {
        say(format!("killed     {}", killed_line(killed)));
    }
    if let Some(trace) = &job.trace {
        say(format!("trace      {trace}"));
    }
}

/// Which process a quarantined job took with it.
fn killed_line(killed: &Value) -> String {
    let text = |name: &str| killed[name].as_str().unwrap_or("unknown").to_owned();
    let (process, host, version) = (text("process"), text("host"), text("version"));
    let begun = killed["started_at"].as_str().and_then(|at| at.parse::<Timestamp>().ok());
    let begun = begun.map(|at| format!(", started {}", time(at))).unwrap_or_default();
    let args = killed["args_digest"].as_str().map(|digest| format!(", args {}", short(digest)));
    let args = args.unwrap_or_default();
    format!("{process} on {host}, version {version}, at start {}{begun}{args}", killed["attempt"])
}

/// As much of a digest as tells it from others.
fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

/// Whose child a job is, and the steps it has begun.
fn describe_waits(waits: &JobWaits) {
    if let Some(parent) = &waits.parent {
        say(format!(
            "child of   job {}, number {} of its step \"{}\"",
            parent.job, parent.n, parent.step
        ));
    }
    let mut steps: Vec<_> = waits.steps.iter().collect();
    steps.sort_by_key(|(_, begun)| **begun);
    for (name, begun) in steps {
        let open = waits.open.as_ref().is_some_and(|open| open.name == *name);
        say(format!("step       {}  {name}{}", time(*begun), if open { ", waits" } else { "" }));
    }
}

/// A run in a line.
fn run_line(run: &Attempt) -> String {
    let took = run.started_at.map(|at| run.ended_at - at).and_then(|took| took.to_std().ok());
    let took = took.map(|took| format!(" after {took:.1?}")).unwrap_or_default();
    let by = match (&run.process, &run.host, &run.version) {
        (Some(process), Some(host), Some(version)) => {
            format!(" by {process} on {host}, version {version}")
        }
        (Some(process), ..) => format!(" by {process}"),
        (None, ..) => String::new(),
    };
    let args = run.args_digest.as_deref().map(|digest| format!(", args {}", short(digest)));
    let args = args.unwrap_or_default();
    let error = run.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
    format!(
        "run {:<3}    {}  {}{took}{by}, epoch {}{args}{error}",
        run.attempt,
        time(run.ended_at),
        run.outcome,
        run.epoch
    )
}

async fn cancel(store: &Store, id: Uuid, force: bool) -> Result<()> {
    match store.cancel_job(id, force).await? {
        None => bail!("no live job {id}: it has ended, or never was"),
        Some(cancelled) if cancelled.state == "running" => {
            say(format!("job {id} runs and is being stopped"));
        }
        Some(_) => say(format!("job {id} is cancelled")),
    }
    Ok(())
}

async fn dead(store: &Store, filter: Dead, limit: i64, json: bool) -> Result<()> {
    let filter = condition(filter);
    let filter = if filter == DeadFilter::default() { DeadFilter::all() } else { filter };
    let jobs = store.dead_page(&filter, None, limit).await?;
    if jobs.is_empty() && !json {
        say("no dead jobs");
    }
    for job in jobs {
        if json {
            say(json!(job));
            continue;
        }
        let error = job.last_error.unwrap_or_default();
        say(format!(
            "{}  {}  {}  {}  {} after {} starts: {error}",
            job.id,
            time(job.died_at),
            job.kind,
            job.subject,
            job.state,
            job.attempt
        ));
    }
    Ok(())
}

fn condition(filter: Dead) -> DeadFilter {
    let Dead { id, kind, queue, subject, state, error, since, until, all } = filter;
    DeadFilter { all, id, kind, queue, subject, state, error, since, until }
}

fn told(count: i64, dry_run: bool, what: &str) -> String {
    let jobs = if count == 1 { "1 dead job".to_owned() } else { format!("{count} dead jobs") };
    if dry_run { format!("{jobs} meet the conditions") } else { format!("{jobs} {what}") }
}

fn time(at: Timestamp) -> String {
    at.format("%F %T").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_quarantined_job_took_with_it_is_told_in_a_line_each() {
        let digest = "0123456789abcdef";
        let killed = json!({
            "attempt": 2, "process": "p-1", "host": "a", "version": "9.1",
            "started_at": "2026-11-22T14:00:00.5+00:00", "args_digest": digest,
        });
        let told =
            "p-1 on a, version 9.1, at start 2, started 2026-11-22 14:00:00, args 0123456789ab";
        assert_eq!(killed_line(&killed), told);
        // Noted before there were digests, by a process that nobody knows any more.
        let bare = killed_line(&json!({ "attempt": 1, "process": null }));
        assert_eq!(bare, "unknown on unknown, version unknown, at start 1");
    }
}
