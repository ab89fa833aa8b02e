//! The API for backend services: commands go into the log, answers come from the projections.
//!
//! Every endpoint but `/livez` and `/readyz` wants a bearer token with the right *scope*, and is
//! refused before a byte of its body is read. A command is accepted once it is appended; what
//! follows from it is the worker's doing. Every failure is a problem document (RFC 9457).
//!
//! * [`router`]: the routes; listening and draining are the caller's job
//! * [`Config`], [`Token`], [`Scope`]: who may do what
//! * [`generate_token`], [`is_token`]: how tokens are made

use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use chrono::SubsecRound as _;
use domain::event::{Event, NewEvent};
use domain::ids::{Subject, Timestamp};
use serde_json::json;
use store::{AccountKey, Notifier, SealingKey, Store};
use uuid::Uuid;

mod accounts;
mod auth;
mod cleanup;
mod config;
mod cursor;
mod endpoints;
mod error;
mod extract;
mod feed;
mod fields;
mod health;
mod installation;
mod jobs;
mod live_streams;
mod metrics;
mod pauses;
mod schedules;
mod sessions;
mod token;

#[cfg(test)]
mod tests;

pub use config::Config;
pub use error::ConfigError;
pub use metrics::Metrics;
pub use token::{Scope, Token, UnknownScope, generate_token, is_token};

/// What the endpoints work with. Cheap to clone.
#[derive(Clone)]
pub struct Api(Arc<Parts>);

/// The parts of an [`Api`].
struct Parts {
    store: Store,
    notifier: Notifier,
    config: Config,
    clock: fn() -> Timestamp,
    readiness: health::Readiness,
    metrics: Metrics,
    hub: feed::Hub,
}

impl Api {
    /// The API over `store`; after each append `notifier` is told.
    ///
    /// # Errors
    /// [`ConfigError`] names the first setting that cannot be used.
    pub fn new(store: Store, notifier: Notifier, config: Config) -> Result<Self, ConfigError> {
        Self::with_clock(store, notifier, config, system_time)
    }

    /// As [`Api::new`], with another clock than the system's.
    ///
    /// # Errors
    /// As [`Api::new`].
    pub fn with_clock(
        store: Store,
        notifier: Notifier,
        config: Config,
        clock: fn() -> Timestamp,
    ) -> Result<Self, ConfigError> {
        config.check()?;
        let readiness = health::Readiness::default();
        let metrics = Metrics::default();
        let hub = feed::Hub::new(store.clone(), config.sealing_key.clone(), config.listeners);
        Ok(Self(Arc::new(Parts { store, notifier, config, clock, readiness, metrics, hub })))
    }

    /// What the endpoints counted.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Ends the streams of all who listen, so that the server can stop: they go on at another
    /// process.
    pub fn end_streams(&self) {
        self.hub().end();
    }

    /// Whom new announcements are told.
    fn hub(&self) -> &feed::Hub {
        &self.0.hub
    }

    fn store(&self) -> &Store {
        &self.0.store
    }

    fn config(&self) -> &Config {
        &self.0.config
    }

    /// What personal values are opened with, if this process has it.
    fn sealing_key(&self) -> Option<&SealingKey> {
        self.config().sealing_key.as_ref()
    }

    /// The key of an account, which gets one if it has none.
    async fn account_key(&self, account: &str) -> Result<AccountKey, error::Problem> {
        let sealing = self.sealing_key().ok_or_else(|| {
            error::Problem::not_set_up(
                "this installation has no sealing key, so it keeps nothing about accounts: it would \
                 lie in the open for ever",
            )
        })?;
        Ok(self.store().account_key(sealing, account).await?)
    }

    /// Which history the positions that are told belong to. The API starts with the database only,
    /// so it is known.
    fn incarnation(&self) -> Uuid {
        self.store().incarnation().unwrap_or_default()
    }

    /// Now, in the microseconds that the database keeps.
    fn now(&self) -> Timestamp {
        (self.0.clock)().trunc_subsecs(6)
    }

    /// Appends a command of `caller` and wakes the workers. With a key, a repeat stores nothing;
    /// returns whether it was stored now.
    async fn append(
        &self,
        caller: &auth::Caller,
        subject: Subject,
        event: &Event,
        key: Option<Uuid>,
    ) -> Result<bool, store::Error> {
        let slice = self.store().slice_of(&subject);
        let mut new = NewEvent::new(subject, event, self.now(), Uuid::now_v7());
        if let Some(key) = key {
            new = new.with_key(key);
        }
        new.meta = Some(json!({ "token": caller.name() }).into());
        let stored = self.store().append_one(new).await?;
        self.0.notifier.moved(slice);
        Ok(stored.is_some())
    }
}

/// The routes, ready to be served.
pub fn router(api: Api) -> Router {
    let guarded = Router::new()
        .merge(sessions::routes())
        .merge(accounts::routes())
        .merge(cleanup::routes())
        .merge(live_streams::routes())
        .merge(installation::routes())
        .merge(jobs::routes(api.config().body_limit))
        .merge(pauses::routes())
        .merge(jobs::batch::routes(api.config().body_limit))
        .merge(jobs::parent::routes(api.config().body_limit))
        .merge(schedules::routes())
        .merge(endpoints::routes())
        .merge(feed::routes())
        .fallback(error::unknown_route)
        .method_not_allowed_fallback(error::wrong_method)
        .layer(DefaultBodyLimit::max(api.config().body_limit))
        .layer(middleware::from_fn_with_state(api.clone(), auth::authenticate));
    health::routes()
        .method_not_allowed_fallback(error::wrong_method)
        .merge(guarded)
        .layer(middleware::map_response(auth::seclude))
        .layer(middleware::from_fn_with_state(api.clone(), metrics::count))
        .with_state(api)
}

/// The system's clock.
fn system_time() -> Timestamp {
    Timestamp::from(SystemTime::now())
}
