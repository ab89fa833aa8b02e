//! Cleanup: proposes to delete live streams of ours whose account was deleted and that have been
//! idle for long. It deletes nothing itself: each live stream decides on its own state, and the
//! call that follows looks again. Capped, and a dry run only lists.

use domain::event::{CleanupRequested, Event, NewEvent};
use domain::ids::{Subject, derived_id};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::Duration;
use store::CleanupCandidate;

use super::{Done, JobError};
use crate::claimed::ClaimedJob;
use crate::context::Context;

/// Its name.
pub(super) const KIND: &str = "clean_up_inactive";

/// Arguments of a cleanup run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CleanUpInactive {
    /// Idle for at least this many days.
    pub inactive_days: i32,
    /// Most live streams of one run and source.
    pub cap: i64,
    /// Only list them.
    pub dry_run: bool,
    /// Delete their recordings too, before them.
    pub delete_recordings: bool,
    /// Only of this source; none: of all.
    pub source: Option<String>,
    /// Run again after this many seconds, for ever; none: once.
    pub every_seconds: Option<u64>,
}

impl Default for CleanUpInactive {
    fn default() -> Self {
        Self {
            inactive_days: 30,
            cap: 20,
            dry_run: true,
            delete_recordings: false,
            source: None,
            every_seconds: None,
        }
    }
}

/// Lists candidates and, unless it is a dry run, proposes them.
pub(super) async fn run(ctx: &Context, job: &ClaimedJob) -> Result<Done, JobError> {
    let args: CleanUpInactive = serde_json::from_value(job.args.clone())
        .map_err(|error| JobError::fail(format!("its arguments are wrong: {error}")))?;
    if args.inactive_days < 0 || args.cap < 1 {
        return Err(JobError::fail("inactive_days must be 0 or more, cap 1 or more"));
    }
    let mut listed = Vec::new();
    for source in ctx.sources().filter(|s| args.source.as_ref().is_none_or(|only| only == *s)) {
        let candidates =
            ctx.store().cleanup_candidates(source, args.inactive_days, args.cap).await?;
        for candidate in candidates {
            if !args.dry_run {
                propose(ctx, job, &args, &candidate).await?;
            }
            listed.push(json!({
                "source": candidate.source,
                "live_stream_id": candidate.live_stream,
                "account": candidate.account,
                "idle_since": candidate.idle_since,
            }));
        }
    }
    tracing::info!(candidates = listed.len(), dry_run = args.dry_run, "cleanup run");
    if let Some(seconds) = args.every_seconds {
        let after = Duration::from_secs(seconds.max(60));
        return Ok(Done::Again { after });
    }
    Ok(Done::Value(json!({"dry_run": args.dry_run, "candidates": listed})))
}

/// Proposes one live stream, once per run.
async fn propose(
    ctx: &Context,
    job: &ClaimedJob,
    args: &CleanUpInactive,
    candidate: &CleanupCandidate,
) -> Result<(), JobError> {
    let subject = Subject::live_stream(&candidate.source, candidate.live_stream);
    let run = derived_id("cleanup", &[&job.id.to_string(), &job.attempt.to_string()]);
    let event = Event::CleanupRequested(CleanupRequested {
        run,
        reason: format!(
            "idle since {}, account {} deleted",
            candidate.idle_since.format("%F"),
            candidate.account
        ),
        delete_recordings: args.delete_recordings,
    });
    let key = derived_id("cleanup-request", &[&run.to_string(), subject.as_str()]);
    let slice = ctx.store().slice_of(&subject);
    let mut event = NewEvent::new(subject, &event, ctx.now(), key).with_key(key);
    event.causation_id = job.causation_id;
    event.correlation_id = job.correlation_id;
    ctx.store().append_one(event).await?;
    ctx.events_appended(slice);
    Ok(())
}
