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
    let left = broadcast(&system, "left behind [0123abcd]", gone).await;
    let by_hand = broadcast(&system, "by hand", gone).await;
    let disowned = run(&system, "disowned", "acme").await;
    // Somebody else took it over: its tag is theirs now.
    let other = Tag::new(Uuid::now_v7(), Uuid::now_v7(), None).text();
    let body = json!({"stream": {"client_entity_data": other}});
    call(&system, reqwest::Method::PATCH, &format!("/{disowned}"), &body).await;
    let foreign = foreign_stream(&system).await;

    delete_account(&system).await;

    let before = system.changes().len();
    let listed = cleanup(&system, json!({"policy": "inactive", "after_days": 0})).await;
    let mut candidates: Vec<i64> = ids(&listed);
    candidates.sort_unstable();
    assert_eq!(candidates, [gone, disowned]);
    system.until_nothing_is_due().await;
    assert_eq!(system.changes().len(), before, "a dry run deletes nothing");

    let body = json!({
        "policy": "inactive", "after_days": 0, "dry_run": false, "delete_recordings": true,
    });
    let done = cleanup(&system, body).await;
    assert_eq!(
        (&done["deleted"], &done["videos_deleted"], &done["spared"]),
        (&json!(1), &json!(1), &json!(1))
    );
    let spared =
        done["candidates"].as_array().unwrap().iter().find(|c| c["live_stream_id"] == disowned);
    let why = spared.unwrap()["outcome"]["reason"].as_str().unwrap();
    assert!(why.contains("tag"), "{why}");
    let shown = system.command(&["cleanup", "show", done["run"].as_str().unwrap()]).await;
    assert!(shown.contains("1 live streams and 1 videos deleted, 1 kept after all"), "{shown}");
    let told = system.command(&["cleanup", "run", "--policy", "orphans"]).await;
    assert!(told.contains("orphans on gcore-main: finished, dry run"), "{told}");
    let deleted: Vec<String> = system.changes()[before..]
        .iter()
        .map(|request| format!("{} {}", request.method, request.path))
        .collect();
    assert_eq!(
        deleted,
        [
            "DELETE /streaming/videos/803111".to_owned(),
            format!("DELETE /streaming/broadcasts/{left}"),
            format!("DELETE /streaming/streams/{gone}"),
        ],
        "broadcast {by_hand} is somebody's"
    );
    for id in [kept, disowned, foreign] {
        assert_eq!(system.stream(id)["id"], id);
    }
    let told = system.api.get("/v1/live-streams?account=acme").await.ok();
    let told = told["live_streams"].as_array().unwrap();
    assert_eq!(told.iter().map(|s| s["deleted"] == true).collect::<Vec<_>>(), [true, false]);
    system.end().await;
}

/// Tells that an account is deleted, and waits until that is known.
async fn delete_account(system: &TestSystem) {
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

/// Makes a broadcast of a live stream.
async fn broadcast(system: &TestSystem, name: &str, live_stream: i64) -> i64 {
    let fields = json!({"name": name, "status": "pending", "stream_ids": [live_stream]});
    let body = json!({ "broadcast": fields });
    let made = call_at(system, reqwest::Method::POST, "broadcasts", &body).await;
    made["id"].as_i64().unwrap()
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

/// Changes a live stream by hand.
async fn call(system: &TestSystem, method: reqwest::Method, path: &str, body: &Value) -> Value {
    call_at(system, method, &format!("streams{path}"), body).await
}

/// Calls the platform by hand.
async fn call_at(system: &TestSystem, method: reqwest::Method, path: &str, body: &Value) -> Value {
    let url = format!("{}/streaming/{path}", system.simulator.base_url());
    let key = format!("APIKey {}", system.secrets().platform);
    let request = http().request(method, url).header("authorization", key).json(body);
    request.send().await.unwrap().error_for_status().unwrap().json().await.unwrap()
}

/// Makes a run and returns its report, once all of it is over.
async fn cleanup(system: &TestSystem, body: Value) -> Value {
    let started = system.api.post("/v1/cleanup/runs", &body, None).await.ok();
    let path = format!("/v1/cleanup/runs/{}", started["runs"][0]["run"].as_str().unwrap());
    until("the run is over", async || {
        let answer = system.api.get(&path).await;
        (answer.status == 200).then_some(())?;
        let report = answer.ok();
        (report["status"] == "finished").then_some(report)
    })
    .await
}

/// The live streams that a cleanup proposed.
fn ids(report: &Value) -> Vec<i64> {
    let candidates = report["candidates"].as_array().unwrap().iter();
    let proposed = candidates.filter(|candidate| candidate["proposed"] == true);
    proposed.map(|candidate| candidate["live_stream_id"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn recordings_past_their_time_go_and_their_live_streams_stay() {
    let rules = "\n[sources.cleanup]\nkeep_recordings = \"1ms\"\n\
                 [sources.cleanup.keep_recordings_of]\nacme = \"forever\"\n";
    let setup = Setup { http_call: rules.to_owned(), ..Setup::default() };
    let system = TestSystem::start(setup).await;
    let mut streams = Vec::new();
    for (key, account) in [("one", "beta"), ("two", "beta"), ("three", "acme")] {
        let session = system.request(key, json!({"account": account})).await;
        let stream = system.until_ready(session).await;
        system.show(session, stream).await;
        system.finish(session).await;
        streams.push(stream);
    }
    let report = cleanup(&system, json!({"policy": "recordings"})).await;
    let mut proposed = ids(&report);
    proposed.sort_unstable();
    assert_eq!(proposed, streams[..2], "acme's are kept: {report}");
    assert_eq!((&report["looked_at"], &report["kept"]), (&json!(3), &json!(1)));

    let before = system.changes().len();
    let body = json!({"policy": "recordings", "dry_run": false, "cap": 1});
    let report = cleanup(&system, body).await;
    assert_eq!((&report["proposed"], &report["left"]), (&json!(1), &json!(1)), "{report}");
    assert_eq!((&report["deleted"], &report["videos_deleted"]), (&json!(0), &json!(1)), "{report}");
    let made = system.changes();
    assert_eq!(made.len(), before + 1, "one video is deleted and no live stream");
    assert!(made[before].path.starts_with("/streaming/videos/"), "{}", made[before].path);
    system.end().await;
}
