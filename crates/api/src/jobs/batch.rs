//! Batches of plain jobs: `POST /v1/jobs:batch`, all or none, in one transaction.

use std::collections::BTreeSet;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use serde::Serialize;
use serde_json::Value;
use store::PlainJob;
use uuid::Uuid;

use super::{Enqueued, args, kind, options, refused, subject};
use crate::Api;
use crate::auth::needs;
use crate::error::{FieldProblem, Problem};
use crate::extract::{BatchBody, IdempotencyKey, Traceparent, allow_batch};
use crate::fields::Fields;
use crate::token::Scope;

/// The most jobs of a batch: a third of a second of a transaction on a busy machine, and an answer
/// of 70 KiB.
const MAX_JOBS: usize = 1_000;

/// The most problems that are told of a batch: a caller who sent a wrong thing a thousand times
/// needs no thousand answers.
const MAX_PROBLEMS: usize = 20;

/// The routes, for an API with this body limit of single jobs.
pub(crate) fn routes(body_limit: usize) -> Router<Api> {
    let batch = post(enqueue).layer(allow_batch(body_limit));
    Router::new().route("/v1/jobs:batch", needs(Scope::JobsWrite, batch))
}

/// What became of a batch.
#[derive(Debug, Serialize)]
struct Batch {
    /// In the order of the request.
    jobs: Vec<Enqueued>,
}

async fn enqueue(
    State(api): State<Api>,
    IdempotencyKey(header): IdempotencyKey,
    trace: Traceparent,
    BatchBody(mut fields): BatchBody,
) -> Result<(StatusCode, Json<Batch>), Problem> {
    let jobs = jobs(&api, &mut fields, "jobs");
    if header.is_some() {
        fields.wrong("Idempotency-Key", "stands for one job: give each job of a batch its `key`");
    }
    let trace = trace.or_of(&mut fields);
    fields.finish()?;
    let jobs = jobs?;
    let enqueued = api.store().enqueue_many(&jobs, trace.as_deref()).await;
    let enqueued = enqueued.map_err(|error| refused("jobs", error))?;
    wake(&api, jobs.into_iter().zip(enqueued.iter().map(|enqueued| enqueued.id)));
    let jobs = enqueued.into_iter().map(|e| Enqueued { id: e.id, is_new: e.is_new }).collect();
    Ok((StatusCode::CREATED, Json(Batch { jobs })))
}

/// Wakes the workers of jobs that have an id.
pub(super) fn wake(api: &Api, jobs: impl IntoIterator<Item = (PlainJob, Option<Uuid>)>) {
    let slice = |(job, id): (PlainJob, Option<Uuid>)| {
        Some(api.store().slice_of(&subject(&job.kind, id?, job.options)))
    };
    let slices: BTreeSet<i16> = jobs.into_iter().filter_map(slice).collect();
    for slice in slices {
        api.0.notifier.enqueued(slice);
    }
}

/// The jobs of a field, or what is wrong with them.
pub(super) fn jobs(
    api: &Api,
    fields: &mut Fields,
    name: &'static str,
) -> Result<Vec<PlainJob>, Problem> {
    let Some(Value::Array(items)) = fields.json(name) else {
        fields.wrong(name, "must be an array of jobs");
        return Ok(Vec::new());
    };
    if !(1..=MAX_JOBS).contains(&items.len()) {
        fields.wrong(name, format!("must be 1 to {MAX_JOBS} jobs; these are {}", items.len()));
        return Ok(Vec::new());
    }
    let mut problems = Vec::new();
    let mut jobs = Vec::with_capacity(items.len());
    for (n, item) in items.into_iter().enumerate() {
        match job(api, item) {
            Ok(job) => jobs.push(job),
            Err(wrong) => problems.extend(wrong.into_iter().map(|problem| FieldProblem {
                field: format!("{name}[{n}]{}", problem.field),
                problem: problem.problem,
            })),
        }
        if problems.len() >= MAX_PROBLEMS {
            break;
        }
    }
    if problems.is_empty() { Ok(jobs) } else { Err(Problem::invalid(problems)) }
}

/// One job; else its fields that are wrong, each behind a dot.
fn job(api: &Api, item: Value) -> Result<PlainJob, Vec<FieldProblem>> {
    let Value::Object(sent) = item else {
        let problem = "must be an object".to_owned();
        return Err(vec![FieldProblem { field: String::new(), problem }]);
    };
    let mut fields = Fields::of_object(sent);
    let job = plain(api, &mut fields);
    let problems = fields.problems();
    if problems.is_empty() {
        return Ok(job);
    }
    let behind_dot = |p: FieldProblem| FieldProblem { field: format!(".{}", p.field), ..p };
    Err(problems.into_iter().map(behind_dot).collect())
}

/// A job by its fields.
pub(super) fn plain(api: &Api, fields: &mut Fields) -> PlainJob {
    let kind = kind(fields, api.config());
    PlainJob { kind, args: args(fields), options: options(fields) }
}
