//! From how a handler ended to what becomes of its job and which event tells it.

use std::time::Duration;

use domain::call::Call;
use domain::effect::CallArgs;
use domain::event::{CallFailed, CallSucceeded, Event, JobEnded, NewEvent};
use domain::ids::derived_id;
use domain::retry;
use serde::Deserialize;
use store::{Ending, Finish};

use crate::claimed::{ClaimedJob, Ended, Verdict};
use crate::context::Context;
use crate::jobs::Done;

/// Why a job ended that somebody cancelled; sessions see it as the reason of their call's failure.
pub(super) const CANCELLED: &str = "cancelled";

/// What becomes of a job whose run has ended. One that was cancelled meanwhile does not go on, but
/// what it did is done.
pub(super) fn finish(ctx: &Context, ended: &Ended, is_cancelled: bool) -> Finish {
    let job = &ended.job;
    let (ending, events) = match &ended.verdict {
        Verdict::Done(Done::Again { .. })
        | Verdict::Retry { .. }
        | Verdict::Snooze { .. }
        | Verdict::Wait { .. }
        | Verdict::Interrupted
            if is_cancelled =>
        {
            cancelled(ctx, job, CANCELLED)
        }
        Verdict::Cancel { reason } => cancelled(ctx, job, reason),
        Verdict::Done(Done::Again { after }) => (Ending::Again { after: *after }, Vec::new()),
        Verdict::Done(Done::Quiet) => (Ending::Completed, Vec::new()),
        Verdict::Done(done) => (Ending::Completed, succeeded(ctx, job, done)),
        Verdict::Retry { after, reason } => failed_once(ctx, job, *after, reason),
        Verdict::Snooze { after, reason } => put_off(ctx, job, *after, reason),
        Verdict::Wait { step } => (Ending::Wait { step: step.clone() }, Vec::new()),
        Verdict::Fail { reason } => discarded(ctx, job, reason),
        Verdict::Interrupted => (Ending::Released, Vec::new()),
    };
    Finish { id: job.id, attempt: job.attempt, ending, events }
}

/// How a run ended, for the numbers.
pub(super) fn name(ending: &Ending) -> &'static str {
    match ending {
        Ending::Completed | Ending::Again { .. } => "completed",
        Ending::Retry { .. } => "failed",
        Ending::Snooze { .. } => "snoozed",
        Ending::Discarded { .. } => "discarded",
        Ending::Quarantined { .. } => "quarantined",
        Ending::Cancelled { .. } => "cancelled",
        Ending::Wait { .. } => "waiting",
        Ending::Released => "interrupted",
    }
}

/// Not yet: again later, or discarded when the time of its call is over.
fn put_off(
    ctx: &Context,
    job: &ClaimedJob,
    after: Duration,
    reason: &str,
) -> (Ending, Vec<NewEvent>) {
    let left = time_left(ctx, job);
    if left.is_some_and(|left| left.is_zero()) {
        return discarded(ctx, job, &format!("{reason} (its time is over)"));
    }
    tracing::info!(job = %job.id, kind = job.kind, reason, "job waits");
    (Ending::Snooze { after: left.map_or(after, |left| after.min(left)) }, Vec::new())
}

/// The time for which the call of a job is tried still, where that has a limit.
fn time_left(ctx: &Context, job: &ClaimedJob) -> Option<Duration> {
    let until = call_args(job)?.until?;
    Some((until - ctx.now()).to_std().unwrap_or_default())
}

/// A failure: again later, or discarded when the attempts or the time of its call are used up.
/// Whoever asked to wait longer than that time is called once more at its end.
fn failed_once(
    ctx: &Context,
    job: &ClaimedJob,
    after: Option<Duration>,
    reason: &str,
) -> (Ending, Vec<NewEvent>) {
    let errors = job.errors + 1;
    if errors >= job.max_attempts {
        return discarded(ctx, job, &format!("{reason} (after {errors} failures)"));
    }
    let left = time_left(ctx, job);
    if left.is_some_and(|left| left.is_zero()) {
        return discarded(ctx, job, &format!("{reason} (its time is over)"));
    }
    let chance = (ctx.config().chance)();
    let after = retry::delay(u32::try_from(errors).unwrap_or(u32::MAX), after, chance);
    let after = left.map_or(after, |left| after.min(left));
    tracing::warn!(
        job = %job.id, kind = job.kind, subject = %job.subject, attempt = job.attempt, reason,
        retry_in_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX), "job failed, will retry"
    );
    // At least a millisecond, since zero means "as it was".
    let after = after.max(Duration::from_millis(1));
    (Ending::Retry { error: reason.to_owned(), after }, Vec::new())
}

