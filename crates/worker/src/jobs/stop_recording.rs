//! Stops recording. The answer holds the video, once: a repeat after a lost answer is empty, so every
//! start but the first looks for the video by its live stream and by when its recording began.

use domain::call::CallResult;
use domain::ids::{LiveStreamId, Timestamp};
use domain::webhook;

use super::{CallContext, JobError};

/// Looks whether an earlier start had its effect, and stops.
pub(super) async fn run(
    call: &CallContext<'_>,
    live_stream: LiveStreamId,
    since: Option<Timestamp>,
) -> Result<CallResult, JobError> {
    if call.must_look_first() {
        let observed = call.platform.get_stream(live_stream.0).await?.observed();
        if webhook::live_stream(&observed).recording == Some(false) {
            return found(call, live_stream, since).await;
        }
    }
    match call.platform.stop_recording(live_stream.0).await? {
        Some(video) => Ok(CallResult::RecordingStopped { video: Some(video.observed()) }),
        None if call.must_look_first() => found(call, live_stream, since).await,
        None => Ok(CallResult::RecordingStopped { video: None }),
    }
}

/// What became of a stop whose answer was lost. The video may show itself only later: then it is
/// found by its webhook, or by the list at the session's end.
async fn found(
    call: &CallContext<'_>,
    live_stream: LiveStreamId,
    since: Option<Timestamp>,
) -> Result<CallResult, JobError> {
    let Some(since) = since else { return Ok(CallResult::RecordingStopped { video: None }) };
    let videos = call.platform.videos_recorded(live_stream.0, since).await?;
    if videos.is_empty() {
        return Ok(CallResult::RecordingStopped { video: None });
    }
    let observed = videos.iter().map(platform::wire::Video::observed).collect();
    Ok(CallResult::Videos { observed })
}
