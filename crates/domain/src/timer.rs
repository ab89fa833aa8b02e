//! Timers: jobs whose only effect is that [`TimerElapsed`](crate::event::TimerElapsed) is appended.
//!
//! A timer carries the generation of the wait it belongs to. None is ever cancelled: a stale one
//! is appended too and changes nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimerKind {
    /// The time an encoder has to come back before an interruption is shown.
    Grace,
    /// Time to ask the platform how things are, because no webhook told.
    Poll,
}

impl TimerKind {
    /// Its name, as stored.
    pub fn name(self) -> &'static str {
        match self {
            Self::Grace => "grace",
            Self::Poll => "poll",
        }
    }
}

/// How long to wait for what. Live decisions only: a fold never reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Grace period after the encoder's connection is lost. Covers the ingester's 3 s time-out,
    /// the switch to a backup (15 s) and the 10 s for which the platform holds a recording.
    pub grace: Duration,
    /// After a call of ours whose effect has not been seen: ask after this long. The platform's
    /// effects take 3 to 10 s.
    pub settle: Duration,
    /// While the account's quota has no free slot: try this often. One is freed when some session
    /// ends, and nothing tells of it.
    pub slot: Duration,
    /// While an encoder is expected or on air: ask this often.
    pub watch: Duration,
    /// While videos are being processed: ask this often.
    pub videos: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(20),
            settle: Duration::from_secs(12),
            slot: Duration::from_secs(30),
            watch: Duration::from_secs(30),
            videos: Duration::from_mins(1),
        }
    }
}

impl Policy {
    /// The same policy with every wait divided by `factor`, for demonstrations.
    #[must_use]
    pub fn scaled(&self, factor: f64) -> Self {
        let scale = |d: Duration| d.div_f64(factor.max(f64::EPSILON));
        Self {
            grace: scale(self.grace),
            settle: scale(self.settle),
            slot: scale(self.slot),
            watch: scale(self.watch),
            videos: scale(self.videos),
        }
    }
}
