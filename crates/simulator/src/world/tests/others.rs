//! Operations that no session needs: what they remember, and what they refuse.

use serde_json::{Value, json};

use super::play::Play;
use crate::Behaviour;
use crate::world::Action;

#[test]
fn ffprobe_tells_when_a_stream_was_alive_and_when_it_was_not() {
    let mut play = Play::new();
    let from = play.now;
    let id = play.live_stream();
    play.wait(50.0);
    play.encoder(id, Action::Stop).unwrap();
    play.wait(120.0);
    play.encoder(id, Action::Push).unwrap();
    play.wait(30.0);
    let (from, to) = (from.format("%FT%TZ"), play.now.format("%FT%TZ"));
    let target = format!(
        "/streaming/statistics/ffprobe?stream_id={id}&date_from={from}&date_to={to}&interval=10"
    );
    let times: Vec<String> = play.get(&target)["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|sample| sample["time"].as_str().unwrap()[11..].to_owned())
        .collect();
    let first: Vec<_> = (0..=5).map(|ten| format!("12:00:{ten}0")).collect();
    assert_eq!(times[..6], first, "the first run");
    assert_eq!(times.last().map(String::as_str), Some("12:03:20"), "the second: {times:?}");
    assert!(!times.contains(&"12:02:00".to_owned()), "between them");
    let missing = play.call("GET", "/streaming/statistics/ffprobe?stream_id=1", Value::Null);
    assert_eq!(missing.status, 400);
}

#[test]
fn an_ai_task_is_done_by_time_and_cannot_be_cancelled_then() {
    let mut play = Play::new();
    let body = json!({"task_name": "transcription", "url": "https://files.example/a.mp4"});
    let made = play.call("POST", "/streaming/ai/tasks", body.clone());
    assert_eq!(made.status, 201);
    let target = format!("/streaming/ai/tasks/{}", made.document()["task_id"].as_str().unwrap());
    for (seconds, status) in [(0.0, "PENDING"), (3.0, "STARTED"), (20.0, "SUCCESS")] {
        play.wait(seconds);
        assert_eq!(play.get(&target)["status"], status);
    }
    assert_eq!(play.get(&target)["result"]["languages"], json!(["eng"]));
    let cancelled = play.call("POST", &format!("{target}/cancel"), Value::Null);
    assert_eq!(cancelled.status, 412);
    for _ in 0..100 {
        assert_eq!(play.call("POST", "/streaming/ai/tasks", body.clone()).status, 201);
    }
    let refused = play.call("POST", "/streaming/ai/tasks", body);
    assert_eq!(refused.status, 429);
    assert_eq!(refused.document()["error"], "Queue limit reached (100), try later.");
}

#[test]
fn a_restream_follows_its_stream_and_tells_it() {
    let mut play = Play::new();
    let id = play.active_stream();
    let body = json!({"restream": {"name": "r", "uri": "rtmp://x.example/k", "stream_id": id}});
    let made = play.call("POST", "/streaming/restreams", body.clone());
    assert_eq!(made.document()["live"], false);
    assert_eq!(play.call("POST", "/streaming/restreams", body).status, 422, "one per account");
    play.encoder(id, Action::Push).unwrap();
    play.wait(10.0);
    play.encoder(id, Action::Stop).unwrap();
    play.wait(10.0);
    let told: Vec<_> =
        play.bodies("restream").map(|body| body["restream"]["live"].clone()).collect();
    assert_eq!(told, [json!(true), json!(false)]);
}

#[test]
fn a_directory_is_deleted_with_all_that_is_in_it() {
    let mut play = Play::new();
    let mut directory = |parent: Value| {
        let body = json!({"name": "d", "parent_id": parent});
        play.call("POST", "/streaming/directories", body).document()["id"].clone()
    };
    let top = directory(Value::Null);
    let inner = directory(top.clone());
    let body = json!({"video": {"name": "v", "directory_id": inner}});
    let video = play.call("POST", "/streaming/videos", body).document()[0]["id"].clone();
    assert_eq!(play.get(&format!("/streaming/directories/{top}"))["directory"]["items_count"], 1);
    assert_eq!(
        play.call("DELETE", &format!("/streaming/directories/{top}"), Value::Null).status,
        204
    );
    for gone in [format!("directories/{inner}"), format!("videos/{video}")] {
        assert_eq!(
            play.call("GET", &format!("/streaming/{gone}"), Value::Null).status,
            404,
            "{gone}"
        );
    }
    assert_eq!(play.bodies("video_delete").count(), 1);
}

#[test]
fn a_clip_needs_a_rewind_window_and_can_be_fetched_for_its_time() {
    let mut play = Play::new();
    let id = play.live_stream();
    let target = format!("/streaming/streams/{id}/clip_recording");
    let body = json!({"start": play.now.timestamp(), "duration": 60, "vod_required": false});
    assert_eq!(play.call("PUT", &target, body.clone()).status, 422);
    play.patch(id, json!({"dvr_enabled": true}));
    let clip = play.call("PUT", &target, body);
    assert_eq!((clip.status, &clip.document()["video_id"]), (200, &Value::Null));
    play.wait(3600.0);
    assert_eq!(play.get(&target).as_array().unwrap().len(), 1);
    play.wait(120.0);
    assert_eq!(play.get(&target), json!([]));
}

#[test]
fn a_video_from_an_address_is_transcoded_and_one_without_waits_for_its_file() {
    for as_list in [true, false] {
        let behaviour = Behaviour { create_video_answers_list: as_list, ..Behaviour::default() };
        let mut play = Play::behaving(behaviour);
        let mut create = |video: Value| {
            let made = play.call("POST", "/streaming/videos", json!({"video": video}));
            let view = made.document();
            if as_list { view[0].clone() } else { view.clone() }
        };
        let fetched = create(json!({"name": "a", "origin_url": "https://files.example/a.mp4"}));
        let waiting = create(json!({"name": "b"}));
        assert_eq!((&fetched["status"], &waiting["status"]), (&json!("pending"), &json!("empty")));
        play.wait(60.0);
        assert_eq!(play.get(&format!("/streaming/videos/{}", fetched["id"]))["status"], "ready");
        assert_eq!(play.get(&format!("/streaming/videos/{}", waiting["id"]))["status"], "empty");
    }
}
