//! When a quota looks at the platform: how many live streams are active, and whose.
//!
//! A look is made after a refusal, before the first grant under a bound, when the queue has not
//! moved for a while, and once in a long while besides. While slots come and go by themselves none
//! is made: a look reads every page of the account's live streams.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::{LiveStreamId, Timestamp};

/// A timer of a quota: one is pending at a time, so that a queue that forms and ends ten times a second
/// does not leave ten timers a second behind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tick {
    /// Timers so far: the generation of the last one.
    pub number: u64,
    /// It has not fired.
    pub pending: bool,
}

impl Tick {
    /// Asks for a timer, unless one is pending or none is `needed`. Returns whether it asked.
    fn arm(&mut self, needed: bool) -> bool {
        let arms = needed && !self.pending;
        if arms {
            *self = Self { number: self.number + 1, pending: true };
        }
        arms
    }

    /// Whether timer `generation` is the pending one, which has fired now.
    fn fire(&mut self, generation: u64) -> bool {
        let is_it = self.pending && self.number == generation;
        self.pending &= !is_it;
        is_it
    }
}

/// The looks of a quota.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// When the queue is to have moved.
    pub queue: Tick,
    /// When what is granted is to be held against what is active.
    pub sweep: Tick,
    /// A slot came or went since the queue's timer was set.
    pub moved: bool,
    /// Timers in a row before which nothing moved.
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

    /// Whether the queue's timer `generation` makes one due. Where the queue moved by itself, or there
    /// is none any more, it does not, unless slots were `tried`: then the platform tells whether it
    /// had them.
    pub(super) fn queue_stands(&mut self, generation: u64, is_empty: bool, tried: bool) -> bool {
        if !self.queue.fire(generation) || is_empty {
            return false;
        }
        let moved = std::mem::take(&mut self.moved) || tried;
        self.in_vain = if moved { 0 } else { self.in_vain.saturating_add(1) };
        let is_due = tried || !moved;
        self.due |= is_due;
        is_due
    }

    /// Applies that it is time for a sweep, unless nothing is `taken`.
    pub(super) fn sweep_due(&mut self, generation: u64, taken: bool) {
        self.due |= self.sweep.fire(generation) && taken;
    }

    /// Notes that a slot came back by itself.
    pub(super) fn freed(&mut self) {
        (self.moved, self.in_vain) = (true, 0);
    }

    /// Sets the timers that are needed after an event: somebody `waits`, slots are `taken`.
    pub(super) fn arm(&mut self, waits: bool, taken: bool) {
        if self.queue.arm(waits && !self.is_due()) {
            self.moved = false;
        }
        self.sweep.arm(taken);
    }
}
