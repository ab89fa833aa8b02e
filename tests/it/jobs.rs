//! Jobs of other services: enqueued by SQL, inside the caller's own transaction.

use serde_json::json;

use crate::system::{Database, Setup, TestSystem};

#[tokio::test]
async fn a_job_enqueued_in_a_callers_transaction_runs_after_its_commit_and_only_then() {
    let system = TestSystem::start(Setup::default()).await;
    let args = json!({"inactive_days": 30});
    let mut open = system.database.begin().await;
    let committed_late = Database::enqueue(&mut open, "clean_up_inactive", &args).await;

    let mut given_up = system.database.begin().await;
    let rolled_back = Database::enqueue(&mut given_up, "clean_up_inactive", &args).await;
    given_up.rollback().await.unwrap();

    let mut quick = system.database.begin().await;
    let committed = Database::enqueue(&mut quick, "clean_up_inactive", &args).await;
    quick.commit().await.unwrap();

    // A later job has run, and the one of the open transaction has not.
    assert_eq!(system.until_done(committed).await, json!({"dry_run": true, "candidates": []}));
    assert!(!system.is_done(committed_late).await);
    open.commit().await.unwrap();
    system.until_done(committed_late).await;
    assert!(!system.is_done(rolled_back).await && !system.database.has_job(rolled_back).await);
    system.end().await;
}
