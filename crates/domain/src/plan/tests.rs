//! Rules of the order of calls, from the first to the last.

use std::time::Duration;

use crate::call::CallResult;
use crate::scenario::{Answer, Scenario};
use crate::session::Status;
use crate::timer::Policy;

const STREAM: i64 = 320_423;
const VIDEO: i64 = 803_111;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A session on air with its recording running.
fn live() -> (Scenario, uuid::Uuid) {
    let mut s = Scenario::new();
    let session = s.request("key-1", |r| r.options.auto_go_live = true);
    s.encoder_connects(STREAM);
    s.recording_shows(STREAM, true);
    s.then_status(session, Status::Live);
    s.given();
    (s, session)
}

#[test]
fn calls_come_in_the_order_of_the_platforms_tutorial() {
    let mut s = Scenario::new();
    let session = s.request("key-1", |_| {});
    s.then_calls(&["create_live_stream", "create_broadcast", "activate_live_stream"]);
    s.then_announced(&["SessionReady"]);
    s.encoder_connects(STREAM);
    s.then_announced(&["SessionTestStarted"]);
    s.then_calls(&[]);
    s.go_live(session);
    s.tell_broadcast(192_470, "live");
    s.recording_shows(STREAM, true);
    s.then_calls(&["set_broadcast_status", "start_recording"]);
    s.then_announced(&["SessionWentLive"]);
    s.end(session);
    s.then_calls(&["stop_recording"]);
    s.then_status(session, Status::Ending);
    s.recording_shows(STREAM, false);
    s.then_calls(&[]);
    s.tell_video(VIDEO, "pending");
    s.then_calls(&["set_broadcast_status", "deactivate_live_stream"]);
    s.tell_broadcast(192_470, "finished");
    s.encoder_drops(STREAM);
    s.then_calls(&["delete_broadcast"]);
    s.then_announced(&["SessionStopped"]);
    s.tell_video(VIDEO, "viewable");
    s.then_announced(&["RecordingPartReady"]);
    s.tell_video(VIDEO, "ready");
    s.then_calls(&["fetch_video", "list_videos"]);
    s.then_announced(&["RecordingReady", "SessionEnded"]);
    s.then_status(session, Status::Ended);
    assert!(s.live_stream(STREAM).wait().is_none());
}

#[test]
fn auto_go_live_needs_no_command() {
    let mut s = Scenario::new();
    let session = s.request("key-1", |r| r.options.auto_go_live = true);
    s.given();
    s.encoder_connects(STREAM);
    s.then_calls(&["set_broadcast_status", "start_recording"]);
    s.then_announced(&["SessionTestStarted", "SessionWentLive"]);
    s.then_status(session, Status::Live);
}

#[test]
fn a_command_to_go_live_waits_for_the_encoder() {
    let mut s = Scenario::new();
    let session = s.request("key-1", |_| {});
    s.go_live(session);
    s.given();
    s.pass(seconds(20));
    s.then_nothing();
    s.encoder_connects(STREAM);
    s.then_status(session, Status::Live);
}

#[test]
fn without_recording_none_is_started_and_no_video_awaited() {
    let mut s = Scenario::new();
    let session = s.request("key-1", |r| {
        r.options.record = false;
        r.options.auto_go_live = true;
    });
    s.encoder_connects(STREAM);
    s.given();
    s.end(session);
    s.encoder_drops(STREAM);
    s.then_calls(&["set_broadcast_status", "deactivate_live_stream", "delete_broadcast"]);
    s.then_announced(&["SessionStopped", "SessionEnded"]);
}

#[test]
fn end_before_live_takes_everything_back() {
    let mut s = Scenario::new();
    let session = s.request("key-1", |_| {});
    s.given();
    s.end(session);
    s.then_calls(&["set_broadcast_status", "deactivate_live_stream", "delete_broadcast"]);
    s.then_announced(&["SessionEnded"]);
    s.then_status(session, Status::Ended);
}

