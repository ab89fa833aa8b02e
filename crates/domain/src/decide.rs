//! `decide`: from a change of state to effects. Pure, and live only: replay never comes here.

use std::time::Duration;

use chrono::TimeDelta;
use uuid::Uuid;

use crate::account::Account;
use crate::announcement::{Announcement, CleanupNews, PartNews, SessionNews};
use crate::call::{Call, CallResult};
use crate::effect::{Effect, Effects};
use crate::event::{Bound, Event, RecordedEvent};
use crate::ids::{Subject, Timestamp, VideoId};
use crate::live_stream::LiveStream;
use crate::plan::WaitFor;
use crate::session::{Session, Status};
use crate::state::{Body, State};
use crate::timer::{Policy, TimerKind};

/// The effects of `event`, which led from `before` to `after`.
pub fn decide(
    policy: &Policy,
    before: Option<&State>,
    cause: &RecordedEvent,
    event: &Event,
    after: Option<&State>,
) -> Vec<Effect> {
    let Some(after) = after else { return Vec::new() };
    let at = after.at;
    let mut effects = Effects::of(cause, at);
    match (before.map(|b| &b.body), &after.body) {
        (before, Body::Request(after)) => {
            let before = if let Some(Body::Request(b)) = before { Some(b) } else { None };
            after.decide(before, event, cause, &mut effects);
        }
        (before, Body::LiveStream(after)) => {
            let before = if let Some(Body::LiveStream(b)) = before { Some(b) } else { None };
            let change = Change { policy, before, event, after, at };
            change.decide(cause, &mut effects);
        }
        (before, Body::Video(after)) => {
            let before = if let Some(Body::Video(b)) = before { Some(b) } else { None };
            after.decide(before, cause, &mut effects);
        }
        (before, Body::Broadcast(after)) => {
            let before = if let Some(Body::Broadcast(b)) = before { Some(b) } else { None };
            after.decide(before, cause, &mut effects);
        }
        (_, Body::Account(Account { .. })) => {}
    }
    effects.into_list()
}

/// A change of a live stream.
struct Change<'a> {
    policy: &'a Policy,
    before: Option<&'a LiveStream>,
    event: &'a Event,
    after: &'a LiveStream,
    at: Timestamp,
}

