//! Rules of the recording and its parts.

use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use crate::call::CallResult;
use crate::scenario::{Answer, Scenario};
use crate::session::Status;

const STREAM: i64 = 320_423;
const VIDEO: i64 = 803_111;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn on_air() -> (Scenario, Uuid) {
    let mut s = Scenario::new();
    let session = s.request("key-1", |r| r.options.auto_go_live = true);
    (s, session)
}

/// A session on air with its recording running.
fn live() -> (Scenario, Uuid) {
    let (mut s, session) = on_air();
    s.encoder_connects(STREAM);
    s.recording_shows(STREAM, true);
    s.given();
    (s, session)
}

fn starts(s: &mut Scenario) -> usize {
    s.calls().iter().filter(|kind| **kind == "start_recording").count()
}

#[test]
fn a_refused_recording_keeps_the_session_live() {
    let refused = CallResult::RecordingRefused { errors: vec!["No space".to_owned()] };
    for answer in [Answer::Done(refused), Answer::Failed("422: No space".to_owned())] {
        let (mut s, session) = on_air();
        s.platform.script("start_recording", answer);
        s.encoder_connects(STREAM);
        s.pass(seconds(300));
        s.then_status(session, Status::Live);
        assert_eq!(starts(&mut s), 1);
        assert!(s.session(session).recording.refused.as_deref().unwrap().contains("No space"));
    }
}

#[test]
fn a_retry_asks_for_a_refused_recording_again() {
    let (mut s, session) = on_air();
    s.platform.script("start_recording", Answer::Failed("422: No space".to_owned()));
    s.encoder_connects(STREAM);
    s.given();
    s.retry(session);
    s.then_calls(&["start_recording"]);
    s.then_status(session, Status::Live);
}

#[test]
fn a_refusal_ends_with_the_connection() {
    let (mut s, _) = on_air();
    s.platform.script("start_recording", Answer::Failed("404: not live".to_owned()));
    s.encoder_connects(STREAM);
    s.encoder_drops(STREAM);
    s.given();
    s.encoder_connects(STREAM);
    s.then_calls(&["start_recording"]);
}

#[test]
fn a_start_that_met_a_lost_encoder_is_no_refusal_and_made_when_it_returns() {
    let (mut s, session) = on_air();
    let observed = json!({"id": STREAM, "active": true, "live": false, "backup_live": false});
    let gone = Answer::Done(CallResult::LiveStream { observed });
    s.platform.script("start_recording", gone);
    s.encoder_connects(STREAM);
    s.given();
    assert_eq!(s.session(session).recording.refused, None);
    s.encoder_connects(STREAM);
    s.then_calls(&["start_recording"]);
}

#[test]
fn a_file_of_a_recording_that_nobody_saw_run_is_looked_for_twice() {
    let (mut s, session) = on_air();
    s.platform.hold("start_recording");
    // No webhook is heard; the start's first answer was lost, and it is accepted again too late.
    s.platform.set(STREAM, |t| t.live = true);
    s.reconcile(STREAM);
    s.then_status(session, Status::Live);
    let began = s.now();
    s.pass(seconds(20));
    s.platform.set(STREAM, |t| t.live = false);
    s.end(session);
    s.reconcile(STREAM);
    let accepted = CallResult::RecordingStarted { warnings: Vec::new() };
    s.answer("start_recording", Answer::Done(accepted));
    s.pass(seconds(20));
    s.then_status(session, Status::Processing);
    s.platform.add_video(STREAM, VIDEO, "ready", began + seconds(5));
    s.pass(seconds(300));
    s.then_status(session, Status::Ended);
    assert_eq!(s.session(session).recording.parts.len(), 1);
}

#[test]
fn a_start_without_effect_is_made_three_times_in_all() {
    let (mut s, session) = on_air();
    s.encoder_connects(STREAM);
    s.pass(seconds(600));
    assert_eq!(starts(&mut s), 3);
    s.then_status(session, Status::Live);
    assert!(s.session(session).recording.refused.is_some());
}

