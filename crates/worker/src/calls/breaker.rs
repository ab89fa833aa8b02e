//! A breaker: calls to a target that is down are paused, and one *probe* at a time finds out when
//! it is up again.
//!
//! It is closed while the target is well, opens on failures in a row or on a share of failures,
//! and half opens when its pause is over: the next call is the probe, whose end closes it or opens
//! it for twice as long. A pure state machine: time and chance come in as arguments.

use std::collections::VecDeque;
use std::time::Duration;

use platform::Sign;
use tokio::time::Instant;

/// Failures in a row that open it.
const IN_A_ROW: u32 = 8;

/// Ends that are remembered: of the last minute, at most so many.
const REMEMBERED: usize = 40;
const WINDOW: Duration = Duration::from_mins(1);

/// Of at least so many remembered ends, half must be failures to open it.
const LEAST: usize = 20;

/// The first pause; each failed probe doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(5);

/// The longest pause: sessions wait for a platform that is back, and a probe a minute harms nobody.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// How long others wait while a probe is under way.
const PROBE_WAIT: Duration = Duration::from_secs(5);

/// Leave to call, of one state of the breaker: what a call of an earlier state comes to says
/// nothing of the present one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    generation: u64,
    pub(crate) is_probe: bool,
}

/// How a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stand {
    /// Calls pass.
    Closed,
    /// A probe decides.
    HalfOpen,
    /// Calls are paused.
    Open,
}

/// The breaker of one target.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    phase: Phase,
    generation: u64,
}

#[derive(Debug)]
enum Phase {
    Closed { in_a_row: u32, ends: VecDeque<(Instant, bool)> },
    Open { until: Instant, pauses: u32 },
    HalfOpen { is_probed: bool, pauses: u32 },
}

impl Default for Phase {
    fn default() -> Self {
        Self::Closed { in_a_row: 0, ends: VecDeque::new() }
    }
}

impl Breaker {
    /// How it stands.
    pub(crate) fn stand(&self) -> Stand {
        match self.phase {
            Phase::Closed { .. } => Stand::Closed,
            Phase::Open { .. } => Stand::Open,
            Phase::HalfOpen { .. } => Stand::HalfOpen,
        }
    }

    /// Leave to call now, or when to ask again.
    pub(crate) fn ask(&mut self, now: Instant) -> Result<Ticket, Instant> {
        match self.phase {
            Phase::Closed { .. } => Ok(Ticket { generation: self.generation, is_probe: false }),
            Phase::Open { until, .. } if until > now => Err(until),
            Phase::HalfOpen { is_probed: true, .. } => Err(now + PROBE_WAIT),
            Phase::Open { pauses, .. } | Phase::HalfOpen { pauses, .. } => {
                self.change(Phase::HalfOpen { is_probed: true, pauses });
                Ok(Ticket { generation: self.generation, is_probe: true })
            }
        }
    }

    /// Hears what an exchange told of the target. Returns whether it opened by that.
    pub(crate) fn tell(&mut self, ticket: Ticket, sign: Sign, now: Instant, chance: f64) -> bool {
        if ticket.generation != self.generation {
            return false;
        }
        match (&mut self.phase, sign) {
            // Too many calls are the affair of the pace.
            (Phase::Closed { .. }, Sign::Busy { .. }) | (Phase::Open { .. }, _) => false,
            (Phase::Closed { in_a_row, ends }, sign) => {
                let is_failure = sign == Sign::Down;
                *in_a_row = if is_failure { *in_a_row + 1 } else { 0 };
                remember(ends, now, is_failure);
                let is_down = is_failure && (*in_a_row >= IN_A_ROW || is_half_failed(ends));
                if is_down {
                    self.open(0, now, chance);
                }
                is_down
            }
            (Phase::HalfOpen { pauses, .. }, Sign::Down) => {
                let pauses = pauses.saturating_add(1);
                self.open(pauses, now, chance);
                true
            }
            (Phase::HalfOpen { .. }, Sign::Up | Sign::Busy { .. }) => {
                self.change(Phase::default());
                false
            }
        }
    }

    /// A call that was let through was not made, or nobody knows its end: the next one may probe.
    pub(crate) fn release(&mut self, ticket: Ticket) {
        if let Phase::HalfOpen { is_probed, .. } = &mut self.phase
            && ticket.generation == self.generation
        {
            *is_probed = false;
        }
    }

    /// Opens for a random part, at least half, of the pause: processes probe apart.
    fn open(&mut self, pauses: u32, now: Instant, chance: f64) {
        let pause = FIRST_PAUSE.saturating_mul(1 << pauses.min(16)).min(LONGEST_PAUSE);
        let until = now + pause.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0);
        self.change(Phase::Open { until, pauses });
    }

    fn change(&mut self, phase: Phase) {
        self.phase = phase;
        self.generation += 1;
    }
}

fn remember(ends: &mut VecDeque<(Instant, bool)>, now: Instant, is_failure: bool) {
    ends.push_back((now, is_failure));
    let is_old = |(at, _): &(Instant, bool)| now.duration_since(*at) > WINDOW;
    while ends.len() > REMEMBERED || ends.front().is_some_and(is_old) {
        ends.pop_front();
    }
}

