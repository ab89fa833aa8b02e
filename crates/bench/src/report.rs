//! What a measurement tells: a header, a table with a line per turn, and as its last line one JSON
//! object of medians.

use std::fmt::{Display, Write as _};

use anyhow::{Context as _, Result};
use serde::{Serialize, Serializer};

/// Prints a line.
#[expect(clippy::print_stdout, reason = "this is the command's output")]
pub(crate) fn say(line: impl Display) {
    println!("{line}");
}

/// Prints what is being done; not part of the result.
#[expect(clippy::print_stderr, reason = "progress stands apart from the result")]
pub(crate) fn note(line: impl Display) {
    eprintln!("  .. {line}");
}

/// Tells why a command failed: the whole chain of causes.
#[expect(clippy::print_stderr, reason = "this is the command's last word")]
pub(crate) fn complain(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}

/// Prints the result, the last line.
pub(crate) fn finish(result: &impl Serialize) -> Result<()> {
    say(serde_json::to_string(result).context("write the result")?);
    Ok(())
}

/// A table that is printed line by line, as the turns end.
pub(crate) struct Table(Vec<&'static str>);

impl Table {
    /// Prints the head. The first column is the turn.
    pub(crate) fn begin(columns: &[&'static str]) -> Self {
        say("");
        say(row("turn", columns));
        Self(columns.to_vec())
    }

    /// Prints a line: `turn`, then a cell per column.
    pub(crate) fn line(&self, turn: impl Display, cells: &[String]) {
        debug_assert_eq!(self.0.len(), cells.len(), "a cell per column");
        say(row(&turn.to_string(), cells));
    }
}

/// Cells of one width, to the right.
fn row(first: &str, cells: &[impl Display]) -> String {
    let mut row = format!("{first:>8}");
    for cell in cells {
        // Writing to a string cannot fail.
        let _ = write!(row, "{cell:>14}");
    }
    row
}

/// The median; 0 of nothing. Of an even number the mean of the middle two.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (Some(low), Some(high)) =
        (sorted.get(sorted.len().saturating_sub(1) / 2), sorted.get(sorted.len() / 2))
    else {
        return 0.0;
    };
    f64::midpoint(*low, *high)
}

/// The smallest of sorted values that at least `part` of them do not exceed; 0 of nothing.
pub(crate) fn percentile(sorted: &[u32], part: f64) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rank among values in memory"
    )]
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// Median and p99 of microseconds, in milliseconds.
pub(crate) fn p50_and_p99(mut micros: Vec<u32>) -> [f64; 2] {
    micros.sort_unstable();
    [0.5, 0.99].map(|part| f64::from(percentile(&micros, part)) / 1000.0)
}

/// Things per second, where `count` took `seconds`.
pub(crate) fn rate(count: u64, seconds: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a count of events")]
    let count = count as f64;
    if seconds > 0.0 { count / seconds } else { 0.0 }
}

/// `part` of `whole`; 0 where there is no whole.
pub(crate) fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// A rate for people: whole numbers with separators.
pub(crate) fn whole(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Writes a rate as a whole number.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
pub(crate) fn as_whole<S: Serializer>(value: &f64, to: S) -> Result<S::Ok, S::Error> {
    #[expect(clippy::cast_possible_truncation, reason = "rates are far below the limit")]
    to.serialize_i64(value.round() as i64)
}

/// Writes a ratio or milliseconds with three digits.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
pub(crate) fn as_thousandths<S: Serializer>(value: &f64, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64((value * 1000.0).round() / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_the_middle_whatever_the_order() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(&[4.0, 1.0, 3.0, 2.0]) - 2.5).abs() < f64::EPSILON);
        assert!((median(&[7.0]) - 7.0).abs() < f64::EPSILON);
        assert!(median(&[]).abs() < f64::EPSILON);
    }

    #[test]
    fn percentile_is_a_value_that_was_measured() {
        let hundred: Vec<u32> = (1..=100).collect();
        assert_eq!(percentile(&hundred, 0.5), 50);
        assert_eq!(percentile(&hundred, 0.99), 99);
        assert_eq!(percentile(&hundred, 1.0), 100);
        assert_eq!(percentile(&[8], 0.5), 8);
        assert_eq!(percentile(&[], 0.5), 0);
    }

    #[test]
    fn thousands_are_separated() {
        assert_eq!(whole(0.4), "0");
        assert_eq!(whole(999.6), "1,000");
        assert_eq!(whole(1_234_567.0), "1,234,567");
        assert_eq!(whole(-123.0), "-123");
    }

    #[test]
    fn nothing_is_divided_by_zero() {
        assert!(ratio(1.0, 0.0).abs() < f64::EPSILON);
        assert!(rate(1, 0.0).abs() < f64::EPSILON);
    }

    #[test]
    fn figures_are_written_without_noise() {
        #[derive(Serialize)]
        struct Result {
            #[serde(serialize_with = "as_whole")]
            per_s: f64,
            #[serde(serialize_with = "as_thousandths")]
            ratio: f64,
        }
        let text = serde_json::to_string(&Result { per_s: 1234.56, ratio: 2.000_49 }).unwrap();
        assert_eq!(text, r#"{"per_s":1235,"ratio":2.0}"#);
    }
}
