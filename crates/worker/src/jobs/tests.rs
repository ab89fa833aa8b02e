//! Kinds for the engine's tests, and tests of how failed platform calls are taken.

use std::sync::Mutex;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::json;
use uuid::Uuid;

use super::{Done, JobError};
use crate::testing::{Run, Script};

/// Runs that began, of all tests of this binary: job and the number of its start.
pub(crate) static BEGUN: Mutex<Vec<(Uuid, i32)>> = Mutex::new(Vec::new());

/// The starts of one job so far.
pub(crate) fn starts_of(job: Uuid) -> Vec<i32> {
    let begun = BEGUN.lock().unwrap();
    begun.iter().filter(|(id, _)| *id == job).map(|(_, attempt)| *attempt).collect()
}

/// The tests' own kinds.
#[derive(Debug)]
pub(crate) struct TestKinds;

impl Script for TestKinds {
    fn knows(&self, kind: &str) -> bool {
        kind.starts_with("test_")
    }

    fn run(&self, job: Run) -> BoxFuture<'static, Result<Done, JobError>> {
        Box::pin(run(job))
    }
}

/// Does what the kind says.
async fn run(job: Run) -> Result<Done, JobError> {
    BEGUN.lock().unwrap().push((job.id, job.attempt));
    let fails_until = job.args["fails_until"].as_i64().unwrap_or(0);
    match job.kind.as_str() {
        "test_ok" => Ok(Done::Value(json!({"start": job.attempt}))),
        "test_flaky" if i64::from(job.attempt) <= fails_until => Err(JobError::retry("not yet")),
        "test_flaky" => Ok(Done::Value(json!(job.attempt))),
        "test_fail" => Err(JobError::fail("never")),
        "test_cancel" => Err(JobError::Cancel { reason: "not needed".to_owned() }),
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
