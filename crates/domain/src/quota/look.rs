//! When a quota looks at the platform: how many live streams are active, and whose.
//!
//! A look is made after a refusal, before the first grant under a bound, when the queue has not
//! moved for a while, and once in a long while besides. While slots come and go by themselves none
//! is made: a look reads every page of the account's live streams.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::{LiveStreamId, Timestamp};

/// What a quota waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuotaWait {
    /// A slot for those in the queue.
    Slot,
    /// The time to hold what is granted against what is active.
    Sweep,
}

/// The looks of a quota.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, none is a mode")]
pub struct Look {
    /// One is to be made.
    pub due: bool,
    /// Nothing is granted before it has ended.
    pub holds: bool,
    /// The one that is made.
    pub in_flight: Option<Uuid>,
    /// When it began.
    pub began: Option<Timestamp>,
    /// When the last one ended.
    pub last: Option<Timestamp>,
    /// Looks so far.
    pub number: u64,
    /// Live streams that gave their slot back while it is made.
    pub released: Vec<LiveStreamId>,
    /// What is waited for.
    pub wait: Option<QuotaWait>,
    /// Waits so far: the timer's generation.
    pub waits: u64,
    /// A slot came or went since the wait began.
    pub moved: bool,
    /// Waits in a row in which nothing moved.
    pub in_vain: u32,
}

impl Look {
    /// Whether one is to be made or is in flight.
    pub(super) fn is_due(&self) -> bool {
        self.due || self.in_flight.is_some()
    }

    /// Asks for one before the next grant, if `needed`.
    pub(super) fn hold(&mut self, needed: bool) {
        self.due |= needed;
        self.holds |= needed;
    }

    /// Asks for one after the platform refused. The `first` refusal made the bound, and nothing is
    /// known of what is active.
    pub(super) fn after_refusal(&mut self, first: bool) {
        self.due = true;
        self.holds |= first;
        self.moved = false;
    }

    /// Notes that it is made.
    pub(super) fn begin(&mut self, intent: Uuid, at: Timestamp) {
        (self.due, self.in_flight, self.began) = (false, Some(intent), Some(at));
        self.released.clear();
    }

    /// Notes that it has ended, if it is the one in flight. Returns when it began.
    pub(super) fn end(&mut self, intent: Uuid, at: Timestamp) -> Option<Timestamp> {
        self.in_flight.take_if(|running| *running == intent)?;
        self.number += 1;
        self.holds = false;
        self.last = Some(at);
        self.began.take()
    }

    /// Notes a live stream that a look under way may have seen active.
    pub(super) fn released(&mut self, live_stream: LiveStreamId) {
        if self.in_flight.is_some() {
            self.released.push(live_stream);
        }
    }

    /// The live streams that gave their slot back while it was made.
    pub(super) fn take_released(&mut self) -> Vec<LiveStreamId> {
        std::mem::take(&mut self.released)
    }

    /// Whether the timer of wait `generation` makes one due. Where the queue moved by itself the
    /// wait begins anew, unless slots were `tried`: then the platform tells whether it had them.
    pub(super) fn is_due_at(&mut self, generation: u64, tried: bool) -> bool {
        if self.waits != generation || self.wait.is_none() {
            return false;
        }
        self.due = true;
        if self.wait == Some(QuotaWait::Slot) {
            let moved = std::mem::take(&mut self.moved) || tried;
            self.in_vain = if moved { 0 } else { self.in_vain.saturating_add(1) };
            self.due = tried || !moved;
            self.wait = None;
        }
        self.due
    }

    /// Notes that a slot came back by itself.
    pub(super) fn freed(&mut self) {
        (self.moved, self.in_vain) = (true, 0);
    }

    /// Notes what is waited for after an event.
    pub(super) fn note(&mut self, wait: Option<QuotaWait>) {
        if wait.is_some() && wait != self.wait {
            self.waits += 1;
            self.moved = false;
        }
        self.wait = wait;
    }
}
