//! Rules of waits that never end by themselves.

use std::time::Duration;

use uuid::Uuid;

use crate::call::CallResult;
use crate::recording::RecordingStatus;
use crate::scenario::{Answer, Scenario};
use crate::session::Status;
use crate::timer::{Limits, Policy};

const STREAM: i64 = 320_423;
const VIDEO: i64 = 803_111;
const HOUR: Duration = Duration::from_hours(1);

fn live() -> (Scenario, Uuid) {
    let mut s = Scenario::new();
    let session = s.request("key-1", |r| r.options.auto_go_live = true);
    s.encoder_connects(STREAM);
    s.recording_shows(STREAM, true);
    s.given();
    (s, session)
}

/// A session off air whose video is said to be in work.
fn processing() -> (Scenario, Uuid) {
    let (mut s, session) = live();
    s.pass(Duration::from_mins(1));
    s.end(session);
    s.recording_shows(STREAM, false);
    s.tell_video(VIDEO, "pending");
    s.encoder_drops(STREAM);
    s.then_status(session, Status::Processing);
    s.given();
    (s, session)
}

fn names(s: &mut Scenario) -> Vec<&'static str> {
    s.announcements().iter().map(crate::announcement::Announcement::name).collect()
}

#[test]
fn a_session_that_gets_no_slot_in_time_fails_and_can_be_retried() {
    let mut s = Scenario::new();
    let refused = || Answer::Done(CallResult::Deferred { reason: "limit".to_owned() });
    for _ in 0..100 {
        s.platform.script("activate_live_stream", refused());
    }
    s.policy.limits.slot = Duration::from_mins(10);
    let session = s.request("key-1", |_| {});
    s.pass(Duration::from_mins(9));
    s.then_status(session, Status::Preparing);
    s.pass(Duration::from_mins(2));
    s.then_status(session, Status::Failed);
    s.platform.forget_script("activate_live_stream");
    s.retry(session);
    // It queues again, and its turn comes when the learnt bound is tried.
    s.pass(s.policy.slot * 10);
    s.then_status(session, Status::Ready);
}

#[test]
fn a_session_whose_encoder_never_comes_frees_its_slot_and_a_retry_lets_it_in() {
    let mut s = Scenario::new();
    let session = s.request("key-1", |_| {});
    s.given();
    s.pass(HOUR * 23);
    s.then_status(session, Status::Ready);
    s.given();
    s.pass(HOUR + Duration::from_mins(5));
    s.then_status(session, Status::Failed);
    assert_eq!(s.calls().last(), Some(&"deactivate_live_stream"));
    s.then_announced(&["SessionFailed"]);
    s.retry(session);
    s.then_calls(&["activate_live_stream"]);
    s.then_status(session, Status::Ready);
}

#[test]
fn a_test_that_an_encoder_came_for_begins_the_wait_anew() {
    let mut s = Scenario::new();
    let session = s.request("key-1", |_| {});
    s.pass(HOUR * 20);
    s.encoder_connects(STREAM);
    s.pass(HOUR);
    s.encoder_drops(STREAM);
    s.pass(HOUR * 20);
    s.then_status(session, Status::Ready);
}

#[test]
fn a_test_that_nobody_shows_ends_though_its_encoder_sends() {
    let mut s = Scenario::new();
    let session = s.request("key-1", |_| {});
    s.encoder_connects(STREAM);
    s.pass(Duration::from_secs(24 * 3_600 - 1));
    s.then_status(session, Status::Testing);
    s.given();
    s.pass(Duration::from_mins(5));
    s.then_status(session, Status::Ended);
    assert!(s.calls().contains(&"deactivate_live_stream"));
    let reason = s.session(session).end_reason.as_deref();
    assert_eq!(reason, Some("nobody showed it in time"));
}

#[test]
fn what_is_shown_for_days_waits_for_nothing() {
    let (mut s, session) = live();
    s.pass(HOUR * 72);
    s.then_status(session, Status::Live);
}

#[test]
fn an_interrupted_session_ends_when_its_encoder_does_not_come_back() {
    let (mut s, session) = live();
    s.encoder_drops(STREAM);
    s.pass(HOUR * 2);
    s.then_status(session, Status::Interrupted);
    s.given();
    s.pass(Duration::from_secs(20));
    assert!(s.session(session).end);
    let reason = s.session(session).end_reason.clone();
    assert_eq!(reason.as_deref(), Some("the encoder did not come back in time"));
    let stopped = s.announcements();
    let [crate::announcement::Announcement::SessionStopped(news)] = stopped.as_slice() else {
        panic!("{stopped:?}")
    };
    assert_eq!(news.note, reason);
}

#[test]
fn a_return_just_before_the_deadline_counts() {
    let (mut s, session) = live();
    s.encoder_drops(STREAM);
    s.pass(Duration::from_mins(119));
    s.encoder_connects(STREAM);
    s.pass(HOUR);
    s.then_status(session, Status::Live);
}

