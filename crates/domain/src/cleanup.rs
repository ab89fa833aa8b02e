//! Cleanup: what a run may delete, how it judges, and what it tells the log.
//!
//! A *run* is one look through one source by one *policy*. It judges candidates, each with a reason,
//! and proposes at most as many as its *cap*; each live stream then decides on its own state, and the
//! call looks at the platform once more. What is not known counts against deletion, everywhere.
//!
//! [`Rules`] are what a source allows, [`Verdict`] is what facts are judged to be, [`CleanupEvent`]
//! what the log holds besides the request to a live stream, [`CleanupRequested`]. [`run`] is the state
//! of a run, [`report`] what is told of it. Not the job of this module: asking database and platform,
//! which is the worker's.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::derived_id;

mod events;
mod judge;
pub mod report;
mod rules;
pub mod run;

pub use events::{
    AirTime, CleanupEvent, CleanupJudged, CleanupListed, CleanupRequested, CleanupSettled,
    CleanupStarted, LiveStreamCaptured, VideoDeleted, air_times,
};
pub use judge::{InactiveFacts, Maker, OrphanFacts, RecordingFacts, Verdict};
pub use rules::{Keep, Rules, days, earlier};

/// What a run looks for.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum CleanupPolicy {
    /// Live streams of deleted accounts that have been idle for long.
    #[default]
    Inactive,
    /// Live streams that this installation made and no session has.
    Orphans,
    /// Recordings of ended sessions that need not be kept any longer.
    Recordings,
}

impl CleanupPolicy {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Inactive, Self::Orphans, Self::Recordings];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Orphans => "orphans",
            Self::Recordings => "recordings",
        }
    }

    /// The policy of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.name() == name)
    }

    /// Whether it is the one that stored bodies do not name.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde asks for")]
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for CleanupPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The id of the run that a job makes on a source.
pub fn run_id(job: Uuid, source: &str) -> Uuid {
    derived_id("cleanup-run", &[&job.to_string(), source])
}

#[cfg(test)]
mod tests;
