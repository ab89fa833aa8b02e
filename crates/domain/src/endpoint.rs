//! Endpoints: addresses of the product that messages are sent to, signed by the Standard Webhooks
//! specification.
//!
//! A [`Filter`] says which messages an endpoint hears; a [`Secret`] signs them. Each message to an
//! endpoint is one job, [`delivery`], decided where the announcement is folded. Not its job: where
//! endpoints are kept, and what becomes of a message that is not accepted.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use uuid::Uuid;

use crate::announcement::{Announcement, TOPICS, topic};
use crate::effect::NewJob;
use crate::event::RecordedEvent;
use crate::ids::{Subject, Timestamp, derived_id};

/// Kind of the job that sends one message to one endpoint.
pub const DELIVER: &str = "deliver_webhook";

/// The queue of these jobs, by which all of them can be paused.
pub const QUEUE: &str = "webhooks";

/// Failures after which a message is given up: one for each try of the specification's example
/// schedule.
pub const MAX_ATTEMPTS: i32 = 10;

/// Behind platform calls, which the audience sees the sooner.
const PRIORITY: i16 = 3;

/// How a secret's text begins.
const SECRET_PREFIX: &str = "whsec_";

/// What an endpoint hears. An empty list lets everything through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Topics, or beginnings of topics before a `*`.
    pub types: Vec<String>,
    /// Accounts of the product, as the log names them.
    pub accounts: Vec<String>,
    /// Sources.
    pub sources: Vec<String>,
}

impl Filter {
    /// Whether it lets `announcement` through, which was announced on a subject of `source`.
    pub fn hears(&self, source: &str, announcement: &Announcement) -> bool {
        let topic = topic(announcement.name()).unwrap_or_default();
        let account = announcement.account();
        let is_of_source = || self.sources.iter().any(|wanted| wanted == source);
        let is_of_account = || self.accounts.iter().any(|wanted| Some(wanted.as_str()) == account);
        let is_of_type = || self.types.iter().any(|pattern| matches(pattern, topic));
        (self.types.is_empty() || is_of_type())
            && (self.accounts.is_empty() || is_of_account())
            && (self.sources.is_empty() || is_of_source())
    }
}

/// Whether a topic is meant by a pattern: the topic itself, or its beginning before a `*`.
pub fn matches(pattern: &str, topic: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => topic.starts_with(beginning),
        None => pattern == topic,
    }
}

/// Whether a pattern means any topic of this build.
pub fn is_pattern(pattern: &str) -> bool {
    TOPICS.iter().any(|(_, topic)| matches(pattern, topic))
}

/// What messages to an endpoint are signed with.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret([redacted])")
    }
}

impl Secret {
    /// The secret of these bytes, which nobody can guess.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The text that the product is given, once.
    pub fn text(&self) -> String {
        format!("{SECRET_PREFIX}{}", STANDARD.encode(self.0))
    }

    /// The signature of a message, as the header carries it. `at` is in seconds since 1970.
    pub fn sign(&self, id: &str, at: i64, body: &str) -> String {
        format!("v1,{}", STANDARD.encode(mac(&self.0, id, at, body)))
    }
}

/// HMAC-SHA256 over id, time and body, joined by dots.
fn mac(key: &[u8], id: &str, at: i64, body: &str) -> Vec<u8> {
    // HMAC takes a key of any length, so there is always one.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Vec::new() };
    mac.update(format!("{id}.{at}.{body}").as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// Arguments of a [`DELIVER`] job: which message goes where. What it says is read from the log when
/// it is sent, so that no job holds a personal value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeliverArgs {
    /// The endpoint.
    pub endpoint: Uuid,
    /// What is sent.
    pub message: Told,
}

/// What a delivery tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// The announcement at this slice and position.
    At(i16, i64),
    /// Nothing but that the endpoint is tried; made then.
    Test(Timestamp),
}

/// The job that sends the message of `stored` to `endpoint`; folding the event again makes the same
/// job. It lies in the slice of the event, so that the reaction stays there.
pub fn delivery(endpoint: Uuid, stored: &RecordedEvent) -> NewJob {
    let args = DeliverArgs { endpoint, message: Told::At(stored.slice, stored.position) };
    NewJob {
        id: delivery_id(endpoint, stored.slice, stored.position),
        kind: DELIVER.to_owned(),
        subject: Subject::delivery(endpoint, &stored.subject),
        args: serde_json::to_value(args).unwrap_or_default(),
        // The database's time, which never falls within a slice: messages are due in their order.
        run_at: stored.recorded_at,
        priority: PRIORITY,
        max_attempts: MAX_ATTEMPTS,
        once_for: None,
        causation_id: Some(stored.event_id),
        correlation_id: stored.correlation_id,
        trace: stored.trace().map(str::to_owned),
    }
}

/// An id that sorts by the position: of those that are due at one time the earlier message is first.
fn delivery_id(endpoint: Uuid, slice: i16, position: i64) -> Uuid {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&position.to_be_bytes());
    bytes[8..10].copy_from_slice(&slice.to_be_bytes());
    let own = derived_id("delivery", &[&endpoint.to_string()]);
    bytes[10..].copy_from_slice(&own.as_bytes()[..6]);
    Uuid::from_bytes(bytes)
}

#[cfg(test)]
mod tests;
