//! Webhooks in: authenticate, redact, route, append, answer after commit.
//!
//! The platform sends a webhook once, unsigned and without an id. So everything authenticated
//! within the size limit is stored, whatever it is, and *acknowledged* (answered 200) means
//! committed, or in the spool. A *source* is known by the secret in its path, kept here as a digest.
//!
//! | module | does |
//! |---|---|
//! | [`config`](Config) | settings and their check |
//! | [`address`](Cidr) | networks, and who really called |
//! | `source` | finds the source by its secret path in constant time |
//! | `webhook` | takes a request from the path to the answer |
//! | `batch` | takes many events of one request, one a line |
//! | `event` | makes the event of a body, and of a body that the database refused |
//! | `repeat` | marks an identical body that follows at once |
//! | [`lanes`] | batches per slice, repeated until their outcome is known |
//! | [`spool`](Spool) | batches on the local disk while the database is away |
//! | `health` | `/livez`, `/readyz` |
//! | [`metrics`](Metrics) | what happened, as numbers |
//!
//! Not its job: to read meaning into a body, to call the platform, to accept connections.

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use store::Store;
use tokio_util::sync::CancellationToken;

mod address;
mod batch;
mod config;
mod error;
mod event;
mod health;
pub mod lanes;
mod metrics;
mod problem;
mod repeat;
mod source;
pub mod spool;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod webhook;

pub use address::Cidr;
pub use config::{BatchToken, Config, PathToken, SourceTokens};
pub use error::{Error, Rejected};
pub use lanes::Lanes;
pub use metrics::Metrics;
pub use spool::{Known, Spool, SpoolDir};

use health::Health;
use repeat::Repeats;
use source::Sources;

/// One ingest endpoint. Clones share everything.
#[derive(Debug, Clone)]
pub struct Ingest {
    inner: Arc<Inner>,
}

/// What all requests share.
#[derive(Debug)]
struct Inner {
    config: Config,
    sources: Sources,
    lanes: Lanes,
    repeats: Repeats,
    health: Health,
}

impl Ingest {
    /// Prepares an endpoint that appends through `lanes`. From the moment `draining` is cancelled
    /// `/readyz` says no; webhooks are taken until the lanes are drained.
    ///
    /// # Errors
    /// What [`Config::check`] finds.
    pub fn new(
        config: Config,
        store: Store,
        lanes: Lanes,
        draining: CancellationToken,
    ) -> Result<Self, Error> {
        config.check()?;
        let sources = Sources::new(&config.sources, lanes.metrics());
        let health = Health::new(store, draining, config.max_queue_age);
        let repeats = Repeats::default();
        Ok(Self { inner: Arc::new(Inner { config, sources, lanes, repeats, health }) })
    }
}

/// The routes: `POST /webhooks/{source}/{token}`, `POST /v1/events:batch`, `GET /livez`,
/// `GET /readyz`. Whoever serves them
/// puts `ConnectInfo<SocketAddr>` into the extensions of each request, else the caller's address is
/// unknown and no allow list admits it.
pub fn router(ingest: Ingest) -> Router {
    Router::new()
        .route("/webhooks/{source}/{token}", post(webhook::receive))
        .route("/v1/events:batch", post(batch::receive))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .with_state(ingest)
}
