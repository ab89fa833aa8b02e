//! Rules of interruptions and failures.

use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use crate::announcement::Announcement;
use crate::call::CallResult;
use crate::ids::LiveStreamId;
use crate::scenario::{Answer, Scenario};
use crate::session::Status;

const STREAM: i64 = 320_423;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A session on air with its recording running.
fn live() -> (Scenario, Uuid) {
    let mut s = Scenario::new();
    let session = s.request("key-1", |r| r.options.auto_go_live = true);
    s.encoder_connects(STREAM);
    s.recording_shows(STREAM, true);
    s.given();
    (s, session)
}

fn failed(reason: &str) -> Answer {
    Answer::Failed(reason.to_owned())
}

#[test]
fn an_interruption_shorter_than_grace_changes_nothing() {
    let (mut s, session) = live();
    s.platform.set(STREAM, |t| t.live = false);
    s.tell(STREAM);
    s.pass(seconds(19));
    s.encoder_connects(STREAM);
    s.pass(seconds(5));
    s.then_nothing();
    s.then_status(session, Status::Live);
    assert_eq!(s.session(session).interruptions, 1);
}

#[test]
fn a_short_interruption_that_ended_the_file_starts_another() {
    let (mut s, session) = live();
    s.encoder_drops(STREAM);
    s.pass(seconds(5));
    s.encoder_connects(STREAM);
    s.then_calls(&["start_recording"]);
    s.then_announced(&[]);
    s.then_status(session, Status::Live);
}

#[test]
fn an_interruption_longer_than_grace_pauses_the_show_until_the_return() {
    let (mut s, session) = live();
    s.encoder_drops(STREAM);
    s.pass(seconds(20));
    s.then_calls(&["observe_live_stream", "set_broadcast_status"]);
    s.then_announced(&["SessionInterrupted"]);
    assert!(s.session(session).shows("paused"));
    s.encoder_connects(STREAM);
    s.then_calls(&["set_broadcast_status", "start_recording"]);
    s.then_announced(&["SessionResumed"]);
    s.then_status(session, Status::Live);
    assert!(s.session(session).shows("live"));
}

#[test]
fn a_file_held_open_is_closed_after_grace() {
    let (mut s, _) = live();
    s.platform.set(STREAM, |t| t.live = false);
    s.tell(STREAM);
    s.pass(seconds(20));
    s.then_calls(&["observe_live_stream", "stop_recording", "set_broadcast_status"]);
}

#[test]
fn an_interrupted_recording_has_two_parts_and_a_gap_by_the_platforms_times() {
    let (mut s, session) = live();
    let began = s.now();
    s.pass(seconds(48));
    s.encoder_drops(STREAM);
    // 48.41 s long, and known by its live stream's id alone.
    s.platform.add_video(STREAM, 1, "pending", began);
    s.tell_video(1, "pending");
    s.pass(seconds(72));
    s.encoder_connects(STREAM);
    s.recording_shows(STREAM, true);
    s.platform.add_video(STREAM, 2, "pending", began + seconds(120));
    let stopped = json!({"id": 2, "stream_id": STREAM});
    s.platform.script(
        "stop_recording",
        Answer::Done(CallResult::RecordingStopped { video: Some(stopped) }),
    );
    s.end(session);
    s.encoder_drops(STREAM);
    for video in [2, 1] {
        s.tell_video(video, "ready");
    }
    s.pass(seconds(120));
    let recording = &s.session(session).recording;
    let parts: Vec<i64> = recording.parts.iter().map(|p| p.video.id.0).collect();
    assert_eq!(parts, [1, 2]);
    assert_eq!(recording.gaps()[0].ms, 120_000 - 48_410);
}

#[test]
fn failover_to_the_backup_is_no_interruption() {
    let (mut s, session) = live();
    s.platform.set(STREAM, |t| {
        t.live = false;
        t.backup_live = true;
    });
    s.tell(STREAM);
    s.pass(seconds(25));
    s.then_announced(&[]);
    s.then_calls(&[]);
    assert_eq!(s.session(session).interruptions, 0);
}

#[test]
fn each_interruption_has_its_own_grace() {
    let (mut s, session) = live();
    for _ in 0..3 {
        s.platform.set(STREAM, |t| t.live = false);
        s.tell(STREAM);
        s.pass(seconds(15));
        s.encoder_connects(STREAM);
        s.pass(seconds(3));
    }
    s.then_announced(&[]);
    s.encoder_drops(STREAM);
    s.pass(seconds(20));
    s.then_status(session, Status::Interrupted);
    s.then_announced(&["SessionInterrupted"]);
}

