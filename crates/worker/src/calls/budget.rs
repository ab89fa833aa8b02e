//! A retry budget: further tries of calls to a target are at most a fifth of the first ones, and a
//! small *reserve* that comes with time. When everything fails at once, it is not called again and
//! again by everybody. A pure state machine: time comes in as an argument.

use std::time::Duration;

use tokio::time::Instant;

/// Credit that a first try brings; a further one costs 1.
const SHARE: f64 = 0.2;

/// Credit that comes in a second without any first try, so that a quiet target is tried again.
const RESERVE: f64 = 0.5;

/// Most credit, and what there is at first: a short disturbance is tried again without a wait.
const MOST: f64 = 20.0;

/// The budget of one target.
#[derive(Debug)]
pub(crate) struct Budget {
    credit: f64,
    at: Instant,
}

impl Budget {
    /// A full one.
    pub(crate) fn new(now: Instant) -> Self {
        Self { credit: MOST, at: now }
    }

    /// A first try.
    pub(crate) fn first(&mut self) {
        self.credit = (self.credit + SHARE).min(MOST);
    }

    /// A further try, or how long until there may be credit for it.
    pub(crate) fn retry(&mut self, now: Instant) -> Result<(), Duration> {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.credit = (self.credit + passed * RESERVE).min(MOST);
        if self.credit < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - self.credit) / RESERVE));
        }
        self.credit -= 1.0;
        Ok(())
    }

    /// A try that was not made after all.
    pub(crate) fn give_back(&mut self) {
        self.credit = (self.credit + 1.0).min(MOST);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_used_up_budget_tells_when_to_come_again() {
        let now = Instant::now();
        let mut budget = Budget::new(now);
        let tries = (0..100).take_while(|_| budget.retry(now).is_ok()).count();
        assert_eq!(tries, 20);
        let wait = budget.retry(now).unwrap_err();
        assert_eq!(wait, Duration::from_secs(2));
        assert_eq!(budget.retry(now + wait), Ok(()));
    }

    proptest! {
        #[test]
        fn further_tries_are_a_share_of_the_first_ones_and_the_reserve(
            steps in prop::collection::vec((0u32..3, 0u64..2_000), 0..400),
        ) {
            let begun = Instant::now();
            let (mut now, mut budget) = (begun, Budget::new(begun));
            let (mut first, mut further) = (0_u32, 0_u32);
            for (what, millis) in steps {
                match what {
                    0 => {
                        budget.first();
                        first += 1;
                    }
                    1 => further += u32::from(budget.retry(now).is_ok()),
                    _ => now += Duration::from_millis(millis),
                }
            }
            let seconds = (now - begun).as_secs_f64();
            let most = MOST + SHARE * f64::from(first) + RESERVE * seconds;
            prop_assert!(f64::from(further) <= most + 1e-6, "{further} of at most {most}");
        }
    }
}
