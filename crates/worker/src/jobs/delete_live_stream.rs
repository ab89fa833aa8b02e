//! Deletes a live stream of ours, if and only if a fresh look finds it ours by its tag, not live,
//! not active, and with no video in work; an orphan only if nobody will come for it, still.
//!
//! What the platform alone knows of it is appended to the log before. Recordings go first, where they
//! are to go, and none of them unless all may: one that must be kept keeps its live stream. The
//! operation is `DELETE /streaming/streams/{id}`.

use std::time::Duration;

use domain::call::CallResult;
use domain::cleanup::{CleanupEvent, CleanupPolicy, LiveStreamCaptured, air_times, earlier};
use domain::event::{Event, NewEvent};
use domain::ids::{LiveStreamId, Subject, Timestamp, VideoId, derived_id};
use domain::webhook::Tag;
use platform::Span;
use platform::wire::{Stream, Video};
use uuid::Uuid;

use super::clean_up::facts;
use super::create_broadcast::is_ours_alone;
use super::{CallContext, JobError, deleted};

/// Samples that are asked for, at most: each is a minute or more.
const SAMPLES: u32 = 2_000;

/// The shortest time of a sample.
const SHORTEST: Duration = Duration::from_mins(1);

/// The platform keeps its statistics for a year.
const KEPT_BY_PLATFORM: Duration = Duration::from_hours(366 * 24);

/// What is to be deleted.
pub(super) struct Deletion {
    /// The live stream.
    pub(super) live_stream: LiveStreamId,
    /// The cleanup run.
    pub(super) run: Uuid,
    /// Its recordings too.
    pub(super) delete_recordings: bool,
    /// By which policy.
    pub(super) policy: CleanupPolicy,
    /// Only what was made before.
    pub(super) made_before: Option<Timestamp>,
}

/// Looks, takes what would be lost, deletes the recordings where told to, looks again, deletes.
pub(super) async fn run(
    call: &CallContext<'_>,
    deletion: &Deletion,
) -> Result<CallResult, JobError> {
    let live_stream = deletion.live_stream;
    let stream = match look(call, deletion).await? {
        Look::Goes(stream) => stream,
        Look::Stays(result) => return Ok(result),
    };
    let videos = call.platform.videos_of_stream(live_stream.0).await?;
    if let Some(reason) = reason_of_videos(deletion, &videos) {
        return Ok(CallResult::Kept { reason });
    }
    if let Err(reason) = capture(call, deletion, &stream, &videos).await? {
        return Ok(CallResult::Kept { reason });
    }
    // What cannot be undone is decided on what is true right now, and that took time.
    if let Look::Stays(result) = look(call, deletion).await? {
        return Ok(result);
    }
    let mut videos_deleted = Vec::new();
    if deletion.delete_recordings {
        for video in &videos {
            deleted::video(call.platform, video.id).await?;
            videos_deleted.push(VideoId(video.id));
        }
    }
    delete_left_broadcasts(call, &stream).await?;
    // So did that.
    if let Look::Stays(result) = look(call, deletion).await? {
        return Ok(stays_without(videos_deleted, result));
    }
    deleted::live_stream(call.platform, live_stream.0).await?;
    Ok(CallResult::Deleted { videos: videos_deleted })
}

/// Deletes the broadcasts that sessions left behind: they carry our suffix and show nothing else.
async fn delete_left_broadcasts(call: &CallContext<'_>, of: &Stream) -> Result<(), JobError> {
    for id in of.broadcast_ids.iter().flatten() {
        let broadcast = match call.platform.get_broadcast(*id).await {
            Err(error) if error.is_not_found() => continue,
            broadcast => broadcast?,
        };
        if is_ours_alone(&broadcast, LiveStreamId(of.id)) {
            deleted::broadcast(call.platform, *id).await?;
        }
    }
    Ok(())
}

/// What became of a live stream that is kept, or gone, though these videos were deleted for it.
fn stays_without(videos: Vec<VideoId>, result: CallResult) -> CallResult {
    if let CallResult::Deleted { .. } = result {
        return CallResult::Deleted { videos };
    }
    if let CallResult::Kept { reason } = &result
        && !videos.is_empty()
    {
        let kept = vec![format!("the live stream: {reason}")];
        return CallResult::RecordingsDeleted { videos, kept };
    }
    result
}

/// What a fresh look came to.
enum Look {
    /// Nothing keeps it.
    Goes(Box<Stream>),
    /// It is kept, or gone already.
    Stays(CallResult),
}

async fn look(call: &CallContext<'_>, deletion: &Deletion) -> Result<Look, JobError> {
    let stream = match call.platform.get_stream(deletion.live_stream.0).await {
        Ok(stream) => stream,
        Err(error) if error.is_not_found() && call.believes_not_found() => {
            return Ok(Look::Stays(CallResult::Deleted { videos: Vec::new() }));
        }
        Err(error) => return Err(error.into()),
    };
    let mut reason = reason_to_keep(call, &stream).map(str::to_owned);
    if reason.is_none() && deletion.policy == CleanupPolicy::Orphans {
        reason = reason_of_orphan(call, deletion, &stream).await?;
    }
    Ok(match reason {
        Some(reason) => Look::Stays(CallResult::Kept { reason }),
        None => Look::Goes(Box::new(stream)),
    })
}

