//! Streams, broadcasts and lists: bodies in, bodies out, and the seed.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::play::Play;
use crate::world::Action;
use crate::world::reply::Reply;
use crate::{Behaviour, BodyForm, Config, DeleteGuard, FlagInGet};

const STREAMS: &str = "/streaming/streams";
const BROADCASTS: &str = "/streaming/broadcasts";

#[test]
fn create_takes_the_body_forms_of_its_switch() {
    let (flat, wrapped) = (json!({"name": "n"}), json!({"stream": {"name": "n"}}));
    for (create_body, flat_status, wrapped_status) in
        [(BodyForm::Either, 200, 200), (BodyForm::Flat, 200, 422), (BodyForm::Wrapped, 422, 200)]
    {
        let mut play = Play::behaving(Behaviour { create_body, ..Behaviour::default() });
        assert_eq!(play.call("POST", STREAMS, flat.clone()).status, flat_status);
        assert_eq!(play.call("POST", STREAMS, wrapped.clone()).status, wrapped_status);
    }
}

#[test]
fn a_stream_needs_a_name_and_a_json_object() {
    let mut play = Play::new();
    let blank = Reply::json(422, json!({"errors": {"name": ["can't be blank"]}}));
    assert_eq!(play.call("POST", STREAMS, json!({})), blank);
    assert_eq!(play.call("POST", STREAMS, json!({"name": ""})), blank);
    assert_eq!(play.call("POST", STREAMS, json!([1])).status, 400);
}

#[test]
fn patch_changes_what_it_names_and_nothing_else() {
    let mut play = Play::new();
    let id = play.active_stream();
    let before = play.stream(id);
    let mut after = play.patch(id, json!({"client_entity_data": "tag"})).document().clone();
    assert_eq!(after["client_entity_data"], "tag");
    after["client_entity_data"] = Value::Null;
    assert_eq!(after, before);
    let flat = play.call("PATCH", &format!("{STREAMS}/{id}"), json!({"active": false}));
    assert_eq!(flat.status, 422, "PATCH is wrapped");
}

#[test]
fn a_strict_patch_wants_the_name() {
    let mut play = Play::behaving(Behaviour { patch_needs_name: true, ..Behaviour::default() });
    let id = play.active_stream();
    assert_eq!(play.patch(id, json!({"active": false})).status, 422);
    assert_eq!(play.patch(id, json!({"active": false, "name": "n"})).status, 200);
}

#[test]
fn a_region_moves_the_push_address() {
    let mut play = Play::new();
    let id = play.active_stream();
    let stream = play.patch(id, json!({"transcoding_region": "dt1"})).document().clone();
    assert!(stream["push_url"].as_str().unwrap().starts_with("rtmp://vp-push-dt1."));
}

#[test]
fn recording_is_shown_as_the_switch_says() {
    for (recording_in_get, expected) in [
        (FlagInGet::Present, Some(json!(false))),
        (FlagInGet::Null, Some(Value::Null)),
        (FlagInGet::Absent, None),
    ] {
        let mut play = Play::behaving(Behaviour { recording_in_get, ..Behaviour::default() });
        let id = play.active_stream();
        assert_eq!(play.stream(id).get("recording"), expected.as_ref());
    }
}

#[test]
fn a_guarded_platform_refuses_to_delete_what_is_active() {
    let delete_guard = DeleteGuard::Refuse;
    let mut play = Play::behaving(Behaviour { delete_guard, ..Behaviour::default() });
    let id = play.active_stream();
    let path = format!("{STREAMS}/{id}");
    assert_eq!(play.call("DELETE", &path, Value::Null).status, 422);
    play.patch(id, json!({"active": false}));
    assert_eq!(play.call("DELETE", &path, Value::Null).status, 204);
    assert_eq!(play.call("DELETE", &path, Value::Null).status, 404);
}

#[test]
fn dvr_cleanup_is_empty_success() {
    let mut play = Play::new();
    let id = play.active_stream();
    assert_eq!(play.stream_command(id, "dvr_cleanup"), Reply::empty(204));
    assert_eq!(play.stream_command(1, "dvr_cleanup").status, 404);
}

#[test]
fn a_broadcast_needs_name_and_status() {
    let mut play = Play::new();
    for (body, field) in [
        (json!({"broadcast": {"status": "pending"}}), "name"),
        (json!({"broadcast": {"name": "n"}}), "status"),
        (json!({"broadcast": {"name": "n", "status": "sleeping"}}), "status"),
        (json!({"name": "n", "status": "pending"}), "name"),
    ] {
        let reply = play.call("POST", BROADCASTS, body);
        assert_eq!(reply.status, 422);
        assert!(reply.document()["errors"][field].is_array());
    }
}

#[test]
fn a_broadcast_is_a_label_that_does_not_follow_the_stream() {
    let mut play = Play::new();
    let stream = play.active_stream();
    let body = json!({"broadcast": {"name": "b", "status": "Pending", "stream_ids": [stream]}});
    let id = play.call("POST", BROADCASTS, body).document()["id"].as_i64().unwrap();
    assert_eq!(play.stream(stream)["broadcast_ids"], json!([id]));
    let spectators = format!("{BROADCASTS}/{id}/spectators");
    assert_eq!(play.get(&spectators), json!({"spectators_count": 0}));
    play.encoder(stream, Action::Push).unwrap();
    play.wait(10.0);
    assert_eq!(play.get(&format!("{BROADCASTS}/{id}"))["status"], "pending");
    let with = play.get(&format!("{STREAMS}?with_broadcasts=1"));
    assert_eq!(with[0]["broadcasts"][0]["id"], id);
    let path = format!("{BROADCASTS}/{id}");
    assert_eq!(play.call("DELETE", &path, Value::Null).status, 204);
    assert_eq!(play.call("DELETE", &path, Value::Null).status, 404);
    assert_eq!(play.stream(stream)["live"], true);
}

