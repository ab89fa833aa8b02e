//! Deletes recordings of a live stream of ours, each if and only if a fresh look finds that it is of
//! this live stream, made long enough ago, and not in work. The live stream may be gone; if it is
//! there, it has to carry our tag, since a video carries none.
//!
//! The operation is `DELETE /streaming/videos/{id}`.

use domain::call::CallResult;
use domain::ids::{LiveStreamId, Timestamp, VideoId};

use super::delete_live_stream::{is_in_work, is_ours, may_go};
use super::{CallContext, JobError, deleted};

/// Looks at the live stream, then looks at each video and deletes it at once.
pub(super) async fn run(
    call: &CallContext<'_>,
    live_stream: LiveStreamId,
    videos: &[VideoId],
    made_before: Option<Timestamp>,
) -> Result<CallResult, JobError> {
    match call.platform.get_stream(live_stream.0).await {
        Ok(stream) if !is_ours(call, &stream) => {
            let reason = "its live stream does not carry this installation's tag".to_owned();
            return Ok(CallResult::Kept { reason });
        }
        // Recordings outlive their live stream.
        Err(error) if !(error.is_not_found() && call.believes_not_found()) => {
            return Err(error.into());
        }
        Ok(_) | Err(_) => {}
    }
    let (mut gone, mut kept) = (Vec::new(), Vec::new());
    for id in videos {
        if let Some(reason) = reason_to_keep(call, live_stream, *id, made_before).await? {
            kept.push(format!("video {id} {reason}"));
        } else {
            deleted::video(call.platform, id.0).await?;
            gone.push(*id);
        }
    }
    Ok(CallResult::RecordingsDeleted { videos: gone, kept })
}

/// Fails closed: what is not told counts against deletion.
async fn reason_to_keep(
    call: &CallContext<'_>,
    live_stream: LiveStreamId,
    id: VideoId,
    made_before: Option<Timestamp>,
) -> Result<Option<&'static str>, JobError> {
    let video = match call.platform.get_video(id.0).await {
        Ok(video) => video,
        // Deleting it again finds the same.
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok(if made_before.is_none() {
        Some("is under no rule that lets it go")
    } else if !may_go(&video, live_stream, made_before) {
        Some("is of another live stream, or too young, or does not say")
    } else if is_in_work(&video) {
        Some("is still being processed")
    } else {
        None
    })
}
