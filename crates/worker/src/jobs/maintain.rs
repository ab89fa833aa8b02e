//! Upkeep of the database: partitions of the log for the months ahead, the age limit of keys, the
//! sealing of closed months. Runs daily, for ever; what is left when its time is up goes on soon.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use store::Sealed;

use super::{Done, JobError};
use crate::claimed::ClaimedJob;
use crate::context::Context;
use crate::leases::chain;

/// Its name.
pub(super) const KIND: &str = "maintain";

/// Once a day, where the job was enqueued to recur.
const EVERY: Duration = Duration::from_hours(24);

/// With work left over: jobs of the engine end in time, and history is done in pieces.
const SOON: Duration = Duration::from_mins(1);

/// After a failure: what is wrong with history must not cost the months ahead, so a recurring job
/// never counts as failed for it.
const AFTER_FAILURE: Duration = Duration::from_hours(1);

/// Time for keys, and the same again for sealing: together below the limit of a handler.
const BUDGET: Duration = Duration::from_secs(40);

/// Makes missing partitions, then removes old keys and seals old months.
pub(super) async fn run(ctx: &Context, job: &ClaimedJob) -> Result<Done, JobError> {
    let partitions = ctx.store().ensure_partitions().await?;
    tracing::info!(partitions, "partitions made");
    let recurs = job.args.get("recurs") == Some(&json!(true));
    let history = match history(ctx).await {
        Err(error) if recurs => {
            tracing::error!(error = %chain(&error), "history not kept up, trying again");
            return Err(snooze(AFTER_FAILURE, "after a failure"));
        }
        other => other?,
    };
    match (recurs, history.is_complete) {
        (true, true) => Err(snooze(EVERY, "until tomorrow")),
        (true, false) => Err(snooze(SOON, "work is left")),
        (false, _) => Ok(Done::Value(history.told(partitions))),
    }
}

/// What was done to history.
struct History {
    keys: u64,
    sealed: Sealed,
    stray: i64,
    is_complete: bool,
}

impl History {
    fn told(&self, partitions: i32) -> Value {
        json!({
            "partitions": partitions,
            "keys_removed": self.keys,
            "sealed_events": self.sealed.events,
            "sealed_months": self.sealed.months,
            "default_partition_rows": self.stray,
            "complete": self.is_complete,
        })
    }
}

async fn history(ctx: &Context) -> Result<History, store::Error> {
    let (store, config) = (ctx.store(), ctx.config());
    let stray = store.measure_history().await?;
    if stray > 0 {
        tracing::error!(rows = stray, "events lie in the default partition");
    }
    let removed = store.forget_keys(config.keys_for, Instant::now() + BUDGET).await?;
    let sealed = match config.seal_after {
        Some(seal_after) => store.seal_due(seal_after, Instant::now() + BUDGET).await?,
        None => Sealed::default(),
    };
    if sealed.segments > 0 {
        let Sealed { segments, events, bytes, months, .. } = sealed;
        tracing::info!(segments, events, bytes, months, "history sealed");
        store.measure_history().await?;
    }
    let is_complete = removed.complete && !sealed.is_cut_short;
    Ok(History { keys: removed.keys, sealed, stray, is_complete })
}

fn snooze(after: Duration, reason: &str) -> JobError {
    JobError::Snooze { after, reason: reason.to_owned() }
}

/// Enqueues the recurring job, once per installation.
pub(crate) async fn schedule(ctx: &Context) -> Result<(), store::Error> {
    let options = store::EnqueueOptions { key: Some("recurring".to_owned()), ..Default::default() };
    ctx.store().enqueue(KIND, &json!({"recurs": true}), &options).await?;
    Ok(())
}
