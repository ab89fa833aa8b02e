//! State of a session: what is desired, what was observed, what went wrong.
//!
//! A session is a planner's input, not a script: [`crate::plan`] looks at it and names the next
//! call. It lives in the folded state of its live stream until its last video is final.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::call::{Call, CallResult};
use crate::event::{SessionBound, SessionOptions};
use crate::ids::{BroadcastId, Timestamp};
use crate::limit::Waiting;
use crate::recording::{Part, Recording};
use crate::webhook::BroadcastObserved;

mod air;
mod encoder;
mod sent;
mod slot;
mod wait;

pub use air::Doubt;
pub use encoder::{Interruption, Losses};
pub(crate) use sent::Told;
pub use sent::{Known, Sent, Source};
pub use slot::Slot;

/// Where a session stands, for people and products. Derived from the rest of its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Its objects are being made.
    Preparing,
    /// The encoder may connect.
    Ready,
    /// The encoder sends; the audience does not see it.
    Testing,
    /// On air.
    Live,
    /// The encoder was lost for longer than the grace period.
    Interrupted,
    /// Being taken off air.
    Ending,
    /// Off air; its videos are being processed.
    Processing,
    /// Over.
    Ended,
    /// A call failed for good.
    Failed,
}

impl Status {
    /// All of them, in the order of a session's life.
    pub const ALL: [Self; 9] = [
        Self::Preparing,
        Self::Ready,
        Self::Testing,
        Self::Live,
        Self::Interrupted,
        Self::Ending,
        Self::Processing,
        Self::Ended,
        Self::Failed,
    ];

    /// Its name, as our API writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::Ready => "ready",
            Self::Testing => "testing",
            Self::Live => "live",
            Self::Interrupted => "interrupted",
            Self::Ending => "ending",
            Self::Processing => "processing",
            Self::Ended => "ended",
            Self::Failed => "failed",
        }
    }
}

/// The player-side object of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionBroadcast {
    /// Its id.
    pub id: BroadcastId,
    /// `pending`, `live`, `paused`, `finished`.
    pub status: String,
    /// It was deleted.
    pub deleted: bool,
    /// Lists do not tell it, though it is there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unlisted: bool,
}

/// A call failed for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Which call, by its kind.
    pub call: String,
    /// Why, for people.
    pub reason: String,
}

/// When a session came to a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// The status.
    pub status: Status,
    /// When.
    pub at: Timestamp,
}

/// Problems that are kept: beyond them the same trouble has been told often enough.
const MAX_PROBLEMS: usize = 20;

/// How far a recording begins before the show by the platform's clock, and is still ours.
const BEFORE_SHOW: TimeDelta = TimeDelta::seconds(10);

/// What an encoder may send after its recording was stopped, and what is too short for a video.
const UNRECORDED: TimeDelta = TimeDelta::seconds(15);

/// The call that frees the slot of the quota, by its kind.
const DEACTIVATE: &str = "deactivate_live_stream";

/// Moments that are kept, for an encoder that comes and goes all day.
const MAX_MOMENTS: usize = 200;

/// A session on its live stream.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, none is a mode")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// Its id.
    pub id: Uuid,
    /// The product's account that owns it.
    pub account: Option<String>,
    /// Its name.
    pub name: String,
    /// How it shall run.
    pub options: SessionOptions,
    /// Its live stream was made for it, with its settings.
    pub created: bool,
    /// Desired: on air.
    pub go_live: bool,
    /// Desired: over.
    pub end: bool,
    /// Why it shall be over, where nobody commanded it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_reason: Option<String>,
    /// A call for it is in flight that changes something.
    pub calling: bool,
    /// When it got the live stream for itself.
    pub began_at: Option<Timestamp>,
    /// A reused live stream's rewind window was cleared.
    pub dvr_cleared: bool,
    /// The live stream has its settings.
    pub configured: bool,
    /// Its broadcast.
    pub broadcast: Option<SessionBroadcast>,
    /// Calls to create it that were given up, each of which may have made one all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub broadcasts_given_up: Vec<Uuid>,
    /// Somebody else gave the broadcast its label: it is left alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub label_by_hand: bool,
    /// Why it waits for a slot: in the platform's words, where it was refused one.
    #[serde(default)]
    pub waits_for_slot: Option<String>,
    /// Its part in the queue for slots.
    #[serde(default, skip_serializing_if = "Slot::is_none")]
    pub slot: Slot,
    /// The live stream is active for it.
    pub activated: bool,
    /// When it first went on air.
    pub went_live_at: Option<Timestamp>,
    /// The present interruption.
    pub interruption: Option<Interruption>,
    /// Interruptions so far, short ones included.
    pub interruptions: u64,
    /// Losses of its encoder, also those while the audience did not see it.
    #[serde(default, skip_serializing_if = "Losses::is_empty")]
    pub losses: Losses,
    /// When its encoder sent, in order, on air or not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sent: Vec<Sent>,
    /// A span in which more may have happened: the platform's statistics are asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubt: Option<Doubt>,
    /// What it waits for that may never come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// When nothing was left to do but to follow its videos.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub off_air_at: Option<Timestamp>,
    /// Its recording.
    pub recording: Recording,
    /// The call that failed.
    pub failure: Option<Failure>,
    /// What went wrong without failing it.
    pub problems: Vec<String>,
    /// Where it stands.
    pub status: Status,
    /// How it came there.
    pub moments: Vec<Moment>,
}