impl Change<'_> {
    fn decide(&self, cause: &RecordedEvent, to: &mut Effects) {
        for session in &self.after.sessions {
            let before = self.session_before(session);
            self.announce_status(before, session, to);
            Self::announce_parts(before, session, to);
            self.announce_wait(before, session, to);
            self.set_grace(before, session, to);
        }
        self.bind(cause, to);
        self.announce_cleanup(to);
        if let Some(call) = self.after.next_call() {
            to.call(self.after.calls, call);
        }
        self.set_poll(to);
    }

    /// Says that a session came to another status.
    fn announce_status(&self, before: Option<&Session>, session: &Session, to: &mut Effects) {
        let was = before.map(|b| b.status);
        if was == Some(session.status) {
            return;
        }
        let news = |note: Option<String>| SessionNews {
            session: session.id,
            live_stream: Some(self.after.id),
            account: session.account.clone(),
            note,
        };
        let was_shown = before.is_some_and(|b| b.went_live_at.is_some());
        let announcement = match session.status {
            Status::Preparing | Status::Ending => return,
            Status::Ready => Announcement::SessionReady(news(None)),
            Status::Testing => Announcement::SessionTestStarted(news(None)),
            Status::Live if was_shown => Announcement::SessionResumed(news(None)),
            Status::Live => Announcement::SessionWentLive(news(None)),
            Status::Interrupted => Announcement::SessionInterrupted(news(Some(
                "the encoder's connection was lost: ask the user to start again".to_owned(),
            ))),
            Status::Processing => Announcement::SessionStopped(news(None)),
            Status::Failed => {
                let reason = session.failure.as_ref().map(|f| format!("{}: {}", f.call, f.reason));
                Announcement::SessionFailed(news(reason))
            }
            Status::Ended => {
                if session.went_live_at.is_some() && was != Some(Status::Processing) {
                    to.announce(Announcement::SessionStopped(news(None)));
                }
                if session.recording.parts.iter().any(|p| p.video.status.is_playable()) {
                    to.announce(Announcement::RecordingReady(news(None)));
                }
                Announcement::SessionEnded(news(None))
            }
        };
        to.announce(announcement);
    }

    /// Says that parts can be played, once for each.
    fn announce_parts(before: Option<&Session>, session: &Session, to: &mut Effects) {
        let was_playable = |s: &Session, video: VideoId| {
            s.recording.parts.iter().any(|p| p.video.id == video && p.was_playable)
        };
        for (n, part) in session.recording.parts.iter().enumerate() {
            let video = part.video.id;
            if part.was_playable && !before.is_some_and(|b| was_playable(b, video)) {
                to.announce(Announcement::RecordingPartReady(PartNews {
                    session: session.id,
                    part: n + 1,
                    video,
                    status: part.video.status.name().to_owned(),
                    duration_ms: part.video.duration_ms,
                    account: session.account.clone(),
                }));
            }
        }
    }

    /// Says that a session waits for a slot, once for each wait.
    fn announce_wait(&self, before: Option<&Session>, session: &Session, to: &mut Effects) {
        if session.lacks_slot() && !before.is_some_and(Session::lacks_slot) {
            to.announce(Announcement::QuotaWaiting(SessionNews {
                session: session.id,
                live_stream: Some(self.after.id),
                account: session.account.clone(),
                note: session.waits_for_slot.clone(),
            }));
        }
    }

    /// Gives a lost encoder its grace period.
    fn set_grace(&self, before: Option<&Session>, session: &Session, to: &mut Effects) {
        let number = |s: &Session| s.interruption.as_ref().map(|i| i.number);
        if let Some(interruption) = &session.interruption
            && before.and_then(number) != Some(interruption.number)
        {
            let run_at = later(interruption.since, self.policy.grace);
            to.timer(TimerKind::Grace, interruption.number, run_at);
        }
    }

    /// Asks the platform if nothing is heard for long.
    fn set_poll(&self, to: &mut Effects) {
        let Some(wait) = self.after.wait() else { return };
        if self.before.and_then(LiveStream::wait).map(|w| w.generation) == Some(wait.generation) {
            return;
        }
        let after = match wait.what {
            WaitFor::Effect => self.policy.settle,
            WaitFor::Slot => self.policy.slot,
            WaitFor::Loss => self.policy.watch,
            WaitFor::Encoder => backed_off(self.policy.watch, wait.polls),
            WaitFor::Videos => backed_off(self.policy.videos, wait.polls),
        };
        to.timer(TimerKind::Poll, wait.generation, later(self.at, after));
    }

    /// Tells videos and broadcasts which live stream they belong to, where we learnt it first.
    fn bind(&self, cause: &RecordedEvent, to: &mut Effects) {
        let Event::CallSucceeded(_) = self.event else { return };
        let source = cause.subject.source();
        let bound = Event::Bound(Bound { live_stream: self.after.id });
        for session in &self.after.sessions {
            let before = self.session_before(session);
            if let Some(broadcast) = &session.broadcast
                && before.and_then(|b| b.broadcast.as_ref()).map(|b| b.id) != Some(broadcast.id)
            {
                to.forward(Subject::broadcast(source, broadcast.id), &bound, None);
            }
        }
        let is_known = |video: &VideoId| self.before.is_some_and(|b| b.videos.contains_key(video));
        for video in self.after.videos.keys().filter(|video| !is_known(video)) {
            to.forward(Subject::video(source, *video), &bound, None);
        }
    }

    /// Says what became of a cleanup: turned down at once, or the outcome of its call.
    fn announce_cleanup(&self, to: &mut Effects) {
        let (run, deleted, reason) = if let Event::CleanupRequested(request) = self.event {
            let refusal = self.before.and_then(LiveStream::cleanup_refusal);
            let Some(reason) = refusal else { return };
            (request.run, false, reason.to_owned())
        } else {
            let Some(run) = self.deletion_that_ended() else { return };
            (run, self.after.deleted, self.reason_of_outcome())
        };
        let account = self.after.account.clone();
        let news = CleanupNews { run, live_stream: self.after.id, deleted, reason, account };
        to.announce(Announcement::CleanupDone(news));
    }

    /// Why a live stream was kept, else why it was to be deleted.
    fn reason_of_outcome(&self) -> String {
        if let Event::CallFailed(failed) = self.event {
            return failed.reason.clone();
        }
        if let Event::CallSucceeded(done) = self.event
            && let CallResult::Kept { reason } = &done.result
        {
            return reason.clone();
        }
        let request = self.before.and_then(|b| b.cleanup.as_ref());
        request.map(|r| r.reason.clone()).unwrap_or_default()
    }

    /// The cleanup run whose call to delete was in flight before this event and is not now.
    fn deletion_that_ended(&self) -> Option<Uuid> {
        let was = self.before?.in_flight.as_ref()?;
        let Call::DeleteLiveStream { run, .. } = was.call else { return None };
        self.after.in_flight.is_none().then_some(run)
    }

    fn session_before(&self, session: &Session) -> Option<&Session> {
        self.before?.sessions.iter().find(|s| s.id == session.id)
    }
}

/// `wait` after `time`; a time too far away to be written is as good as none.
fn later(time: Timestamp, wait: Duration) -> Timestamp {
    let wait = TimeDelta::from_std(wait).unwrap_or(TimeDelta::MAX);
    time.checked_add_signed(wait).unwrap_or(Timestamp::MAX_UTC)
}

/// A wait that doubles with each poll in vain, up to ten times `first`.
fn backed_off(first: Duration, polls: u32) -> Duration {
    first.saturating_mul(2_u32.saturating_pow(polls).min(10))
}
