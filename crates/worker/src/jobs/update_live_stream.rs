//! Gives a reused live stream the next session's settings. Repeating it changes nothing. Here is, too,
//! how every change of a live stream is sent.

use domain::call::CallResult;
use domain::event::SessionOptions;
use domain::ids::LiveStreamId;
use platform::wire::{Stream, StreamPatch};

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
    let stream = change(call, live_stream, patch).await?;
    create_live_stream::seal(call, &stream).await?;
    Ok(CallResult::LiveStream { observed: stream.observed() })
}

/// Changes a live stream. A strict platform wants its name along, as the published schema says, also
/// where that stays.
pub(super) async fn change(
    call: &CallContext<'_>,
    live_stream: LiveStreamId,
    patch: StreamPatch,
) -> Result<Stream, platform::Error> {
    match call.platform.update_stream(live_stream.0, &patch).await {
        Err(error) if patch.name.is_none() && error.is_of_field("name") => {
            let name = call.platform.get_stream(live_stream.0).await?.name;
            call.platform.update_stream(live_stream.0, &StreamPatch { name, ..patch }).await
        }
        changed => changed,
    }
}