#[test]
fn a_missing_recording_webhook_is_settled_by_a_poll() {
    let (mut s, session) = on_air();
    s.encoder_connects(STREAM);
    s.given();
    s.platform.set(STREAM, |t| t.recording = true);
    s.pass(seconds(12));
    s.then_calls(&["observe_live_stream"]);
    assert!(!s.session(session).recording.starting);
}

#[test]
fn a_stop_with_an_empty_answer_leaves_the_video_to_be_found() {
    let (mut s, session) = live();
    let began = s.now();
    s.platform.script("stop_recording", Answer::Done(CallResult::RecordingStopped { video: None }));
    s.end(session);
    s.encoder_drops(STREAM);
    s.then_calls(&[
        "stop_recording",
        "set_broadcast_status",
        "deactivate_live_stream",
        "delete_broadcast",
    ]);
    s.then_status(session, Status::Processing);
    s.platform.add_video(STREAM, 9, "ready", began);
    s.pass(seconds(61));
    s.then_status(session, Status::Ended);
    assert_eq!(s.session(session).recording.parts.len(), 1);
}

#[test]
fn a_file_too_short_to_become_a_video_does_not_hold_the_session_for_ever() {
    let (mut s, session) = live();
    s.platform.script("stop_recording", Answer::Done(CallResult::RecordingStopped { video: None }));
    s.end(session);
    s.encoder_drops(STREAM);
    s.pass(seconds(60 + 120 + 240 + 1));
    s.then_status(session, Status::Ended);
    assert!(!s.announcements().iter().any(|a| a.name() == "RecordingReady"));
}

#[test]
fn a_part_that_lists_never_show_is_asked_for_by_itself() {
    let (mut s, session) = live();
    s.end(session);
    s.encoder_drops(STREAM);
    s.platform.delete_video(VIDEO);
    s.given();
    s.pass(seconds(600));
    assert!(s.calls().contains(&"fetch_video"));
    s.then_status(session, Status::Ended);
}

#[test]
fn a_recording_stopped_by_hand_is_not_started_again() {
    let (mut s, session) = live();
    s.recording_shows(STREAM, false);
    s.pass(seconds(300));
    assert_eq!(starts(&mut s), 0);
    s.then_status(session, Status::Live);
}

#[test]
fn a_recording_started_by_hand_is_not_started_twice_and_is_stopped() {
    let mut s = Scenario::new();
    let session = s.request("key-1", |_| {});
    s.encoder_connects(STREAM);
    s.recording_shows(STREAM, true);
    s.go_live(session);
    assert_eq!(starts(&mut s), 0);
    s.end(session);
    s.then_calls(&["stop_recording"]);
}

#[test]
fn a_part_recorded_by_hand_is_noted_as_such() {
    for (record, hand) in [(true, false), (false, true)] {
        let mut s = Scenario::new();
        let session = s.request("key-1", |r| {
            r.options.record = record;
            r.options.auto_go_live = true;
        });
        s.encoder_connects(STREAM);
        s.recording_shows(STREAM, true);
        let began = s.now();
        s.platform.add_video(STREAM, VIDEO, "pending", began);
        s.pass(seconds(40));
        s.end(session);
        s.tell_video(VIDEO, "pending");
        let session = s.session(session);
        let part = session.recording.parts.iter().find(|p| p.video.id.0 == VIDEO).unwrap();
        assert_eq!(session.is_by_hand(part), hand, "record: {record}");
    }
}

#[test]
fn a_hold_that_the_platform_bridged_shows_no_gap() {
    let (mut s, session) = live();
    let began = s.now();
    s.platform.set(STREAM, |t| t.live = false);
    s.tell(STREAM);
    s.pass(seconds(8));
    s.platform.set(STREAM, |t| t.live = true);
    s.tell(STREAM);
    s.pass(seconds(40));
    assert_eq!(starts(&mut s), 0, "the file was held open");
    s.platform.add_video(STREAM, VIDEO, "ready", began);
    let video = json!({"id": VIDEO, "stream_id": STREAM});
    let stopped = CallResult::RecordingStopped { video: Some(video) };
    s.platform.script("stop_recording", Answer::Done(stopped));
    s.end(session);
    s.encoder_drops(STREAM);
    s.tell_video(VIDEO, "ready");
    s.pass(seconds(120));
    s.then_status(session, Status::Ended);
    let recording = &s.session(session).recording;
    assert_eq!((recording.parts.len(), recording.gaps().len()), (1, 0));
}

