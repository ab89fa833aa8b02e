//! Sets what the player shows. The answer is the truth: the webhook may never come.

use domain::call::CallResult;
use domain::ids::BroadcastId;
use platform::wire::{BroadcastPatch, BroadcastStatus};
use serde_json::json;

use super::{CallContext, JobError, deleted};

/// Patches. Repeating it changes nothing.
pub(super) async fn run(
    call: &CallContext<'_>,
    broadcast: BroadcastId,
    status: &str,
) -> Result<CallResult, JobError> {
    let patch = BroadcastPatch { status: Some(read(status)?), ..BroadcastPatch::default() };
    match call.platform.update_broadcast(broadcast.0, &patch).await {
        Ok(_) => Ok(CallResult::Broadcast { observed: json!({"id": broadcast, "status": status}) }),
        Err(error) if error.is_not_found() && call.believes_not_found() => {
            let look = async || call.platform.get_broadcast(broadcast.0).await.map(drop);
            deleted::confirmed(&error, look).await?;
            Ok(CallResult::Gone)
        }
        Err(error) => Err(error.into()),
    }
}

fn read(status: &str) -> Result<BroadcastStatus, JobError> {
    match status {
        "live" => Ok(BroadcastStatus::Live),
        "paused" => Ok(BroadcastStatus::Paused),
        "finished" => Ok(BroadcastStatus::Finished),
        other => Err(JobError::fail(format!("\"{other}\" is no status of a broadcast"))),
    }
}
