//! What follows when a cleanup of a live stream ends: it is announced, told to its run, and the
//! videos that are gone learn of it.

use uuid::Uuid;

use super::Change;
use crate::announcement::{Announcement, CleanupNews};
use crate::call::{Call, CallResult};
use crate::cleanup::{CleanupEvent, CleanupSettled, VideoDeleted};
use crate::effect::Effects;
use crate::event::{CleanupRequested, Event, RecordedEvent};
use crate::ids::{Subject, VideoId, derived_id};
use crate::live_stream::LiveStream;

impl Change<'_> {
    /// Says what became of a cleanup: turned down at once, overtaken, or the outcome of its call.
    pub(super) fn settle_cleanup(&self, cause: &RecordedEvent, to: &mut Effects) {
        let Some((run, reason)) = self.cleanup_that_ended() else { return };
        let outcome = self.outcome_of_deletion();
        let videos: Vec<VideoId> =
            outcome.map_or_else(Vec::new, |outcome| outcome.deleted_videos().to_vec());
        let was_deleted = self.before.is_some_and(|before| before.deleted);
        let deleted = self.after.deleted && !was_deleted;
        let (live_stream, account) = (self.after.id, self.after.account.clone());
        to.announce(Announcement::CleanupDone(CleanupNews {
            run,
            live_stream,
            deleted,
            reason: reason.clone(),
            videos: videos.clone(),
            account,
        }));
        let source = cause.subject.source();
        for video in &videos {
            let subject = Subject::video(source, *video);
            let key = derived_id("video-deleted", &[subject.as_str()]);
            let gone = Event::Cleanup(CleanupEvent::VideoDeleted(VideoDeleted { run }));
            to.forward(subject, &gone, Some(key));
        }
        let settled = CleanupSettled { run, live_stream, deleted, videos, reason };
        let event = Event::Cleanup(CleanupEvent::Settled(settled));
        to.forward(Subject::cleanup(source, run), &event, None);
    }

    /// A session that comes to a live stream which is being deleted stops that, if it still can.
    pub(super) fn stop_deletion(&self, to: &mut Effects) {
        let Event::SessionBound(_) = self.event else { return };
        if let Some(in_flight) = &self.after.in_flight
            && is_deletion(&in_flight.call)
        {
            to.cancel(in_flight.intent);
        }
    }

    /// The run whose cleanup of this live stream ended with this event, and how.
    fn cleanup_that_ended(&self) -> Option<(Uuid, String)> {
        if let Event::CleanupRequested(request) = self.event {
            let new;
            let before = if let Some(before) = self.before {
                before
            } else {
                new = LiveStream::new(self.after.id);
                &new
            };
            return Some((request.run, before.cleanup_refusal(request)?.to_owned()));
        }
        let before = self.before?;
        if let Some(run) = before.in_flight.as_ref().and_then(|call| run_of(&call.call)) {
            let ended = self.after.in_flight.as_ref().and_then(|call| run_of(&call.call));
            return (ended != Some(run)).then(|| (run, self.reason_of_outcome()));
        }
        let request = before.cleanup.as_ref().filter(|_| self.after.cleanup.is_none())?;
        let is_bound = matches!(self.event, Event::SessionBound(_));
        let why = if is_bound { "a session began on it" } else { "it is gone" };
        Some((request.run, why.to_owned()))
    }

    /// Why a live stream was kept, else why it was to be deleted.
    fn reason_of_outcome(&self) -> String {
        if let Event::CallFailed(failed) = self.event {
            return failed.reason.clone();
        }
        let request = self.before.and_then(|b| b.cleanup.as_ref());
        let reason = |r: &CleanupRequested| r.reason.clone();
        match self.outcome_of_deletion() {
            Some(CallResult::Kept { reason }) => reason.clone(),
            Some(CallResult::RecordingsDeleted { kept, .. }) if !kept.is_empty() => {
                format!("kept: {}", kept.join("; "))
            }
            Some(_) | None => request.map(reason).unwrap_or_default(),
        }
    }

    /// What the call that deletes answered.
    fn outcome_of_deletion(&self) -> Option<&CallResult> {
        if let Event::CallSucceeded(done) = self.event { Some(&done.result) } else { None }
    }
}

/// The run for which a call deletes.
fn run_of(call: &Call) -> Option<Uuid> {
    if let Call::DeleteLiveStream { run, .. } | Call::DeleteRecordings { run, .. } = call {
        Some(*run)
    } else {
        None
    }
}

/// Whether a call deletes for a cleanup run.
fn is_deletion(call: &Call) -> bool {
    run_of(call).is_some()
}
