//! What a run did and why, read from the events of its subject: the same for the API and for people.

use serde::Serialize;
use uuid::Uuid;

use super::run::CleanupRun;
use super::{CleanupEvent, CleanupJudged, CleanupListed, CleanupPolicy, CleanupSettled};
use crate::event::{Event, RecordedEvent};
use crate::ids::{LiveStreamId, Timestamp, VideoId};

/// A run, explained.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The run.
    pub run: Uuid,
    /// The job that makes it, whose failure would be told there.
    pub job: Uuid,
    /// The source that it looks through.
    pub source: String,
    /// What it looks for.
    pub policy: CleanupPolicy,
    /// `listing`, `deleting` or `finished`.
    pub status: &'static str,
    /// It deletes nothing.
    pub dry_run: bool,
    /// Most live streams that it proposes.
    pub cap: u32,
    /// The rule it judges by.
    pub rule: String,
    /// When it began.
    pub started_at: Timestamp,
    /// When it was over.
    pub finished_at: Option<Timestamp>,
    /// Candidates that were looked at; so far, while it is listing.
    pub looked_at: u64,
    /// Of these, proposed.
    pub proposed: u64,
    /// Of these, kept at once.
    pub kept: u64,
    /// Of these, left for the next run.
    pub left: u64,
    /// Live streams that were deleted.
    pub deleted: u64,
    /// Videos that were deleted.
    pub videos_deleted: u64,
    /// Proposed, and kept after all.
    pub spared: u64,
    /// The candidates that are told one by one.
    pub candidates: Vec<Candidate>,
}

/// A candidate, and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Candidate {
    /// The live stream.
    pub live_stream_id: LiveStreamId,
    /// The recordings, where it is about them.
    pub video_ids: Vec<VideoId>,
    /// Whether it was proposed.
    pub proposed: bool,
    /// Why, or why not.
    pub reason: String,
    /// What became of it; `None`: nothing yet, or nothing was to.
    pub outcome: Option<Outcome>,
}

/// What became of a proposal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Whether the live stream was deleted.
    pub deleted: bool,
    /// The videos that were deleted.
    pub video_ids: Vec<VideoId>,
    /// Why, or why not.
    pub reason: String,
}

impl Report {
    /// The report of a run from all events of its subject; `None`: there is no such run.
    pub fn of(events: &[RecordedEvent]) -> Option<Self> {
        let mut told = events.iter().filter_map(|stored| {
            let Event::Cleanup(event) = Event::decode(stored) else { return None };
            Some((stored, event))
        });
        let (first, CleanupEvent::Started(started)) = told.next()? else { return None };
        let mut run = CleanupRun::new(&started, first.received_at);
        let mut candidates: Vec<Candidate> = Vec::new();
        for (stored, event) in told {
            run.evolve(&event, stored.received_at);
            match event {
                CleanupEvent::Judged(judged) => candidates.push(Candidate::of(judged)),
                CleanupEvent::Settled(settled) => settle(&mut candidates, settled),
                CleanupEvent::Started(_)
                | CleanupEvent::Listed(_)
                | CleanupEvent::Captured(_)
                | CleanupEvent::VideoDeleted(_) => {}
            }
        }
        let listed = run.listed.unwrap_or_else(|| so_far(run.run, &candidates));
        Some(Self {
            run: run.run,
            job: run.job,
            source: first.subject.source().to_owned(),
            policy: run.policy,
            status: run.status(),
            dry_run: run.dry_run,
            cap: run.cap,
            rule: started.rule,
            started_at: run.started_at,
            finished_at: run.finished_at,
            looked_at: listed.looked_at,
            proposed: listed.proposed,
            kept: listed.kept,
            left: listed.left,
            deleted: run.deleted,
            videos_deleted: run.videos_deleted,
            spared: run.spared,
            candidates,
        })
    }
}

impl Candidate {
    fn of(judged: CleanupJudged) -> Self {
        Self {
            live_stream_id: judged.live_stream,
            video_ids: judged.videos,
            proposed: judged.proposed,
            reason: judged.reason,
            outcome: None,
        }
    }
}

fn settle(candidates: &mut [Candidate], settled: CleanupSettled) {
    let CleanupSettled { live_stream, deleted, videos, reason, .. } = settled;
    let is_it = |c: &&mut Candidate| c.proposed && c.live_stream_id == live_stream;
    if let Some(candidate) = candidates.iter_mut().find(is_it) {
        candidate.outcome.get_or_insert(Outcome { deleted, video_ids: videos, reason });
    }
}

/// What is judged by now.
fn so_far(run: Uuid, candidates: &[Candidate]) -> CleanupListed {
    let proposed = candidates.iter().filter(|candidate| candidate.proposed).count() as u64;
    let looked_at = candidates.len() as u64;
    CleanupListed { run, looked_at, proposed, kept: looked_at - proposed, left: 0 }
}
