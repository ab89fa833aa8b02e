//! When the encoder sent: stretches of a session, each end with how it is known.
//!
//! A webhook tells the moment it came in. What was only seen when the platform was asked began
//! before that, and an answer's own times (`started_at_primary`, `finished_at_primary`) say when:
//! so a connection or a loss of which nobody told is put right later, and marked as such. Not its
//! job: what follows from a connection or a loss as it is told, which is [`super::encoder`]'s.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use super::Session;
use crate::ids::Timestamp;
use crate::live_stream::CLOCKS_DIFFER;
use crate::webhook::LiveStreamObserved;

/// Stretches that are kept, for an encoder that comes and goes all day.
const MAX_STRETCHES: usize = 100;

/// In a shorter time hardly more can have happened unheard than an answer's own times tell.
const LONG: TimeDelta = TimeDelta::seconds(60);

/// How the platform's clock is read: in whole seconds.
const SECOND_MS: i64 = 1000;

/// How a moment is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A webhook told it when it came in.
    Webhook,
    /// It was seen when the platform was asked: it had happened by then.
    Answer,
    /// The platform's own time of it, told by an answer.
    Platform,
    /// The platform's statistics show it, by intervals.
    Statistics,
}

impl Source {
    /// Its name, as our API writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Answer => "answer",
            Self::Platform => "platform",
            Self::Statistics => "statistics",
        }
    }
}

/// A moment, and how well it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// When it was, at the latest.
    pub at: Timestamp,
    /// How that is known.
    pub source: Source,
    /// It was at most so many milliseconds earlier; `None`: as long as a webhook is on its way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within_ms: Option<i64>,
}

/// A stretch in which the encoder sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// Its begin.
    pub from: Known,
    /// Its end; `None`: it sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Known>,
}

/// What was told of an encoder, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told {
    /// When.
    pub(crate) at: Timestamp,
    /// When its live stream was last told of before.
    pub(crate) before: Option<Timestamp>,
    /// By an answer, not by a webhook.
    pub(crate) by_answer: bool,
}

/// The platform's own times of a primary encoder.
#[derive(Debug, Clone, Copy)]
struct Times {
    started: Timestamp,
    finished: Option<Timestamp>,
    /// A backup encoder started last at this time: it may have bridged a loss.
    backup: Option<Timestamp>,
}

impl Times {
    fn of(seen: &LiveStreamObserved) -> Option<Self> {
        let started = seen.started_at?;
        Some(Self { started, finished: seen.finished_at, backup: seen.started_at_backup })
    }

    /// Whether a primary encoder that sent since `from` was lost since, and nothing bridged it.
    fn is_another(&self, from: Timestamp) -> bool {
        let bridged = self.backup.is_some_and(|backup| backup >= from - CLOCKS_DIFFER);
        self.started - from > CLOCKS_DIFFER && !bridged
    }

    /// Whether a primary encoder was lost that came after `known_until` and before the present one.
    fn is_before(&self, known_until: Timestamp) -> bool {
        self.finished.is_some_and(|end| end - known_until > CLOCKS_DIFFER && end < self.started)
    }

    /// The end of what began at `from`, before the present start.
    fn end_before(&self, from: Timestamp) -> Known {
        let finished = self.finished.filter(|end| (from..=self.started).contains(end));
        match finished {
            Some(at) => platform(at),
            // Some time between the two starts.
            None => Known { within_ms: Some(ms(self.started - from)), ..platform(self.started) },
        }
    }
}

fn platform(at: Timestamp) -> Known {
    Known { at, source: Source::Platform, within_ms: Some(SECOND_MS) }
}

fn ms(time: TimeDelta) -> i64 {
    time.num_milliseconds().max(0)
}

impl Told {
    /// The moment of what was told, where the platform has no time of its own for it.
    fn moment(&self) -> Known {
        if !self.by_answer {
            return Known { at: self.at, source: Source::Webhook, within_ms: None };
        }
        let within_ms = self.before.map(|before| ms(self.at - before));
        Known { at: self.at, source: Source::Answer, within_ms }
    }
}

