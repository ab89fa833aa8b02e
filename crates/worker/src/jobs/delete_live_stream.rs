//! Deletes a live stream of ours, if and only if a fresh look finds it ours by its tag, not live,
//! not active, and with no video in work. Recordings first: a live stream's deletion leaves its
//! videos without a parent. The operation is `DELETE /streaming/streams/{id}`.

use domain::call::CallResult;
use domain::ids::{LiveStreamId, VideoId};
use domain::webhook::Tag;
use platform::Disposition;
use platform::wire::{Stream, Video};

use super::{CallContext, JobError};

/// Looks, deletes the recordings where told to, looks again, deletes.
pub(super) async fn run(
    call: &CallContext<'_>,
    live_stream: LiveStreamId,
    delete_recordings: bool,
) -> Result<CallResult, JobError> {
    if let Some(result) = guard(call, live_stream).await? {
        return Ok(result);
    }
    let videos = call.platform.videos_of_stream(live_stream.0).await?;
    if let Some(video) = videos.iter().find(|video| is_in_work(video)) {
        let reason = format!("video {} is still being processed", video.id);
        return Ok(CallResult::Kept { reason });
    }
    let mut deleted = Vec::new();
    if delete_recordings {
        for video in &videos {
            gone(call.platform.delete_video(video.id).await)?;
            deleted.push(VideoId(video.id));
        }
    }
    // The deletions took time; what cannot be undone is decided on what is true right now.
    if let Some(result) = guard(call, live_stream).await? {
        return Ok(result);
    }
    gone(call.platform.delete_stream(live_stream.0).await)?;
    Ok(CallResult::Deleted { videos: deleted })
}

/// A fresh look: what keeps it from being deleted, or that it is gone already.
async fn guard(
    call: &CallContext<'_>,
    live_stream: LiveStreamId,
) -> Result<Option<CallResult>, JobError> {
    let stream = match call.platform.get_stream(live_stream.0).await {
        Ok(stream) => stream,
        Err(error) if error.is_not_found() && call.believes_not_found() => {
            return Ok(Some(CallResult::Deleted { videos: Vec::new() }));
        }
        Err(error) => return Err(error.into()),
    };
    Ok(reason_to_keep(call, &stream).map(|reason| CallResult::Kept { reason }))
}

/// Fails closed: what is not told counts against deletion.
fn reason_to_keep(call: &CallContext<'_>, stream: &Stream) -> Option<String> {
    let installation = call.ctx.store().installation();
    let tag = stream.client_entity_data.as_deref().and_then(Tag::read);
    let reason = if tag.is_none_or(|tag| tag.installation != installation) {
        "it does not carry this installation's tag"
    } else if stream.is_live() != Some(false) {
        "it is live"
    } else if stream.active != Some(false) {
        "it is active"
    } else if stream.recording == Some(true) {
        "it is being recorded"
    } else {
        return None;
    };
    Some(reason.to_owned())
}

/// Whether a video can still change.
fn is_in_work(video: &Video) -> bool {
    !matches!(video.status.as_deref(), Some("ready" | "viewable" | "error"))
        && video.error.as_deref().is_none_or(str::is_empty)
}

/// Deleted now or before.
fn gone(deleted: Result<(), platform::Error>) -> Result<(), JobError> {
    match deleted {
        Err(error) if error.disposition() != Disposition::Done => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}
