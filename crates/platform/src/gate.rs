//! What stands between a client and the other side: a *gate* is asked before each request and told
//! after it, so that whoever limits calls can do it for every request and not for every job.
//!
//! A *sign* is what an exchange tells of the other side's health. Not the job of this module: any
//! limit; the worker has them.

use std::{fmt, future::Future, pin::Pin, time::Duration};

/// What an exchange tells of the other side.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Sign {
    /// It answers, whatever it answers.
    Up,
    /// It asks for fewer requests (429), so it is neither down nor well.
    Busy {
        /// And for none in this time from now.
        after: Option<Duration>,
    },
    /// It is down or unreachable: no answer, 408, or 5xx.
    Down,
}

impl Sign {
    /// The sign of an exchange that ended with this status, or without any; and with how long the
    /// answer asks to wait.
    pub fn of(status: Option<u16>, after: Option<Duration>) -> Self {
        match status {
            None | Some(408 | 500..=599) => Self::Down,
            Some(429) => Self::Busy { after },
            Some(_) => Self::Up,
        }
    }

    /// The name, for numbers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Busy { .. } => "busy",
            Self::Down => "down",
        }
    }
}

/// Asked before each request of a client, told after it.
pub trait Gate: fmt::Debug + Send + Sync {
    /// Waits until the next request may be sent.
    fn pass(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;

    /// Hears how a request ended.
    fn saw(&self, sign: Sign);
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Option<Duration> = Some(Duration::from_secs(7));

    #[test]
    fn only_failures_of_the_other_side_are_signs_of_it_being_down() {
        for (status, sign) in [
            (None, Sign::Down),
            (Some(200), Sign::Up),
            (Some(302), Sign::Up),
            (Some(404), Sign::Up),
            (Some(408), Sign::Down),
            (Some(422), Sign::Up),
            (Some(429), Sign::Busy { after: AFTER }),
            (Some(500), Sign::Down),
            (Some(503), Sign::Down),
        ] {
            assert_eq!(Sign::of(status, AFTER), sign, "{status:?}");
        }
    }
}
