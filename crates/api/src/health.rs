//! Signs of life for supervisors and load balancers. The only answers without a token; they tell
//! nothing but yes or no.

use std::time::{Duration, Instant};

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::Api;
use crate::error::Problem;

/// Within this time, probes share one ping: they must not be a way to load the database.
const CACHED: Duration = Duration::from_secs(1);
/// Longest wait for the ping. Probes give up after some seconds themselves.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// The last ping: when, and whether it was answered.
#[derive(Debug, Default)]
pub(crate) struct Readiness(Mutex<Option<(Instant, bool)>>);

/// The routes.
pub(crate) fn routes() -> Router<Api> {
    Router::new().route("/livez", get(livez)).route("/readyz", get(readyz))
}

/// The process runs.
async fn livez() -> Json<Value> {
    Json(json!({ "status": "alive" }))
}

/// The process can serve: the database answers.
async fn readyz(State(api): State<Api>) -> Result<Json<Value>, Problem> {
    // Held during the ping, so that probes that come together wait for the same one.
    let mut last = api.0.readiness.0.lock().await;
    let cached = last.filter(|(at, _)| at.elapsed() < CACHED);
    let answered = if let Some((_, answered)) = cached {
        answered
    } else {
        let answered = ping(&api).await;
        *last = Some((Instant::now(), answered));
        answered
    };
    if answered { Ok(Json(json!({ "status": "ready" }))) } else { Err(Problem::unavailable()) }
}

/// Whether the database answers.
async fn ping(api: &Api) -> bool {
    match tokio::time::timeout(PING_TIMEOUT, api.store().ping()).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::warn!(error = %error, error.chain = crate::error::chain(&error), "not ready");
            false
        }
        Err(_) => {
            tracing::warn!(timeout_s = PING_TIMEOUT.as_secs(), "not ready: the database is slow");
            false
        }
    }
}
