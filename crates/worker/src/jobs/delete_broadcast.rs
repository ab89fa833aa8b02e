//! Deletes a broadcast. One that is gone is deleted; videos do not depend on it.

use domain::call::CallResult;
use domain::ids::BroadcastId;

use super::{CallContext, JobError, deleted};

/// Deletes.
pub(super) async fn run(
    call: &CallContext<'_>,
    broadcast: BroadcastId,
) -> Result<CallResult, JobError> {
    deleted::broadcast(call.platform, broadcast.0).await?;
    Ok(CallResult::Gone)
}
