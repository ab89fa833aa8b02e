//! Drops the rewind window of a live stream before it is reused. The next session has not begun,
//! so repeating it harms nothing.

use domain::call::CallResult;
use domain::ids::LiveStreamId;

use super::{CallContext, JobError};

/// Clears.
pub(super) async fn run(
    call: &CallContext<'_>,
    live_stream: LiveStreamId,
) -> Result<CallResult, JobError> {
    call.platform.dvr_cleanup(live_stream.0).await?;
    Ok(CallResult::Done)
}
