//! `jobs`: counts jobs, retries dead ones, pauses, enqueues.

use anyhow::{Context, Result};
use serde_json::Value;
use store::{EnqueueOptions, PauseScope, Store};

use crate::cli::{Jobs, Paused};
use crate::config::{self, Config};
use crate::database::Database;
use crate::output::say;

/// Does what was asked for.
pub(crate) async fn run(config: Config, command: Jobs) -> Result<()> {
    let database = Database::open(&config).await?;
    let store = database.connect().await?;
    match command {
        Jobs::Status => status(&store).await?,
        Jobs::Dead { limit } => dead(&store, limit).await?,
        Jobs::Retry { id } => {
            store.retry_dead(id).await?;
            say(format!("job {id} runs again"));
        }
        Jobs::Pause { what, reason } => pause(&store, &what, reason.as_deref()).await?,
        Jobs::Resume { what } => {
            let (scope, name) = one(&what)?;
            let was = store.resume(scope, name).await?;
            let scope = scope.name();
            say(if was {
                format!("{scope} {name} goes on")
            } else {
                format!("{scope} {name} was not paused")
            });
        }
        Jobs::Paused => paused(&store).await?,
        Jobs::Enqueue { kind, args, key } => {
            let args: Value = serde_json::from_str(&args).context("read the arguments as JSON")?;
            let options = EnqueueOptions { key, ..EnqueueOptions::default() };
            say(store.enqueue(&kind, &args, &options).await?);
        }
    }
    store.close().await;
    database.close().await
}

/// The one queue, kind or key that is meant.
fn one(what: &Paused) -> Result<(PauseScope, &str)> {
    let Paused { queue, kind, key } = what;
    let given = [(PauseScope::Queue, queue), (PauseScope::Kind, kind), (PauseScope::Key, key)];
    let mut given = given.into_iter().filter_map(|(scope, name)| Some((scope, name.as_deref()?)));
    given.next().context("name a queue, a kind or a key")
}

async fn pause(store: &Store, what: &Paused, reason: Option<&str>) -> Result<()> {
    let (scope, name) = one(what)?;
    let by = config::environment("USER").unwrap_or_else(|| "unknown".to_owned());
    let is_new = store.pause(scope, name, &by, reason).await?;
    let scope = scope.name();
    say(if is_new {
        format!("{scope} {name} is paused; what runs goes on")
    } else {
        format!("{scope} {name} was paused already")
    });
    Ok(())
}

async fn paused(store: &Store) -> Result<()> {
    let paused = store.paused().await?;
    if paused.is_empty() {
        say("nothing is paused");
    }
    for pause in paused {
        let at = pause.paused_at.format("%F %T");
        let why = pause.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        say(format!(
            "{}  {}  since {at} by {}{why}",
            pause.scope.name(),
            pause.name,
            pause.paused_by
        ));
    }
    Ok(())
}

async fn status(store: &Store) -> Result<()> {
    let counts = store.job_counts().await?;
    say(format!("available  {}", counts.available));
    say(format!("scheduled  {}", counts.scheduled));
    say(format!("running    {}", counts.running));
    say(format!("dead       {}", counts.dead));
    Ok(())
}

async fn dead(store: &Store, limit: i64) -> Result<()> {
    let jobs = store.dead_jobs(limit).await?;
    if jobs.is_empty() {
        say("no dead jobs");
    }
    for job in jobs {
        let error = job.last_error.unwrap_or_default();
        let at = job.died_at.format("%F %T");
        say(format!(
            "{}  {at}  {}  {}  {} after {} starts: {error}",
            job.id, job.kind, job.subject, job.state, job.attempt
        ));
    }
    Ok(())
}
