//! State of a live stream: the platform's object as observed, the sessions on it, and the one call
//! in flight. `evolve` is total: an event that fits nothing changes nothing.
//!
//! What a call's outcome means is in [`outcome`], what concerns broadcasts in [`broadcasts`].

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::call::Call;
use crate::event::{CleanupRequested, Event, SessionBound, TimerElapsed};
use crate::ids::{BroadcastId, LiveStreamId, Timestamp, VideoId};
use crate::plan::{WaitFor, Watch};
use crate::recording::Owners;
use crate::session::{Session, Told};
use crate::timer::TimerKind;
use crate::webhook::{
    self, LiveStreamObserved, Observation, Playback, VideoObserved, VideoStatus,
};

mod broadcasts;
mod outcome;
mod slot;

pub use broadcasts::BroadcastDue;

/// How far the platform's clock and ours may differ, and a stop may lag.
pub(crate) const CLOCKS_DIFFER: TimeDelta = TimeDelta::seconds(30);

/// How long the platform may hold a file open for a return: twice what its pages say.
const LONGEST_HOLD: TimeDelta = TimeDelta::minutes(2);

/// Who made a live stream: the part of the ownership tag that matching needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The installation.
    pub installation: Uuid,
    /// The intent.
    pub key: Uuid,
}

/// The call that runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InFlight {
    /// Its id.
    pub intent: Uuid,
    /// What is called.
    pub call: Call,
}

/// A live stream.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, none is a mode")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LiveStream {
    /// Its id.
    pub id: LiveStreamId,
    /// Who made it, by its tag; `None`: not one of ours, or not known.
    pub owner: Option<Owner>,
    /// The product's account of its latest session.
    pub account: Option<String>,
    /// The switch, as last told.
    pub active: Option<bool>,
    /// When it was last told whether an encoder sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told_at: Option<Timestamp>,
    /// When its primary encoder came up last, as an answer told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// Primary ingest runs.
    pub live: bool,
    /// Backup ingest runs.
    pub backup_live: bool,
    /// A recording runs, as last told.
    pub recording: Option<bool>,
    /// Addresses for players.
    pub playback: Option<Playback>,
    /// Since when it has had no session, was not live and not active.
    pub idle_since: Option<Timestamp>,
    /// It was deleted.
    pub deleted: bool,
    /// Platform calls made for it.
    pub calls: u64,
    /// The call that runs.
    pub in_flight: Option<InFlight>,
    /// Its waits, which timers end.
    pub watch: Watch,
    /// It is time to ask the platform.
    pub poll_due: bool,
    /// A sweep saw it otherwise: it is time to ask for the live stream itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub look_due: bool,
    /// Broadcasts that a sweep saw otherwise, by their ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub broadcasts_due: Vec<BroadcastDue>,
    /// Broadcasts that sessions left behind: their deletion was given up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_broadcasts: Vec<BroadcastId>,
    /// The platform was last asked for videos, and not for the live stream.
    pub listed_last: bool,
    /// Losses of the encoder, in all sessions: numbers the grace and steady timers.
    pub interruptions: u64,
    /// Sessions that are not over, in order, and the last that is: of its recording there may be
    /// news for as long as its videos are there.
    pub sessions: Vec<Session>,
    /// Which session a video belongs to, for ever.
    #[serde(with = "crate::recording::owners")]
    pub videos: Owners,
    /// A cleanup run proposed to delete it.
    pub cleanup: Option<CleanupRequested>,
    /// A session ran on it or is to: what else was made for the same is an orphan.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub had_session: bool,
}

impl LiveStream {
    /// A live stream of which nothing is known.
    pub(crate) fn new(id: LiveStreamId) -> Self {
        Self {
            id,
            owner: None,
            account: None,
            active: None,
            told_at: None,
            started_at: None,
            live: false,
            backup_live: false,
            recording: None,
            playback: None,
            idle_since: None,
            deleted: false,
            calls: 0,
            in_flight: None,
            watch: Watch::default(),
            poll_due: false,
            look_due: false,
            broadcasts_due: Vec::new(),
            left_broadcasts: Vec::new(),
            listed_last: false,
            interruptions: 0,
            sessions: Vec::new(),
            videos: Owners::new(),
            cleanup: None,
            had_session: false,
        }
    }

