//! Rules of a live stream that several sessions use one after another, and of its deletion.

use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use crate::announcement::Announcement;
use crate::call::CallResult;
use crate::ids::{LiveStreamId, VideoId, derived_id};
use crate::scenario::{Answer, Scenario, array};
use crate::session::Status;

const STREAM: i64 = 320_423;
const VIDEO: i64 = 803_111;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn reuse(s: &mut Scenario, key: &str) -> Uuid {
    s.request(key, |r| {
        r.live_stream = Some(LiveStreamId(STREAM));
        r.options.auto_go_live = true;
    })
}

/// A session off air whose video is being processed, its live stream quiet.
fn processing() -> (Scenario, Uuid) {
    let mut s = Scenario::new();
    let session = s.request("key-1", |r| r.options.auto_go_live = true);
    s.encoder_connects(STREAM);
    s.recording_shows(STREAM, true);
    s.pass(seconds(60));
    s.end(session);
    s.recording_shows(STREAM, false);
    s.tell_video(VIDEO, "pending");
    s.encoder_drops(STREAM);
    s.then_status(session, Status::Processing);
    s.pass(seconds(5));
    s.given();
    (s, session)
}

fn parts(s: &Scenario, session: Uuid) -> Vec<i64> {
    s.session(session).recording.parts.iter().map(|p| p.video.id.0).collect()
}

#[test]
fn a_reused_live_stream_is_cleared_and_updated_first() {
    let (mut s, first) = processing();
    let second = reuse(&mut s, "key-2");
    s.then_calls(&["clear_dvr", "update_live_stream", "create_broadcast", "activate_live_stream"]);
    s.then_status(second, Status::Ready);
    s.then_status(first, Status::Processing);
    s.tell_video(VIDEO, "ready");
    s.then_status(first, Status::Ended);
    s.then_status(second, Status::Ready);
}

#[test]
fn a_session_waits_until_the_one_before_it_is_off_air() {
    let mut s = Scenario::new();
    let first = s.request("key-1", |_| {});
    s.given();
    let second = reuse(&mut s, "key-2");
    s.pass(seconds(20));
    s.then_nothing();
    s.then_status(second, Status::Preparing);
    s.end(first);
    s.then_status(second, Status::Ready);
}

#[test]
fn a_failed_session_gives_way_to_one_that_waits_behind_it() {
    let mut s = Scenario::new();
    s.platform.hold("activate_live_stream");
    let first = s.request("key-1", |_| {});
    let second = reuse(&mut s, "key-2");
    s.given();
    s.platform.release("activate_live_stream");
    s.answer("activate_live_stream", Answer::Failed("403".to_owned()));
    s.then_status(first, Status::Ended);
    s.then_status(second, Status::Ready);
    assert_eq!(s.session(first).problems, ["activate_live_stream: 403"]);
    assert!(s.session(first).end_reason.is_some());
}

#[test]
fn a_new_start_closes_a_session_that_failed_or_is_interrupted() {
    for interrupted in [true, false] {
        let mut s = Scenario::new();
        let first = s.request("key-1", |r| r.options.auto_go_live = true);
        s.encoder_connects(STREAM);
        if interrupted {
            s.encoder_drops(STREAM);
            s.pass(seconds(20));
            s.then_status(first, Status::Interrupted);
        } else {
            // It failed on air: its encoder sends, and its slot is kept for it.
            s.platform.script("set_broadcast_status", Answer::Done(CallResult::Gone));
            s.tell_broadcast(192_470, "paused");
            s.go_live(first);
            s.then_status(first, Status::Failed);
        }
        let second = reuse(&mut s, "key-2");
        s.pass(seconds(120));
        assert!(s.session(first).end, "interrupted: {interrupted}");
        if !interrupted {
            s.encoder_drops(STREAM);
            s.pass(seconds(120));
        }
        assert!(!s.session(second).end);
        assert_ne!(s.session(second).status, Status::Preparing, "interrupted: {interrupted}");
    }
}

#[test]
fn a_session_that_was_asked_for_before_the_interruption_closes_nothing() {
    let mut s = Scenario::new();
    let first = s.request("key-1", |r| r.options.auto_go_live = true);
    s.encoder_connects(STREAM);
    reuse(&mut s, "key-2");
    s.encoder_drops(STREAM);
    s.pass(seconds(60));
    s.then_status(first, Status::Interrupted);
    s.encoder_connects(STREAM);
    s.then_status(first, Status::Live);
}

