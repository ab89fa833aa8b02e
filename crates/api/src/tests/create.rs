//! Starting sessions: one key is one session.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use axum::http::header;
use domain::event::Event;
use domain::ids::{LiveStreamId, Subject, session_id};
use futures_util::future::join_all;
use serde_json::json;

use super::support::{App, SOURCE, config, named};
use crate::Config;

#[tokio::test]
async fn a_new_session_is_201_with_its_place_and_is_found_at_once() {
    let app = App::start().await;
    let answer = app.start_session("key-1", &json!({ "name": "Lesson", "account": "u-17" })).await;
    let id = session_id(SOURCE, "key-1").to_string();
    assert_eq!(answer.ok(201)["id"], id);
    assert_eq!(answer.json["status"], "requested");
    assert_eq!(answer.header(header::LOCATION), format!("/v1/sessions/{id}"));
    // No worker has run: this is folded from the log.
    let found = app.get(answer.header(header::LOCATION)).await;
    assert_eq!(found.ok(200)["name"], "Lesson");
    assert_eq!(found.json["account"], "u-17");
    assert_eq!(found.json["requested_at"], answer.json["requested_at"]);
    assert_eq!(found.json["timeline"][0]["type"], "SessionRequested");
    app.project().await;
    let projected = app.get(answer.header(header::LOCATION)).await;
    assert_eq!(projected.ok(200), &found.json, "fold and projection say the same");
}

#[tokio::test]
async fn every_option_reaches_the_log() {
    let app = App::start().await;
    let body = json!({
        "source": SOURCE, "account": "u", "name": "n", "live_stream_id": 320_423, "record": false,
        "auto_go_live": true, "dvr": true, "transcoding_region": "eu", "quality_set_id": 3,
        "client_user_id": 9, "data": { "room": [1, 2.5, "x"] },
    });
    let id = app.session("key", &body).await;
    let events = app.events(&Subject::request(SOURCE, id)).await;
    let [Event::SessionRequested(request)] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(request.live_stream, Some(LiveStreamId(320_423)));
    assert_eq!(request.account.as_deref(), Some("u"));
    let options = &request.options;
    assert!(!options.record && options.auto_go_live && options.dvr);
    assert_eq!(options.transcoding_region.as_deref(), Some("eu"));
    assert_eq!((options.quality_set_id, options.client_user_id), (Some(3), Some(9)));
    assert_eq!(options.data, Some(json!({ "room": [1, 2.5, "x"] })));
    let shown = app.get(&format!("/v1/sessions/{id}")).await;
    assert_eq!(shown.ok(200)["options"]["data"], body["data"]);
    assert_eq!(shown.json["live_stream_id"], 320_423);
}

#[tokio::test]
async fn a_repeat_is_200_and_adds_nothing() {
    let app = App::start().await;
    // JSON does not bring this number back exactly; sent again it is still the same.
    let body =
        r#"{"name":"n","data":{"x":903.971655677462700e3,"y":9007199254740993.7},"record":true}"#;
    let reordered = r#"{"dvr":false,"data":{"y":9007199254740993.7,"x":903.971655677462700e3},"account":null,"name":"n"}"#;
    let first = app.start_session_with("key", body).await;
    for repeat in [body, reordered] {
        let answer = app.start_session_with("key", repeat).await;
        assert_eq!(answer.ok(200)["id"], first.ok(201)["id"]);
    }
    let id = session_id(SOURCE, "key");
    assert_eq!(app.commands(id).await, ["SessionRequested"]);
    // A repeat shows how far the session has come.
    app.command(&format!("/v1/sessions/{id}/end"), None).await.ok(202);
    app.project().await;
    assert_eq!(app.start_session_with("key", body).await.ok(200)["status"], "ended");
}

#[tokio::test]
async fn one_key_with_another_body_is_422() {
    let app = App::start().await;
    app.session("key", &named("one")).await;
    for other in
        [named("two"), json!({ "name": "one", "dvr": true }), json!({ "name": "one", "data": 1 })]
    {
        app.start_session("key", &other).await.problem(422, "idempotency-key-reused");
    }
    app.start_session("other key", &named("two")).await.ok(201);
}

#[tokio::test]
async fn twenty_posts_at_once_are_one_session() {
    let app = App::start().await;
    let body = named("rush");
    // A 503, which a busy machine may give, asks for the same request again.
    let post = async || {
        let deadline = Instant::now() + Duration::from_mins(1);
        let mut put_off = 0;
        loop {
            let answer = app.start_session("key", &body).await;
            if answer.status.as_u16() != 503 || Instant::now() > deadline {
                return (answer, put_off);
            }
            put_off += 1;
        }
    };
    let (answers, put_off): (Vec<_>, Vec<usize>) =
        join_all((0..20).map(|_| post())).await.into_iter().unzip();
    let count = |status| answers.iter().filter(|a| a.status.as_u16() == status).count();
    let created = count(201);
    // The 201 itself may have been put off, after its append.
    assert!(created == 1 || (created == 0 && put_off.iter().any(|n| *n > 0)), "{created}");
    assert_eq!(count(200), 20 - created);
    let ids: BTreeSet<String> = answers.iter().map(|a| a.json["id"].to_string()).collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(app.commands(session_id(SOURCE, "key")).await, ["SessionRequested"]);
}

#[tokio::test]
async fn a_missing_or_odd_key_is_400() {
    let app = App::start().await;
    let detail = app.post("/v1/sessions", &named("n")).await.problem(400, "malformed");
    assert!(detail.contains("Idempotency-Key"));
    let long = "k".repeat(256);
    for key in ["", "caf\u{e9}", long.as_str()] {
        app.start_session(key, &named("n")).await.problem(400, "malformed");
    }
    app.start_session(&"k".repeat(255), &named("n")).await.ok(201);
}

