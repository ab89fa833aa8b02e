//! What a caller is told when something is refused or fails: one problem document (RFC 9457).
//!
//! A problem says what to do next and never what happened inside: causes are logged, once.

use std::error::Error as _;

use axum::Json;
use axum::extract::{MatchedPath, Request};
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::token::Scope;

/// What a caller should wait while the database is away: a failover takes some seconds.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("5");

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Nobody could call.
    #[error("open the API without a token: configure at least one")]
    NoTokens,
    /// A token without a name, or with that of another.
    #[error("use the token name \"{name}\": each token needs a name of its own")]
    TokenName {
        /// The name.
        name: String,
    },
    /// There is nothing to run sessions on.
    #[error("open the API without a source: configure at least one")]
    NoSources,
    /// A source with an odd name, or named twice.
    #[error("use the source \"{name}\": 1 to 63 of a-z, 0-9 and -, each named once")]
    Source {
        /// The name.
        name: String,
    },
    /// A kind that cannot be the kind of a plain job.
    #[error(
        "use \"{kind}\" as a kind of plain jobs: 1 to 63 of a-z, 0-9 and _, beginning with a letter, not timer or forward"
    )]
    Kind {
        /// The kind.
        kind: String,
    },
    /// No body would be short enough.
    #[error("open the API with a body limit of 0 bytes: 262144 is usual")]
    NoBody,
}

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct FieldProblem {
    /// The field.
    pub(crate) field: String,
    /// What is wrong, reads after the name.
    pub(crate) problem: String,
}

/// A refusal or failure. Boxed, since it stands in every result.
#[derive(Debug)]
pub(crate) struct Problem(Box<Parts>);

#[derive(Debug)]
struct Parts {
    status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
    document: Document,
}

/// The body.
#[derive(Debug, Serialize)]
struct Document {
    /// What programs tell problems apart by; never changes for one kind of problem.
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    detail: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldProblem>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_status: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed: Option<Vec<&'static str>>,
}

