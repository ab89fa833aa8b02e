//! Upkeep of the database: partitions of the log for the months ahead, the days of the history of
//! jobs, the age limits of keys and of fires, the sealing of closed months. Runs daily, for ever;
//! what is left when its time is up goes on soon.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use store::{Partitions, Sealed};

use super::{Done, JobError};
use crate::claimed::ClaimedJob;
use crate::context::Context;
use crate::leases::chain;
use crate::notes::About;

/// Its name.
pub(super) const KIND: &str = "maintain";

/// Once a day, where the job was enqueued to recur.
const EVERY: Duration = Duration::from_hours(24);

/// With work left over: jobs of the engine end in time, and history is done in pieces.
const SOON: Duration = Duration::from_mins(1);

/// After a failure, which counts for nothing: nobody would enqueue a recurring job again that was
/// given up.
const AFTER_FAILURE: Duration = Duration::from_hours(1);

/// Time for stray events, for fires, for keys, and for sealing: together below the limit of a
/// handler.
const BUDGET: Duration = Duration::from_secs(25);

/// Fires of schedules are remembered this long. They keep a moment from firing twice, which could
/// come to the mind of a process that stood still for no longer than its lease, and tell people what
/// was done.
const FIRES_FOR: Duration = Duration::from_hours(7 * 24);

/// Time for the keys of jobs, of which there are few.
const JOB_KEYS: Duration = Duration::from_secs(10);

/// Makes missing partitions, then removes old keys and seals old months.
pub(super) async fn run(ctx: &Context, job: &ClaimedJob) -> Result<Done, JobError> {
    let recurs = job.args.get("recurs") == Some(&json!(true));
    match keep_up(ctx).await {
        Ok(done) if recurs => {
            Ok(Done::Again { after: if done.is_complete() { EVERY } else { SOON } })
        }
        Ok(done) => Ok(Done::Value(done.told())),
        Err(error) if recurs && error.is_transient() => {
            let reason = chain(&error);
            tracing::warn!(error = %reason, "upkeep not done, trying again soon");
            Err(JobError::Snooze { after: SOON, reason })
        }
        Err(error) if recurs => {
            tracing::error!(error = %chain(&error), "upkeep failed, trying again in an hour");
            Err(JobError::Snooze { after: AFTER_FAILURE, reason: "after a failure".to_owned() })
        }
        Err(error) => Err(error.into()),
    }
}

/// All of the upkeep. What is wrong with history does not cost the months ahead: they come first.
async fn keep_up(ctx: &Context) -> Result<Upkeep, store::Error> {
    let partitions = ctx.store().ensure_partitions(Instant::now() + BUDGET).await?;
    let Partitions { made, moved, .. } = partitions;
    tracing::info!(made, moved, "partitions made");
    let days = ctx.store().keep_job_history(ctx.config().keep_job_history).await?;
    tracing::info!(made = days.made, dropped = days.dropped, "days of the history of jobs kept");
    let fires = ctx.store().forget_fires(FIRES_FOR, Instant::now() + BUDGET).await?;
    tracing::info!(fires, "old fires of schedules forgotten");
    Ok(Upkeep { partitions, history: history(ctx).await? })
}

/// What was done.
struct Upkeep {
    partitions: Partitions,
    history: History,
}

/// What was done to history.
struct History {
    keys: u64,
    sealed: Sealed,
    stray: i64,
    is_complete: bool,
}

impl Upkeep {
    fn is_complete(&self) -> bool {
        self.partitions.is_complete && self.history.is_complete
    }

    fn told(&self) -> Value {
        json!({
            "partitions": self.partitions.made,
            "moved_events": self.partitions.moved,
            "keys_removed": self.history.keys,
            "sealed_events": self.history.sealed.events,
            "sealed_months": self.history.sealed.months,
            "default_partition_rows": self.history.stray,
            "complete": self.is_complete(),
        })
    }
}

async fn history(ctx: &Context) -> Result<History, store::Error> {
    let (store, config) = (ctx.store(), ctx.config());
    let stray = store.measure_history().await?;
    if stray > 0 {
        tracing::error!(rows = stray, "events lie in the default partition");
        let text = format!(
            "{stray} events lie in the default partition of the log: they met no month and wait to \
             be moved to one; look whether a clock is wrong"
        );
        ctx.notes().set(About::DefaultPartition, text);
    } else {
        ctx.notes().clear(About::DefaultPartition);
    }
    let removed = store.forget_keys(config.keys_for, Instant::now() + BUDGET).await?;
    let of_jobs = store.forget_job_keys(Instant::now() + JOB_KEYS).await?;
    let sealed = match config.seal_after {
        Some(seal_after) => store.seal_due(seal_after, Instant::now() + BUDGET).await?,
        None => Sealed::default(),
    };
    if sealed.segments > 0 {
        let Sealed { segments, events, bytes, months, .. } = sealed;
        tracing::info!(segments, events, bytes, months, "history sealed");
        store.measure_history().await?;
    }
    let is_complete = removed.complete && of_jobs.complete && !sealed.is_cut_short;
    Ok(History { keys: removed.keys + of_jobs.keys, sealed, stray, is_complete })
}

/// Enqueues the recurring job, once per installation.
pub(super) async fn schedule(ctx: &Context) -> Result<(), store::Error> {
    let options = store::EnqueueOptions { key: Some("recurring".to_owned()), ..Default::default() };
    ctx.store().enqueue(KIND, &json!({"recurs": true}), &options).await?;
    Ok(())
}