#[test]
fn the_next_session_on_a_live_stream_has_its_own_grace_too() {
    let (mut s, first) = live();
    s.encoder_drops(STREAM);
    s.pass(seconds(20));
    s.end(first);
    let second = s.request("key-2", |r| {
        r.live_stream = Some(LiveStreamId(STREAM));
        r.options.auto_go_live = true;
    });
    s.pass(seconds(60));
    s.encoder_connects(STREAM);
    s.then_status(second, Status::Live);
    s.encoder_drops(STREAM);
    s.pass(seconds(20));
    s.then_status(second, Status::Interrupted);
}

#[test]
fn a_return_while_the_pause_is_in_flight_is_shown_again() {
    let (mut s, session) = live();
    s.encoder_drops(STREAM);
    s.platform.hold("set_broadcast_status");
    s.pass(seconds(20));
    s.encoder_connects(STREAM);
    s.platform.release("set_broadcast_status");
    s.let_go("set_broadcast_status");
    assert!(s.session(session).shows("live"));
    s.then_status(session, Status::Live);
}

#[test]
fn a_failed_call_fails_its_session_with_a_reason_and_a_retry_resumes() {
    let mut s = Scenario::new();
    s.platform.script("create_broadcast", failed("422: name can't be blank"));
    let session = s.request("key-1", |_| {});
    s.then_status(session, Status::Failed);
    let announced = s.announcements();
    let [Announcement::SessionFailed(news)] = announced.as_slice() else { panic!("{announced:?}") };
    assert_eq!(news.note.as_deref(), Some("create_broadcast: 422: name can't be blank"));
    s.given();
    s.pass(seconds(600));
    s.then_nothing();
    s.retry(session);
    s.then_calls(&["create_broadcast", "activate_live_stream"]);
    s.then_announced(&["SessionReady"]);
}

#[test]
fn a_failure_leaves_other_sessions_alone() {
    let mut s = Scenario::new();
    s.platform.script("activate_live_stream", failed("quota"));
    let (one, other) = (s.request("key-1", |_| {}), s.request("key-2", |_| {}));
    s.then_status(one, Status::Failed);
    s.then_status(other, Status::Ready);
}

#[test]
fn an_activation_given_up_frees_the_slot_it_may_have_taken() {
    let mut s = Scenario::new();
    s.platform.script("activate_live_stream", failed("no answer"));
    let session = s.request("key-1", |_| {});
    assert_eq!(s.calls().last(), Some(&"deactivate_live_stream"));
    s.then_status(session, Status::Failed);
    s.retry(session);
    s.then_calls(&["activate_live_stream"]);
    s.then_status(session, Status::Ready);
}

#[test]
fn a_failed_session_can_be_ended() {
    let mut s = Scenario::new();
    s.platform.script("activate_live_stream", failed("quota"));
    let session = s.request("key-1", |_| {});
    s.end(session);
    s.then_status(session, Status::Ended);
}

#[test]
fn a_failure_on_air_keeps_the_slot_until_the_encoder_is_gone_for_good() {
    let (mut s, session) = live();
    s.encoder_drops(STREAM);
    s.pass(seconds(20));
    s.platform.script("set_broadcast_status", failed("500"));
    s.encoder_connects(STREAM);
    s.then_status(session, Status::Failed);
    s.given();
    s.pass(seconds(50));
    assert!(!s.calls().contains(&"deactivate_live_stream"), "its encoder sends");
    s.retry(session);
    s.then_status(session, Status::Live);
    s.platform.script("set_broadcast_status", failed("500"));
    s.encoder_drops(STREAM);
    s.pass(seconds(20));
    s.platform.script("set_broadcast_status", failed("500"));
    s.encoder_connects(STREAM);
    s.encoder_drops(STREAM);
    s.pass(seconds(25));
    assert_eq!(s.calls().last(), Some(&"deactivate_live_stream"));
    s.retry(session);
    s.encoder_connects(STREAM);
    s.then_status(session, Status::Live);
}

#[test]
fn an_end_that_failed_goes_on_by_retry_or_by_another_end() {
    for by_retry in [true, false] {
        let mut s = Scenario::new();
        let session = s.request("key-1", |_| {});
        s.platform.script("deactivate_live_stream", failed("500"));
        s.end(session);
        s.then_status(session, Status::Failed);
        if by_retry {
            s.retry(session);
        } else {
            s.end(session);
        }
        s.then_status(session, Status::Ended);
    }
}