#[test]
fn what_is_recorded_by_hand_after_a_session_is_no_part_of_it() {
    let (mut s, first) = processing();
    s.pass(seconds(300));
    let later = json!({"type": "video", "message": {"video": {"id": 7, "stream_id": STREAM,
        "status": "pending", "recording_started_at": s.now().to_rfc3339()}}});
    s.webhook(later.to_string().as_bytes());
    assert_eq!(parts(&s, first), [VIDEO]);
}

#[test]
fn a_clip_of_the_live_stream_is_no_part_of_its_recording() {
    let (mut s, session) = processing();
    let told = |id: i64, name: &str| {
        let name = name.to_owned();
        json!({"type": "video", "message": {"video": {"id": id, "stream_id": STREAM,
            "status": "ready", "duration": 60_000, "name": name}}})
    };
    // What a session cuts of itself is named otherwise than what the platform records.
    s.webhook(told(7, "Clip: the goal").to_string().as_bytes());
    assert_eq!(parts(&s, session), [VIDEO]);
    let end = s.now().format("%Y-%m-%d %H:%M:%S %z");
    s.webhook(told(8, &format!("Stream Record: final, {end}")).to_string().as_bytes());
    assert_eq!(parts(&s, session), [8, VIDEO]);
    // Nor does it keep the session from its end, or show up in it by a list.
    let list = [told(7, "Clip: the goal"), told(8, "Stream Record")];
    let list: Vec<_> = list.iter().map(|body| body["message"]["video"].clone()).collect();
    s.platform.script("list_videos", Answer::Done(array(&list)));
    for video in [8, VIDEO] {
        s.platform.set_video(video, "ready");
        s.tell_video(video, "ready");
    }
    assert_eq!(parts(&s, session), [8, VIDEO]);
}

#[test]
fn a_late_video_of_an_earlier_session_never_attaches_to_the_next() {
    let (mut s, first) = processing();
    let recorded = s.now() - seconds(40);
    let second = reuse(&mut s, "key-2");
    s.encoder_connects(STREAM);
    let late = |id: i64, began: Option<String>, name: String| {
        json!({"type": "video", "message": {"video": {"id": id, "stream_id": STREAM,
            "status": "pending", "duration": 10_000, "recording_started_at": began, "name": name}}})
        .to_string()
    };
    let end = (recorded + seconds(10)).format("%Y-%m-%d %H:%M:%S %z");
    s.webhook(late(1, Some(recorded.to_rfc3339()), String::new()).as_bytes());
    s.webhook(late(2, None, format!("Stream Record: test_stream, {end}")).as_bytes());
    s.webhook(late(3, None, "renamed".to_owned()).as_bytes());
    assert_eq!(parts(&s, first), [1, 2, VIDEO]);
    assert_eq!(parts(&s, second), [0; 0]);
    for video in [1, 2, VIDEO] {
        s.platform.add_video(STREAM, video, "ready", recorded);
        s.tell_video(video, "ready");
    }
    s.then_status(first, Status::Ended);
    s.webhook(late(4, Some(recorded.to_rfc3339()), String::new()).as_bytes());
    s.webhook(late(1, None, "again".to_owned()).as_bytes());
    assert_eq!(parts(&s, second), [0; 0]);
}

#[test]
fn a_late_webhook_of_the_session_before_only_makes_the_next_one_ask() {
    let mut s = Scenario::new();
    let first = s.request("key-1", |r| r.options.auto_go_live = true);
    s.encoder_connects(STREAM);
    s.recording_shows(STREAM, true);
    let late = s.platform.webhook_of(STREAM).to_string();
    s.then_status(first, Status::Live);
    s.end(first);
    s.recording_shows(STREAM, false);
    s.tell_video(VIDEO, "ready");
    s.encoder_drops(STREAM);
    s.then_status(first, Status::Ended);
    let second = reuse(&mut s, "key-2");
    s.then_status(second, Status::Ready);
    s.given();
    s.webhook(late.as_bytes());
    s.then_calls(&["observe_live_stream"]);
    s.then_announced(&[]);
    s.then_status(second, Status::Ready);
    assert!(!s.session(second).recording.expects_file);
    // Its own encoder is believed as soon as an answer has shown it.
    s.encoder_connects(STREAM);
    s.then_status(second, Status::Live);
    s.encoder_drops(STREAM);
    s.pass(seconds(20));
    s.then_status(second, Status::Interrupted);
}

