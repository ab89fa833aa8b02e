//! The way of a video from `pending` to its end.

use serde_json::{Value, json};

use super::play::{Play, time};
use crate::{Behaviour, Encoding, ViewableWebhooks};

/// Records 30 s under some switches and lets transcoding end; returns the video as GET answers it.
fn transcoded(behaviour: Behaviour) -> (Play, Value) {
    let mut play = Play::behaving(behaviour);
    let stream = play.recorded_stream();
    play.wait(30.0);
    let id = play.stream_command(stream, "stop_recording").document()["id"].as_i64().unwrap();
    play.wait(120.0);
    let video = play.get(&format!("/streaming/videos/{id}"));
    (play, video)
}

#[test]
fn a_video_is_pending_then_viewable_with_one_rendition_then_ready() {
    let (play, video) = transcoded(Behaviour::default());
    assert_eq!(play.video_statuses(), ["pending", "viewable", "ready"]);
    let bodies: Vec<&Value> = play.bodies("video").map(|body| &body["video"]).collect();
    assert_eq!(bodies[0]["converted_videos"], json!([]));
    let statuses = |body: &Value| -> Vec<String> {
        let renditions = body["converted_videos"].as_array().unwrap();
        renditions.iter().map(|one| one["status"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(statuses(bodies[1]), ["complete", "processing", "processing", "processing"]);
    assert_eq!(statuses(bodies[2]), ["complete"; 4]);
    assert!(bodies.iter().all(|body| body["stream_id"] == video["stream_id"]));
    assert_eq!(bodies[2]["duration"], video["duration"]);
    assert_eq!(video["status"], "ready");
    assert_eq!(video["error"], Value::Null);
    assert!(video["converted_videos"][3]["mp4_url"].is_string());
    assert!(time(&video["updated_at"]) > time(&video["created_at"]));
}

#[test]
fn viewable_is_told_once_per_rendition_or_not_at_all() {
    for (viewable, expected) in [
        (ViewableWebhooks::Once, vec!["pending", "viewable", "ready"]),
        (
            ViewableWebhooks::PerRendition,
            vec!["pending", "viewable", "viewable", "viewable", "ready"],
        ),
        (ViewableWebhooks::Skipped, vec!["pending", "ready"]),
    ] {
        let (play, _) = transcoded(Behaviour { viewable, ..Behaviour::default() });
        assert_eq!(play.video_statuses(), expected);
    }
}

#[test]
fn viewable_may_be_final() {
    let (play, video) =
        transcoded(Behaviour { encoding: Encoding::RenditionFails, ..Behaviour::default() });
    assert_eq!(play.video_statuses(), ["pending", "viewable", "viewable"]);
    assert_eq!(video["status"], "viewable");
    assert_eq!(video["error"], "The storage limit has been exceeded");
    assert_eq!(video["converted_videos"][3]["status"], "error");
}

#[test]
fn a_failed_video_tells_its_reason_to_get_only() {
    let (play, video) = transcoded(Behaviour { encoding: Encoding::Fails, ..Behaviour::default() });
    assert_eq!(play.video_statuses(), ["pending", "error"]);
    assert_eq!(video["error"], "Encoding has failed");
    assert!(play.bodies("video").all(|body| body["video"].get("error").is_none()));
}

#[test]
fn legacy_video_webhooks_lack_stream_and_addresses() {
    let (play, _) = transcoded(Behaviour { legacy_video_webhooks: true, ..Behaviour::default() });
    let bodies: Vec<&Value> = play.bodies("video").map(|body| &body["video"]).collect();
    assert!(bodies.iter().all(|body| body.get("stream_id").is_none()));
    assert_eq!(bodies[0].get("converted_videos"), None);
    assert_eq!(bodies[2]["converted_videos"][0], json!({"name": "vod720n", "status": "complete"}));
}

#[test]
fn a_deleted_video_is_told_with_its_time_and_never_again() {
    let mut play = Play::new();
    let stream = play.recorded_stream();
    play.wait(30.0);
    let id = play.stream_command(stream, "stop_recording").document()["id"].as_i64().unwrap();
    play.wait(2.0);
    let path = format!("/streaming/videos/{id}");
    assert_eq!(play.call("DELETE", &path, Value::Null).status, 204);
    assert_eq!(play.call("DELETE", &path, Value::Null).status, 404);
    let deleted_at = play.now;
    play.wait(120.0);
    assert_eq!(play.video_statuses(), ["pending"]);
    let body = &play.bodies("video_delete").next().unwrap()["video"];
    assert_eq!(body["id"], id);
    assert_eq!(time(&body["deleted_at"]), deleted_at);
    assert_eq!(play.bodies("video_delete").count(), 1);
}

#[test]
fn transcoding_waits_while_it_is_told_to() {
    let waits = Behaviour { encoding: Encoding::Waits, ..Behaviour::default() };
    let (mut play, video) = transcoded(waits);
    assert_eq!(video["status"], "pending");
    assert_eq!(play.video_statuses(), ["pending"]);
    play.world.behave(Behaviour::default());
    play.wait(120.0);
    assert_eq!(play.video_statuses(), ["pending", "viewable", "ready"]);
}
