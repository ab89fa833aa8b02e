//! Asks how a broadcast is.

use domain::call::CallResult;
use domain::ids::BroadcastId;

use super::{CallContext, JobError, deleted};

/// Asks. "Not found" is believed only when told again and again.
pub(super) async fn run(
    call: &CallContext<'_>,
    broadcast: BroadcastId,
) -> Result<CallResult, JobError> {
    match call.platform.get_broadcast(broadcast.0).await {
        Ok(broadcast) => Ok(CallResult::Broadcast { observed: broadcast.observed() }),
        Err(error) if error.is_not_found() && call.believes_not_found() => {
            let look = async || call.platform.get_broadcast(broadcast.0).await.map(drop);
            deleted::confirmed(&error, look).await?;
            Ok(CallResult::Gone)
        }
        Err(error) => Err(error.into()),
    }
}
