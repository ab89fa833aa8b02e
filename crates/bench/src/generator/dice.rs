//! Chance that comes out the same in every run: a hash of numbers.

use std::ops::Range;
use std::time::Duration;

/// A number of `range`, decided by what it is for and a number of that.
pub(crate) fn draw(purpose: &str, n: u64, range: Range<u64>) -> u64 {
    let purpose = purpose.bytes().fold(0, |sum: u64, byte| sum.wrapping_mul(31) + u64::from(byte));
    range.start + mixed(n ^ mixed(purpose)) % (range.end - range.start).max(1)
}

/// A time of `range`, which is in seconds; whole milliseconds.
pub(crate) fn time(purpose: &str, n: u64, range: Range<u64>) -> Duration {
    Duration::from_millis(draw(purpose, n, range.start * 1000..range.end * 1000))
}

/// SplitMix64's finalizer: every bit of the input changes half of the output.
fn mixed(n: u64) -> u64 {
    let n = n.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    n ^ (n >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_repeat_stay_in_range_and_differ_by_purpose() {
        let draws = |purpose: &str| (0..1000).map(|n| draw(purpose, n, 10..20)).collect::<Vec<_>>();
        assert_eq!(draws("a"), draws("a"));
        assert_ne!(draws("a"), draws("b"));
        assert!(draws("a").iter().all(|n| (10..20).contains(n)));
        assert!((10..20).all(|n| draws("a").contains(&n)), "every number comes up");
    }
}
