//! State of a live stream: the platform's object as observed, the sessions on it, and the one call
//! in flight. `evolve` is total: an event that fits nothing changes nothing.
//!
//! What a call's outcome means is in [`outcome`], what concerns broadcasts in [`broadcasts`], whose a
//! video is in [`videos`].

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::call::Call;
use crate::event::{CleanupRequested, Event, SessionBound, TimerElapsed};
use crate::ids::{BroadcastId, LiveStreamId, Timestamp};
use crate::plan::{WaitFor, Watch};
use crate::recording::Owners;
use crate::session::{Session, Told};
use crate::timer::TimerKind;
use crate::webhook::{self, LiveStreamObserved, Observation, Playback, VideoObserved};

mod broadcasts;
mod outcome;
mod slot;
mod videos;

pub use broadcasts::BroadcastDue;

/// How far the platform's clock and ours may differ, and a stop may lag.
pub(crate) const CLOCKS_DIFFER: TimeDelta = TimeDelta::seconds(30);

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
    /// Sessions that are not over, in order, and the last that is and had the live stream: of its
    /// recording there may be news for as long as its videos are there.
    pub sessions: Vec<Session>,
    /// Which session a video belongs to, for ever.
    #[serde(with = "crate::recording::owners")]
    pub videos: Owners,
    /// Videos as last told whose session is in doubt: each is asked for once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unclaimed: Vec<VideoObserved>,
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
            unclaimed: Vec::new(),
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
    /// One that never had the live stream is later than none that had: there may be files of this.
    pub(crate) fn leaves(&self, at: usize) -> bool {
        let (session, later) = (&self.sessions[at], &self.sessions[at + 1..]);
        let follows = |s: &Session| s.began_at.is_some() || session.began_at.is_none();
        session.is_over() && later.iter().any(|s| s.is_over() && follows(s))
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
            session.recorded(was_recording, seen.recording, on_air, told);
            let missed = session.sends(on_air, seen, told);
            if missed > 0 {
                session.missed_losses(missed);
            }
        }
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
}

#[cfg(test)]
mod tests;
