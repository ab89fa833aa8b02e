//! The broadcasts of a live stream: what is noticed of the one that shows its session, and what
//! becomes of those that sessions left behind. Not its job: setting labels, which is the planner's.

use serde::{Deserialize, Serialize};

use super::LiveStream;
use crate::call::{Call, CallResult};
use crate::event::BroadcastChanged;
use crate::ids::BroadcastId;
use crate::reconcile::BroadcastSigns;
use crate::session::{Session, SessionBroadcast};
use crate::webhook;

/// A broadcast that a sweep saw otherwise, or that was left behind: it is time to ask for it, or to
/// delete it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BroadcastDue {
    /// The broadcast.
    pub broadcast: BroadcastId,
    /// It was not seen at all.
    pub missing: bool,
}

impl LiveStream {
    /// The broadcast that shows the present session, while it is to go on: at its end it is set and
    /// deleted whatever it shows.
    pub fn shown_broadcast(&self) -> Option<BroadcastId> {
        self.shown().map(|broadcast| broadcast.id)
    }

    fn shown(&self) -> Option<&SessionBroadcast> {
        self.running().filter(|session| !session.end)?.open_broadcast()
    }

    /// What a list that tells the broadcasts of this live stream, `told`, says of the one that shows
    /// its session.
    pub fn broadcast_signs(&self, told: &[BroadcastSigns]) -> Option<BroadcastSigns> {
        let shown = self.shown_broadcast()?;
        let sign = told.iter().find(|sign| sign.broadcast == shown).cloned();
        Some(sign.unwrap_or_else(|| BroadcastSigns::missing(shown)))
    }

    /// Whether the broadcast that shows the session is otherwise than it is known.
    pub(crate) fn broadcast_differs(&self, seen: &BroadcastSigns) -> bool {
        let Some(known) = self.shown().filter(|known| known.id == seen.broadcast) else {
            return false;
        };
        let other = seen.status.as_ref().is_some_and(|status| *status != known.status);
        !self.is_setting(seen.broadcast) && (other || seen.missing && !known.unlisted)
    }

    fn is_setting(&self, id: BroadcastId) -> bool {
        let call = self.in_flight.as_ref().map(|running| &running.call);
        matches!(call, Some(Call::SetBroadcastStatus { broadcast, .. }) if *broadcast == id)
    }

    /// The look at the broadcast of the present session, which a sweep saw otherwise.
    pub(crate) fn broadcast_look(&self) -> Option<Call> {
        let shown = self.shown_broadcast().filter(|id| self.is_due(*id));
        shown.map(|broadcast| Call::ObserveBroadcast { broadcast })
    }

    /// Applies that it is time for another try to delete what sessions left behind.
    pub(super) fn leftovers_are_due(&mut self) {
        let due = |broadcast: &BroadcastId| BroadcastDue { broadcast: *broadcast, missing: false };
        self.broadcasts_due.extend(self.left_broadcasts.iter().map(due));
    }

    /// Another try to delete what a session left behind, whether or not its live stream is still
    /// there.
    pub(crate) fn left_broadcast_call(&self) -> Option<Call> {
        let due = self.left_broadcasts.iter().copied().find(|id| self.is_due(*id));
        due.map(|broadcast| Call::DeleteBroadcast { broadcast })
    }

    /// Applies what the platform answers of a broadcast that was asked for. One that a list lacked
    /// and that is there will be missing again in the next one: that says nothing any more.
    pub(super) fn broadcast_looked(&mut self, id: BroadcastId, result: &CallResult) {
        let was_missing = self.broadcast_look_ended(id);
        let CallResult::Broadcast { observed } = result else { return };
        let status = webhook::broadcast(observed).and_then(|seen| seen.status);
        let Some(session) = self.session_with(id) else { return };
        if let Some(broadcast) = session.broadcast.as_mut() {
            broadcast.unlisted |= was_missing;
        }
        if let Some(status) = status {
            session.broadcast_told(&status, false);
        }
    }

    /// Applies that nothing is due for it any more. Returns whether a list had lacked it.
    pub(super) fn broadcast_look_ended(&mut self, id: BroadcastId) -> bool {
        let at = self.broadcasts_due.iter().position(|due| due.broadcast == id);
        at.is_some_and(|at| self.broadcasts_due.remove(at).missing)
    }

    fn is_due(&self, id: BroadcastId) -> bool {
        self.broadcasts_due.iter().any(|due| due.broadcast == id)
    }

    /// Applies that a sweep saw broadcasts otherwise.
    pub(crate) fn broadcasts_seen_otherwise(&mut self, seen: &[BroadcastSigns]) {
        let due = &mut self.broadcasts_due;
        for BroadcastSigns { broadcast, missing, .. } in seen {
            match due.iter_mut().find(|due| due.broadcast == *broadcast) {
                Some(due) => due.missing &= missing,
                None => due.push(BroadcastDue { broadcast: *broadcast, missing: *missing }),
            }
        }
        due.sort_unstable_by_key(|due| due.broadcast);
    }

    /// Applies that a broadcast which was asked for is not there.
    pub(super) fn broadcast_not_found(&mut self, id: BroadcastId, call: &Call) {
        self.broadcast_look_ended(id);
        if let Some(session) = self.session_with(id) {
            session.broadcast_gone(call.kind());
        }
    }

    /// Applies that a broadcast was deleted by us, now or before.
    pub(super) fn broadcast_deleted(&mut self, id: BroadcastId) {
        self.broadcast_look_ended(id);
        self.left_broadcasts.retain(|left| *left != id);
        if let Some(session) = self.session_with(id) {
            session.broadcast_deleted();
        }
    }

    /// Applies that the deletion of a broadcast was given up: the session goes on without, and
    /// it is tried again when another takes the live stream, and while that is at rest.
    pub(super) fn broadcast_left(&mut self, id: BroadcastId, call: &Call, reason: &str) {
        self.broadcast_look_ended(id);
        if self.left_broadcasts.contains(&id) {
            return;
        }
        if let Some(session) = self.session_with(id) {
            session.call_failed(call, reason);
            self.left_broadcasts.push(id);
        }
    }

    /// Applies a label of a broadcast that a webhook told.
    pub(super) fn broadcast_heard(&mut self, changed: &BroadcastChanged) {
        let is_setting = self.is_setting(changed.broadcast);
        if let Some(session) = self.session_with(changed.broadcast) {
            session.broadcast_told(&changed.status, is_setting);
        }
    }

    fn session_with(&mut self, id: BroadcastId) -> Option<&mut Session> {
        let has_it = |s: &&mut Session| s.open_broadcast().is_some_and(|b| b.id == id);
        self.sessions.iter_mut().find(has_it)
    }
}