#[test]
fn a_live_stream_gone_from_the_platform_fails_the_session_and_can_be_ended() {
    let mut s = Scenario::new();
    let session = s.request("key-1", |_| {});
    s.platform.delete_stream(STREAM);
    s.pass(seconds(30));
    s.then_status(session, Status::Failed);
    assert!(s.live_stream(STREAM).deleted);
    s.given();
    s.retry(session);
    s.then_status(session, Status::Failed);
    s.pass(seconds(600));
    s.then_calls(&[]);
    s.end(session);
    s.then_status(session, Status::Ended);
}

#[test]
fn a_live_stream_switched_off_by_hand_fails_the_session_instead_of_a_fight() {
    let mut s = Scenario::new();
    let session = s.request("key-1", |_| {});
    s.platform.set(STREAM, |t| t.active = false);
    s.given();
    s.pass(seconds(600));
    s.then_status(session, Status::Failed);
    s.then_calls(&["observe_live_stream"]);
    s.retry(session);
    s.then_calls(&["activate_live_stream"]);
    s.then_status(session, Status::Ready);
}

#[test]
fn a_broadcast_deleted_by_hand_fails_the_session_and_a_retry_makes_another() {
    let mut s = Scenario::new();
    let session = s.request("key-1", |r| r.options.auto_go_live = true);
    s.platform.script("set_broadcast_status", Answer::Done(CallResult::Gone));
    s.encoder_connects(STREAM);
    s.then_status(session, Status::Failed);
    s.given();
    s.retry(session);
    s.then_calls(&["create_broadcast", "set_broadcast_status", "start_recording"]);
    s.then_status(session, Status::Live);
}

#[test]
fn a_label_set_by_hand_is_left_alone_until_somebody_commands_otherwise() {
    for label in ["paused", "finished"] {
        let (mut s, session) = live();
        s.tell_broadcast(192_470, label);
        s.pass(seconds(120));
        assert!(!s.calls().contains(&"set_broadcast_status"), "{label}");
        s.then_status(session, Status::Live);
        s.go_live(session);
        s.then_calls(&["set_broadcast_status"]);
        assert!(s.session(session).shows("live"));
        s.then_announced(&[]);
    }
}

#[test]
fn what_somebody_makes_of_the_broadcast_is_noticed_without_a_webhook() {
    let (mut s, session) = live();
    s.platform.label_broadcast(192_470, "paused");
    s.pass(seconds(40));
    s.then_calls(&["observe_broadcast"]);
    assert!(s.session(session).label_by_hand);
    s.given();
    s.pass(seconds(300));
    s.then_calls(&[]);
    s.platform.delete_broadcast(192_470);
    s.pass(seconds(40));
    s.then_calls(&["observe_broadcast"]);
    s.then_status(session, Status::Failed);
    s.given();
    s.retry(session);
    s.then_calls(&["create_broadcast", "set_broadcast_status"]);
    s.then_status(session, Status::Live);
}

#[test]
fn lists_that_do_not_tell_a_broadcast_lead_to_one_look_and_no_more() {
    let (mut s, session) = live();
    s.platform.lists_no_broadcasts = true;
    s.pass(seconds(40));
    s.then_calls(&["observe_broadcast"]);
    s.given();
    s.pass(seconds(600));
    s.then_calls(&[]);
    s.then_status(session, Status::Live);
}

#[test]
fn a_broadcast_whose_deletion_was_given_up_is_deleted_when_another_session_takes_the_live_stream() {
    let (mut s, _) = left_broadcast();
    // The next session's own broadcast is not touched.
    let next = s.request("key-2", |r| r.live_stream = Some(LiveStreamId(STREAM)));
    s.given();
    s.pass(seconds(40));
    s.then_calls(&[]);
    let left = s.platform.broadcasts_of(STREAM);
    assert_eq!(left.iter().map(|b| b["id"].as_i64()).collect::<Vec<_>>(), [Some(192_471)]);
    assert!(s.session(next).open_broadcast().is_some());
}