fn is_half_failed(ends: &VecDeque<(Instant, bool)>) -> bool {
    let failures = ends.iter().filter(|(_, is_failure)| *is_failure).count();
    ends.len() >= LEAST && failures * 2 >= ends.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        for n in 1..=IN_A_ROW {
            let ticket = breaker.ask(now).unwrap();
            assert_eq!(breaker.tell(ticket, Sign::Down, now, 1.0), n == IN_A_ROW);
        }
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_good_probe_closes_it() {
        let now = Instant::now();
        let mut breaker = opened(now);
        assert_eq!(breaker.ask(now), Err(now + FIRST_PAUSE));
        let later = now + FIRST_PAUSE;
        let probe = breaker.ask(later).unwrap();
        assert!(probe.is_probe);
        assert_eq!(breaker.ask(later), Err(later + PROBE_WAIT), "one probe at a time");
        breaker.tell(probe, Sign::Up, later, 0.5);
        assert_eq!(breaker.stand(), Stand::Closed);
        assert!(!breaker.ask(later).unwrap().is_probe);
    }

    #[test]
    fn half_of_many_failing_opens_it_without_a_row() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        let signs = [Sign::Up, Sign::Down].into_iter().cycle().take(LEAST);
        let opens = signs.map(|sign| {
            let ticket = breaker.ask(now).unwrap();
            breaker.tell(ticket, sign, now, 0.0)
        });
        assert_eq!(opens.filter(|opens| *opens).count(), 1);
        assert_eq!(breaker.stand(), Stand::Open);
    }

    #[test]
    fn failures_of_long_ago_are_forgotten() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for n in 0..200 {
            let at = now + WINDOW.mul_f64(f64::from(n) / 10.0);
            let ticket = breaker.ask(at).unwrap();
            let sign = if n % 2 == 0 { Sign::Up } else { Sign::Down };
            assert!(!breaker.tell(ticket, sign, at, 0.0), "at most 11 ends are of the last minute");
        }
    }

    #[test]
    fn each_failed_probe_doubles_the_pause_up_to_the_longest() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        let mut pauses = Vec::new();
        for _ in 0..9 {
            let until = breaker.ask(now).unwrap_err();
            pauses.push((until - now).as_secs());
            now = until;
            let probe = breaker.ask(now).unwrap();
            breaker.tell(probe, Sign::Down, now, 1.0);
        }
        assert_eq!(pauses, [5, 10, 20, 40, 60, 60, 60, 60, 60]);
    }

    #[test]
    fn a_late_end_of_an_earlier_state_changes_nothing() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        let late = breaker.ask(now).unwrap();
        for _ in 0..IN_A_ROW {
            let ticket = breaker.ask(now).unwrap();
            breaker.tell(ticket, Sign::Down, now, 1.0);
        }
        breaker.tell(late, Sign::Up, now, 0.0);
        assert_eq!(breaker.stand(), Stand::Open);
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Ask,
        Tell(usize, Sign),
        Release(usize),
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let sign = prop_oneof![
            Just(Sign::Up),
            Just(Sign::Busy { after: None }),
            Just(Sign::Down),
            Just(Sign::Down)
        ];
        prop_oneof![
            4 => Just(Step::Ask),
            4 => (0usize..8, sign).prop_map(|(n, sign)| Step::Tell(n, sign)),
            1 => (0usize..8).prop_map(Step::Release),
            1 => (0u64..400).prop_map(Step::Pass),
        ]
    }

    proptest! {
        #[test]
        fn it_pauses_when_open_probes_alone_and_is_never_stuck(
            steps in prop::collection::vec(step(), 0..200),
            chance in 0.0f64..1.0,
        ) {
            let mut now = Instant::now();
            let mut breaker = Breaker::default();
            let mut out: Vec<Ticket> = Vec::new();
            for step in steps {
                match step {
                    Step::Ask => {
                        let is_probed = out.iter().any(|t| t.is_probe && t.generation == breaker.generation);
                        match breaker.ask(now) {
                            Ok(ticket) => {
                                prop_assert!(!(ticket.is_probe && is_probed), "two probes at once");
                                prop_assert_ne!(breaker.stand(), Stand::Open);
                                out.push(ticket);
                            }
                            Err(at) => prop_assert!(at > now && at <= now + LONGEST_PAUSE),
                        }
                    }
                    Step::Tell(n, sign) if n < out.len() => {
                        let before = breaker.stand();
                        let opens = breaker.tell(out.remove(n), sign, now, chance);
                        prop_assert!(!opens || sign == Sign::Down);
                        prop_assert!(!opens || before != Stand::Open);
                    }
                    Step::Release(n) if n < out.len() => breaker.release(out.remove(n)),
                    Step::Pass(seconds) => now += Duration::from_secs(seconds),
                    Step::Tell(..) | Step::Release(_) => {}
                }
            }
            // Whatever has happened: once all calls have ended and the pause is over, one passes.
            for ticket in out {
                breaker.release(ticket);
            }
            prop_assert!(breaker.ask(now + LONGEST_PAUSE).is_ok());
        }
    }
}
