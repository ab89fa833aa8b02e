//! What handlers take from a request: bodies, queries, ids, keys. Each refusal is a problem.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, FailedToBufferBody};
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use domain::event::is_traceparent;
use uuid::Uuid;

use crate::Api;
use crate::error::Problem;
use crate::fields::Fields;

/// Longest wait for a body: one of 256 KiB takes 4 s at 512 kbit/s.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The name of the header that makes a request safe to repeat.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// A JSON object.
#[derive(Debug)]
pub(crate) struct Body(pub(crate) Fields);

impl FromRequest<Api> for Body {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        require_json(request.headers())?;
        Fields::of_body(&read(request, api.config().body_limit, api).await?).map(Self)
    }
}

/// How much longer than others the body of a job may be: arguments of 1 MiB as the database keeps
/// them are about as long as text, and longer where much is escaped.
const JOB: usize = 8;

/// A JSON object that is a job.
#[derive(Debug)]
pub(crate) struct JobBody(pub(crate) Fields);

impl FromRequest<Api> for JobBody {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        require_json(request.headers())?;
        let limit = api.config().body_limit.saturating_mul(JOB);
        Fields::of_body(&read(request, limit, api).await?).map(Self)
    }
}

/// Lets a route take jobs, where other bodies have this limit.
pub(crate) fn allow_job(body_limit: usize) -> DefaultBodyLimit {
    DefaultBodyLimit::max(body_limit.saturating_mul(JOB))
}

/// How much longer than others the body of a batch may be: a job of a batch of a thousand may have
/// 4 KiB, where one alone may have 2 MiB.
const BATCH: usize = 16;

/// A JSON object that carries a batch.
#[derive(Debug)]
pub(crate) struct BatchBody(pub(crate) Fields);

impl FromRequest<Api> for BatchBody {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        require_json(request.headers())?;
        let limit = api.config().body_limit.saturating_mul(BATCH);
        Fields::of_body(&read(request, limit, api).await?).map(Self)
    }
}

/// Lets a route take batches, where other bodies have this limit.
pub(crate) fn allow_batch(body_limit: usize) -> DefaultBodyLimit {
    DefaultBodyLimit::max(body_limit.saturating_mul(BATCH))
}

/// A JSON object, or nothing, which is as good as an empty one.
#[derive(Debug)]
pub(crate) struct OptionalBody(pub(crate) Fields);

impl FromRequest<Api> for OptionalBody {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let is_json = require_json(request.headers());
        let body = read(request, api.config().body_limit, api).await?;
        if body.is_empty() {
            return Ok(Self(Fields::default()));
        }
        is_json?;
        Fields::of_body(&body).map(Self)
    }
}

/// Reads a body within the limits of size and time.
async fn read(request: Request, limit: usize, api: &Api) -> Result<Bytes, Problem> {
    let announced = request.headers().get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(Problem::too_large(limit));
    }
    match tokio::time::timeout(BODY_TIMEOUT, Bytes::from_request(request, api)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)))) => {
            Err(Problem::too_large(limit))
        }
        Ok(Err(_)) => Err(Problem::malformed("the body broke off")),
        Err(_) => Err(Problem::too_slow()),
    }
}

/// Refuses another content type than JSON.
fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = value.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let essence = essence.to_ascii_lowercase();
    let is_json = essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"));
    if is_json { Ok(()) } else { Err(Problem::not_json()) }
}

/// The pairs of the query.
#[derive(Debug)]
pub(crate) struct Params(pub(crate) Fields);

impl FromRequestParts<Api> for Params {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let Query(pairs) = Query::<Vec<(String, String)>>::from_request_parts(parts, api)
            .await
            .map_err(|_| Problem::malformed("the query cannot be read"))?;
        Ok(Self(Fields::of_query(pairs)))
    }
}

/// The one variable part of the path.
#[derive(Debug)]
pub(crate) struct Segment(pub(crate) String);

impl FromRequestParts<Api> for Segment {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        match Path::<String>::from_request_parts(parts, api).await {
            Ok(Path(text)) => Ok(Self(text)),
            // Not UTF-8: nothing has such an id.
            Err(_) => Err(Problem::not_found("resource")),
        }
    }
}

/// A session's id in the path.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SessionId(pub(crate) Uuid);

impl FromRequestParts<Api> for SessionId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let Segment(text) = Segment::from_request_parts(parts, api).await?;
        Uuid::try_parse(&text).map(Self).map_err(|_| Problem::not_found("session"))
    }
}

/// The `Idempotency-Key`, if there is one.
#[derive(Debug)]
pub(crate) struct IdempotencyKey(pub(crate) Option<String>);

impl IdempotencyKey {
    /// The key, where there has to be one.
    pub(crate) fn required(self) -> Result<String, Problem> {
        self.0.ok_or_else(|| {
            Problem::malformed("the header Idempotency-Key is needed: one key is one session")
        })
    }
}

impl FromRequestParts<Api> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        let mut values = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(Self(None)),
            (Some(key), None) if is_key(key.as_bytes()) => {
                Ok(Self(key.to_str().ok().map(str::to_owned)))
            }
            _ => Err(Problem::malformed(
                "Idempotency-Key must be there once, 1 to 255 printable ASCII characters",
            )),
        }
    }
}

/// The trace that a request is part of (W3C Trace Context). One that is not well formed is none, as
/// that says.
#[derive(Debug)]
pub(crate) struct Traceparent(pub(crate) Option<String>);

impl FromRequestParts<Api> for Traceparent {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        let mut values = parts.headers.get_all("traceparent").iter();
        let (Some(value), None) = (values.next(), values.next()) else { return Ok(Self(None)) };
        let value = value.to_str().ok().filter(|value| is_traceparent(value));
        Ok(Self(value.map(str::to_owned)))
    }
}

impl Traceparent {
    /// The trace that a body names, else the header's.
    pub(crate) fn or_of(self, fields: &mut Fields) -> Option<String> {
        let named = fields.text("traceparent", 55);
        if named.as_deref().is_some_and(|named| !is_traceparent(named)) {
            fields
                .wrong("traceparent", "must be as W3C Trace Context has it: 00-TRACE-PARENT-FLAGS");
        }
        named.or(self.0)
    }
}

/// Whether `key` is 1 to 255 printable ASCII characters.
fn is_key(key: &[u8]) -> bool {
    (1..=255).contains(&key.len()) && key.iter().all(|b| b.is_ascii_graphic() || *b == b' ')
}