/// Fails closed: what is not told counts against deletion.
fn reason_to_keep(call: &CallContext<'_>, stream: &Stream) -> Option<&'static str> {
    if !is_ours(call, stream) {
        Some("it does not carry this installation's tag")
    } else if stream.is_live() != Some(false) {
        Some("it is live")
    } else if stream.active != Some(false) {
        Some("it is active")
    } else if stream.recording == Some(true) {
        Some("it is being recorded")
    } else {
        None
    }
}

/// Whether a live stream carries this installation's tag.
pub(super) fn is_ours(call: &CallContext<'_>, stream: &Stream) -> bool {
    let installation = call.ctx.store().installation();
    tag(stream).is_some_and(|tag| tag.installation == installation)
}

fn tag(stream: &Stream) -> Option<Tag> {
    stream.client_entity_data.as_deref().and_then(Tag::read)
}

/// Why a live stream is no orphan, or may not be one any more.
async fn reason_of_orphan(
    call: &CallContext<'_>,
    deletion: &Deletion,
    stream: &Stream,
) -> Result<Option<String>, JobError> {
    let source = call.job.subject.source();
    let (Some(tag), Some(made_at), Some(before)) =
        (tag(stream), stream.created_at, deletion.made_before)
    else {
        return Ok(Some("it does not say when it was made".to_owned()));
    };
    let maker = call.ctx.store().maker_of(source, deletion.live_stream, tag.key, made_at).await?;
    let verdict = facts(stream, maker).judge(before);
    Ok((!verdict.proposes()).then(|| verdict.reason().to_owned()))
}

/// The video that keeps its live stream, if there is one.
fn reason_of_videos(deletion: &Deletion, videos: &[Video]) -> Option<String> {
    if let Some(video) = videos.iter().find(|video| is_in_work(video)) {
        return Some(format!("video {} is still being processed", video.id));
    }
    if !deletion.delete_recordings {
        return None;
    }
    let is_kept = |video: &&Video| !may_go(video, deletion.live_stream, deletion.made_before);
    let video = videos.iter().find(is_kept)?;
    Some(format!("video {} is to be kept longer, or does not say otherwise", video.id))
}

/// Whether a video says that it is of this live stream, and was made before.
pub(super) fn may_go(video: &Video, of: LiveStreamId, made_before: Option<Timestamp>) -> bool {
    let is_old = |before| video.created_at.is_some_and(|made| made < before);
    video.stream_id == Some(of.0) && made_before.is_none_or(is_old)
}

/// Whether a video can still change.
pub(super) fn is_in_work(video: &Video) -> bool {
    !matches!(video.status.as_deref(), Some("ready" | "viewable" | "error"))
        && video.error.as_deref().is_none_or(str::is_empty)
}

/// Appends what the platform forgets with the live stream. `Err`: it cannot be had.
async fn capture(
    call: &CallContext<'_>,
    deletion: &Deletion,
    stream: &Stream,
    videos: &[Video],
) -> Result<Result<(), String>, JobError> {
    let now = call.ctx.now();
    // The platform's clock may be ahead, and a span has a length.
    let to = stream.created_at.map_or(now, |made| made.max(now)) + SHORTEST;
    let earliest = earlier(to, KEPT_BY_PLATFORM);
    let from = stream.created_at.unwrap_or(earliest).clamp(earliest, to);
    let interval = ((to - from).to_std().unwrap_or_default() / SAMPLES).max(SHORTEST);
    let interval = Duration::from_secs(interval.as_secs());
    let samples = call.platform.probe_stream(stream.id, Span { from, to }, interval).await;
    let samples = match samples {
        Ok(samples) => samples,
        Err(error) if error.is_not_found() => Vec::new(),
        Err(error) => {
            let error = JobError::from(error);
            if let JobError::Fail { reason } = error {
                return Ok(Err(format!("its statistics would be lost: {reason}")));
            }
            return Err(error);
        }
    };
    let samples = samples.into_iter().filter_map(|s| Some((s.time?, s.avg_bitrate)));
    let stay = videos.iter().filter(|_| !deletion.delete_recordings);
    let captured = LiveStreamCaptured {
        run: deletion.run,
        made_at: stream.created_at,
        air_times: air_times(samples, interval),
        precision_s: interval.as_secs(),
        videos: stay.map(|video| VideoId(video.id)).collect(),
    };
    let key = derived_id("captured", &[&call.intent.to_string()]);
    let subject = Subject::live_stream(call.job.subject.source(), deletion.live_stream);
    let slice = call.ctx.store().slice_of(&subject);
    let event = Event::Cleanup(CleanupEvent::Captured(captured));
    let mut event = NewEvent::new(subject, &event, now, key).with_key(key);
    event.causation_id = call.job.causation_id;
    event.correlation_id = call.job.correlation_id;
    call.ctx.store().append_one(event).await?;
    call.ctx.events_appended(slice);
    Ok(Ok(()))
}
