//! Reconcile: what a sweep looks at and when, and what it makes of what it saw.
//!
//! A *sweep* is a look at many live streams and videos of a source at once. What it saw otherwise
//! than it is known becomes a *hint*, [`SeenOtherwise`]: the fold compares it with what is known by
//! then, and where they still differ the platform is asked by GET. Nothing follows from a list
//! alone. Not its job: the calls, and remembering when it looked last; the worker does both.

use std::time::Duration;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::{BroadcastId, LiveStreamId, Timestamp, VideoId};
use crate::live_stream::LiveStream;
use crate::plan::WaitFor;
use crate::session::Session;
use crate::timer::Policy;
use crate::webhook::{BroadcastObserved, LiveStreamObserved, VideoObserved, VideoStatus};

/// How urgent a look is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// An encoder sends, or was lost on air.
    Live,
    /// An encoder is expected.
    Idle,
    /// Videos are processed.
    Videos,
}

impl Tier {
    /// The tier of a live stream whose session has this status, by its row; `None`: its own timer
    /// asks, or nothing is waited for.
    pub fn of_status(status: &str) -> Option<Self> {
        match status {
            "testing" | "live" | "interrupted" => Some(Self::Live),
            "ready" | "failed" => Some(Self::Idle),
            "processing" => Some(Self::Videos),
            _ => None,
        }
    }
}

/// When the live streams of a source were looked at: what a worker remembers of its sweeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Swept {
    /// The last sweep, whatever was due then.
    pub at: Timestamp,
    /// The last one that looked at the live ones.
    pub live_at: Timestamp,
    /// The last one that looked at all.
    pub all_at: Timestamp,
    /// It saw something otherwise: webhooks are being lost.
    pub differed: bool,
}

impl Swept {
    /// All was looked at.
    pub fn all(at: Timestamp, differed: bool) -> Self {
        Self { at, live_at: at, all_at: at, differed }
    }

    /// Whether a sweep at `now` looks at a wait of `tier` that began at `since`.
    pub fn is_due(&self, policy: &Policy, tier: Tier, since: Timestamp, now: Timestamp) -> bool {
        let looks = match tier {
            Tier::Live => {
                let every = if self.differed { often(policy) } else { policy.watch };
                return now - self.live_at >= delta(every);
            }
            Tier::Idle => Looks { first: policy.watch, most: 10 },
            Tier::Videos => Looks { first: policy.videos, most: 20 },
        };
        looks.before(since, self.at) < looks.before(since, now)
    }

    /// Whether a sweep at `now` looks at all: their time has come, or nobody has swept for so long
    /// that anything may have happened unheard.
    pub fn is_all_due(&self, policy: &Policy, now: Timestamp) -> bool {
        let stood_still = now - self.at > delta(policy.watch.saturating_mul(2));
        stood_still || now - self.all_at >= delta(policy.sweep)
    }

    /// The same after a sweep at `now` that looked at what was due, and `differed` or not.
    #[must_use]
    pub fn then(self, policy: &Policy, now: Timestamp, differed: bool) -> Self {
        let is_live = self.is_due(policy, Tier::Live, now, now);
        let live_at = if is_live { now } else { self.live_at };
        // What differs is a matter of the sweeps that looked.
        let differed = differed || self.differed && !is_live;
        Self { at: now, live_at, differed, ..self }
    }
}

/// How often a sweep is made: each look of each tier is late by no more.
pub fn often(policy: &Policy) -> Duration {
    policy.watch / 3
}

/// The looks at something that is waited for: after `first`, then after twice as long each time, up
/// to `most` times `first`.
#[derive(Debug, Clone, Copy)]
struct Looks {
    first: Duration,
    most: u32,
}

