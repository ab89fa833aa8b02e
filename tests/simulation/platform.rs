//! The handlers of a simulation: calls are answered by the scenario's obedient platform, other jobs
//! succeed, fail a few times or take long. The platform outlives every process.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use domain::call::CallResult;
use domain::effect::CallArgs;
use domain::scenario::{Answer, Platform};
use serde_json::json;
use uuid::Uuid;
use worker::jobs::{Done, JobError};
use worker::testing::{Run, Script};

use crate::clock;
use crate::line::Faulty;

/// A plain job that succeeds.
pub(crate) const PLAIN: &str = "sim_plain";

/// A plain job that fails twice.
pub(crate) const FLAKY: &str = "sim_flaky";

/// The platform, as all processes see it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shared(Arc<Mutex<World>>);

#[derive(Debug, Default)]
struct World {
    platform: Platform,
    /// What was done for an intent: who looks first finds it.
    done: HashMap<Uuid, CallResult>,
}

impl Shared {
    fn answer(&self, args: &CallArgs) -> Result<Done, JobError> {
        let mut world = self.0.lock().unwrap();
        if let Some(done) = world.done.get(&args.intent) {
            return Ok(Done::Call(Box::new(done.clone())));
        }
        match world.platform.obey(&args.call, clock::process()) {
            Answer::Done(result) => {
                world.done.insert(args.intent, result.clone());
                Ok(Done::Call(Box::new(result)))
            }
            Answer::Failed(reason) => Err(JobError::Fail { reason }),
        }
    }
}

/// The handlers of one process.
#[derive(Debug)]
pub(crate) struct Handlers {
    pub(crate) platform: Shared,
    pub(crate) line: Arc<Faulty>,
}

impl Script for Handlers {
    fn knows(&self, _: &str) -> bool {
        true
    }

    fn run(&self, run: Run) -> Pin<Box<dyn Future<Output = Result<Done, JobError>> + Send>> {
        let (platform, line) = (self.platform.clone(), Arc::clone(&self.line));
        Box::pin(async move {
            // Paused time: the run takes none of ours.
            tokio::time::sleep(took(&run)).await;
            if line.is_dead() {
                // What a dead process would have done is not done.
                std::future::pending::<()>().await;
            }
            match run.kind.as_str() {
                "maintain" | "verify" => Ok(Done::Again { after: Duration::from_hours(24) }),
                FLAKY if run.attempt < 3 => {
                    Err(JobError::Retry { after: None, reason: "not yet".to_owned() })
                }
                PLAIN | FLAKY => Ok(Done::Value(json!(run.attempt))),
                _ => match serde_json::from_value::<CallArgs>(run.args) {
                    Ok(args) => platform.answer(&args),
                    Err(error) => Err(JobError::Fail { reason: error.to_string() }),
                },
            }
        })
    }
}

/// How long a run takes: mostly a moment, sometimes longer than a lease.
fn took(run: &Run) -> Duration {
    let dice = run.id.as_bytes().iter().fold(run.attempt.unsigned_abs(), |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u32::from(*byte))
    });
    Duration::from_millis(if dice % 12 == 0 { 2_500 } else { u64::from(dice % 90) })
}
