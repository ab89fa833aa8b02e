//! Announcements: the events that the product hears.
//!
//! `decide` appends them when a session's state changes; replay reads them and derives none.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::cleanup::CleanupPolicy;
use crate::event::{json, storable};
use crate::ids::{LiveStreamId, VideoId};
use crate::session::Known;

/// What is said of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionNews {
    /// The session.
    pub session: Uuid,
    /// Its live stream; none where it could not be made.
    #[serde(default)]
    pub live_stream: Option<LiveStreamId>,
    /// The product's account.
    #[serde(default)]
    pub account: Option<String>,
    /// Why, or what to tell the user.
    #[serde(default)]
    pub note: Option<String>,
    /// When its encoder came or went, where that is what is said and no webhook told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub derived: Option<Known>,
}

/// What is said of a session that waits for a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaNews {
    /// The session.
    pub session: Uuid,
    /// Its live stream.
    #[serde(default)]
    pub live_stream: Option<LiveStreamId>,
    /// The product's account.
    #[serde(default)]
    pub account: Option<String>,
    /// Why it waits.
    #[serde(default)]
    pub note: Option<String>,
    /// Its place in the queue, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<u64>,
}

/// What is said of a part of a recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartNews {
    /// The session.
    pub session: Uuid,
    /// The part's number, from 1, in order of time.
    pub part: usize,
    /// The platform's video.
    pub video: VideoId,
    /// Its status.
    pub status: String,
    /// Milliseconds.
    #[serde(default)]
    pub duration_ms: Option<i64>,
    /// The product's account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
}

/// What is said of a cleanup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CleanupNews {
    /// The run.
    pub run: Uuid,
    /// The live stream.
    pub live_stream: LiveStreamId,
    /// Whether it was deleted.
    pub deleted: bool,
    /// Why it was, or why it was kept.
    pub reason: String,
    /// Recordings that were deleted, before it or without it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub videos: Vec<VideoId>,
    /// The product's account of its latest session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
}

/// What is said of a cleanup run that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CleanupRunNews {
    /// The run.
    pub run: Uuid,
    /// What it looked for.
    pub policy: CleanupPolicy,
    /// It deleted nothing.
    pub dry_run: bool,
    /// Candidates that were looked at.
    pub looked_at: u64,
    /// Of these, proposed.
    pub proposed: u64,
    /// Of these, left for the next run.
    pub left: u64,
    /// Live streams that were deleted.
    pub deleted: u64,
    /// Videos that were deleted.
    pub videos_deleted: u64,
    /// Candidates that were kept, at once or after all.
    pub kept: u64,
}

/// What is said of an endpoint that messages are sent to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointNews {
    /// The endpoint.
    pub endpoint: Uuid,
    /// Why, for people.
    pub reason: String,
}

/// An announcement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Announcement {
    /// The encoder may connect.
    SessionReady(SessionNews),
    /// The encoder sends; the audience does not see it yet.
    SessionTestStarted(SessionNews),
    /// On air.
    SessionWentLive(SessionNews),
    /// The encoder was lost for longer than the grace period: ask the user to start again.
    SessionInterrupted(SessionNews),
    /// On air again after an interruption.
    SessionResumed(SessionNews),
    /// Off air; videos may still be processed.
    SessionStopped(SessionNews),
    /// Over, its last video processed.
    SessionEnded(SessionNews),
    /// A call failed for good; `retry` goes on from there.
    SessionFailed(SessionNews),
    /// Its encoder reconnects again and again: told once, until it has sent steadily.
    SessionUnstable(SessionNews),
    /// A part of the recording can be played.
    RecordingPartReady(PartNews),
    /// A part was waited for too long: the recording is completed without it.
    RecordingPartOverdue(PartNews),
    /// A part is gone: its video was deleted, by whomever.
    RecordingPartDeleted(PartNews),
    /// No part is waited for any more; the note says what is missing, if anything is.
    RecordingReady(SessionNews),
    /// No slot of the platform account is free: the session waits for one.
    QuotaWaiting(QuotaNews),
    /// A live stream was cleaned up, or kept.
    CleanupDone(CleanupNews),
    /// A cleanup run is over.
    CleanupFinished(CleanupRunNews),
    /// Nothing is sent to an endpoint any more.
    EndpointDisabled(EndpointNews),
}

/// How the names of announcements begin. The index by which the feed finds them says the same, so
/// a name that begins otherwise would never be heard.
pub const PREFIXES: [&str; 5] = ["Session", "Recording", "Quota", "Cleanup", "Endpoint"];

/// Every announcement: its name in the log, and the name by which the product knows it.
pub const TOPICS: [(&str, &str); 17] = [
    ("SessionReady", "session.ready"),
    ("SessionTestStarted", "session.test_started"),
    ("SessionWentLive", "session.live"),
    ("SessionInterrupted", "session.interrupted"),
    ("SessionResumed", "session.resumed"),
    ("SessionStopped", "session.stopped"),
    ("SessionEnded", "session.ended"),
    ("SessionFailed", "session.failed"),
    ("SessionUnstable", "session.unstable"),
    ("RecordingPartReady", "recording.part_ready"),
    ("RecordingPartOverdue", "recording.part_overdue"),
    ("RecordingPartDeleted", "recording.part_deleted"),
    ("RecordingReady", "recording.ready"),
    ("QuotaWaiting", "quota.waiting"),
    ("CleanupDone", "cleanup.done"),
    ("CleanupFinished", "cleanup.finished"),
    ("EndpointDisabled", "endpoint.disabled"),
];

