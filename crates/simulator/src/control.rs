//! The control surface: drive encoders, set faults and switches, read logs and state.
//!
//! | method and path | does |
//! |---|---|
//! | `POST /_control/streams/{id}/{push,return,drop,stop}[?line=backup]` | encoder; 409 if refused |
//! | `GET /_control/requests`, `/_control/webhooks`, `/_control/state` | logs and state, no secrets |
//! | `GET`, `PUT`, `DELETE /_control/faults` | [`Faults`] as JSON |
//! | `GET`, `PUT /_control/behaviour` | [`Behaviour`] as JSON; what is left out is the default |
//! | `PUT /_control/webhook-url` | `{"url": ..}`: where webhooks go from now on |
//! | `GET`, `PUT`, `DELETE /_control/encoders` | [`Encoders`] that come by themselves, and how far each is |
//! | `POST /_control/mishaps/{name}[?stream=ID]` | a [`Mishap`] now; 409 if there is nothing to strike |
//! | `GET /_truth[?after=ID][&limit=N]` | what really happened, a JSON document a line |
//!
//! Loopback callers only; `http` sees to that.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Json, Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::redact::redacted;
use crate::shared::Shared;
use crate::world::{Action, Line, World};
use crate::{Behaviour, ControlError, Encoders, Faults, Mishap, RequestLogEntry};

/// Returns the control surface of one simulator.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/_control/streams/{id}/{action}", post(encoder))
        .route("/_control/requests", get(requests))
        .route("/_control/webhooks", get(webhooks))
        .route("/_control/state", get(state))
        .route("/_control/faults", get(faults).put(put_faults).delete(delete_faults))
        .route("/_control/behaviour", get(behaviour).put(put_behaviour))
        .route("/_control/webhook-url", put(put_webhook_url))
        .route("/_control/encoders", get(encoders).put(put_encoders).delete(delete_encoders))
        .route("/_control/mishaps/{name}", post(mishap))
        .route("/_truth", get(truth))
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
            | ControlError::Down(_)
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
    shared.set_faults(faults);
    StatusCode::NO_CONTENT
}

/// Ends all faults.
async fn delete_faults(State(shared): State<Arc<Shared>>) -> StatusCode {
    shared.set_faults(Faults::default());
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

/// Where webhooks go.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WebhookUrl {
    /// `null`: nowhere.
    url: Option<String>,
}

/// Changes where webhooks go.
async fn put_webhook_url(
    State(shared): State<Arc<Shared>>,
    Json(WebhookUrl { url }): Json<WebhookUrl>,
) -> StatusCode {
    shared.deliveries.set_url(url);
    StatusCode::NO_CONTENT
}

/// Encoders that come by themselves, and where each is in its plan.
async fn encoders(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let told = |world: &mut World, now| {
        world.advance(now);
        json!({"plans": world.encoders(), "states": world.encoder_states()})
    };
    Json(shared.with_world(told).0)
}

/// Changes how plans are made.
async fn put_encoders(
    State(shared): State<Arc<Shared>>,
    Json(encoders): Json<Encoders>,
) -> StatusCode {
    shared.with_world(|world, _| world.set_encoders(Some(encoders)));
    StatusCode::NO_CONTENT
}

/// Lets no encoder come by itself any more.
async fn delete_encoders(State(shared): State<Arc<Shared>>) -> StatusCode {
    shared.with_world(|world, _| world.set_encoders(None));
    StatusCode::NO_CONTENT
}

/// Whom a mishap is to strike.
#[derive(Deserialize)]
struct Target {
    stream: Option<i64>,
}

/// Lets a mishap strike.
async fn mishap(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    Query(Target { stream }): Query<Target>,
) -> Response {
    let Some(mishap) = Mishap::ALL.into_iter().find(|mishap| mishap.to_string() == name) else {
        let names = Mishap::ALL.map(|mishap| mishap.to_string()).join(", ");
        return refusal(StatusCode::NOT_FOUND, &format!("mishaps are {names}"));
    };
    if shared.with_world(|world, now| world.mishap(now, mishap, stream)).0 {
        StatusCode::NO_CONTENT.into_response()
    } else {
        refusal(StatusCode::CONFLICT, "there is nothing that it could happen to")
    }
}

/// Which part of the truth is meant.
#[derive(Deserialize)]
struct Part {
    /// Only live streams with ids above this one.
    #[serde(default)]
    after: i64,
    /// Most live streams.
    limit: Option<usize>,
}

/// Returns the lines of the truth; those of the run count the requests that faults met as well.
pub(crate) fn truth_of(shared: &Shared, after: i64, limit: usize) -> Vec<Value> {
    let (mut lines, _) = shared.with_world(|world, now| world.truth(now, after, limit));
    if let Some(run) = lines.first_mut() {
        run["requests"] = shared.requests.count().into();
    }
    lines
}

/// What really happened.
async fn truth(
    State(shared): State<Arc<Shared>>,
    Query(Part { after, limit }): Query<Part>,
) -> Response {
    let limit = limit.unwrap_or(usize::MAX);
    let mut text = String::new();
    for line in truth_of(&shared, after, limit) {
        let _ = writeln!(text, "{line}");
    }
    ([(CONTENT_TYPE, "application/x-ndjson")], text).into_response()
}
