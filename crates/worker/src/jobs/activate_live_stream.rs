//! Lets the encoder in, with a slot that the quota of the source granted. That the platform has none
//! all the same is an outcome, so that the session waits for its turn and can be ended meanwhile.

use domain::call::CallResult;
use domain::ids::LiveStreamId;
use platform::Disposition;
use platform::wire::StreamPatch;

use super::update_live_stream::change;
use super::{CallContext, JobError, create_live_stream};

/// Activates. An answer that still says inactive is a full quota told politely: the fold sees it.
pub(super) async fn run(
    call: &CallContext<'_>,
    live_stream: LiveStreamId,
) -> Result<CallResult, JobError> {
    let patch = StreamPatch { active: Some(true), ..StreamPatch::default() };
    let stream = match change(call, live_stream, patch).await {
        Ok(stream) => stream,
        Err(error) if error.disposition() == Disposition::Quota => {
            return Ok(CallResult::Deferred { reason: error.message().to_owned() });
        }
        Err(error) => return Err(error.into()),
    };
    create_live_stream::seal(call, &stream).await?;
    Ok(CallResult::LiveStream { observed: stream.observed() })
}