#[test]
fn end_during_the_test_never_shows_it() {
    let mut s = Scenario::new();
    let session = s.request("key-1", |_| {});
    s.encoder_connects(STREAM);
    s.given();
    s.end(session);
    s.encoder_drops(STREAM);
    s.then_announced(&["SessionEnded"]);
    assert!(s.session(session).went_live_at.is_none());
}

#[test]
fn end_while_a_call_is_in_flight_waits_for_its_outcome() {
    for kind in ["create_broadcast", "activate_live_stream"] {
        let mut s = Scenario::new();
        s.platform.hold(kind);
        let session = s.request("key-1", |_| {});
        s.given();
        s.end(session);
        s.then_nothing();
        s.then_status(session, Status::Ending);
        s.let_go(kind);
        let calls = s.calls();
        assert_eq!(calls.last(), Some(&"delete_broadcast"), "{kind}");
        assert_eq!(calls.contains(&"deactivate_live_stream"), kind == "activate_live_stream");
        s.then_status(session, Status::Ended);
    }
}

#[test]
fn an_end_cancels_a_call_that_keeps_failing_unless_it_creates() {
    for kind in ["activate_live_stream", "set_broadcast_status", "start_recording"] {
        let mut s = Scenario::new();
        s.platform.hold(kind);
        let session = s.request("key-1", |r| r.options.auto_go_live = true);
        if kind != "activate_live_stream" {
            s.encoder_connects(STREAM);
        }
        s.pass(seconds(60));
        assert_eq!(s.held()[0].call.kind(), kind);
        s.platform.release(kind);
        s.end(session);
        s.platform.set(STREAM, |t| t.live = false);
        s.pass(seconds(11));
        assert_eq!(s.held().len(), 1, "{kind} has its time");
        s.pass(seconds(60));
        s.then_status(session, Status::Ended);
    }
    let mut s = Scenario::new();
    s.platform.hold("create_broadcast");
    let session = s.request("key-1", |_| {});
    s.end(session);
    s.pass(seconds(60));
    assert_eq!(s.held().len(), 1, "what it made would be left behind");
    // Then what it made is looked for, as long as an end may take.
    s.pass(seconds(20 * 60));
    s.then_status(session, Status::Ended);
}

#[test]
fn a_broadcast_of_a_call_that_was_given_up_is_deleted_when_the_session_ends() {
    let mut s = Scenario::new();
    s.platform.script("create_broadcast", Answer::Failed("no answer".to_owned()));
    let session = s.request("key-1", |_| {});
    s.then_status(session, Status::Failed);
    s.given();
    let observed = serde_json::json!({"id": 192_470, "status": "pending"});
    let made = Answer::Done(CallResult::Broadcast { observed });
    s.platform.script("create_broadcast", made.clone());
    s.platform.script("set_broadcast_status", made);
    s.end(session);
    s.then_calls(&["create_broadcast", "set_broadcast_status", "delete_broadcast"]);
    s.then_status(session, Status::Ended);
    let looks = s
        .log()
        .iter()
        .filter(|event| String::from_utf8_lossy(&event.payload).contains("\"only_look\":true"));
    assert_eq!(looks.count(), 1, "nothing is made for a session that is over");
}

#[test]
fn a_stop_whose_answer_was_lost_finds_its_video() {
    let (mut s, session) = live();
    let began = s.now();
    s.pass(seconds(300));
    s.platform.add_video(STREAM, VIDEO, "pending", began);
    let observed = vec![s.platform.video(crate::ids::VideoId(VIDEO)).unwrap().clone()];
    s.platform.script("stop_recording", Answer::Done(CallResult::Videos { observed }));
    s.end(session);
    let parts = |s: &Scenario| {
        let parts = s.session(session).recording.parts.iter();
        parts.map(|part| part.video.id.0).collect::<Vec<_>>()
    };
    assert_eq!(parts(&s), [VIDEO]);
    assert!(!s.session(session).recording.expects_file, "it is there");
    let stop = s.log().iter().rev().find_map(|event| {
        let crate::event::Event::CallIntended(intended) = crate::event::Event::decode(event) else {
            return None;
        };
        let crate::call::Call::StopRecording { since, .. } = intended.call else { return None };
        since
    });
    let since = stop.unwrap();
    assert!(since < began && began - since <= chrono::TimeDelta::seconds(60), "{since} {began}");
}

