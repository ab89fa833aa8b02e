//! A session's part in the queue for slots: its ticket, and what it was told.
//!
//! A ticket is *open* from when the session is ready to be activated until it needs no slot any
//! more: it was deactivated, it failed or it shall end before it was active. Opening and closing
//! follow from the rest of the state, so no way to the end of a session keeps a slot.

use serde::{Deserialize, Serialize};

use super::Session;

/// What it says while the platform has not given a reason of its own.
const NO_SLOT: &str = "all slots for active live streams are taken";

/// A session's wish for a slot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// The number of the present ticket, or of the last one.
    pub ticket: u64,
    /// A slot is wanted or held.
    pub open: bool,
    /// It was granted.
    pub granted: bool,
    /// Times it was asked for with this ticket.
    pub asks: u32,
    /// The platform had none when the ticket before was granted one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refused: bool,
    /// The place in the queue that it was told last, from 1; until it is active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<u64>,
}

impl Slot {
    /// Whether none was ever wanted.
    pub(crate) fn is_none(&self) -> bool {
        *self == Self::default()
    }

    fn next_ticket(&mut self, refused: bool) {
        let ticket = self.ticket + 1;
        let place = self.place;
        *self = Self { ticket, open: true, granted: false, asks: 1, refused, place };
    }
}

impl Session {
    /// Whether its objects are made, so that a slot is all it needs to let the encoder in.
    fn is_prepared(&self) -> bool {
        self.dvr_cleared && self.configured && self.broadcast.is_some()
    }

    /// Whether all it waits for is a slot of its account's quota.
    pub(crate) fn lacks_slot(&self) -> bool {
        self.awaits_slot() && !self.slot.granted
    }

    /// Whether it waits for a slot, or for the answer to the activation that uses one: a refusal
    /// does not begin a new wait.
    pub(crate) fn awaits_slot(&self) -> bool {
        self.slot.open && !self.activated && !self.end && self.failure.is_none()
    }

    /// Opens a ticket where one is needed, and closes it where it is not any more. `runs`: it has
    /// the live stream, which exists; `activating`: its activation is in flight.
    pub(crate) fn settle_slot(&mut self, runs: bool, activating: bool) {
        let lives = runs && !self.end && self.failure.is_none();
        let wants = lives && self.is_prepared() && !self.activated;
        if wants && !self.slot.open {
            self.slot.next_ticket(false);
        } else if self.slot.open && !wants && !self.activated && !activating {
            let ticket = self.slot.ticket;
            self.slot = Slot { ticket, ..Slot::default() };
            self.waits_for_slot = None;
        }
    }

    /// Applies that the platform had no slot for it, in its words: another ticket.
    pub(crate) fn slot_refused(&mut self, reason: &str) {
        self.slot.next_ticket(true);
        self.waits_for_slot = Some(reason.to_owned());
    }

    /// Applies that its ticket is granted; another one is not its any more.
    pub(crate) fn slot_granted(&mut self, ticket: u64) {
        if self.slot.open && self.slot.ticket == ticket {
            self.slot.granted = true;
            self.waits_for_slot = None;
        }
    }

    /// Applies its place in the queue.
    pub(crate) fn slot_queued(&mut self, ticket: u64, place: u64) {
        if self.lacks_slot() && self.slot.ticket == ticket {
            self.slot.place = Some(place);
            self.waits_for_slot.get_or_insert_with(|| NO_SLOT.to_owned());
        }
    }

    /// Asks again, since nothing was heard for long.
    pub(crate) fn ask_for_slot_again(&mut self) {
        if self.lacks_slot() {
            self.slot.asks = self.slot.asks.saturating_add(1);
        }
    }
}
