//! Faults of the network and refusals of the platform: each ends where it should, and no object is
//! made twice.

use std::time::Duration;

use chrono::TimeDelta;
use domain::timer::{Limits, Policy};
use serde_json::json;
use simulator::{
    Behaviour, Effect, ErrorShape, Faults, Mishap, Refusal, Rule, StartRecording, WebhookFaults,
};

use crate::system::{Setup, TIME_SCALE, TestSystem, behaviour, until};

const CREATE_STREAM: &str = "POST /streaming/streams";
const CREATE_BROADCAST: &str = "POST /streaming/broadcasts";

/// A system whose platform has these switches.
async fn system(behaviour: Behaviour) -> TestSystem {
    let simulator = simulator::Config { behaviour, ..Setup::default().simulator };
    TestSystem::start(Setup { simulator, ..Setup::default() }).await
}

#[tokio::test]
async fn a_create_whose_answer_is_an_error_or_lost_makes_one_object() {
    let system = system(behaviour()).await;
    for (key, effect) in [
        ("error", Effect::ApplyThenStatus(Refusal::new(500, ErrorShape::D, "internal"))),
        ("lost", Effect::ApplyThenReset),
    ] {
        let before =
            (system.changes_like(CREATE_STREAM).len(), system.changes_like(CREATE_BROADCAST).len());
        system.faults([
            Rule::once(CREATE_STREAM, effect.clone()),
            Rule::once(CREATE_BROADCAST, effect),
        ]);
        let session = system.request(key, json!({})).await;
        system.until_ready(session).await;
        assert_eq!(system.changes_like(CREATE_STREAM).len(), before.0 + 1, "{key}");
        assert_eq!(system.changes_like(CREATE_BROADCAST).len(), before.1 + 1, "{key}");
        system.finish(session).await;
    }
    system.end().await;
}

#[tokio::test]
async fn a_create_that_was_given_up_is_found_by_the_retry() {
    let limits = Limits { call: Duration::from_secs(1), ..Limits::default() };
    let policy = Policy { limits, ..Policy::default().scaled(TIME_SCALE) };
    let system = TestSystem::start(Setup { policy, ..Setup::default() }).await;
    let down = || Effect::Status(Refusal::new(500, ErrorShape::D, "internal"));
    system.faults([
        Rule::once(CREATE_STREAM, Effect::ApplyThenReset),
        Rule::always("* /streaming/streams", down()),
    ]);
    let session = system.request("given-up", json!({})).await;
    until("the session failed", async || {
        (system.session(session).await["status"] == "failed").then_some(())
    })
    .await;
    system.faults([]);
    let status_of = async || system.session(session).await["status"].clone();
    // Calls are paused for a while after an outage, which may be longer than a call of this test may
    // take.
    let (mut status, mut retries) = (json!("failed"), 0);
    while status == "failed" {
        retries += 1;
        assert!(retries <= 20, "{}", system.session(session).await);
        system.tell(session, "retry").await;
        until("it is tried again", async || (status_of().await != "failed").then_some(())).await;
        status = until("it has come to something", async || {
            Some(status_of().await).filter(|status| *status == "ready" || *status == "failed")
        })
        .await;
    }
    assert_eq!(system.simulator.state()["streams"].as_array().unwrap().len(), 1);
    system.finish(session).await;
    system.command(&["jobs", "discard", "--kind", "create_live_stream"]).await;
    system.end_after_errors().await;
}

#[tokio::test]
async fn an_end_is_not_held_up_by_a_call_that_is_answered_500() {
    let system = system(behaviour()).await;
    let session = system.request("stuck", json!({"auto_go_live": true})).await;
    let stream = system.until_ready(session).await;
    let down = Effect::Status(Refusal::new(500, ErrorShape::D, "internal"));
    system.faults([Rule::always("PATCH /streaming/broadcasts/*", down)]);
    system.simulator.push(stream).unwrap();
    until("the show is to be shown", async || {
        (system.session(session).await["in_flight"] == "set_broadcast_status").then_some(())
    })
    .await;
    system.tell(session, "end").await;
    until("the call is let go", async || {
        let told = system.session(session).await;
        let problem = told["problems"][0].as_str().unwrap_or_default();
        problem.starts_with("set_broadcast_status: cancelled").then_some(())
    })
    .await;
    system.faults([]);
    system.finish(session).await;
    system.end().await;
}

#[tokio::test]
async fn a_create_that_never_arrived_is_made_by_the_next_try() {
    let system = system(behaviour()).await;
    system.faults([
        Rule::once(CREATE_STREAM, Effect::Reset),
        Rule::once(CREATE_BROADCAST, Effect::Reset),
    ]);
    let session = system.request("never-arrived", json!({})).await;
    system.until_ready(session).await;
    assert_eq!(system.simulator.state()["streams"].as_array().unwrap().len(), 1);
    assert_eq!(system.simulator.state()["broadcasts"].as_array().unwrap().len(), 1);
    system.finish(session).await;
    system.end().await;
}

#[tokio::test]
async fn a_stop_whose_answer_is_lost_leaves_its_video_to_be_found() {
    let system = system(behaviour()).await;
    let on_air = system.on_air("stop-lost").await;
    system.faults([Rule::once("PUT /streaming/streams/*/stop_recording", Effect::ApplyThenReset)]);
    let end = system.finish(on_air.session).await;
    assert_eq!(end.videos.len(), 1);
    assert!(end.is_all_ready());
    system.end().await;
}

