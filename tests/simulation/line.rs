//! The line of one process to the database: how long its calls take, and which break.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use store::testing::{Fate, Line};
use tokio::time::Instant;

/// Calls of several statements, in a transaction that holds locks from its first one to its end.
/// The others are one statement, which may be executed long after its caller has given up.
const TRANSACTIONS: [&str; 4] = ["commit_reactions", "mark_all", "finish", "finish_all"];

/// What a line is like at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Calls take a few milliseconds, and one in a hundred breaks.
    Usual,
    /// Nothing breaks any more.
    Calm,
    /// Every third call breaks, its outcome unknown; what it does may be done seconds later, after
    /// its repeat.
    Lossy,
    /// No connection can be made.
    Refusing,
    /// Calls are held until then and go through after all: so does a process look that was stopped
    /// and continued, or a network that has stood still.
    Stalled(Instant),
    /// The process is dead.
    Dead,
}

/// A line with its own dice.
#[derive(Debug)]
pub(crate) struct Faulty(Mutex<State>);

#[derive(Debug)]
struct State {
    rng: StdRng,
    mood: Mood,
    until: Option<Instant>,
}

impl Faulty {
    pub(crate) fn new(seed: u64) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        Self(Mutex::new(State { rng, mood: Mood::Usual, until: None }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Changes the mood for a while. The dead stay dead.
    pub(crate) fn set(&self, mood: Mood, time: Option<Duration>) {
        let mut state = self.state();
        if state.mood != Mood::Dead {
            state.mood = mood;
            state.until = time.map(|time| Instant::now() + time);
        }
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.state().mood == Mood::Dead
    }
}

impl State {
    fn millis(&mut self, most: u64) -> Duration {
        Duration::from_millis(self.rng.random_range(0..most))
    }

    fn answered(&mut self) -> Fate {
        Fate::Answered { there: self.millis(6), back: self.millis(6) }
    }

    fn lost(&mut self, call: &str) -> Fate {
        let heard = self.millis(200);
        if TRANSACTIONS.contains(&call) {
            // What comes after it waits for its locks: by then it has happened, or never will.
            let is_lost = self.rng.random_ratio(1, 2);
            return if is_lost { Fate::Refused } else { Fate::Lost { there: heard / 2, heard } };
        }
        // Every third comes late.
        let most = if self.rng.random_ratio(1, 3) { 4_000 } else { 10 };
        Fate::Lost { there: self.millis(most), heard }
    }
}

impl Line for Faulty {
    fn fate(&self, call: &'static str) -> Fate {
        let mut state = self.state();
        let now = Instant::now();
        if state.until.is_some_and(|until| now >= until) {
            (state.mood, state.until) = (Mood::Usual, None);
        }
        let mood = state.mood;
        match mood {
            Mood::Usual if state.rng.random_ratio(1, 100) => state.lost(call),
            Mood::Lossy if state.rng.random_ratio(1, 3) => state.lost(call),
            Mood::Usual | Mood::Calm | Mood::Lossy => state.answered(),
            Mood::Refusing | Mood::Dead => Fate::Refused,
            Mood::Stalled(until) => {
                let back = state.millis(6);
                Fate::Answered { there: until.saturating_duration_since(now), back }
            }
        }
    }

    /// Every second hint is lost, whatever the mood.
    fn hears(&self) -> bool {
        let mut state = self.state();
        state.mood != Mood::Dead && state.rng.random_ratio(1, 2)
    }
}