#[test]
fn a_failed_session_that_nobody_retries_ends() {
    let mut s = Scenario::new();
    s.platform.script("create_broadcast", Answer::Failed("422".to_owned()));
    let session = s.request("key-1", |_| {});
    s.given();
    s.pass(HOUR * (24 * 7 - 1));
    s.then_nothing();
    s.pass(HOUR * 2);
    s.then_status(session, Status::Ended);
    assert_eq!(s.session(session).problems, ["create_broadcast: 422"]);
    assert_eq!(names(&mut s), ["SessionEnded"]);
}

#[test]
fn a_video_stuck_in_work_is_told_and_its_recording_completed_without_it() {
    let (mut s, session) = processing();
    s.platform.set_video(VIDEO, "pending");
    s.pass(Duration::from_secs(12 * 3_600 - 1));
    s.then_status(session, Status::Processing);
    let polls = s.calls().len();
    assert!(polls < 15, "{polls} polls in twelve hours");
    s.given();
    s.pass(Duration::from_secs(1));
    s.then_status(session, Status::Ended);
    assert_eq!(names(&mut s), ["RecordingPartOverdue", "SessionEnded"]);
    let recording = &s.session(session).recording;
    assert_eq!(recording.status(true), RecordingStatus::Incomplete);
    assert_eq!(recording.lacks(), [format!("video {VIDEO} is pending")]);
    s.given();
    s.pass(HOUR * 24);
    s.then_nothing();
}

#[test]
fn late_news_of_an_overdue_video_are_still_heard() {
    let (mut s, session) = processing();
    s.pass(HOUR * 13);
    s.then_status(session, Status::Ended);
    s.given();
    s.tell_video(VIDEO, "ready");
    s.then_calls(&["fetch_video"]);
    assert_eq!(names(&mut s), ["RecordingPartReady"]);
    s.then_status(session, Status::Ended);
    assert_eq!(s.session(session).recording.status(true), RecordingStatus::Complete);
    // Nothing is missed any more, and what becomes of it is heard all the same.
    s.reconcile(STREAM);
    s.given();
    let body = serde_json::json!({"type": "video_delete", "message": {"video": {"id": VIDEO}}});
    s.webhook(body.to_string().as_bytes());
    assert_eq!(names(&mut s), ["RecordingPartDeleted"]);
    s.then_status(session, Status::Ended);
    assert_eq!(s.session(session).recording.status(true), RecordingStatus::Incomplete);
}

#[test]
fn a_late_file_is_a_part_of_the_session_that_missed_it() {
    let (mut s, session) = live();
    let began = s.now();
    s.platform.script("stop_recording", Answer::Done(CallResult::RecordingStopped { video: None }));
    s.end(session);
    s.encoder_drops(STREAM);
    s.pass(HOUR);
    s.then_status(session, Status::Ended);
    assert_eq!(s.session(session).recording.status(true), RecordingStatus::Incomplete);
    s.given();
    s.platform.add_video(STREAM, 9, "ready", began);
    s.tell_video(9, "ready");
    assert_eq!(s.session(session).recording.parts.len(), 1);
    assert_eq!(names(&mut s), ["RecordingPartReady"]);
    assert_eq!(s.session(session).recording.status(true), RecordingStatus::Complete);
}

#[test]
fn a_session_that_misses_a_video_holds_up_neither_the_next_nor_a_cleanup() {
    let (mut s, first) = processing();
    s.pass(HOUR * 13);
    s.then_status(first, Status::Ended);
    let second = s.request("key-2", |r| {
        r.live_stream = Some(crate::ids::LiveStreamId(STREAM));
    });
    s.then_status(second, Status::Ready);
    s.end(second);
    s.then_status(second, Status::Ended);
    s.given();
    s.clean_up(STREAM);
    s.then_calls(&["delete_live_stream"]);
}

#[test]
fn a_limit_of_zero_is_none() {
    let zero = Duration::ZERO;
    let limits =
        Limits { slot: zero, encoder: zero, interrupted: zero, failed: zero, ..Limits::default() };
    let (mut s, session) = live();
    s.policy = Policy { limits, ..Policy::default() };
    s.encoder_drops(STREAM);
    s.pass(HOUR * 6);
    s.then_status(session, Status::Interrupted);
}

#[test]
fn a_limit_of_an_earlier_wait_changes_nothing() {
    let (mut s, session) = live();
    let since = s.now();
    for limit in super::Limit::ALL {
        let exceeded = super::LimitExceeded { session, limit, since, videos: Vec::new() };
        let subject = crate::ids::Subject::live_stream(
            crate::scenario::SOURCE,
            crate::ids::LiveStreamId(STREAM),
        );
        s.event(subject, &crate::event::Event::LimitExceeded(exceeded));
    }
    s.then_nothing();
    s.then_status(session, Status::Live);
}
