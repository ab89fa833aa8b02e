//! One webhook, from its path to its answer.
//!
//! Authentication comes first and needs the path only: of a stranger's request no body is read.
//! After it, every body within the limit is stored, and 200 means committed. No path, query or
//! body is ever logged.

use std::net::{IpAddr, SocketAddr};

use axum::Json;
use axum::body::{Body, HttpBody};
use axum::extract::rejection::PathRejection;
use axum::extract::{ConnectInfo, Path, Request, State};
use bytes::Bytes;
use domain::event::NewEvent;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::{Value, json};
use tokio::time::timeout;
use uuid::Uuid;

use crate::address::remote;
use crate::error::NotKept;
use crate::event::{self, Arrival, Routed};
use crate::problem::Problem;
use crate::repeat::Print;
use crate::source::Source;
use crate::{Config, Counters, Ingest, Inner, Lanes, Rejected};

/// `POST /webhooks/{source}/{token}`.
pub(crate) async fn receive(
    State(ingest): State<Ingest>,
    path: Result<Path<(String, String)>, PathRejection>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    let counters = ingest.inner.lanes.counters();
    let (config, remote) = (&ingest.inner.config, caller(&ingest.inner.config, &request));
    // A path that cannot be read is one that we do not know.
    let (name, token) = path.map_or_else(|_| Default::default(), |Path(parts)| parts);
    let Some(source) = ingest.inner.sources.admit(&name, &token, (config.clock)()) else {
        counters.not_found(1);
        return Err(Problem::NOT_FOUND);
    };
    check_network(source, remote).inspect_err(|_| counters.outside_networks(1))?;
    let (parts, body) = request.into_parts();
    let body = read(body, config).await.inspect_err(|problem| count(*problem, counters))?;

    let (source, headers, at) = (source.name.clone(), parts.headers, (config.clock)());
    let print = Print::of(&source, &body);
    let repeat_of = ingest.inner.repeats.find(print, at);
    let arrival = Arrival { source, body, at, remote, headers, repeat_of };
    // In a task of its own: the platform sends once, so a caller who has waited enough takes
    // nothing back.
    let stored = tokio::spawn(async move { keep(&ingest, arrival, print).await }).await;
    let id = stored.unwrap_or_else(|error| Err(error.into())).map_err(|_| Problem::UNAVAILABLE)?;
    Ok(Json(json!({ "event_id": id })))
}

/// Where the request comes from, if whoever serves us said so.
fn caller(config: &Config, request: &Request) -> Option<IpAddr> {
    let ConnectInfo(peer) = request.extensions().get::<ConnectInfo<SocketAddr>>()?;
    Some(remote(peer.ip(), request.headers(), &config.trusted_proxies))
}

/// Refuses callers outside the source's networks, as if there were no such path.
fn check_network(source: &Source, remote: Option<IpAddr>) -> Result<(), Problem> {
    let is_inside = |ip| source.networks.iter().any(|network| network.contains(ip));
    if source.networks.is_empty() || remote.is_some_and(is_inside) {
        return Ok(());
    }
    let remote = remote.map(|ip| ip.to_string());
    tracing::warn!(
        source = source.name,
        remote,
        "webhook refused: right token, but outside the source's networks"
    );
    Err(Problem::NOT_FOUND)
}

/// Reads a body of up to the limit, and never a part of a longer one.
async fn read(body: Body, config: &Config) -> Result<Bytes, Problem> {
    // A declared length is believed before a byte is read.
    if body.size_hint().lower() > config.body_limit as u64 {
        return Err(Problem::TOO_LARGE);
    }
    let whole = Limited::new(body, config.body_limit).collect();
    match timeout(config.body_timeout, whole).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::TOO_LARGE),
        Ok(Err(_)) => Err(Problem::BROKEN_OFF),
        Err(_) => Err(Problem::TIMED_OUT),
    }
}

/// Counts a body that could not be read.
fn count(problem: Problem, counters: &Counters) {
    match problem {
        Problem::TOO_LARGE => counters.too_large(1),
        Problem::TIMED_OUT => counters.timed_out(1),
        _ => counters.broken_off(1),
    }
}

/// Stores a webhook, returns its id after commit, and counts and logs how it ended.
async fn keep(ingest: &Ingest, arrival: Arrival, print: Print) -> Result<Uuid, NotKept> {
    let Inner { lanes, repeats, .. } = &*ingest.inner;
    let counters = lanes.counters();
    let (source, at, bytes) = (arrival.source.clone(), arrival.at, arrival.body.len());
    let is_repeat = arrival.repeat_of.is_some();
    let kept = async {
        let Routed { event, is_unrecognized, redacted } = event::route(arrival).await?;
        let id = append(lanes, &source, event).await?;
        counters.unrecognized(usize::from(is_unrecognized));
        counters.redacted(redacted);
        Ok(id)
    };
    let kept: Result<Uuid, NotKept> = kept.await;
    match &kept {
        Ok(id) => {
            repeats.remember(print, at, *id);
            counters.stored(1);
            counters.repeated(usize::from(is_repeat));
            tracing::debug!(source, event_id = %id, bytes, "webhook stored");
        }
        Err(error) => {
            counters.unavailable(1);
            tracing::error!(source, bytes, %error, "webhook not acknowledged");
        }
    }
    kept
}

/// Appends an event; one that the database refuses is stored as unrecognized instead.
pub(crate) async fn append(lanes: &Lanes, source: &str, event: NewEvent) -> Result<Uuid, Rejected> {
    match lanes.append(event).await {
        Err(Rejected::Refused { sqlstate, event }) => {
            let id = lanes.append(event::unrecognized(*event, source, &sqlstate)).await?;
            tracing::warn!(source, event_id = %id, sqlstate, "webhook stored as unrecognized");
            lanes.counters().refused(1);
            Ok(id)
        }
        other => other,
    }
}
