//! Platform calls as values: what is to be called, and what came of it.
//!
//! A call holds every decided value: the job that makes it decides nothing more. One variant is
//! one job kind and one file in `worker/jobs/`.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::cleanup::{AirTime, CleanupPolicy};
use crate::event::SessionOptions;
use crate::ids::{BroadcastId, LiveStreamId, Timestamp, VideoId};
use crate::personal::without_echo;

/// A platform call to make.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Call {
    /// Create a live stream, inactive, with our ownership tag.
    CreateLiveStream {
        /// Its name.
        name: String,
        /// How it shall run.
        options: SessionOptions,
        /// Earlier calls for the same, given up without knowing whether they had their effect:
        /// what one of them made is taken, and no second one is made.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        earlier: Vec<Uuid>,
        /// The session is over: nothing is made any more, and what an earlier call made is told.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        only_look: bool,
    },
    /// Give a reused live stream the next session's settings.
    UpdateLiveStream {
        /// The live stream.
        live_stream: LiveStreamId,
        /// Its new name.
        name: String,
        /// How it shall run.
        options: SessionOptions,
    },
    /// Drop the rewind window, so that viewers cannot rewind into the previous session.
    ClearDvr {
        /// The live stream.
        live_stream: LiveStreamId,
    },
    /// Create a broadcast bound to a live stream, pending.
    CreateBroadcast {
        /// The live stream.
        live_stream: LiveStreamId,
        /// Its name; a suffix makes it findable.
        name: String,
        /// Earlier calls for the same, as of a live stream.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        earlier: Vec<Uuid>,
        /// The session is over: nothing is made any more, and what an earlier call made is told.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        only_look: bool,
    },
    /// Let the encoder in: takes a slot of the active quota.
    ActivateLiveStream {
        /// The live stream.
        live_stream: LiveStreamId,
    },
    /// Shut the encoder out: frees the slot.
    DeactivateLiveStream {
        /// The live stream.
        live_stream: LiveStreamId,
    },
    /// Set what the player shows.
    SetBroadcastStatus {
        /// The broadcast.
        broadcast: BroadcastId,
        /// `live`, `paused` or `finished`.
        status: String,
    },
    /// Start recording.
    StartRecording {
        /// The live stream.
        live_stream: LiveStreamId,
    },
    /// Stop recording; the file becomes a video.
    StopRecording {
        /// The live stream.
        live_stream: LiveStreamId,
        /// When the file began, at the earliest: the video is found by it where the answer is lost.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<Timestamp>,
    },
    /// Delete a broadcast.
    DeleteBroadcast {
        /// The broadcast.
        broadcast: BroadcastId,
    },
    /// Ask how a live stream is.
    ObserveLiveStream {
        /// The live stream.
        live_stream: LiveStreamId,
    },
    /// Ask how a broadcast is.
    ObserveBroadcast {
        /// The broadcast.
        broadcast: BroadcastId,
    },
    /// Ask which videos a live stream has.
    ListVideos {
        /// The live stream.
        live_stream: LiveStreamId,
    },
    /// Ask how a video is.
    FetchVideo {
        /// The video.
        video: VideoId,
    },
    /// Ask which live streams of the account are active.
    ObserveQuota {
        /// Live streams to ask for one by one, where the list does not show them active.
        #[serde(default)]
        check: Vec<LiveStreamId>,
    },
    /// Ask the statistics when the encoder of a live stream sent.
    ProbeLiveStream {
        /// The live stream.
        live_stream: LiveStreamId,
        /// From then on.
        from: Timestamp,
        /// Until then.
        to: Timestamp,
    },
    /// Delete a live stream of ours, after guards, recordings first.
    DeleteLiveStream {
        /// The live stream.
        live_stream: LiveStreamId,
        /// The cleanup run.
        run: Uuid,
        /// Delete its recordings too.
        delete_recordings: bool,
        /// The policy, by which the guards differ.
        #[serde(default, skip_serializing_if = "CleanupPolicy::is_default")]
        policy: CleanupPolicy,
        /// Only if it was made before, as an orphan; its recordings only if all of them were.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        made_before: Option<Timestamp>,
    },
    /// Delete recordings of a live stream of ours, after guards.
    DeleteRecordings {
        /// The live stream.
        live_stream: LiveStreamId,
        /// The cleanup run.
        run: Uuid,
        /// The recordings.
        videos: Vec<VideoId>,
        /// Only those that were made before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        made_before: Option<Timestamp>,
    },
}

impl Call {
    /// All job kinds that make a platform call, in the order of a session's life. Nobody else may
    /// enqueue them: SQL `enqueue` refuses the same list.
    pub const KINDS: [&str; 18] = [
        "create_live_stream",
        "clear_dvr",
        "update_live_stream",
        "create_broadcast",
        "activate_live_stream",
        "set_broadcast_status",
        "start_recording",
        "stop_recording",
        "deactivate_live_stream",
        "delete_broadcast",
        "fetch_video",
        "list_videos",
        "observe_live_stream",
        "observe_broadcast",
        "probe_live_stream",
        "observe_quota",
        "delete_live_stream",
        "delete_recordings",
    ];

