//! The examples in Python and Node, run as a reader would: packages from the registries, the
//! service's own role.
//!
//! Where an interpreter or a registry is missing, a test says what it skipped and passes; with
//! `TALLYLIGHT_EXAMPLES=required`, as in the checks of a change, it fails.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use uuid::Uuid;

use crate::db;

/// Runs a program; `None`: there is no such one.
fn run(program: impl AsRef<Path>, arguments: &[&str], folder: &Path, url: &str) -> Option<Output> {
    let mut command = Command::new(program.as_ref());
    command.args(arguments).current_dir(folder).env("DATABASE_URL", url);
    command.output().ok()
}

#[expect(clippy::disallowed_methods, reason = "tests have no configuration file")]
fn skip(what: &str, output: Option<&Output>) {
    let told = output.map(|o| String::from_utf8_lossy(&o.stderr).into_owned()).unwrap_or_default();
    let is_required = std::env::var("TALLYLIGHT_EXAMPLES").is_ok_and(|v| v == "required");
    assert!(!is_required, "{what}\n{told}");
    // Past the test harness, which shows no output of a test that passes.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {what}\n{told}");
}

/// A copy of an example, in a folder that stays, so that packages are fetched once.
fn copy_of(example: &str, files: &[&str]) -> PathBuf {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(example);
    let to = Path::new(env!("CARGO_TARGET_TMPDIR")).join(example);
    fs::create_dir_all(&to).unwrap();
    for file in files {
        fs::copy(from.join(file), to.join(file)).unwrap();
    }
    to
}

/// Runs steps that fetch packages. Returns whether they succeeded.
fn install(what: &str, steps: &[(&Path, &[&str])], folder: &Path) -> bool {
    for (program, arguments) in steps {
        match run(program, arguments, folder, "") {
            Some(output) if output.status.success() => {}
            output => {
                skip(
                    &format!("the example in {what}: {} {arguments:?} failed", program.display()),
                    output.as_ref(),
                );
                return false;
            }
        }
    }
    true
}

/// Runs an example and compares what it tells with the jobs in the table.
async fn check(program: &Path, script: &str, folder: &Path) {
    let db = db().await;
    let (program, script) = (program.to_owned(), script.to_owned());
    let (folder, url) = (folder.to_owned(), db.service_url.clone());
    let ran = move || run(program, &[&script, "7"], &folder, &url);
    let output = tokio::task::spawn_blocking(ran).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["is_new"], true);
    assert!(told["refused"].as_str().unwrap().contains("kind must be"), "{told}");

    let jobs: Vec<(Uuid, String, Value, Option<String>)> = sqlx::query_as(
        "SELECT id, kind, args -> 'body', unique_key FROM tallylight.job
          ORDER BY unique_key NULLS LAST, args #> '{body,item}'",
    )
    .fetch_all(&db.owner)
    .await
    .unwrap();
    let ids: Vec<String> = jobs.iter().map(|job| job.0.to_string()).collect();
    assert_eq!(
        Value::from(ids),
        Value::from(
            [&told["job"], &told["batch"][0], &told["batch"][1]].map(Value::clone).to_vec()
        )
    );
    assert_eq!((jobs[0].1.as_str(), jobs[0].3.as_deref()), ("http_call", Some("order-7")));
    assert_eq!(jobs[2].2, serde_json::json!({"order": 7, "item": 2}));
    assert_eq!(db.count("product.orders").await, 1);
}

#[tokio::test]
async fn the_python_example_enqueues() {
    let folder = copy_of("python", &["enqueue.py", "requirements.txt"]);
    let own = folder.join("venv/bin/python3");
    let install_packages = {
        let (folder, own) = (folder.clone(), own.clone());
        move || {
            let pip = ["-m", "pip", "install", "--quiet", "-r", "requirements.txt"];
            let steps: [(&Path, &[&str]); 2] =
                [(Path::new("python3"), &["-m", "venv", "venv"]), (&own, &pip)];
            install("Python", &steps, &folder)
        }
    };
    if tokio::task::spawn_blocking(install_packages).await.unwrap() {
        check(&own, "enqueue.py", &folder).await;
    }
}

#[tokio::test]
async fn the_node_example_enqueues() {
    let folder = copy_of("node", &["enqueue.mjs", "package.json"]);
    let install_packages = {
        let folder = folder.clone();
        move || {
            let npm = ["install", "--no-audit", "--no-fund", "--no-package-lock"];
            let steps: [(&Path, &[&str]); 2] =
                [(Path::new("node"), &["--version"]), (Path::new("npm"), &npm)];
            install("Node", &steps, &folder)
        }
    };
    if tokio::task::spawn_blocking(install_packages).await.unwrap() {
        check(Path::new("node"), "enqueue.mjs", &folder).await;
    }
}
