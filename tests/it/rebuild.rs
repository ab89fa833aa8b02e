//! Rebuilding current state from the log, while everything runs.

use store::{Consumer, RebuildState};

use crate::system::{Database, Setup, TestSystem, until};

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

#[tokio::test]
async fn a_rebuild_that_is_killed_wherever_it_is_is_gone_on_with_while_workers_die() {
    let mut system = TestSystem::start(Setup { workers: 2, ..Setup::default() }).await;
    let on_air = system.on_air("unsettled").await;
    // Who reads the tables keeps each rebuild from its end.
    let mut reader = Database::connect(system.url()).await.begin().await;
    sqlx::query("SELECT 1 FROM tallylight.session").execute(&mut *reader).await.unwrap();
    for state in [RebuildState::Folding, RebuildState::Loading, RebuildState::Indexing] {
        kill_rebuild_in(&system, state).await;
        kill_rebuild_in(&system, RebuildState::Ready).await;
        until_done(&system, &["projections", "abort"]).await;
    }
    kill_rebuild_in(&system, RebuildState::Loading).await;
    system.drop_encoder(on_air).await;
    system.kill_holder(Consumer::React, &on_air.subject()).await;
    kill_rebuild_in(&system, RebuildState::Ready).await;
    system.return_encoder(on_air).await;
    reader.rollback().await.unwrap();
    until_done(&system, &["projections", "rebuild"]).await;
    let end = system.finish(on_air.session).await;
    assert!(end.is_all_ready());
    system.until_nothing_is_due().await;

    let digest = system.store.digest().await.unwrap();
    system.command(&["projections", "rebuild"]).await;
    assert_eq!(system.store.digest().await.unwrap(), digest);
    system.command(&["projections", "verify"]).await;
    system.end().await;
}

/// Kills a rebuild as soon as it has come to `state`, or behind it.
async fn kill_rebuild_in(system: &TestSystem, state: RebuildState) {
    let mut rebuild = system.spawn_on(system.url(), &["projections", "rebuild"]);
    until("the rebuild has come so far", async || {
        // The server may not have noticed yet that the one before is dead.
        if rebuild.has_exited() {
            let told = rebuild.output();
            assert!(told.contains("another process"), "{told}");
            rebuild = system.spawn_on(system.url(), &["projections", "rebuild"]);
        }
        let status = system.store.rebuild_status().await.unwrap()?;
        (status.state.is_open() && status.state >= state).then_some(())
    })
    .await;
    rebuild.kill();
}

/// Runs a command until it can do what it is for: the server may not have noticed yet that another
/// process is dead.
async fn until_done(system: &TestSystem, command: &[&str]) {
    until("the command has done it", async || {
        let (is_done, _) = system.command_on(system.url(), command).await;
        is_done.then_some(())
    })
    .await;
}

/// How many jobs there are, whatever they wait for.
async fn job_count(system: &TestSystem) -> i64 {
    let counts = system.store.job_counts().await.unwrap();
    counts.available + counts.scheduled + counts.retryable + counts.running + counts.dead
}