#[test]
fn an_outcome_that_came_before_its_call_was_cancelled_stands() {
    let (mut s, session) = live();
    s.platform.hold("observe_live_stream");
    s.reconcile(STREAM);
    s.end(session);
    s.let_go("observe_live_stream");
    s.pass(seconds(60));
    assert!(s.session(session).problems.is_empty(), "{:?}", s.session(session).problems);
}

#[test]
fn no_call_that_is_answered_500_for_ever_holds_up_an_end() {
    for kind in crate::call::Call::KINDS {
        let (mut s, session) = live();
        s.platform.hold(kind);
        s.end(session);
        s.encoder_drops(STREAM);
        s.pass(seconds(20 * 60));
        let status = s.session(session).status;
        let is_off = matches!(status, Status::Processing | Status::Ended);
        assert!(is_off || kind == "deactivate_live_stream", "{kind}: {status:?}");
        // A slot is freed in the end.
        s.platform.release(kind);
        s.pass(seconds(15 * 60));
        assert!(s.session(session).is_off_air(), "{kind}");
    }
}

#[test]
fn the_outcome_of_an_ended_session_never_reaches_the_next() {
    let mut s = Scenario::new();
    s.platform.hold("create_broadcast");
    let first = s.request("key-1", |_| {});
    let second = s.request("key-2", |r| r.live_stream = Some(crate::ids::LiveStreamId(STREAM)));
    s.end(first);
    s.platform.release("create_broadcast");
    s.let_go("create_broadcast");
    s.then_status(first, Status::Ended);
    s.then_status(second, Status::Ready);
    let broadcast = |id| s.session(id).broadcast.as_ref().map(|b| b.id.0);
    assert_eq!((broadcast(first), broadcast(second)), (Some(192_470), Some(192_471)));
}

#[test]
fn a_lag_of_live_behind_active_delays_only_the_deletion_of_the_broadcast() {
    let (mut s, session) = live();
    s.end(session);
    s.recording_shows(STREAM, false);
    s.tell_video(VIDEO, "pending");
    s.then_calls(&["stop_recording", "set_broadcast_status", "deactivate_live_stream"]);
    s.platform.set(STREAM, |t| t.live = false);
    s.pass(seconds(12));
    s.then_calls(&["observe_live_stream", "delete_broadcast"]);
}

#[test]
fn missing_broadcast_webhooks_are_never_waited_for() {
    let (mut s, session) = live();
    s.end(session);
    s.recording_shows(STREAM, false);
    s.tell_video(VIDEO, "ready");
    s.encoder_drops(STREAM);
    s.then_status(session, Status::Ended);
}

#[test]
fn without_any_webhook_polls_alone_carry_a_session_through() {
    let mut s = Scenario::new();
    let session = s.request("key-1", |r| r.options.auto_go_live = true);
    s.platform.set(STREAM, |t| t.live = true);
    s.pass(seconds(30));
    s.then_status(session, Status::Live);
    s.platform.set(STREAM, |t| t.recording = true);
    s.pass(seconds(12));
    assert!(!s.session(session).recording.starting);
    s.end(session);
    s.platform.set(STREAM, |t| {
        t.live = false;
        t.recording = false;
    });
    s.pass(seconds(120));
    s.then_status(session, Status::Processing);
    s.platform.set_video(VIDEO, "ready");
    s.pass(seconds(700));
    s.then_status(session, Status::Ended);
    s.then_announced(&[
        "SessionReady",
        "SessionTestStarted",
        "SessionWentLive",
        "SessionStopped",
        "RecordingPartReady",
        "RecordingReady",
        "SessionEnded",
    ]);
}

