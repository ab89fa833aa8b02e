//! What the outcome of a platform call means for a live stream and the session it was made for.
//!
//! Every outcome of every call leads on: whatever the platform answers, the planner does not name
//! the same call again because of it. Not its job: which call comes next.

use chrono::TimeDelta;
use serde_json::Value;
use uuid::Uuid;

use super::{InFlight, LiveStream};
use crate::call::{Call, CallResult};
use crate::event::{CallFailed, CallIntended, CallSucceeded};
use crate::ids::{Timestamp, VideoId};
use crate::session::{Doubt, Session};
use crate::webhook::{self, LiveStreamObserved, VideoObserved, VideoStatus};

impl LiveStream {
    /// Applies that a call was decided.
    pub(super) fn call_intended(&mut self, intended: &CallIntended) {
        self.poll_due = false;
        let call = intended.call.clone();
        // Another call leaves the question open.
        self.look_due &= !matches!(call, Call::ObserveLiveStream { .. });
        if !call.is_read()
            && let Some(session) = self.running_mut()
        {
            session.calling = true;
        }
        self.in_flight = Some(InFlight { intent: intended.intent, call });
    }

    /// Takes the call in flight, if `intent` is its id, with the session it was made for.
    fn take_call(&mut self, intent: Uuid) -> Option<(Call, Option<Uuid>)> {
        let call = self.in_flight.take_if(|c| c.intent == intent)?.call;
        self.calls += 1;
        self.watch.polls = if call.is_read() { self.watch.polls.saturating_add(1) } else { 0 };
        self.listed_last = matches!(call, Call::ListVideos { .. });
        let caller = self.running().map(|session| session.id);
        for session in &mut self.sessions {
            session.calling = false;
        }
        Some((call, caller))
    }

    fn on(&mut self, session: Option<Uuid>, apply: impl FnOnce(&mut Session)) {
        if let Some(session) = session.and_then(|id| self.session_mut(id)) {
            apply(session);
        }
    }

    /// Applies that a call was given up.
    pub(super) fn call_failed(&mut self, failed: &CallFailed) {
        let Some((call, caller)) = self.take_call(failed.intent) else { return };
        let reason = failed.reason.as_str();
        match &call {
            Call::DeleteLiveStream { .. } | Call::DeleteRecordings { .. } => self.cleanup = None,
            Call::FetchVideo { video } => {
                self.claimed_at_last(*video);
                if let Some(session) = self.session_of(*video) {
                    session.call_failed(&call, reason);
                }
            }
            // What is known without has to do.
            Call::ProbeLiveStream { .. } => self.probed_in_vain(),
            Call::ListVideos { .. } => {
                self.list_failed();
                let last = self.sessions.last().map(|s| s.id);
                self.on(caller.or(last), |s| s.call_failed(&call, reason));
            }
            Call::ObserveBroadcast { broadcast } => {
                self.broadcast_look_ended(*broadcast);
            }
            Call::DeleteBroadcast { broadcast } => self.broadcast_left(*broadcast, &call, reason),
            Call::CreateBroadcast { only_look: true, .. } => self.on(caller, |s| {
                s.no_broadcast_lost();
                s.call_failed(&call, reason);
            }),
            Call::CreateBroadcast { .. } => self.on(caller, |s| {
                s.broadcasts_given_up.push(failed.intent);
                s.call_failed(&call, reason);
            }),
            Call::CreateLiveStream { .. }
            | Call::UpdateLiveStream { .. }
            | Call::ClearDvr { .. }
            | Call::ActivateLiveStream { .. }
            | Call::DeactivateLiveStream { .. }
            | Call::SetBroadcastStatus { .. }
            | Call::StartRecording { .. }
            | Call::StopRecording { .. }
            | Call::ObserveQuota { .. } => self.on(caller, |s| s.call_failed(&call, reason)),
            Call::ObserveLiveStream { .. } => self.on(caller, |s| {
                s.call_failed(&call, reason);
                s.loss_asked_in_vain();
            }),
        }
    }

