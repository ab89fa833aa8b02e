//! Shuts the encoder out and frees the slot. The answer may still say `live`: that lags.

use domain::call::CallResult;
use domain::ids::LiveStreamId;
use platform::wire::StreamPatch;

use super::update_live_stream::change;
use super::{CallContext, JobError, deleted};

/// Deactivates. A live stream that is gone is inactive.
pub(super) async fn run(
    call: &CallContext<'_>,
    live_stream: LiveStreamId,
) -> Result<CallResult, JobError> {
    let patch = StreamPatch { active: Some(false), ..StreamPatch::default() };
    match change(call, live_stream, patch).await {
        Ok(stream) => Ok(CallResult::LiveStream { observed: stream.observed() }),
        Err(error) if error.is_not_found() && call.believes_not_found() => {
            let look = async || call.platform.get_stream(live_stream.0).await.map(drop);
            deleted::confirmed(&error, look).await?;
            Ok(CallResult::Gone)
        }
        Err(error) => Err(error.into()),
    }
}