impl Session {
    /// The session that `bound` puts on its live stream.
    pub(crate) fn new(bound: &SessionBound, at: Timestamp) -> Self {
        let request = &bound.request;
        Self {
            id: request.session,
            account: request.account.clone(),
            name: request.name.clone(),
            options: request.options.clone(),
            created: bound.created,
            go_live: bound.go_live || request.options.auto_go_live,
            end: bound.end,
            end_reason: None,
            calling: false,
            began_at: None,
            dvr_cleared: bound.created,
            configured: bound.created,
            broadcast: None,
            broadcasts_given_up: Vec::new(),
            label_by_hand: false,
            waits_for_slot: None,
            slot: Slot::default(),
            activated: false,
            went_live_at: None,
            interruption: None,
            interruptions: 0,
            losses: Losses::default(),
            sent: Vec::new(),
            doubt: None,
            waiting: None,
            off_air_at: None,
            recording: Recording::default(),
            failure: None,
            problems: Vec::new(),
            status: Status::Preparing,
            moments: vec![Moment { status: Status::Preparing, at }],
        }
    }

    /// Whether nothing is left to do but to follow its videos.
    pub fn is_off_air(&self) -> bool {
        self.end
            && !self.activated
            && !self.calling
            && !self.has_lost_broadcast()
            && self.broadcast.as_ref().is_none_or(|b| b.deleted)
    }

    /// Whether a call that was to make its broadcast was given up, and may have made one.
    pub(crate) fn has_lost_broadcast(&self) -> bool {
        self.broadcast.is_none() && !self.broadcasts_given_up.is_empty()
    }

    /// Applies that nothing was found of what such calls may have made.
    pub(crate) fn no_broadcast_lost(&mut self) {
        self.broadcasts_given_up.clear();
    }

    /// Whether it had the live stream at some time from `since` to `until`. What was made for it was
    /// nobody's before.
    pub(crate) fn had_it(&self, since: Timestamp, until: Timestamp) -> bool {
        self.began_at.is_some_and(|began| self.created || began <= until)
            && self.off_air_at.is_none_or(|end| end >= since)
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.status == Status::Ended
    }

    /// Commands to show it, whatever somebody else made of its broadcast.
    pub(crate) fn command_go_live(&mut self) {
        self.go_live = true;
        self.label_by_hand = false;
    }

    /// Commands its end; what failed before does not hold it up.
    pub(crate) fn command_end(&mut self) {
        self.end = true;
        self.failure = None;
    }

    /// Commands to try again what failed: the call, and the recording that was refused.
    pub(crate) fn command_retry(&mut self) {
        self.failure = None;
        self.label_by_hand = false;
        self.ask_for_slot_again();
        self.recording.refused = None;
        self.recording.starts = 0;
    }

    /// The broadcast, unless it was deleted.
    pub(crate) fn open_broadcast(&self) -> Option<&SessionBroadcast> {
        self.broadcast.as_ref().filter(|b| !b.deleted)
    }

    /// Whether its broadcast shows `status`.
    pub(crate) fn shows(&self, status: &str) -> bool {
        self.broadcast.as_ref().is_some_and(|b| b.status == status)
    }

    /// Applies what was told of the platform's recording flag.
    pub(crate) fn recorded(
        &mut self,
        before: Option<bool>,
        now: Option<bool>,
        on_air: bool,
        told: Told,
    ) {
        self.recording.flag(before, now, on_air);
        if now == Some(true) && told.by_answer {
            self.recording.running_at = Some(told.at);
        }
        if !on_air && !self.end {
            self.recording.connection_lost();
        }
    }

    /// Applies that the encoder was lost and came back, and nobody told: what it recorded ended with
    /// its connection, not by somebody's hand, and is to be started anew.
    pub(crate) fn missed_losses(&mut self, losses: u64) {
        if self.went_live_at.is_some() {
            self.interruptions += losses;
        }
        if !self.end {
            self.recording.connection_lost();
        }
    }