    /// Applies that a call was made.
    pub(super) fn call_succeeded(&mut self, done: &CallSucceeded, at: Timestamp) {
        let Some((call, caller)) = self.take_call(done.intent) else { return };
        let result = &done.result;
        if matches!(result, CallResult::Gone) {
            return self.gone(&call, caller);
        }
        let mut seen = live_stream_of(result);
        if let Call::ObserveLiveStream { .. } = call {
            self.assume_stopped(&mut seen);
        }
        if let CallResult::LiveStream { .. } = result {
            self.observe(&seen, at, true);
        }
        match &call {
            Call::CreateLiveStream { .. } | Call::ObserveQuota { .. } => {}
            Call::ProbeLiveStream { from, to, .. } => {
                self.probed(Doubt { from: *from, to: *to }, result);
            }
            Call::UpdateLiveStream { .. } => self.on(caller, |s| s.configured = true),
            Call::ClearDvr { .. } => self.on(caller, |s| s.dvr_cleared = true),
            Call::CreateBroadcast { only_look, .. } => {
                let created = broadcast_of(result).and_then(webhook::broadcast);
                self.on(caller, |s| {
                    // Whatever was found, it is not looked for again.
                    s.no_broadcast_lost();
                    if created.is_some() || !only_look {
                        s.broadcast_created(created);
                    }
                });
            }
            Call::ActivateLiveStream { .. } => self.activated(caller, result, &seen),
            Call::DeactivateLiveStream { .. } => self.deactivated(&call, caller, &seen),
            Call::SetBroadcastStatus { status, .. } => {
                self.on(caller, |s| s.broadcast_shows(status));
            }
            Call::StartRecording { .. } => {
                if self.is_on_air() || !matches!(result, CallResult::LiveStream { .. }) {
                    self.on(caller, |s| s.recording_started(result));
                } else {
                    // The encoder was gone. A start whose answer was lost may have begun a file.
                    self.on(caller, |s| s.recording.may_have_run = true);
                }
            }
            Call::StopRecording { .. } => self.recording_stopped(caller, result),
            Call::DeleteBroadcast { broadcast } => self.broadcast_deleted(*broadcast),
            Call::ObserveBroadcast { broadcast } => self.broadcast_looked(*broadcast, result),
            Call::ObserveLiveStream { .. } => self.looked(caller, &seen),
            Call::ListVideos { .. } => self.listed(result),
            Call::FetchVideo { video } => self.fetched(*video, result),
            Call::DeleteLiveStream { .. } => {
                self.cleanup = None;
                self.deleted |= matches!(result, CallResult::Deleted { .. });
                self.recordings_gone(result.deleted_videos());
            }
            Call::DeleteRecordings { .. } => {
                self.cleanup = None;
                self.recordings_gone(result.deleted_videos());
            }
        }
    }

    /// The platform may have no slot free, and say so, or accept the activation and leave the live
    /// stream inactive.
    fn activated(&mut self, caller: Option<Uuid>, result: &CallResult, seen: &LiveStreamObserved) {
        let refused = if let CallResult::Deferred { reason } = result {
            Some(reason.as_str())
        } else {
            (seen.active == Some(false)).then_some("the platform left it inactive")
        };
        if let Some(reason) = refused {
            return self.on(caller, |s| s.slot_refused(reason));
        }
        self.active = Some(true);
        if !self.is_on_air() {
            // Without an encoder nothing is recorded: what an earlier session left is over.
            self.recording = Some(false);
        }
        self.on(caller, |s| {
            s.activated = true;
            s.waits_for_slot = None;
            s.slot.place = None;
        });
    }

    fn deactivated(&mut self, call: &Call, caller: Option<Uuid>, seen: &LiveStreamObserved) {
        if seen.active == Some(true) {
            return self.on(caller, |s| s.call_failed(call, "the platform left it active"));
        }
        self.active = Some(false);
        self.on(caller, Session::deactivated);
    }

    /// The video that a stop of ours returned belongs to the session that made the call. Without
    /// one, a recording that ran may still become a video.
    fn recording_stopped(&mut self, caller: Option<Uuid>, result: &CallResult) {
        let was_running = self.recording == Some(true);
        if let CallResult::Videos { observed } = result {
            // The answer was lost, and these videos were found instead: parts, each as it is.
            self.on(caller, |s| s.recording.stopped(was_running, None));
            observed.iter().filter_map(webhook::video).for_each(|video| self.video(&video, true));
            return;
        }
        let video = if let CallResult::RecordingStopped { video: Some(video) } = result {
            webhook::video(video)
        } else {
            None
        };
        // A part has one session for ever, whatever a stop returns.
        let is_free = |id: &VideoId| self.videos.get(id).is_none_or(|owner| Some(*owner) == caller);
        let video = video.filter(|video| is_free(&video.id));
        if let Some(video) = video.as_ref().filter(|video| self.is_of_another(caller, video)) {
            // The platform held the file of the session before open, and the stop closed that.
            self.on(caller, |s| s.recording.stopped_another());
            let named = VideoObserved { status: VideoStatus::Unknown, ..video.clone() };
            return self.video(&named, false);
        }
        self.on(caller, |s| s.recording.stopped(was_running, video.as_ref()));
        if let (Some(video), Some(session)) = (video, caller) {
            self.videos.entry(video.id).or_insert(session);
        }
    }

    /// Not every answer tells the recording flag: some time after a stop it is taken as cleared.
    fn assume_stopped(&self, seen: &mut LiveStreamObserved) {
        let stopping = self.running().is_some_and(|s| s.recording.stopping);
        if stopping && seen.recording.is_none() {
            seen.recording = Some(false);
        }
    }

