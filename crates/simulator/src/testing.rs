//! A platform without a network and without a clock of its own, for simulations in virtual time.
//!
//! The *offline* platform is the same world under the same faults; its caller brings the requests
//! and the time, and carries the webhooks. One seed, the same requests and times: the same answers
//! and webhooks. Not its job: latency, and the order in which webhooks overtake each other beyond
//! what their fates say.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use crate::faults::FaultBook;
use crate::world::{Action, Reply, ReplyBody, Request, World};
use crate::{Config, ControlError, Effect, Faults, Line, Mishap};

/// A request of the platform's API.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Upper-case method.
    pub method: String,
    /// Path without the query.
    pub path: String,
    /// Decoded query, in order.
    pub query: Vec<(String, String)>,
    /// Value of the header `Authorization`.
    pub authorization: String,
    /// The body.
    pub body: Vec<u8>,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It was answered.
    Answered {
        /// The HTTP status.
        status: u16,
        /// What `Retry-After` says.
        retry_after: Option<String>,
        /// The body.
        body: Vec<u8>,
        /// Milliseconds by which a fault delays the answer.
        late_ms: u64,
    },
    /// The connection was closed without an answer.
    Closed,
}

/// What an encoder does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoder {
    /// It connects, or comes back.
    Push,
    /// Its connection breaks.
    Drop,
    /// It ends properly.
    Stop,
}

/// A platform in memory.
pub struct Offline {
    world: World,
    faults: FaultBook,
    /// Webhooks on their way, by when they arrive; those of one moment in the order of their causes.
    on_their_way: BTreeMap<(DateTime<Utc>, u64), String>,
    sent: u64,
}

impl Offline {
    /// An empty account. Address, webhook address and time-outs of the settings play no part.
    pub fn new(config: &Config) -> Self {
        let offline = Self {
            world: World::new(config),
            faults: FaultBook::new(config.seed),
            on_their_way: BTreeMap::new(),
            sent: 0,
        };
        offline.faults.set(config.faults.clone());
        offline
    }

    /// Answers a request under the faults in force.
    pub fn ask(&mut self, now: DateTime<Utc>, asked: Asked) -> Outcome {
        let effect = self.faults.effect_on(&asked.method, &asked.path);
        let request = Request {
            method: asked.method,
            path: asked.path,
            query: asked.query,
            authorization: Some(asked.authorization),
            body: asked.body.into(),
        };
        let (reply, retry_after, late_ms) = match effect {
            None => (self.apply(now, &request), None, 0),
            Some(Effect::Status(refusal)) => {
                (refusal.reply(), refusal.headers.get("Retry-After").cloned(), 0)
            }
            Some(Effect::LatencyMs(late) | Effect::ApplyThenLatencyMs(late)) => {
                (self.apply(now, &request), None, late)
            }
            // Who waits for an answer that does not come learns as much as who is cut off.
            Some(Effect::Reset | Effect::ResetAfterMs(_)) => return Outcome::Closed,
            Some(Effect::ApplyThenStatus(refusal)) => {
                self.apply(now, &request);
                (refusal.reply(), refusal.headers.get("Retry-After").cloned(), 0)
            }
            Some(Effect::ApplyThenReset) => {
                self.apply(now, &request);
                return Outcome::Closed;
            }
        };
        let body = match reply.body {
            ReplyBody::Empty => Vec::new(),
            ReplyBody::Json(document) => document.to_string().into_bytes(),
            ReplyBody::Text(text) => text.into_bytes(),
        };
        Outcome::Answered { status: reply.status, retry_after, body, late_ms }
    }

    fn apply(&mut self, now: DateTime<Utc>, request: &Request) -> Reply {
        let reply = self.world.request(now, request);
        self.dispatch();
        reply
    }

    /// Does what is due by now.
    pub fn advance(&mut self, now: DateTime<Utc>) {
        self.world.advance(now);
        self.dispatch();
    }

    /// When the world does something, or a webhook arrives, next.
    pub fn next_due(&self) -> Option<DateTime<Utc>> {
        let arrives = self.on_their_way.keys().next().map(|(at, _)| *at);
        self.world.next_due().into_iter().chain(arrives).min()
    }

    /// The bodies of the webhooks that have arrived by now, in order.
    pub fn arrived(&mut self, now: DateTime<Utc>) -> Vec<String> {
        self.advance(now);
        let mut arrived = Vec::new();
        while let Some(first) = self.on_their_way.first_entry().filter(|one| one.key().0 <= now) {
            arrived.push(first.remove());
        }
        arrived
    }

    /// Lets an encoder act.
    ///
    /// # Errors
    /// As the platform refuses it.
    pub fn encoder(
        &mut self,
        now: DateTime<Utc>,
        stream: i64,
        line: Line,
        act: Encoder,
    ) -> Result<(), ControlError> {
        let action = match act {
            Encoder::Push => Action::Push,
            Encoder::Drop => Action::Drop,
            Encoder::Stop => Action::Stop,
        };
        let done = self.world.encoder(now, stream, line, action);
        self.dispatch();
        done
    }

    /// Lets platform or people do something by themselves. Returns whether there was anything that
    /// it could happen to.
    pub fn strike(&mut self, now: DateTime<Utc>, mishap: Mishap, stream: Option<i64>) -> bool {
        let struck = self.world.mishap(now, mishap, stream);
        self.dispatch();
        struck
    }

    /// Replaces all faults.
    pub fn faults(&mut self, now: DateTime<Utc>, faults: Faults) {
        self.world.set_mishaps(now, &faults.mishaps);
        self.faults.set(faults);
    }

    /// What really happened: the run, then each live stream, as the lines of `GET /_truth`.
    pub fn truth(&mut self, now: DateTime<Utc>) -> Vec<Value> {
        self.world.truth(now, 0, usize::MAX)
    }

    /// The state as it is, for people, without the push tokens.
    pub fn state(&mut self, now: DateTime<Utc>) -> Value {
        crate::redact::redacted(&self.world.state(now))
    }

    /// Sends the webhooks that were decided on their way, as their fates have it.
    fn dispatch(&mut self) {
        for webhook in self.world.take_webhooks() {
            let fate = self.faults.fate_of(webhook.kind, webhook.about);
            if fate.lost {
                continue;
            }
            for wait in fate.waits {
                self.sent += 1;
                let at = webhook.due + TimeDelta::from_std(wait).unwrap_or_default();
                self.on_their_way.insert((at, self.sent), webhook.body.to_string());
            }
        }
    }
}
