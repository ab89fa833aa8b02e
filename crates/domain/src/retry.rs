//! Retry arithmetic: when the next try of a failed job is due. Pure; chance comes in as a number.

use std::time::Duration;

/// First delay before jitter.
const BASE: Duration = Duration::from_secs(1);

/// Longest delay before jitter: a platform that has been down for long is asked every 5 minutes.
const CAP: Duration = Duration::from_mins(5);

/// Longest wait that can be asked for: a schedule of a kind's own may reach over a day. What another
/// side asks for is cut to an hour where it is read.
const ASKED_CAP: Duration = Duration::from_hours(24);

/// Tries of a call that changes something: over half an hour at most, a quarter on average.
pub const MAX_ATTEMPTS: i32 = 14;

/// Tries of a call that only reads: its timer will ask again.
pub const MAX_READ_ATTEMPTS: i32 = 5;

/// The delay before the next try after `errors` failures (1 or more).
///
/// The upper bounds are 1 s, 2 s, 4 s .. 256 s, then 300 s. `chance` in `0.0..1.0` picks a point
/// below the bound (full jitter), so that many jobs that failed together return apart. What was
/// asked for is a lower bound.
pub fn delay(errors: u32, asked: Option<Duration>, chance: f64) -> Duration {
    let doubled = BASE.saturating_mul(1 << errors.saturating_sub(1).min(16));
    let jittered = doubled.min(CAP).mul_f64(chance.clamp(0.0, 1.0));
    jittered.max(asked.unwrap_or_default().min(ASKED_CAP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_double_up_to_the_cap() {
        let bounds: Vec<u64> = (1..=11).map(|n| delay(n, None, 1.0).as_secs()).collect();
        assert_eq!(bounds, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    }

    #[test]
    fn what_was_asked_for_is_a_lower_bound_with_a_cap() {
        let day = Duration::from_hours(24);
        assert_eq!(delay(1, Some(Duration::from_secs(30)), 0.0), Duration::from_secs(30));
        assert_eq!(delay(1, Some(day * 2), 0.0), day);
    }

    proptest::proptest! {
        #[test]
        fn never_above_the_cap_unless_asked(errors in 0u32.., chance in 0.0f64..1.0) {
            proptest::prop_assert!(delay(errors, None, chance) <= CAP);
        }
    }
}
