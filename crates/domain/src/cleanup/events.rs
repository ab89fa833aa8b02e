//! What the log holds of cleanup: the course of a run, the request to a live stream, and what is taken
//! and told when something is deleted. Names and bodies stand in the log for ever.

use std::time::Duration;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::CleanupPolicy;
use crate::event::{json, storable};
use crate::ids::{LiveStreamId, Timestamp, VideoId};

/// A cleanup run proposes to delete this live stream, or recordings of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CleanupRequested {
    /// The run.
    pub run: Uuid,
    /// Why it qualifies, for people.
    pub reason: String,
    /// Delete its recordings too, before it.
    pub delete_recordings: bool,
    /// By which policy.
    #[serde(default, skip_serializing_if = "CleanupPolicy::is_default")]
    pub policy: CleanupPolicy,
    /// Only if it was made before, as an orphan; only recordings that were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_before: Option<Timestamp>,
    /// Delete these recordings and leave the live stream.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub videos: Vec<VideoId>,
}

impl CleanupRequested {
    /// Proposes an idle live stream, by the guards that hold for every one.
    pub fn idle(run: Uuid, reason: String) -> Self {
        let (policy, made_before, videos) = (CleanupPolicy::default(), None, Vec::new());
        Self { run, reason, delete_recordings: false, policy, made_before, videos }
    }

    /// Proposes a live stream that nobody will come for, if it was made before `made_before`: whose
    /// it is, is asked again right before the call.
    pub fn orphan(run: Uuid, reason: String, made_before: Timestamp) -> Self {
        let policy = CleanupPolicy::Orphans;
        Self { policy, made_before: Some(made_before), ..Self::idle(run, reason) }
    }
}

/// A run began. The first event of its subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CleanupStarted {
    /// The run.
    pub run: Uuid,
    /// The job that makes it.
    pub job: Uuid,
    /// What it looks for.
    pub policy: CleanupPolicy,
    /// It deletes nothing.
    pub dry_run: bool,
    /// Most live streams that it proposes.
    pub cap: u32,
    /// The rule it judges by, for people.
    pub rule: String,
}

/// A run judged a candidate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CleanupJudged {
    /// The run.
    pub run: Uuid,
    /// The live stream.
    pub live_stream: LiveStreamId,
    /// The recordings, where it is about them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub videos: Vec<VideoId>,
    /// Whether it is proposed to be deleted.
    pub proposed: bool,
    /// Why, or why not, for people.
    pub reason: String,
    /// Its recordings are proposed too, before it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub delete_recordings: bool,
    /// Only what was made before is proposed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_before: Option<Timestamp>,
}

/// A run has judged all that it will.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CleanupListed {
    /// The run.
    pub run: Uuid,
    /// Candidates that were looked at.
    pub looked_at: u64,
    /// Of these, proposed.
    pub proposed: u64,
    /// Of these, kept; the first of them are told one by one.
    pub kept: u64,
    /// Of these, left for the next run, since the cap was reached.
    pub left: u64,
}

/// What became of a live stream that a run proposed. Forwarded from the live stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CleanupSettled {
    /// The run.
    pub run: Uuid,
    /// The live stream.
    pub live_stream: LiveStreamId,
    /// Whether it was deleted.
    pub deleted: bool,
    /// The videos that were deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub videos: Vec<VideoId>,
    /// Why it was, or why it was kept.
    pub reason: String,
}

/// A time on air, as the platform's statistics tell it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AirTime {
    /// When it began.
    pub from: Timestamp,
    /// When it ended.
    pub until: Timestamp,
    /// Thousands of bits per second, on average.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avg_bitrate: Option<f64>,
}

/// What the platform alone knows of a live stream, taken before it is deleted with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LiveStreamCaptured {
    /// The run that is about to delete it.
    pub run: Uuid,
    /// When it was made.
    #[serde(default)]
    pub made_at: Option<Timestamp>,
    /// When it was on air, as far back as the platform tells.
    pub air_times: Vec<AirTime>,
    /// The shortest time that the times tell, in seconds.
    pub precision_s: u64,
    /// Its videos, which stay.
    pub videos: Vec<VideoId>,
}

/// A video was deleted by a run. Told to the video's subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VideoDeleted {
    /// The run.
    pub run: Uuid,
}

/// What the log holds of cleanup, besides the request to a live stream.
#[derive(Debug, Clone, PartialEq)]
pub enum CleanupEvent {
    /// A run began.
    Started(CleanupStarted),
    /// It judged a candidate.
    Judged(CleanupJudged),
    /// It judged all that it will.
    Listed(CleanupListed),
    /// What became of a proposal.
    Settled(CleanupSettled),
    /// What a live stream was, before it is deleted.
    Captured(LiveStreamCaptured),
    /// A video is gone.
    VideoDeleted(VideoDeleted),
}

