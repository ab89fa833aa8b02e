//! The platform's quota of active live streams.

use serde_json::json;

use crate::system::{Setup, TestSystem, until};

#[tokio::test]
async fn a_session_beyond_the_quota_waits_for_a_slot_and_loses_nothing() {
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
    assert_eq!(system.session(second).await["status"], "preparing");
    system.finish(first).await;
    system.until_ready(second).await;
    system.finish(second).await;
    assert_eq!(system.changes_like("POST /streaming/streams").len(), 2);
    system.end().await;
}

#[tokio::test]
async fn a_session_that_waits_for_a_slot_can_be_ended() {
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
    // The first goes on: no slot becomes free.
    system.finish(second).await;
    assert_eq!(system.session(first).await["status"], "ready");
    system.finish(first).await;
    system.end().await;
}
