//! `POST /v1/events:batch`: events of other services, and webhooks told a second time, one JSON
//! object a line.
//!
//! Each line is judged by itself and answered by a line of its own, in order, once it is kept. A
//! *foreign* event is one whose type has a dot, such as `shop.OrderPaid`: no event of ours has one,
//! so nobody forges a command or an outcome here. The one type of ours that is taken is
//! `WebhookReceived`, which is routed and redacted like a webhook that came by itself.

use std::fmt::Write as _;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use domain::event::NewEvent;
use domain::ids::{Subject, Timestamp, derived_id, is_source_name};
use domain::redact::{redact, redact_platform};
use domain::webhook;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};
use uuid::Uuid;

use crate::lanes::{Ended, Kept};
use crate::problem::Problem;
use crate::webhook::{count, read};
use crate::{BatchToken, Ingest, Inner, Rejected};

/// Largest body. A lane takes a batch of as much in one call.
const BODY_LIMIT: usize = 1 << 20;

/// Most events of a request: as many as a lane takes in one call.
const MOST_EVENTS: usize = 1000;

/// Longest subject, in bytes: an index holds it.
const LONGEST_SUBJECT: usize = 500;

/// Longest type and key, in bytes.
const LONGEST_NAME: usize = 200;

/// How far ahead of ours a sender's clock may be. Domain time never runs back, so one event from
/// far ahead would hold its subject there.
const AHEAD: Duration = Duration::from_mins(1);

/// The type whose payload is a webhook's body.
const WEBHOOK: &str = "WebhookReceived";

/// One line.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(rename = "type")]
    event_type: String,
    /// Of a webhook: the platform account.
    source: Option<String>,
    /// Of any other event: what it is about.
    subject: Option<String>,
    #[serde(borrow)]
    payload: &'a RawValue,
    /// When the fact reached the sender; none: now.
    received_at: Option<Timestamp>,
    /// Of events of one subject with one key, the first is stored.
    key: Option<String>,
}

/// `POST /v1/events:batch`.
pub(crate) async fn receive(
    State(ingest): State<Ingest>,
    request: Request,
) -> Result<Response, Problem> {
    let Inner { config, lanes, .. } = &*ingest.inner;
    let metrics = lanes.metrics();
    let now = (config.clock)();
    let Some(token) = admit(&config.batch_tokens, request.headers(), now) else {
        metrics.unauthorized.inc();
        return Err(Problem::UNAUTHORIZED);
    };
    let body = read(request.into_body(), config, BODY_LIMIT).await;
    let body = body.inspect_err(|problem| count(*problem, metrics))?;
    if lines(&body).count() > MOST_EVENTS {
        metrics.too_large.inc();
        return Err(Problem::TOO_MANY);
    }
    let read: Vec<Result<NewEvent, String>> = lines(&body).map(|l| event(l, token, now)).collect();
    let events: Vec<NewEvent> = read.iter().filter_map(|e| e.as_ref().ok()).cloned().collect();
    let ended = lanes.append_all(events).await;
    let unavailable = ended.iter().filter(|e| matches!(e, Err(Rejected::Unavailable))).count();
    if unavailable > 0 {
        metrics.unavailable.inc();
        tracing::error!(token = token.name, unavailable, "events of a batch not acknowledged");
    }
    if unavailable > 0 && unavailable == read.len() {
        return Err(Problem::UNAVAILABLE);
    }
    metrics.batches.inc();
    Ok(answer(&read, ended))
}

/// The lines of a body that say something.
fn lines(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    body.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty())
}

/// The token that a request carries, if it is one of ours and has not ended. All are compared.
fn admit<'a>(
    tokens: &'a [BatchToken],
    headers: &HeaderMap,
    now: Timestamp,
) -> Option<&'a BatchToken> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, secret) = value.split_once(' ')?;
    let digest: [u8; 32] = Sha256::digest(secret.trim().as_bytes()).into();
    let is_bearer = Choice::from(u8::from(scheme.eq_ignore_ascii_case("bearer")));
    let mut found = None;
    for token in tokens {
        if bool::from(token.token.sha256.ct_eq(&digest) & is_bearer) {
            found = Some(token);
        }
    }
    found.filter(|token| token.token.not_after.is_none_or(|end| now <= end))
}

