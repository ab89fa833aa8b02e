//! Jobs that are there: lists, one with its runs, cancel, retry, redrive, discard.
//!
//! What a session waits for is cancelled or let run again by commands to the session; of the verbs
//! here only those that look take it.

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router};
use serde::Serialize;
use serde_json::Value;
use store::{Attempt, DeadFilter, DeadJob, JobFilter, JobView, JobWaits, Redrive};
use uuid::Uuid;

use super::refused;
use crate::Api;
use crate::auth::needs;
use crate::cursor;
use crate::error::Problem;
use crate::extract::{Body, OptionalBody, Params, Segment};
use crate::fields::Fields;
use crate::token::Scope;

/// The states of live jobs.
const LIVE: [&str; 5] = ["available", "scheduled", "retryable", "running", "cancelled"];

/// The route that stands beside enqueueing.
pub(super) fn list_route() -> MethodRouter<Api> {
    needs(Scope::JobsRead, get(list))
}

/// The other routes.
pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/jobs/{id}", needs(Scope::JobsRead, get(show)))
        .route("/v1/jobs/{id}/cancel", needs(Scope::JobsWrite, post(cancel)))
        .route("/v1/jobs/{id}/retry", needs(Scope::JobsWrite, post(retry)))
        .route("/v1/dead-jobs", needs(Scope::JobsRead, get(dead)))
        .route("/v1/dead-jobs:redrive", needs(Scope::JobsWrite, post(redrive)))
        .route("/v1/dead-jobs:discard", needs(Scope::JobsWrite, post(discard)))
}

/// A page of jobs.
#[derive(Debug, Serialize)]
struct Page<T> {
    jobs: Vec<T>,
    /// What to send for the next page; none: this was the last.
    next: Option<String>,
}

/// Cuts what was read to a page: one more than asked for tells whether there is a next.
fn page<T>(mut jobs: Vec<T>, limit: i64, end: impl FnOnce(&T) -> Option<String>) -> Json<Page<T>> {
    let limit = usize::try_from(limit).unwrap_or_default();
    let has_more = jobs.len() > limit;
    jobs.truncate(limit);
    let next = jobs.last().filter(|_| has_more).and_then(end);
    Json(Page { jobs, next })
}

/// Where the last page ended, if the caller says so. Both lists go by a time and an id.
fn ended(params: &mut Fields, name: &'static str) -> Option<(domain::ids::Timestamp, Uuid)> {
    let text = params.text(name, 100)?;
    let cursor = cursor::read_session(&text);
    if cursor.is_none() {
        params.wrong(name, "is not the `next` of a page of this list");
    }
    cursor
}

/// Live jobs, in the order in which they are due.
async fn list(
    State(api): State<Api>,
    Params(mut params): Params,
) -> Result<Json<Page<JobView>>, Problem> {
    let state = params.text("state", 20);
    if state.as_deref().is_some_and(|state| !LIVE.contains(&state)) {
        params.wrong("state", format!("must be one of {}", LIVE.join(", ")));
    }
    let filter =
        JobFilter { state, kind: params.text("kind", 63), subject: params.text("subject", 1024) };
    let limit = params.integer("limit", 1..=500).unwrap_or(50);
    let after = ended(&mut params, "after");
    params.finish()?;
    let jobs = api.store().live_jobs(&filter, after, limit + 1).await?;
    Ok(page(jobs, limit, |last| Some(cursor::of_session(last.run_at?, last.id))))
}

/// A job with its runs.
#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    job: JobView,
    /// Its parent, its steps, and the one it waits for.
    waits: JobWaits,
    attempts: Vec<Attempt>,
}

async fn show(State(api): State<Api>, Segment(id): Segment) -> Result<Json<Shown>, Problem> {
    let found = api.store().find_job(job_id(&id)?).await?;
    let job = found.ok_or_else(|| Problem::not_found("job"))?;
    let attempts = api.store().job_attempts(job.slice, job.id).await?;
    let waits = api.store().job_waits(job.slice, job.id).await?;
    Ok(Json(Shown { job, waits, attempts }))
}

/// What cancelling came to.
#[derive(Debug, Serialize)]
struct CancelledJob {
    id: Uuid,
    /// `cancelled`, or `running` until it has been stopped.
    state: String,
}

async fn cancel(
    State(api): State<Api>,
    Segment(id): Segment,
    OptionalBody(fields): OptionalBody,
) -> Result<(StatusCode, Json<CancelledJob>), Problem> {
    fields.finish()?;
    let id = job_id(&id)?;
    let cancelled = api.store().cancel_job(id, false).await.map_err(not_for_callers)?;
    let Some(cancelled) = cancelled else {
        let ended = api.store().find_job(id).await?.ok_or_else(|| Problem::not_found("job"))?;
        let detail = format!("the job has ended: it is {}", ended.state);
        return Err(Problem::conflict("not-now", detail));
    };
    api.0.notifier.enqueued(cancelled.slice);
    Ok((StatusCode::ACCEPTED, Json(CancelledJob { id, state: cancelled.state })))
}

