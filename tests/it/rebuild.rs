//! Rebuilding current state from the log, while everything runs.

use crate::system::{Setup, TestSystem};

#[tokio::test]
async fn a_rebuild_gives_the_same_rows_and_enqueues_nothing() {
    let system = TestSystem::start(Setup { workers: 2, ..Setup::default() }).await;
    // In the middle of a session, whose events go on coming.
    let on_air = system.on_air("rebuilt").await;
    let (rebuilt, ()) = tokio::join!(system.command(&["projections", "rebuild"]), async {
        system.drop_encoder(on_air).await;
        system.return_encoder(on_air).await;
    });
    assert!(rebuilt.contains("nothing was enqueued"), "{rebuilt}");
    let end = system.finish(on_air.session).await;
    assert!(end.is_all_ready());
    system.until_nothing_is_due().await;

    let changes = system.changes().len();
    let (digest, jobs) = (system.store.digest().await.unwrap(), job_count(&system).await);
    let events = system.events().await;
    assert!(digest.rows > 0);
    system.command(&["projections", "rebuild"]).await;
    assert_eq!(system.store.digest().await.unwrap(), digest);
    assert_eq!(job_count(&system).await, jobs);
    assert_eq!(system.events().await, events);
    assert_eq!(system.changes().len(), changes);
    system.end().await;
}

/// How many jobs there are, whatever they wait for.
async fn job_count(system: &TestSystem) -> i64 {
    let counts = system.store.job_counts().await.unwrap();
    counts.available + counts.scheduled + counts.retryable + counts.running + counts.dead
}