#[test]
fn a_broadcast_whose_deletion_was_given_up_is_deleted_though_its_live_stream_is_gone() {
    let (mut s, _) = left_broadcast();
    s.platform.delete_stream(STREAM);
    // Its video, which never comes, is awaited first.
    s.pass(seconds(14 * 3600));
    assert!(s.platform.broadcasts_of(STREAM).is_empty());
    s.given();
    s.pass(seconds(24 * 3600));
    s.then_calls(&[]);
}

/// A session that is over, whose broadcast could not be deleted.
fn left_broadcast() -> (Scenario, Uuid) {
    let (mut s, session) = live();
    s.platform.script("delete_broadcast", Answer::Failed("500".to_owned()));
    s.end(session);
    s.recording_shows(STREAM, false);
    s.encoder_drops(STREAM);
    s.pass(seconds(60));
    assert!(s.session(session).is_off_air());
    assert_eq!(s.platform.broadcasts_of(STREAM).len(), 1, "left behind");
    (s, session)
}

#[test]
fn a_label_set_by_hand_is_paused_with_an_interruption_and_shown_after_it() {
    let (mut s, session) = live();
    s.tell_broadcast(192_470, "pending");
    s.encoder_drops(STREAM);
    s.pass(seconds(20));
    s.then_calls(&["observe_live_stream", "set_broadcast_status"]);
    s.encoder_connects(STREAM);
    s.then_calls(&["set_broadcast_status", "start_recording"]);
    s.then_status(session, Status::Live);
}

#[test]
fn the_echo_of_our_own_label_is_nobodys_hand() {
    let mut s = Scenario::new();
    s.platform.hold("set_broadcast_status");
    let session = s.request("key-1", |r| r.options.auto_go_live = true);
    s.encoder_connects(STREAM);
    s.tell_broadcast(192_470, "live");
    s.tell_broadcast(192_470, "pending");
    s.let_go("set_broadcast_status");
    assert!(!s.session(session).label_by_hand);
    s.then_status(session, Status::Live);
}

#[test]
fn a_loss_that_the_platform_denies_interrupts_nothing() {
    let (mut s, session) = live();
    let lie = json!({"type": "stream", "message": {"stream": {"id": STREAM, "live": false}}});
    s.webhook(lie.to_string().as_bytes());
    s.pass(seconds(20));
    s.then_calls(&["observe_live_stream"]);
    s.then_announced(&[]);
    s.then_status(session, Status::Live);
    assert_eq!(s.session(session).interruption, None);
}

#[test]
fn a_loss_is_believed_where_the_platform_cannot_be_asked() {
    let (mut s, session) = live();
    s.encoder_drops(STREAM);
    s.platform.script("observe_live_stream", failed("503"));
    s.pass(seconds(20));
    s.then_status(session, Status::Interrupted);
}

#[test]
fn a_loss_found_by_asking_is_not_asked_for_again() {
    let (mut s, session) = live();
    s.platform.set(STREAM, |t| t.live = false);
    s.pass(seconds(30));
    s.then_calls(&["observe_live_stream"]);
    s.pass(seconds(20));
    s.then_calls(&["stop_recording", "set_broadcast_status"]);
    s.then_status(session, Status::Interrupted);
}

#[test]
fn a_slot_that_could_not_be_freed_is_freed_once_the_platform_lets_us() {
    let mut s = Scenario::new();
    let session = s.request("key-1", |_| {});
    for _ in 0..3 {
        s.platform.script("deactivate_live_stream", failed("500"));
    }
    s.end(session);
    s.then_status(session, Status::Failed);
    s.pass(seconds(300));
    s.then_status(session, Status::Ended);
    s.then_announced(&["SessionReady", "SessionFailed", "SessionEnded"]);
}

#[test]
fn what_the_show_can_go_on_without_fails_nothing() {
    let (mut s, session) = live();
    for kind in ["stop_recording", "set_broadcast_status", "delete_broadcast", "list_videos"] {
        s.platform.script(kind, failed("500"));
    }
    s.end(session);
    s.encoder_drops(STREAM);
    s.pass(seconds(1200));
    s.then_status(session, Status::Ended);
    let problems = &s.session(session).problems;
    assert_eq!(problems.len(), 4, "{problems:?}");
}

#[test]
fn text_that_the_database_cannot_hold_is_replaced() {
    let mut s = Scenario::new();
    s.platform.script("create_broadcast", failed("bad\0text"));
    let session = s.request("key-1", |_| {});
    let failure = s.session(session).failure.clone().unwrap();
    assert_eq!(failure.reason, "bad\u{fffd}text");
}
