//! Kinds of one's own: the example program in the place of `tallylight`, each role a process.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::system::{Database, Setup, TestSystem, until};

/// The example. Cargo builds it beside the binary for whoever runs all tests, and not for whoever
/// names some.
fn program() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_tallylight")).with_file_name("examples/handlers");
    if !path.exists() {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--locked", "--quiet", "--example", "handlers"]);
        cargo.args((!cfg!(debug_assertions)).then_some("--release"));
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let built = cargo.current_dir(root).status().unwrap();
        assert!(built.success() && path.exists(), "cargo build --example handlers: {built}");
    }
    path
}

#[tokio::test]
async fn jobs_of_kinds_that_a_program_brings_run_as_all_others() {
    let mut system = TestSystem::start(Setup { workers: 0, ..Setup::default() }).await;
    let stranger = json!({ "kind": "send_mail", "args": { "to": "ann@example.com" } });
    let refused = system.api.post("/v1/jobs", &stranger, None).await;
    assert_eq!(refused.status, 422, "the plain program knows no such kind");

    let worker = system.spawn_program(&program(), &["worker"]);
    let api = system.spawn_program(&program(), &["api"]);
    let client = system.api_at(api.address().await);

    // By HTTP, SQL and command, each to its end.
    let made = client.post("/v1/jobs", &stranger, None).await.ok();
    let by_http = made["id"].as_str().unwrap().parse().unwrap();
    let sent = system.until_done(by_http).await;
    assert_eq!(sent, json!({ "message_id": format!("<{by_http}@example.com>") }));

    let mut tx = system.database.begin().await;
    let args = json!({ "to": "bob@example.com", "after_ms": 20 });
    let by_sql = Database::enqueue(&mut tx, "remind", &args).await;
    tx.commit().await.unwrap();
    let reminded = system.until_done(by_sql).await;
    assert_eq!(reminded["first"], reminded["second"]);
    assert!(reminded["starts"].as_i64() > Some(1), "it was started again: {reminded}");

    let enqueue = ["jobs", "enqueue", "send_mail", "{\"to\": \"nobody\"}"];
    let told = system.failing_command(&enqueue).await;
    assert!(told.contains("this build knows no kind \"send_mail\""), "{told}");
    let mut command = system.spawn_program(&program(), &enqueue);
    assert!(command.exited().await.success(), "{}", command.output());
    let dead = until("the mail to nobody is given up", async || {
        system.store.dead_jobs(10).await.unwrap().pop()
    })
    .await;
    assert_eq!(dead.kind, "send_mail");
    assert!(dead.last_error.as_deref().unwrap().contains("is no address"), "{dead:?}");
    system.command(&["jobs", "discard", "--kind", "send_mail"]).await;

    for process in [&worker, &api] {
        system.keep_output(process);
    }
    drop((worker, api));
    system.end_after_errors().await;
}
