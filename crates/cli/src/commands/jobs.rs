//! `jobs`: counts jobs, retries dead ones, enqueues.

use anyhow::{Context, Result};
use serde_json::Value;
use store::{EnqueueOptions, Store};

use crate::cli::Jobs;
use crate::config::Config;
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
        Jobs::Enqueue { kind, args, key } => {
            let args: Value = serde_json::from_str(&args).context("read the arguments as JSON")?;
            let options = EnqueueOptions { key, ..EnqueueOptions::default() };
            say(store.enqueue(&kind, &args, &options).await?);
        }
    }
    store.close().await;
    database.close().await
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