fn discarded(ctx: &Context, job: &ClaimedJob, reason: &str) -> (Ending, Vec<NewEvent>) {
    tracing::error!(job = %job.id, kind = job.kind, subject = %job.subject, reason, "job discarded");
    (Ending::Discarded { error: reason.to_owned() }, given_up(ctx, job, reason))
}

/// A job that nobody needs any more.
pub(super) fn cancelled(ctx: &Context, job: &ClaimedJob, reason: &str) -> (Ending, Vec<NewEvent>) {
    tracing::info!(job = %job.id, kind = job.kind, subject = %job.subject, reason, "job cancelled");
    let event = match call_args(job) {
        // A session that waits for the call goes on as after a failure.
        Some(args) => {
            Event::CallFailed(CallFailed { intent: args.intent, reason: reason.to_owned() })
        }
        None => Event::JobCancelled(ended_without_value(job, reason)),
    };
    (Ending::Cancelled { reason: reason.to_owned() }, vec![told(ctx, job, &event)])
}

/// The event that tells of a job that was given up.
pub(super) fn given_up(ctx: &Context, job: &ClaimedJob, reason: &str) -> Vec<NewEvent> {
    let event = match call_args(job) {
        Some(args) => {
            Event::CallFailed(CallFailed { intent: args.intent, reason: reason.to_owned() })
        }
        None => Event::JobDiscarded(ended_without_value(job, reason)),
    };
    vec![told(ctx, job, &event)]
}

/// The event that tells what a job did.
fn succeeded(ctx: &Context, job: &ClaimedJob, done: &Done) -> Vec<NewEvent> {
    let event = match (call_args(job), done) {
        (Some(args), Done::Call(result)) => {
            Event::CallSucceeded(CallSucceeded { intent: args.intent, result: (**result).clone() })
        }
        (_, done) => Event::JobCompleted(JobEnded {
            job: job.id,
            kind: job.kind.clone(),
            attempt: job.attempt,
            value: done.value(),
            error: None,
        }),
    };
    vec![told(ctx, job, &event)]
}

fn ended_without_value(job: &ClaimedJob, reason: &str) -> JobEnded {
    JobEnded {
        job: job.id,
        kind: job.kind.clone(),
        attempt: job.attempt,
        value: None,
        error: Some(reason.to_owned()),
    }
}

/// The arguments of a platform call; other jobs have none, whatever theirs look like.
fn call_args(job: &ClaimedJob) -> Option<CallArgs> {
    Call::KINDS.contains(&job.kind.as_str()).then(|| CallArgs::deserialize(&job.args).ok())?
}

/// The outcome's event: one for each job, whichever run ends it. The transaction that appends it
/// takes the job away, so it needs no key. A job that is retried from the dead letters has another
/// number of starts, and so another outcome.
fn told(ctx: &Context, job: &ClaimedJob, event: &Event) -> NewEvent {
    let id = derived_id("outcome", &[&job.id.to_string(), &job.attempt.to_string()]);
    let mut event = NewEvent::new(job.subject.clone(), event, ctx.now(), id);
    event.causation_id = job.causation_id;
    event.correlation_id = job.correlation_id;
    event
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::metrics::Metrics;
    use crate::progress::Progress;

    #[test]
    fn every_ending_is_counted_under_its_name() {
        let (after, error) = (Duration::ZERO, String::new());
        let endings = [
            Ending::Completed,
            Ending::Retry { error: error.clone(), after },
            Ending::Snooze { after },
            Ending::Again { after },
            Ending::Discarded { error: error.clone() },
            Ending::Quarantined { error: error.clone() },
            Ending::Cancelled { reason: error },
            Ending::Wait { step: "s".to_owned() },
            Ending::Released,
        ];
        let metrics = Metrics::new(Progress::default());
        for ending in &endings {
            metrics.jobs.ended("k", name(ending));
        }
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for ending in &endings {
            let counted = format!("jobs_ended_total{{kind=\"k\",outcome=\"{}\"}} ", name(ending));
            let count = text.lines().find_map(|line| line.strip_prefix(counted.as_str()));
            assert!(count.is_some_and(|count| count != "0"), "{ending:?}");
        }
    }
}
