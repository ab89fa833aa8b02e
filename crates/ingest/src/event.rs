//! The event of a body: raw bytes without secrets and echoes, routed, with what is known of the
//! transport.
//!
//! Nothing here judges a body: what cannot be read is stored under `{source}/unrecognized`.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName, header};
use bytes::Bytes;
use domain::event::{Meta, NewEvent};
use domain::ids::{Subject, Timestamp, is_source_name};
use domain::redact::redact_platform;
use domain::webhook;
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

/// The event's name in the log.
const EVENT_TYPE: &str = "WebhookReceived";

/// Bodies from this length on take a millisecond or more to read; the platform's have 1 to 6 KB.
pub(crate) const LARGE: usize = 16 << 10;

/// Longest header value that is kept, in characters.
const HEADER_KEPT: usize = 256;

/// A body that arrived.
pub(crate) struct Arrival {
    /// Who sent it.
    pub(crate) source: String,
    /// As it came, secrets included.
    pub(crate) body: Bytes,
    /// When it was complete.
    pub(crate) at: Timestamp,
    /// From where, if known.
    pub(crate) remote: Option<IpAddr>,
    /// Only the allowed ones are kept.
    pub(crate) headers: HeaderMap,
    /// The event it repeats.
    pub(crate) repeat_of: Option<Uuid>,
}

/// What is known of the transport. Headers are named one by one: no other is ever stored.
#[derive(Debug, Serialize)]
struct Transport {
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repeat_of: Option<Uuid>,
    /// Secrets and echoes replaced.
    redacted: usize,
    /// Length of the body as it came.
    bytes: usize,
}

/// An event to append, and what to count.
pub(crate) struct Routed {
    /// The event.
    pub(crate) event: NewEvent,
    /// Whether it names no object.
    pub(crate) is_unrecognized: bool,
    /// Whether it is marked as a repeat.
    pub(crate) is_repeat: bool,
    /// Secrets and echoes replaced in it.
    pub(crate) redacted: usize,
}

/// Makes the event of a large body off the threads that serve; `None` where that panicked.
pub(crate) async fn route_large(arrival: Arrival) -> Option<Routed> {
    match tokio::task::spawn_blocking(move || route(&arrival)).await {
        Ok(routed) => Some(routed),
        Err(error) => {
            tracing::error!(%error, "webhook not acknowledged");
            None
        }
    }
}

/// Makes the event of a body: redacts it and finds its subject. What the platform echoes of a person
/// is not kept: ingest cannot know whose it is, and it stands sealed in the request.
pub(crate) fn route(arrival: &Arrival) -> Routed {
    let (payload, redacted) = redact_platform(&arrival.body);
    let subject = webhook::subject(&arrival.source, &payload);
    let is_unrecognized = subject == Subject::unrecognized(&arrival.source);
    let transport = Transport {
        content_type: kept(&arrival.headers, &header::CONTENT_TYPE),
        remote: arrival.remote,
        user_agent: kept(&arrival.headers, &header::USER_AGENT),
        traceparent: traceparent(&arrival.headers),
        repeat_of: arrival.repeat_of,
        redacted,
        bytes: arrival.body.len(),
    };
    let event = NewEvent {
        event_id: Uuid::now_v7(),
        subject,
        event_type: EVENT_TYPE.to_owned(),
        schema_version: 1,
        key: None,
        received_at: arrival.at,
        causation_id: None,
        correlation_id: None,
        meta: Meta::of(&transport),
        payload,
    };
    Routed { event, is_unrecognized, is_repeat: arrival.repeat_of.is_some(), redacted }
}

/// The same body in a form that the database cannot refuse: no subject of its own, and of the
/// transport only why it was refused.
pub(crate) fn unrecognized(mut event: NewEvent, sqlstate: &str) -> NewEvent {
    let meta = event.meta.as_ref().map(Meta::value).unwrap_or_default();
    let bytes = meta.get("bytes").and_then(Value::as_u64);
    let source = event.subject.source();
    // What was refused may be the source itself.
    let source = if is_source_name(source) { source } else { "unknown" };
    event.subject = Subject::unrecognized(source);
    EVENT_TYPE.clone_into(&mut event.event_type);
    event.meta = Some(json!({ "refused": sqlstate, "bytes": bytes }).into());
    event
}

/// A header's value, shortened.
fn kept(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let value = String::from_utf8_lossy(headers.get(name)?.as_bytes());
    // Mostly it is short.
    let end = value.char_indices().nth(HEADER_KEPT).map_or(value.len(), |(end, _)| end);
    Some(value[..end].to_owned())
}

/// The trace that a caller is part of, if it is well formed (W3C Trace Context, version 00).
fn traceparent(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("traceparent")?.to_str().ok()?;
    domain::event::is_traceparent(value).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(headers: &[(&'static str, &str)], body: &[u8]) -> Value {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect();
        let remote = Some(IpAddr::from([192, 0, 2, 7]));
        let arrival = Arrival {
            source: "a".to_owned(),
            body: Bytes::copy_from_slice(body),
            at: Timestamp::default(),
            remote,
            headers,
            repeat_of: None,
        };
        route(&arrival).event.meta.unwrap().value()
    }

    #[test]
    fn only_named_headers_are_kept() {
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let headers = [
            ("content-type", "application/json"),
            ("user-agent", "sender/1"),
            ("traceparent", trace),
            ("authorization", "Bearer x"),
            ("cookie", "x=1"),
            ("referer", "https://example.org/webhooks/a/secret"),
        ];
        let expected = json!({
            "content_type": "application/json", "user_agent": "sender/1", "traceparent": trace,
            "remote": "192.0.2.7", "redacted": 0, "bytes": 2,
        });
        assert_eq!(meta(&headers, b"{}"), expected);
    }

    #[test]
    fn odd_headers_are_shortened_or_left_out() {
        let long = "x".repeat(1000);
        let meta = meta(&[("user-agent", &long), ("traceparent", "00-zz-zz-01")], b"");
        assert_eq!(meta["user_agent"].as_str().unwrap().len(), HEADER_KEPT);
        assert_eq!(meta.get("traceparent"), None);
        assert_eq!(meta.get("content_type"), None);
    }
}
