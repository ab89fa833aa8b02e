//! The timeline: what concerns a session, and nothing of its neighbours on the same live stream.

use domain::announcement::{Announcement, SessionNews};
use domain::call::{Call, CallResult};
use domain::event::{CallIntended, CallSucceeded, Event, SessionRef, TimerElapsed};
use domain::ids::{LiveStreamId, Subject};
use domain::timer::TimerKind;
use serde_json::{Value, json};
use uuid::Uuid;

use super::support::{App, named};

const LIVE_STREAM: LiveStreamId = LiveStreamId(9);

fn news(session: Uuid) -> SessionNews {
    SessionNews {
        session,
        live_stream: Some(LIVE_STREAM),
        account: None,
        note: None,
        derived: None,
    }
}

fn poll() -> Event {
    Event::TimerElapsed(TimerElapsed { timer: TimerKind::Poll, generation: 0 })
}

/// A call for a session and its outcome.
async fn call(app: &App, subject: &Subject) {
    let intent = Uuid::now_v7();
    let call = Call::ActivateLiveStream { live_stream: LIVE_STREAM };
    app.append(subject, &Event::CallIntended(CallIntended { intent, call })).await;
    let result = CallResult::Done;
    app.append(subject, &Event::CallSucceeded(CallSucceeded { intent, result })).await;
}

fn kinds(timeline: &Value) -> Vec<&str> {
    timeline.as_array().unwrap().iter().map(|entry| entry["type"].as_str().unwrap()).collect()
}

/// Two sessions, one after the other, on one live stream.
async fn two_sessions(app: &App) -> (Uuid, Uuid) {
    let reuse = json!({ "name": "n", "live_stream_id": LIVE_STREAM.0 });
    let first = app.session("first", &reuse).await;
    let second = app.session("second", &reuse).await;
    let subject = Subject::live_stream("gcore-main", LIVE_STREAM);
    app.append(&subject, &poll()).await;
    app.bind(first, LIVE_STREAM.0).await;
    call(app, &subject).await;
    app.append(&subject, &Event::Announced(Announcement::SessionWentLive(news(first)))).await;
    app.append(&subject, &Event::EndRequested(SessionRef { session: second })).await;
    app.append(&subject, &Event::Announced(Announcement::SessionStopped(news(first)))).await;
    app.bind(second, LIVE_STREAM.0).await;
    call(app, &subject).await;
    app.append(&subject, &Event::Announced(Announcement::SessionEnded(news(first)))).await;
    app.append(&subject, &poll()).await;
    app.project().await;
    (first, second)
}

#[tokio::test]
async fn a_timeline_lies_between_binding_and_end_and_tells_nothing_of_neighbours() {
    let app = App::start().await;
    let (first, second) = two_sessions(&app).await;
    let shown = app.get(&format!("/v1/sessions/{first}")).await;
    assert_eq!(
        kinds(&shown.ok(200)["timeline"]),
        [
            "SessionRequested",
            "SessionBound",
            "CallIntended",
            "CallSucceeded",
            "SessionWentLive",
            "SessionStopped",
            "SessionEnded"
        ]
    );
    let shown = app.get(&format!("/v1/sessions/{second}")).await;
    assert_eq!(
        kinds(&shown.ok(200)["timeline"]),
        ["SessionRequested", "SessionBound", "CallIntended", "CallSucceeded", "TimerElapsed"]
    );
}

#[tokio::test]
async fn an_entry_is_one_line_with_its_place_and_holds_no_payload() {
    let app = App::start().await;
    let (first, _) = two_sessions(&app).await;
    let shown = app.get(&format!("/v1/sessions/{first}")).await;
    let entry = shown.ok(200)["timeline"][1].as_object().unwrap();
    let mut names: Vec<&String> = entry.keys().collect();
    names.sort();
    assert_eq!(names, ["at", "event_id", "subject", "summary", "type"]);
    assert_eq!(entry["subject"], "gcore-main/stream/9");
    assert_eq!(entry["summary"], "the session reuses live stream 9");
}

#[tokio::test]
async fn pages_of_a_timeline_tell_each_event_once_in_order() {
    let app = App::start().await;
    let (first, _) = two_sessions(&app).await;
    app.command(&format!("/v1/sessions/{first}/go-live"), None).await.ok(202);
    let path = format!("/v1/sessions/{first}/timeline");
    let whole = app.get(&path).await.ok(200)["events"].clone();
    assert_eq!(kinds(&whole).len(), 8);
    for limit in 1..=9 {
        let (mut told, mut after) = (Vec::new(), String::new());
        loop {
            let page = app.get(&format!("{path}?limit={limit}{after}")).await;
            told.extend(page.ok(200)["events"].as_array().unwrap().clone());
            let Some(next) = page.json["next"].as_str() else { break };
            after = format!("&after={next}");
        }
        assert_eq!(Value::Array(told), whole, "limit {limit}");
    }
    assert_eq!(app.get(&format!("{path}?after=x")).await.wrong_fields(), ["after"]);
    let of_another_incarnation = format!("{}.1.0", Uuid::from_u128(1).simple());
    let refused = app.get(&format!("{path}?after={of_another_incarnation}")).await;
    assert!(refused.problem(422, "invalid").contains("before the log was restored"));
    let installation = app.get("/v1/installation").await.json;
    let own = Uuid::parse_str(installation["incarnation"].as_str().unwrap()).unwrap();
    assert_eq!(Some(own), app.store.incarnation());
    assert_eq!(installation["id"], app.store.installation().to_string());
}

#[tokio::test]
async fn a_session_carries_the_beginning_of_a_long_timeline_and_where_it_goes_on() {
    let app = App::start().await;
    let id = app.session("key", &named("n")).await;
    let subject = app.bind(id, LIVE_STREAM.0).await;
    for _ in 0..120 {
        app.append(&subject, &poll()).await;
    }
    app.project().await;
    let shown = app.get(&format!("/v1/sessions/{id}")).await;
    assert_eq!(kinds(&shown.ok(200)["timeline"]).len(), 100);
    let next = shown.json["timeline_next"].as_str().unwrap();
    let rest = app.get(&format!("/v1/sessions/{id}/timeline?after={next}")).await;
    assert_eq!(kinds(&rest.ok(200)["events"]).len(), 22);
    assert_eq!(rest.json["next"], json!(null));
}

#[tokio::test]
async fn an_unbound_session_has_the_timeline_of_its_request() {
    let app = App::start().await;
    let id = app.session("key", &json!({ "name": "n", "live_stream_id": LIVE_STREAM.0 })).await;
    app.append(&Subject::live_stream("gcore-main", LIVE_STREAM), &poll()).await;
    app.command(&format!("/v1/sessions/{id}/end"), None).await.ok(202);
    let shown = app.get(&format!("/v1/sessions/{id}")).await;
    assert_eq!(kinds(&shown.ok(200)["timeline"]), ["SessionRequested", "EndRequested"]);
}