impl Problem {
    fn new(status: StatusCode, kind: &str, title: &'static str, detail: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            status,
            headers: Vec::new(),
            document: Document {
                kind: format!("urn:tallylight:problem:{kind}"),
                title,
                status: status.as_u16(),
                detail: detail.into(),
                errors: Vec::new(),
                session_status: None,
                allowed: None,
            },
        }))
    }

    fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// 401: no token, or one that is not accepted.
    pub(crate) fn unauthorized(detail: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "Unauthorized", detail)
            .with_header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"tallylight\""))
    }

    /// 403: the token lacks a scope.
    pub(crate) fn forbidden(scope: Scope) -> Self {
        let detail = format!("the token lacks the scope {scope}");
        let challenge =
            format!("Bearer realm=\"tallylight\", error=\"insufficient_scope\", scope=\"{scope}\"");
        let problem = Self::new(StatusCode::FORBIDDEN, "forbidden", "Forbidden", detail);
        match HeaderValue::try_from(challenge) {
            Ok(challenge) => problem.with_header(WWW_AUTHENTICATE, challenge),
            Err(_) => problem,
        }
    }

    /// 404: there is no such thing.
    pub(crate) fn not_found(what: &str) -> Self {
        let detail = format!("there is no such {what}");
        Self::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
    }

    /// 400: the request cannot be read.
    pub(crate) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", "Malformed request", detail)
    }

    /// 408: the body did not arrive in time.
    pub(crate) fn too_slow() -> Self {
        let detail = "the body did not arrive in time";
        Self::new(StatusCode::REQUEST_TIMEOUT, "too-slow", "Request timeout", detail)
    }

    /// 413: the body is longer than `limit` bytes.
    pub(crate) fn too_large(limit: usize) -> Self {
        let detail = format!(
            "the body is longer than {limit} bytes: send less at once, or keep what is large \
             elsewhere and name it"
        );
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "Body too large", detail)
    }

    /// 415: the body is something else than JSON.
    pub(crate) fn not_json() -> Self {
        let detail = "send JSON with `Content-Type: application/json`";
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        Self::new(status, "unsupported-media-type", "Unsupported media type", detail)
    }

    /// 422: fields are missing, unknown or wrong.
    pub(crate) fn invalid(errors: Vec<FieldProblem>) -> Self {
        let list: Vec<String> =
            errors.iter().map(|e| format!("{} {}", e.field, e.problem)).collect();
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        let mut problem = Self::new(status, "invalid", "Invalid fields", list.join("; "));
        problem.0.document.errors = errors;
        problem
    }

    /// 422: one field is wrong.
    pub(crate) fn invalid_field(field: &str, problem: impl Into<String>) -> Self {
        Self::invalid(vec![FieldProblem { field: field.to_owned(), problem: problem.into() }])
    }

    /// 422: the key stands for a request with another body.
    pub(crate) fn key_reused() -> Self {
        let detail =
            "this Idempotency-Key was sent with another body before: a new session needs a new key";
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        Self::new(status, "idempotency-key-reused", "Idempotency-Key reused", detail)
    }

    /// 409: the session is in no state for the command; `allowed` are those it is in a state for.
    pub(crate) fn not_now(
        detail: impl Into<String>,
        status: &str,
        allowed: Vec<&'static str>,
    ) -> Self {
        let mut problem = Self::conflict("not-now", detail);
        problem.0.document.session_status = Some(status.to_owned());
        problem.0.document.allowed = Some(allowed);
        problem
    }

    /// 409: not in this state.
    pub(crate) fn conflict(kind: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, kind, "Not possible now", detail)
    }

    /// 429: a limit key has as many jobs as it may have.
    pub(crate) fn too_many(detail: &str) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-jobs", "Too many jobs", detail)
            .with_header(RETRY_AFTER, RETRY_AFTER_SECONDS)
    }

    /// 410: what was there is there no more.
    pub(crate) fn gone(kind: &str, detail: &str) -> Self {
        Self::new(StatusCode::GONE, kind, "Gone", detail)
    }

    /// 503: as many callers listen as may.
    pub(crate) fn too_many_listeners() -> Self {
        let detail =
            "as many callers listen to this process as may: come again, or use another one";
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self::new(status, "too-many-listeners", "Too many listeners", detail)
            .with_header(RETRY_AFTER, RETRY_AFTER_SECONDS)
    }

    /// 501: the installation is not set up for it.
    pub(crate) fn not_set_up(detail: &str) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, "not-set-up", "Not set up", detail)
    }

    /// 503: the database is away, or too busy.
    pub(crate) fn unavailable() -> Self {
        let detail = "the database is away or too busy: send the same request again later";
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self::new(status, "unavailable", "Unavailable", detail)
            .with_header(RETRY_AFTER, RETRY_AFTER_SECONDS)
    }

    /// 500: a fault of ours.
    pub(crate) fn internal() -> Self {
        let detail = "something failed inside; the service's log has the reason";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error", detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Parts { status, headers, document } = *self.0;
        let mut response = (status, Json(document)).into_response();
        let to = response.headers_mut();
        to.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        to.extend(headers);
        response
    }
}

impl From<store::Error> for Problem {
    /// Logs the cause and tells the caller whether to try again.
    fn from(error: store::Error) -> Self {
        let is_away = error.is_transient() || matches!(error, store::Error::NotMigrated);
        tracing::error!(error = %error, error.chain = chain(&error), "request failed");
        if is_away { Self::unavailable() } else { Self::internal() }
    }
}

/// The sources of an error, outermost first.
pub(crate) fn chain(error: &store::Error) -> String {
    let (mut causes, mut next) = (Vec::new(), error.source());
    while let Some(cause) = next {
        causes.push(cause.to_string());
        next = cause.source();
    }
    causes.join(": ")
}

/// Answers where no route is.
pub(crate) async fn unknown_route() -> Problem {
    Problem::not_found("resource")
}

/// Answers where the route has other methods.
pub(crate) async fn wrong_method(method: Method, request: Request) -> Problem {
    let path =
        request.extensions().get::<MatchedPath>().map_or("this resource", MatchedPath::as_str);
    let detail = format!("{path} does not answer {method}: see the Allow header");
    let status = StatusCode::METHOD_NOT_ALLOWED;
    Problem::new(status, "method-not-allowed", "Method not allowed", detail)
}
