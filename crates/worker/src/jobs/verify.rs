//! Verification: compares live rows with a fold of the log, some slices a night, for ever. What
//! differs is counted, cried out, and told by the health of the process that found it.
//!
//! It takes no lock that anybody waits for: a slice is put aside in one short snapshot, and folded
//! outside of it. It mends nothing; a rebuild does.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use store::{Difference, Parting, Verified};
use tokio::time::Instant;

use super::{Done, JobError};
use crate::claimed::ClaimedJob;
use crate::context::Context;
use crate::leases::chain;
use crate::notes::About;

/// Its name.
pub(super) const KIND: &str = "verify";

/// One of so many slices is verified a night, at least one: all of them in a fortnight or so.
const PART: u16 = 16;

/// Time of a run, below the limit of a handler. Some 20 million events are folded in it.
const BUDGET: Duration = Duration::from_secs(100);

/// First run of an installation: not while its first worker starts.
const FIRST: Duration = Duration::from_hours(1);

/// Arguments of a run.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Verify {
    /// One of so many slices; 1: all.
    part: u16,
    /// It runs again, as often as is configured.
    recurs: bool,
}

impl Default for Verify {
    fn default() -> Self {
        Self { part: PART, recurs: false }
    }
}

/// Verifies the slices of today, and those that differed when this process looked last.
pub(super) async fn run(ctx: &Context, job: &ClaimedJob) -> Result<Done, JobError> {
    let args: Verify = serde_json::from_value(job.args.clone())
        .map_err(|error| JobError::fail(format!("its arguments are wrong: {error}")))?;
    let (mut rows, mut differing, mut failed) = (0, 0, 0);
    let mut slices = ctx.store().sample(args.part, ctx.now());
    let again = ctx.notes().differing();
    slices.extend(again.into_iter().filter(|slice| !slices.contains(slice)).collect::<Vec<_>>());
    let deadline = Instant::now() + BUDGET;
    for slice in &slices {
        let left = deadline.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left, ctx.store().verify_slice(*slice)).await {
            Ok(Ok(verified)) => {
                rows += verified.rows;
                differing += verified.differing;
                tell(ctx, &verified);
            }
            Ok(Err(error)) => {
                failed += 1;
                tracing::error!(slice, error = %chain(&error), "slice not verified");
            }
            Err(_) => {
                failed += 1;
                tracing::error!(
                    slice,
                    "slice not verified in time: run `tallylight projections verify --slice {slice}`"
                );
            }
        }
    }
    tracing::info!(slices = slices.len(), rows, differing, "live rows compared with the log");
    match ctx.config().verify_every {
        Some(after) if args.recurs => Ok(Done::Again { after }),
        // Turned off since: the next start with it on begins anew.
        _ => Ok(Done::Value(json!({
            "slices": slices, "rows": rows, "differing": differing, "failed": failed,
        }))),
    }
}

/// Counts what was found, and says it.
fn tell(ctx: &Context, verified: &Verified) {
    ctx.metrics().verified(verified);
    let Verified { slice, differing, .. } = *verified;
    let about = About::Differing(slice);
    let Some(first) = verified.differences.first() else {
        ctx.notes().clear(about);
        return;
    };
    for difference in &verified.differences {
        tracing::error!(
            slice,
            table = difference.table,
            key = %difference.key,
            subject = difference.subject.as_ref().map(ToString::to_string),
            columns = difference.columns.join(", "),
            parting = parting(slice, difference),
            "a live row is not what the log folds to"
        );
    }
    let text = format!(
        "{differing} rows of slice {slice} are not what the log folds to, as of {}; the first is \
         {} {}, {}: `tallylight projections verify --slice {slice}` shows them, `projections \
         rebuild` makes them anew",
        ctx.now().format("%F %T UTC"),
        first.table,
        first.key,
        parting(slice, first),
    );
    ctx.notes().set(about, text);
}

/// Where a row parts from the log.
fn parting(slice: i16, difference: &Difference) -> String {
    match difference.parting {
        Parting::At(position) => format!("different after event {slice}:{position}"),
        Parting::NeverEqual { first } => {
            format!("different after every event of its subject, from {slice}:{first} on")
        }
        Parting::NoEvent => "of which no event tells".to_owned(),
    }
}

/// Enqueues the recurring job, once per installation.
pub(super) async fn schedule(ctx: &Context) -> Result<(), store::Error> {
    if ctx.config().verify_every.is_none() {
        return Ok(());
    }
    let options = store::EnqueueOptions {
        key: Some("recurring".to_owned()),
        run_at: Some(ctx.now() + FIRST),
        ..Default::default()
    };
    ctx.store().enqueue(KIND, &json!({ "recurs": true }), &options).await?;
    Ok(())
}
