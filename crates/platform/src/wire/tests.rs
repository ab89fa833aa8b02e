//! What lenient reading accepts, and what `observed` and `Debug` keep to themselves.

use std::{fs, path::Path};

use chrono::{TimeZone, Utc};
use serde_json::{Value, json};

use super::{fields::parse_time, *};

/// A body of the platform's public samples.
fn fixture(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/api").join(name);
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn stream(value: Value) -> Stream {
    serde_json::from_value(value).unwrap()
}

fn video(value: Value) -> Video {
    serde_json::from_value(value).unwrap()
}

#[test]
fn every_notation_of_a_time_is_the_same_time() {
    let expected = Utc.with_ymd_and_hms(2022, 6, 3, 13, 25, 16).single();
    for text in [
        "2022-06-03T13:25:16.000Z",
        "2022-06-03T13:25:16Z",
        "2022-06-03T15:25:16+02:00",
        "2022-06-03 13:25:16 +0000",
        "2022-06-03 13:25:16",
        "2022-06-03T13:25:16",
        " 2022-06-03T13:25:16+0000 ",
    ] {
        assert_eq!(parse_time(text), expected, "{text}");
    }
    for text in ["", "yesterday", "2022-13-03T13:25:16Z", "1654262716", "2022-06-03"] {
        assert_eq!(parse_time(text), None, "{text}");
    }
}

#[test]
fn an_id_is_a_whole_number_above_zero_or_a_text_of_one() {
    for (id, expected) in [(json!(7), 7), (json!("7"), 7), (json!(i64::MAX), i64::MAX)] {
        assert_eq!(stream(json!({"id": id})).id, expected);
    }
    for id in
        [json!(0), json!(-1), json!(1.5), json!(7.0), json!("x"), json!(null), json!(u64::MAX)]
    {
        assert!(serde_json::from_value::<Stream>(json!({"id": id})).is_err(), "{id}");
        assert!(serde_json::from_value::<Video>(json!({"id": id})).is_err(), "{id}");
        let broadcast: Broadcast = serde_json::from_value(json!({"id": id})).unwrap();
        assert_eq!(broadcast.id, None, "{id}");
    }
    for body in [json!({}), json!([]), json!(null), json!("x")] {
        assert!(serde_json::from_value::<Stream>(body).is_err());
    }
}

#[test]
fn a_field_of_a_wrong_type_is_absent_and_the_rest_stays() {
    let odd = stream(json!({
        "id": 1, "name": 5, "active": "true", "live": 1, "backup_live": true, "recording": null,
        "client_user_id": {"a": 1}, "broadcast_ids": "none", "created_at": 12,
        "started_at_primary": "soon", "push_url": [], "recording_duration": "12.5", "new": {"x": 1},
    }));
    assert_eq!((odd.active, odd.live, odd.recording), (None, None, None));
    assert_eq!((odd.backup_live, odd.is_live()), (Some(true), Some(true)));
    assert_eq!((odd.name, odd.client_user_id, odd.created_at), (None, None, None));
    assert_eq!((odd.started_at_primary, odd.broadcast_ids), (None, None));
    assert_eq!(odd.recording_duration_seconds, Some(12.5));
    let odd = video(json!({
        "id": "2", "duration": -1, "stream_id": "320423", "converted_videos": {"name": "a"},
    }));
    assert_eq!((odd.id, odd.duration_ms, odd.stream_id), (2, None, Some(320_423)));
    assert_eq!(odd.converted_videos, None);
    let odd = video(json!({"id": 2, "converted_videos": [null, "a", {"name": "b", "error": ""}]}));
    let renditions = odd.converted_videos.unwrap();
    let names: Vec<_> = renditions.iter().map(|one| one.name.as_deref()).collect();
    assert_eq!(names, [Some("b")]);
    assert_eq!(renditions[0].error, None);
}

#[test]
fn an_ownership_tag_is_read_as_text_and_as_object() {
    let text = stream(json!({"id": 1, "client_entity_data": "{\"key\":\"k\"}"}));
    let object = stream(json!({"id": 1, "client_entity_data": {"key": "k"}}));
    assert_eq!(text.client_entity_data.as_deref(), Some(r#"{"key":"k"}"#));
    assert_eq!(object.client_entity_data, text.client_entity_data);
}

#[test]
fn texts_can_be_stored_in_postgresql() {
    let stream = stream(json!({"id": 1, "name": "a\u{0}b", "client_entity_data": "\u{0}"}));
    assert_eq!(stream.name.as_deref(), Some("a\u{fffd}b"));
    assert!(!stream.observed().to_string().contains("\\u0000"));
}

#[test]
fn liveness_is_unknown_only_if_both_flags_are() {
    let live = |body: Value| stream(body).is_live();
    assert_eq!(live(json!({"id": 1})), None);
    assert_eq!(live(json!({"id": 1, "live": false})), Some(false));
    assert_eq!(live(json!({"id": 1, "live": false, "backup_live": true})), Some(true));
}

#[test]
fn secrets_show_neither_in_debug_nor_in_observed() {
    let mut body = fixture("openapi-stream.response.json");
    body["uri"] = json!("rtsp://user:secret-pull@camera.example/1?08cd54f0");
    let stream = stream(body);
    let shown = format!("{stream:?} {:?} {}", stream.ingest_credentials(), stream.observed());
    for secret in ["08cd54f0", "your_secret_passphrase", "123_561041", "secret-pull", "push_url\":"]
    {
        assert!(!shown.contains(secret), "{secret} shows");
    }
    let new = NewStream { srt_passphrase: stream.srt_passphrase.clone(), ..NewStream::default() };
    assert!(!format!("{new:?}").contains("your_secret_passphrase"));
}

#[test]
fn ingest_credentials_are_exposed_on_request() {
    let credentials = stream(fixture("openapi-stream.response.json")).ingest_credentials();
    let exposed = credentials.expose();
    assert_eq!(exposed["token"], "08cd54f0");
    assert_eq!(exposed["srt_passphrase"], "your_secret_passphrase");
    assert_eq!(exposed["push_url_whip"], "https://whip.gvideo.co/123_561041/whip");
    assert_eq!(exposed.as_object().unwrap().len(), 7);
    assert!(!credentials.is_empty());
    assert!(stream(json!({"id": 1, "push_url": ""})).ingest_credentials().is_empty());
}

#[test]
fn observed_holds_what_the_platform_said_and_nothing_else() {
    assert_eq!(stream(json!({"id": 1, "live": null})).observed()["live"], Value::Null);
    let observed = stream(fixture("tutorial-step-14-disable-stream.response.json")).observed();
    assert_eq!(observed, json!({"id": 320_423, "live": true, "active": false}));
    let observed = stream(fixture("openapi-stream-ended.response.json")).observed();
    assert_eq!(observed["broadcast_ids"], json!([]), "known to be empty, not unknown");
    let observed = stream(fixture("openapi-stream-with-recording-flag.response.json")).observed();
    assert_eq!(observed["started_at_primary"], "2023-10-03T00:01:01.000Z");
    assert!(observed["recording"].is_boolean());
    let observed = video(fixture("docs-video-viewable-terminal.response.json")).observed();
    assert_eq!(observed["error"], "The storage limit has been exceeded");
    assert_eq!(observed["converted_videos"][0], json!({"name": "vod1080p", "status": "error"}));
    let broadcast: Broadcast =
        serde_json::from_value(fixture("openapi-broadcast-with-id.response.json")).unwrap();
    assert_eq!(broadcast.observed()["id"], 192_470);
    assert_eq!(broadcast.observed()["stream_ids"], json!([10]));
}

#[test]
fn an_observed_object_reads_as_itself() {
    let first = stream(fixture("openapi-stream-ended.response.json")).observed();
    assert_eq!(stream(first.clone()).observed(), first);
    let first = video(fixture("openapi-video.response.json")).observed();
    assert_eq!(video(first.clone()).observed(), first);
}

#[test]
fn requests_have_the_form_of_the_samples_and_omit_what_is_not_set() {
    let name = "tutorial-step-01-create-stream.request-flat.json";
    let new: NewStream = serde_json::from_value(fixture(name)).unwrap();
    let mut expected = fixture(name);
    expected.as_object_mut().unwrap().remove("uri");
    assert_eq!(json!(new), expected);
    let new: NewStream =
        serde_json::from_value(fixture("openapi-create-stream.request.json")).unwrap();
    assert_eq!(json!(new)["srt_passphrase"], "your_secret_passphrase");
    for (name, wrapper) in [
        ("tutorial-step-03-enable-stream.request.json", "stream"),
        ("tutorial-step-14-disable-stream.request.json", "stream"),
    ] {
        let body = fixture(name)[wrapper].clone();
        assert_eq!(json!(serde_json::from_value::<StreamPatch>(body.clone()).unwrap()), body);
    }
    for name in [
        "tutorial-step-05-broadcast-live.request.json",
        "tutorial-step-12-broadcast-finished.request.json",
        "tutorial-special-broadcast-paused.request.json",
    ] {
        let body = fixture(name)["broadcast"].clone();
        assert_eq!(json!(serde_json::from_value::<BroadcastPatch>(body.clone()).unwrap()), body);
    }
    let new: NewBroadcast = serde_json::from_value(
        fixture("tutorial-step-02-create-broadcast.request.json")["broadcast"].clone(),
    )
    .unwrap();
    let expected = json!({
        "name": "test_broadcast", "status": "pending", "stream_ids": [320_423],
        "pending_message": "Please wait ...", "show_dvr_after_finish": false,
    });
    assert_eq!(json!(new), expected);
}