#[test]
fn a_create_without_a_body_is_found_in_the_list() {
    let behaviour = Behaviour { create_broadcast_answers_body: false, ..Behaviour::default() };
    let mut play = Play::behaving(behaviour);
    let body = json!({"broadcast": {"name": "b", "status": "pending"}});
    assert_eq!(play.call("POST", BROADCASTS, body), Reply::empty(200));
    assert_eq!(play.get(BROADCASTS)[0]["name"], "b");
}

#[test]
fn broadcast_webhooks_are_a_legacy_and_come_with_changes_only() {
    for legacy_broadcast_webhooks in [false, true] {
        let mut play = Play::with(Config { legacy_broadcast_webhooks, ..Config::default() });
        let body = json!({"broadcast": {"name": "b", "status": "pending"}});
        let id = play.call("POST", BROADCASTS, body).document()["id"].as_i64().unwrap();
        for status in ["live", "live", "finished"] {
            let body = json!({"broadcast": {"status": status}});
            play.call("PATCH", &format!("{BROADCASTS}/{id}"), body);
        }
        let told: Vec<&Value> = play.bodies("broadcast").collect();
        if legacy_broadcast_webhooks {
            assert_eq!(
                told,
                [
                    &json!({"broadcast": {"id": id, "status": "live"}}),
                    &json!({"broadcast": {"id": id, "status": "finished"}}),
                ]
            );
            assert!(play.webhooks.iter().all(|webhook| webhook.before_answer));
        } else {
            assert!(told.is_empty());
        }
    }
}

#[test]
fn walking_to_the_empty_page_sees_every_stream_once() {
    for short_pages in [false, true] {
        let behaviour = Behaviour { page_size: 4, short_pages, ..Behaviour::default() };
        let mut play = Play::behaving(behaviour);
        for _ in 0..11 {
            play.call("POST", STREAMS, json!({"name": "n"}));
        }
        let mut seen = BTreeSet::new();
        for page in 1.. {
            let items = play.get(&format!("{STREAMS}?page={page}"));
            let items = items.as_array().unwrap().clone();
            if items.is_empty() {
                break;
            }
            for item in items {
                assert!(seen.insert(item["id"].as_i64().unwrap()), "seen twice");
            }
        }
        assert_eq!(seen.len(), 11);
    }
}

#[test]
fn videos_are_found_by_their_filters() {
    let mut play = Play::new();
    let first = play.recorded_stream();
    play.wait(30.0);
    let ready = play.stream_command(first, "stop_recording").document()["id"].as_i64().unwrap();
    play.wait(120.0);
    let second = play.recorded_stream();
    play.wait(30.0);
    let pending = play.stream_command(second, "stop_recording").document()["id"].as_i64().unwrap();

    let mut found = |query: &str| -> Vec<i64> {
        let page = play.get(&format!("/streaming/videos?{query}"));
        page.as_array().unwrap().iter().map(|video| video["id"].as_i64().unwrap()).collect()
    };
    assert_eq!(found(""), [pending, ready]);
    assert_eq!(found(&format!("stream_id={first}")), [ready]);
    assert_eq!(found("status=pending"), [pending]);
    assert_eq!(found(&format!("id={ready},9")), [ready]);
    assert_eq!(found("per_page=1"), [pending]);
    assert_eq!(found("per_page=1&page=2"), [ready]);
    assert_eq!(found("per_page=1&page=3"), [0; 0]);
    assert_eq!(found("client_user_id=7"), [0; 0]);
    let trimmed = play.get("/streaming/videos?fields=id,status&status=ready");
    assert_eq!(trimmed, json!([{"id": ready, "status": "ready"}]));
    let names = play.get(&format!("/streaming/videos/names?ids={ready},{pending}"));
    assert_eq!(names.as_array().unwrap().len(), 2);
}

#[test]
fn what_does_not_exist_is_404() {
    let mut play = Play::new();
    for path in [
        "/streaming/streams/1",
        "/streaming/streams/x",
        "/streaming/broadcasts/1",
        "/streaming/videos/1",
        "/streaming/nothing",
        "/elsewhere",
    ] {
        let reply = play.call("GET", path, Value::Null);
        assert_eq!(reply.status, 404, "{path}");
        assert_eq!(reply.document()["status"], 404, "shape B");
    }
}

/// Plays a fixed story and writes down all answers and webhooks.
fn transcript(seed: u64) -> String {
    let mut play = Play::with(Config { seed, ..Config::default() });
    let stream = play.recorded_stream();
    play.wait(30.0);
    play.encoder(stream, Action::Drop).unwrap();
    play.wait(40.0);
    play.encoder(stream, Action::Push).unwrap();
    play.wait(60.0);
    play.stream_command(stream, "stop_recording");
    play.patch(stream, json!({"active": false}));
    play.wait(120.0);
    let answers = [play.get(STREAMS), play.get("/streaming/videos")];
    let webhooks = play.webhooks.iter().map(|one| format!("{} {}\n", one.due, one.body));
    webhooks.chain(answers.map(|answer| answer.to_string())).collect()
}

#[test]
fn the_seed_decides_everything() {
    assert_eq!(transcript(7), transcript(7));
    assert_ne!(transcript(7), transcript(8));
}
