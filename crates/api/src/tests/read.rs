//! Reading: lists and their pages, the whole of a session, live streams, push addresses.

use domain::ids::{LiveStreamId, Subject};
use serde_json::json;
use store::SealingKey;

use super::support::{App, SOURCE, config, named};
use crate::{Config, Scope};

/// The ids of all pages of a list.
async fn walk(app: &App, path: &str, list: &str, cursor: &str) -> Vec<String> {
    let (mut ids, mut next) = (Vec::new(), String::new());
    loop {
        let page = app.get(&format!("{path}{next}")).await;
        let items = page.ok(200)[list].as_array().unwrap();
        assert!(items.len() <= 3);
        ids.extend(items.iter().map(|item| item["id"].to_string()));
        let after = page.json["next"].to_string();
        if after == "null" {
            return ids;
        }
        next = format!("&{cursor}={}", after.trim_matches('"'));
    }
}

#[tokio::test]
async fn pages_of_sessions_tell_each_once_the_latest_first() {
    let app = App::start().await;
    let mut ids = Vec::new();
    for n in 0..7 {
        ids.push(json!(app.session(&format!("key {n}"), &named("n")).await).to_string());
    }
    app.project().await;
    ids.reverse();
    assert_eq!(walk(&app, "/v1/sessions?limit=3", "sessions", "before").await, ids);
    assert_eq!(app.get("/v1/sessions").await.ok(200)["next"], json!(null));
    // Exactly full: there is no further page.
    assert_eq!(app.get("/v1/sessions?limit=7").await.ok(200)["next"], json!(null));
}

#[tokio::test]
async fn sessions_are_listed_by_source_account_and_status() {
    let app = App::start().await;
    let a = app.session("a", &json!({ "name": "n", "account": "u-1" })).await;
    let b = app.session("b", &json!({ "name": "n", "account": "u-2" })).await;
    app.command(&format!("/v1/sessions/{b}/end"), None).await.ok(202);
    app.project().await;
    let listed = async |query: &str| {
        let page = app.get(&format!("/v1/sessions?{query}")).await;
        let sessions = page.ok(200)["sessions"].as_array().unwrap().clone();
        sessions.iter().map(|s| s["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(listed("account=u-1").await, [a.to_string()]);
    assert_eq!(listed("status=ended").await, [b.to_string()]);
    assert_eq!(listed("status=requested&account=u-2").await, Vec::<String>::new());
    assert_eq!(listed(&format!("source={SOURCE}")).await.len(), 2);
}

#[tokio::test]
async fn live_streams_are_listed_and_shown() {
    let app = App::start().await;
    for n in 1..=4 {
        let body = json!({ "name": "n", "account": format!("u-{n}") });
        let id = app.session(&format!("key {n}"), &body).await;
        app.bind(id, n).await;
    }
    app.project().await;
    let ids = walk(&app, "/v1/live-streams?limit=3", "live_streams", "after").await;
    assert_eq!(ids, ["1", "2", "3", "4"]);
    let shown = app.get_as(Scope::LiveStreamsRead, "/v1/live-streams/2").await;
    assert_eq!(shown.ok(200)["account"], "u-2");
    assert_eq!(shown.json["ours"], false);
    assert_eq!(shown.json["playback"]["hls_url"], json!(null));
    let mine = app.get("/v1/live-streams?account=u-3").await;
    assert_eq!(mine.ok(200)["live_streams"].as_array().unwrap().len(), 1);
    for id in ["5", "x", "-1"] {
        app.get(&format!("/v1/live-streams/{id}")).await.problem(404, "not-found");
    }
}

#[tokio::test]
async fn a_live_stream_of_several_sources_needs_its_source() {
    let sources = vec![SOURCE.to_owned(), "gcore-eu".to_owned()];
    let app = App::with(Config { sources, ..config() }).await;
    assert_eq!(app.get("/v1/live-streams/1").await.wrong_fields(), ["source"]);
    app.get("/v1/live-streams/1?source=gcore-eu").await.problem(404, "not-found");
}

#[tokio::test]
async fn push_addresses_are_handed_out_once_they_are_sealed_and_stand_nowhere_else() {
    let app = App::start().await;
    let id = app.session("key", &named("n")).await;
    let path = format!("/v1/sessions/{id}/ingest");
    app.get_as(Scope::IngestRead, &path).await.problem(409, "no-ingest-yet");
    let subject = app.bind(id, 77).await;
    app.project().await;
    app.get_as(Scope::IngestRead, &path).await.problem(409, "no-ingest-yet");
    let secret = br#"{"push_url":"rtmp://push.example/in/77?s3cr3t","token":"s3cr3t","other":1}"#;
    app.store.seal(&SealingKey::new([7; 32]), &subject, secret).await.unwrap();
    let answer = app.get_as(Scope::IngestRead, &path).await;
    assert_eq!(answer.ok(200)["push_url"], "rtmp://push.example/in/77?s3cr3t");
    assert_eq!(answer.json["token"], "s3cr3t");
    assert_eq!((&answer.json["live_stream_id"], &answer.json["session"]), (&json!(77), &json!(id)));
    assert_eq!(answer.headers["cache-control"], "no-store");
    app.get_as(Scope::SessionsRead, &path).await.problem(403, "forbidden");
    for path in [
        format!("/v1/sessions/{id}"),
        format!("/v1/sessions/{id}/timeline"),
        "/v1/sessions".to_owned(),
        "/v1/live-streams".to_owned(),
        "/v1/live-streams/77".to_owned(),
    ] {
        let answer = app.get(&path).await;
        answer.ok(200);
        assert!(!answer.text.contains("s3cr3t"), "{path}");
    }
}

#[tokio::test]
async fn secrets_that_cannot_be_opened_are_an_inner_fault_without_a_word_of_it() {
    let app = App::start().await;
    let id = app.session("key", &json!({ "name": "n", "live_stream_id": 5 })).await;
    let subject = Subject::live_stream(SOURCE, LiveStreamId(5));
    for (key, secret) in [([8; 32], "{\"token\":\"s3cr3t\"}"), ([7; 32], "s3cr3t")] {
        app.store.seal(&SealingKey::new(key), &subject, secret.as_bytes()).await.unwrap();
        let answer = app.get(&format!("/v1/sessions/{id}/ingest")).await;
        answer.problem(500, "internal");
        assert!(!answer.text.contains("s3cr3t") && !answer.text.contains("stream/5"));
    }
}

#[tokio::test]
async fn without_a_sealing_key_no_push_address_is_kept() {
    let app = App::with(Config { sealing_key: None, ..config() }).await;
    let id = app.session("key", &named("n")).await;
    app.get(&format!("/v1/sessions/{id}/ingest")).await.problem(501, "not-set-up");
}