    /// The job kind that makes this call.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::CreateLiveStream { .. } => "create_live_stream",
            Self::UpdateLiveStream { .. } => "update_live_stream",
            Self::ClearDvr { .. } => "clear_dvr",
            Self::CreateBroadcast { .. } => "create_broadcast",
            Self::ActivateLiveStream { .. } => "activate_live_stream",
            Self::DeactivateLiveStream { .. } => "deactivate_live_stream",
            Self::SetBroadcastStatus { .. } => "set_broadcast_status",
            Self::StartRecording { .. } => "start_recording",
            Self::StopRecording { .. } => "stop_recording",
            Self::DeleteBroadcast { .. } => "delete_broadcast",
            Self::ObserveLiveStream { .. } => "observe_live_stream",
            Self::ObserveBroadcast { .. } => "observe_broadcast",
            Self::ListVideos { .. } => "list_videos",
            Self::FetchVideo { .. } => "fetch_video",
            Self::ObserveQuota { .. } => "observe_quota",
            Self::ProbeLiveStream { .. } => "probe_live_stream",
            Self::DeleteLiveStream { .. } => "delete_live_stream",
            Self::DeleteRecordings { .. } => "delete_recordings",
        }
    }

    /// Whether it only reads: its failure is no failure of the session.
    pub fn is_read(&self) -> bool {
        matches!(
            self,
            Self::ObserveLiveStream { .. }
                | Self::ObserveBroadcast { .. }
                | Self::ListVideos { .. }
                | Self::FetchVideo { .. }
                | Self::ObserveQuota { .. }
                | Self::ProbeLiveStream { .. }
        )
    }
}

/// What the platform answered. Observed objects are kept as JSON without their secrets and read
/// by [`crate::webhook`], like webhooks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum CallResult {
    /// A live stream was created, changed or looked at.
    LiveStream {
        /// The object.
        observed: Value,
    },
    /// A broadcast was created or changed.
    Broadcast {
        /// The object.
        observed: Value,
    },
    /// A recording was started.
    RecordingStarted {
        /// What the platform warned of, such as storage nearly full.
        warnings: Vec<String>,
    },
    /// The platform accepted the command to record and said why it will not.
    RecordingRefused {
        /// Its reasons.
        errors: Vec<String>,
    },
    /// A recording was stopped; `None`: there was nothing recorded.
    RecordingStopped {
        /// The video made of it.
        video: Option<Value>,
    },
    /// The videos of a live stream.
    Videos {
        /// The objects.
        observed: Vec<Value>,
    },
    /// A video.
    Video {
        /// The object.
        observed: Value,
    },
    /// The active live streams of an account.
    ActiveStreams {
        /// All of them.
        active: Vec<LiveStreamId>,
        /// Those asked for one by one, which the platform said are not.
        inactive: Vec<LiveStreamId>,
    },
    /// When the encoder of a live stream sent, by its statistics.
    AirTimes {
        /// Each time, in order.
        times: Vec<AirTime>,
        /// The shortest time that they tell, in seconds.
        precision_s: u64,
    },
    /// The object is gone: deleted now or before.
    Gone,
    /// Done, with nothing to tell.
    Done,
    /// A live stream was deleted, and these videos before it.
    Deleted {
        /// The videos.
        videos: Vec<VideoId>,
    },
    /// Recordings were deleted, now or before.
    RecordingsDeleted {
        /// The videos.
        videos: Vec<VideoId>,
        /// Why others were kept, for people.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        kept: Vec<String>,
    },
    /// The account has no room for it now, such as no free slot of the quota. The planner waits
    /// and decides anew, so that a session can be ended meanwhile.
    Deferred {
        /// In the platform's words.
        reason: String,
    },
    /// A guard kept the live stream.
    Kept {
        /// Which guard, for people.
        reason: String,
    },
}

impl CallResult {
    /// The videos that the call deleted.
    pub(crate) fn deleted_videos(&self) -> &[VideoId] {
        if let Self::Deleted { videos } | Self::RecordingsDeleted { videos, .. } = self {
            videos
        } else {
            &[]
        }
    }

    /// The same without what its objects echo of a person, as it may be stored.
    #[must_use]
    pub fn without_echo(self) -> Self {
        match self {
            Self::LiveStream { observed } => Self::LiveStream { observed: without_echo(observed) },
            Self::Broadcast { observed } => Self::Broadcast { observed: without_echo(observed) },
            Self::Video { observed } => Self::Video { observed: without_echo(observed) },
            Self::RecordingStopped { video } => {
                Self::RecordingStopped { video: video.map(without_echo) }
            }
            Self::Videos { observed } => {
                Self::Videos { observed: observed.into_iter().map(without_echo).collect() }
            }
            Self::RecordingStarted { .. }
            | Self::RecordingRefused { .. }
            | Self::ActiveStreams { .. }
            | Self::AirTimes { .. }
            | Self::Gone
            | Self::Done
            | Self::Deleted { .. }
            | Self::RecordingsDeleted { .. }
            | Self::Deferred { .. }
            | Self::Kept { .. } => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_kinds_is_complete() {
        let call = Call::FetchVideo { video: VideoId(1) };
        assert!(Call::KINDS.contains(&call.kind()));
        let distinct: std::collections::BTreeSet<&str> = Call::KINDS.into_iter().collect();
        assert_eq!(distinct.len(), Call::KINDS.len());
    }
}