#[tokio::test]
async fn a_start_of_the_recording_whose_answer_is_lost_is_sent_once() {
    let system = system(behaviour()).await;
    system.faults([Rule::once("PUT /streaming/streams/*/start_recording", Effect::ApplyThenReset)]);
    let on_air = system.on_air("start-lost").await;
    let end = system.finish(on_air.session).await;
    assert_eq!(end.videos.len(), 1);
    let path = format!("PUT /streaming/streams/{}/start_recording", on_air.stream);
    assert_eq!(system.changes_like(&path).len(), 1);
    system.end().await;
}

#[tokio::test]
async fn without_any_webhook_a_session_comes_to_its_end_by_asking() {
    let system = system(behaviour()).await;
    system.simulator.faults(Faults {
        webhooks: WebhookFaults { lose: 1.0, ..WebhookFaults::default() },
        ..Faults::default()
    });
    let session = system.request("deaf", json!({"auto_go_live": true})).await;
    let stream = system.until_ready(session).await;
    system.simulator.push(stream).unwrap();
    system.until_status(session, "live").await;
    until("it is recorded", async || (system.stream(stream)["recording"] == true).then_some(()))
        .await;
    let end = system.finish(session).await;
    assert_eq!(end.videos.len(), 1);
    assert!(end.is_all_ready());
    assert!(!system.events().await.iter().any(|event| event.event_type == "WebhookReceived"));
    system.end().await;
}

#[tokio::test]
async fn a_platform_that_asks_to_wait_is_asked_again_no_earlier() {
    let system = system(behaviour()).await;
    let wait =
        Refusal::new(429, ErrorShape::B, "Too Many Requests").with_header("Retry-After", "2");
    system.faults([Rule::once("PATCH /streaming/streams/*", Effect::Status(wait))]);
    let session = system.request("patient", json!({})).await;
    system.until_ready(session).await;
    let [refused, accepted] = &system.changes_like("PATCH /streaming/streams/")[..] else {
        panic!("one refused call and one more")
    };
    assert_eq!((refused.status, accepted.status), (429, 200));
    assert!(accepted.at - refused.at >= TimeDelta::seconds(2), "{}", accepted.at - refused.at);
    system.finish(session).await;
    system.end().await;
}

#[tokio::test]
async fn a_start_of_the_recording_that_is_answered_with_errors_leaves_the_session_on_air() {
    let system = system(Behaviour { start_recording: StartRecording::Errors, ..behaviour() }).await;
    goes_on_unrecorded(&system).await;
    system.end().await;
}

#[tokio::test]
async fn a_recording_without_space_leaves_the_session_on_air() {
    let system =
        system(Behaviour { start_recording: StartRecording::NoSpace, ..behaviour() }).await;
    goes_on_unrecorded(&system).await;
    system.end().await;
}

/// Runs a session that the platform does not record.
async fn goes_on_unrecorded(system: &TestSystem) {
    let session = system.request("unrecorded", json!({"auto_go_live": true})).await;
    let stream = system.until_ready(session).await;
    system.simulator.push(stream).unwrap();
    until("the refusal is told", async || {
        let told = system.session(session).await;
        (told["status"] == "live" && told["recording_refused"].is_string()).then_some(())
    })
    .await;
    let end = system.finish(session).await;
    assert!(end.videos.is_empty());
    assert_eq!(system.changes_like(&format!("PUT /streaming/streams/{stream}/start")).len(), 1);
}

#[tokio::test]
async fn a_platform_that_wants_the_name_in_every_change_of_a_live_stream_gets_it() {
    let system = system(Behaviour { patch_needs_name: true, ..behaviour() }).await;
    let on_air = system.on_air("strict").await;
    let end = system.finish(on_air.session).await;
    assert!(end.is_all_ready());
    system.end().await;
}

#[tokio::test]
async fn a_broadcast_that_somebody_deleted_is_made_anew_by_a_retry() {
    let system = system(behaviour()).await;
    let on_air = system.on_air("bereft").await;
    let (session, stream) = (on_air.session, on_air.stream);
    // No webhook tells of it, and no call of ours is due: a sweep finds it.
    assert!(system.simulator.strike(Mishap::DeletesBroadcast, Some(stream)));
    let told = system.until_status(session, "failed").await;
    assert_eq!(told["failure"]["call"], "observe_broadcast");
    assert_eq!(told["failure"]["reason"], "the broadcast was deleted on the platform");
    system.tell(session, "retry").await;
    until("it is live", async || (system.session(session).await["status"] == "live").then_some(()))
        .await;
    let end = system.finish(session).await;
    assert!(end.is_all_ready());
    assert_eq!(system.changes_like(CREATE_BROADCAST).len(), 2);
    system.end().await;
}

#[tokio::test]
async fn a_broadcast_whose_answer_names_no_id_is_looked_up() {
    let silent = Behaviour { create_broadcast_answers_body: false, ..behaviour() };
    let system = system(silent).await;
    let on_air = system.on_air("nameless").await;
    let end = system.finish(on_air.session).await;
    assert!(end.is_all_ready());
    assert_eq!(system.changes_like(CREATE_BROADCAST).len(), 1);
    assert_eq!(system.changes_like("DELETE /streaming/broadcasts/").len(), 1);
    system.end().await;
}
