//! Deletes a broadcast. One that is gone is deleted; videos do not depend on it.

use domain::call::CallResult;
use domain::ids::BroadcastId;
use platform::Disposition;

use super::{CallContext, JobError};

/// Deletes.
pub(super) async fn run(
    call: &CallContext<'_>,
    broadcast: BroadcastId,
) -> Result<CallResult, JobError> {
    match call.platform.delete_broadcast(broadcast.0).await {
        Err(error) if error.disposition() != Disposition::Done => Err(error.into()),
        Ok(()) | Err(_) => Ok(CallResult::Gone),
    }
}
