//! Every field that the API description publishes is in the answers.

use serde_json::{Value, json};

use crate::stage::Stage;
use crate::tutorial::fixture;

/// Checks that an answer has every field of a published sample.
fn assert_complete(given: &Value, sample: &str) {
    let published = fixture(sample);
    for field in published.as_object().unwrap().keys() {
        assert!(given.get(field).is_some(), "{sample}: {field} is missing in {given}");
    }
}

#[tokio::test]
async fn objects_have_every_published_field() {
    let stage = Stage::new().await;
    let id = stage.active_stream().await;
    let target = format!("/streaming/streams/{id}");
    let stream = stage.call("GET", &target, Value::Null).await.json();
    assert_complete(&stream, "api/openapi-stream-never-started.response.json");
    stage.simulator.push(id).unwrap();
    let live = stage.wait_for(&target, |stream| stream["live"] == true).await;
    assert_complete(&live, "api/openapi-stream-with-recording-flag.response.json");
    let listed = stage.call("GET", "/streaming/streams", Value::Null).await.json();
    assert_eq!(listed[0].as_object().unwrap().len(), live.as_object().unwrap().len());

    stage.call("PUT", &format!("{target}/start_recording"), Value::Null).await;
    let long_enough = |stream: &Value| stream["recording_duration"].as_f64() > Some(0.15);
    stage.wait_for(&target, long_enough).await;
    let video = stage.call("PUT", &format!("{target}/stop_recording"), Value::Null).await.json();
    assert_complete(&video, "api/openapi-video-recording-pending.response.json");
    let target = format!("/streaming/videos/{}", video["id"]);
    let ready = stage.wait_for(&target, |video| video["status"] == "ready").await;
    assert_complete(&ready, "api/openapi-video.response.json");
    let renditions = fixture("api/openapi-video.response.json")["converted_videos"][0].clone();
    for field in renditions.as_object().unwrap().keys() {
        assert!(ready["converted_videos"][0].get(field).is_some(), "{field}");
    }

    let body = json!({"broadcast": {"name": "b", "status": "live"}});
    let broadcast = stage.call("POST", "/streaming/broadcasts", body).await.json();
    assert_complete(&broadcast, "api/openapi-broadcast-with-id.response.json");
    let account = stage.call("GET", "/iam/clients/me", Value::Null).await.json();
    assert_complete(&account, "api/iam-account.response.json");
}

#[tokio::test]
async fn webhooks_have_every_published_field() {
    let receiver = crate::receiver::Receiver::answering(200).await;
    let stage = Stage::new().await;
    stage.simulator.set_webhook_url(Some(receiver.url.clone()));
    let id = stage.active_stream().await;
    let target = format!("/streaming/streams/{id}");
    let patch = json!({"stream": {"auto_record": true}});
    stage.call("PATCH", &target, patch).await;
    stage.simulator.push(id).unwrap();
    let long_enough = |stream: &Value| stream["recording_duration"].as_f64() > Some(0.15);
    stage.wait_for(&target, long_enough).await;
    let video = stage.call("PUT", &format!("{target}/stop_recording"), Value::Null).await.json();
    for (sample, kind, entity) in [
        ("webhooks/stream-lifecycle-3-recording.json", "stream", "stream"),
        ("webhooks/video-viewable-partial-renditions.json", "video", "video"),
        ("webhooks/video-delete.json", "video_delete", "video"),
    ] {
        if kind == "video_delete" {
            let target = format!("/streaming/videos/{}", video["id"]);
            stage.call("DELETE", &target, Value::Null).await;
        }
        let told = receiver.wait_for(kind, |body| body["type"] == kind).await;
        let given: Vec<&String> = told["message"][entity].as_object().unwrap().keys().collect();
        let published = fixture(sample);
        let expected: Vec<&String> =
            published["message"][entity].as_object().unwrap().keys().collect();
        assert_eq!(given, expected, "{sample}");
    }
}
