//! Gives a reused live stream the next session's settings. Repeating it changes nothing.

use domain::call::CallResult;
use domain::event::SessionOptions;
use domain::ids::LiveStreamId;
use platform::wire::StreamPatch;

use super::{CallContext, JobError, create_live_stream};

/// Patches, and seals the push addresses, which follow the region.
pub(super) async fn run(
    call: &CallContext<'_>,
    live_stream: LiveStreamId,
    name: String,
    options: SessionOptions,
) -> Result<CallResult, JobError> {
    let patch = StreamPatch {
        name: Some(name),
        dvr_enabled: Some(options.dvr),
        quality_set_id: options.quality_set_id,
        client_user_id: options.client_user_id,
        transcoding_region: options.transcoding_region,
        ..StreamPatch::default()
    };
    let stream = call.platform.update_stream(live_stream.0, &patch).await?;
    create_live_stream::seal(call, &stream).await?;
    Ok(CallResult::LiveStream { observed: stream.observed() })
}