#[test]
fn a_file_that_the_platform_held_open_is_of_the_session_in_which_it_began() {
    let (mut s, first) = processing();
    let second = reuse(&mut s, "key-2");
    s.encoder_connects(STREAM);
    s.recording_shows(STREAM, true);
    s.platform.hold("stop_recording");
    s.end(second);
    let began = s.session(second).began_at.unwrap() - Duration::from_secs(5);
    let video = json!({
        "id": VIDEO + 1, "stream_id": STREAM, "status": "pending",
        "recording_started_at": began.to_rfc3339(),
    });
    let stopped = CallResult::RecordingStopped { video: Some(video) };
    s.answer("stop_recording", Answer::Done(stopped));
    assert_eq!(parts(&s, second), [0; 0]);
    assert!(!s.session(second).recording.expects_file, "nothing of it is waited for");
    assert_eq!(parts(&s, first), [VIDEO, VIDEO + 1]);
}

#[test]
fn a_session_that_never_ran_makes_nobody_forget_the_one_before() {
    let (mut s, first) = processing();
    s.tell_video(VIDEO, "ready");
    s.then_status(first, Status::Ended);
    let second = reuse(&mut s, "key-2");
    let third = reuse(&mut s, "key-3");
    s.encoder_connects(STREAM);
    s.end(third);
    s.then_status(third, Status::Ended);
    // Its file was cut after the second had begun, and had begun before.
    let began = s.session(second).began_at.unwrap() - Duration::from_secs(5);
    s.pass(seconds(60));
    s.given();
    let body = json!({"type": "video", "message": {"video": {
        "id": VIDEO + 1, "stream_id": STREAM, "status": "pending",
        "recording_started_at": began.to_rfc3339(),
    }}});
    s.webhook(body.to_string().as_bytes());
    assert_eq!(parts(&s, first), [VIDEO, VIDEO + 1]);
}

#[test]
fn a_file_that_began_between_two_sessions_is_of_the_second_if_it_lasted_into_it() {
    for (duration, of_second) in [(60, true), (20, false)] {
        let (mut s, first) = processing();
        s.pass(seconds(60));
        let began = s.now();
        s.pass(seconds(40));
        let second = reuse(&mut s, "key-2");
        s.encoder_connects(STREAM);
        s.given();
        let body = json!({"type": "video", "message": {"video": {
            "id": VIDEO + 1, "stream_id": STREAM, "status": "pending",
            "recording_started_at": began.to_rfc3339(), "duration": duration * 1000,
        }}});
        s.webhook(body.to_string().as_bytes());
        assert_eq!(parts(&s, first), [VIDEO]);
        assert_eq!(parts(&s, second).contains(&(VIDEO + 1)), of_second, "{duration} s");
    }
}

#[test]
fn a_file_that_was_held_open_long_after_its_session_is_asked_for() {
    let (mut s, first) = processing();
    let began = s.session(first).began_at.unwrap() + Duration::from_secs(10);
    s.pass(seconds(60));
    s.platform.add_video(STREAM, VIDEO + 1, "ready", began);
    s.given();
    tell_file(&mut s, VIDEO + 1, 10);
    s.then_calls(&["fetch_video"]);
    assert_eq!(parts(&s, first), [VIDEO, VIDEO + 1]);
}

/// The webhook of a file that is closed now and lasts so long.
fn tell_file(s: &mut Scenario, video: i64, seconds: i64) {
    let name = format!("Stream Record: x, {}", s.now().format("%Y-%m-%d %H:%M:%S +0000"));
    let body = json!({"type": "video", "message": {"video": {
        "id": video, "stream_id": STREAM, "name": name, "status": "pending",
        "duration": seconds * 1000,
    }}});
    s.webhook(body.to_string().as_bytes());
}

#[test]
fn a_file_that_was_closed_late_waits_for_word_of_when_it_began() {
    let (mut s, first) = processing();
    let second = reuse(&mut s, "key-2");
    s.pass(seconds(30));
    let began = s.session(first).began_at.unwrap() + Duration::from_secs(10);
    s.platform.add_video(STREAM, VIDEO + 1, "ready", began);
    s.platform.hold("fetch_video");
    // Held open for a minute, it seems to have begun in the second session.
    tell_file(&mut s, VIDEO + 1, 20);
    assert_eq!((parts(&s, first), parts(&s, second)), (vec![VIDEO], vec![]));
    s.let_go("fetch_video");
    assert_eq!((parts(&s, first), parts(&s, second)), (vec![VIDEO, VIDEO + 1], vec![]));
    // So long after the first session only the second can have it.
    s.pass(seconds(200));
    tell_file(&mut s, VIDEO + 2, 20);
    assert_eq!(parts(&s, second), [VIDEO + 2]);
}

