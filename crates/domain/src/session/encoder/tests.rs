//! Rules of encoders that reconnect in a loop.

use std::time::Duration;

use uuid::Uuid;

use crate::scenario::Scenario;
use crate::session::Status;

const STREAM: i64 = 320_423;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn session(auto_go_live: bool) -> (Scenario, Uuid) {
    let mut s = Scenario::new();
    let session = s.request("key-1", |r| r.options.auto_go_live = auto_go_live);
    s.encoder_connects(STREAM);
    s.recording_shows(STREAM, true);
    s.given();
    (s, session)
}

/// Lets the encoder go and come back, `times` times, at a platform that closes the file each time.
fn reconnect(s: &mut Scenario, times: usize) {
    for _ in 0..times {
        s.encoder_drops(STREAM);
        s.pass(seconds(10));
        s.encoder_connects(STREAM);
        s.pass(seconds(5));
    }
}

fn starts(s: &mut Scenario) -> usize {
    s.calls().iter().filter(|kind| **kind == "start_recording").count()
}

#[test]
fn a_loop_of_reconnects_is_told_once_and_splits_no_further_recording() {
    let (mut s, session) = session(true);
    reconnect(&mut s, 4);
    assert_eq!(starts(&mut s), 4, "four losses are no loop");
    s.then_announced(&[]);
    reconnect(&mut s, 20);
    assert_eq!(starts(&mut s), 0);
    s.then_announced(&["SessionUnstable"]);
    s.then_status(session, Status::Live);
}

#[test]
fn an_encoder_that_sends_steadily_is_trusted_again() {
    let (mut s, session) = session(true);
    reconnect(&mut s, 7);
    s.given();
    s.pass(seconds(50));
    assert_eq!(starts(&mut s), 0);
    s.pass(seconds(10));
    assert_eq!(starts(&mut s), 1);
    assert!(!s.session(session).is_unstable());
    s.given();
    reconnect(&mut s, 5);
    s.then_announced(&["SessionUnstable"]);
}

#[test]
fn a_show_paused_in_a_loop_is_resumed_once_steady() {
    let (mut s, session) = session(true);
    reconnect(&mut s, 5);
    s.encoder_drops(STREAM);
    s.pass(seconds(20));
    s.then_status(session, Status::Interrupted);
    s.given();
    for _ in 0..5 {
        s.encoder_connects(STREAM);
        s.pass(seconds(30));
        s.encoder_drops(STREAM);
        s.pass(seconds(30));
    }
    assert!(!s.calls().contains(&"set_broadcast_status"));
    s.then_announced(&[]);
    s.encoder_connects(STREAM);
    s.pass(seconds(60));
    s.then_announced(&["SessionResumed"]);
    s.then_status(session, Status::Live);
}

#[test]
fn losses_far_apart_are_no_loop() {
    let (mut s, session) = session(true);
    for _ in 0..10 {
        reconnect(&mut s, 1);
        s.recording_shows(STREAM, true);
        s.pass(seconds(90));
    }
    assert!(!s.session(session).is_unstable());
    assert_eq!(starts(&mut s), 10);
}

#[test]
fn a_loop_before_the_show_tells_nobody_of_each_turn() {
    let (mut s, session) = session(false);
    reconnect(&mut s, 30);
    let names: Vec<_> =
        s.announcements().iter().map(crate::announcement::Announcement::name).collect();
    let count = |name: &str| names.iter().filter(|n| **n == name).count();
    assert_eq!((count("SessionUnstable"), names.len()), (1, 10), "{names:?}");
    s.then_status(session, Status::Testing);
}

#[test]
fn the_steady_timer_of_an_earlier_return_changes_nothing() {
    let (mut s, session) = session(true);
    reconnect(&mut s, 6);
    s.pass(seconds(30));
    // Its timer is due in 30 s; another return starts the time anew.
    reconnect(&mut s, 1);
    s.pass(seconds(40));
    assert!(s.session(session).is_unstable());
    s.pass(seconds(20));
    assert!(!s.session(session).is_unstable());
}
