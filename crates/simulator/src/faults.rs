//! Misbehaviour on request: what the network and the platform do to requests and webhooks.
//!
//! A *rule* meets requests by method and path and does one thing to them, some times, with some
//! probability, or always. The first rule that meets a request decides; where none does, one of the
//! [kinds](FaultKind) may strike at the rates of [`CallFaults`]. Chance is seeded, and apart from the
//! world's, so that faults do not change what the world does.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

use self::chance::Chance;
use crate::Mishap;
use crate::shared::lock;
use crate::world::{ErrorShape, Reply, error_body};

pub(crate) mod chance;
mod kinds;

pub use self::kinds::FaultKind;

/// Everything that goes wrong; the body of `PUT /_control/faults`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Rules for requests, in order of precedence.
    pub rules: Vec<Rule>,
    /// What strikes the requests that no rule meets.
    pub calls: CallFaults,
    /// What happens to webhooks.
    pub webhooks: WebhookFaults,
    /// What platform and people do by themselves: how often in a nominal hour, of the whole account.
    pub mishaps: BTreeMap<Mishap, f64>,
}

/// Faults of requests by chance; all values zero is nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CallFaults {
    /// Share of the requests that fail, from 0 to 1.
    pub rate: f64,
    /// Share of the failing ones that are carried out all the same, from 0 to 1.
    pub after_effect: f64,
    /// Kinds that strike; empty is all that another try mends and that take no time.
    pub kinds: Vec<FaultKind>,
    /// Real milliseconds by which [`FaultKind::LateReply`] is late.
    pub late_ms: u64,
}

/// One fault of requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Method and path, e.g. `POST /streaming/streams`, `PATCH /streaming/streams/*`, `* /**`. `*` is
    /// one method or one segment, `**` at the end is the rest, even if empty.
    #[serde(rename = "match")]
    pub matches: String,
    /// How often it still happens; `None` is without end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// Chance from 0 to 1 for each request; `None` is always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
    /// What happens.
    pub effect: Effect,
}

impl Rule {
    /// Makes a rule that meets every matching request.
    pub fn always(matches: &str, effect: Effect) -> Self {
        Self { matches: matches.to_owned(), times: None, probability: None, effect }
    }

    /// Makes a rule that meets the next `times` matching requests.
    pub fn times(times: u32, matches: &str, effect: Effect) -> Self {
        Self { times: Some(times), ..Self::always(matches, effect) }
    }

    /// Makes a rule that meets the next matching request.
    pub fn once(matches: &str, effect: Effect) -> Self {
        Self::times(1, matches, effect)
    }

    /// Makes a rule that meets a share of the matching requests, from 0 to 1.
    pub fn sometimes(probability: f64, matches: &str, effect: Effect) -> Self {
        Self { probability: Some(probability), ..Self::always(matches, effect) }
    }

    /// Whether a pattern, written as [`Self::matches`], meets a method and path.
    pub fn is_met(pattern: &str, method: &str, path: &str) -> bool {
        meets(pattern, method, path)
    }
}

/// What happens to a request. Times are real, not scaled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It is not carried out and answered with an error (or anything else).
    Status(Refusal),
    /// It is carried out and answered after so many milliseconds.
    LatencyMs(u64),
    /// It is not carried out and the connection is closed without an answer.
    Reset,
    /// It is not carried out, and the connection is closed without an answer so many milliseconds
    /// later: the caller's time-out, with nothing done.
    ResetAfterMs(u64),
    /// It *is* carried out and answered with an error: the ambiguous write.
    ApplyThenStatus(Refusal),
    /// It *is* carried out and the connection is closed without an answer.
    ApplyThenReset,
    /// It is carried out at once and answered so many milliseconds later: the caller's time-out.
    ApplyThenLatencyMs(u64),
}

/// An answer that is not the world's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// HTTP status, 200 to 599.
    pub status: u16,
    /// Shape of the body.
    #[serde(default = "default_shape")]
    pub shape: ErrorShape,
    /// Text inside the body.
    #[serde(default)]
    pub text: String,
    /// Headers, e.g. `Retry-After`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

impl Refusal {
    /// Makes an answer without headers.
    pub fn new(status: u16, shape: ErrorShape, text: &str) -> Self {
        Self { status, shape, text: text.to_owned(), headers: BTreeMap::new() }
    }

    /// Adds a header.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Returns status and body.
    pub(crate) fn reply(&self) -> Reply {
        Reply { status: self.status, body: error_body(self.shape, self.status, &self.text) }
    }
}

