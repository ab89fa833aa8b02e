//! Stories of what goes wrong, played by the binary: `tests/scenarios/*.txt`, each with the transcript
//! that `tallylight demo --script` prints of it.
//!
//! `TALLYLIGHT_GOLDEN=write` writes the transcripts anew.

#![expect(clippy::disallowed_methods, reason = "tests have no configuration file")]

use std::path::{Path, PathBuf};

use crate::system::Process;

/// How many times faster than the real platform.
const SPEED: &str = "40";

/// Where the stories are.
fn scenarios() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/scenarios")
}

/// Plays a story and compares its transcript.
async fn plays(story: &str) {
    let script = scenarios().join(format!("{story}.txt"));
    let database = store::testing::database().await;
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("none.toml");
    std::fs::write(&config, "").unwrap();
    let arguments = ["demo", "--script", script.to_str().unwrap(), "--speed", SPEED];
    let arguments = [&arguments[..], &["--database", &database]].concat();
    let mut process = Process::spawn(&config, &arguments);
    let status = process.exited().await;
    let output = process.output();
    assert!(status.success(), "{story} ended with {status}:\n{output}");
    let line = |line: &str| line.split_once("] |").map(|(_, told)| format!("|{told}\n"));
    let transcript: String = output.lines().filter_map(line).collect();
    let golden = scenarios().join(format!("{story}.transcript"));
    if std::env::var("TALLYLIGHT_GOLDEN").is_ok_and(|how| how == "write") {
        std::fs::write(&golden, &transcript).unwrap();
    }
    let expected = std::fs::read_to_string(&golden).unwrap();
    assert_eq!(transcript, expected, "{story}:\n{output}");
}

#[tokio::test]
async fn lost_webhooks_change_nothing_but_the_time_it_takes() {
    plays("lost-webhooks").await;
}

#[tokio::test]
async fn a_stop_whose_answer_is_lost_finds_its_video() {
    plays("lost-stop-reply").await;
}

#[tokio::test]
async fn a_session_waits_for_the_slot_of_another() {
    plays("quota-full").await;
}

#[tokio::test]
async fn what_was_recorded_stays_when_somebody_deletes_the_live_stream() {
    plays("portal-deletes-stream").await;
}

#[tokio::test]
async fn a_worker_that_dies_after_its_calls_makes_nothing_twice() {
    plays("worker-dies").await;
}

#[tokio::test]
async fn a_restart_of_the_platform_is_an_interruption() {
    plays("platform-restart").await;
}
