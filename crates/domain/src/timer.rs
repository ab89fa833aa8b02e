//! Timers: jobs whose only effect is that [`TimerElapsed`](crate::event::TimerElapsed) is appended.
//!
//! A timer carries the generation of the wait it belongs to. None is ever cancelled: a stale one
//! is appended too and changes nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limit::Limit;

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimerKind {
    /// The time an encoder has to come back before an interruption is shown.
    Grace,
    /// Time to ask the platform how things are, because no webhook told.
    Poll,
    /// The time that an encoder which reconnected in a loop has to send before it is trusted.
    Steady,
    /// The time that a call in flight still has when its session shall end.
    Call,
    /// Time to hold the slots that are granted against what is active.
    Sweep,
}

impl TimerKind {
    /// Its name, as stored.
    pub fn name(self) -> &'static str {
        match self {
            Self::Grace => "grace",
            Self::Poll => "poll",
            Self::Steady => "steady",
            Self::Call => "call",
            Self::Sweep => "sweep",
        }
    }
}

/// How long to wait for what. Live decisions only: a fold never reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Grace period after the encoder's connection is lost. Covers the ingester's 3 s time-out,
    /// the switch to a backup (15 s) and the 10 s for which the platform holds a recording.
    pub grace: Duration,
    /// After a call of ours whose effect has not been seen: ask after this long. The platform's
    /// effects take 3 to 10 s.
    pub settle: Duration,
    /// While the account's quota has no free slot: look for one after this long, doubling up to ten
    /// times that. Slots that our own sessions free are passed on at once.
    pub slot: Duration,
    /// The slots of active live streams that each source has, where that is known.
    pub slots: BTreeMap<String, u32>,
    /// While nobody waits for a slot: hold those that are granted against the platform this often.
    pub slot_sweep: Duration,
    /// While an encoder is expected or on air: look this often, and less often while it is only
    /// expected.
    pub watch: Duration,
    /// While videos are being processed: look after this long, doubling up to 20 times that.
    pub videos: Duration,
    /// Look at all live streams this often, and ask for each that is waited for: what sweeps of
    /// many at once may have missed is found then.
    pub sweep: Duration,
    /// Look through the recordings of sessions that are over this often; zero: never.
    pub recordings: Duration,
    /// Only those of sessions that ended so long ago at most: a month holds what products offer
    /// for watching again, and costs a request for each hundred videos.
    pub recordings_within: Duration,
    /// An encoder that reconnected in a loop is trusted again when it has sent for this long. The
    /// platform itself goes back to a primary encoder after 60 s.
    pub steady: Duration,
    /// The longest waits.
    pub limits: Limits,
}

/// The longest time that something is waited for; zero: for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// A platform call is tried for this long, and then given up. Longer than most outages: a
    /// session that fails needs a person.
    pub call: Duration,
    /// The same for a call that takes a session off air, or only asks: all goes on without it.
    pub end_call: Duration,
    /// A free slot of the account's quota; then the session fails.
    pub slot: Duration,
    /// The encoder of a session that never was on air; then the session fails, which frees its slot.
    pub encoder: Duration,
    /// Somebody who shows what an encoder sends, of a session that never was on air; then the
    /// session ends, which frees its slot.
    pub testing: Duration,
    /// The return of an interrupted encoder; then the session ends. The platform gives up a source
    /// that it pulls from after the same two hours.
    pub interrupted: Duration,
    /// Somebody who retries or ends a failed session; then it ends.
    pub failed: Duration,
    /// The final state of a video; then its recording is completed without it.
    pub videos: Duration,
    /// Five losses of the encoder within this time are a loop. People who start over a few times
    /// stay below; an encoder that is thrown out again and again comes to five within two minutes.
    pub loop_window: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            call: Duration::from_mins(15),
            end_call: Duration::from_mins(3),
            slot: Duration::from_hours(24),
            encoder: Duration::from_hours(24),
            testing: Duration::from_hours(24),
            interrupted: Duration::from_hours(2),
            failed: Duration::from_hours(7 * 24),
            videos: Duration::from_hours(12),
            loop_window: Duration::from_mins(5),
        }
    }
}

impl Limits {
    /// The time that a limit is about, if it is one.
    pub fn of(&self, limit: Limit) -> Option<Duration> {
        let time = match limit {
            Limit::Slot => self.slot,
            Limit::Encoder => self.encoder,
            Limit::Show => self.testing,
            Limit::Return => self.interrupted,
            Limit::Retry => self.failed,
            Limit::Videos => self.videos,
            Limit::Losses => self.loop_window,
        };
        (!time.is_zero()).then_some(time)
    }

    /// How long a call is tried, if that has a limit; `can_do_without`: all goes on without it.
    pub(crate) fn of_call(&self, can_do_without: bool) -> Option<Duration> {
        let limit = if can_do_without { self.end_call } else { self.call };
        (!limit.is_zero()).then_some(limit)
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(20),
            settle: Duration::from_secs(12),
            slot: Duration::from_secs(30),
            slots: BTreeMap::new(),
            slot_sweep: Duration::from_hours(1),
            watch: Duration::from_secs(30),
            videos: Duration::from_secs(30),
            sweep: Duration::from_hours(1),
            recordings: Duration::from_hours(6),
            recordings_within: Duration::from_hours(30 * 24),
            steady: Duration::from_mins(1),
            limits: Limits::default(),
        }
    }
}

impl Policy {
    /// The same policy with every wait divided by `factor`, for demonstrations.
    #[must_use]
    pub fn scaled(&self, factor: f64) -> Self {
        let scale = |d: Duration| d.div_f64(factor.max(f64::EPSILON));
        Self {
            grace: scale(self.grace),
            settle: scale(self.settle),
            slot: scale(self.slot),
            slots: self.slots.clone(),
            slot_sweep: scale(self.slot_sweep),
            watch: scale(self.watch),
            videos: scale(self.videos),
            sweep: scale(self.sweep),
            recordings: scale(self.recordings),
            recordings_within: scale(self.recordings_within),
            steady: scale(self.steady),
            limits: Limits {
                // Tries of a call are apart by real time, whatever the demonstration's.
                call: self.limits.call,
                end_call: self.limits.end_call,
                slot: scale(self.limits.slot),
                encoder: scale(self.limits.encoder),
                testing: scale(self.limits.testing),
                interrupted: scale(self.limits.interrupted),
                failed: scale(self.limits.failed),
                videos: scale(self.limits.videos),
                loop_window: scale(self.limits.loop_window),
            },
        }
    }
}
