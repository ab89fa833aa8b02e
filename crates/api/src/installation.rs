//! Which installation answers, and which incarnation of its log: what a service compares before it
//! trusts anything that it keeps of an earlier answer.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use uuid::Uuid;

use crate::Api;
use crate::auth::needs;
use crate::token::Scope;

/// The routes.
pub(crate) fn routes() -> Router<Api> {
    Router::new().route("/v1/installation", needs(Scope::SessionsRead, get(show)))
}

/// The installation, for callers.
#[derive(Debug, Serialize)]
struct Installation {
    id: Uuid,
    /// Changes when the log was restored from a backup: what it held after that is gone.
    incarnation: Uuid,
    slices: i16,
}

/// Tells which it is.
async fn show(State(api): State<Api>) -> Json<Installation> {
    let store = api.store();
    Json(Installation {
        id: store.installation(),
        incarnation: api.incarnation(),
        slices: store.slices().get(),
    })
}
