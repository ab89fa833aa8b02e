//! Rules of what is known of an encoder's coming and going, whoever tells it.

use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::call::CallResult;
use crate::scenario::{Answer, Scenario};
use crate::session::Status;

const STREAM: i64 = 320_423;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A session that waits for its encoder.
fn ready() -> (Scenario, Uuid) {
    let mut s = Scenario::new();
    let session = s.request("key-1", |r| r.options.auto_go_live = true);
    s.pass(seconds(300));
    s.given();
    (s, session)
}

/// Asks, and is answered with the platform's own times.
fn answers(s: &mut Scenario, live: bool, recording: bool, times: [Option<Timestamp>; 3]) {
    let [started, finished, backup] = times;
    let observed = json!({"id": STREAM, "active": true, "live": live, "backup_live": false,
        "recording": recording, "started_at_primary": started, "finished_at_primary": finished,
        "started_at_backup": backup});
    let answer = Answer::Done(CallResult::LiveStream { observed });
    s.platform.set(STREAM, |t| (t.live, t.recording) = (live, recording));
    s.platform.script("observe_live_stream", answer);
    s.reconcile(STREAM);
}

/// The stretches, each as its ends and how they are known.
fn sent(s: &Scenario, session: Uuid) -> Vec<(Timestamp, Option<Timestamp>, Vec<Source>)> {
    let of = |sent: &Sent| {
        let sources = std::iter::once(sent.from).chain(sent.to).map(|known| known.source);
        (sent.from.at, sent.to.map(|to| to.at), sources.collect())
    };
    s.session(session).sent.iter().map(of).collect()
}

#[test]
fn what_webhooks_tell_is_known_when_they_come() {
    let (mut s, session) = ready();
    let came = s.now();
    s.encoder_connects(STREAM);
    assert_eq!(sent(&s, session), [(came, None, vec![Source::Webhook])]);
    s.pass(seconds(60));
    let went = s.now();
    s.encoder_drops(STREAM);
    let ends = vec![Source::Webhook, Source::Webhook];
    assert_eq!(sent(&s, session)[0], (came, Some(went), ends));
}

#[test]
fn a_connection_of_which_nobody_told_is_dated_by_the_platform() {
    let (mut s, session) = ready();
    let came = s.now() - seconds(100);
    answers(&mut s, true, false, [Some(came), None, None]);
    assert_eq!(sent(&s, session), [(came, None, vec![Source::Platform])]);
    assert_eq!(s.session(session).sent[0].from.within_ms, Some(1000));
}

#[test]
fn without_the_platforms_times_it_was_since_it_was_last_told_of() {
    let (mut s, session) = ready();
    let asked = s.now();
    answers(&mut s, true, false, [None; 3]);
    assert_eq!(sent(&s, session), [(asked, None, vec![Source::Answer])]);
    assert_eq!(s.session(session).sent[0].from.within_ms, Some(300_000));
}

#[test]
fn an_encoder_that_came_and_went_unheard_is_known_by_the_platforms_times() {
    let (mut s, session) = ready();
    let (came, went) = (s.now() - seconds(200), s.now() - seconds(90));
    for _ in 0..2 {
        answers(&mut s, false, false, [Some(came), Some(went), None]);
        let ends = vec![Source::Platform, Source::Platform];
        assert_eq!(sent(&s, session), [(came, Some(went), ends)], "once, however often it is told");
    }
    s.then_status(session, Status::Ready);
}

#[test]
fn a_loss_and_return_of_which_nobody_told_restarts_the_recording() {
    let (mut s, session) = ready();
    s.encoder_connects(STREAM);
    s.recording_shows(STREAM, true);
    s.pass(seconds(300));
    s.given();
    let (went, back) = (s.now() - seconds(60), s.now() - seconds(20));
    answers(&mut s, true, false, [Some(back), Some(went), None]);
    let stretches = sent(&s, session);
    assert_eq!(stretches.len(), 2);
    assert_eq!((stretches[0].1, stretches[1].0), (Some(went), back));
    assert_eq!(s.session(session).interruptions, 1);
    s.then_calls(&["observe_live_stream", "start_recording", "probe_live_stream"]);
}

#[test]
fn a_recording_that_somebody_stopped_stays_stopped() {
    let (mut s, session) = ready();
    let came = s.now();
    s.encoder_connects(STREAM);
    s.recording_shows(STREAM, true);
    s.pass(seconds(300));
    s.given();
    answers(&mut s, true, false, [Some(came), None, None]);
    s.then_calls(&["observe_live_stream"]);
    assert_eq!(s.session(session).interruptions, 0);
}

#[test]
fn a_failover_to_the_backup_and_back_is_no_loss() {
    let (mut s, session) = ready();
    s.encoder_connects(STREAM);
    s.pass(seconds(300));
    let (went, backup, back) =
        (s.now() - seconds(200), s.now() - seconds(197), s.now() - seconds(60));
    answers(&mut s, true, false, [Some(back), Some(went), Some(backup)]);
    assert_eq!(sent(&s, session).len(), 1);
    assert_eq!(s.session(session).interruptions, 0);
}

#[test]
fn what_was_before_the_session_is_not_its_encoder() {
    let (mut s, session) = ready();
    let long_ago = s.now() - seconds(4000);
    answers(&mut s, false, false, [Some(long_ago), Some(long_ago + seconds(60)), None]);
    assert!(sent(&s, session).is_empty());
}
