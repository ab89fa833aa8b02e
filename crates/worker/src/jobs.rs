//! Jobs of ours: one file each, listed here; kinds of one's own are in `handlers`. A handler decides
//! nothing: its arguments hold every decided value. It calls, looks first when an earlier start may
//! have had its effect, and returns what it saw.

use std::sync::Arc;
use std::time::Duration;

use domain::call::{Call, CallResult};
use domain::effect::CallArgs;
use platform::{Client, Disposition, Span};
use serde_json::Value;
use uuid::Uuid;

use crate::calls::{self, Destination};
use crate::claimed::ClaimedJob;
use crate::context::Context;
use crate::handlers::Run;
use crate::steps::Steps;

mod activate_live_stream;
mod clean_up;
mod clear_dvr;
mod create_broadcast;
mod create_live_stream;
mod deactivate_live_stream;
mod delete_broadcast;
mod delete_live_stream;
mod delete_recordings;
mod deleted;
mod deliver_webhook;
mod fetch_video;
mod http_call;
mod list_videos;
mod maintain;
mod observe_broadcast;
mod observe_live_stream;
mod observe_quota;
mod personal;
mod probe_live_stream;
mod reconcile;
mod set_broadcast_status;
mod start_recording;
mod stop_recording;
mod sweep_recordings;
mod update_live_stream;
mod verify;
mod video_lists;

use delete_live_stream::Deletion;

pub use clean_up::CleanUp;

/// Wait when the platform's quota is full: a slot is freed when some session ends.
const QUOTA_WAIT: Duration = Duration::from_secs(30);

/// Wait when the platform refuses our credentials: only a person can mend that.
const UNAUTHORIZED_WAIT: Duration = Duration::from_mins(1);

/// Failures after which "not found" is believed. Until then it may be lag after a webhook.
const NOT_FOUND_TRIES: i32 = 2;

/// Kinds of ours that other services may enqueue.
pub const KINDS: [&str; 7] = [
    clean_up::KIND,
    clean_up::OLD_KIND,
    http_call::KIND,
    maintain::KIND,
    reconcile::KIND,
    sweep_recordings::KIND,
    verify::KIND,
];

/// Kinds of plain jobs that only decisions enqueue.
const DECIDED: [&str; 1] = [deliver_webhook::KIND];

/// What a handler did.
#[derive(Debug, Clone, PartialEq)]
pub enum Done {
    /// The platform answered.
    Call(Box<CallResult>),
    /// A plain job's value, which an event tells.
    Value(Value),
    /// A plain job did its work, and nobody needs to hear of it: no event tells it.
    Quiet,
    /// A recurring job did its work; it is due again after this time, and earlier failures are
    /// forgotten.
    Again {
        /// From now.
        after: Duration,
    },
}

impl Done {
    /// A call's result.
    fn call(result: CallResult) -> Self {
        Self::Call(Box::new(result))
    }

    /// The value of a plain job.
    pub(crate) fn value(&self) -> Option<Value> {
        match self {
            Self::Value(value) => Some(value.clone()),
            Self::Call(result) => serde_json::to_value(result).ok(),
            Self::Quiet | Self::Again { .. } => None,
        }
    }
}

/// Why a handler did not do its work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// Perhaps the next time.
    #[error("{reason}")]
    Retry {
        /// What the other side asked to wait.
        after: Option<Duration>,
        /// Why, for people.
        reason: String,
    },
    /// Not yet; no failure.
    #[error("{reason}")]
    Snooze {
        /// How long.
        after: Duration,
        /// Why, for people.
        reason: String,
    },
    /// When a step of it is over, as [`Steps`] say; no failure.
    #[error("it waits for its step \"{step}\"")]
    Wait {
        /// The step.
        step: String,
    },
    /// Never.
    #[error("{reason}")]
    Fail {
        /// Why, for people.
        reason: String,
    },
    /// Nobody needs it any more: the job ends as cancelled, which is no failure.
    #[error("{reason}")]
    Cancel {
        /// Why, for people.
        reason: String,
    },
}

impl JobError {
    pub(crate) fn retry(reason: impl Into<String>) -> Self {
        Self::Retry { after: None, reason: reason.into() }
    }

    pub(crate) fn fail(reason: impl Into<String>) -> Self {
        Self::Fail { reason: reason.into() }
    }
}