    /// Whether an encoder sends, by either way in: failover is no interruption.
    pub fn is_on_air(&self) -> bool {
        self.live || self.backup_live
    }

    /// The session that has the live stream: the first that is not off air.
    pub fn running(&self) -> Option<&Session> {
        self.sessions.iter().find(|s| !s.is_off_air())
    }

    fn running_mut(&mut self) -> Option<&mut Session> {
        self.sessions.iter_mut().find(|s| !s.is_off_air())
    }

    fn session_mut(&mut self, id: Uuid) -> Option<&mut Session> {
        self.sessions.iter_mut().find(|s| s.id == id)
    }

    /// Applies one event.
    pub(crate) fn evolve(&mut self, event: &Event, at: Timestamp) {
        self.let_sessions_leave();
        match event {
            Event::WebhookReceived(webhook) => {
                // Nothing resurrects it: what is told of it now was on its way.
                if let Observation::LiveStream(seen) = &webhook.observation
                    && !self.deleted
                {
                    self.hear(seen, at);
                }
            }
            Event::SessionBound(bound) => self.bind(bound, at),
            Event::GoLiveRequested(r) => self.command(r.session, Session::command_go_live),
            Event::EndRequested(r) => self.command(r.session, Session::command_end),
            Event::RetryRequested(r) => self.command(r.session, Session::command_retry),
            Event::VideoChanged(changed) => self.video(&changed.video, false),
            Event::BroadcastChanged(changed) => self.broadcast_heard(changed),
            Event::LimitExceeded(exceeded) => {
                if let Some(session) = self.session_mut(exceeded.session) {
                    session.limit_exceeded(exceeded);
                }
            }
            Event::CleanupRequested(request) => {
                if self.cleanup_refusal(request).is_none() {
                    self.cleanup = Some(request.clone());
                }
            }
            // The planner asks once the call in flight, if any, has ended.
            Event::ReconcileRequested(_) => self.poll_due |= !self.deleted,
            Event::SeenOtherwise(seen) => self.seen_otherwise(seen),
            Event::CallIntended(intended) => self.call_intended(intended),
            Event::CallSucceeded(done) => self.call_succeeded(done, at),
            Event::CallFailed(failed) => self.call_failed(failed),
            Event::TimerElapsed(elapsed) => self.timer(*elapsed),
            Event::Slot(slot) => self.slot_told(slot),
            Event::SessionRequested(_)
            | Event::AccountDeleted(_)
            | Event::AccountErased(_)
            | Event::Bound(_)
            | Event::JobCompleted(_)
            | Event::JobDiscarded(_)
            | Event::JobCancelled(_)
            | Event::Cleanup(_)
            | Event::Announced(_)
            | Event::Unrecognized => {}
        }
        self.settle(at);
    }

    /// Derives what follows from the rest.
    fn settle(&mut self, at: Timestamp) {
        let (on_air, deleted) = (self.is_on_air(), self.deleted);
        if let Some(session) = self.running_mut() {
            session.began_at.get_or_insert(at);
            if deleted && !session.end {
                session.fail("observe_live_stream", "the live stream was deleted on the platform");
            }
        }
        self.give_way();
        for session in &mut self.sessions {
            session.settle(on_air, at);
        }
        self.settle_slots();
        let running = self.running().map(|session| session.id);
        for session in &mut self.sessions {
            session.note_waiting(running == Some(session.id), on_air, at);
            if session.is_off_air() {
                session.recording.await_parts(at);
            }
        }
        let idle =
            !on_air && self.active != Some(true) && self.sessions.iter().all(Session::is_over);
        self.idle_since = if idle { self.idle_since.or(Some(at)) } else { None };
        let wait = self.wait_for();
        self.watch.note(wait);
    }

    /// A session that failed and holds nothing gives way to one that waits behind it.
    fn give_way(&mut self) {
        let waits = |s: &Session| !s.end && !s.is_given_up();
        while let Some(at) = self.sessions.iter().position(|s| !s.is_off_air()) {
            let is_waited_for = self.sessions[at + 1..].iter().any(waits);
            if !self.sessions[at].is_given_up() || !is_waited_for {
                return;
            }
            self.sessions[at].close("it failed, and another session waits for its live stream");
        }
    }

