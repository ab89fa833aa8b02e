//! Plain jobs of other services, put straight into the jobs table. The log hears of their outcome.
//!
//! Kind and options are checked at the door, so that no worker meets a job it cannot run.

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use domain::ids::Subject;
use serde::Serialize;
use serde_json::Value;
use store::EnqueueOptions;
use uuid::Uuid;

use crate::Api;
use crate::auth::needs;
use crate::config::Config;
use crate::error::Problem;
use crate::extract::{Body, IdempotencyKey};
use crate::fields::Fields;
use crate::token::Scope;

pub(crate) mod batch;

/// Most failures that a caller may grant: with the longest waits between them, some weeks.
const MAX_ATTEMPTS: i64 = 100;

/// The routes.
pub(crate) fn routes() -> Router<Api> {
    Router::new().route("/v1/jobs", needs(Scope::JobsWrite, post(enqueue)))
}

/// A job that was enqueued.
#[derive(Debug, Serialize)]
struct Enqueued {
    /// Its id; that of the live job with the same key, if there was one.
    id: Uuid,
}

async fn enqueue(
    State(api): State<Api>,
    IdempotencyKey(header): IdempotencyKey,
    Body(mut fields): Body,
) -> Result<(StatusCode, Json<Enqueued>), Problem> {
    let kind = kind(&mut fields, api.config());
    let args = args(&mut fields);
    let mut options = options(&mut fields);
    if header.is_some() && options.key.is_some() && header != options.key {
        fields.wrong("key", "is not the Idempotency-Key: send one of them");
    }
    options.key = header.or(options.key);
    fields.finish()?;
    let id = api.store().enqueue(&kind, &args, &options).await.map_err(refused)?;
    let subject = subject(&kind, id, options);
    api.0.notifier.enqueued(api.store().slice_of(&subject));
    Ok((StatusCode::CREATED, Json(Enqueued { id })))
}

/// The kind, one of those the workers run.
pub(crate) fn kind(fields: &mut Fields, config: &Config) -> String {
    let kind = fields.required_text("kind", 63);
    if !kind.is_empty() && !config.known_kinds.contains(&kind) {
        let known = match config.known_kinds.as_slice() {
            [] => "this installation runs no plain jobs".to_owned(),
            kinds => format!("known: {}", kinds.join(", ")),
        };
        fields.wrong("kind", format!("is not known; {known}"));
    }
    kind
}

/// The arguments, an object.
pub(crate) fn args(fields: &mut Fields) -> Value {
    let args = fields.json("args").unwrap_or_else(|| Value::Object(serde_json::Map::new()));
    if !args.is_object() {
        fields.wrong("args", "must be a JSON object");
    }
    args
}

/// The rest.
fn options(fields: &mut Fields) -> EnqueueOptions {
    EnqueueOptions {
        subject: fields.text("subject", 255),
        run_at: fields.time("run_at"),
        key: fields.text("key", 255),
        priority: fields.integer("priority", 1..=4).and_then(|n| n.try_into().ok()),
        max_attempts: fields
            .integer("max_attempts", 1..=MAX_ATTEMPTS)
            .and_then(|n| n.try_into().ok()),
    }
}

/// Whose workers to wake: the subject that the database gives a job. A hint only; a wrong one
/// costs the time until the next look.
fn subject(kind: &str, id: Uuid, options: EnqueueOptions) -> Subject {
    match (options.subject, options.key) {
        (Some(subject), _) => Subject::from_stored(subject),
        (None, Some(key)) => Subject::from_stored(format!("job/{kind}/{key}")),
        (None, None) => Subject::job(id),
    }
}

/// What the database itself refuses is the caller's to change; its words stay in the log.
fn refused(error: store::Error) -> Problem {
    if let store::Error::Invalid { reason } = &error {
        tracing::warn!(reason, "job refused by the database");
        return Problem::invalid_field(
            "job",
            "was refused by the database: check args and options",
        );
    }
    error.into()
}