/// The shape of a refusal that names none.
fn default_shape() -> ErrorShape {
    ErrorShape::B
}

/// What happens to webhooks; all values zero is nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebhookFaults {
    /// Share that is never sent, from 0 to 1.
    pub lose: f64,
    /// Share that is sent twice, from 0 to 1.
    pub duplicate: f64,
    /// Each one (and each copy) waits up to so many real milliseconds and lets others overtake.
    pub delay_ms: u64,
    /// Share that lets others overtake, from 0 to 1: it waits up to [`late_ms`](Self::late_ms).
    pub reorder: f64,
    /// Longest wait of those, in real milliseconds.
    pub late_ms: u64,
    /// Only these types are touched, e.g. `["video"]`; empty is all.
    pub only: Vec<String>,
}

/// What is to happen to one webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fate {
    /// It is never sent.
    pub(crate) lost: bool,
    /// One extra wait for each time that it is sent.
    pub(crate) waits: Vec<Duration>,
}

/// The faults in force.
pub(crate) struct FaultBook {
    inner: Mutex<Inner>,
}

/// Faults and the chance that goes with them.
struct Inner {
    faults: Faults,
    calls: Chance,
    webhooks: Chance,
}

impl FaultBook {
    /// Makes a book without faults.
    pub(crate) fn new(seed: u64) -> Self {
        let (calls, webhooks) = (Chance::new(seed, "calls"), Chance::new(seed, "webhooks"));
        Self { inner: Mutex::new(Inner { faults: Faults::default(), calls, webhooks }) }
    }

    /// Replaces all faults.
    pub(crate) fn set(&self, faults: Faults) {
        lock(&self.inner).faults = faults;
    }

    /// Returns the faults in force; `times` has been counted down.
    pub(crate) fn current(&self) -> Faults {
        lock(&self.inner).faults.clone()
    }

    /// Chooses what happens to a request, and counts it.
    pub(crate) fn effect_on(&self, method: &str, path: &str) -> Option<Effect> {
        let mut inner = lock(&self.inner);
        let Inner { faults, calls, .. } = &mut *inner;
        let dice = &mut calls.next(&format!("{method} {path}"));
        for rule in &mut faults.rules {
            if rule.times == Some(0) || !meets(&rule.matches, method, path) {
                continue;
            }
            if rule.probability.is_some_and(|share| !happens(dice, share)) {
                continue;
            }
            rule.times = rule.times.map(|times| times - 1);
            return Some(rule.effect.clone());
        }
        kinds::strike(&faults.calls, dice, path)
    }

    /// Chooses what happens to a webhook about the object `id`.
    pub(crate) fn fate_of(&self, kind: &str, id: i64) -> Fate {
        let mut inner = lock(&self.inner);
        let Inner { faults, webhooks, .. } = &mut *inner;
        let dice = &mut webhooks.next(&format!("{kind} {id}"));
        let faults = &faults.webhooks;
        if !faults.only.is_empty() && !faults.only.iter().any(|only| only == kind) {
            return Fate { lost: false, waits: vec![Duration::ZERO] };
        }
        let lost = happens(dice, faults.lose);
        let copies = if happens(dice, faults.duplicate) { 2 } else { 1 };
        let wait = |dice: &mut StdRng| {
            let late = if happens(dice, faults.reorder) { faults.late_ms } else { 0 };
            Duration::from_millis(dice.random_range(0..=faults.delay_ms.max(late)))
        };
        let waits = (0..copies).map(|_| wait(dice)).collect();
        Fate { lost, waits }
    }
}

/// Throws the dice; anything outside 0 to 1 counts as the nearer end.
fn happens(rng: &mut StdRng, share: f64) -> bool {
    share > 0.0 && rng.random_bool(share.min(1.0))
}

/// True if a pattern meets a method and path.
fn meets(pattern: &str, method: &str, path: &str) -> bool {
    let Some((wanted_method, wanted_path)) = pattern.trim().split_once(' ') else { return false };
    let method_meets = wanted_method == "*" || wanted_method.eq_ignore_ascii_case(method);
    let mut wanted = segments(wanted_path);
    let mut given = segments(path);
    method_meets
        && loop {
            match (wanted.next(), given.next()) {
                (Some("**"), _) | (None, None) => break true,
                (Some(wanted), Some(given)) if wanted == "*" || wanted == given => {}
                _ => break false,
            }
        }
}

/// Returns the parts of a path between its slashes.
fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.trim().split('/').filter(|segment| !segment.is_empty())
}

#[cfg(test)]
mod tests;
