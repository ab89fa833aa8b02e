//! How many events a transaction takes: as many as fit the time it should last.
//!
//! Large batches cost less for each event; short transactions keep others waiting for less. So the
//! size doubles while batches are full and quick, and halves when they are slow.

use std::time::Duration;

/// A full batch quicker than this may be larger.
const QUICK: Duration = Duration::from_millis(15);

/// A batch slower than this must be smaller. A machine that is busy with other slices makes all
/// batches slower, and smaller ones would make it busier: hence the room above [`QUICK`].
const SLOW: Duration = Duration::from_millis(60);

/// The size to begin with.
const FIRST: usize = 64;

/// The smallest size that slowness leads to.
const LEAST: usize = 16;

/// The present size of batches.
#[derive(Debug)]
pub(super) struct Pace {
    size: usize,
    most: usize,
    /// A refused batch is being narrowed down to the event that is refused.
    narrowing: bool,
}

impl Pace {
    /// Batches of at most `most` events.
    pub(super) fn new(most: usize) -> Self {
        let most = most.max(1);
        Self { size: FIRST.min(most), most, narrowing: false }
    }

    /// Events to take at once.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// A batch of that many events took this long.
    pub(super) fn took(&mut self, events: usize, time: Duration) {
        if self.narrowing {
            return;
        }
        if time > SLOW {
            self.size = (self.size / 2).max(LEAST).min(self.most);
        } else if time < QUICK && events >= self.size {
            self.size = (self.size * 2).min(self.most);
        }
    }

    /// A batch was refused for its data: half of it next, until the refused event is found.
    pub(super) fn refused(&mut self, events: usize) {
        self.narrowing = true;
        self.size = (events / 2).max(1);
    }

    /// The refused event was set aside.
    pub(super) fn found(&mut self) {
        self.narrowing = false;
        self.size = FIRST.min(self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_and_quick_batches_grow_to_the_limit() {
        let mut pace = Pace::new(1_000);
        for _ in 0..10 {
            pace.took(pace.size(), Duration::from_millis(1));
        }
        assert_eq!(pace.size(), 1_000);
        pace.took(3, Duration::from_millis(1));
        assert_eq!(pace.size(), 1_000);
    }

    #[test]
    fn a_batch_that_was_not_full_says_nothing_about_larger_ones() {
        let mut pace = Pace::new(1_000);
        pace.took(FIRST - 1, Duration::from_millis(1));
        assert_eq!(pace.size(), FIRST);
    }

    #[test]
    fn slow_batches_shrink_to_the_least() {
        let mut pace = Pace::new(1_000);
        for _ in 0..10 {
            pace.took(pace.size(), Duration::from_secs(1));
        }
        assert_eq!(pace.size(), LEAST);
    }

    #[test]
    fn a_refused_batch_is_halved_down_to_one_event() {
        let mut pace = Pace::new(1_000);
        let mut events = 700;
        while events > 1 {
            pace.refused(events);
            assert!(pace.size() < events);
            pace.took(pace.size(), Duration::ZERO);
            assert!(pace.size() < events, "it does not grow before the event is found");
            events = pace.size();
        }
        pace.found();
        assert_eq!(pace.size(), FIRST);
    }
}