    /// Applies what the statistics tell of a doubt.
    fn probed(&mut self, doubt: Doubt, result: &CallResult) {
        let CallResult::AirTimes { times, precision_s } = result else {
            return self.probed_in_vain();
        };
        let step = TimeDelta::seconds(i64::try_from(*precision_s).unwrap_or(i64::from(i32::MAX)));
        let of_doubt = |s: &&mut Session| s.doubt == Some(doubt);
        if let Some(session) = self.sessions.iter_mut().find(of_doubt) {
            session.air_times(doubt, times, step);
        }
    }

    fn probed_in_vain(&mut self) {
        self.sessions.iter_mut().for_each(|session| session.doubt = None);
    }

    /// After asking how the live stream is: a recording that should run and does not, or a live
    /// stream that somebody else switched off.
    fn looked(&mut self, caller: Option<Uuid>, seen: &LiveStreamObserved) {
        let on_air = self.is_on_air();
        self.on(caller, |session| {
            if !on_air {
                session.loss_told();
            }
            if session.recording.starting && seen.recording != Some(true) {
                session.recording.start_had_no_effect();
            }
            if seen.active == Some(false) && session.activated {
                session.switched_off();
            }
        });
    }

    /// Applies the list of the live stream's videos. A part that it lacks is asked for by itself:
    /// a list proves no absence.
    fn listed(&mut self, result: &CallResult) {
        let CallResult::Videos { observed } = result else { return self.list_failed() };
        let videos: Vec<_> = observed.iter().filter_map(webhook::video).collect();
        for video in &videos {
            self.video(video, true);
        }
        for session in &mut self.sessions {
            let off_air = session.is_off_air();
            let in_doubt = session.may_lack_end();
            session.recording.listed(off_air, in_doubt, |id| videos.iter().any(|v| v.id == id));
        }
    }

    fn list_failed(&mut self) {
        let off_air = |s: &&mut Session| s.is_off_air();
        self.sessions.iter_mut().filter(off_air).for_each(|s| s.recording.list_failed());
    }

    /// The object of `call` does not exist any more.
    fn gone(&mut self, call: &Call, caller: Option<Uuid>) {
        match call {
            Call::FetchVideo { video } => {
                self.claimed_at_last(*video);
                self.recordings_gone(&[*video]);
            }
            Call::UpdateLiveStream { .. }
            | Call::ActivateLiveStream { .. }
            | Call::DeactivateLiveStream { .. }
            | Call::ObserveLiveStream { .. }
            | Call::DeleteLiveStream { .. } => self.deleted_elsewhere(caller),
            Call::ClearDvr { .. } => self.on(caller, |s| s.dvr_cleared = true),
            Call::SetBroadcastStatus { broadcast, .. } | Call::ObserveBroadcast { broadcast } => {
                self.broadcast_not_found(*broadcast, call);
            }
            Call::DeleteBroadcast { broadcast } => self.broadcast_deleted(*broadcast),
            Call::StopRecording { .. } => self.on(caller, |s| s.recording.stopped(false, None)),
            Call::ListVideos { .. } => self.list_failed(),
            Call::ProbeLiveStream { .. } => self.probed_in_vain(),
            Call::DeleteRecordings { .. } => self.cleanup = None,
            Call::CreateBroadcast { only_look: true, .. } => {
                self.on(caller, Session::no_broadcast_lost);
            }
            Call::CreateLiveStream { .. }
            | Call::CreateBroadcast { .. }
            | Call::StartRecording { .. }
            | Call::ObserveQuota { .. } => {
                self.on(caller, |s| s.call_failed(call, "the platform does not know its object"));
            }
        }
    }

    /// The live stream does not exist: nothing is sent, recorded or switched on.
    fn deleted_elsewhere(&mut self, caller: Option<Uuid>) {
        self.deleted = true;
        self.look_due = false;
        self.cleanup = None;
        self.active = Some(false);
        self.live = false;
        self.backup_live = false;
        self.recording = Some(false);
        self.on(caller, |session| {
            session.recording.may_have_run |= session.activated && !session.created;
            session.deactivated();
            session.recording.starting = false;
        });
    }
}

/// What an answer tells of the live stream: nothing, if it is about something else.
fn live_stream_of(result: &CallResult) -> LiveStreamObserved {
    if let CallResult::LiveStream { observed } = result {
        webhook::live_stream(observed)
    } else {
        LiveStreamObserved::default()
    }
}

/// The broadcast in an answer; its body may be empty.
fn broadcast_of(result: &CallResult) -> Option<&Value> {
    if let CallResult::Broadcast { observed } = result { Some(observed) } else { None }
}
