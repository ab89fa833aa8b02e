//! What is told of a run: a story for each session that does not match, then a table, then one line.

use serde::Serialize;
use serde_json::Value;

use super::judge::Verdict;
use crate::report::{as_thousandths, finish, percentile, ratio, say};

/// Stories that are told: whoever mends something begins with the first.
const STORIES: usize = 12;

/// Events of a session that are told, from its end.
const EVENTS: usize = 120;

/// The last line. Times are of the platform, whose time is scaled.
#[derive(Debug, Default, Serialize)]
struct Figures {
    sessions: usize,
    ended: usize,
    matching: usize,
    duplicate_objects: usize,
    wrong_deletes: usize,
    lost_parts: usize,
    leaked_slots: usize,
    stuck: usize,
    #[serde(serialize_with = "as_thousandths")]
    recorded_share: f64,
    #[serde(serialize_with = "as_thousandths")]
    p50_converge_s: f64,
    #[serde(serialize_with = "as_thousandths")]
    p99_converge_s: f64,
    #[serde(serialize_with = "as_thousandths")]
    api_calls_per_session: f64,
}

/// What has been told so far.
pub(crate) struct Report {
    figures: Figures,
    recorded_ms: i64,
    live_ms: i64,
    converged_ms: Vec<u32>,
    requests: u64,
    scale: f64,
    stories: usize,
}

impl Report {
    /// Begins with what the truth says of the whole run.
    pub(crate) fn new(run: &Value, (stuck, leaked_slots): (usize, usize), scale: f64) -> Self {
        Self {
            figures: Figures { leaked_slots, stuck, ..Figures::default() },
            recorded_ms: 0,
            live_ms: 0,
            converged_ms: Vec::new(),
            requests: run["requests"].as_u64().unwrap_or_default(),
            scale,
            stories: 0,
        }
    }

    /// Whether one more story is told.
    pub(crate) fn wants_story(&self) -> bool {
        self.stories < STORIES
    }

    /// Tells a session that does not match: what is wrong, what really was, what we say, its events.
    pub(crate) fn story(
        &mut self,
        name: &str,
        verdict: &Verdict,
        (told, truths): (&Value, &[&Value]),
        course: &[String],
    ) {
        self.stories += 1;
        say(format!("\n{name}"));
        for wrong in &verdict.wrong {
            say(format!("  wrong   {wrong}"));
        }
        for truth in truths {
            say(format!("  truth   live stream {}, active {}", truth["id"], truth["active"]));
            for field in ["switches", "sending", "live", "files", "videos", "broadcasts"] {
                for one in truth[field].as_array().into_iter().flatten() {
                    say(format!("          {field:<10} {}", short(one)));
                }
            }
        }
        for field in ["status", "recording", "failure", "end_reason", "problems", "gaps", "moments"]
        {
            say(format!("  we say  {field:<10} {}", short(&told[field])));
        }
        for part in told["parts"].as_array().into_iter().flatten() {
            say(format!("          part       {}", short(part)));
        }
        for event in &course[course.len().saturating_sub(EVENTS)..] {
            say(format!("  event   {event}"));
        }
    }

    /// Adds a session.
    pub(crate) fn add(&mut self, verdict: &Verdict) {
        let figures = &mut self.figures;
        figures.sessions += 1;
        figures.ended += usize::from(verdict.ended);
        figures.matching += usize::from(verdict.wrong.is_empty());
        figures.duplicate_objects += verdict.duplicates;
        figures.wrong_deletes += verdict.wrong_deletes;
        figures.lost_parts += verdict.lost_parts;
        self.recorded_ms += verdict.recorded_ms;
        self.live_ms += verdict.live_ms;
        self.converged_ms.extend(verdict.converged_ms.and_then(|ms| u32::try_from(ms).ok()));
    }

    /// Tells the table and the last line.
    pub(crate) fn finish(mut self) -> anyhow::Result<()> {
        self.converged_ms.sort_unstable();
        let of_platform = |ms: u32| f64::from(ms) / 1000.0 * self.scale;
        let figures = &mut self.figures;
        figures.recorded_share = ratio(number(self.recorded_ms), number(self.live_ms));
        figures.p50_converge_s = of_platform(percentile(&self.converged_ms, 0.5));
        figures.p99_converge_s = of_platform(percentile(&self.converged_ms, 0.99));
        #[expect(clippy::cast_precision_loss, reason = "counts of requests and sessions")]
        let calls = ratio(self.requests as f64, figures.sessions as f64);
        figures.api_calls_per_session = calls;
        say("");
        let table = serde_json::to_value(&*figures)?;
        for (name, value) in table.as_object().into_iter().flatten() {
            say(format!("  {name:<24}{value}"));
        }
        say("");
        finish(figures)
    }
}

/// A sum of milliseconds.
fn number(ms: i64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of some years at most")]
    let number = ms as f64;
    number
}

/// A value without the dates of its times, which are all of one day.
fn short(value: &Value) -> String {
    let text = value.to_string();
    let mut short = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(at) = rest.find('T') {
        let (before, after) = rest.split_at(at);
        let is_time = before.len() >= 10
            && before.is_char_boundary(before.len() - 10)
            && before[before.len() - 10..].chars().all(|c| c.is_ascii_digit() || c == '-');
        short.push_str(if is_time { &before[..before.len() - 10] } else { before });
        if !is_time {
            short.push('T');
        }
        rest = &after[1..];
    }
    short.push_str(rest);
    short
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::short;

    #[test]
    fn times_are_told_without_their_dates() {
        let value = json!({"at": "2026-11-22T12:00:01.5Z", "what": "The Test"});
        assert_eq!(short(&value), r#"{"at":"12:00:01.5Z","what":"The Test"}"#);
    }
}