impl Session {
    /// Applies what was told of its encoder. Returns the losses that are only known from the
    /// platform's own times: nobody told of them.
    pub(crate) fn sends(&mut self, on_air: bool, seen: &LiveStreamObserved, told: Told) -> u64 {
        let times = Times::of(seen).filter(|times| {
            let since = self.began_at.unwrap_or(times.started) - CLOCKS_DIFFER;
            told.by_answer && times.started >= since && times.started <= told.at + CLOCKS_DIFFER
        });
        let open = self.sent.pop_if(|sent| sent.to.is_none());
        let known_until = open.map(|open| open.from.at).or_else(|| self.known_until());
        let came = open.is_none() && on_air;
        let missed = self.heard(on_air, open, times, told);
        let is_before = |at: &Timestamp| times.is_some_and(|times| times.is_before(*at));
        let is_long = |at: &Timestamp| told.at - told.before.unwrap_or(*at) > LONG;
        let since = known_until.filter(|at| missed > 0 || came && is_before(at));
        if let Some(since) = since.filter(is_long) {
            self.doubts(since, told.at);
        }
        missed
    }

    /// Until when all is known of its encoder, where it does not send.
    fn known_until(&self) -> Option<Timestamp> {
        self.sent.last().and_then(|sent| sent.to).map(|to| to.at).or(self.began_at)
    }

    /// Applies what was told. Returns the losses that nobody told of.
    fn heard(&mut self, on_air: bool, open: Option<Sent>, times: Option<Times>, told: Told) -> u64 {
        match (on_air, open) {
            (true, Some(open)) => self.goes_on(open, times),
            (true, None) => {
                let began = times.filter(|times| self.is_after_all(times.started));
                let from = began.map_or_else(|| told.moment(), |times| platform(times.started));
                self.keep(Sent { from, to: None });
                0
            }
            (false, Some(open)) => self.ended(open, times, told),
            (false, None) => u64::from(self.came_and_went(times)),
        }
    }

    /// It sends still, or again after a loss of which nobody told.
    fn goes_on(&mut self, open: Sent, times: Option<Times>) -> u64 {
        match times {
            Some(times) if times.is_another(open.from.at) => {
                self.keep(Sent { to: Some(times.end_before(open.from.at)), ..open });
                self.keep(Sent { from: platform(times.started), to: None });
                1
            }
            Some(times) if open.from.source == Source::Answer && times.started <= open.from.at => {
                self.keep(Sent { from: platform(times.started), to: None });
                0
            }
            _ => {
                self.keep(open);
                0
            }
        }
    }

    /// It sends no more.
    fn ended(&mut self, open: Sent, times: Option<Times>, told: Told) -> u64 {
        let (mut open, mut missed) = (open, 0);
        if let Some(times) = times.filter(|times| times.is_another(open.from.at)) {
            self.keep(Sent { to: Some(times.end_before(open.from.at)), ..open });
            open = Sent { from: platform(times.started), to: None };
            missed = 1;
        }
        let finished = times.and_then(|times| times.finished);
        let finished = finished.filter(|end| *end >= open.from.at && *end <= told.at);
        let to = finished.map_or_else(|| told.moment(), platform);
        self.keep(Sent { to: Some(to), ..open });
        missed
    }

    /// It does not send, and did since it was last told of. Returns whether it did.
    fn came_and_went(&mut self, times: Option<Times>) -> bool {
        let span = times.and_then(|times| Some((times.started, times.finished?)));
        let span = span.filter(|(from, to)| from <= to && self.is_after_all(*from));
        if let Some((from, to)) = span {
            self.keep(Sent { from: platform(from), to: Some(platform(to)) });
        }
        span.is_some()
    }

    /// Whether `time` is after all that is known of its encoder.
    fn is_after_all(&self, time: Timestamp) -> bool {
        let last = self.sent.last().map(|sent| sent.to.unwrap_or(sent.from).at);
        last.is_none_or(|last| time > last)
    }

    /// Keeps no more stretches than are kept; the first one, when it began, stays.
    pub(super) fn forget_stretches(&mut self) {
        let more = self.sent.len().saturating_sub(MAX_STRETCHES);
        if more > 0 {
            self.sent.drain(1..=more);
        }
    }

    fn keep(&mut self, sent: Sent) {
        if self.sent.len() == MAX_STRETCHES {
            // The first one, when it began, stays.
            self.sent.remove(1);
        }
        self.sent.push(sent);
    }

    /// Whether a primary encoder that started then is one of which nobody told.
    pub(crate) fn is_unheard(&self, on_air: bool, started: Timestamp) -> bool {
        let since = match self.sent.last() {
            Some(Sent { to: Some(to), .. }) => Some(to.at),
            Some(Sent { from, to: None }) => Some(from.at).filter(|_| on_air),
            None => self.began_at,
        };
        since.is_some_and(|since| started - since > CLOCKS_DIFFER)
    }
}

#[cfg(test)]
mod tests;
