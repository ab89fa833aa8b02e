//! The header `Retry-After`: seconds or an HTTP date.

use std::time::{Duration, SystemTime};

/// Longest wait that is believed. A clock set wrong at the other end must not park a job for days.
const LONGEST: Duration = Duration::from_hours(1);

/// Reads the header's value. `now` is the server's own `Date` where it sent one, so that a
/// difference between the clocks does not count. Returns `None` if it is neither form.
pub(crate) fn parse(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    let wait = match value.parse::<f64>() {
        Ok(seconds) if seconds.is_nan() => return None,
        Ok(seconds) => {
            Duration::try_from_secs_f64(seconds.clamp(0.0, LONGEST.as_secs_f64())).ok()?
        }
        Err(_) => httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(wait.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Thu, 01 Jan 1970 00:00:00 GMT.
    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    #[test]
    fn every_form_is_read_and_capped_at_an_hour() {
        let cases = [
            ("0", Some(0.0)),
            ("7", Some(7.0)),
            (" 1.5 ", Some(1.5)),
            ("-3", Some(0.0)),
            ("86400", Some(3600.0)),
            ("1e300", Some(3600.0)),
            ("Thu, 01 Jan 1970 00:00:40 GMT", Some(40.0)),
            ("Thursday, 01-Jan-70 00:00:40 GMT", Some(40.0)),
            ("Thu, 01 Jan 1970 05:00:00 GMT", Some(3600.0)),
            ("", None),
            ("soon", None),
            ("NaN", None),
            ("Thu, 32 Jan 1970 00:00:40 GMT", None),
        ];
        for (value, seconds) in cases {
            assert_eq!(parse(value, NOW).map(|wait| wait.as_secs_f64()), seconds, "{value:?}");
        }
    }

    #[test]
    fn a_date_in_the_past_means_now() {
        let now = NOW + Duration::from_hours(1);
        assert_eq!(parse("Thu, 01 Jan 1970 00:00:40 GMT", now), Some(Duration::ZERO));
    }
}
