//! What a live stream tells the quota of its source: that a session needs a slot, and that it does
//! not any more.
//!
//! Whatever it is granted and does not want it gives back, be the grant late, repeated or for a
//! session that nobody knows: so no slot stays with nobody. Not its job: when a ticket is opened and
//! closed, which [`Session::settle_slot`] knows.

use uuid::Uuid;

use super::LiveStream;
use crate::call::Call;
use crate::effect::Effects;
use crate::event::Event;
use crate::ids::Subject;
use crate::session::Session;
use crate::slot::{SlotEvent, SlotReleased, SlotRequested};

impl LiveStream {
    /// Applies what the quota told; what is not about a live stream changes nothing.
    pub(super) fn slot_told(&mut self, event: &SlotEvent) {
        match event {
            SlotEvent::Granted(told) => {
                self.command(told.session, |s| s.slot_granted(told.ticket));
            }
            SlotEvent::Queued(told) => {
                self.command(told.session, |s| s.slot_queued(told.ticket, told.place));
            }
            SlotEvent::Requested(_) | SlotEvent::Released(_) | SlotEvent::Configured(_) => {}
        }
    }

    /// Opens and closes tickets, as follows from the rest of the state.
    pub(super) fn settle_slots(&mut self) {
        let call = self.in_flight.as_ref().map(|in_flight| &in_flight.call);
        let activating = matches!(call, Some(Call::ActivateLiveStream { .. }));
        let running = self.running().map(|session| session.id).filter(|_| !self.deleted);
        for session in &mut self.sessions {
            let activating = activating && session.calling;
            session.settle_slot(running == Some(session.id), activating);
        }
    }

    /// Asks for the slot that is waited for once more, and lets videos have their turn.
    pub(super) fn ask_for_slot_again(&mut self) {
        if let Some(session) = self.running_mut() {
            session.ask_for_slot_again();
        }
        self.watch.polls = self.watch.polls.saturating_add(1);
        self.watch.now = None;
        self.poll_due |= self.waits_for_videos();
    }

    /// Tells the quota what changed for `session`.
    pub(crate) fn tell_quota(
        &self,
        source: &str,
        before: Option<&Session>,
        session: &Session,
        to: &mut Effects,
    ) {
        let was = before.map(|b| b.slot.clone()).unwrap_or_default();
        let is = &session.slot;
        // Activated by a build that knew no tickets.
        let ends_without =
            before.is_some_and(|b| b.activated && !b.slot.open) && !session.activated && !is.open;
        if was.open && !is.open || ends_without {
            self.release(source, session.id, is.ticket, to);
        }
        if is.open && !is.granted && (is.ticket, is.asks) != (was.ticket, was.asks) {
            let request = SlotRequested {
                session: session.id,
                live_stream: self.id,
                account: session.account.clone(),
                ticket: is.ticket,
                refused: is.refused && is.asks == 1,
                place: is.place,
            };
            to.forward(Subject::quota(source), &Event::Slot(SlotEvent::Requested(request)), None);
        }
    }

    /// Gives back what was granted and is not wanted.
    pub(crate) fn return_slot(&self, source: &str, event: &Event, to: &mut Effects) {
        let Event::Slot(SlotEvent::Granted(told)) = event else { return };
        let holds =
            |s: &Session| s.id == told.session && s.slot.open && s.slot.ticket == told.ticket;
        if !self.sessions.iter().any(holds) {
            self.release(source, told.session, told.ticket, to);
        }
    }

    fn release(&self, source: &str, session: Uuid, ticket: u64, to: &mut Effects) {
        let inactive = self.deleted || self.active != Some(true);
        let released = SlotReleased { session, live_stream: self.id, ticket, inactive };
        to.forward(Subject::quota(source), &Event::Slot(SlotEvent::Released(released)), None);
    }
}
