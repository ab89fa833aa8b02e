//! Stops recording. The answer holds the video, once: a repeat after a lost answer is empty, and
//! the video is then found by its webhook or by the listing at the session's end.

use domain::call::CallResult;
use domain::ids::LiveStreamId;

use super::{CallContext, JobError};

/// Looks whether an earlier start had its effect, and stops.
pub(super) async fn run(
    call: &CallContext<'_>,
    live_stream: LiveStreamId,
) -> Result<CallResult, JobError> {
    if call.must_look_first() {
        let stream = call.platform.get_stream(live_stream.0).await?;
        if stream.recording == Some(false) {
            return Ok(CallResult::RecordingStopped { video: None });
        }
    }
    let video = call.platform.stop_recording(live_stream.0).await?;
    Ok(CallResult::RecordingStopped { video: video.map(|video| video.observed()) })
}
