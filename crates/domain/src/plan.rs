//! The planner: from what is desired and observed to the next platform call, or to what is waited
//! for. Reads the state alone, so every event, from wherever it comes, leads on from the truth.
//!
//! The order is the platform tutorial's: broadcast pending, live stream active, broadcast live,
//! recording started; recording stopped, broadcast finished, live stream inactive, broadcast
//! deleted; videos fetched when final.
//!
//! Two promises hold in every state: a call whose outcome came in is not made again by that
//! outcome, and a session that is not over has a call due, a call in flight, or a wait. Each wait
//! ends by itself: polls and [sweeps](crate::reconcile) find what webhooks did not tell,
//! [limits](crate::limit) what never comes.

use serde::{Deserialize, Serialize};

use crate::call::Call;
use crate::live_stream::{CLOCKS_DIFFER, LiveStream};
use crate::session::Session;

/// Times the platform is asked whether a stop took effect before the session goes on without.
const MAX_SETTLE_POLLS: u32 = 4;

/// What a live stream waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitFor {
    /// An effect of a call of ours.
    Effect,
    /// A free slot of the account's quota.
    Slot,
    /// The encoder.
    Encoder,
    /// The loss of the encoder, which is on air.
    Loss,
    /// Videos.
    Videos,
    /// Another try to free a slot: the call for it was given up.
    Release,
    /// Another try to delete a broadcast that a session left behind: the call for it was given up.
    Leftover,
    /// Somebody who retries or ends a session that failed.
    Retry,
}

/// A wait, to be ended by a poll if nothing is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// What for.
    pub what: WaitFor,
    /// Which one: each poll ends a wait and opens a new one.
    pub generation: u64,
    /// Times the platform was asked for the same before.
    pub polls: u32,
}

/// Counts the waits of a live stream, so that each timer belongs to one of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// What is waited for now; `None`: a call is due or in flight, or nothing can be missed.
    pub now: Option<WaitFor>,
    /// What was waited for last.
    pub last: Option<WaitFor>,
    /// Waits so far.
    pub number: u64,
    /// Times the platform was asked since a call of ours changed something, or since something
    /// else is waited for.
    pub polls: u32,
}

impl Watch {
    /// Notes what is waited for after an event.
    pub(crate) fn note(&mut self, now: Option<WaitFor>) {
        if now.is_some() && now != self.now {
            self.number += 1;
            if now != self.last {
                self.polls = 0;
            }
            self.last = now;
        }
        self.now = now;
    }
}

impl LiveStream {
    /// The next call, if one is to be made now. At most one is in flight.
    pub fn next_call(&self) -> Option<Call> {
        if self.in_flight.is_some() {
            return None;
        }
        if self.look_due {
            return Some(Call::ObserveLiveStream { live_stream: self.id });
        }
        if self.poll_due {
            return Some(self.poll_call());
        }
        if let Some(look) = self.broadcast_look() {
            return Some(look);
        }
        let running = self.running().and_then(|session| self.session_call(session));
        running
            .or_else(|| self.video_call())
            .or_else(|| self.probe_call())
            .or_else(|| self.left_broadcast_call())
            .or_else(|| self.cleanup_call())
    }

    /// Whether `call` is given up soon, since all goes on without it: it only asks, or takes a
    /// session off air.
    pub(crate) fn can_do_without(&self, call: &Call) -> bool {
        call.is_read() || self.running().is_some_and(|session| session.end)
    }

    /// What it waits for, if anything may be missed by waiting only for webhooks.
    pub fn wait(&self) -> Option<Wait> {
        let Watch { now, number, polls, .. } = self.watch;
        now.map(|what| Wait { what, generation: number, polls })
    }

    /// What is to be waited for in this state.
    pub(crate) fn wait_for(&self) -> Option<WaitFor> {
        if self.in_flight.is_some() || self.next_call().is_some() {
            return None;
        }
        let running = self.running().and_then(|session| self.waits(session));
        running.or_else(|| self.waits_for_videos().then_some(WaitFor::Videos)).or_else(|| {
            // Whatever becomes of the live stream: the platform keeps its broadcasts.
            (!self.left_broadcasts.is_empty()).then_some(WaitFor::Leftover)
        })
    }

