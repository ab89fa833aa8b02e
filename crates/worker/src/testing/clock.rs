//! The clocks of a kit: of its database, and of its processes. Both go with the paused time of a
//! runtime, through all the runtimes of a kit.
//!
//! `Config` takes plain functions, so clock and chance of the kit that is at work are kept by the
//! thread that works it.

use std::cell::RefCell;
use std::time::Duration;

use domain::ids::Timestamp;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::Instant;

/// A database's clock, which the runtime's time moves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    /// Its time when the present runtime began.
    begun_at: Timestamp,
    /// That moment, as the runtime counts.
    begun: Instant,
}

impl Clock {
    /// A clock that stands at `at` now. Asked within the runtime.
    pub(super) fn at(at: Timestamp) -> Self {
        Self { begun_at: at, begun: Instant::now() }
    }

    /// The present. Asked within the runtime.
    pub(super) fn now(&self) -> Timestamp {
        self.begun_at + self.begun.elapsed()
    }
}

/// What the functions of `Config` answer on this thread.
struct Present {
    clock: Clock,
    /// How far the processes' clock is ahead of the database's, in milliseconds.
    ahead: i64,
    dice: StdRng,
}

thread_local! {
    static PRESENT: RefCell<Option<Present>> = const { RefCell::new(None) };
}

/// Lets the functions of this thread answer for a kit. The dice go on where the kit's are.
pub(super) fn set(clock: Clock, ahead: i64, dice: u64) {
    let dice = StdRng::seed_from_u64(dice);
    PRESENT.with(|present| *present.borrow_mut() = Some(Present { clock, ahead, dice }));
}

/// `Config::clock` of a kit's processes.
pub(super) fn process() -> Timestamp {
    PRESENT.with(|present| {
        let present = present.borrow();
        let Some(Present { clock, ahead, .. }) = &*present else { return Timestamp::default() };
        let off = Duration::from_millis(ahead.unsigned_abs());
        if *ahead < 0 { clock.now() - off } else { clock.now() + off }
    })
}

/// `Config::chance` of a kit's processes.
pub(super) fn chance() -> f64 {
    PRESENT
        .with(|present| present.borrow_mut().as_mut().map_or(0.5, |present| present.dice.random()))
}