/// The event of a line, or what to do about the line.
fn event(line: &[u8], token: &BatchToken, now: Timestamp) -> Result<NewEvent, String> {
    let line: Line = serde_json::from_slice(line).map_err(|error| {
        format!("not an event ({error}): send an object with type, payload, and subject or source")
    })?;
    let body = line.payload.get().as_bytes();
    let is_webhook = line.event_type == WEBHOOK;
    // Of a foreign event, names are the sender's affair.
    let (payload, redacted) = if is_webhook { redact_platform(body) } else { redact(body) };
    let subject =
        if is_webhook { webhook_subject(&line, &payload)? } else { foreign_subject(&line)? };
    let source = subject.source();
    if !token.sources.contains(source) {
        return Err(format!("source \"{source}\" is not one of this token's"));
    }
    let received_at = line.received_at.unwrap_or(now);
    if received_at > now + AHEAD {
        return Err("received_at lies in the future: send when the fact reached you".to_owned());
    }
    let event = NewEvent {
        event_id: Uuid::now_v7(),
        event_type: line.event_type,
        schema_version: 1,
        key: None,
        received_at,
        causation_id: None,
        correlation_id: None,
        meta: Some(
            json!({ "token": token.name, "redacted": redacted, "bytes": payload.len() }).into(),
        ),
        payload,
        subject,
    };
    match line.key.as_deref() {
        None => Ok(event),
        Some("") => Err("key is empty: leave it out, or send 1 to 200 bytes".to_owned()),
        Some(key) if key.len() > LONGEST_NAME => {
            Err("key is too long: send 1 to 200 bytes".to_owned())
        }
        Some(key) => {
            let key = derived_id("batch event", &[event.subject.as_str(), &event.event_type, key]);
            Ok(event.with_key(key))
        }
    }
}

/// The subject that a webhook's body names.
fn webhook_subject(line: &Line<'_>, payload: &[u8]) -> Result<Subject, String> {
    match (&line.source, &line.subject) {
        (Some(source), None) if is_source_name(source) => Ok(webhook::subject(source, payload)),
        (Some(_), None) => Err("source is no source's name: use 1 to 63 of a-z 0-9 -".to_owned()),
        (None, None) => Err("a webhook needs its source".to_owned()),
        (_, Some(_)) => {
            Err("a webhook's subject follows from its body: leave subject out".to_owned())
        }
    }
}

/// The subject of a foreign event, whose type must have a dot.
fn foreign_subject(line: &Line<'_>) -> Result<Subject, String> {
    let name = &line.event_type;
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let is_foreign = name.contains('.') && name.bytes().all(is_plain);
    if !is_foreign || name.len() > LONGEST_NAME {
        return Err(
            "type is not taken here: send WebhookReceived, or a type of your own with a dot, such \
             as shop.OrderPaid, of A-Z a-z 0-9 . _ -"
                .to_owned(),
        );
    }
    if line.source.is_some() {
        return Err("source is a webhook's: the subject of an event begins with it".to_owned());
    }
    let text = line.subject.as_deref().unwrap_or_default();
    let parts: Vec<&str> = text.split('/').collect();
    let is_whole = parts.len() >= 3 && parts.iter().all(|part| !part.is_empty());
    if !is_whole || text.len() > LONGEST_SUBJECT || text.chars().any(char::is_control) {
        return Err(
            "subject is missing or no subject: send {source}/{kind}/{id}, at most 500 bytes"
                .to_owned(),
        );
    }
    Ok(Subject::from_stored(text.to_owned()))
}

