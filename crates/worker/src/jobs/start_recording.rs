//! Starts recording. The effect comes 3 to 10 s later; that is observed, and waited for only after a
//! start whose answer was lost: a second one would cut the recording.
//!
//! An encoder that went away meanwhile is no refusal: what is seen instead is told.

use domain::call::CallResult;
use domain::ids::LiveStreamId;
use domain::webhook;
use platform::{Disposition, StartRecording};

use super::{CallContext, JobError};
use crate::leases::chain;

/// Looks at the live stream while a start takes effect.
const LOOKS: u32 = 4;

/// Looks whether an earlier start had its effect, and starts.
pub(super) async fn run(
    call: &CallContext<'_>,
    live_stream: LiveStreamId,
) -> Result<CallResult, JobError> {
    if call.must_look_first()
        && let Some(result) = look(call, live_stream).await?
    {
        return Ok(result);
    }
    let started = match call.platform.start_recording(live_stream.0).await {
        // No space is left, and people make some, in hours. The session goes on without recording;
        // a call that waited here would hold up its end.
        Err(error) if error.disposition() == Disposition::Quota => {
            return Ok(CallResult::RecordingRefused { errors: vec![chain(&error)] });
        }
        // Where its encoder is gone, flags that lag may say otherwise for a while.
        Err(error) if error.disposition() == Disposition::Refused => {
            return look(call, live_stream).await?.ok_or_else(|| error.into());
        }
        other => other?,
    };
    Ok(match started {
        StartRecording::Started => CallResult::RecordingStarted { warnings: Vec::new() },
        StartRecording::Warned(warnings) => CallResult::RecordingStarted { warnings },
        StartRecording::Refused(errors) => CallResult::RecordingRefused { errors },
    })
}

/// What became of a start, of this one or an earlier one, once that has had the time to show: it
/// records, or nothing is sent that could be recorded. `None`: neither.
async fn look(
    call: &CallContext<'_>,
    live_stream: LiveStreamId,
) -> Result<Option<CallResult>, JobError> {
    let settle = call.ctx.config().policy.settle;
    for _ in 0..LOOKS {
        let observed = call.platform.get_stream(live_stream.0).await?.observed();
        let seen = webhook::live_stream(&observed);
        if seen.recording == Some(true) {
            return Ok(Some(CallResult::RecordingStarted { warnings: Vec::new() }));
        }
        if seen.live == Some(false) && seen.backup_live != Some(true) {
            return Ok(Some(CallResult::LiveStream { observed }));
        }
        tokio::time::sleep(settle / LOOKS).await;
    }
    Ok(None)
}