    /// The call of the session that has the live stream.
    fn session_call(&self, session: &Session) -> Option<Call> {
        if session.failure.is_some() {
            self.release_call(session)
        } else if session.end {
            self.end_call(session)
        } else {
            self.prepare_call(session).or_else(|| self.show_call(session))
        }
    }

    /// Makes the session's objects and lets the encoder in.
    fn prepare_call(&self, session: &Session) -> Option<Call> {
        let live_stream = self.id;
        if !session.dvr_cleared {
            Some(Call::ClearDvr { live_stream })
        } else if !session.configured {
            let (name, options) = (session.name.clone(), session.options.clone());
            Some(Call::UpdateLiveStream { live_stream, name, options })
        } else if session.broadcast.is_none() {
            Some(self.broadcast_call(session, false))
        } else if !session.activated && session.slot.granted {
            Some(Call::ActivateLiveStream { live_stream })
        } else {
            None
        }
    }

    /// Makes the session's broadcast, or only looks for what earlier calls made.
    fn broadcast_call(&self, session: &Session, only_look: bool) -> Call {
        let (name, earlier) = (session.name.clone(), session.broadcasts_given_up.clone());
        Call::CreateBroadcast { live_stream: self.id, name, earlier, only_look }
    }

    /// Stops the session's recording. Its file began after those that are known.
    fn stop_call(&self, session: &Session) -> Call {
        let since = session.recording.known_until().or(session.began_at);
        Call::StopRecording { live_stream: self.id, since: since.map(|at| at - CLOCKS_DIFFER) }
    }

    /// Shows and records what the encoder sends, or pauses the show while it sends nothing.
    fn show_call(&self, session: &Session) -> Option<Call> {
        let live_stream = self.id;
        let broadcast = session.open_broadcast()?.id;
        let set = |status: &str| Call::SetBroadcastStatus { broadcast, status: status.to_owned() };
        let recording = &session.recording;
        if self.is_on_air() && (session.go_live || session.went_live_at.is_some()) {
            // The circuit breaker of an encoder that reconnects in a loop: the show is neither
            // resumed nor recorded anew until it sends steadily.
            if session.is_unstable() {
                return None;
            }
            if !session.shows("live") && !session.label_by_hand {
                return Some(set("live"));
            }
            let start = session.options.record && recording.wants_start(self.recording);
            return start.then_some(Call::StartRecording { live_stream });
        }
        if session.is_interrupted() {
            // The platform may hold the file open for a return: the part ends here.
            if recording.wants_stop(self.recording) {
                return Some(self.stop_call(session));
            }
            // What somebody else set may have come late: then it shows `live` still.
            return (session.shows("live") || session.label_by_hand).then(|| set("paused"));
        }
        None
    }

    /// Takes the session off air. What cannot be undone waits until its cause is confirmed.
    fn end_call(&self, session: &Session) -> Option<Call> {
        let live_stream = self.id;
        if !self.deleted && session.recording.wants_stop(self.recording) {
            return Some(self.stop_call(session));
        }
        // What was made by a call that was given up would be left behind.
        if session.has_lost_broadcast() {
            return Some(self.broadcast_call(session, true));
        }
        let open = session.open_broadcast();
        let finished = open.is_some_and(|b| b.status == "finished");
        if !finished && self.waits_for_file(session) {
            return None;
        }
        if let Some(broadcast) = open.filter(|_| !finished) {
            let (broadcast, status) = (broadcast.id, "finished".to_owned());
            return Some(Call::SetBroadcastStatus { broadcast, status });
        }
        if session.activated {
            return Some(Call::DeactivateLiveStream { live_stream });
        }
        if self.waits_for_silence() {
            return None;
        }
        open.map(|b| Call::DeleteBroadcast { broadcast: b.id })
    }

    /// A failed session does not hold a slot of the quota, unless its encoder is sending or may
    /// come back within the grace period.
    fn release_call(&self, session: &Session) -> Option<Call> {
        let live_stream = self.id;
        let lost = session.went_live_at.is_none() || session.is_interrupted();
        if !session.activated || self.is_on_air() || !lost || session.holds_slot_in_vain() {
            None
        } else if session.recording.wants_stop(self.recording) {
            Some(self.stop_call(session))
        } else {
            Some(Call::DeactivateLiveStream { live_stream })
        }
    }

