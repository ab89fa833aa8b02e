//! Kinds for the engine's tests, and tests of how failed platform calls are taken.

use std::sync::Mutex;
use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use super::{Done, JobError};
use crate::claimed::ClaimedJob;

/// Runs that began, of all tests of this binary: job and the number of its start.
pub(crate) static BEGUN: Mutex<Vec<(Uuid, i32)>> = Mutex::new(Vec::new());

/// The starts of one job so far.
pub(crate) fn starts_of(job: Uuid) -> Vec<i32> {
    let begun = BEGUN.lock().unwrap();
    begun.iter().filter(|(id, _)| *id == job).map(|(_, attempt)| *attempt).collect()
}

/// Whether `kind` is one of the tests' own.
pub(super) fn is_known(kind: &str) -> bool {
    kind.starts_with("test_")
}

/// Does what the kind says.
pub(super) async fn run(job: &ClaimedJob) -> Result<Done, JobError> {
    BEGUN.lock().unwrap().push((job.id, job.attempt));
    let fails_until = job.args["fails_until"].as_i64().unwrap_or(0);
    match job.kind.as_str() {
        "test_ok" => Ok(Done::Value(json!({"start": job.attempt}))),
        "test_flaky" if i64::from(job.attempt) <= fails_until => Err(JobError::retry("not yet")),
        "test_flaky" => Ok(Done::Value(json!(job.attempt))),
        "test_fail" => Err(JobError::fail("never")),
        "test_panic" => panic!("boom"),
        "test_snooze" if job.attempt == 1 => {
            Err(JobError::Snooze { after: Duration::from_millis(20), reason: "later".to_owned() })
        }
        "test_recurring" if job.attempt % 2 == 1 => Err(JobError::retry("every other time")),
        "test_recurring" => Ok(Done::Again { after: Duration::from_millis(5) }),
        // Ends only by being cancelled.
        "test_hang" => std::future::pending().await,
        "test_hang_once" if job.attempt == 1 => std::future::pending().await,
        _ => Ok(Done::Value(json!(null))),
    }
}
