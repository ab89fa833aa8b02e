//! Cleanup: what is ours, idle and without an owner goes; whatever else is there stays.

use domain::ids::{LiveStreamId, Subject};
use domain::webhook::Tag;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::system::{SOURCE, Setup, TestSystem, http, until};

#[tokio::test]
async fn cleanup_deletes_idle_live_streams_of_deleted_accounts_and_nothing_else() {
    let system = TestSystem::start(Setup::default()).await;
    let gone = run(&system, "gone", "acme").await;
    let kept = run(&system, "kept", "beta").await;
    let disowned = run(&system, "disowned", "acme").await;
    // Somebody else took it over: its tag is theirs now.
    let other = Tag::new(Uuid::now_v7(), Uuid::now_v7(), None).text();
    let body = json!({"stream": {"client_entity_data": other}});
    call(&system, reqwest::Method::PATCH, &format!("/{disowned}"), &body).await;
    let foreign = foreign_stream(&system).await;

    system.api.post("/v1/accounts/acme/deleted", &json!({}), None).await.ok();
    let pseudonym = system.store.pseudonym_of("acme").await.unwrap().unwrap();
    let account = Subject::account(SOURCE, &pseudonym.to_string());
    until("the deletion of the account is known", async || {
        let slice = system.store.slice_of(&account);
        let status = system.store.slice_status().await.unwrap();
        let told = system.store.read_subject(&account, 0, 1).await.unwrap();
        let is_applied = status.iter().any(|s| s.slice == slice && s.head == s.position);
        (is_applied && !told.is_empty()).then_some(())
    })
    .await;

    let before = system.changes().len();
    let listed = cleanup(&system, json!({"inactive_days": 0, "dry_run": true})).await;
    let mut candidates: Vec<i64> = ids(&listed);
    candidates.sort_unstable();
    assert_eq!(candidates, [gone, disowned]);
    system.until_nothing_is_due().await;
    assert_eq!(system.changes().len(), before, "a dry run deletes nothing");

    let args = json!({"inactive_days": 0, "dry_run": false, "delete_recordings": true});
    cleanup(&system, args).await;
    until("both proposals are decided", async || {
        let events = system.events().await;
        (events.iter().filter(|e| e.event_type == "CleanupDone").count() == 2).then_some(())
    })
    .await;
    let deleted: Vec<String> = system.changes()[before..]
        .iter()
        .map(|request| format!("{} {}", request.method, request.path))
        .collect();
    assert_eq!(
        deleted,
        ["DELETE /streaming/videos/803111".to_owned(), format!("DELETE /streaming/streams/{gone}")]
    );
    for id in [kept, disowned, foreign] {
        assert_eq!(system.stream(id)["id"], id);
    }
    let told = system.api.get("/v1/live-streams?account=acme").await.ok();
    let told = told["live_streams"].as_array().unwrap();
    assert_eq!(told.iter().map(|s| s["deleted"] == true).collect::<Vec<_>>(), [true, false]);
    system.end().await;
}

/// Runs a session of an account to its end and returns its live stream.
async fn run(system: &TestSystem, key: &str, account: &str) -> i64 {
    let session = system.request(key, json!({"account": account})).await;
    let stream = system.until_ready(session).await;
    if key == "gone" {
        system.show(session, stream).await;
    }
    system.finish(session).await;
    stream
}

/// A live stream that somebody made by hand, was on air, and is idle now.
async fn foreign_stream(system: &TestSystem) -> i64 {
    let body = json!({"name": "by hand", "active": true});
    let made = call(system, reqwest::Method::POST, "", &body).await;
    let id = made["id"].as_i64().unwrap();
    system.simulator.push(id).unwrap();
    let heard = async |live: bool| {
        until("its webhooks were heard", async || {
            let seen = system.store.live_stream(SOURCE, LiveStreamId(id)).await.unwrap()?;
            (seen.live == live).then_some(())
        })
        .await;
    };
    heard(true).await;
    call(system, reqwest::Method::PATCH, &format!("/{id}"), &json!({"stream": {"active": false}}))
        .await;
    heard(false).await;
    id
}

/// Calls the platform by hand.
async fn call(system: &TestSystem, method: reqwest::Method, path: &str, body: &Value) -> Value {
    let url = format!("{}/streaming/streams{path}", system.simulator.base_url());
    let key = format!("APIKey {}", system.secrets().platform);
    let request = http().request(method, url).header("authorization", key).json(body);
    request.send().await.unwrap().error_for_status().unwrap().json().await.unwrap()
}

/// Runs a cleanup job and returns what it told.
async fn cleanup(system: &TestSystem, args: Value) -> Value {
    let body = json!({"kind": "clean_up_inactive", "args": args});
    let enqueued = system.api.post("/v1/jobs", &body, None).await.ok();
    let id: Uuid = enqueued["id"].as_str().unwrap().parse().unwrap();
    system.until_done(id).await
}

/// The live streams that a cleanup listed.
fn ids(listed: &Value) -> Vec<i64> {
    let candidates = listed["candidates"].as_array().unwrap().iter();
    candidates.map(|candidate| candidate["live_stream_id"].as_i64().unwrap()).collect()
}
