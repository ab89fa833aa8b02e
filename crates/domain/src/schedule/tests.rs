//! When schedules fire: days on which clocks change, what was missed, and what holds always.

use proptest::prelude::{Strategy, prop, prop_assert, prop_assert_eq, proptest};

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn timing(expression: &str, zone: &str) -> Timing {
    Timing::parse(expression, zone).unwrap()
}

/// The fires after a moment, as local times with their offsets.
fn fires(expression: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    let timing = timing(expression, zone);
    let zone = timing.zone;
    let told = |fire: Timestamp| fire.with_timezone(&zone).format("%m-%d %H:%M %:z").to_string();
    timing.upcoming(at(after), count).into_iter().map(told).collect()
}

#[test]
fn a_time_that_does_not_exist_fires_once_after_the_gap() {
    // Berlin: 02:00 becomes 03:00 on 29 March 2026.
    assert_eq!(
        fires("30 2 * * *", "Europe/Berlin", "2026-03-27T12:00:00Z", 3),
        ["03-28 02:30 +01:00", "03-29 03:00 +02:00", "03-30 02:30 +02:00"]
    );
    // New York: 02:00 becomes 03:00 on 8 March 2026.
    assert_eq!(
        fires("15 2 * * *", "America/New_York", "2026-03-07T12:00:00Z", 2),
        ["03-08 03:00 -04:00", "03-09 02:15 -04:00"]
    );
}

#[test]
fn a_time_that_exists_twice_fires_the_first_time_only() {
    // Berlin: 03:00 becomes 02:00 on 25 October 2026.
    assert_eq!(
        fires("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2),
        ["10-25 02:30 +02:00", "10-26 02:30 +01:00"]
    );
    // New York: 02:00 becomes 01:00 on 1 November 2026.
    assert_eq!(
        fires("30 1 * * *", "America/New_York", "2026-10-31T12:00:00Z", 2),
        ["11-01 01:30 -04:00", "11-02 01:30 -05:00"]
    );
    // Asked between the two: the second of them is no fire.
    assert_eq!(
        fires("30 2 * * *", "Europe/Berlin", "2026-10-25T00:45:00Z", 1),
        ["10-26 02:30 +01:00"]
    );
}

#[test]
fn what_recurs_within_the_hour_goes_by_the_clock_on_the_wall() {
    assert_eq!(
        fires("*/30 * * * *", "Europe/Berlin", "2026-03-29T00:15:00Z", 3),
        ["03-29 01:30 +01:00", "03-29 03:00 +02:00", "03-29 03:30 +02:00"]
    );
    assert_eq!(
        fires("*/30 * * * *", "America/New_York", "2026-11-01T04:45:00Z", 5),
        [
            "11-01 01:00 -04:00",
            "11-01 01:30 -04:00",
            "11-01 01:00 -05:00",
            "11-01 01:30 -05:00",
            "11-01 02:00 -05:00"
        ]
    );
}

#[test]
fn forms_of_expressions_are_read() {
    let after = "2026-11-22T10:00:00Z";
    for (expression, next) in [
        ("@daily", "11-23 00:00 +00:00"),
        ("0 0 6 * * *", "11-23 06:00 +00:00"),
        ("0 9 * * MON-FRI", "11-23 09:00 +00:00"),
        ("0 0 L * *", "11-30 00:00 +00:00"),
        ("0 12 * * MON#1", "12-07 12:00 +00:00"),
    ] {
        assert_eq!(fires(expression, "UTC", after, 1), [next], "{expression}");
    }
}

#[test]
fn what_cannot_be_read_is_refused_in_words() {
    let long = "1,".repeat(200);
    for (expression, zone, words) in [
        ("", "UTC", "is not a cron expression"),
        ("tomorrow", "UTC", "is not a cron expression"),
        ("61 * * * *", "UTC", "is not a cron expression"),
        ("* * *", "UTC", "is not a cron expression"),
        (long.as_str(), "UTC", "longer than"),
        ("@daily", "Europe/Berln", "\"Europe/Berln\" is not an IANA time zone"),
        ("@daily", "", "is not an IANA time zone"),
    ] {
        let refusal = Timing::parse(expression, zone).unwrap_err().to_string();
        assert!(refusal.contains(words), "{refusal}");
    }
}

#[test]
fn an_expression_that_names_no_day_never_fires() {
    assert_eq!(timing("0 0 30 2 *", "UTC").next_after(at("2026-11-22T10:00:00Z")), None);
}

#[test]
fn missed_fires_are_skipped_coalesced_or_caught_up() {
    let hourly = timing("0 * * * *", "UTC");
    let due = at("2026-11-22T03:00:00Z");
    let now = at("2026-11-22T07:20:00Z");
    let fires = |missed, now| {
        let Owed { fires, next } = hourly.owed(missed, due, now);
        assert_eq!(next, hourly.next_after(now));
        fires.iter().map(|at| at.format("%H").to_string()).collect::<Vec<_>>()
    };
    assert_eq!(fires(Missed::Skip, now), Vec::<String>::new());
    assert_eq!(fires(Missed::Coalesce, now), ["07"]);
    assert_eq!(fires(Missed::CatchUp(3), now), ["05", "06", "07"]);
    assert_eq!(fires(Missed::CatchUp(100), now), ["03", "04", "05", "06", "07"]);
    // The last of them is on time.
    assert_eq!(fires(Missed::Skip, at("2026-11-22T07:01:00Z")), ["07"]);
    for missed in [Missed::Skip, Missed::Coalesce, Missed::CatchUp(9)] {
        assert_eq!(fires(missed, at("2026-11-22T03:00:00.000001Z")), ["03"]);
        assert_eq!(fires(missed, at("2026-11-22T02:59:59Z")), Vec::<String>::new());
    }
}

#[test]
fn what_was_missed_for_years_is_found_at_once() {
    let every_second = timing("* * * * * *", "Europe/Berlin");
    let (due, now) = (at("2000-01-01T00:00:00Z"), at("2026-11-22T07:20:00.5Z"));
    let Owed { fires, next } = every_second.owed(Missed::CatchUp(100), due, now);
    assert_eq!(fires.len(), 100);
    assert_eq!(fires.last(), Some(&at("2026-11-22T07:20:00Z")));
    assert_eq!(next, Some(at("2026-11-22T07:20:01Z")));
}

#[test]
fn names_of_schedules() {
    for name in ["nightly", "1st", "clean-up.eu_1", &"x".repeat(63)] {
        assert!(is_name(name), "{name}");
    }
    for name in ["", "-a", "A", "a b", "ä", "a/b", &"x".repeat(64)] {
        assert!(!is_name(name), "{name}");
    }
}

/// Expressions of all sorts: fixed times, lists, steps, days.
fn expression() -> impl Strategy<Value = String> {
    let minute = prop::sample::select(vec!["0", "30", "*/7", "5,50", "*"]);
    let hour = prop::sample::select(vec!["*", "2", "1-3", "*/5", "23", "0"]);
    let day = prop::sample::select(vec!["*", "1", "L", "25-31"]);
    let month = prop::sample::select(vec!["*", "3", "10,11"]);
    (minute, hour, day, month).prop_map(|(m, h, d, mo)| format!("{m} {h} {d} {mo} *"))
}

fn zone() -> impl Strategy<Value = &'static str> {
    // Changes at night, in the evening, of half an hour, and none.
    prop::sample::select(vec![
        "Europe/Berlin",
        "America/New_York",
        "America/Havana",
        "Australia/Lord_Howe",
        "Asia/Kolkata",
        "UTC",
    ])
}

