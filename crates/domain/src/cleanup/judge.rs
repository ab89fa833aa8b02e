//! Judging: facts of a candidate to a verdict, pure. Every fact may be unknown, and what is unknown
//! keeps. What is judged here is asked again right before a call.

use std::time::Duration;

use uuid::Uuid;

use super::rules::{Keep, days, earlier};
use crate::ids::{LiveStreamId, Timestamp, VideoId};

/// A request that a worker has in its hands is over long before, be it by its limit.
pub(super) const SHORTEST_ORPHAN: Duration = Duration::from_hours(1);

/// What a run thinks of a candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Propose to delete it, for this reason.
    Propose(String),
    /// Keep it, for this reason.
    Keep(String),
}

impl Verdict {
    fn keep(reason: impl Into<String>) -> Self {
        Self::Keep(reason.into())
    }

    /// Its reason.
    pub fn reason(&self) -> &str {
        match self {
            Self::Propose(reason) | Self::Keep(reason) => reason,
        }
    }

    /// Whether it is to be deleted.
    pub fn proposes(&self) -> bool {
        matches!(self, Self::Propose(_))
    }
}

/// What is known here of a live stream whose account was deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InactiveFacts {
    /// The live stream.
    pub live_stream: LiveStreamId,
    /// Its account's pseudonym.
    pub account: String,
    /// By its tag, this installation made it.
    pub is_ours: bool,
    /// An encoder sends.
    pub live: bool,
    /// The switch.
    pub active: Option<bool>,
    /// Since when it has had no session and was neither live nor active.
    pub idle_since: Option<Timestamp>,
}

impl InactiveFacts {
    /// Judges it: it is ours, and has been idle for `after`.
    pub fn judge(&self, now: Timestamp, after: Duration) -> Verdict {
        if !self.is_ours {
            return Verdict::keep("it does not carry this installation's tag, as far as is known");
        }
        if self.live {
            return Verdict::keep("an encoder sends to it");
        }
        if self.active == Some(true) {
            return Verdict::keep("it is active");
        }
        let Some(since) = self.idle_since else {
            return Verdict::keep("it has an open session");
        };
        let (day, account) = (since.format("%F"), &self.account);
        if !is_older(since, now, after) {
            return Verdict::Keep(format!("idle since {day} only, and {} needed", days(after)));
        }
        Verdict::Propose(format!("idle since {day}, account {account} deleted"))
    }
}

/// Which session's request made a live stream, by the key in its tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maker {
    /// A session has or had it.
    Has(Uuid),
    /// The request that made it has no live stream yet: it may still take this one.
    MayTake(Uuid),
    /// The request that made it has another one, or ended without: nobody will come for it.
    Left(Uuid),
    /// No request that is known here made it.
    Unknown,
}

/// What is known of a live stream that no session has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrphanFacts {
    /// Who made it.
    pub maker: Maker,
    /// When, by the platform.
    pub made_at: Option<Timestamp>,
    /// An encoder sends.
    pub live: Option<bool>,
    /// The switch.
    pub active: Option<bool>,
    /// It is being recorded.
    pub recording: Option<bool>,
}

impl OrphanFacts {
    /// Judges it: its request is known and will not take it, it is quiet, and made before.
    pub fn judge(&self, before: Timestamp) -> Verdict {
        let session = match self.maker {
            Maker::Left(session) => session,
            Maker::Has(session) => return Verdict::Keep(format!("session {session} has it")),
            Maker::MayTake(session) => {
                return Verdict::Keep(format!("session {session} may still take it"));
            }
            Maker::Unknown => {
                return Verdict::keep("no request that this log knows made it");
            }
        };
        if self.live != Some(false) {
            Verdict::keep("it is not said to be off air")
        } else if self.active != Some(false) {
            Verdict::keep("it is not said to be inactive")
        } else if self.recording == Some(true) {
            Verdict::keep("it is being recorded")
        } else if let Some(made) = self.made_at.filter(|made| *made < before) {
            let day = made.format("%F");
            Verdict::Propose(format!("made for session {session} on {day}, which does not have it"))
        } else {
            Verdict::Keep(format!("not said to be made before {}", before.format("%F %T UTC")))
        }
    }

    /// The moment before which an orphan was made that may go at `now`.
    pub fn before(now: Timestamp, after: Duration) -> Timestamp {
        earlier(now, after.max(SHORTEST_ORPHAN))
    }
}

/// The recordings of an ended session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordingFacts {
    /// The session.
    pub session: Uuid,
    /// Its live stream.
    pub live_stream: LiveStreamId,
    /// Its account's pseudonym.
    pub account: Option<String>,
    /// When it ended.
    pub ended_at: Timestamp,
    /// Its videos that are not known to be deleted.
    pub videos: Vec<VideoId>,
}

impl RecordingFacts {
    /// Judges them: they were kept for as long as `keep` says.
    pub fn judge(&self, now: Timestamp, keep: Keep) -> Verdict {
        let (session, day) = (self.session, self.ended_at.format("%F"));
        match keep.time() {
            None => Verdict::keep("no rule lets recordings of its account go"),
            Some(keep) if !is_older(self.ended_at, now, keep) => {
                let keep = days(keep);
                Verdict::Keep(format!("session {session} ended on {day}, kept for {keep}"))
            }
            Some(keep) => Verdict::Propose(format!(
                "session {session} ended on {day}, longer ago than the {} they are kept",
                days(keep)
            )),
        }
    }
}
/// Whether `since` lies `age` or longer before `now`.
fn is_older(since: Timestamp, now: Timestamp, age: Duration) -> bool {
    since <= earlier(now, age)
}