impl Looks {
    /// How many of them were due before `now`.
    fn before(self, since: Timestamp, now: Timestamp) -> u64 {
        let Ok(age) = (now - since).to_std() else { return 0 };
        let (mut step, mut at, mut looks) = (self.first, self.first, 0);
        let longest = self.first.saturating_mul(self.most);
        while at <= age && step < longest {
            looks += 1;
            step = step.saturating_mul(2).min(longest);
            at = at.saturating_add(step);
        }
        let rest = age.saturating_sub(at).as_millis();
        let more = if at <= age { 1 + rest / longest.as_millis().max(1) } else { 0 };
        looks + u64::try_from(more).unwrap_or(u64::MAX / 2)
    }
}

/// Signs of life of a live stream, as a sweep saw them; `None`: not told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Signs {
    /// The switch.
    pub active: Option<bool>,
    /// An encoder sends, by either way in.
    pub live: Option<bool>,
    /// A recording runs.
    pub recording: Option<bool>,
    /// When the primary encoder's connection came up last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
}

impl Signs {
    /// Those of an object of the platform.
    pub fn of(seen: &LiveStreamObserved) -> Self {
        let either = seen.live.unwrap_or(false) || seen.backup_live.unwrap_or(false);
        // One way in that is told to be quiet says nothing of the other.
        let tells = either || seen.live.is_some() && seen.backup_live.is_some();
        let live = tells.then_some(either).or(seen.live);
        let (recording, started_at) = (seen.recording, seen.started_at);
        Self { active: seen.active, live, recording, started_at }
    }
}

/// A video as a sweep saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VideoSigns {
    /// The video.
    pub video: VideoId,
    /// How far it is; `None`: it was not there, or in a word that is not known.
    pub status: Option<VideoStatus>,
    /// It was not there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub missing: bool,
    /// It can change no more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_final: bool,
}

impl VideoSigns {
    /// Those of a video that was looked at.
    pub fn of(seen: &VideoObserved) -> Self {
        let status = Some(seen.status).filter(|status| *status != VideoStatus::Unknown);
        Self { video: seen.id, status, missing: false, is_final: seen.is_final() }
    }

    /// Of one that was asked for and not there.
    pub fn missing(video: VideoId) -> Self {
        Self { video, status: None, missing: true, is_final: false }
    }
}

/// A broadcast as a sweep saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BroadcastSigns {
    /// The broadcast.
    pub broadcast: BroadcastId,
    /// Its label; `None`: it was not there, or in a word that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// It was not there, or not in a list that should tell it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub missing: bool,
}

impl BroadcastSigns {
    /// Those of a broadcast that was looked at.
    pub fn of(seen: BroadcastObserved) -> Self {
        Self { broadcast: seen.id, status: seen.status, missing: false }
    }

    /// Of one that was not there.
    pub fn missing(broadcast: BroadcastId) -> Self {
        Self { broadcast, status: None, missing: true }
    }
}

/// A sweep saw a live stream, or what belongs to it, otherwise than they were known: a hint, which leads
/// to a closer look and to nothing else.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenOtherwise {
    /// Signs of the live stream, where that was looked at and found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signs: Option<Signs>,
    /// It was asked for and not found.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub missing: bool,
    /// Broadcasts of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub broadcasts: Vec<BroadcastSigns>,
    /// Videos of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub videos: Vec<VideoSigns>,
}

impl LiveStream {
    /// How urgently a sweep looks at it; `None`: it is not waited for, or its own timer asks.
    pub fn tier(&self) -> Option<Tier> {
        match self.watch.now? {
            WaitFor::Loss => Some(Tier::Live),
            WaitFor::Encoder => {
                let was_shown = self.running().is_some_and(|s| s.went_live_at.is_some());
                Some(if was_shown { Tier::Live } else { Tier::Idle })
            }
            WaitFor::Videos => Some(Tier::Videos),
            WaitFor::Effect
            | WaitFor::Slot
            | WaitFor::Release
            | WaitFor::Leftover
            | WaitFor::Retry => None,
        }
    }

