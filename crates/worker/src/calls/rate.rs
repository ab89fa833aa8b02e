//! Tokens of a rate that the fleet shares, as one process has them: taken from the database in
//! small *batches*, used within the batch's life or not at all.
//!
//! A token used late is a call that the bucket has counted earlier. So where batches are larger than
//! one, the bucket holds less than the burst by what comes back in a batch's life, and calls of all
//! processes in any time stay within burst and rate. A batch of one is used when it arrives.

use std::time::Duration;

use store::{Bucket, Error, Work};
use tokio::time::Instant;

use super::{LONGEST_WAIT, NO_ANSWER_WAIT};

/// Longest life of a batch.
const LONGEST_LIFE: Duration = Duration::from_millis(500);

/// Shortest one that is worth a batch: a round trip to the database must be small beside it.
const SHORTEST_LIFE: Duration = Duration::from_millis(100);

/// How fast a target may be called, by all processes together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    per_second: f64,
    burst: f64,
}

impl Rate {
    /// `per_second` calls, and `burst` at once after a rest; without a burst, those of a second.
    /// `None`: no such rate can be kept, since it is not above 0, or the burst is below 1.
    pub fn new(per_second: f64, burst: Option<f64>) -> Option<Self> {
        let burst = burst.unwrap_or(per_second.max(1.0));
        let is_usable = per_second > 0.0 && per_second <= 1e6 && (1.0..=1e6).contains(&burst);
        is_usable.then_some(Self { per_second, burst })
    }

    /// How its tokens are taken: the bucket, the size of a batch, and its life.
    fn plan(self, name: &str) -> (Bucket, u32, Duration) {
        let Self { per_second, burst } = self;
        let life = LONGEST_LIFE.min(Duration::from_secs_f64((burst - 1.0) / per_second / 2.0));
        let batch = (per_second * life.as_secs_f64()).floor();
        let bucket = |capacity| Bucket { name: name.to_owned(), capacity, per_second };
        if batch < 2.0 || life < SHORTEST_LIFE {
            return (bucket(burst), 1, Duration::ZERO);
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a batch has at least 2 and at most 500,000 tokens"
        )]
        let size = batch as u32;
        (bucket(burst - per_second * life.as_secs_f64()), size, life)
    }
}

/// What came of asking for a token.
#[derive(Debug)]
pub(super) enum Turn {
    /// It is there. Tokens that were taken for it from the database.
    Now { taken: u32 },
    /// None is left; come again then.
    Later(Duration),
}

/// The tokens of one rate in this process.
#[derive(Debug)]
pub(super) struct Leased {
    bucket: Bucket,
    batch: u32,
    life: Duration,
    left: u32,
    until: Instant,
    /// The bucket has none before.
    empty_until: Instant,
    /// Turns are given out up to here.
    next_turn: Instant,
}

impl Leased {
    pub(super) fn new(name: &str, rate: Rate, now: Instant) -> Self {
        let (bucket, batch, life) = rate.plan(name);
        Self { bucket, batch, life, left: 0, until: now, empty_until: now, next_turn: now }
    }

    /// Asks for a token.
    ///
    /// # Errors
    /// Where the database is away.
    pub(super) async fn take(&mut self, store: &dyn Work) -> Result<Turn, Error> {
        let now = Instant::now();
        if self.left > 0 && now < self.until {
            self.left -= 1;
            return Ok(Turn::Now { taken: 0 });
        }
        if now < self.empty_until {
            return Ok(Turn::Later(self.turn(now)));
        }
        let asked = store.take_tokens(&self.bucket, self.batch).await;
        let tokens = asked.inspect_err(|_| {
            // Nor do those behind each wait for a database that does not answer.
            self.empty_until = Instant::now() + NO_ANSWER_WAIT;
        })?;
        if tokens.granted == 0 {
            self.empty_until = now + tokens.next_in;
            return Ok(Turn::Later(self.turn(now)));
        }
        // Counted from before the request, which is before the database's moment.
        (self.left, self.until) = (tokens.granted - 1, now + self.life);
        Ok(Turn::Now { taken: tokens.granted })
    }

