//! The API in front of everything else.

use serde_json::json;

use crate::system::{ENCODER, READER, SOURCE, Setup, TestSystem};

#[tokio::test]
async fn a_session_is_found_right_after_it_was_asked_for() {
    // Without a worker, nothing is projected: what is found comes from the log.
    let mut system = TestSystem::start(Setup { workers: 0, ..Setup::default() }).await;
    let session = system.request("prompt", json!({"account": "acme"})).await;
    let told = system.session(session).await;
    assert_eq!(told["status"], "requested");
    assert_eq!((&told["name"], &told["account"]), (&json!("prompt"), &json!("acme")));
    system.start_worker().await;
    system.until_ready(session).await;
    system.finish(session).await;
    system.end().await;
}

#[tokio::test]
async fn one_key_is_one_session_and_one_body() {
    let system = TestSystem::start(Setup::default()).await;
    let body = json!({"source": SOURCE, "name": "once"});
    let first = system.api.post("/v1/sessions", &body, Some("key")).await;
    assert_eq!(first.status, 201);
    let again = system.api.post("/v1/sessions", &body, Some("key")).await;
    assert_eq!(again.status, 200);
    assert_eq!(first.body["id"], again.body["id"]);
    let other = json!({"source": SOURCE, "name": "another"});
    let refused = system.api.post("/v1/sessions", &other, Some("key")).await;
    assert_eq!(refused.status, 422, "{}", refused.body);
    let session = first.body["id"].as_str().unwrap().parse().unwrap();
    system.until_ready(session).await;
    system.finish(session).await;
    assert_eq!(system.changes_like("POST /streaming/streams").len(), 1);
    system.end().await;
}

#[tokio::test]
async fn push_addresses_are_for_those_who_may_read_them() {
    let system = TestSystem::start(Setup::default()).await;
    let session = system.request("secret", json!({})).await;
    system.until_ready(session).await;
    let path = format!("/v1/sessions/{session}/ingest");
    let refused = system.api_with(READER).get(&path).await;
    assert_eq!(refused.status, 403, "{}", refused.body);
    assert_eq!(system.api_with("nobody-0123456789abcdef").get(&path).await.status, 401);
    let told = system.api_with(ENCODER).get(&path).await.ok();
    let token = told["token"].as_str().unwrap();
    assert!(told["push_url"].as_str().unwrap().contains(token));
    system.finish(session).await;
    system.end().await;
}
