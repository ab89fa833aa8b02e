//! Backup and restore: what was committed at one moment comes back, elsewhere or in its place, as a
//! new incarnation of the log that works on.

use std::os::unix::fs::PermissionsExt as _;

use domain::event::RecordedEvent;
use domain::ids::Timestamp;
use serde_json::json;
use store::{Config, Store};
use uuid::Uuid;

use crate::system::{Setup, TestSystem, until};

/// An empty database beside that of the system.
async fn empty(system: &TestSystem) -> String {
    let (server, _) = system.url().rsplit_once('/').unwrap();
    let url = format!("{server}/restored_{}", Uuid::now_v7().simple());
    assert!(store::create_database(&Config::new(url.clone())).await.unwrap());
    url
}

async fn open(url: &str) -> Store {
    Store::connect(&Config::new(url)).await.unwrap()
}

/// All events of a log by slice and position.
async fn events(store: &Store) -> Vec<RecordedEvent> {
    let mut all = Vec::new();
    for slice in 0..store.slices().get() {
        all.extend(store.read_after(slice, 0, Timestamp::default(), 100_000).await.unwrap());
    }
    all
}

#[tokio::test]
async fn a_backup_is_restored_elsewhere_and_works_on_as_a_new_incarnation() {
    let system = TestSystem::start(Setup::default()).await;
    let on_air = system.on_air("kept").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("backup.dump");
    let file = file.to_str().unwrap();
    let told = system.command(&["db", "backup", file]).await;
    assert!(told.contains("sealing key is not among them"), "{told}");
    let mode = std::fs::metadata(file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "others may not read it");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    let (done, told) = system.command_on(system.url(), &["db", "backup", file]).await;
    assert!(!done && told.contains("choose another name"), "{told}");

    // What comes after it is not in it.
    system.finish(on_air.session).await;
    system.until_nothing_is_due().await;
    let url = empty(&system).await;
    let (done, told) = system.command_on(&url, &["db", "restore", file]).await;
    assert!(done && told.contains("begins incarnation"), "{told}");
    let restored = open(&url).await;
    assert_eq!(restored.installation(), system.store.installation());
    assert_ne!(restored.incarnation(), system.store.incarnation());
    let (before, after) = (events(&restored).await, events(&system.store).await);
    assert!(before.len() > 10 && before.len() < after.len(), "{}", before.len());
    assert!(before.iter().all(|event| after.contains(event)), "each is as it was");

    // The platform has moved on since; a worker finds that out and ends the session.
    let mut worker = system.spawn_on(&url, &["worker"]);
    let id = on_air.session.to_string();
    until("the restored session can be ended", async || {
        system.command_on(&url, &["session", "end", &id]).await.0.then_some(())
    })
    .await;
    until("the restored session ends", async || {
        let view = restored.session(on_air.session).await.unwrap()?;
        (view.status == "ended").then_some(())
    })
    .await;
    let streams = system.simulator.state()["streams"].as_array().unwrap().len();
    assert_eq!(streams, 1, "nothing was made twice");
    worker.terminate();
    assert!(worker.exited().await.success());
    let digest = restored.digest().await.unwrap();
    let (done, told) = system.command_on(&url, &["projections", "rebuild"]).await;
    assert!(done, "{told}");
    assert_eq!(restored.digest().await.unwrap(), digest, "rows are those of the log");
    restored.close().await;
    system.end().await;
}

#[tokio::test]
async fn a_restore_replaces_an_installation_only_when_told_and_whole_or_not_at_all() {
    let system = TestSystem::start(Setup { workers: 0, ..Setup::default() }).await;
    system.request("kept", json!({})).await;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let file = path("backup.dump");
    system.command(&["db", "backup", &file]).await;

    let url = empty(&system).await;
    // One that was never used is in nobody's way.
    assert!(system.command_on(&url, &["migrate"]).await.0);
    let restore = async |more: &[&str]| {
        let arguments = [&["db", "restore", &file], more].concat();
        system.command_on(&url, &arguments).await
    };
    let (done, told) = restore(&[]).await;
    assert!(done, "{told}");
    let present = open(&url).await;
    let (first, held) = (present.incarnation(), events(&present).await);

    let (done, told) = restore(&["--replace", "--yes"]).await;
    assert!(!done && told.contains("stop its roles first"), "{told}");
    present.close().await;
    for (more, words) in [(vec![], "say --replace"), (vec!["--replace"], "add --yes")] {
        let (done, told) = restore(&more).await;
        assert!(!done && told.contains(words), "{told}");
    }

    // A torn archive still has its table of contents; what is there stays.
    let torn = std::fs::read(&file).unwrap();
    std::fs::write(path("torn.dump"), &torn[..torn.len() - 64]).unwrap();
    std::fs::write(path("no.dump"), "no backup").unwrap();
    for (name, words) in [("torn.dump", "as it was"), ("no.dump", "read"), ("none", "not there")] {
        let arguments = ["db", "restore", &path(name), "--replace", "--yes"];
        let (done, told) = system.command_on(&url, &arguments).await;
        assert!(!done && told.contains(words), "{told}");
    }
    let present = open(&url).await;
    assert_eq!((present.incarnation(), events(&present).await), (first, held));
    present.close().await;

    let (done, told) = restore(&["--replace", "--yes"]).await;
    assert!(done, "{told}");
    let replaced = open(&url).await;
    assert_ne!(replaced.incarnation(), first, "once more another history");
    replaced.close().await;
    system.end().await;
}
