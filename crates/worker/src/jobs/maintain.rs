//! Upkeep of the database: partitions of the log for the months ahead. Runs daily, for ever.

use std::time::Duration;

use serde_json::json;

use super::{Done, JobError};
use crate::claimed::ClaimedJob;
use crate::context::Context;

/// Its name.
pub(super) const KIND: &str = "maintain";

/// Once a day, where the job was enqueued to recur.
const EVERY: Duration = Duration::from_hours(24);

/// Makes missing partitions.
pub(super) async fn run(ctx: &Context, job: &ClaimedJob) -> Result<Done, JobError> {
    let partitions = ctx.store().ensure_partitions().await?;
    tracing::info!(partitions, "partitions made");
    if job.args.get("recurs") == Some(&json!(true)) {
        let reason = "until tomorrow".to_owned();
        return Err(JobError::Snooze { after: EVERY, reason });
    }
    Ok(Done::Value(json!({"partitions": partitions})))
}

/// Enqueues the recurring job, once per installation.
pub(crate) async fn schedule(ctx: &Context) -> Result<(), store::Error> {
    let options = store::EnqueueOptions { key: Some("recurring".to_owned()), ..Default::default() };
    ctx.store().enqueue(KIND, &json!({"recurs": true}), &options).await?;
    Ok(())
}
