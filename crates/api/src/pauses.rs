//! Pauses of queues, kinds and keys. They are heeded by the workers within their poll; what runs
//! goes on.

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use domain::ids::Timestamp;
use serde::Serialize;
use store::{Pause, PauseScope};

use crate::Api;
use crate::auth::{Caller, needs};
use crate::error::Problem;
use crate::extract::Body;
use crate::fields::Fields;
use crate::token::Scope;

/// The routes.
pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/jobs:pause", needs(Scope::Admin, post(pause)))
        .route("/v1/jobs:resume", needs(Scope::Admin, post(resume)))
        .route("/v1/jobs:paused", needs(Scope::Admin, get(paused)))
}

/// Whether something changed.
#[derive(Debug, Serialize)]
struct Changed {
    /// False: it was so already.
    changed: bool,
}

/// What is paused.
#[derive(Debug, Serialize)]
struct Item {
    scope: &'static str,
    name: String,
    paused_at: Timestamp,
    paused_by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// All that is paused.
#[derive(Debug, Serialize)]
struct List {
    items: Vec<Item>,
}

async fn pause(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Body(mut fields): Body,
) -> Result<Json<Changed>, Problem> {
    let reason = fields.text("reason", 255);
    let (scope, name) = what(fields)?;
    let by = caller.name();
    let changed = api.store().pause(scope, &name, by, reason.as_deref()).await.map_err(refused)?;
    Ok(Json(Changed { changed }))
}

async fn resume(State(api): State<Api>, Body(fields): Body) -> Result<Json<Changed>, Problem> {
    let (scope, name) = what(fields)?;
    let changed = api.store().resume(scope, &name).await?;
    Ok(Json(Changed { changed }))
}

async fn paused(State(api): State<Api>) -> Result<Json<List>, Problem> {
    let told = |pause: Pause| Item {
        scope: pause.scope.name(),
        name: pause.name,
        paused_at: pause.paused_at,
        paused_by: pause.paused_by,
        reason: pause.reason,
    };
    Ok(Json(List { items: api.store().paused().await?.into_iter().map(told).collect() }))
}

/// What is meant: one queue, one kind or one key.
fn what(mut fields: Fields) -> Result<(PauseScope, String), Problem> {
    let given = [
        (PauseScope::Queue, fields.text("queue", 63)),
        (PauseScope::Kind, fields.text("kind", 63)),
        (PauseScope::Key, fields.text("key", 1024)),
    ];
    let mut given = given.into_iter().filter_map(|(scope, name)| Some((scope, name?)));
    let (one, another) = (given.next(), given.next());
    fields.finish()?;
    if let (Some(one), None) = (one, another) {
        return Ok(one);
    }
    Err(Problem::invalid_field("queue", "or kind, or key is needed: one of the three"))
}

/// What cannot be paused is the caller's to change.
fn refused(error: store::Error) -> Problem {
    if let store::Error::Invalid { reason } = error {
        return Problem::invalid_field("kind", reason);
    }
    error.into()
}