    /// Asks whose a video is, for the final state of videos, then for any that were missed.
    fn video_call(&self) -> Option<Call> {
        let of_sessions = || self.sessions.iter().find_map(|s| s.recording.to_fetch());
        if let Some(video) = self.to_claim().or_else(of_sessions) {
            return Some(Call::FetchVideo { video });
        }
        let list = self.sessions.iter().any(|s| s.is_off_air() && s.recording.wants_list());
        list.then_some(Call::ListVideos { live_stream: self.id })
    }

    /// Asks the statistics about what nobody told; they are deleted with the live stream.
    fn probe_call(&self) -> Option<Call> {
        let doubt = self.sessions.iter().find_map(|s| s.doubt).filter(|_| !self.deleted)?;
        let live_stream = self.id;
        Some(Call::ProbeLiveStream { live_stream, from: doubt.from, to: doubt.to })
    }

    /// Deletes what a cleanup run proposed, if nothing came between.
    fn cleanup_call(&self) -> Option<Call> {
        let all_over = self.sessions.iter().all(Session::is_over);
        let request = self.cleanup.as_ref().filter(|_| all_over)?;
        let (live_stream, run, made_before) = (self.id, request.run, request.made_before);
        if !request.videos.is_empty() {
            let videos = request.videos.clone();
            return Some(Call::DeleteRecordings { live_stream, run, videos, made_before });
        }
        let (delete_recordings, policy) = (request.delete_recordings, request.policy);
        Some(Call::DeleteLiveStream { live_stream, run, delete_recordings, policy, made_before })
    }

    /// Whether the file of a stopped recording has not shown itself: its flag still set, or its
    /// video not heard of. Finishing the broadcast cannot be undone, so it waits.
    fn waits_for_file(&self, session: &Session) -> bool {
        let recording = &session.recording;
        let open = recording.stopping && self.recording == Some(true);
        (open || recording.awaits_part())
            && session.activated
            && self.watch.polls < MAX_SETTLE_POLLS
    }

    /// Whether the encoder is still said to send after the live stream was deactivated: `live`
    /// lags behind `active`.
    fn waits_for_silence(&self) -> bool {
        self.is_on_air() && self.watch.polls < MAX_SETTLE_POLLS
    }

    fn waits(&self, session: &Session) -> Option<WaitFor> {
        if session.lacks_slot() {
            return Some(WaitFor::Slot);
        }
        if session.holds_slot_in_vain() {
            return Some(WaitFor::Release);
        }
        if session.failure.is_none() && (session.end || session.recording.starting) {
            return Some(WaitFor::Effect);
        }
        let encoder = if self.is_on_air() { WaitFor::Loss } else { WaitFor::Encoder };
        let otherwise = session.failure.as_ref().map(|_| WaitFor::Retry);
        if session.activated { Some(encoder) } else { otherwise }
    }

    /// Whether a file is waited for that nobody has named yet.
    pub(crate) fn awaits_unnamed_video(&self) -> bool {
        let mut off_air = self.sessions.iter().filter(|session| session.is_off_air());
        off_air.any(|session| session.recording.awaits_unnamed())
    }

    pub(crate) fn waits_for_videos(&self) -> bool {
        self.sessions.iter().any(|s| s.is_off_air() && !s.recording.is_done())
    }

    /// How to ask: a file that is awaited is found by its live stream, all else is told by the
    /// live stream itself. A session that runs and earlier ones with videos take turns.
    fn poll_call(&self) -> Call {
        let live_stream = self.id;
        if self.running().is_some_and(Session::holds_slot_in_vain) {
            return Call::DeactivateLiveStream { live_stream };
        }
        let running = self.running();
        // Where nobody waits for videos the live stream itself was asked about.
        if running.is_none() && !self.waits_for_videos() {
            return Call::ObserveLiveStream { live_stream };
        }
        let lists = running.is_none_or(|session| {
            if session.doubts_loss() {
                false
            } else if session.end {
                self.recording != Some(true) && session.recording.awaits_part()
            } else {
                self.waits_for_videos() && !self.listed_last
            }
        });
        if lists {
            Call::ListVideos { live_stream }
        } else {
            Call::ObserveLiveStream { live_stream }
        }
    }
}

#[cfg(test)]
mod tests;