/// How many dead letters a verb concerned.
#[derive(Debug, Serialize)]
struct Count {
    jobs: i64,
    dry_run: bool,
}

async fn retry(
    State(api): State<Api>,
    Segment(id): Segment,
    OptionalBody(mut fields): OptionalBody,
) -> Result<(StatusCode, Json<Count>), Problem> {
    let edit = edit(&mut fields);
    fields.finish()?;
    let id = job_id(&id)?;
    let filter = DeadFilter::id(id);
    let how = Redrive { edit, ..Redrive::default() };
    match api.store().redrive(&filter, &how).await.map_err(|error| refused("edit", error))? {
        0 => Err(not_dead(&api, id).await?),
        jobs => Ok((StatusCode::ACCEPTED, Json(Count { jobs, dry_run: false }))),
    }
}

/// Why a job cannot be retried, and what can be done.
async fn not_dead(api: &Api, id: Uuid) -> Result<Problem, Problem> {
    let job = api.store().find_job(id).await?.ok_or_else(|| Problem::not_found("job"))?;
    let detail = match job.state.as_str() {
        "discarded" | "quarantined" => {
            "a session waits for this call: retry the session, POST /v1/sessions/{id}/retry".into()
        }
        state => {
            format!("the job is {state}: only one that was discarded or quarantined is retried")
        }
    };
    Ok(Problem::conflict("not-now", detail))
}

/// Dead letters, the latest first.
async fn dead(
    State(api): State<Api>,
    Params(mut params): Params,
) -> Result<Json<Page<DeadJob>>, Problem> {
    let filter = conditions(&mut params);
    let limit = params.integer("limit", 1..=500).unwrap_or(50);
    let before = ended(&mut params, "before");
    params.finish()?;
    let jobs = api.store().dead_page(&filter, before, limit + 1).await?;
    Ok(page(jobs, limit, |last| Some(cursor::of_session(last.died_at, last.id))))
}

async fn redrive(State(api): State<Api>, Body(mut fields): Body) -> Result<Json<Count>, Problem> {
    let filter = verb_conditions(&mut fields);
    let how =
        Redrive { edit: edit(&mut fields), dry_run: fields.flag("dry_run", false), decided: false };
    fields.finish()?;
    let redriven = api.store().redrive(&filter, &how).await;
    let jobs = redriven.map_err(|error| refused("edit", error))?;
    Ok(Json(Count { jobs, dry_run: how.dry_run }))
}

async fn discard(State(api): State<Api>, Body(mut fields): Body) -> Result<Json<Count>, Problem> {
    let filter = verb_conditions(&mut fields);
    let dry_run = fields.flag("dry_run", false);
    fields.finish()?;
    let jobs = api.store().discard_dead(&filter, dry_run).await?;
    Ok(Json(Count { jobs, dry_run }))
}

/// Which dead letters; without a condition all of them.
fn conditions(fields: &mut Fields) -> DeadFilter {
    let id = fields.text("id", 36);
    let id = id.and_then(|text| {
        let id = Uuid::try_parse(&text).ok();
        if id.is_none() {
            fields.wrong("id", "must be the id of a job");
        }
        id
    });
    let state = fields.text("state", 20);
    if state.as_deref().is_some_and(|state| !["discarded", "quarantined"].contains(&state)) {
        fields.wrong("state", "must be discarded or quarantined");
    }
    let mut filter = DeadFilter {
        all: false,
        id,
        kind: fields.text("kind", 63),
        queue: fields.text("queue", 63),
        subject: fields.text("subject", 1024),
        state,
        error: fields.text("error", 255),
        since: fields.time("since"),
        until: fields.time("until"),
    };
    filter.all = filter == DeadFilter::default();
    filter
}

/// Which dead letters are to be changed: all of them only where that is said.
fn verb_conditions(fields: &mut Fields) -> DeadFilter {
    let all = fields.flag("all", false);
    let filter = conditions(fields);
    if filter.all && !all {
        fields.wrong("all", "must be true where no condition is named");
    }
    filter
}

/// A change of arguments.
fn edit(fields: &mut Fields) -> Option<Value> {
    let edit = fields.json("edit")?;
    if !edit.is_object() {
        fields.wrong("edit", "must be a JSON object, a merge patch of the arguments");
    }
    Some(edit)
}

fn job_id(text: &str) -> Result<Uuid, Problem> {
    Uuid::try_parse(text).map_err(|_| Problem::not_found("job"))
}

/// A job that a session waits for is not the caller's to cancel.
fn not_for_callers(error: store::Error) -> Problem {
    if let store::Error::Invalid { reason } = &error {
        return Problem::conflict("not-now", reason.clone());
    }
    error.into()
}