#[test]
fn files_that_were_cut_follow_each_other_without_a_gap() {
    let (mut s, session) = live();
    let began = s.now();
    for (n, overlap_ms) in [(0, 0), (1, 0), (2, 400)] {
        let start = began + chrono::TimeDelta::milliseconds(n * 14_400_000 - overlap_ms);
        let body = json!({"type": "video", "message": {"video": {"id": 10 + n, "stream_id": STREAM,
            "status": "ready", "duration": 14_400_000, "recording_started_at": start.to_rfc3339()}}});
        s.webhook(body.to_string().as_bytes());
    }
    let recording = &s.session(session).recording;
    assert_eq!((recording.parts.len(), recording.gaps().len()), (3, 0));
}

#[test]
fn the_file_behind_a_cut_is_waited_for_though_nobody_told_of_it() {
    let (mut s, session) = live();
    let began = s.now();
    // Its file is cut after 48 s, and no webhook tells of that either.
    s.platform.add_video(STREAM, VIDEO, "ready", began);
    s.pass(seconds(80));
    s.encoder_drops(STREAM);
    s.recording_shows(STREAM, false);
    s.end(session);
    s.pass(seconds(40));
    s.then_status(session, Status::Processing);
    let cut = began + chrono::TimeDelta::milliseconds(48_410);
    s.platform.add_video(STREAM, VIDEO + 1, "ready", cut);
    s.pass(seconds(120));
    s.then_status(session, Status::Ended);
    assert_eq!(s.session(session).recording.parts.len(), 2);
    assert!(s.session(session).recording.lacks().is_empty());
}

#[test]
fn what_the_platform_recorded_by_itself_and_nobody_told_is_listed_at_the_end() {
    let mut s = Scenario::new();
    let session = s.request("key-1", |_| {});
    let began = s.now();
    s.platform.set(STREAM, |truth| truth.live = true);
    s.pass(seconds(40));
    s.then_status(session, Status::Testing);
    s.platform.set(STREAM, |truth| truth.live = false);
    s.platform.add_video(STREAM, VIDEO, "ready", began);
    s.end(session);
    s.pass(seconds(60));
    s.then_status(session, Status::Ended);
    assert_eq!(s.session(session).recording.parts.len(), 1);
}

#[test]
fn a_file_is_waited_for_that_ran_when_all_others_were_closed() {
    let (mut s, session) = live();
    let began = s.now();
    s.platform.add_video(STREAM, VIDEO, "ready", began);
    s.tell_video(VIDEO, "ready");
    s.pass(seconds(60));
    // An answer tells that another one runs. How long the encoder sent says nothing of it.
    s.reconcile(STREAM);
    s.encoder_drops(STREAM);
    s.recording_shows(STREAM, false);
    s.end(session);
    s.pass(seconds(20));
    s.then_status(session, Status::Processing);
    let next = began + chrono::TimeDelta::seconds(55);
    s.platform.add_video(STREAM, VIDEO + 1, "ready", next);
    s.pass(seconds(120));
    s.then_status(session, Status::Ended);
    assert_eq!(s.session(session).recording.parts.len(), 2);
}

#[test]
fn a_recording_that_ends_before_its_encoder_lacks_nothing() {
    let (mut s, session) = live();
    s.platform.add_video(STREAM, VIDEO, "ready", s.now());
    s.pass(seconds(80));
    s.encoder_drops(STREAM);
    s.recording_shows(STREAM, false);
    s.end(session);
    s.pass(seconds(600));
    s.then_status(session, Status::Ended);
    assert!(s.session(session).recording.lacks().is_empty());
}

#[test]
fn an_empty_video_with_an_error_makes_the_recording_incomplete() {
    let (mut s, session) = live();
    s.end(session);
    s.encoder_drops(STREAM);
    let body = json!({"id": VIDEO, "stream_id": STREAM, "status": "empty",
        "error": "Encoding has failed"});
    let observed = body.clone();
    s.platform.script("fetch_video", Answer::Done(CallResult::Video { observed }));
    let observed = vec![body.clone()];
    s.platform.script("list_videos", Answer::Done(CallResult::Videos { observed }));
    s.webhook(json!({"type": "video", "message": {"video": body}}).to_string().as_bytes());
    s.then_status(session, Status::Ended);
    let lacks = s.session(session).recording.lacks();
    assert_eq!(lacks, [format!("video {VIDEO} is error")]);
}