#[test]
fn a_file_of_which_nobody_tells_when_it_began_is_of_the_session_that_it_seems_to_be_of() {
    for answer in [CallResult::Gone, array(&[])] {
        let (mut s, first) = processing();
        let second = reuse(&mut s, "key-2");
        s.pass(seconds(30));
        s.platform.script("fetch_video", Answer::Done(answer));
        tell_file(&mut s, VIDEO + 1, 20);
        assert_eq!((parts(&s, first), parts(&s, second)), (vec![VIDEO], vec![VIDEO + 1]));
        assert!(s.live_stream(STREAM).unclaimed.is_empty());
    }
    let (mut s, _) = processing();
    let second = reuse(&mut s, "key-2");
    s.pass(seconds(30));
    s.platform.script("fetch_video", Answer::Failed("500".to_owned()));
    tell_file(&mut s, VIDEO + 1, 20);
    assert_eq!(parts(&s, second), [VIDEO + 1]);
}

#[test]
fn videos_of_an_earlier_session_are_asked_for_while_the_next_runs() {
    let (mut s, first) = processing();
    let second = reuse(&mut s, "key-2");
    s.encoder_connects(STREAM);
    s.recording_shows(STREAM, true);
    s.platform.set_video(VIDEO, "ready");
    s.pass(seconds(90));
    s.then_status(first, Status::Ended);
    s.then_status(second, Status::Live);
}

#[test]
fn a_recording_flag_left_by_an_earlier_session_does_not_stop_the_next_from_recording() {
    let mut s = Scenario::new();
    let first = s.request("key-1", |r| r.options.auto_go_live = true);
    s.encoder_connects(STREAM);
    s.recording_shows(STREAM, true);
    s.end(first);
    s.platform.set(STREAM, |t| t.live = false);
    s.pass(seconds(120));
    assert_eq!(s.live_stream(STREAM).recording, Some(true));
    reuse(&mut s, "key-2");
    s.given();
    s.platform.set(STREAM, |t| (t.live, t.recording) = (true, false));
    s.webhook(br#"{"type":"stream","message":{"stream":{"id":320423,"live":true}}}"#);
    s.then_calls(&["observe_live_stream", "set_broadcast_status", "start_recording"]);
}

#[test]
fn a_session_bound_twice_is_one() {
    let mut s = Scenario::new();
    let session = s.request("key-1", |_| {});
    s.given();
    let again = s.request("key-1", |_| {});
    assert_eq!(session, again);
    s.then_nothing();
    assert_eq!(s.live_stream(STREAM).sessions.len(), 1);
}

#[test]
fn a_session_on_a_deleted_live_stream_fails_with_a_reason() {
    let (mut s, _) = processing();
    s.tell_video(VIDEO, "ready");
    s.clean_up(STREAM);
    s.given();
    let session = reuse(&mut s, "key-2");
    s.then_status(session, Status::Failed);
    s.then_announced(&["SessionFailed"]);
    s.then_calls(&[]);
    s.end(session);
    s.then_status(session, Status::Ended);
}

fn cleanup_news(s: &mut Scenario) -> Vec<(Uuid, bool, String)> {
    let news = s.announcements().into_iter().filter_map(|a| {
        let Announcement::CleanupDone(news) = a else { return None };
        Some((news.run, news.deleted, news.reason))
    });
    news.collect()
}

#[test]
fn cleanup_deletes_an_idle_live_stream() {
    let (mut s, _) = processing();
    s.tell_video(VIDEO, "ready");
    assert!(s.live_stream(STREAM).idle_since.is_some());
    s.given();
    let run = s.clean_up(STREAM);
    s.then_calls(&["delete_live_stream"]);
    assert!(s.live_stream(STREAM).deleted);
    let reason = "idle for 30 days, its account deleted".to_owned();
    assert_eq!(cleanup_news(&mut s), [(run, true, reason)]);
    s.clean_up(STREAM);
    s.then_calls(&[]);
    assert!(!cleanup_news(&mut s)[0].1);
}

#[test]
fn cleanup_that_a_guard_stopped_or_that_failed_is_over() {
    let kept = CallResult::Kept { reason: "it is live".to_owned() };
    for answer in [Answer::Done(kept), Answer::Failed("it is live".to_owned())] {
        let (mut s, _) = processing();
        s.tell_video(VIDEO, "ready");
        s.platform.script("delete_live_stream", answer);
        s.given();
        let run = s.clean_up(STREAM);
        s.then_calls(&["delete_live_stream"]);
        assert_eq!(cleanup_news(&mut s), [(run, false, "it is live".to_owned())]);
        assert!(!s.live_stream(STREAM).deleted);
        s.clean_up(STREAM);
        s.then_calls(&["delete_live_stream"]);
    }
}

#[test]
fn cleanup_is_refused_while_a_session_is_open_or_an_encoder_sends() {
    let (mut s, _) = processing();
    let run = s.clean_up(STREAM);
    s.then_calls(&[]);
    assert_eq!(cleanup_news(&mut s), [(run, false, "it has an open session".to_owned())]);
    s.tell_video(VIDEO, "ready");
    s.encoder_connects(STREAM);
    s.given();
    let run = s.clean_up(STREAM);
    s.then_calls(&[]);
    assert_eq!(cleanup_news(&mut s), [(run, false, "an encoder sends to it".to_owned())]);
}

#[test]
fn a_session_that_comes_stops_a_deletion_that_runs() {
    let (mut s, _) = processing();
    s.tell_video(VIDEO, "ready");
    s.platform.hold("delete_live_stream");
    let run = s.clean_up(STREAM);
    let session = reuse(&mut s, "key-2");
    s.then_status(session, Status::Ready);
    let told = cleanup_news(&mut s);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].0 == run && !told[0].1);
}

