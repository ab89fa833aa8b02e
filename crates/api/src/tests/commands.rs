//! Commands: accepted where they can work, refused with what can.

use domain::call::Call;
use domain::event::{CallFailed, CallIntended, Event};
use domain::ids::Subject;
use uuid::Uuid;

use super::support::{App, SOURCE, named};

/// A session whose live stream could not be made.
async fn failed(app: &App) -> Uuid {
    let id = app.session("key", &named("n")).await;
    let subject = Subject::request(SOURCE, id);
    let intent = Uuid::now_v7();
    let call = Call::CreateLiveStream {
        name: "n".to_owned(),
        options: domain::event::SessionOptions::default(),
        earlier: Vec::new(),
        only_look: false,
    };
    app.append(&subject, &Event::CallIntended(CallIntended { intent, call })).await;
    let reason = "the quota is used up".to_owned();
    app.append(&subject, &Event::CallFailed(CallFailed { intent, reason })).await;
    app.project().await;
    id
}

#[tokio::test]
async fn a_command_is_appended_to_the_request_and_is_accepted() {
    let app = App::start().await;
    let id = app.session("key", &named("n")).await;
    let answer = app.command(&format!("/v1/sessions/{id}/go-live"), None).await;
    assert_eq!(answer.ok(202), &serde_json::json!({ "session": id, "accepted": true }));
    app.command(&format!("/v1/sessions/{id}/end"), None).await.ok(202);
    assert_eq!(app.commands(id).await, ["SessionRequested", "GoLiveRequested", "EndRequested"]);
}

#[tokio::test]
async fn a_command_that_stands_already_adds_nothing() {
    let app = App::start().await;
    let id = app.session("key", &named("n")).await;
    app.bind(id, 1).await;
    for _ in 0..3 {
        app.command(&format!("/v1/sessions/{id}/go-live"), None).await.ok(202);
    }
    app.project().await;
    for key in [None, Some("a"), Some("b")] {
        app.command(&format!("/v1/sessions/{id}/end"), key).await.ok(202);
    }
    assert_eq!(app.commands(id).await, ["SessionRequested", "GoLiveRequested", "EndRequested"]);
}

#[tokio::test]
async fn nothing_can_be_commanded_of_an_ended_session() {
    let app = App::start().await;
    let id = app.session("key", &named("n")).await;
    app.command(&format!("/v1/sessions/{id}/end"), Some("once")).await.ok(202);
    app.project().await;
    for command in ["go-live", "end", "retry"] {
        let answer = app.command(&format!("/v1/sessions/{id}/{command}"), None).await;
        let detail = answer.problem(409, "not-now");
        assert!(detail.contains(command) && detail.contains("ended"), "{detail}");
        assert_eq!(answer.json["session_status"], "ended");
        assert_eq!(answer.json["allowed"], serde_json::json!([]));
    }
    // The same request sent again is no new command.
    app.command(&format!("/v1/sessions/{id}/end"), Some("once")).await.ok(202);
    assert_eq!(app.commands(id).await, ["SessionRequested", "EndRequested"]);
}

#[tokio::test]
async fn going_live_after_the_end_was_requested_is_409_even_before_a_worker_saw_it() {
    let app = App::start().await;
    let id = app.session("key", &named("n")).await;
    app.bind(id, 1).await;
    app.project().await;
    app.command(&format!("/v1/sessions/{id}/end"), None).await.ok(202);
    let answer = app.command(&format!("/v1/sessions/{id}/go-live"), None).await;
    assert!(answer.problem(409, "not-now").contains("its end was requested"));
    assert_eq!(answer.json["session_status"], "preparing");
    assert_eq!(answer.json["allowed"], serde_json::json!(["end"]));
}

#[tokio::test]
async fn only_what_failed_can_be_retried() {
    let app = App::start().await;
    let id = failed(&app).await;
    let shown = app.get(&format!("/v1/sessions/{id}")).await;
    assert_eq!(shown.ok(200)["status"], "failed");
    assert_eq!(shown.json["failure"]["call"], "create_live_stream");
    assert_eq!(shown.json["failure"]["reason"], "the quota is used up");
    app.command(&format!("/v1/sessions/{id}/retry"), Some("r1")).await.ok(202);
    app.command(&format!("/v1/sessions/{id}/retry"), Some("r1")).await.ok(202);
    let commands = app.commands(id).await;
    assert_eq!(commands.iter().filter(|name| **name == "RetryRequested").count(), 1);
    app.project().await;
    let answer = app.command(&format!("/v1/sessions/{id}/retry"), None).await;
    answer.problem(409, "not-now");
    assert_eq!(answer.json["session_status"], "requested");
    assert_eq!(answer.json["allowed"], serde_json::json!(["go-live", "end"]));
}

#[tokio::test]
async fn one_key_may_stand_for_each_command_once() {
    let app = App::start().await;
    let id = app.session("key", &named("n")).await;
    app.command(&format!("/v1/sessions/{id}/go-live"), Some("k")).await.ok(202);
    app.command(&format!("/v1/sessions/{id}/end"), Some("k")).await.ok(202);
    assert_eq!(app.commands(id).await, ["SessionRequested", "GoLiveRequested", "EndRequested"]);
}
