//! Chance by key: what happens to the n-th thing of a name is a function of the seed, the name and n.
//!
//! So it does not hang on what happens to others meanwhile, as it would with one sequence of random
//! numbers for all.

use std::collections::HashMap;

use rand::SeedableRng;
use rand::rngs::StdRng;

/// A source of chance that counts what it was asked about.
pub(crate) struct Chance {
    seed: u64,
    counts: HashMap<String, u64>,
}

impl Chance {
    /// Makes a source; `salt` keeps sources of one seed apart.
    pub(crate) fn new(seed: u64, salt: &str) -> Self {
        Self { seed: mixed(seed, salt), counts: HashMap::new() }
    }

    /// Returns the dice of the next thing of a name.
    pub(crate) fn next(&mut self, name: &str) -> StdRng {
        // The name is copied once, for as long as the simulator runs.
        let count = match self.counts.get_mut(name) {
            Some(count) => count,
            None => self.counts.entry(name.to_owned()).or_default(),
        };
        *count += 1;
        dice(self.seed ^ count.wrapping_mul(0x9e37_79b9_7f4a_7c15), name)
    }
}

/// Returns the dice of a name.
pub(crate) fn dice(seed: u64, name: &str) -> StdRng {
    StdRng::seed_from_u64(mixed(seed, name))
}

/// Mixes a name into a seed (FNV-1a): stable over builds and machines, which the standard library's
/// hasher does not promise.
fn mixed(seed: u64, name: &str) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325 ^ seed;
    name.bytes().fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use rand::RngExt as _;

    use super::*;

    #[test]
    fn what_happens_to_one_name_does_not_hang_on_others() {
        let draw = |others: usize| {
            let mut chance = Chance::new(7, "calls");
            let draws = (0..8).map(|_| {
                for _ in 0..others {
                    chance.next("GET /other");
                }
                chance.next("GET /mine").random::<u64>()
            });
            draws.collect::<Vec<_>>()
        };
        assert_eq!(draw(0), draw(3));
    }

    #[test]
    fn seeds_names_and_turns_differ() {
        let first = |seed, salt, name: &str| Chance::new(seed, salt).next(name).random::<u64>();
        let base = first(1, "a", "x");
        assert_ne!(base, first(2, "a", "x"));
        assert_ne!(base, first(1, "b", "x"));
        assert_ne!(base, first(1, "a", "y"));
        let mut chance = Chance::new(1, "a");
        assert_ne!(chance.next("x").random::<u64>(), chance.next("x").random::<u64>());
    }
}