/// What follows from a failed platform call, by its disposition.
impl From<platform::Error> for JobError {
    fn from(error: platform::Error) -> Self {
        let reason = crate::leases::chain(&error);
        match error.disposition() {
            // A platform that asks to wait is no failure; one that merely lags is, so that it ends.
            Disposition::Wait { after: Some(after) } => Self::Snooze { after, reason },
            Disposition::Retry { after } => Self::Retry { after, reason },
            // The next start looks first.
            Disposition::Wait { after: None } | Disposition::Ambiguous | Disposition::Done => {
                Self::Retry { after: None, reason }
            }
            Disposition::Quota => Self::Snooze { after: QUOTA_WAIT, reason },
            Disposition::Unauthorized => {
                tracing::error!(reason, "the platform refuses our credentials: mend the source");
                Self::Snooze { after: UNAUTHORIZED_WAIT, reason }
            }
            Disposition::Refused | Disposition::FeatureMissing => Self::Fail { reason },
        }
    }
}

impl From<store::Error> for JobError {
    fn from(error: store::Error) -> Self {
        Self::Retry { after: None, reason: crate::leases::chain(&error) }
    }
}

/// What a handler of a platform call needs.
pub(crate) struct CallContext<'a> {
    ctx: &'a Context,
    job: &'a ClaimedJob,
    platform: &'a Client,
    intent: Uuid,
}

impl CallContext<'_> {
    /// Whether an earlier start may have had its effect.
    fn must_look_first(&self) -> bool {
        #[cfg(any(test, feature = "testing"))]
        if self.ctx.flaws().never_looks {
            return false;
        }
        self.job.attempt > 1
    }

    /// Whether "not found" has been told often enough to be believed.
    fn believes_not_found(&self) -> bool {
        self.job.errors >= NOT_FOUND_TRIES
    }
}

/// Enqueues the recurring jobs, each once per installation.
pub(crate) async fn schedule(ctx: &Context) -> Result<(), store::Error> {
    maintain::schedule(ctx).await?;
    reconcile::schedule(ctx).await?;
    sweep_recordings::schedule(ctx).await?;
    verify::schedule(ctx).await
}

/// Whether a handler for `kind` is known.
pub(crate) fn is_known(ctx: &Context, kind: &str) -> bool {
    let ours = [&Call::KINDS[..], &KINDS, &DECIDED];
    ours.into_iter().any(|kinds| kinds.contains(&kind)) || ctx.own(kind).is_some()
}

/// Kinds whose start is not marked: they only read, are the most frequent of all, and it matters to
/// nobody whether they ran once or twice. What a mark is for besides, counting the processes that a
/// job took with it, is given up for them.
const UNMARKED: [&str; 6] = [
    "observe_live_stream",
    "observe_broadcast",
    "list_videos",
    "fetch_video",
    "probe_live_stream",
    "observe_quota",
];

/// Processes that a job may take with it before it is set aside.
pub(crate) const MAX_CRASHES: i32 = 3;

/// The same of platform calls. Their code is ours alone, and a session is lost with one that is set
/// aside; and one that has to look first for what an earlier start did runs for long in a large
/// account, so that processes which die of something else die with it more often.
const MAX_CRASHES_OF_CALL: i32 = 10;

/// How many processes a job of `kind` may take with it.
pub(crate) fn max_crashes(kind: &str) -> i32 {
    if Call::KINDS.contains(&kind) { MAX_CRASHES_OF_CALL } else { MAX_CRASHES }
}

/// Whether the start of a job of `kind` is marked before it runs.
pub(crate) fn is_marked(ctx: &Context, kind: &str) -> bool {
    ctx.own(kind).map_or_else(|| !UNMARKED.contains(&kind), |own| own.is_marked(kind))
}

/// How long a run of `kind` may take.
pub(crate) fn time_limit(ctx: &Context, kind: &str) -> Duration {
    ctx.own(kind).and_then(|own| own.time_limit(kind)).unwrap_or(ctx.config().job_timeout)
}

/// Whether Tallylight itself runs jobs of `kind`, those of its engine included.
pub fn knows(kind: &str) -> bool {
    let own = [domain::effect::TIMER, domain::effect::FORWARD, domain::effect::RELAY];
    let known = [own.as_slice(), &Call::KINDS, &KINDS, &DECIDED];
    known.into_iter().any(|kinds| kinds.contains(&kind))
}

