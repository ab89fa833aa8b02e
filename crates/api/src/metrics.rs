//! How requests were answered, as numbers for the operator. Who serves them is another matter.

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::Api;

/// Bounds of the histogram of answers, in seconds: a read takes about 1 ms, an append waits for a
/// commit, and above 5 s the database's own limits end it.
const SECONDS: [f64; 9] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0, 5.0];

/// What tells answers apart. The route's pattern, never the path: it would hold ids.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answer {
    method: &'static str,
    route: String,
    status: u32,
}

/// Answers since the start of the process. Clones share them.
#[derive(Debug, Clone)]
pub struct Metrics {
    answers: Family<Answer, Counter>,
    seconds: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { answers: Family::default(), seconds: Histogram::new(SECONDS) }
    }
}

impl Metrics {
    /// Puts the numbers under `registry`.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Requests answered, by method, route and status";
        registry.register("api_answers", help, self.answers.clone());
        let help = "Time from a request's head to its answer";
        registry.register_with_unit("api_answer", help, Unit::Seconds, self.seconds.clone());
    }

    /// How many requests were answered with `status`, whatever their route.
    #[cfg(test)]
    pub(crate) fn answered(&self, method: &'static str, route: &str, status: u32) -> u64 {
        let answer = Answer { method, route: route.to_owned(), status };
        self.answers.get(&answer).map_or(0, |counter| counter.get())
    }
}

/// Counts an answer and its time.
pub(crate) async fn count(State(api): State<Api>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = known(request.method());
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    let response = next.run(request).await;
    let metrics = api.metrics();
    metrics.seconds.observe(started.elapsed().as_secs_f64());
    let status = u32::from(response.status().as_u16());
    metrics.answers.get_or_create(&Answer { method, route, status }).inc();
    response
}

/// A method's name; a caller's own inventions share one, lest they fill the memory.
fn known(method: &Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    KNOWN.into_iter().find(|name| *name == method.as_str()).unwrap_or("other")
}