#[tokio::test]
async fn all_wrong_fields_are_named_at_once() {
    let app = App::start().await;
    let body = json!({
        "source": "elsewhere", "account": "a b", "name": " ", "live_stream_id": 0, "record": "yes",
        "dvr": 1, "transcoding_region": "", "quality_set_id": 1.5, "client_user_id": -1,
        "data": "x".repeat(3100), "colour": "red",
    });
    let mut fields = app.start_session("key", &body).await.wrong_fields();
    fields.sort();
    assert_eq!(
        fields,
        [
            "account",
            "client_user_id",
            "colour",
            "data",
            "dvr",
            "live_stream_id",
            "name",
            "quality_set_id",
            "record",
            "source",
            "transcoding_region"
        ]
    );
    assert_eq!(app.start_session("key", &json!({})).await.wrong_fields(), ["name"]);
}

#[tokio::test]
async fn what_the_database_cannot_hold_never_reaches_the_log() {
    let app = App::start().await;
    for body in [json!({ "name": "a\0b" }), json!({ "name": "n", "data": { "k\0": 1 } })] {
        assert_eq!(app.start_session("key", &body).await.wrong_fields().len(), 1);
    }
    assert!(app.commands(session_id(SOURCE, "key")).await.is_empty());
}

#[tokio::test]
async fn data_may_have_3_kib_and_no_more() {
    let app = App::start().await;
    let of = |length: usize| json!({ "name": "n", "data": "x".repeat(length - 2) });
    app.start_session("fits", &of(3072)).await.ok(201);
    assert_eq!(app.start_session("too long", &of(3073)).await.wrong_fields(), ["data"]);
}

#[tokio::test]
async fn of_several_sources_one_has_to_be_named() {
    let sources = vec![SOURCE.to_owned(), "gcore-eu".to_owned()];
    let app = App::with(Config { sources, ..config() }).await;
    let answer = app.start_session("key", &named("n")).await;
    assert_eq!(answer.wrong_fields(), ["source"]);
    assert!(answer.text.contains("gcore-main, gcore-eu"));
    let ids: BTreeSet<_> = [
        app.session("key", &json!({ "name": "n", "source": SOURCE })).await,
        app.session("key", &json!({ "name": "n", "source": "gcore-eu" })).await,
    ]
    .into();
    assert_eq!(ids.len(), 2, "a key counts for its source");
    for id in ids {
        app.get(&format!("/v1/sessions/{id}")).await.ok(200);
    }
}

#[tokio::test]
async fn the_users_country_chooses_the_region_by_the_rules_of_the_source() {
    let rules = domain::region::RegionRules {
        default: Some("ed1".to_owned()),
        countries: [("US".to_owned(), "ny1".to_owned())].into(),
    };
    let regions = [(SOURCE.to_owned(), rules)].into();
    let app = App::with(Config { regions, ..config() }).await;
    for (n, (body, region)) in [
        (json!({"name": "n"}), json!("ed1")),
        (json!({"name": "n", "country": "us"}), json!("ny1")),
        (json!({"name": "n", "country": "LU"}), json!("ed1")),
        (json!({"name": "n", "country": "US", "transcoding_region": "eu"}), json!("eu")),
        (json!({"name": "n", "live_stream_id": 7}), serde_json::Value::Null),
        (json!({"name": "n", "live_stream_id": 7, "country": "US"}), json!("ny1")),
    ]
    .into_iter()
    .enumerate()
    {
        let id = app.session(&format!("key-{n}"), &body).await;
        let shown = app.get(&format!("/v1/sessions/{id}")).await.ok(200).clone();
        assert_eq!(shown["options"]["transcoding_region"], region, "{body}");
    }
    let odd = app.start_session("odd", &json!({"name": "n", "country": "1"})).await;
    assert_eq!(odd.wrong_fields(), ["country"]);
}

#[tokio::test]
async fn a_repeat_is_the_same_though_the_rules_of_regions_have_changed() {
    let rules = |region: &str| domain::region::RegionRules {
        default: Some(region.to_owned()),
        countries: BTreeMap::new(),
    };
    let with = |region| Config { regions: [(SOURCE.to_owned(), rules(region))].into(), ..config() };
    let app = App::with(with("ed1")).await;
    let id = app.session("key", &named("n")).await;
    let app = app.beside_with(with("ny1"));
    let answer = app.start_session("key", &named("n")).await;
    assert_eq!(answer.ok(200)["id"], id.to_string());
    let shown = app.get(&format!("/v1/sessions/{id}")).await;
    assert_eq!(shown.ok(200)["options"]["transcoding_region"], "ed1");
    let asked = json!({"name": "n", "transcoding_region": "ny1"});
    app.start_session("key", &asked).await.problem(422, "idempotency-key-reused");
}

#[tokio::test]
async fn markup_in_names_is_plain_text_in_json() {
    let app = App::start().await;
    let name = "<script>alert('x')</script>\" & co";
    let id = app.session("key", &named(name)).await;
    let shown = app.get(&format!("/v1/sessions/{id}")).await;
    assert_eq!(shown.ok(200)["name"], name);
    assert_eq!(shown.header(header::CONTENT_TYPE), "application/json");
    app.project().await;
    assert_eq!(app.get("/v1/sessions").await.ok(200)["sessions"][0]["name"], name);
}