    /// Takes out the sessions that no later event touches.
    fn let_sessions_leave(&mut self) {
        let mut n = 0;
        let leaving: Vec<bool> = (0..self.sessions.len()).map(|at| self.leaves(at)).collect();
        self.sessions.retain(|_| {
            n += 1;
            !leaving[n - 1]
        });
    }

    /// Whether the next event takes session `at` out of the state: it is over, and so is a later one.
    pub(crate) fn leaves(&self, at: usize) -> bool {
        let (session, later) = (&self.sessions[at], &self.sessions[at + 1..]);
        session.is_over() && later.iter().any(Session::is_over)
    }

    /// Applies what concerns a session that is not over.
    fn command(&mut self, session: Uuid, apply: impl FnOnce(&mut Session)) {
        if let Some(session) = self.session_mut(session).filter(|session| !session.is_over()) {
            apply(session);
        }
    }

    fn bind(&mut self, bound: &SessionBound, at: Timestamp) {
        if self.sessions.iter().any(|s| s.id == bound.request.session) {
            return;
        }
        self.account.clone_from(&bound.request.account);
        self.cleanup = None;
        self.had_session = true;
        self.leftovers_are_due();
        // Somebody begins anew where the one before cannot go on: that one is over.
        if let Some(before) = self.running_mut()
            && (before.failure.is_some() || before.is_interrupted())
        {
            before.close("another session began on its live stream");
        }
        self.sessions.push(Session::new(bound, at));
        if let Some(observed) = &bound.observed {
            self.observe(&webhook::live_stream(observed), at, true);
        }
    }