/// Runs the handler of a job.
pub(crate) async fn run(ctx: &Context, job: &ClaimedJob) -> Result<Done, JobError> {
    if let Some(own) = ctx.own(&job.kind) {
        return own.run_with(Run::of(job), Steps::of(ctx, job)).await;
    }
    match job.kind.as_str() {
        clean_up::KIND => clean_up::run(ctx, job).await,
        clean_up::OLD_KIND => clean_up::run_old(ctx, job).await,
        deliver_webhook::KIND => deliver_webhook::run(ctx, job).await,
        http_call::KIND => http_call::run(ctx, job).await,
        maintain::KIND => maintain::run(ctx, job).await,
        reconcile::KIND => reconcile::run(ctx, job).await,
        sweep_recordings::KIND => sweep_recordings::run(ctx, job).await,
        verify::KIND => verify::run(ctx, job).await,
        _ => call(ctx, job).await.map(Done::call),
    }
}

/// Makes the platform call of a job, with its personal values in the open for as long as it runs.
/// What the platform echoes or quotes of them goes no further.
async fn call(ctx: &Context, job: &ClaimedJob) -> Result<CallResult, JobError> {
    let opened = personal::open(ctx, job).await?;
    let result = make_call(ctx, job, opened.args).await;
    result.map(CallResult::without_echo).map_err(|error| opened.values.cut_from(error))
}

async fn make_call(ctx: &Context, job: &ClaimedJob, args: Value) -> Result<CallResult, JobError> {
    let CallArgs { intent, call, .. } = serde_json::from_value(args)
        // A newer process may know them, during a rolling deploy.
        .map_err(|error| JobError::retry(format!("its arguments cannot be read: {error}")))?;
    let source = job.subject.source();
    let platform = ctx.platform(source).ok_or_else(|| JobError::Snooze {
        after: UNAUTHORIZED_WAIT,
        reason: format!("source \"{source}\" is not configured in this process"),
    })?;
    let permit = calls::admit(ctx, job, Destination::source(ctx, source)).await?;
    let platform = &platform.behind(Arc::new(permit));
    let call_ctx = CallContext { ctx, job, platform, intent };
    match call {
        Call::CreateLiveStream { name, options, earlier, only_look } => {
            create_live_stream::run(&call_ctx, name, options, &earlier, only_look).await
        }
        Call::UpdateLiveStream { live_stream, name, options } => {
            update_live_stream::run(&call_ctx, live_stream, name, options).await
        }
        Call::ClearDvr { live_stream } => clear_dvr::run(&call_ctx, live_stream).await,
        Call::CreateBroadcast { live_stream, name, earlier, only_look } => {
            create_broadcast::run(&call_ctx, live_stream, &name, &earlier, only_look).await
        }
        Call::ActivateLiveStream { live_stream } => {
            activate_live_stream::run(&call_ctx, live_stream).await
        }
        Call::DeactivateLiveStream { live_stream } => {
            deactivate_live_stream::run(&call_ctx, live_stream).await
        }
        Call::SetBroadcastStatus { broadcast, status } => {
            set_broadcast_status::run(&call_ctx, broadcast, &status).await
        }
        Call::StartRecording { live_stream } => start_recording::run(&call_ctx, live_stream).await,
        Call::StopRecording { live_stream, since } => {
            stop_recording::run(&call_ctx, live_stream, since).await
        }
        Call::DeleteBroadcast { broadcast } => delete_broadcast::run(&call_ctx, broadcast).await,
        Call::ObserveLiveStream { live_stream } => {
            observe_live_stream::run(&call_ctx, live_stream).await
        }
        Call::ObserveBroadcast { broadcast } => observe_broadcast::run(&call_ctx, broadcast).await,
        Call::ListVideos { live_stream } => list_videos::run(&call_ctx, live_stream).await,
        Call::FetchVideo { video } => fetch_video::run(&call_ctx, video).await,
        Call::ProbeLiveStream { live_stream, from, to } => {
            probe_live_stream::run(&call_ctx, live_stream, Span { from, to }).await
        }
        Call::ObserveQuota { check } => observe_quota::run(&call_ctx, &check).await,
        Call::DeleteLiveStream { live_stream, run, delete_recordings, policy, made_before } => {
            let deletion = Deletion { live_stream, run, delete_recordings, policy, made_before };
            delete_live_stream::run(&call_ctx, &deletion).await
        }
        Call::DeleteRecordings { live_stream, run: _, videos, made_before } => {
            delete_recordings::run(&call_ctx, live_stream, &videos, made_before).await
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