#[test]
fn a_deleted_live_stream_is_not_resurrected_by_late_webhooks() {
    let (mut s, _) = processing();
    s.tell_video(VIDEO, "ready");
    s.clean_up(STREAM);
    let gone = s.live_stream(STREAM).clone();
    assert!(gone.deleted);
    s.given();
    s.encoder_connects(STREAM);
    s.recording_shows(STREAM, true);
    s.then_calls(&[]);
    assert_eq!(*s.live_stream(STREAM), gone);
    let session = reuse(&mut s, "key-2");
    s.then_status(session, Status::Failed);
    s.then_calls(&[]);
}

#[test]
fn recordings_that_are_deleted_are_gone_for_their_session_and_for_ever() {
    let (mut s, session) = processing();
    s.tell_video(VIDEO, "ready");
    s.then_status(session, Status::Ended);
    s.given();
    let run = derived_id("run", &[]);
    s.clean_up_by(STREAM, run, &[VIDEO]);
    s.then_calls(&["delete_recordings"]);
    let told = s.announcements().into_iter().find_map(|a| {
        let Announcement::CleanupDone(news) = a else { return None };
        Some((news.deleted, news.videos))
    });
    assert_eq!(told, Some((false, vec![VideoId(VIDEO)])));
    assert!(!s.live_stream(STREAM).deleted);
    s.tell_video(VIDEO, "ready");
    let subject = crate::ids::Subject::video(crate::scenario::SOURCE, VideoId(VIDEO));
    let Some(crate::state::Body::Video(video)) = s.state(&subject).map(|state| &state.body) else {
        panic!("no video")
    };
    assert_eq!(video.seen.status, crate::webhook::VideoStatus::Deleted);
}

#[test]
fn account_deletion_counts_once() {
    let mut s = Scenario::new();
    s.delete_account("user-17");
    let first = s.now();
    s.pass(seconds(60));
    s.delete_account("user-17");
    let subject = crate::ids::Subject::account("gcore-main", "user-17");
    let Some(crate::state::Body::Account(account)) = s.state(&subject).map(|state| &state.body)
    else {
        panic!("no account")
    };
    assert_eq!(account.deleted_at, Some(first));
}

#[test]
fn a_video_found_by_a_list_learns_its_live_stream() {
    let (mut s, first) = processing();
    s.platform.add_video(STREAM, 7, "pending", s.now() - seconds(50));
    s.tell_video(VIDEO, "ready");
    assert_eq!(parts(&s, first), [VIDEO, 7]);
    let subject = crate::ids::Subject::video("gcore-main", VideoId(7));
    s.given();
    s.platform.add_video(STREAM, 7, "ready", s.now() - seconds(50));
    s.tell_video(7, "ready");
    assert_eq!(s.calls(), ["fetch_video"], "its final state, and no look-up of {subject}");
}

#[test]
fn a_reconcile_asks_the_platform_once_and_at_once() {
    let mut s = Scenario::new();
    let session = s.request("key-1", |_| {});
    s.then_status(session, Status::Ready);
    s.given();
    s.reconcile(STREAM);
    s.then_calls(&["observe_live_stream"]);
}

#[test]
fn a_reconcile_without_a_session_looks_at_the_live_stream() {
    let mut s = Scenario::new();
    s.encoder_connects(STREAM);
    s.given();
    s.reconcile(STREAM);
    s.then_calls(&["observe_live_stream"]);
}
