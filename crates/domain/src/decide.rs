//! `decide`: from a change of state to effects. Pure, and live only: replay never comes here.

use std::time::Duration;

use crate::account::Account;
use crate::announcement::{Announcement, PartNews, QuotaNews, SessionNews};
use crate::call::Call;
use crate::effect::{Effect, Effects, later};
use crate::event::{Bound, Event, RecordedEvent, TimerElapsed};
use crate::ids::{Subject, Timestamp, VideoId};
use crate::limit::{Limit, LimitExceeded, Waiting};
use crate::live_stream::LiveStream;
use crate::plan::WaitFor;
use crate::recording::Part;
use crate::session::{Session, Source, Status};
use crate::state::{Body, State};
use crate::timer::{Policy, TimerKind};
use crate::webhook::VideoStatus;

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
            after.decide(policy, before, event, cause, &mut effects);
        }
        (before, Body::LiveStream(after)) => {
            let before = if let Some(Body::LiveStream(b)) = before { Some(b) } else { None };
            let change = Change { policy, before: before.map(Box::as_ref), event, after, at };
            change.decide(cause, &mut effects);
        }
        (before, Body::Video(after)) => {
            let before = if let Some(Body::Video(b)) = before { Some(b) } else { None };
            after.decide(policy, before, cause, &mut effects);
        }
        (before, Body::Broadcast(after)) => {
            let before = if let Some(Body::Broadcast(b)) = before { Some(b) } else { None };
            after.decide(before, cause, &mut effects);
        }
        (_, Body::Account(Account { .. })) => {}
        (before, Body::Quota(after)) => {
            let before = if let Some(Body::Quota(b)) = before { Some(b) } else { None };
            after.decide(policy, before, (cause, event), at, &mut effects);
        }
        (before, Body::Cleanup(after)) => {
            let before = if let Some(Body::Cleanup(b)) = before { Some(b) } else { None };
            after.decide(before, &mut effects);
        }
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
            Self::announce_parts(before, session, to);
            self.announce_status(before, session, to);
            self.announce_unstable(before, session, to);
            self.announce_wait(before, session, to);
            self.after.tell_quota(cause.subject.source(), before, session, to);
            self.set_grace(before, session, to);
            self.set_steady(before, session, to);
            self.judge_wait(session, to);
            self.judge_videos(session, to);
            self.judge_losses(session, to);
        }
        self.after.return_slot(cause.subject.source(), self.event, to);
        self.bind(cause, to);
        self.settle_cleanup(cause, to);
        self.stop_deletion(to);
        if let Some(call) = self.after.next_call() {
            let limit = self.policy.limits.of_call(self.after.can_do_without(&call));
            to.call(self.after.calls, call, limit);
        }
        self.set_poll(to);
        self.let_go_of_call(to);
    }

    /// A session that shall end does not wait for a call that keeps failing. One that creates is
    /// waited for: what it made would be left behind.
    fn let_go_of_call(&self, to: &mut Effects) {
        let Some(in_flight) = &self.after.in_flight else { return };
        if matches!(in_flight.call, Call::CreateBroadcast { .. }) {
            return;
        }
        let number = self.after.calls;
        if let Event::TimerElapsed(TimerElapsed { timer: TimerKind::Call, generation }) = self.event
            && *generation == number
        {
            return to.cancel(in_flight.intent);
        }
        let ends = |s: &&Session| s.end && self.session_before(s).is_some_and(|b| !b.end);
        let is_earlier = self.before.is_some_and(|b| b.in_flight.is_some());
        if is_earlier && self.after.running().as_ref().is_some_and(ends) {
            to.timer(TimerKind::Call, number, later(self.at, self.policy.settle));
        }
    }

    fn news(&self, session: &Session, note: Option<String>) -> SessionNews {
        SessionNews {
            session: session.id,
            live_stream: Some(self.after.id),
            account: session.account.clone(),
            note,
            derived: None,
        }
    }

    /// The same of an encoder that came or went: when that was, if no webhook told it.
    fn news_of_encoder(&self, session: &Session, note: Option<String>) -> SessionNews {
        let moment = session.sent.last().map(|sent| sent.to.unwrap_or(sent.from));
        let derived = moment.filter(|moment| moment.source != Source::Webhook);
        SessionNews { derived, ..self.news(session, note) }
    }

    /// Says that a session came to another status.
    fn announce_status(&self, before: Option<&Session>, session: &Session, to: &mut Effects) {
        let was = before.map(|b| b.status);
        if was == Some(session.status) {
            return;
        }
        let news = |note: Option<String>| self.news(session, note);
        let of_encoder = |note: Option<String>| self.news_of_encoder(session, note);
        // An encoder in a loop would have everybody told of each turn.
        let is_repeated = session.is_unstable() && before.is_some_and(Session::is_unstable);
        let was_shown = before.is_some_and(|b| b.went_live_at.is_some());
        let announcement = match session.status {
            Status::Preparing | Status::Ending => return,
            Status::Ready | Status::Testing if is_repeated => return,
            Status::Ready => Announcement::SessionReady(news(None)),
            Status::Testing => Announcement::SessionTestStarted(of_encoder(None)),
            Status::Live if was_shown => Announcement::SessionResumed(of_encoder(None)),
            Status::Live => Announcement::SessionWentLive(of_encoder(None)),
            Status::Interrupted => Announcement::SessionInterrupted(of_encoder(Some(
                "the encoder's connection was lost: ask the user to start again".to_owned(),
            ))),
            Status::Processing => Announcement::SessionStopped(news(session.end_reason.clone())),
            Status::Failed => {
                let reason = session.failure.as_ref().map(|f| format!("{}: {}", f.call, f.reason));
                Announcement::SessionFailed(news(reason))
            }
            Status::Ended => {
                if session.went_live_at.is_some() && was != Some(Status::Processing) {
                    to.announce(Announcement::SessionStopped(news(session.end_reason.clone())));
                }
                if session.recording.parts.iter().any(|p| p.video.status.is_playable()) {
                    let lacks = session.recording.lacks().join("; ");
                    let note = (!lacks.is_empty()).then(|| format!("incomplete: {lacks}"));
                    to.announce(Announcement::RecordingReady(news(note)));
                }
                Announcement::SessionEnded(news(session.end_reason.clone()))
            }
        };
        to.announce(announcement);
    }

    /// Says that the encoder reconnects again and again, once until it has sent steadily.
    fn announce_unstable(&self, before: Option<&Session>, session: &Session, to: &mut Effects) {
        if session.is_unstable() && !before.is_some_and(Session::is_unstable) {
            let note = "it reconnects again and again: the show and its recording are resumed when \
                        it has sent steadily";
            to.announce(Announcement::SessionUnstable(self.news(session, Some(note.to_owned()))));
        }
    }

    /// Says that parts can be played, are overdue, or are gone, once for each.
    fn announce_parts(before: Option<&Session>, session: &Session, to: &mut Effects) {
        let parts_before = before.map(|b| b.recording.parts.as_slice()).unwrap_or_default();
        for (n, part) in session.recording.parts.iter().enumerate() {
            let was = parts_before.iter().find(|p| p.video.id == part.video.id);
            let news = || PartNews {
                session: session.id,
                part: n + 1,
                video: part.video.id,
                status: part.video.status.name().to_owned(),
                duration_ms: part.video.duration_ms,
                account: session.account.clone(),
            };
            if part.was_playable && !was.is_some_and(|p| p.was_playable) {
                to.announce(Announcement::RecordingPartReady(news()));
            }
            if part.overdue && !was.is_some_and(|p| p.overdue) {
                to.announce(Announcement::RecordingPartOverdue(news()));
            }
            let is_deleted = |p: &Part| p.video.status == VideoStatus::Deleted;
            if is_deleted(part) && !was.is_some_and(is_deleted) {
                to.announce(Announcement::RecordingPartDeleted(news()));
            }
        }
    }

    /// Finds that what a session waits for has not come in time.
    fn judge_wait(&self, session: &Session, to: &mut Effects) {
        // A slot that is granted has come, whatever becomes of it.
        let is_over = |w: &Waiting| w.what == Limit::Slot && !session.lacks_slot();
        let Some(waiting) = session.waiting.filter(|w| !is_over(w)) else { return };
        let Some(longest) = self.policy.limits.of(waiting.what) else { return };
        if self.at >= later(waiting.since, longest) {
            let (session, limit, since) = (session.id, waiting.what, waiting.since);
            to.limit_exceeded(LimitExceeded { session, limit, since, videos: Vec::new() });
        }
    }

    /// Finds that videos have not come to their final state in time.
    fn judge_videos(&self, session: &Session, to: &mut Effects) {
        let Some(longest) = self.policy.limits.of(Limit::Videos) else { return };
        let late = session.recording.parts.iter().filter_map(|part| {
            let since = part.since.filter(|_| !part.is_final() && !part.overdue)?;
            (self.at >= later(since, longest)).then_some((since, part.video.id))
        });
        let (since, videos): (Vec<Timestamp>, Vec<VideoId>) = late.unzip();
        if let Some(since) = since.into_iter().min() {
            let (session, limit) = (session.id, Limit::Videos);
            to.limit_exceeded(LimitExceeded { session, limit, since, videos });
        }
    }

    /// Finds that the encoder has been lost too often within too short a time.
    fn judge_losses(&self, session: &Session, to: &mut Effects) {
        let Some(window) = self.policy.limits.of(Limit::Losses) else { return };
        let Some((since, last)) = session.losses.span() else { return };
        if !session.is_unstable() && last <= later(since, window) {
            let (session, limit) = (session.id, Limit::Losses);
            to.limit_exceeded(LimitExceeded { session, limit, since, videos: Vec::new() });
        }
    }

    /// Says that a session waits for a slot, once for each place in the queue that it is told.
    fn announce_wait(&self, before: Option<&Session>, session: &Session, to: &mut Effects) {
        let place = session.slot.place;
        if place.is_some() && before.and_then(|b| b.slot.place) != place {
            to.announce(Announcement::QuotaWaiting(QuotaNews {
                session: session.id,
                live_stream: Some(self.after.id),
                account: session.account.clone(),
                note: session.waits_for_slot.clone(),
                place,
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

    /// Gives an encoder that came back in a loop time to show that it is steady.
    fn set_steady(&self, before: Option<&Session>, session: &Session, to: &mut Effects) {
        let was_on_air = self.before.is_some_and(LiveStream::is_on_air);
        let is_due = session.is_unstable() && self.after.is_on_air() && !session.end;
        if is_due && !(was_on_air && before.is_some_and(Session::is_unstable)) {
            to.timer(TimerKind::Steady, session.losses.last, later(self.at, self.policy.steady));
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
            WaitFor::Slot => backed_off(self.policy.slot, wait.polls, 10),
            WaitFor::Release => backed_off(self.policy.watch, wait.polls, 10),
            // A sweep looks at what has a name, a list finds what has none.
            WaitFor::Videos if self.after.awaits_unnamed_video() => {
                backed_off(self.policy.videos, wait.polls, 20)
            }
            WaitFor::Loss | WaitFor::Encoder | WaitFor::Videos | WaitFor::Leftover => {
                self.policy.sweep
            }
            // The platform knows nothing of it: the poll only finds that the limit is exceeded.
            WaitFor::Retry => Duration::MAX,
        };
        let run_at = later(self.at, after);
        let run_at = self.next_limit().map_or(run_at, |limit| limit.min(run_at));
        if run_at < Timestamp::MAX_UTC {
            to.timer(TimerKind::Poll, wait.generation, run_at);
        }
    }

    /// When the next limit of a wait is exceeded that is not yet: somebody has to find it so.
    fn next_limit(&self) -> Option<Timestamp> {
        let limits = &self.policy.limits;
        let ends = |since: Timestamp, what| limits.of(what).map(|limit| later(since, limit));
        let of_session = |session: &Session| {
            let wait = session.waiting.and_then(|wait| ends(wait.since, wait.what));
            let parts = session.recording.parts.iter().filter(|p| !p.is_final() && !p.overdue);
            let part = parts.filter_map(|part| ends(part.since?, Limit::Videos)).min();
            [wait, part]
        };
        let all = self.after.sessions.iter().flat_map(of_session).flatten();
        all.filter(|limit| *limit > self.at).min()
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

    fn session_before(&self, session: &Session) -> Option<&Session> {
        self.before?.sessions.iter().find(|s| s.id == session.id)
    }
}

mod cleanup;

/// A wait that doubles with each poll in vain, up to `most` times `first`.
pub(crate) fn backed_off(first: Duration, polls: u32, most: u32) -> Duration {
    first.saturating_mul(2_u32.saturating_pow(polls).min(most))
}
