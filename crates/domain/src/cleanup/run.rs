//! State of a cleanup run: which of its proposals are open, and how the others ended. It is over
//! when all are judged and none is open.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{CleanupEvent, CleanupListed, CleanupPolicy, CleanupStarted};
use crate::announcement::{Announcement, CleanupRunNews};
use crate::effect::Effects;
use crate::ids::{LiveStreamId, Timestamp};

/// A run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CleanupRun {
    /// Its id.
    pub run: Uuid,
    /// The job that makes it.
    pub job: Uuid,
    /// What it looks for.
    pub policy: CleanupPolicy,
    /// It deletes nothing.
    pub dry_run: bool,
    /// Most live streams that it proposes.
    pub cap: u32,
    /// When it began.
    pub started_at: Timestamp,
    /// What it judged, once it has judged all.
    pub listed: Option<CleanupListed>,
    /// Live streams that it proposed and of which nothing was heard yet.
    pub open: BTreeSet<LiveStreamId>,
    /// Live streams that were deleted.
    pub deleted: u64,
    /// Videos that were deleted.
    pub videos_deleted: u64,
    /// Live streams that were proposed, and kept after all.
    pub spared: u64,
    /// When it was over.
    pub finished_at: Option<Timestamp>,
}

impl CleanupRun {
    /// The run that its first event opens.
    pub(crate) fn new(started: &CleanupStarted, at: Timestamp) -> Self {
        Self {
            run: started.run,
            job: started.job,
            policy: started.policy,
            dry_run: started.dry_run,
            cap: started.cap,
            started_at: at,
            listed: None,
            open: BTreeSet::new(),
            deleted: 0,
            videos_deleted: 0,
            spared: 0,
            finished_at: None,
        }
    }

    /// Where it stands: `listing`, `deleting` or `finished`.
    pub fn status(&self) -> &'static str {
        match (&self.listed, self.finished_at) {
            (_, Some(_)) => "finished",
            (Some(_), None) => "deleting",
            (None, None) => "listing",
        }
    }

    /// Applies one event.
    pub(crate) fn evolve(&mut self, event: &CleanupEvent, at: Timestamp) {
        match event {
            CleanupEvent::Judged(judged) => {
                if judged.proposed && !self.dry_run {
                    self.open.insert(judged.live_stream);
                }
            }
            CleanupEvent::Listed(listed) => self.listed = self.listed.or(Some(*listed)),
            CleanupEvent::Settled(settled) => {
                if self.open.remove(&settled.live_stream) {
                    let is_done = settled.deleted || !settled.videos.is_empty();
                    self.deleted += u64::from(settled.deleted);
                    self.videos_deleted += settled.videos.len() as u64;
                    self.spared += u64::from(!is_done);
                }
            }
            CleanupEvent::Started(_)
            | CleanupEvent::Captured(_)
            | CleanupEvent::VideoDeleted(_) => {}
        }
        if self.listed.is_some() && self.open.is_empty() {
            self.finished_at = self.finished_at.or(Some(at));
        }
    }

    /// Says that it is over, once.
    pub(crate) fn decide(&self, before: Option<&Self>, to: &mut Effects) {
        let was_over = before.is_some_and(|before| before.finished_at.is_some());
        let Some(listed) = self.listed.filter(|_| !was_over && self.finished_at.is_some()) else {
            return;
        };
        to.announce(Announcement::CleanupFinished(CleanupRunNews {
            run: self.run,
            policy: self.policy,
            dry_run: self.dry_run,
            looked_at: listed.looked_at,
            proposed: listed.proposed,
            left: listed.left,
            deleted: self.deleted,
            videos_deleted: self.videos_deleted,
            kept: listed.kept + self.spared,
        }));
    }
}
