//! Starts recording. The effect comes 3 to 10 s later; that is observed, not waited for here.
//!
//! An encoder that went away meanwhile is no refusal: what is seen instead is told.

use domain::call::CallResult;
use domain::ids::LiveStreamId;
use platform::{Disposition, StartRecording};

use super::{CallContext, JobError};
use crate::leases::chain;

/// Looks whether an earlier start had its effect, and starts.
pub(super) async fn run(
    call: &CallContext<'_>,
    live_stream: LiveStreamId,
) -> Result<CallResult, JobError> {
    if call.must_look_first() {
        let stream = call.platform.get_stream(live_stream.0).await?;
        if stream.recording == Some(true) {
            return Ok(CallResult::RecordingStarted { warnings: Vec::new() });
        }
        if stream.is_live() == Some(false) {
            return Ok(CallResult::LiveStream { observed: stream.observed() });
        }
    }
    let started = match call.platform.start_recording(live_stream.0).await {
        // No space is left, and people make some, in hours. The session goes on without recording;
        // a call that waited here would hold up its end.
        Err(error) if error.disposition() == Disposition::Quota => {
            return Ok(CallResult::RecordingRefused { errors: vec![chain(&error)] });
        }
        Err(error) if error.disposition() == Disposition::Refused => {
            let stream = call.platform.get_stream(live_stream.0).await?;
            if stream.is_live() == Some(false) {
                return Ok(CallResult::LiveStream { observed: stream.observed() });
            }
            return Err(error.into());
        }
        other => other?,
    };
    Ok(match started {
        StartRecording::Started => CallResult::RecordingStarted { warnings: Vec::new() },
        StartRecording::Warned(warnings) => CallResult::RecordingStarted { warnings },
        StartRecording::Refused(errors) => CallResult::RecordingRefused { errors },
    })
}
