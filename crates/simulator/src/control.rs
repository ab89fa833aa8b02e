//! The control surface: drive encoders, set faults and switches, read logs and state.
//!
//! | method and path | does |
//! |---|---|
//! | `POST /_control/streams/{id}/{push,return,drop,stop}[?line=backup]` | encoder; 409 if refused |
//! | `GET /_control/requests`, `/_control/webhooks`, `/_control/state` | logs and state, no secrets |
//! | `GET`, `PUT`, `DELETE /_control/faults` | [`Faults`] as JSON |
//! | `GET`, `PUT /_control/behaviour` | [`Behaviour`] as JSON; what is left out is the default |
//!
//! Loopback callers only; `http` sees to that.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Json, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::redact::redacted;
use crate::shared::Shared;
use crate::world::{Action, Line, World};
use crate::{Behaviour, ControlError, Faults, RequestLogEntry};

/// Returns the control surface of one simulator.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/_control/streams/{id}/{action}", post(encoder))
        .route("/_control/requests", get(requests))
        .route("/_control/webhooks", get(webhooks))
        .route("/_control/state", get(state))
        .route("/_control/faults", get(faults).put(put_faults).delete(delete_faults))
        .route("/_control/behaviour", get(behaviour).put(put_behaviour))
        .with_state(shared)
}

/// Which line of the stream is meant.
#[derive(Deserialize)]
struct LineQuery {
    #[serde(default)]
    line: Line,
}

/// The encoder's actions by the words of the path.
fn action(word: &str) -> Option<Action> {
    match word {
        "push" | "return" => Some(Action::Push),
        "drop" => Some(Action::Drop),
        "stop" => Some(Action::Stop),
        _ => None,
    }
}

/// Does an encoder's action.
async fn encoder(
    State(shared): State<Arc<Shared>>,
    Path((id, word)): Path<(i64, String)>,
    Query(LineQuery { line }): Query<LineQuery>,
) -> Response {
    let Some(action) = action(&word) else {
        return refusal(StatusCode::NOT_FOUND, "actions are push, return, drop and stop");
    };
    let (outcome, _) = shared.with_world(|world, now| world.encoder(now, id, line, action));
    match outcome {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error @ ControlError::UnknownStream(_)) => {
            refusal(StatusCode::NOT_FOUND, &error.to_string())
        }
        Err(
            error @ (ControlError::Inactive(_)
            | ControlError::Busy(_)
            | ControlError::NotConnected(_)),
        ) => refusal(StatusCode::CONFLICT, &error.to_string()),
    }
}

/// Writes a refusal.
fn refusal(status: StatusCode, text: &str) -> Response {
    (status, Json(json!({"error": text}))).into_response()
}

/// The log of requests.
async fn requests(State(shared): State<Arc<Shared>>) -> Json<Vec<RequestLogEntry>> {
    Json(shared.requests.all())
}

/// The log of webhooks.
async fn webhooks(State(shared): State<Arc<Shared>>) -> Json<Vec<Value>> {
    let entries = shared.deliveries.log.all();
    Json(entries.iter().map(|entry| redacted(&json!(entry))).collect())
}

/// The state of the world, and how many webhooks wait for their turn.
async fn state(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(current_state(&shared))
}

/// Returns the state without secrets.
pub(crate) fn current_state(shared: &Shared) -> Value {
    let (state, _) = shared.with_world(World::state);
    let mut state = redacted(&state);
    state["webhooks_waiting"] = shared.deliveries.waiting().into();
    state
}

/// The faults in force.
async fn faults(State(shared): State<Arc<Shared>>) -> Json<Faults> {
    Json(shared.faults.current())
}

/// Replaces all faults.
async fn put_faults(State(shared): State<Arc<Shared>>, Json(faults): Json<Faults>) -> StatusCode {
    shared.faults.set(faults);
    StatusCode::NO_CONTENT
}

/// Ends all faults.
async fn delete_faults(State(shared): State<Arc<Shared>>) -> StatusCode {
    shared.faults.set(Faults::default());
    StatusCode::NO_CONTENT
}

/// The switches in force.
async fn behaviour(State(shared): State<Arc<Shared>>) -> Json<Behaviour> {
    Json(shared.with_world(|world, _| world.behaviour().clone()).0)
}

/// Replaces all switches.
async fn put_behaviour(
    State(shared): State<Arc<Shared>>,
    Json(behaviour): Json<Behaviour>,
) -> StatusCode {
    shared.with_world(|world, _| world.behave(behaviour));
    StatusCode::NO_CONTENT
}
