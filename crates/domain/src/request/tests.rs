//! Rules of a request until its live stream is known.

use serde_json::json;
use uuid::Uuid;

use crate::call::{Call, CallResult};
use crate::event::{CallIntended, Event};
use crate::ids::Subject;
use crate::scenario::{Answer, SOURCE, Scenario};
use crate::session::Status;
use crate::state::Body;

fn status(s: &Scenario, session: Uuid) -> &'static str {
    let Some(Body::Request(request)) =
        s.state(&Subject::request(SOURCE, session)).map(|state| &state.body)
    else {
        panic!("no request")
    };
    request.status()
}

#[test]
fn a_creation_that_failed_is_told_and_a_retry_resumes() {
    let mut s = Scenario::new();
    s.platform.script("create_live_stream", Answer::Failed("401".to_owned()));
    let session = s.request("key-1", |_| {});
    s.then_announced(&["SessionFailed"]);
    assert_eq!(status(&s, session), "failed");
    s.retry(session);
    s.then_announced(&["SessionReady"]);
    s.then_status(session, Status::Ready);
}

/// The calls to create that were intended, each with the earlier ones it takes over from.
fn creations(s: &Scenario) -> Vec<(Uuid, Vec<Uuid>)> {
    let creation = |stored: &crate::event::RecordedEvent| {
        let Event::CallIntended(CallIntended { intent, call }) = Event::decode(stored) else {
            return None;
        };
        let Call::CreateLiveStream { earlier, .. } = call else { return None };
        Some((intent, earlier))
    };
    s.log().iter().filter_map(creation).collect()
}

#[test]
fn a_creation_after_one_that_was_given_up_looks_for_what_that_one_made() {
    let mut s = Scenario::new();
    for _ in 0..2 {
        s.platform.script("create_live_stream", Answer::Failed("no answer".to_owned()));
    }
    let session = s.request("key-1", |_| {});
    s.retry(session);
    s.retry(session);
    s.then_status(session, Status::Ready);
    let [(first, none), (second, one), (_, two)] = &creations(&s)[..] else { panic!() };
    assert!(none.is_empty());
    assert_eq!((one, two), (&vec![*first], &vec![*first, *second]));
}

#[test]
fn a_creation_that_was_given_up_and_run_again_by_somebody_is_taken() {
    let mut s = Scenario::new();
    s.platform.script("create_live_stream", Answer::Failed("no answer".to_owned()));
    let session = s.request("key-1", |_| {});
    let (intent, _) = creations(&s)[0];
    let result = CallResult::LiveStream { observed: json!({"id": 320_423}) };
    let done = Event::CallSucceeded(crate::event::CallSucceeded { intent, result });
    s.event(Subject::request(SOURCE, session), &done);
    s.then_status(session, Status::Ready);
    s.event(Subject::request(SOURCE, session), &done);
    s.then_calls(&["create_live_stream", "create_broadcast", "activate_live_stream"]);
}

#[test]
fn an_answer_without_a_live_stream_is_a_failure() {
    for observed in [json!({}), json!({"id": "x"}), json!(null), json!({"id": 0})] {
        let mut s = Scenario::new();
        let answer = Answer::Done(CallResult::LiveStream { observed });
        s.platform.script("create_live_stream", answer);
        let session = s.request("key-1", |_| {});
        assert_eq!(status(&s, session), "failed");
        s.then_calls(&["create_live_stream"]);
    }
}

#[test]
fn an_end_before_the_live_stream_is_known_ends_it_once_known() {
    let mut s = Scenario::new();
    s.platform.hold("create_live_stream");
    let session = s.request("key-1", |_| {});
    s.end(session);
    s.then_announced(&[]);
    s.let_go("create_live_stream");
    s.then_status(session, Status::Ended);
    s.then_calls(&["create_live_stream"]);
    s.then_announced(&["SessionEnded"]);
}

#[test]
fn an_end_after_a_failure_ends_it_and_looks_once_for_what_was_made() {
    let mut s = Scenario::new();
    s.platform.script("create_live_stream", Answer::Failed("422".to_owned()));
    let session = s.request("key-1", |_| {});
    s.given();
    s.end(session);
    s.then_calls(&["create_live_stream"]);
    s.retry(session);
    s.end(session);
    s.then_calls(&[]);
    s.then_announced(&["SessionEnded"]);
    assert_eq!(status(&s, session), "ended");
    assert_eq!(s.states().count(), 1, "nothing was made");
}

#[test]
fn what_a_call_made_that_was_given_up_is_proposed_for_deletion_when_its_session_ends() {
    let mut s = Scenario::new();
    s.platform.script("create_live_stream", Answer::Failed("no answer".to_owned()));
    let session = s.request("key-1", |_| {});
    let observed = json!({"id": 320_499, "active": false});
    s.platform.script("create_live_stream", Answer::Done(CallResult::LiveStream { observed }));
    s.given();
    s.end(session);
    s.then_calls(&["create_live_stream", "delete_live_stream"]);
    assert_eq!(status(&s, session), "ended");
    assert!(s.live_stream(320_499).deleted);
    s.then_announced(&["SessionEnded", "CleanupDone"]);
}

#[test]
fn commands_before_the_live_stream_is_known_are_not_lost() {
    let mut s = Scenario::new();
    s.platform.hold("create_live_stream");
    let session = s.request("key-1", |_| {});
    s.go_live(session);
    s.let_go("create_live_stream");
    assert!(s.session(session).go_live);
}

#[test]
fn one_key_creates_one_live_stream() {
    let mut s = Scenario::new();
    for _ in 0..3 {
        s.request("key-1", |_| {});
    }
    assert_eq!(s.calls().iter().filter(|kind| **kind == "create_live_stream").count(), 1);
}

#[test]
fn commands_to_an_unknown_session_change_nothing() {
    let mut s = Scenario::new();
    s.end(Uuid::nil());
    s.go_live(Uuid::nil());
    s.then_nothing();
    assert_eq!(s.states().count(), 0);
}
