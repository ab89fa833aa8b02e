//! The platform's HTTP surface: from the network to the world and back, with the faults in between.
//!
//! Its own accept loop, because a fault may close a connection without an answer, which a framework
//! has no way to say. A request that has arrived is carried out even if the caller hangs up.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Query;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};

use crate::faults::{Effect, Refusal};
use crate::log::RequestLogEntry;
use crate::redact::redacted;
use crate::shared::{Shared, now};
use crate::world::{ErrorShape, Reply, ReplyBody, Request, error_body};

/// Largest request body that is read, in bytes.
const BODY_LIMIT: usize = 1024 * 1024;
/// How long an answer waits for the webhooks that have to come before it.
const WEBHOOK_PATIENCE: Duration = Duration::from_secs(2);
/// How long accepting pauses after an error such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The connection is to be closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("answer the request: a fault closes the connection")]
struct Closed;

/// Accepts connections until the simulator is shut down.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>, control: Router) {
    loop {
        let accepted = tokio::select! {
            () = shared.shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let connection = serve_connection(stream, peer, shared.clone(), control.clone());
                shared.tasks.spawn(connection);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one connection until it ends or the simulator is shut down.
async fn serve_connection(
    stream: TcpStream,
    peer: SocketAddr,
    shared: Arc<Shared>,
    control: Router,
) {
    // Small answers must not wait for the acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    let shutdown = shared.shutdown.clone();
    let control = TowerToHyperService::new(control);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (shared, control) = (shared.clone(), control.clone());
        async move {
            let path = request.uri().path();
            if path.starts_with("/_control/") || path == "/_truth" {
                return Ok(answer_control(control, peer, request).await);
            }
            answer_platform(shared, request).await
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        () = shutdown.cancelled() => {}
        // An error here is a caller that hung up, or a fault that closed the connection.
        _ = connection => {}
    }
}

/// Answers a control request, to callers on this machine only.
async fn answer_control(
    control: TowerToHyperService<Router>,
    peer: SocketAddr,
    request: hyper::Request<Incoming>,
) -> Response<Body> {
    if !peer.ip().to_canonical().is_loopback() {
        let text = "control is for callers on this machine";
        let body = error_body(ErrorShape::C, 403, text);
        return to_http(&Reply { status: 403, body }, None);
    }
    match control.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// Answers a request of the platform's API in a task of its own, which only a shutdown ends early.
async fn answer_platform(
    shared: Arc<Shared>,
    request: hyper::Request<Incoming>,
) -> Result<Response<Body>, Closed> {
    let tasks = shared.tasks.clone();
    let answer = tasks.spawn(async move {
        let handled = shared.shutdown.run_until_cancelled(handle(&shared, request)).await;
        handled.unwrap_or(Err(Closed))
    });
    answer.await.unwrap_or(Err(Closed))
}

/// Reads, notes and answers a request.
async fn handle(
    shared: &Shared,
    request: hyper::Request<Incoming>,
) -> Result<Response<Body>, Closed> {
    let (parts, body) = request.into_parts();
    let body = match Limited::new(body, BODY_LIMIT).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return Ok(to_http(&Reply::empty(413), None)),
    };
    let header = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let request = Request {
        method: parts.method.as_str().to_owned(),
        path: parts.uri.path().to_owned(),
        query: query_pairs(&parts.uri),
        authorization: header.map(str::to_owned),
        body,
    };
    let seq = note(shared, &parts.uri, &request);
    let effect = shared.faults.effect_on(&request.method, &request.path);
    let (reply, refusal) = answer(shared, &request, effect).await?;
    shared.requests.answered(seq, &reply);
    Ok(to_http(&reply, refusal.as_ref()))
}

/// Puts a request into the log, without its secrets.
fn note(shared: &Shared, uri: &Uri, request: &Request) -> u64 {
    let body = serde_json::from_slice(&request.body).ok();
    shared.requests.add(|seq| RequestLogEntry {
        seq,
        at: now(),
        method: request.method.clone(),
        path: request.path.clone(),
        query: uri.query().unwrap_or_default().to_owned(),
        body: body.as_ref().map(redacted),
        status: 0,
        response: None,
    })
}

/// Answers a request under a fault. Returns the refusal as well if it is what is answered.
async fn answer(
    shared: &Shared,
    request: &Request,
    effect: Option<Effect>,
) -> Result<(Reply, Option<Refusal>), Closed> {
    match effect {
        None => Ok((apply(shared, request).await, None)),
        Some(Effect::Status(refusal)) => Ok((refusal.reply(), Some(refusal))),
        Some(Effect::LatencyMs(latency)) => {
            tokio::time::sleep(Duration::from_millis(latency)).await;
            Ok((apply(shared, request).await, None))
        }
        Some(Effect::Reset) => Err(Closed),
        Some(Effect::ResetAfterMs(latency)) => {
            tokio::time::sleep(Duration::from_millis(latency)).await;
            Err(Closed)
        }
        Some(Effect::ApplyThenStatus(refusal)) => {
            apply(shared, request).await;
            Ok((refusal.reply(), Some(refusal)))
        }
        Some(Effect::ApplyThenReset) => {
            apply(shared, request).await;
            Err(Closed)
        }
        Some(Effect::ApplyThenLatencyMs(latency)) => {
            let reply = apply(shared, request).await;
            tokio::time::sleep(Duration::from_millis(latency)).await;
            Ok((reply, None))
        }
    }
}

/// Carries a request out and waits, within bounds, for the webhooks that come before its answer.
async fn apply(shared: &Shared, request: &Request) -> Reply {
    let (reply, awaited) = shared.with_world(|world, now| world.request(now, request));
    let all = async {
        for delivered in awaited {
            // An error means that the queue is gone, so there is nothing to wait for.
            let _ = delivered.await;
        }
    };
    let _ = tokio::time::timeout(WEBHOOK_PATIENCE, all).await;
    reply
}

/// Decodes the query; what cannot be decoded is no query.
fn query_pairs(uri: &Uri) -> Vec<(String, String)> {
    Query::try_from_uri(uri).map(|Query(pairs)| pairs).unwrap_or_default()
}

/// Writes an answer as HTTP, with the headers of a refusal.
fn to_http(reply: &Reply, refusal: Option<&Refusal>) -> Response<Body> {
    let (body, content_type) = match &reply.body {
        ReplyBody::Empty => (Bytes::new(), None),
        ReplyBody::Json(document) => (document.to_string().into(), Some("application/json")),
        ReplyBody::Text(text) => (text.clone().into(), Some("text/html")),
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() =
        StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Some(content_type) = content_type {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    for (name, value) in refusal.iter().flat_map(|refusal| &refusal.headers) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}