    /// Why a proposal to delete the live stream is turned down at once, if it is. The job that
    /// deletes asks the platform besides.
    pub(crate) fn cleanup_refusal(&self, request: &CleanupRequested) -> Option<&'static str> {
        // Recordings outlive their live stream.
        let is_whole = request.videos.is_empty();
        if self.deleted && is_whole {
            Some("it is deleted already")
        } else if !self.sessions.iter().all(Session::is_over) {
            Some("it has an open session")
        } else if self.is_on_air() && is_whole {
            Some("an encoder sends to it")
        } else if self.cleanup.is_some() {
            Some("another cleanup run is deleting it")
        } else {
            None
        }
    }

    /// Applies a webhook. Nothing in it tells when it was sent: before a session on a used live stream
    /// has seen its encoder in an answer, it may tell of the session before, and is a hint to ask.
    fn hear(&mut self, seen: &LiveStreamObserved, at: Timestamp) {
        let is_used = |running: &Session| self.sessions.first().is_some_and(|s| s.id != running.id);
        let may_be_late =
            self.running().is_some_and(|running| is_used(running) && running.sent.is_empty());
        if !may_be_late {
            return self.observe(seen, at, false);
        }
        let differs = |known: bool, told: Option<bool>| told.is_some_and(|told| told != known);
        self.look_due |= differs(self.live, seen.live)
            || differs(self.backup_live, seen.backup_live)
            || differs(self.recording.unwrap_or_default(), seen.recording);
    }

    /// Applies what was told of the platform's object, by an answer or by a webhook.
    fn observe(&mut self, seen: &LiveStreamObserved, at: Timestamp, by_answer: bool) {
        let told = Told { at, before: self.told_at, by_answer };
        if seen.live.is_some() || seen.backup_live.is_some() {
            self.told_at = Some(at);
        }
        if by_answer {
            self.started_at = self.started_at.max(seen.started_at);
        }
        let was_on_air = self.is_on_air();
        let was_recording = self.recording;
        self.active = seen.active.or(self.active);
        self.live = seen.live.unwrap_or(self.live);
        self.backup_live = seen.backup_live.unwrap_or(self.backup_live);
        self.recording = seen.recording.or(self.recording);
        if let Some(tag) = &seen.tag {
            self.owner = Some(Owner { installation: tag.installation, key: tag.key });
        }
        if seen.playback.is_some() {
            self.playback.clone_from(&seen.playback);
        }
        let on_air = self.is_on_air();
        self.interruptions += u64::from(was_on_air && !on_air);
        let number = self.interruptions;
        if let Some(session) = self.running_mut() {
            if on_air != was_on_air {
                session.encoder(on_air, at, number);
            }
            session.recorded(was_recording, seen.recording, on_air);
            let missed = session.sends(on_air, seen, told);
            if missed > 0 {
                session.missed_losses(missed);
            }
        }
    }

    /// Applies what was told of a video, and attaches it to its session: the one that is known for
    /// it, else the one that had the live stream when it was recorded.
    fn video(&mut self, seen: &VideoObserved, by_api: bool) {
        let known = self.videos.get(&seen.id).copied();
        if known.is_none() && !seen.may_be_recording() {
            return;
        }
        let Some(id) = known.or_else(|| self.session_of_file(seen)) else { return };
        self.videos.insert(seen.id, id);
        if let Some(session) = self.session_mut(id) {
            session.recording.part(seen, by_api);
        }
    }

    /// The session of a video that nobody has claimed. What a webhook tells is when its file was closed:
    /// it began so long before as it lasts, or earlier by what the platform held it open for a
    /// return. Where that may have been in the time of another session, a list will tell.
    fn session_of_file(&self, seen: &VideoObserved) -> Option<Uuid> {
        if seen.recording_started_at.is_some() {
            return self.session_at(seen.recording_started_at);
        }
        let latest = seen.began_at();
        let session = self.session_at(latest)?;
        let earliest = latest.map(|latest| latest - LONGEST_HOLD);
        let is_other = |s: &Session| s.id != session && s.began_at.is_some();
        let had_it = |s: &Session| s.off_air_at.is_none_or(|end| earliest.is_none_or(|e| end >= e));
        let began_before = |s: &Session| s.began_at <= latest;
        let is_doubtful = self.sessions.iter().any(|s| is_other(s) && had_it(s) && began_before(s));
        // Of one that is gone no list will tell anything.
        let is_gone = seen.status == VideoStatus::Deleted;
        (latest.is_none() || !is_doubtful || is_gone).then_some(session)
    }

    /// The session of a video that began at `began`: the one that had the live stream then, so that
    /// what somebody recorded by hand between two sessions is no part of either. Without that time
    /// only the one session of a live stream that was made for it is certain: elsewhere the video
    /// may be an earlier one's, and a list of the live stream's videos will tell.
    fn session_at(&self, began: Option<Timestamp>) -> Option<Uuid> {
        let mut holders = self.sessions.iter().rev().filter_map(|s| Some((s, s.began_at?)));
        let (session, _) = match began {
            Some(time) => holders
                .find(|(s, since)| s.created || *since <= time)
                .filter(|(s, _)| s.off_air_at.is_none_or(|end| time - end <= CLOCKS_DIFFER))?,
            None => holders.next().filter(|(s, _)| s.created)?,
        };
        Some(session.id)
    }

    fn timer(&mut self, elapsed: TimerElapsed) {
        match elapsed.timer {
            TimerKind::Poll => {
                match self.watch.now.filter(|_| elapsed.generation == self.watch.number) {
                    Some(WaitFor::Slot) => self.ask_for_slot_again(),
                    Some(WaitFor::Leftover) => self.leftovers_are_due(),
                    now => self.poll_due |= now.is_some(),
                }
            }
            TimerKind::Grace => {
                if !self.is_on_air()
                    && let Some(session) = self.running_mut()
                {
                    session.grace_elapsed(elapsed.generation);
                    // A webhook is a hint: before people are told, the platform is asked.
                    let doubts = session.doubts_loss();
                    self.poll_due |= doubts;
                }
            }
            TimerKind::Steady => {
                if self.is_on_air()
                    && let Some(session) = self.running_mut()
                {
                    session.steady(elapsed.generation);
                }
            }
            // `decide` cancels the call, and its outcome tells. A sweep is a quota's.
            TimerKind::Call | TimerKind::Sweep => {}
        }
    }

    /// The session that `video` belongs to, if it is not over.
    fn session_of(&mut self, video: VideoId) -> Option<&mut Session> {
        let id = self.videos.get(&video).copied()?;
        self.session_mut(id)
    }
}

#[cfg(test)]
mod tests;
