//! Schedules: when a recurring job fires, by a cron expression in a time zone. Pure; the present
//! comes in as an argument.
//!
//! A *fire* is one moment that the expression names, a whole second. Where clocks are put forward,
//! a fixed time that does not exist fires once, right after the gap; where they are put back, one
//! that exists twice fires the first time only. What recurs within the hour (`*/15 * * * *`) fires
//! by the clock on the wall: not in the gap, and in both of the repeated hours.
//!
//! A fire is *missed* when nobody was there to perform it in time.

use std::fmt;
use std::str::FromStr as _;

use chrono::{SubsecRound as _, TimeDelta};
use chrono_tz::Tz;
use croner::Cron;

use crate::ids::Timestamp;

/// Longest cron expression, in bytes: lists of many values stay far below it.
const MAX_EXPRESSION: usize = 255;

/// A fire that is late by no more is on time for [`Missed::Skip`]: the slices of a dead process
/// pass to another one within some 12 s, and a failover of the database takes about as long.
pub const ON_TIME: TimeDelta = TimeDelta::minutes(1);

/// The most missed fires that may be caught up at once.
pub const MAX_CATCH_UP: u16 = 1_000;

/// Why a cron expression or a time zone is refused, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable(String);

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What becomes of missed fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missed {
    /// They are passed over; one that is late by [`ON_TIME`] at most still fires.
    Skip,
    /// All of them together fire once, for the last one.
    Coalesce,
    /// Each fires, but no more than this many: the last ones.
    CatchUp(u16),
}

impl Missed {
    /// Its name in tables and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Coalesce => "coalesce",
            Self::CatchUp(_) => "catch_up",
        }
    }

    /// Reads a name; `limit` is for `catch_up`, from 1 to [`MAX_CATCH_UP`]. `None`: unknown, or
    /// out of bounds.
    pub fn of(name: &str, limit: u16) -> Option<Self> {
        match name {
            "skip" => Some(Self::Skip),
            "coalesce" => Some(Self::Coalesce),
            "catch_up" if (1..=MAX_CATCH_UP).contains(&limit) => Some(Self::CatchUp(limit)),
            _ => None,
        }
    }

    /// The most fires that one look may lead to.
    fn most(self) -> u16 {
        match self {
            Self::Skip | Self::Coalesce => 1,
            Self::CatchUp(limit) => limit,
        }
    }
}

/// What a schedule owes at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owed {
    /// To fire now, oldest first.
    pub fires: Vec<Timestamp>,
    /// The next fire after that; `None`: the expression names no more.
    pub next: Option<Timestamp>,
}

/// A cron expression in a time zone.
#[derive(Debug, Clone)]
pub struct Timing {
    cron: Cron,
    zone: Tz,
}

impl Timing {
    /// Reads a cron expression (minute, hour, day of month, month, day of week; seconds may stand
    /// in front, a year at the end; `@daily` and its like) and the name of an IANA time zone.
    ///
    /// # Errors
    /// [`Unreadable`] says what is wrong with which.
    pub fn parse(expression: &str, zone: &str) -> Result<Self, Unreadable> {
        let refuse = |why: &dyn fmt::Display| {
            let why = why.to_string();
            let why = why.trim_end_matches('.');
            Unreadable(format!(
                "\"{expression}\" is not a cron expression such as \"30 2 * * *\": {why}"
            ))
        };
        if expression.len() > MAX_EXPRESSION {
            let why = format!("the cron expression is longer than {MAX_EXPRESSION} bytes");
            return Err(Unreadable(why));
        }
        let cron = Cron::from_str(expression).map_err(|error| refuse(&error))?;
        let zone = Tz::from_str(zone).map_err(|_| {
            Unreadable(format!("\"{zone}\" is not an IANA time zone such as Europe/Berlin or UTC"))
        })?;
        Ok(Self { cron, zone })
    }

    /// The first fire after a moment; `None`: there is none up to the year 5000.
    pub fn next_after(&self, at: Timestamp) -> Option<Timestamp> {
        // Fires are whole seconds, so the part of a second does not matter.
        let from = at.trunc_subsecs(0).with_timezone(&self.zone);
        let next = self.cron.find_next_occurrence(&from, false).ok()?;
        Some(next.to_utc())
    }

    /// The first `count` fires after a moment.
    pub fn upcoming(&self, at: Timestamp, count: usize) -> Vec<Timestamp> {
        std::iter::successors(self.next_after(at), |at| self.next_after(*at)).take(count).collect()
    }

    /// What is owed `now` of a schedule whose next fire was due at `due`.
    pub fn owed(&self, missed: Missed, due: Timestamp, now: Timestamp) -> Owed {
        let mut fires = Vec::new();
        let mut until = now;
        while fires.len() < usize::from(missed.most())
            && let Some(last) = self.last_within(due, until)
        {
            fires.push(last);
            until = last - TimeDelta::seconds(1);
        }
        if missed == Missed::Skip {
            fires.retain(|fire| now - *fire <= ON_TIME);
        }
        fires.reverse();
        Owed { fires, next: self.next_after(now) }
    }

    /// The last fire from `from` to `to`. By halves, so that it takes some thirty looks however
    /// long nobody was there and however often it fires.
    fn last_within(&self, from: Timestamp, to: Timestamp) -> Option<Timestamp> {
        let fire_within = |after: i64| {
            let fire = self.next_after(Timestamp::from_timestamp(after, 0)?)?;
            (fire <= to).then_some(fire)
        };
        // There is a fire after `low`, and none after `high`.
        let (mut low, mut high) = (from.timestamp() - 1, to.timestamp());
        let mut last = fire_within(low)?;
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match fire_within(middle) {
                Some(fire) => (low, last) = (middle, fire),
                None => high = middle,
            }
        }
        Some(last)
    }
}

/// Whether a text can be the name of a schedule: 1 to 63 of `a-z`, `0-9`, `-`, `_` and `.`, the
/// first a letter or a digit.
pub fn is_name(name: &str) -> bool {
    let is_first = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    name.len() <= 63
        && name.bytes().next().is_some_and(is_first)
        && name.bytes().all(|b| is_first(b) || matches!(b, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests;
