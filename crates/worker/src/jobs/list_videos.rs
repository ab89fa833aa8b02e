//! Asks which videos a live stream has. Absence is never concluded from it.

use domain::call::CallResult;
use domain::ids::LiveStreamId;

use super::{CallContext, JobError};

/// Walks all pages.
pub(super) async fn run(
    call: &CallContext<'_>,
    live_stream: LiveStreamId,
) -> Result<CallResult, JobError> {
    let videos = call.platform.videos_of_stream(live_stream.0).await?;
    Ok(CallResult::Videos {
        observed: videos.iter().map(platform::wire::Video::observed).collect(),
    })
}
