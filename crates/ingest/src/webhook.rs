//! One webhook, from its path to its answer.
//!
//! Authentication comes first and needs the path only: of a stranger's request no body is read.
//! After it, every body within the limit is kept, and 200 means committed or spooled. No path, query or
//! body is ever logged.

use std::net::{IpAddr, SocketAddr};

use axum::body::{Body, HttpBody};
use axum::extract::rejection::PathRejection;
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use domain::ids::Timestamp;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::timeout;
use uuid::Uuid;

use crate::address::remote;
use crate::event::{self, Arrival, Routed};
use crate::problem::Problem;
use crate::repeat::Print;
use crate::source::Source;
use crate::{Config, Ingest, Inner, Metrics};

/// `POST /webhooks/{source}/{token}`.
pub(crate) async fn receive(
    State(ingest): State<Ingest>,
    path: Result<Path<(String, String)>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let Inner { config, lanes, repeats, sources, .. } = &*ingest.inner;
    let metrics = lanes.metrics();
    let remote = caller(config, &request);
    // A path that cannot be read is one that we do not know.
    let (name, token) = path.map_or_else(|_| Default::default(), |Path(parts)| parts);
    let Some(admitted) = sources.admit(&name, &token, (config.clock)()) else {
        metrics.not_found.inc();
        return Err(Problem::NOT_FOUND);
    };
    let source = admitted.source;
    admitted.used.inc();
    check_network(source, remote).inspect_err(|_| _ = metrics.outside_networks.inc())?;
    let (parts, body) = request.into_parts();
    let body = read(body, config, config.body_limit).await;
    let body = body.inspect_err(|problem| count(*problem, metrics))?;

    let at = (config.clock)();
    let print = Print::of(&source.name, &body);
    let repeat_of = repeats.find(print, at);
    let is_large = body.len() >= event::LARGE;
    let arrival = Arrival { source: name, body, at, remote, headers: parts.headers, repeat_of };
    // The platform sends once, so a caller who has waited enough takes nothing back: a small body
    // is queued before anything is waited for, a large one is read in a task of its own.
    let kept = if is_large {
        let ingest = ingest.clone();
        tokio::spawn(
            async move { keep(&ingest, event::route_large(arrival).await, at, print).await },
        )
        .await
        .unwrap_or(None)
    } else {
        keep(&ingest, Some(event::route(&arrival)), at, print).await
    };
    kept.map(acknowledged).ok_or(Problem::UNAVAILABLE)
}

/// Keeps a webhook, counts and logs how it ended, and returns the event's id once it is kept.
async fn keep(
    ingest: &Ingest,
    routed: Option<Routed>,
    at: Timestamp,
    print: Print,
) -> Option<Uuid> {
    let Inner { lanes, repeats, .. } = &*ingest.inner;
    let metrics = lanes.metrics();
    let Routed { event, is_unrecognized, is_repeat, redacted } = routed?;
    let (id, bytes) = (event.event_id, event.payload.len());
    match lanes.append(event).await {
        Ok(kept) => {
            repeats.remember(print, at, id);
            metrics.stored.inc();
            metrics.unrecognized.inc_by(u64::from(is_unrecognized));
            metrics.redacted.inc_by(redacted as u64);
            metrics.repeated.inc_by(u64::from(is_repeat));
            tracing::debug!(event_id = %id, bytes, ?kept, "webhook kept");
            Some(id)
        }
        Err(error) => {
            metrics.unavailable.inc();
            tracing::error!(event_id = %id, bytes, %error, "webhook not acknowledged");
            None
        }
    }
}

/// The answer to a webhook that is kept. Written by hand, since it is written for each.
fn acknowledged(id: Uuid) -> Response {
    const JSON: HeaderValue = HeaderValue::from_static("application/json");
    let mut body = String::with_capacity(64);
    body.push_str("{\"event_id\":\"");
    body.push_str(id.hyphenated().encode_lower(&mut Uuid::encode_buffer()));
    body.push_str("\"}");
    let mut response = Response::new(Body::from(body));
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
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

/// Reads a body of up to `limit` bytes, and never a part of a longer one.
pub(crate) async fn read(body: Body, config: &Config, limit: usize) -> Result<Bytes, Problem> {
    // A declared length is believed before a byte is read.
    if body.size_hint().lower() > limit as u64 {
        return Err(Problem::TOO_LARGE);
    }
    let whole = Limited::new(body, limit).collect();
    match timeout(config.body_timeout, whole).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::TOO_LARGE),
        Ok(Err(_)) => Err(Problem::BROKEN_OFF),
        Err(_) => Err(Problem::TIMED_OUT),
    }
}

/// Counts a body that could not be read.
pub(crate) fn count(problem: Problem, metrics: &Metrics) {
    match problem {
        Problem::TOO_LARGE => metrics.too_large.inc(),
        Problem::TIMED_OUT => metrics.timed_out.inc(),
        _ => metrics.broken_off.inc(),
    };
}