#[test]
fn a_recording_that_begins_after_its_stop_is_stopped_again() {
    let (mut s, session) = on_air();
    s.encoder_connects(STREAM);
    s.platform.script("stop_recording", Answer::Done(CallResult::RecordingStopped { video: None }));
    s.platform.hold("set_broadcast_status");
    s.end(session);
    s.given();
    s.recording_shows(STREAM, true);
    s.let_go("set_broadcast_status");
    s.then_calls(&["stop_recording", "deactivate_live_stream"]);
}

#[test]
fn the_recording_after_an_interruption_is_stopped_too() {
    let (mut s, session) = live();
    s.platform.set(STREAM, |t| t.live = false);
    s.tell(STREAM);
    s.pass(seconds(20));
    s.webhook(br#"{"type":"stream","message":{"stream":{"id":320423,"live":true}}}"#);
    s.recording_shows(STREAM, true);
    s.platform.set(STREAM, |t| t.live = true);
    s.recording_shows(STREAM, false);
    s.recording_shows(STREAM, true);
    s.given();
    s.end(session);
    s.then_calls(&["stop_recording"]);
}

#[test]
fn a_viewable_video_with_a_failed_rendition_is_final() {
    let (mut s, session) = live();
    s.end(session);
    s.encoder_drops(STREAM);
    s.webhook(
        json!({"type": "video", "message": {"video": {"id": VIDEO, "status": "viewable",
            "converted_videos": [{"name": "a", "status": "complete"},
                                 {"name": "b", "status": "processing"}]}}})
        .to_string()
        .as_bytes(),
    );
    s.then_status(session, Status::Processing);
    s.platform.set_video(VIDEO, "viewable");
    let body = json!({"id": VIDEO, "status": "viewable", "error": "The storage limit has been exceeded",
        "converted_videos": [{"name": "a", "status": "complete"}, {"name": "b", "status": "error"}]});
    for _ in 0..2 {
        s.platform
            .script("fetch_video", Answer::Done(CallResult::Video { observed: body.clone() }));
    }
    s.webhook(json!({"type": "video", "message": {"video": body}}).to_string().as_bytes());
    s.then_status(session, Status::Ended);
}

#[test]
fn a_deleted_video_is_never_resurrected() {
    let (mut s, session) = live();
    s.end(session);
    s.encoder_drops(STREAM);
    s.tell_video(VIDEO, "pending");
    let body = json!({"type": "video_delete", "message": {"video": {"id": VIDEO}}});
    s.webhook(body.to_string().as_bytes());
    s.tell_video(VIDEO, "ready");
    s.pass(seconds(120));
    s.then_status(session, Status::Ended);
    let names: Vec<_> =
        s.announcements().iter().map(crate::announcement::Announcement::name).collect();
    assert_eq!(names, ["SessionStopped", "RecordingPartDeleted", "SessionEnded"]);
}

#[test]
fn a_part_is_announced_once_however_often_it_is_told() {
    let (mut s, session) = live();
    s.end(session);
    s.encoder_drops(STREAM);
    s.given();
    for status in ["viewable", "pending", "viewable", "viewable"] {
        s.tell_video(VIDEO, status);
    }
    let announced = s.announcements();
    let parts = announced.iter().filter(|a| a.name() == "RecordingPartReady");
    assert_eq!(parts.count(), 1, "{announced:?}");
    s.then_status(session, Status::Processing);
}

#[test]
fn a_duration_beyond_all_time_makes_no_gap_and_no_panic() {
    let (mut s, session) = live();
    for id in [1, 2] {
        let body = json!({"type": "video", "message": {"video": {"id": id, "stream_id": STREAM,
            "status": "ready", "duration": i64::MAX, "recording_started_at": "2022-06-03T13:24:29Z"}}});
        s.webhook(body.to_string().as_bytes());
    }
    assert!(s.session(session).recording.gaps().is_empty());
}
