//! What a session waits for that may never come, and what becomes of it then.
//!
//! A session is *closed* if and only if it was ended without a command: a limit was exceeded, or
//! another session took its live stream. Not its job: when a limit is exceeded, which `decide` finds.

use super::Session;
use crate::ids::Timestamp;
use crate::limit::{Limit, LimitExceeded, Waiting};

impl Session {
    /// Whether it failed and holds nothing that a later session needs.
    pub(crate) fn is_given_up(&self) -> bool {
        self.failure.is_some() && !self.end && !self.activated && !self.calling
    }

    /// Notes what it waits for that may never come, given whether it `runs`: has the live stream.
    pub(crate) fn note_waiting(&mut self, runs: bool, on_air: bool, at: Timestamp) {
        let what = self.awaits(on_air).filter(|_| runs);
        if what != self.waiting.map(|w| w.what) {
            self.waiting = what.map(|what| Waiting { what, since: at });
        }
    }

    fn awaits(&self, on_air: bool) -> Option<Limit> {
        if self.end {
            None
        } else if self.failure.is_some() {
            Some(Limit::Retry)
        } else if self.awaits_slot() {
            Some(Limit::Slot)
        } else if self.is_interrupted() {
            Some(Limit::Return)
        } else {
            let missing = if on_air { Limit::Show } else { Limit::Encoder };
            let was_shown = self.went_live_at.is_some() || on_air && self.go_live;
            (self.activated && !was_shown).then_some(missing)
        }
    }

    /// Ends it without a command, for `reason`. What failed before is kept as a problem.
    pub(crate) fn close(&mut self, reason: &str) {
        if self.end {
            return;
        }
        if let Some(failure) = self.failure.take() {
            self.problem(&failure.call, &failure.reason);
        }
        self.end = true;
        self.end_reason = Some(reason.to_owned());
    }

    /// Applies that a limit was exceeded, unless what was waited for has come since.
    pub(crate) fn limit_exceeded(&mut self, exceeded: &LimitExceeded) {
        let is_of = Waiting { what: exceeded.limit, since: exceeded.since };
        match exceeded.limit {
            Limit::Videos => self.recording.overdue(&exceeded.videos),
            Limit::Losses => self.losses.are_too_many(exceeded.since),
            Limit::Slot | Limit::Encoder | Limit::Show | Limit::Return | Limit::Retry
                if self.waiting != Some(is_of) => {}
            Limit::Slot if !self.lacks_slot() => {}
            Limit::Slot => {
                self.waits_for_slot = None;
                self.fail("activate_live_stream", exceeded.limit.words());
            }
            // A retry lets the encoder in again.
            Limit::Encoder => self.fail("activate_live_stream", exceeded.limit.words()),
            Limit::Show | Limit::Return | Limit::Retry => self.close(exceeded.limit.words()),
        }
    }
}
