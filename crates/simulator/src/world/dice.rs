//! Chance and pace: seeded random values, and nominal seconds turned into time of the run.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// The world's only source of chance.
pub(super) struct Dice {
    rng: StdRng,
}

impl Dice {
    /// Makes dice that always fall the same for one seed.
    pub(super) fn new(seed: u64) -> Self {
        Self { rng: StdRng::seed_from_u64(seed) }
    }

    /// Returns a value between two bounds; `low` if the range is empty.
    pub(super) fn between(&mut self, low: f64, high: f64) -> f64 {
        if low < high { self.rng.random_range(low..high) } else { low }
    }

    /// Returns a whole number below `bound`; 0 if the bound is 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.rng.random_range(0..bound) }
    }

    /// Returns 32 hexadecimal digits, the form of push tokens and request ids.
    pub(super) fn token(&mut self) -> String {
        format!("{:032x}", self.rng.random::<u128>())
    }

    /// Returns 16 letters and digits, the form of a video's slug.
    pub(super) fn slug(&mut self) -> String {
        const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        (0..16).map(|_| char::from(LETTERS[self.rng.random_range(0..LETTERS.len())])).collect()
    }
}

/// How fast this world runs compared with the real platform.
#[derive(Clone, Copy)]
pub(super) struct Pace {
    time_scale: f64,
}

impl Pace {
    /// Makes a pace; `time_scale` is positive and finite, which the start of the simulator checks.
    pub(super) fn new(time_scale: f64) -> Self {
        Self { time_scale }
    }

    /// How many times faster than the real platform.
    pub(super) fn time_scale(self) -> f64 {
        self.time_scale
    }

    /// Returns the real length of a nominal delay; at most a century.
    pub(super) fn scaled(self, nominal_seconds: f64) -> TimeDelta {
        const CENTURY: TimeDelta = TimeDelta::days(36_525);
        Duration::try_from_secs_f64(nominal_seconds / self.time_scale)
            .ok()
            .and_then(|delay| TimeDelta::from_std(delay).ok())
            .map_or(CENTURY, |delay| delay.min(CENTURY))
    }

    /// Returns the moment a nominal delay after another moment.
    pub(super) fn after(self, moment: DateTime<Utc>, nominal_seconds: f64) -> DateTime<Utc> {
        moment.checked_add_signed(self.scaled(nominal_seconds)).unwrap_or(moment)
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::Pace;

    #[test]
    fn delays_are_divided_by_the_time_scale() {
        assert_eq!(Pace::new(50.0).scaled(10.0), TimeDelta::milliseconds(200));
        assert_eq!(Pace::new(0.5).scaled(10.0), TimeDelta::seconds(20));
    }

    #[test]
    fn a_tiny_time_scale_does_not_overflow() {
        assert_eq!(Pace::new(f64::MIN_POSITIVE).scaled(10.0), TimeDelta::days(36_525));
    }
}
