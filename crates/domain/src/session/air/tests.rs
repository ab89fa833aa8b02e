//! Rules of what statistics add to what is known of an encoder, and of when they are left aside.

use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::call::CallResult;
use crate::scenario::{Answer, Scenario};

const STREAM: i64 = 320_423;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A session on air, of which nothing was heard for a quarter of an hour.
fn unheard() -> (Scenario, Uuid, Timestamp) {
    let mut s = Scenario::new();
    let session = s.request("key-1", |r| r.options.auto_go_live = true);
    s.pass(seconds(300));
    let came = s.now();
    s.encoder_connects(STREAM);
    s.recording_shows(STREAM, true);
    s.pass(seconds(900));
    s.given();
    (s, session, came)
}

/// The platform's own times show one loss, and its statistics these times on air.
fn tells(s: &mut Scenario, ends: [Timestamp; 2], times: &[(Timestamp, Timestamp)]) {
    let observed = json!({"id": STREAM, "active": true, "live": true, "backup_live": false,
        "recording": true, "started_at_primary": ends[1], "finished_at_primary": ends[0]});
    let time = |(from, until): &(Timestamp, Timestamp)| AirTime {
        from: *from,
        until: *until,
        avg_bitrate: None,
    };
    let times = times.iter().map(time).collect();
    s.platform.set(STREAM, |t| (t.live, t.recording) = (true, true));
    s.platform.script("observe_live_stream", Answer::Done(CallResult::LiveStream { observed }));
    let answer = Answer::Done(CallResult::AirTimes { times, precision_s: 10 });
    s.platform.script("probe_live_stream", answer);
    s.reconcile(STREAM);
}

fn sent(s: &Scenario, session: Uuid) -> Vec<(Timestamp, Option<Timestamp>, Source)> {
    let sent = s.session(session).sent.iter();
    sent.map(|one| (one.from.at, one.to.map(|to| to.at), one.from.source)).collect()
}

#[test]
fn statistics_add_the_times_of_which_nobody_told() {
    let (mut s, session, came) = unheard();
    let now = s.now();
    let (went, back) = (now - seconds(60), now - seconds(50));
    let between = (came + seconds(400), came + seconds(500));
    let last = (came + seconds(700), went + seconds(3));
    let first = (came - seconds(5), came + seconds(200));
    tells(&mut s, [went, back], &[first, between, last, (back - seconds(5), now + seconds(10))]);
    assert!(s.calls().contains(&"probe_live_stream"));
    let sent = sent(&s, session);
    let statistics = Source::Statistics;
    assert_eq!(
        sent,
        [
            (came, Some(first.1), Source::Webhook),
            (between.0 + seconds(10), Some(between.1), statistics),
            (last.0 + seconds(10), Some(went), statistics),
            (back, None, Source::Platform),
        ]
    );
    assert_eq!(s.session(session).interruptions, 3);
    assert_eq!(s.session(session).doubt, None);
    s.reconcile(STREAM);
    assert!(!s.calls().contains(&"probe_live_stream"), "asked once");
}

#[test]
fn statistics_of_another_zone_are_left_aside() {
    let (mut s, session, came) = unheard();
    let now = s.now();
    let off = seconds(2 * 3600);
    tells(&mut s, [now - seconds(60), now - seconds(50)], &[(came - off, now - off)]);
    assert!(s.calls().contains(&"probe_live_stream"));
    assert_eq!(sent(&s, session).len(), 2);
    assert_eq!(s.session(session).interruptions, 1);
}

#[test]
fn statistics_that_are_refused_leave_what_is_known() {
    let (mut s, session, _) = unheard();
    let now = s.now();
    tells(&mut s, [now - seconds(60), now - seconds(50)], &[]);
    s.given();
    assert_eq!(sent(&s, session).len(), 2);
    let (mut s, session, _) = unheard();
    s.platform.script("probe_live_stream", Answer::Failed("feature is disabled".to_owned()));
    let observed = json!({"id": STREAM, "active": true, "live": true, "recording": true,
        "started_at_primary": now - seconds(50), "finished_at_primary": now - seconds(60)});
    let answer = Answer::Done(CallResult::LiveStream { observed });
    s.platform.script("observe_live_stream", answer);
    s.platform.set(STREAM, |t| (t.live, t.recording) = (true, true));
    s.reconcile(STREAM);
    assert_eq!(s.session(session).doubt, None);
    assert!(s.session(session).problems.is_empty(), "it goes on without");
}