#[test]
fn a_file_that_never_shows_holds_up_the_end_for_a_minute_only() {
    let (mut s, session) = live();
    s.end(session);
    s.pass(seconds(60));
    s.then_calls(&[
        "stop_recording",
        "observe_live_stream",
        "observe_live_stream",
        "observe_live_stream",
        "observe_live_stream",
        "set_broadcast_status",
        "deactivate_live_stream",
        "observe_live_stream",
    ]);
    s.pass(seconds(60));
    s.then_status(session, Status::Processing);
}

#[test]
fn reads_that_fail_do_not_hold_up_the_end() {
    let (mut s, session) = live();
    for _ in 0..20 {
        s.platform.script("observe_live_stream", Answer::Failed("503".to_owned()));
        s.platform.script("list_videos", Answer::Failed("503".to_owned()));
    }
    s.end(session);
    s.pass(seconds(130));
    s.then_status(session, Status::Processing);
    assert!(s.session(session).problems.len() <= 2, "{:?}", s.session(session).problems);
}

#[test]
fn where_sweeps_look_a_live_stream_asks_for_itself_once_an_hour() {
    for on_air in [true, false] {
        let mut s = if on_air { live().0 } else { Scenario::new() };
        if !on_air {
            s.request("key-1", |_| {});
            s.given();
        }
        s.pass(seconds(3599));
        s.then_nothing();
        s.pass(seconds(1));
        s.then_calls(&["observe_live_stream"]);
    }
}

#[test]
fn a_stale_timer_changes_nothing() {
    let (mut s, _) = live();
    let subject = crate::ids::Subject::live_stream("gcore-main", crate::ids::LiveStreamId(STREAM));
    for generation in 0..s.live_stream(STREAM).watch.number {
        for timer in [crate::timer::TimerKind::Poll, crate::timer::TimerKind::Grace] {
            let elapsed = crate::event::TimerElapsed { timer, generation };
            s.event(subject.clone(), &crate::event::Event::TimerElapsed(elapsed));
        }
    }
    s.then_nothing();
}

/// A session that the platform has refused a slot, in either of its two ways.
fn without_slot(result: CallResult) -> (Scenario, uuid::Uuid) {
    let mut s = Scenario::new();
    s.platform.script("activate_live_stream", Answer::Done(result));
    let session = s.request("key-1", |_| {});
    let tried = ["create_live_stream", "create_broadcast", "activate_live_stream"];
    s.then_calls(&[tried.as_slice(), &["observe_quota"]].concat());
    s.then_status(session, Status::Preparing);
    s.given();
    (s, session)
}

fn refusals() -> [CallResult; 2] {
    [
        CallResult::Deferred { reason: "limit of active streams exceeded".to_owned() },
        CallResult::LiveStream { observed: serde_json::json!({"active": false}) },
    ]
}

#[test]
fn a_session_without_a_slot_tries_again_until_there_is_one() {
    for refusal in refusals() {
        let (mut s, session) = without_slot(refusal);
        s.pass(Policy::default().slot);
        assert!(s.calls().contains(&"activate_live_stream"));
        s.then_status(session, Status::Ready);
        assert_eq!(s.session(session).waits_for_slot, None);
    }
}

#[test]
fn a_session_that_waits_for_a_slot_can_be_ended_at_once() {
    for refusal in refusals() {
        let (mut s, session) = without_slot(refusal);
        s.end(session);
        s.then_calls(&["set_broadcast_status", "delete_broadcast"]);
        s.then_announced(&["SessionEnded"]);
        s.pass(Policy::default().slot * 3);
        s.then_nothing();
        assert!(s.timers().is_empty(), "no timer sets another: {:?}", s.timers());
    }
}

#[test]
fn a_wait_for_a_slot_is_announced_once_however_often_it_is_refused() {
    let [refusal, _] = refusals();
    let mut s = Scenario::new();
    for _ in 0..3 {
        s.platform.script("activate_live_stream", Answer::Done(refusal.clone()));
    }
    s.request("key-1", |_| {});
    s.then_announced(&["QuotaWaiting"]);
    s.pass(Policy::default().slot * 2);
    s.then_announced(&[]);
    s.pass(Policy::default().slot * 10);
    s.then_announced(&["SessionReady"]);
}
