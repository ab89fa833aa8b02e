//! The platform's quota of active live streams.

use serde_json::json;
use uuid::Uuid;

use crate::system::{Setup, TestSystem, until};

/// A system with one slot, a session that has it, and a second one that was refused it.
async fn one_slot_for_two() -> (TestSystem, Uuid, Uuid) {
    let simulator = simulator::Config { active_quota: 1, ..Setup::default().simulator };
    let system = TestSystem::start(Setup { simulator, ..Setup::default() }).await;
    let first = system.request("first", json!({})).await;
    system.until_ready(first).await;
    let second = system.request("second", json!({})).await;
    until("the platform refuses a second active stream", async || {
        system
            .changes_like("PATCH /streaming/streams/")
            .iter()
            .any(|r| r.status == 422)
            .then_some(())
    })
    .await;
    (system, first, second)
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