    /// Applies the label that we gave its broadcast.
    pub(crate) fn broadcast_shows(&mut self, status: &str) {
        self.label_by_hand = false;
        if let Some(broadcast) = self.broadcast.as_mut() {
            status.clone_into(&mut broadcast.status);
        }
    }

    /// Applies a label of its broadcast that the platform told. Another than the one that we gave
    /// it, and are not about to give it, is somebody else's, and respected. Where it only came late
    /// the platform still shows ours, so that leaving it alone is right then too.
    pub(crate) fn broadcast_told(&mut self, status: &str, is_setting: bool) {
        let Some(broadcast) = self.broadcast.as_mut().filter(|b| b.status != status) else {
            return;
        };
        status.clone_into(&mut broadcast.status);
        self.label_by_hand = !is_setting && !self.end && status != "live";
    }

    /// Applies that a broadcast was created.
    pub(crate) fn broadcast_created(&mut self, seen: Option<BroadcastObserved>) {
        let Some(seen) = seen else {
            return self.fail("create_broadcast", "the platform's answer names no broadcast");
        };
        let status = seen.status.unwrap_or_else(|| "pending".to_owned());
        self.broadcast =
            Some(SessionBroadcast { id: seen.id, status, deleted: false, unlisted: false });
    }

    /// Applies that its broadcast was deleted.
    pub(crate) fn broadcast_deleted(&mut self) {
        if let Some(broadcast) = self.broadcast.as_mut() {
            broadcast.deleted = true;
        }
    }

    /// Applies that its broadcast was deleted by somebody else. A session that shall go on needs
    /// another: players that show the old one have to be told, so that is left to a retry.
    pub(crate) fn broadcast_gone(&mut self, call: &str) {
        if self.end {
            return self.broadcast_deleted();
        }
        self.broadcast = None;
        self.fail(call, "the broadcast was deleted on the platform");
    }

    /// Applies that the live stream is inactive, and a failure to make it so is mended.
    pub(crate) fn deactivated(&mut self) {
        self.activated = false;
        self.failure.take_if(|failure| failure.call == DEACTIVATE);
    }

    /// Whether the call that was to free its slot was given up: it is made again until it works.
    pub(crate) fn holds_slot_in_vain(&self) -> bool {
        self.activated && self.failure.as_ref().is_some_and(|f| f.call == DEACTIVATE)
    }

    /// Applies that somebody else deactivated the live stream.
    pub(crate) fn switched_off(&mut self) {
        self.deactivated();
        if self.end {
            self.failure = None;
        } else {
            self.fail("observe_live_stream", "the live stream was deactivated by somebody else");
        }
    }

    /// Whether a file may not be closed yet of which nobody told: one may have run of which nothing at
    /// all was told, a recording ran after the parts that are known, or its encoder sent for longer after the last of them began than that lasts. Files
    /// are cut, and one webhook told is not the last.
    pub(crate) fn may_lack_end(&self) -> bool {
        let is_untold = self.options.record && self.recording.is_untold();
        is_untold || self.recording.outran_parts() || self.outlasted_last_part()
    }

    fn outlasted_last_part(&self) -> bool {
        let began = |part: &&Part| part.video.recording_started_at;
        let Some(last) =
            self.recording.parts.iter().filter(|p| began(p).is_some()).max_by_key(began)
        else {
            return false;
        };
        let (Some(began), Some(ms)) = (began(&last), last.video.duration_ms) else { return false };
        let sent = |sent: &Sent| {
            let to = sent.to.map_or(began, |to| to.at);
            (to - sent.from.at.max(began)).max(TimeDelta::zero())
        };
        let sent: TimeDelta = self.sent.iter().map(sent).sum();
        let recorded = TimeDelta::try_milliseconds(ms).unwrap_or_default();
        self.options.record && sent - recorded > UNRECORDED
    }

    /// Whether somebody else recorded `part`: it began when the session was not to be recorded. We
    /// start to record once it is shown.
    pub(crate) fn is_by_hand(&self, part: &Part) -> bool {
        let before_show = part.video.began_at().zip(self.went_live_at);
        !self.options.record
            || before_show
                .is_some_and(|(began, live)| live.signed_duration_since(began) > BEFORE_SHOW)
    }