    /// The videos that are waited for and known by name: a sweep asks for many of them at once.
    pub fn awaited_videos(&self) -> impl Iterator<Item = VideoId> {
        let off_air = self.sessions.iter().filter(|session| session.is_off_air());
        off_air.flat_map(|session| session.recording.awaited())
    }

    /// What of `seen` is otherwise than it is known; `None`: nothing.
    pub fn compare(&self, seen: SeenOtherwise) -> Option<SeenOtherwise> {
        let SeenOtherwise { signs, missing, mut broadcasts, videos } = seen;
        let signs = signs.filter(|signs| self.differs(*signs));
        let missing = missing && !self.deleted;
        let videos: Vec<_> = videos.into_iter().filter(|v| self.video_differs(*v)).collect();
        broadcasts.retain(|seen| self.broadcast_differs(seen));
        let is_news = signs.is_some() || missing || !broadcasts.is_empty() || !videos.is_empty();
        is_news.then_some(SeenOtherwise { signs, missing, broadcasts, videos })
    }

    /// Applies a hint: what is still otherwise is asked for.
    pub(crate) fn seen_otherwise(&mut self, seen: &SeenOtherwise) {
        let Some(seen) = self.compare(seen.clone()) else { return };
        self.look_due |= seen.missing || seen.signs.is_some();
        self.broadcasts_seen_otherwise(&seen.broadcasts);
        for video in seen.videos {
            for session in &mut self.sessions {
                session.recording.seen_otherwise(video.video);
            }
        }
    }

    /// What is not known yet, as whether a recording runs, differs only where something is.
    fn differs(&self, signs: Signs) -> bool {
        let other = |known: bool, seen: Option<bool>| seen.is_some_and(|seen| seen != known);
        let is_unheard = |session: &Session| {
            let news = signs.started_at.filter(|at| self.started_at.is_none_or(|told| *at > told));
            news.is_some_and(|at| session.is_unheard(self.is_on_air(), at))
        };
        !self.deleted
            && (self.running().is_some_and(is_unheard)
                || other(self.is_on_air(), signs.live)
                || other(self.active.unwrap_or(false), signs.active)
                || other(self.recording.unwrap_or(false), signs.recording))
    }

    fn video_differs(&self, seen: VideoSigns) -> bool {
        let parts = self.sessions.iter().flat_map(|session| &session.recording.parts);
        let mut known = parts.filter(|part| part.video.id == seen.video);
        known.any(|part| {
            let is = part.video.status;
            let other = seen.status.is_some_and(|status| status != is);
            is != VideoStatus::Deleted
                && (seen.missing || other || seen.is_final && !part.is_final())
        })
    }
}

/// A live stream of ours on the platform, as a sweep over all of them saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made {
    /// The live stream.
    pub live_stream: LiveStreamId,
    /// The intent that made it, by its tag.
    pub key: Uuid,
    /// When it was made, if that is told.
    pub at: Option<Timestamp>,
    /// A session ran on it or is to, by its state.
    pub had_session: bool,
}

/// How old an orphan is at least: until then the answer may come that names it.
const ORPHAN_AGE: TimeDelta = TimeDelta::minutes(30);

/// The moment before which an orphan was made that may go at `now`.
pub fn orphans_made_before(now: Timestamp) -> Timestamp {
    now - ORPHAN_AGE
}

/// The live streams that were made a second time for one intent: another has its session. Where
/// none has, the call may still be on its way, and nothing is said.
pub fn orphans(made: &[Made], now: Timestamp) -> Vec<LiveStreamId> {
    let has_session = |key| made.iter().any(|one| one.key == key && one.had_session);
    let is_old = |one: &Made| one.at.is_some_and(|at| at < orphans_made_before(now));
    let orphans = made.iter().filter(|one| !one.had_session && is_old(one) && has_session(one.key));
    orphans.map(|one| one.live_stream).collect()
}

fn delta(time: Duration) -> TimeDelta {
    TimeDelta::from_std(time).unwrap_or(TimeDelta::MAX)
}

#[cfg(test)]
mod tests;
