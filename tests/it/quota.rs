//! The platform's quota of active live streams.

use std::time::Duration;

use domain::ids::Subject;
use domain::quota::Quota;
use serde_json::json;
use store::Consumer;
use uuid::Uuid;

use crate::system::{SOURCE, Setup, TestSystem, http, until};

/// A platform with `slots`, and whether the configuration knows how many.
fn with_slots(slots: u32, is_known: bool) -> Setup {
    let mut setup = Setup::default();
    setup.simulator.active_quota = slots;
    // The last one is waited for at the end of a test.
    setup.policy.sweep = Duration::from_secs(2);
    if is_known {
        setup.policy.slots.insert(SOURCE.to_owned(), slots);
    }
    setup
}

/// A system with one slot, a session that has it, and a second one that was refused it.
async fn one_slot_for_two() -> (TestSystem, Uuid, Uuid) {
    let system = TestSystem::start(with_slots(1, false)).await;
    let first = system.request("first", json!({})).await;
    system.until_ready(first).await;
    let second = system.request("second", json!({})).await;
    until("the platform refuses a second active stream", async || {
        (refusals(&system) > 0).then_some(())
    })
    .await;
    (system, first, second)
}

fn refusals(system: &TestSystem) -> usize {
    let changes = system.changes_like("PATCH /streaming/streams/");
    changes.iter().filter(|request| request.status == 422).count()
}

/// Waits until a session has this place in the queue.
async fn until_place(system: &TestSystem, session: Uuid, place: u64) {
    until("a session has its place in the queue", async || {
        (system.session(session).await["slot_place"] == place).then_some(())
    })
    .await;
}

/// Waits until the quota is so.
async fn until_quota(system: &TestSystem, is_so: impl Fn(&Quota) -> bool) {
    until("the quota is as it should be", async || {
        system.store.quota(SOURCE).await.unwrap().filter(|quota| is_so(quota)).map(|_| ())
    })
    .await;
}

#[tokio::test]
async fn a_session_beyond_the_quota_waits_for_a_slot_and_loses_nothing() {
    let (system, first, second) = one_slot_for_two().await;
    assert_eq!(system.session(second).await["status"], "preparing");
    system.finish(first).await;
    system.until_ready(second).await;
    system.finish(second).await;
    assert_eq!(system.changes_like("POST /streaming/streams").len(), 2);
    system.end().await;
}

#[tokio::test]
async fn a_session_that_waits_for_a_slot_can_be_ended() {
    let (system, first, second) = one_slot_for_two().await;
    // The first goes on: no slot becomes free.
    system.finish(second).await;
    assert_eq!(system.session(first).await["status"], "ready");
    system.finish(first).await;
    system.end().await;
}

#[tokio::test]
async fn accounts_take_turns_and_nobody_tries_in_vain() {
    let system = TestSystem::start(with_slots(1, true)).await;
    let mut sessions = Vec::new();
    for (key, account) in [("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b")] {
        let session = system.request(key, json!({"account": account})).await;
        match sessions.len() {
            0 => {
                system.until_ready(session).await;
            }
            waiting @ (1 | 2) => until_place(&system, session, waiting as u64).await,
            _ => until_place(&system, session, 2).await,
        }
        sessions.push(session);
    }
    until_place(&system, sessions[2], 3).await;
    let shown = system.command(&["session", "show", &sessions[2].to_string()]).await;
    assert!(shown.contains("waits     for a slot, as number 3"), "{shown}");
    // One that ends while it waits holds up nobody.
    system.finish(sessions[1]).await;
    for next in [3, 2] {
        let holder = if next == 3 { 0 } else { 3 };
        system.finish(sessions[holder]).await;
        system.until_ready(sessions[next]).await;
    }
    system.finish(sessions[2]).await;
    assert_eq!(refusals(&system), 0);
    until_quota(&system, |quota| quota.in_use() == 0 && quota.queue.is_empty()).await;
    system.end().await;
}

#[tokio::test]
async fn no_slot_leaks_when_workers_are_killed() {
    let mut system = TestSystem::start(Setup { workers: 2, ..with_slots(1, true) }).await;
    let quota = Subject::quota(SOURCE);
    let first = system.request("first", json!({})).await;
    system.until_ready(first).await;
    let second = system.request("second", json!({})).await;
    // Requests of different slices come to the quota in any order.
    until_quota(&system, |quota| quota.queue.len() == 1).await;
    let third = system.request("third", json!({})).await;
    until_quota(&system, |quota| quota.queue.len() == 2).await;
    system.kill_holder(Consumer::React, &quota).await;
    system.start_worker().await;
    system.tell(first, "end").await;
    until_quota(&system, |quota| quota.queue.len() == 1).await;
    // Whoever was to tell the second of its slot is gone.
    system.kill_holder(Consumer::Jobs, &quota).await;
    system.start_worker().await;
    for session in [second, third] {
        system.until_ready(session).await;
        system.finish(session).await;
    }
    until_quota(&system, |quota| quota.in_use() == 0 && quota.queue.is_empty()).await;
    system.end().await;
}

#[tokio::test]
async fn what_others_of_the_account_use_is_counted_and_found_when_it_is_free() {
    let system = TestSystem::start(with_slots(1, true)).await;
    let foreign = active_stream(&system).await;
    let session = system.request("first", json!({})).await;
    until_place(&system, session, 1).await;
    assert_eq!(refusals(&system), 0);
    let body = json!({"stream": {"active": false}});
    call(&system, reqwest::Method::PATCH, &format!("/{foreign}"), &body).await;
    system.until_ready(session).await;
    system.finish(session).await;
    system.end().await;
}

/// A live stream that somebody else made and switched on.
async fn active_stream(system: &TestSystem) -> i64 {
    let body = json!({"name": "somebody's", "active": true});
    call(system, reqwest::Method::POST, "", &body).await["id"].as_i64().unwrap()
}

/// Calls the platform as somebody who shares the account.
async fn call(
    system: &TestSystem,
    method: reqwest::Method,
    path: &str,
    body: &serde_json::Value,
) -> serde_json::Value {
    let url = format!("{}/streaming/streams{path}", system.simulator.base_url());
    let token = format!("APIKey {}", system.secrets().platform);
    let request = http().request(method, url).header("authorization", token).json(body);
    request.send().await.unwrap().error_for_status().unwrap().json().await.unwrap()
}