impl CleanupEvent {
    /// Its name in the log.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Started(_) => "CleanupStarted",
            Self::Judged(_) => "CleanupJudged",
            Self::Listed(_) => "CleanupListed",
            Self::Settled(_) => "CleanupSettled",
            Self::Captured(_) => "LiveStreamCaptured",
            Self::VideoDeleted(_) => "VideoDeleted",
        }
    }

    /// Its body as stored.
    pub(crate) fn body(&self) -> Vec<u8> {
        match self {
            Self::Started(b) => json(b),
            Self::Judged(b) => json(b),
            Self::Listed(b) => json(b),
            Self::Settled(b) => json(b),
            Self::Captured(b) => json(b),
            Self::VideoDeleted(b) => json(b),
        }
    }

    /// Reads one; `None` where name or body is unknown.
    pub(crate) fn read(name: &str, bytes: &[u8]) -> Option<Self> {
        let bytes = &*storable(bytes);
        match name {
            "CleanupStarted" => serde_json::from_slice(bytes).ok().map(Self::Started),
            "CleanupJudged" => serde_json::from_slice(bytes).ok().map(Self::Judged),
            "CleanupListed" => serde_json::from_slice(bytes).ok().map(Self::Listed),
            "CleanupSettled" => serde_json::from_slice(bytes).ok().map(Self::Settled),
            "LiveStreamCaptured" => serde_json::from_slice(bytes).ok().map(Self::Captured),
            "VideoDeleted" => serde_json::from_slice(bytes).ok().map(Self::VideoDeleted),
            _ => None,
        }
    }

    /// In words, for people.
    pub(crate) fn words(&self) -> String {
        let of = |videos: &[VideoId], live_stream| match videos {
            [] => format!("live stream {live_stream}"),
            [one] => format!("video {one} of live stream {live_stream}"),
            some => format!("{} videos of live stream {live_stream}", some.len()),
        };
        match self {
            Self::Started(started) => {
                let dry = if started.dry_run { "dry run" } else { "run" };
                format!("cleanup, {dry} by {}: {}", started.policy, started.rule)
            }
            Self::Judged(judged) => {
                let verdict = if judged.proposed { "propose" } else { "keep" };
                format!("{verdict} {}: {}", of(&judged.videos, judged.live_stream), judged.reason)
            }
            Self::Listed(listed) => {
                let CleanupListed { looked_at, proposed, kept, left, .. } = listed;
                format!("{looked_at} looked at: {proposed} proposed, {kept} kept, {left} left")
            }
            Self::Settled(settled) => {
                let what = match (settled.deleted, settled.videos.is_empty()) {
                    (true, _) => "deleted",
                    (false, false) => "recordings deleted",
                    (false, true) => "kept",
                };
                format!("live stream {} {what}: {}", settled.live_stream, settled.reason)
            }
            Self::Captured(captured) => {
                let (times, videos) = (captured.air_times.len(), captured.videos.len());
                format!("before it is deleted: on air {times} times, {videos} videos stay")
            }
            Self::VideoDeleted(_) => "deleted by a cleanup run".to_owned(),
        }
    }
}

/// Times on air from samples, each of `interval`, in any order: samples that touch are one time.
pub fn air_times(
    samples: impl IntoIterator<Item = (Timestamp, Option<f64>)>,
    interval: Duration,
) -> Vec<AirTime> {
    let step = TimeDelta::from_std(interval).unwrap_or(TimeDelta::MAX);
    let mut samples: Vec<(Timestamp, Option<f64>)> = samples.into_iter().collect();
    samples.sort_by_key(|(time, _)| *time);
    samples.dedup_by_key(|(time, _)| *time);
    let end = |time: Timestamp| time.checked_add_signed(step).unwrap_or(time);
    let mut times: Vec<(AirTime, f64, u32)> = Vec::new();
    for (time, bitrate) in samples {
        match times.last_mut() {
            // Half a step of jitter in what the platform tells.
            Some((air, sum, n)) if time <= end(air.until) - step / 2 => {
                air.until = end(time);
                if let Some(bitrate) = bitrate {
                    (*sum, *n) = (*sum + bitrate, *n + 1);
                }
            }
            _ => {
                let air = AirTime { from: time, until: end(time), avg_bitrate: None };
                times.push((air, bitrate.unwrap_or_default(), u32::from(bitrate.is_some())));
            }
        }
    }
    let averaged = times.into_iter().map(|(air, sum, n)| {
        let avg_bitrate = (n > 0).then(|| (sum / f64::from(n)).round());
        AirTime { avg_bitrate, ..air }
    });
    averaged.collect()
}
