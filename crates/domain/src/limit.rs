//! Limits: how long a session may wait for what may never come, and how unsteady its encoder may be.
//!
//! A limit is *exceeded* if and only if an event of the session's live stream finds it so, by the
//! policy of then: while something is waited for, polls make such events. `decide` appends
//! [`LimitExceeded`], and only that changes a state, so that a replay under another policy tells
//! what happened. Not its job: how long platform calls are tried, which their jobs know
//! ([`CallArgs::until`](crate::effect::CallArgs::until)).

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::{Timestamp, VideoId};

/// What may be exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// The wait for a free slot of the account's quota.
    Slot,
    /// The wait for the encoder of a session that never was on air.
    Encoder,
    /// The wait for somebody who shows what the encoder of a session sends that never was on air.
    Show,
    /// The wait for the return of the encoder of an interrupted session.
    Return,
    /// The wait for somebody who retries or ends a failed session.
    Retry,
    /// The wait for the final state of a video.
    Videos,
    /// Losses of the encoder within a short time.
    Losses,
}

impl Limit {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Slot,
        Self::Encoder,
        Self::Show,
        Self::Return,
        Self::Retry,
        Self::Videos,
        Self::Losses,
    ];

    /// Its name, as stored.
    pub fn name(self) -> &'static str {
        match self {
            Self::Slot => "slot",
            Self::Encoder => "encoder",
            Self::Show => "show",
            Self::Return => "return",
            Self::Retry => "retry",
            Self::Videos => "videos",
            Self::Losses => "losses",
        }
    }

    /// What happened, in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Slot => "no slot of the quota became free in time",
            Self::Encoder => "no encoder came in time",
            Self::Show => "nobody showed it in time",
            Self::Return => "the encoder did not come back in time",
            Self::Retry => "it failed, and nobody retried it in time",
            Self::Videos => "videos were not processed in time",
            Self::Losses => "the encoder reconnects again and again",
        }
    }
}

/// What a session waits for, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// What for.
    pub what: Limit,
    /// Since when.
    pub since: Timestamp,
}

/// A session exceeded a limit. Told to its live stream's subject by `decide`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitExceeded {
    /// The session.
    pub session: Uuid,
    /// Which limit.
    pub limit: Limit,
    /// When the wait began that was too long, or the first of too many losses was: of others this
    /// tells nothing.
    pub since: Timestamp,
    /// The videos that were waited for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub videos: Vec<VideoId>,
}

#[cfg(test)]
mod tests;