    /// When whoever is turned away now has its turn: one after another as tokens come back, so that
    /// not all of them come again for the next one.
    fn turn(&mut self, now: Instant) -> Duration {
        let turn = self.next_turn.max(self.empty_until).min(now + LONGEST_WAIT);
        self.next_turn = turn + Duration::from_secs_f64(1.0 / self.bucket.per_second);
        turn - now
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use domain::ids::Timestamp;
    use domain::slice::SliceCount;
    use proptest::prelude::*;
    use store::testing::Memory;

    use super::*;

    fn rate(per_second: f64, burst: f64) -> Rate {
        Rate::new(per_second, Some(burst)).unwrap()
    }

    /// A store whose clock is the runtime's.
    fn memory() -> Memory {
        let begun = Instant::now();
        let clock = move || Timestamp::default() + Instant::now().duration_since(begun);
        Memory::new(SliceCount::DEFAULT, clock)
    }

    #[test]
    fn batches_are_small_against_the_rate_and_the_bucket_lacks_what_they_may_keep() {
        let plan = |per_second, burst| {
            let (bucket, batch, life) = rate(per_second, burst).plan("a");
            (bucket.capacity, batch, life.as_millis())
        };
        assert_eq!(plan(1.0, 1.0), (1.0, 1, 0));
        assert_eq!(plan(10.0, 1.0), (1.0, 1, 0));
        assert_eq!(plan(10.0, 20.0), (15.0, 5, 500));
        assert_eq!(plan(100.0, 100.0), (50.5, 49, 495));
        assert_eq!(plan(100.0, 5.0), (5.0, 1, 0), "too short to be worth a batch");
    }

    #[test]
    fn a_rate_that_cannot_be_kept_is_none() {
        for (per_second, burst) in
            [(0.0, None), (-1.0, None), (f64::NAN, None), (f64::INFINITY, None), (1.0, Some(0.5))]
        {
            assert_eq!(Rate::new(per_second, burst), None, "{per_second} {burst:?}");
        }
        assert_eq!(Rate::new(0.1, None), Some(rate(0.1, 1.0)));
        assert_eq!(Rate::new(7.0, None), Some(rate(7.0, 7.0)));
    }

    #[tokio::test(start_paused = true)]
    async fn those_turned_away_get_turns_one_after_another() {
        let store = memory();
        let mut leased = Leased::new("a", rate(2.0, 1.0), Instant::now());
        assert!(matches!(leased.take(&store).await.unwrap(), Turn::Now { taken: 1 }));
        let mut waits = Vec::new();
        for _ in 0..4 {
            let Turn::Later(wait) = leased.take(&store).await.unwrap() else { panic!("a token") };
            waits.push(wait.as_millis());
        }
        assert_eq!(waits, [500, 1_000, 1_500, 2_000]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_is_used_within_its_life_or_not_at_all() {
        let store = memory();
        let mut leased = Leased::new("a", rate(10.0, 20.0), Instant::now());
        assert!(matches!(leased.take(&store).await.unwrap(), Turn::Now { taken: 5 }));
        assert!(matches!(leased.take(&store).await.unwrap(), Turn::Now { taken: 0 }));
        tokio::time::advance(LONGEST_LIFE).await;
        assert!(matches!(leased.take(&store).await.unwrap(), Turn::Now { taken: 5 }));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Three processes that call whenever they may, at random moments.
        #[test]
        fn no_time_sees_more_calls_than_burst_and_rate(
            per_second in 0.5f64..60.0,
            burst in 1.0f64..80.0,
            steps in prop::collection::vec((0usize..3, 0u64..300), 1..300),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap();
            let calls = runtime.block_on(async {
                let (store, begun) = (memory(), Instant::now());
                let mut processes = BTreeMap::new();
                let mut calls = Vec::new();
                for (process, pass) in steps {
                    let leased = processes
                        .entry(process)
                        .or_insert_with(|| Leased::new("a", rate(per_second, burst), begun));
                    while matches!(leased.take(&store).await.unwrap(), Turn::Now { .. }) {
                        calls.push((Instant::now() - begun).as_secs_f64());
                    }
                    tokio::time::advance(Duration::from_millis(pass)).await;
                }
                calls
            });
            for (n, from) in calls.iter().enumerate() {
                for (count, to) in (1_u32..).zip(&calls[n..]) {
                    let most = burst + per_second * (to - from) + 1e-3;
                    prop_assert!(f64::from(count) <= most, "{count} calls, at most {most}");
                }
            }
        }
    }
}
