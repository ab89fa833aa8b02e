//! What an answer comes to: success, another try, or the end; and what is kept of its body.
//!
//! The status decides by itself. 408, 425, 429 and 5xx pass, and so does a call without an answer:
//! the caller sends an idempotency key with it, or it changes nothing. Every other status will be
//! the same the next time.

use std::time::Duration;

use reqwest::Response;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::{OutboundError, Reply, guard::ForbiddenAddress};
use crate::{Disposition, http, redact, refusal::Refusal};

/// Most bytes of a body that are kept: what a service answers to a call, not what it stores.
const KEPT: usize = 16 * 1024;

/// What stands in the place of a secret.
const MASK: &str = "***";

/// Reads an answer.
pub(super) async fn read(
    what: &str,
    mut response: Response,
    expect: &[u16],
    secrets: &[SecretString],
) -> Result<Reply, OutboundError> {
    let status = response.status().as_u16();
    let retry_after = http::retry_after(response.headers());
    let secrets = spelt(secrets);
    // A secret that begins within what is kept must be seen whole to be masked.
    let longest = secrets.iter().map(|s| s.expose_secret().len()).max().unwrap_or_default();
    let (bytes, is_cut) = take(&mut response, KEPT + longest).await;
    match judge(status, expect, retry_after) {
        None => Ok(kept(status, &bytes, is_cut, &secrets)),
        Some(disposition) => {
            let said = Refusal::read(&bytes, &secrets).message;
            let said = if said.is_empty() { "nothing".to_owned() } else { said };
            let hint = if (300..400).contains(&status) { ", and is not followed" } else { "" };
            Err(OutboundError {
                message: format!("{what} answered {status}{hint}: {said}"),
                status: Some(status),
                disposition,
                source: None,
                is_sent: true,
            })
        }
    }
}

/// What a status asks for; `None`: it is a success.
pub(super) fn judge(
    status: u16,
    expect: &[u16],
    retry_after: Option<Duration>,
) -> Option<Disposition> {
    let is_expected =
        if expect.is_empty() { (200..300).contains(&status) } else { expect.contains(&status) };
    match status {
        _ if is_expected => None,
        408 | 425 | 429 | 500..=599 => Some(Disposition::Retry { after: retry_after }),
        _ => Some(Disposition::Refused),
    }
}

/// A call without an answer.
pub(super) fn broken(what: &str, error: reqwest::Error) -> OutboundError {
    let error = error.without_url();
    if let Some(forbidden) = forbidden(&error) {
        return OutboundError::refused(forbidden.to_string());
    }
    let how = if error.is_connect() || error.is_builder() {
        "no connection, nothing was sent"
    } else if error.is_timeout() {
        "no answer in time, the outcome is unknown"
    } else {
        "the connection broke, the outcome is unknown"
    };
    OutboundError {
        message: format!("{what}: {how}"),
        status: None,
        disposition: Disposition::Retry { after: None },
        source: Some(Box::new(error)),
        is_sent: true,
    }
}

/// The guard's word, if it is among the causes.
fn forbidden(error: &reqwest::Error) -> Option<&ForbiddenAddress> {
    let mut cause = std::error::Error::source(error);
    while let Some(current) = cause {
        if let Some(found) = current.downcast_ref() {
            return Some(found);
        }
        cause = current.source();
    }
    None
}

/// The first bytes of a body, and whether there was more, or it broke off: the status has told the
/// outcome already.
async fn take(response: &mut Response, most: usize) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => return (bytes, false),
            Err(_) => return (bytes, true),
        }
        if bytes.len() > most {
            bytes.truncate(most);
            return (bytes, true);
        }
    }
}

/// What is kept of a success.
fn kept(status: u16, bytes: &[u8], is_cut: bool, secrets: &[SecretString]) -> Reply {
    let is_cut = is_cut || bytes.len() > KEPT;
    let json = (!is_cut).then(|| serde_json::from_slice::<Value>(bytes).ok()).flatten();
    let body = match json {
        Some(value) => mask(value, secrets),
        None if bytes.is_empty() => Value::Null,
        None => {
            let mut text = mask_text(&String::from_utf8_lossy(bytes), secrets);
            text.truncate(text.floor_char_boundary(KEPT));
            Value::String(text)
        }
    };
    Reply { status, body, is_cut }
}

/// Masks secrets wherever they stand, and fields whose names say that they hold one.
fn mask(value: Value, secrets: &[SecretString]) -> Value {
    match value {
        Value::String(text) => Value::String(mask_text(&text, secrets)),
        Value::Array(items) => items.into_iter().map(|item| mask(item, secrets)).collect(),
        Value::Object(fields) => {
            let field = |(name, value): (String, Value)| {
                let is_secret = redact::has_secret_word(&name);
                let value = if is_secret { MASK.into() } else { mask(value, secrets) };
                (mask_text(&name, secrets), value)
            };
            Value::Object(fields.into_iter().map(field).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value,
    }
}

/// Masks secrets; and U+0000, which PostgreSQL does not hold in a text.
fn mask_text(text: &str, secrets: &[SecretString]) -> String {
    let mut text = text.replace('\0', "\u{fffd}");
    for secret in secrets {
        text = text.replace(secret.expose_secret(), MASK);
    }
    text
}

/// The secrets as an answer may spell them: whole, and without the scheme before them. Longer ones
/// come first, so that none leaves a rest of another.
fn spelt(secrets: &[SecretString]) -> Vec<SecretString> {
    let words = secrets.iter().flat_map(|secret| {
        let whole = secret.expose_secret();
        let last = whole.rsplit(' ').next().unwrap_or(whole);
        [whole.to_owned(), last.to_owned()]
    });
    let mut all: Vec<String> = words.filter(|word| word.len() >= 4).collect();
    all.sort_by_key(|word| std::cmp::Reverse(word.len()));
    all.dedup();
    all.into_iter().map(SecretString::from).collect()
}
