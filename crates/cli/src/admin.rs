//! The admin listener: numbers for Prometheus and signs of life, of whatever role the process has.
//!
//! It asks for no token, tells nothing of sessions, and listens only where the configuration says.
//! A scrape reads memory and never the database.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use serde_json::json;
use store::Store;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::roles::{Server, bind};
use crate::serve::{self, Limits};

/// Longest wait for one check; whoever probes gives up after some seconds.
const CHECK: Duration = Duration::from_secs(2);

/// The text format that Prometheus reads, with the units and types that it knows.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The answer of a check: nothing, or what is wrong and where.
type Answer = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// What the roles of a process tell of themselves.
pub(crate) struct Admin {
    registry: Registry,
    checks: BTreeMap<&'static str, Box<dyn Fn() -> Answer + Send + Sync>>,
    notes: BTreeMap<&'static str, Box<dyn Fn() -> Vec<String> + Send + Sync>>,
}

impl Admin {
    /// Knows the build, and nothing else yet.
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("tallylight");
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "What runs here", build);
        Self { registry, checks: BTreeMap::new(), notes: BTreeMap::new() }
    }

    /// Where a role puts its numbers.
    pub(crate) fn registry(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// Adds a condition of being ready. It must answer from memory or within a second or two.
    pub(crate) fn check<F, A>(&mut self, name: &'static str, check: F)
    where
        F: Fn() -> A + Send + Sync + 'static,
        A: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.checks.insert(name, Box::new(move || Box::pin(check())));
    }

    /// Adds what a person should see to, told beside the conditions: the process is ready with it.
    pub(crate) fn notes<F>(&mut self, name: &'static str, notes: F)
    where
        F: Fn() -> Vec<String> + Send + Sync + 'static,
    {
        self.notes.insert(name, Box::new(notes));
    }

    /// Adds that the database answers.
    pub(crate) fn check_database(&mut self, store: &Store) {
        let store = store.clone();
        self.check("database", move || {
            let store = store.clone();
            async move { store.ping().await.map_err(|error| error.to_string()) }
        });
    }

    /// Serves until `stop`, if the configuration names an address.
    ///
    /// # Errors
    /// Where the address cannot be bound, or others could reach it and nobody said that they may.
    pub(crate) async fn start(
        self,
        config: &Config,
        stop: CancellationToken,
    ) -> Result<Option<Server>> {
        let Some(address) = config.admin.listen else { return Ok(None) };
        if !address.ip().is_loopback() && !config.admin.allow_remote {
            bail!(
                "listen on {address}: other machines could reach it, and the numbers ask for no \
                 token. Choose a loopback address as admin.listen, or set admin.allow_remote where \
                 only the operator's machines are near"
            );
        }
        let listener = bind(address, "admin.listen").await?;
        let server = Server::spawn(listener, |listener| {
            serve::serve(listener, router(self), Limits::default(), stop)
        })?;
        tracing::info!(admin = %server.address, "telling numbers at /metrics");
        Ok(Some(server))
    }
}

/// Waits until the listener, if there is one, has stopped.
pub(crate) async fn stopped(server: Option<Server>) {
    if let Some(server) = server {
        server.stopped().await;
    }
}

fn router(admin: Admin) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .with_state(Arc::new(admin))
}

/// All numbers.
async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    let mut text = String::new();
    match encode(&mut text, &admin.registry) {
        Ok(()) => ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        // A number that cannot be written is a fault of ours; the others must not go with it
        // unnoticed.
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// The process runs.
async fn livez() -> Response {
    Json(json!({ "status": "alive" })).into_response()
}

/// Every check, by name; 503 where one fails.
async fn readyz(State(admin): State<Arc<Admin>>) -> Response {
    let mut told = BTreeMap::new();
    for (name, check) in &admin.checks {
        let answer = tokio::time::timeout(CHECK, check()).await;
        told.insert(*name, answer.unwrap_or_else(|_| Err("no answer in time".to_owned())));
    }
    let failed = told.values().any(Result::is_err);
    let (code, status) = if failed {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready")
    } else {
        (StatusCode::OK, "ready")
    };
    let told: BTreeMap<_, _> = told
        .into_iter()
        .map(|(name, answer)| (name, answer.err().unwrap_or("ok".to_owned())))
        .collect();
    let notes: Vec<String> = admin.notes.values().flat_map(|notes| notes()).collect();
    (code, Json(json!({ "status": status, "checks": told, "notes": notes }))).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt as _;
    use prometheus_client::metrics::counter::Counter;
    use tower::ServiceExt as _;

    use super::*;
    use crate::config;

    async fn get(admin: Admin, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router(admin).oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_roles_numbers_are_told_under_our_name() {
        let mut admin = Admin::new();
        let counter: Counter = Counter::default();
        counter.inc_by(3);
        admin.registry().register("events_appended", "Events appended", counter);
        let (status, text) = get(admin, "/metrics").await;
        assert_eq!(status, StatusCode::OK);
        assert!(text.contains("tallylight_events_appended_total 3\n"), "{text}");
        assert!(text.contains(concat!("version=\"", env!("CARGO_PKG_VERSION"), "\"")), "{text}");
    }

    #[tokio::test]
    async fn one_failing_check_makes_the_process_not_ready_and_is_named() {
        let mut admin = Admin::new();
        admin.check("well", || async { Ok(()) });
        admin.check("slice", || async { Err("slice 3 stands still".to_owned()) });
        let (status, text) = get(admin, "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(
            text.contains("slice 3 stands still") && text.contains("\"well\":\"ok\""),
            "{text}"
        );
    }

    #[tokio::test]
    async fn a_note_is_told_and_leaves_the_process_ready() {
        let mut admin = Admin::new();
        admin.notes("slices", || vec!["3 rows of slice 3 differ".to_owned()]);
        let (status, text) = get(admin, "/readyz").await;
        assert_eq!(status, StatusCode::OK);
        assert!(text.contains("3 rows of slice 3 differ"), "{text}");
    }

    #[tokio::test]
    async fn others_are_served_only_where_that_was_said() {
        let config = Config::default();
        let on = |address: &str, allow_remote| {
            let admin = config::Admin { listen: Some(address.parse().unwrap()), allow_remote };
            Config { admin, ..config.clone() }
        };
        let stop = CancellationToken::new();
        stop.cancel();
        let started = async |config: &Config| Admin::new().start(config, stop.clone()).await;
        assert!(started(&config).await.unwrap().is_none());
        assert!(started(&on("127.0.0.1:0", false)).await.unwrap().is_some());
        assert!(started(&on("0.0.0.0:0", true)).await.unwrap().is_some());
        let refused = started(&on("0.0.0.0:0", false)).await.err().unwrap();
        assert!(refused.to_string().contains("admin.allow_remote"), "{refused}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_that_hangs_fails() {
        let mut admin = Admin::new();
        admin.check("database", std::future::pending);
        let (status, text) = get(admin, "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(text.contains("no answer in time"), "{text}");
    }
}