/// The name by which the product knows the announcements of this name in the log; `None`: it is
/// another event.
pub fn topic(name: &str) -> Option<&'static str> {
    TOPICS.iter().find(|(known, _)| *known == name).map(|(_, topic)| *topic)
}

impl Announcement {
    /// The product's account that it is about.
    pub fn account(&self) -> Option<&str> {
        match self {
            Self::SessionReady(n)
            | Self::SessionTestStarted(n)
            | Self::SessionWentLive(n)
            | Self::SessionInterrupted(n)
            | Self::SessionResumed(n)
            | Self::SessionStopped(n)
            | Self::SessionEnded(n)
            | Self::SessionFailed(n)
            | Self::SessionUnstable(n)
            | Self::RecordingReady(n) => n.account.as_deref(),
            Self::QuotaWaiting(n) => n.account.as_deref(),
            Self::RecordingPartReady(n)
            | Self::RecordingPartOverdue(n)
            | Self::RecordingPartDeleted(n) => n.account.as_deref(),
            Self::CleanupDone(n) => n.account.as_deref(),
            Self::CleanupFinished(_) | Self::EndpointDisabled(_) => None,
        }
    }

    /// Its name in the log.
    pub fn name(&self) -> &'static str {
        match self {
            Self::SessionReady(_) => "SessionReady",
            Self::SessionTestStarted(_) => "SessionTestStarted",
            Self::SessionWentLive(_) => "SessionWentLive",
            Self::SessionInterrupted(_) => "SessionInterrupted",
            Self::SessionResumed(_) => "SessionResumed",
            Self::SessionStopped(_) => "SessionStopped",
            Self::SessionEnded(_) => "SessionEnded",
            Self::SessionFailed(_) => "SessionFailed",
            Self::SessionUnstable(_) => "SessionUnstable",
            Self::RecordingPartReady(_) => "RecordingPartReady",
            Self::RecordingPartOverdue(_) => "RecordingPartOverdue",
            Self::RecordingPartDeleted(_) => "RecordingPartDeleted",
            Self::RecordingReady(_) => "RecordingReady",
            Self::QuotaWaiting(_) => "QuotaWaiting",
            Self::CleanupDone(_) => "CleanupDone",
            Self::CleanupFinished(_) => "CleanupFinished",
            Self::EndpointDisabled(_) => "EndpointDisabled",
        }
    }

    /// Its body as stored.
    pub(crate) fn body(&self) -> Vec<u8> {
        match self {
            Self::SessionReady(n)
            | Self::SessionTestStarted(n)
            | Self::SessionWentLive(n)
            | Self::SessionInterrupted(n)
            | Self::SessionResumed(n)
            | Self::SessionStopped(n)
            | Self::SessionEnded(n)
            | Self::SessionFailed(n)
            | Self::SessionUnstable(n)
            | Self::RecordingReady(n) => json(n),
            Self::QuotaWaiting(n) => json(n),
            Self::RecordingPartReady(n)
            | Self::RecordingPartOverdue(n)
            | Self::RecordingPartDeleted(n) => json(n),
            Self::CleanupDone(n) => json(n),
            Self::CleanupFinished(n) => json(n),
            Self::EndpointDisabled(n) => json(n),
        }
    }

    /// Reads one; `None` where name or body is unknown.
    pub(crate) fn read(name: &str, bytes: &[u8]) -> Option<Self> {
        let bytes = &*storable(bytes);
        let session = || serde_json::from_slice::<SessionNews>(bytes).ok();
        let part = || serde_json::from_slice::<PartNews>(bytes).ok();
        match name {
            "SessionReady" => session().map(Self::SessionReady),
            "SessionTestStarted" => session().map(Self::SessionTestStarted),
            "SessionWentLive" => session().map(Self::SessionWentLive),
            "SessionInterrupted" => session().map(Self::SessionInterrupted),
            "SessionResumed" => session().map(Self::SessionResumed),
            "SessionStopped" => session().map(Self::SessionStopped),
            "SessionEnded" => session().map(Self::SessionEnded),
            "SessionFailed" => session().map(Self::SessionFailed),
            "RecordingReady" => session().map(Self::RecordingReady),
            "SessionUnstable" => session().map(Self::SessionUnstable),
            "RecordingPartReady" => part().map(Self::RecordingPartReady),
            "RecordingPartOverdue" => part().map(Self::RecordingPartOverdue),
            "RecordingPartDeleted" => part().map(Self::RecordingPartDeleted),
            "QuotaWaiting" => serde_json::from_slice(bytes).ok().map(Self::QuotaWaiting),
            "CleanupDone" => serde_json::from_slice(bytes).ok().map(Self::CleanupDone),
            "CleanupFinished" => serde_json::from_slice(bytes).ok().map(Self::CleanupFinished),
            "EndpointDisabled" => serde_json::from_slice(bytes).ok().map(Self::EndpointDisabled),
            _ => None,
        }
    }
}
