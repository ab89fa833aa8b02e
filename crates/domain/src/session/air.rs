//! What the platform's statistics tell of when an encoder sent, where nobody told it.
//!
//! An answer's own times name the last begin and the last end alone. A *doubt* is a span in which
//! more may have happened: the statistics of it show each time on air, by intervals. Not its job:
//! what is done because an encoder came or went, since by then it is long over.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use super::{Known, Sent, Session, Source};
use crate::cleanup::AirTime;
use crate::ids::Timestamp;
use crate::live_stream::CLOCKS_DIFFER;

/// A span of which it is not known when the encoder sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doubt {
    /// It was known until then.
    pub from: Timestamp,
    /// It was asked for then.
    pub to: Timestamp,
}

impl Session {
    /// Notes that more may have happened since `from` than is told at `to`.
    pub(super) fn doubts(&mut self, from: Timestamp, to: Timestamp) {
        let from = self.doubt.map_or(from, |doubt| doubt.from.min(from));
        self.doubt = Some(Doubt { from, to });
    }

    /// Applies what the statistics of a doubt tell, in steps of `step`, and ends it. They add times
    /// of which nobody knew, and say where one ended of which that was not known better.
    pub(crate) fn air_times(&mut self, doubt: Doubt, times: &[AirTime], step: TimeDelta) {
        if self.doubt == Some(doubt) {
            self.doubt = None;
        }
        if !self.fit(doubt, times, step) {
            return;
        }
        let known = Reader(step);
        let before = self.sent.len();
        let sent: Vec<Sent> =
            self.sent.drain(..).flat_map(|sent| known.pieces(sent, times)).collect();
        self.sent = sent;
        for time in times {
            let is_told = |sent: &Sent| {
                time.from < sent.to.map_or(Timestamp::MAX_UTC, |to| to.at)
                    && sent.from.at < time.until
            };
            if time.from > doubt.from && time.until < doubt.to && !self.sent.iter().any(is_told) {
                let at = self.sent.partition_point(|sent| sent.from.at <= time.from);
                let (from, to) = (known.begin(time), Some(known.end(time)));
                self.sent.insert(at, Sent { from, to });
            }
        }
        let more = self.sent.len() - before;
        if self.went_live_at.is_some() {
            self.interruptions += u64::try_from(more).unwrap_or_default();
        }
        self.forget_stretches();
    }

    /// Whether the statistics agree with the begins that the platform has told. Their times
    /// name no zone: read in a wrong one, or of another clock, they would agree with none.
    fn fit(&self, doubt: Doubt, times: &[AirTime], step: TimeDelta) -> bool {
        let slack = step + CLOCKS_DIFFER;
        let is_told = |from: &Known| matches!(from.source, Source::Platform | Source::Webhook);
        let told = self.sent.iter().map(|sent| sent.from).filter(is_told);
        // What was just begun may not be in the statistics yet.
        let mut told =
            told.filter(|from| from.at >= doubt.from && from.at + slack < doubt.to).peekable();
        let agrees = |from: Known| times.iter().any(|time| (time.from - from.at).abs() <= slack);
        told.peek().is_some() && told.all(agrees)
    }
}

/// Reads statistics, in steps of so long.
#[derive(Clone, Copy)]
struct Reader(TimeDelta);

impl Reader {
    fn begin(self, time: &AirTime) -> Known {
        self.known(time.from + self.0)
    }

    fn end(self, time: &AirTime) -> Known {
        self.known(time.until)
    }

    /// A moment: it was in the step before.
    fn known(self, at: Timestamp) -> Known {
        let within_ms = Some(self.0.num_milliseconds());
        Known { at, source: Source::Statistics, within_ms }
    }

    /// A stretch that is over, as several where the statistics show losses within, and with its end
    /// by them where they know it better.
    fn pieces(self, sent: Sent, times: &[AirTime]) -> Vec<Sent> {
        // Where a webhook told the end, another may have told each loss.
        let Some(end) = sent.to.filter(|to| to.source != Source::Webhook) else {
            return vec![sent];
        };
        let of_it = |time: &&AirTime| time.from < end.at && sent.from.at < time.until;
        let of_it: Vec<&AirTime> = times.iter().filter(of_it).collect();
        let Some((last, earlier)) = of_it.split_last() else { return vec![sent] };
        let (mut from, mut pieces) = (sent.from, Vec::new());
        for (time, next) in earlier.iter().zip(&of_it[1..]) {
            pieces.push(Sent { from, to: Some(self.end(time)) });
            from = self.begin(next);
        }
        let is_better = end.within_ms > Some(self.0.num_milliseconds()) && last.until < end.at;
        pieces.push(Sent { from, to: Some(if is_better { self.end(last) } else { end }) });
        pieces
    }
}

#[cfg(test)]
mod tests;