/// One line for each line.
fn answer(read: &[Result<NewEvent, String>], ended: Vec<Ended>) -> Response {
    let mut text = String::with_capacity(read.len() * 80);
    let mut ended = ended.into_iter();
    for line in read {
        // Writing to a string cannot fail.
        let _ = match line {
            Err(reason) => writeln!(text, "{}", json!({ "status": "error", "error": reason })),
            Ok(event) => match ended.next().unwrap_or(Err(Rejected::Unavailable)) {
                Ok(kept) => {
                    let status = match kept {
                        Kept::Appended | Kept::Unrecognized => "stored",
                        Kept::Known => "duplicate",
                        Kept::Spooled => "spooled",
                    };
                    writeln!(
                        text,
                        "{{\"status\":\"{status}\",\"event_id\":\"{}\"}}",
                        event.event_id
                    )
                }
                Err(rejected) => {
                    writeln!(text, "{}", json!({ "status": "error", "error": advice(&rejected) }))
                }
            },
        };
    }
    let mut response = Response::new(Body::from(text));
    let ndjson = HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(header::CONTENT_TYPE, ndjson);
    response
}

/// What to do about a rejected event.
fn advice(rejected: &Rejected) -> String {
    match rejected {
        Rejected::Draining | Rejected::Unavailable => {
            "not known to be stored: send it again, with a key if it must not be stored twice"
                .to_owned()
        }
        Rejected::Refused { sqlstate } => {
            format!("the database refuses it (SQLSTATE {sqlstate}): change it")
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{SOURCE, config};

    /// A line that is taken.
    fn good(n: i64) -> Vec<u8> {
        let line = json!({
            "type": "shop.OrderPaid", "subject": format!("{SOURCE}/order/{n}"), "payload": n
        });
        line.to_string().into_bytes()
    }

    /// Bytes of one line: none at all, anything, or something that is nearly an event.
    fn bad() -> impl Strategy<Value = Vec<u8>> {
        let anything = vec(any::<u8>().prop_filter("one line", |b| *b != b'\n'), 0..200);
        let changed = (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, by)| {
            let mut line = good(7);
            let at = at.index(line.len());
            line[at] = if by == b'\n' { b'{' } else { by };
            line
        });
        let texts = ("\\PC{0,20}", "\\PC{0,20}", "\\PC{0,20}", any::<Option<String>>());
        let shaped = texts.prop_map(|(kind, subject, source, key)| {
            let line = json!({
                "type": kind, "subject": subject, "source": source, "payload": {}, "key": key
            });
            line.to_string().into_bytes()
        });
        prop_oneof![anything, changed, shaped]
    }

    fn read(body: &[u8]) -> Vec<Result<NewEvent, String>> {
        let token = &config().batch_tokens[0];
        lines(body).map(|line| event(line, token, Timestamp::default())).collect()
    }

    proptest! {
        #[test]
        fn no_line_costs_another_one(parts in vec((bad(), any::<bool>()), 0..8)) {
            let mut body = Vec::new();
            for (n, (bad, ends)) in (0..).zip(&parts) {
                body.extend([bad.as_slice(), b"\n", &good(n), if *ends { b"\r\n" } else { b"\n" }].concat());
            }
            let read = read(&body);
            let numbers = (0..).take(parts.len()).map(|n: i64| n.to_string());
            let mut payloads = read.iter().filter_map(|line| Some(&line.as_ref().ok()?.payload));
            for number in numbers {
                prop_assert!(payloads.any(|payload| payload == number.as_bytes()), "{number} is lost");
            }
        }

        #[test]
        fn what_is_taken_is_of_a_source_of_the_token_and_forges_nothing(line in bad()) {
            for event in read(&line).into_iter().flatten() {
                prop_assert_eq!(event.subject.source(), SOURCE);
                prop_assert!(event.event_type == WEBHOOK || event.event_type.contains('.'));
                prop_assert!(event.subject.as_str().len() <= LONGEST_SUBJECT);
                prop_assert!(!event.subject.as_str().contains(char::is_control));
            }
        }

        #[test]
        fn no_bytes_make_the_reader_panic(body in vec(any::<u8>(), 0..600)) {
            let said = lines(&body).count();
            prop_assert_eq!(read(&body).len(), said);
        }
    }
}
