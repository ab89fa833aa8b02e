//! Since when the oldest of something waits, for whoever asks from another task.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// The time of the oldest event of a lane, or of its oldest spooled batch.
#[derive(Debug)]
pub(crate) struct Pulse {
    base: Instant,
    /// Microseconds after `base`, plus one; 0: nothing waits.
    since: AtomicU64,
}

impl Default for Pulse {
    fn default() -> Self {
        Self { base: Instant::now(), since: AtomicU64::new(0) }
    }
}

impl Pulse {
    /// The oldest waits since `oldest`.
    pub(super) fn begin(&self, oldest: Instant) {
        let micros = oldest.saturating_duration_since(self.base).as_micros();
        self.since.store(u64::try_from(micros).unwrap_or(u64::MAX - 1) + 1, Ordering::Relaxed);
    }

    /// Nothing waits.
    pub(super) fn end(&self) {
        self.since.store(0, Ordering::Relaxed);
    }

    /// How long the oldest has waited; zero where nothing waits.
    pub(crate) fn age(&self) -> Duration {
        match self.since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            micros => {
                let age = self.base.elapsed().saturating_sub(Duration::from_micros(micros - 1));
                // What waits is never told as nothing.
                age.max(Duration::from_nanos(1))
            }
        }
    }
}
