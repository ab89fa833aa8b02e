//! The pace of a target that asks for fewer requests (429) again and again: they come one after another
//! then, farther apart with every such answer, and closer with every other one, until nobody waits any
//! more. One such answer among many is the affair of the job that got it.
//!
//! Nobody publishes the platform's limit, and other programs may use the same account: the pace that
//! is allowed is found out, again and again. Each process finds it for itself. Not its job: rates that
//! are configured.

use std::time::Duration;

use platform::Sign;
use tokio::time::Instant;

use super::LONGEST_WAIT;

/// The first distance between two requests.
const FIRST: Duration = Duration::from_millis(100);

/// The longest.
const LONGEST: Duration = Duration::from_secs(5);

/// A shorter one is none.
const NONE: Duration = Duration::from_millis(20);

/// What a good answer leaves of the distance: after some 35 it is half.
const RECOVERY: f64 = 0.98;

/// A share of busy answers from which on they are no accident.
const TOO_MANY: f64 = 0.25;

/// How much the last answer counts in the share: after three busy ones in a row they are too many.
const WEIGHT: f64 = 0.1;

/// How fast a target is asked.
#[derive(Debug)]
pub(super) struct Pace {
    /// The share of busy answers, lately.
    busy: f64,
    /// Between two requests; zero: as they come.
    gap: Duration,
    /// The next request may be sent then.
    next: Instant,
    /// Turns are given out up to here.
    turns: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { busy: 0.0, gap: Duration::ZERO, next: now, turns: now }
    }

    /// Leave for one request, or how long to wait before asking again. Those who wait have turns one
    /// after another.
    pub(super) fn ask(&mut self, now: Instant) -> Result<(), Duration> {
        if now >= self.next {
            self.next = now + self.gap;
            return Ok(());
        }
        let turn = self.turns.max(self.next).min(now + LONGEST_WAIT);
        self.turns = turn + self.gap;
        Err(turn - now)
    }

    /// Hears how a request ended.
    pub(super) fn tell(&mut self, sign: Sign, now: Instant) {
        let is_busy = f64::from(u8::from(matches!(sign, Sign::Busy { .. })));
        self.busy += WEIGHT * (is_busy - self.busy);
        match sign {
            Sign::Busy { .. } if self.busy < TOO_MANY => {}
            Sign::Busy { after } => {
                self.gap = (self.gap * 2).clamp(FIRST, LONGEST);
                let asked = after.unwrap_or_default().min(LONGEST_WAIT);
                self.next = self.next.max(now + asked.max(self.gap));
            }
            Sign::Up => {
                self.gap = self.gap.mul_f64(RECOVERY);
                if self.gap < NONE {
                    // Nobody has to wait for his turn any more.
                    (self.gap, self.turns) = (Duration::ZERO, now);
                }
            }
            Sign::Down => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn busy(after: Option<Duration>) -> Sign {
        Sign::Busy { after }
    }

    /// A pace whose target was busy for the last time of too many.
    fn slowed(after: Option<Duration>, now: Instant) -> Pace {
        let mut pace = Pace::new(now);
        (0..2).for_each(|_| pace.tell(busy(None), now));
        pace.tell(busy(after), now);
        pace
    }

    #[test]
    fn requests_come_as_they_like_until_the_target_is_busy_again_and_again() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        assert!((0..1000).all(|_| pace.ask(now).is_ok()));
        pace.tell(Sign::Down, now);
        assert!(pace.ask(now).is_ok(), "a target that is down is the affair of the breaker");
        for n in 0..1000 {
            let is_busy = n % 20 == 0;
            pace.tell(if is_busy { busy(Some(SECOND)) } else { Sign::Up }, now);
            assert!(pace.ask(now).is_ok(), "one in twenty");
        }
        let mut pace = slowed(None, now);
        // Each has a turn of its own.
        let waits: Vec<Duration> = (0..3).map(|_| pace.ask(now).unwrap_err()).collect();
        assert_eq!(waits, [FIRST, FIRST * 2, FIRST * 3]);
        assert!(pace.ask(now + FIRST).is_ok());
        assert!(pace.ask(now + FIRST).is_err());
    }

    #[test]
    fn what_the_target_asks_for_holds_up_every_request() {
        let now = Instant::now();
        let mut pace = slowed(Some(30 * SECOND), now);
        assert_eq!(pace.ask(now).unwrap_err(), 30 * SECOND);
        // An answer that was on its way changes nothing of that.
        pace.tell(busy(Some(SECOND)), now);
        pace.tell(Sign::Up, now);
        assert!(pace.ask(now + 29 * SECOND).is_err());
        assert!(pace.ask(now + 30 * SECOND).is_ok());
        pace.tell(busy(Some(Duration::from_hours(1))), now);
        assert!(pace.ask(now).unwrap_err() <= LONGEST_WAIT);
    }

    #[test]
    fn a_limit_that_nobody_tells_is_found_and_left_behind_when_it_is_gone() {
        // So many requests a second, counted by the target: more are refused.
        let limit = 5;
        let begun = Instant::now();
        let (mut pace, mut now) = (Pace::new(begun), begun);
        let (mut sent, mut refused) = (Vec::new(), 0_u32);
        let mut ask = |pace: &mut Pace, now: Instant, limit: usize| {
            sent.retain(|at: &Instant| *at + SECOND > now);
            let is_refused = sent.len() >= limit;
            if is_refused {
                refused += 1;
            } else {
                sent.push(now);
            }
            pace.tell(if is_refused { busy(None) } else { Sign::Up }, now);
            !is_refused
        };
        let mut answered = 0_u32;
        while now < begun + 300 * SECOND {
            match pace.ask(now) {
                Ok(()) => answered += u32::from(ask(&mut pace, now, limit)),
                Err(_) => now += Duration::from_millis(10),
            }
        }
        assert!(answered > 300 * 5 / 2, "half of what it allows is used: {answered}");
        let mut free = 0;
        let end = now + 60 * SECOND;
        while now < end && free < 1000 {
            match pace.ask(now) {
                Ok(()) => free += u32::from(ask(&mut pace, now, usize::MAX)),
                Err(_) => now += Duration::from_millis(10),
            }
        }
        assert_eq!(free, 1000);
        assert!(pace.gap.is_zero());
        // Of the turns that were given out before, nothing is left.
        (0..3).for_each(|_| pace.tell(busy(None), now));
        assert_eq!(pace.ask(now).unwrap_err(), FIRST);
        assert!(refused * 5 < answered, "{refused} refused of {answered}");
    }
}
