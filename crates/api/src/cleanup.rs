//! Cleanup runs: starts them, and explains what they did and why. Judging and deleting is the
//! workers' business.
//!
//! A run is of one source and made by a plain job, so who may enqueue and look at jobs may start and
//! look at runs.

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use domain::cleanup::report::Report;
use domain::cleanup::{CleanupPolicy, run_id};
use domain::ids::Subject;
use serde::Serialize;
use serde_json::json;
use store::EnqueueOptions;
use uuid::Uuid;

use crate::Api;
use crate::auth::needs;
use crate::error::Problem;
use crate::extract::{Body, IdempotencyKey, Segment, Traceparent};
use crate::fields::Fields;
use crate::token::Scope;

/// The kind of the job that makes runs.
const KIND: &str = "clean_up";

/// Most live streams that a caller may let a run propose.
const MAX_CAP: i64 = 1_000;

/// Longest age that a caller may name, in days.
const MAX_DAYS: i64 = 36_500;

/// Events of a run that are read in one go.
const PAGE: i64 = 500;

/// The routes.
pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/cleanup/runs", needs(Scope::JobsWrite, post(start)))
        .route("/v1/cleanup/runs/{id}", needs(Scope::JobsRead, get(show)))
}

/// Runs that were started.
#[derive(Debug, Serialize)]
struct Started {
    /// The job that makes them.
    job: Uuid,
    /// Whether it was enqueued now.
    is_new: bool,
    runs: Vec<RunOf>,
}

/// One of them.
#[derive(Debug, Serialize)]
struct RunOf {
    run: Uuid,
    source: String,
}

async fn start(
    State(api): State<Api>,
    IdempotencyKey(key): IdempotencyKey,
    trace: Traceparent,
    Body(mut fields): Body,
) -> Result<(StatusCode, Json<Started>), Problem> {
    let policy = policy(&mut fields);
    let source = fields.source(api.config());
    let args = json!({
        "policy": policy,
        "source": source,
        "dry_run": fields.flag("dry_run", true),
        "cap": fields.integer("cap", 1..=MAX_CAP),
        "after_days": fields.integer("after_days", 0..=MAX_DAYS),
        "delete_recordings": fields.optional_flag("delete_recordings"),
    });
    let trace = trace.or_of(&mut fields);
    fields.finish()?;
    let options = EnqueueOptions { key, ..EnqueueOptions::default() };
    let enqueued = api.store().enqueue_job(KIND, &args, &options, trace.as_deref()).await?;
    let job = enqueued.id.ok_or_else(Problem::internal)?;
    let subject = match options.key {
        Some(key) => Subject::from_stored(format!("job/{KIND}/{key}")),
        None => Subject::job(job),
    };
    api.0.notifier.enqueued(api.store().slice_of(&subject));
    let sources = source.map_or_else(|| api.config().sources.clone(), |source| vec![source]);
    let run = |source: String| RunOf { run: run_id(job, &source), source };
    let runs = sources.into_iter().map(run).collect();
    Ok((StatusCode::ACCEPTED, Json(Started { job, is_new: enqueued.is_new, runs })))
}

fn policy(fields: &mut Fields) -> CleanupPolicy {
    let name = fields.required_text("policy", 63);
    CleanupPolicy::named(&name).unwrap_or_else(|| {
        // One that is missing is told already.
        if !name.is_empty() {
            let known = CleanupPolicy::ALL.map(CleanupPolicy::name).join(", ");
            fields.wrong("policy", format!("must be one of {known}"));
        }
        CleanupPolicy::default()
    })
}

async fn show(State(api): State<Api>, Segment(id): Segment) -> Result<Json<Report>, Problem> {
    let missing = || Problem::not_found("cleanup run");
    let run = Uuid::try_parse(&id).map_err(|_| missing())?;
    for source in &api.config().sources {
        if let Some(report) = read(&api, &Subject::cleanup(source, run)).await? {
            return Ok(Json(report));
        }
    }
    Err(missing())
}

/// The report of the run of a subject.
async fn read(api: &Api, subject: &Subject) -> Result<Option<Report>, store::Error> {
    let mut events = Vec::new();
    loop {
        let after = events.last().map_or(0, |event: &domain::event::RecordedEvent| event.position);
        let more = api.store().read_subject(subject, after, PAGE).await?;
        if more.is_empty() {
            return Ok(Report::of(&events));
        }
        events.extend(more);
    }
}
