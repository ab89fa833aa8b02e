//! Answers other than 200: RFC 9457 problems that say no more than their status.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use uuid::Uuid;

/// A refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Problem {
    status: StatusCode,
    /// A fixed text; nothing of the request.
    detail: Option<&'static str>,
}

impl Problem {
    pub(crate) const BROKEN_OFF: Self = Self::plain(StatusCode::BAD_REQUEST);
    pub(crate) const NOT_FOUND: Self = Self::plain(StatusCode::NOT_FOUND);
    pub(crate) const METHOD_NOT_ALLOWED: Self = Self::plain(StatusCode::METHOD_NOT_ALLOWED);
    pub(crate) const TIMED_OUT: Self = Self::plain(StatusCode::REQUEST_TIMEOUT);
    pub(crate) const TOO_LARGE: Self = Self::plain(StatusCode::PAYLOAD_TOO_LARGE);
    pub(crate) const UNAUTHORIZED: Self = Self::plain(StatusCode::UNAUTHORIZED);
    pub(crate) const TOO_MANY: Self = Self {
        status: StatusCode::PAYLOAD_TOO_LARGE,
        detail: Some("at most 1000 events of a mebibyte together: send several requests"),
    };
    pub(crate) const UNAVAILABLE: Self = Self::plain(StatusCode::SERVICE_UNAVAILABLE);

    const fn plain(status: StatusCode) -> Self {
        Self { status, detail: None }
    }

    /// Not ready, and why.
    pub(crate) const fn not_ready(detail: &'static str) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, detail: Some(detail) }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or_default();
        let mut body = serde_json::json!({
            "type": "about:blank", "title": title, "status": self.status.as_u16(),
        });
        if let Some(detail) = self.detail {
            body["detail"] = detail.into();
        }
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (self.status, kind, body.to_string()).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            let bearer = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, retry_after());
        }
        response
    }
}

/// 1 to 5 seconds, spread so that callers do not come back together.
fn retry_after() -> HeaderValue {
    // The last byte of a fresh id is random.
    let spread = u16::from(Uuid::now_v7().into_bytes()[15]);
    HeaderValue::from(1 + spread % 5)
}

/// Any other path, a webhook's included.
pub(crate) async fn not_found() -> Problem {
    Problem::NOT_FOUND
}

/// Any other method on a known path.
pub(crate) async fn method_not_allowed() -> Problem {
    Problem::METHOD_NOT_ALLOWED
}
