//! Asks how a live stream is.

use domain::call::CallResult;
use domain::ids::LiveStreamId;

use super::{CallContext, JobError, deleted};

/// Asks. "Not found" is believed only when told again and again.
pub(super) async fn run(
    call: &CallContext<'_>,
    live_stream: LiveStreamId,
) -> Result<CallResult, JobError> {
    match call.platform.get_stream(live_stream.0).await {
        Ok(stream) => Ok(CallResult::LiveStream { observed: stream.observed() }),
        Err(error) if error.is_not_found() && call.believes_not_found() => {
            let look = async || call.platform.get_stream(live_stream.0).await.map(drop);
            deleted::confirmed(&error, look).await?;
            Ok(CallResult::Gone)
        }
        Err(error) => Err(error.into()),
    }
}
