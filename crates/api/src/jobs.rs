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
use store::{EnqueueOptions, KeyStates, OnConflict, WaitFor};
use uuid::Uuid;

use crate::Api;
use crate::auth::needs;
use crate::config::Config;
use crate::error::Problem;
use crate::extract::{IdempotencyKey, JobBody, Traceparent, allow_job};
use crate::fields::Fields;
use crate::token::Scope;

pub(crate) mod batch;
pub(crate) mod parent;
mod verbs;

/// Most failures that a caller may grant: with the longest waits between them, some weeks.
const MAX_ATTEMPTS: i64 = 100;

/// The routes, for an API with this limit of other bodies.
pub(crate) fn routes(body_limit: usize) -> Router<Api> {
    let enqueue = needs(Scope::JobsWrite, post(enqueue).layer(allow_job(body_limit)));
    Router::new().route("/v1/jobs", enqueue.merge(verbs::list_route())).merge(verbs::routes())
}

/// A job that was enqueued.
#[derive(Debug, Serialize)]
struct Enqueued {
    /// Its id; that of the job with the same key, if there was one; none where it was ignored.
    id: Option<Uuid>,
    /// Whether it was added now.
    is_new: bool,
}

async fn enqueue(
    State(api): State<Api>,
    IdempotencyKey(header): IdempotencyKey,
    trace: Traceparent,
    JobBody(mut fields): JobBody,
) -> Result<(StatusCode, Json<Enqueued>), Problem> {
    let kind = kind(&mut fields, api.config());
    let args = args(&mut fields);
    let mut options = options(&mut fields);
    if header.is_some() && options.key.is_some() && header != options.key {
        fields.wrong("key", "is not the Idempotency-Key: send one of them");
    }
    options.key = header.or(options.key);
    let trace = trace.or_of(&mut fields);
    fields.finish()?;
    let enqueued = api.store().enqueue_job(&kind, &args, &options, trace.as_deref()).await;
    let enqueued = enqueued.map_err(|error| refused("job", error))?;
    if let Some(id) = enqueued.id {
        let subject = subject(&kind, id, options);
        api.0.notifier.enqueued(api.store().slice_of(&subject));
    }
    let enqueued = Enqueued { id: enqueued.id, is_new: enqueued.is_new };
    Ok((StatusCode::CREATED, Json(enqueued)))
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
        queue: fields.text("queue", 63),
        limit_key: fields.text("limit_key", 255),
        limit: fields.integer("limit", 1..=1_000).and_then(|n| n.try_into().ok()),
        limit_waiting: fields.integer("limit_waiting", 1..=10_000).and_then(|n| n.try_into().ok()),
        ordered: fields.flag("ordered", false).then_some(true),
        fair_key: fields.text("fair_key", 255),
        on_conflict: choice(fields, "on_conflict", &ON_CONFLICT),
        key_states: choice(fields, "key_states", &KEY_STATES),
        key_period: fields.integer("key_period", 1..=99_999_999).and_then(|n| n.try_into().ok()),
        wait_for: wait_for(fields),
    }
}

/// An event to wait for. What is in it, the database checks in words of its own.
fn wait_for(fields: &mut Fields) -> Option<WaitFor> {
    let wait_for = serde_json::from_value(fields.json("wait_for")?).ok();
    if wait_for.is_none() {
        let shape = "must be {\"subject\", \"types\", \"timeout\"}, the last in seconds";
        fields.wrong("wait_for", shape);
    }
    wait_for
}

/// What a key that is taken may come to.
const ON_CONFLICT: [(&str, OnConflict); 4] = [
    ("existing", OnConflict::Existing),
    ("ignore", OnConflict::Ignore),
    ("replace", OnConflict::Replace),
    ("debounce", OnConflict::Debounce),
];

/// How long a job may have its key.
const KEY_STATES: [(&str, KeyStates); 2] =
    [("live", KeyStates::Live), ("until_started", KeyStates::UntilStarted)];

/// One of some words.
fn choice<T: Copy>(fields: &mut Fields, name: &'static str, of: &[(&str, T)]) -> Option<T> {
    let word = fields.text(name, 63)?;
    let found = of.iter().find(|(known, _)| *known == word).map(|(_, value)| *value);
    if found.is_none() {
        let words: Vec<&str> = of.iter().map(|(known, _)| *known).collect();
        fields.wrong(name, format!("must be one of {}", words.join(", ")));
    }
    found
}

/// Whose workers to wake: the key by which the database places a job. A hint only; a wrong one
/// costs the time until the next look.
fn subject(kind: &str, id: Uuid, options: EnqueueOptions) -> Subject {
    match (options.limit_key.or(options.subject), options.key) {
        (Some(subject), _) => Subject::from_stored(subject),
        (None, Some(key)) => Subject::from_stored(format!("job/{kind}/{key}")),
        (None, None) => Subject::job(id),
    }
}

/// What the database itself refuses is the caller's to change: in its words, which say how, and of
/// many jobs name the one by its number.
fn refused(field: &str, error: store::Error) -> Problem {
    if let store::Error::TooMany { reason } = &error {
        return Problem::too_many(reason);
    }
    if let store::Error::Invalid { reason } = error {
        return Problem::invalid_field(field, format!("was refused: {reason}"));
    }
    error.into()
}
