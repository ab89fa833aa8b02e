//! Probes. `/livez` speaks of the process only; `/readyz` of whether webhooks are kept here, be it
//! in the database or, while that is away, in the spool.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use store::Store;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::Ingest;
use crate::problem::Problem;

/// How long an answer of the database holds: probes come from many sides.
const FRESH: Duration = Duration::from_secs(1);

/// Longest wait for that answer; most probes give up after a second or two.
const PING: Duration = Duration::from_secs(1);

/// What readiness depends on.
#[derive(Debug)]
pub(crate) struct Health {
    store: Store,
    draining: CancellationToken,
    max_queue_age: Duration,
    /// When the database was asked last, and whether it answered. The lock is held while asking,
    /// so that probes that come together ask once.
    asked: Mutex<Option<(Instant, bool)>>,
}

impl Health {
    /// Nothing asked yet.
    pub(crate) fn new(store: Store, draining: CancellationToken, max_queue_age: Duration) -> Self {
        Self { store, draining, max_queue_age, asked: Mutex::new(None) }
    }

    /// Whether the database answers.
    async fn database_answers(&self) -> bool {
        let mut asked = self.asked.lock().await;
        if let Some((at, answered)) = *asked
            && at.elapsed() < FRESH
        {
            return answered;
        }
        // In a task of its own, which goes on: a connection that takes longer is there next time.
        let store = self.store.clone();
        let ping = tokio::spawn(async move { store.ping().await });
        let answered = matches!(timeout(PING, ping).await, Ok(Ok(Ok(()))));
        *asked = Some((Instant::now(), answered));
        answered
    }
}

/// The process runs.
pub(crate) async fn livez() -> Json<Value> {
    Json(json!({ "status": "alive" }))
}

/// Webhooks sent here are kept. Without the database too: a balancer that took ingest out then would
/// lose them.
pub(crate) async fn readyz(State(ingest): State<Ingest>) -> Result<Json<Value>, Problem> {
    let health = &ingest.inner.health;
    if health.draining.is_cancelled() {
        return Err(Problem::not_ready("draining"));
    }
    if ingest.inner.lanes.oldest() > health.max_queue_age {
        return Err(Problem::not_ready("events wait too long for their commit"));
    }
    let answers = health.database_answers().await;
    let lanes = &ingest.inner.lanes;
    if lanes.is_spool_failing() && (!answers || lanes.is_spooling()) {
        return Err(Problem::not_ready("the spool is full or its disk fails"));
    }
    let spooling = !answers || lanes.is_spooling();
    Ok(Json(json!({ "status": "ready", "spooling": spooling })))
}