proptest! {
    #[test]
    fn the_next_fire_is_later_and_never_goes_back(
        expression in expression(),
        zone in zone(),
        // 2020 to 2036, in microseconds.
        from in 1_577_836_800_000_000_i64..2_082_758_400_000_000,
        ahead in 0_i64..90_000_000_000,
    ) {
        let timing = timing(&expression, zone);
        let now = Timestamp::from_timestamp_micros(from).unwrap();
        let later = Timestamp::from_timestamp_micros(from + ahead).unwrap();
        let next = timing.next_after(now).unwrap();
        prop_assert!(next > now);
        prop_assert!(timing.next_after(later).unwrap() >= next);
        prop_assert_eq!(timing.next_after(next - TimeDelta::microseconds(1)), Some(next));
        let fires = timing.upcoming(now, 5);
        prop_assert!(fires.is_sorted_by(|a, b| a < b));
    }

    /// Looking back finds what looking ahead would have.
    #[test]
    fn what_is_caught_up_is_what_was_missed(
        expression in expression(),
        zone in zone(),
        from in 1_577_836_800_i64..2_082_758_400,
        away in 0_i64..1_000_000,
        limit in 1_u16..5,
    ) {
        let timing = timing(&expression, zone);
        let due = timing.next_after(Timestamp::from_timestamp(from, 0).unwrap()).unwrap();
        let now = due + TimeDelta::seconds(away);
        let ahead = std::iter::successors(Some(due), |at| timing.next_after(*at));
        let missed: Vec<Timestamp> = ahead.take_while(|at| *at <= now).collect();
        let last = missed.len().saturating_sub(usize::from(limit));
        prop_assert_eq!(&timing.owed(Missed::CatchUp(limit), due, now).fires, &missed[last..]);
        prop_assert_eq!(&timing.owed(Missed::Coalesce, due, now).fires, &missed[missed.len() - 1..]);
    }
}