    /// Applies the answer to a start of the recording: accepted, or accepted and refused.
    pub(crate) fn recording_started(&mut self, result: &CallResult) {
        match result {
            CallResult::RecordingRefused { errors } => self.refuse_recording(&errors.join("; ")),
            CallResult::RecordingStarted { warnings } => self.recording.started(warnings),
            CallResult::LiveStream { .. }
            | CallResult::Broadcast { .. }
            | CallResult::RecordingStopped { .. }
            | CallResult::Videos { .. }
            | CallResult::Video { .. }
            | CallResult::Gone
            | CallResult::Done
            | CallResult::Deleted { .. }
            | CallResult::RecordingsDeleted { .. }
            | CallResult::Deferred { .. }
            | CallResult::ActiveStreams { .. }
            | CallResult::AirTimes { .. }
            | CallResult::Kept { .. } => self.recording.started(&[]),
        }
    }

    fn refuse_recording(&mut self, reason: &str) {
        self.recording.refused = Some(reason.to_owned());
        self.problem("start_recording", reason);
    }

    /// Notes what went wrong without failing it, once.
    fn problem(&mut self, call: &str, reason: &str) {
        let problem = format!("{call}: {reason}");
        if self.problems.len() < MAX_PROBLEMS && !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// Fails it, unless it failed before: the first reason is the cause of the next.
    pub(crate) fn fail(&mut self, call: &str, reason: &str) {
        if self.failure.is_none() {
            self.failure = Some(Failure { call: call.to_owned(), reason: reason.to_owned() });
        }
    }

    /// Applies that `call` was given up. What the show can go on without is a problem, no failure;
    /// so is what was to prepare a session that shall end.
    pub(crate) fn call_failed(&mut self, call: &Call, reason: &str) {
        match call {
            Call::StartRecording { .. } => return self.refuse_recording(reason),
            Call::DeactivateLiveStream { .. } => {
                let call = call.kind().to_owned();
                self.failure = Some(Failure { call, reason: reason.to_owned() });
                return;
            }
            Call::StopRecording { .. } => self.recording.stopped(true, None),
            Call::SetBroadcastStatus { status, .. } if status != "live" => {
                self.broadcast_shows(status);
            }
            Call::DeleteBroadcast { .. } => self.broadcast_deleted(),
            Call::ClearDvr { .. } => self.dvr_cleared = true,
            Call::FetchVideo { video } => self.recording.fetched(*video),
            Call::ObserveLiveStream { .. }
            | Call::ObserveBroadcast { .. }
            | Call::ListVideos { .. }
            | Call::ProbeLiveStream { .. }
            | Call::ObserveQuota { .. } => {}
            Call::CreateLiveStream { .. }
            | Call::UpdateLiveStream { .. }
            | Call::CreateBroadcast { .. }
            | Call::ActivateLiveStream { .. }
            | Call::SetBroadcastStatus { .. }
            | Call::DeleteLiveStream { .. }
            | Call::DeleteRecordings { .. } => {
                // A last try without an answer may have worked: then there is a slot to free.
                self.activated |= matches!(call, Call::ActivateLiveStream { .. });
                if !self.end {
                    return self.fail(call.kind(), reason);
                }
            }
        }
        self.problem(call.kind(), reason);
    }

    /// Sets the status that follows from the rest; called last for every event.
    pub(crate) fn settle(&mut self, on_air: bool, at: Timestamp) {
        if on_air && self.shows("live") && !self.is_over() {
            self.went_live_at = self.went_live_at.or(Some(at));
            self.interruption = None;
        }
        if let Some(i) = self.interruption.as_mut() {
            i.confirmed |= i.lasts && i.asked;
        }
        if self.is_off_air() {
            self.off_air_at = self.off_air_at.or(Some(at));
        }
        // Webhooks that do not tell of an encoder tell of no recording either.
        let is_unheard = |sent: &Sent| sent.from.source != Source::Webhook;
        self.recording.may_have_run |= self.sent.iter().any(is_unheard);
        let status = self.derive_status(on_air);
        if status != self.status {
            self.status = status;
            if self.moments.len() == MAX_MOMENTS {
                // The first moment, when it was asked for, stays.
                self.moments.remove(1);
            }
            self.moments.push(Moment { status, at });
        }
    }

    fn derive_status(&self, on_air: bool) -> Status {
        if self.is_over() {
            // Whatever is heard later of its recording.
            return Status::Ended;
        }
        if self.is_off_air() {
            return if self.recording.is_done() { Status::Ended } else { Status::Processing };
        }
        if self.failure.is_some() {
            Status::Failed
        } else if self.end {
            Status::Ending
        } else if self.went_live_at.is_some() {
            if self.is_interrupted() { Status::Interrupted } else { Status::Live }
        } else if !self.activated {
            Status::Preparing
        } else if on_air {
            Status::Testing
        } else {
            Status::Ready
        }
    }
}

#[cfg(test)]
mod table;
#[cfg(test)]
mod tests;
