//! The kinds of faults that strike requests by chance: what the network, the gateway and the service
//! behind it do, before the effect of a request or after it.
//!
//! One line of the table is one kind. What platform and people do by themselves is a `Mishap`.

use std::fmt;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use rand::RngExt;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

use super::{CallFaults, Effect, Refusal};
use crate::world::ErrorShape;

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FaultKind {
    /// 500, 502, 503 or 504 in one of the documented shapes, not carried out.
    ServerError,
    /// 502, 503 or 504 as a proxy's HTML page, not carried out.
    ProxyPage,
    /// 408, 409 or 425: try again, not carried out.
    Busy,
    /// 429 with `Retry-After` in seconds.
    RateLimitSeconds,
    /// 429 with `Retry-After` as a date.
    RateLimitDate,
    /// 429 without `Retry-After`.
    RateLimitSilent,
    /// The connection is closed without an answer, not carried out.
    Reset,
    /// Not carried out, and no answer until the caller has given up.
    Silence,
    /// 200 whose body is an error: `start_recording` only, the one documented place.
    #[serde(rename = "error_in_200")]
    ErrorIn200,
    /// 401: the token is said to be expired.
    ExpiredToken,
    /// 400, 403, 404, 410 or 422 in one of the documented shapes, for a request that is in order.
    Refused,
    /// Carried out, and the connection closed without an answer.
    LostReply,
    /// Carried out, and answered so late that the caller has given up.
    LateReply,
    /// Carried out, and answered 500, 502, 503 or 504 in one of the documented shapes.
    ServerErrorAfter,
    /// Carried out, and answered by a proxy's HTML page.
    ProxyPageAfter,
    /// A `stop_recording` that made a video, answered as if there were none.
    EmptyStop,
}

impl FaultKind {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::ServerError,
        Self::ProxyPage,
        Self::Busy,
        Self::RateLimitSeconds,
        Self::RateLimitDate,
        Self::RateLimitSilent,
        Self::Reset,
        Self::Silence,
        Self::ErrorIn200,
        Self::ExpiredToken,
        Self::Refused,
        Self::LostReply,
        Self::LateReply,
        Self::ServerErrorAfter,
        Self::ProxyPageAfter,
        Self::EmptyStop,
    ];

    /// Whether the request is carried out all the same.
    pub fn is_after_effect(self) -> bool {
        match self {
            Self::ServerError
            | Self::ProxyPage
            | Self::Busy
            | Self::RateLimitSeconds
            | Self::RateLimitDate
            | Self::RateLimitSilent
            | Self::Reset
            | Self::Silence
            | Self::ErrorIn200
            | Self::ExpiredToken
            | Self::Refused => false,
            Self::LostReply
            | Self::LateReply
            | Self::ServerErrorAfter
            | Self::ProxyPageAfter
            | Self::EmptyStop => true,
        }
    }

    /// Whether it strikes where no kinds are named. Left out are those that another try does not
    /// mend, and those whose length is to be chosen.
    fn is_usual(self) -> bool {
        !matches!(
            self,
            Self::Silence | Self::ErrorIn200 | Self::ExpiredToken | Self::Refused | Self::LateReply
        )
    }

    /// Whether it can strike a request.
    fn meets(self, path: &str) -> bool {
        self.place().is_none_or(|place| path.ends_with(place))
    }

    /// The end of the only paths that it strikes, if it does not strike all.
    pub(super) fn place(self) -> Option<&'static str> {
        if self == Self::ErrorIn200 {
            Some("/start_recording")
        } else {
            (self == Self::EmptyStop).then_some("/stop_recording")
        }
    }

    /// What happens.
    pub(crate) fn effect(self, dice: &mut StdRng, faults: &CallFaults) -> Effect {
        match self {
            Self::ServerError => Effect::Status(server_error(dice)),
            Self::ProxyPage => Effect::Status(proxy_page(dice)),
            Self::Busy => {
                let status = pick(dice, &[408, 409, 425]);
                Effect::Status(Refusal::new(status, shape(dice), "Try again later"))
            }
            Self::RateLimitSeconds => Effect::Status(rate_limit(dice, Some("1".to_owned()))),
            Self::RateLimitDate => Effect::Status(rate_limit(dice, Some(http_date(2)))),
            Self::RateLimitSilent => Effect::Status(rate_limit(dice, None)),
            Self::Reset => Effect::Reset,
            Self::Silence => Effect::ResetAfterMs(faults.late_ms),
            Self::ErrorIn200 => Effect::Status(Refusal::new(
                200,
                ErrorShape::F,
                "Recording was not started, try again",
            )),
            Self::ExpiredToken => {
                Effect::Status(Refusal::new(401, ErrorShape::E, "Token is invalid or expired"))
            }
            Self::Refused => {
                let status = pick(dice, &[400, 403, 404, 410, 422]);
                Effect::Status(Refusal::new(status, shape(dice), "Request was refused"))
            }
            Self::LostReply => Effect::ApplyThenReset,
            Self::LateReply => Effect::ApplyThenLatencyMs(faults.late_ms),
            Self::ServerErrorAfter => Effect::ApplyThenStatus(server_error(dice)),
            Self::ProxyPageAfter => Effect::ApplyThenStatus(proxy_page(dice)),
            Self::EmptyStop => Effect::ApplyThenStatus(Refusal::new(200, ErrorShape::Empty, "")),
        }
    }
}

/// As in the configuration.
impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = serde_json::to_value(self).unwrap_or_default();
        f.write_str(name.as_str().unwrap_or_default())
    }
}

/// Chooses what happens to a request, if anything does.
pub(crate) fn strike(faults: &CallFaults, dice: &mut StdRng, path: &str) -> Option<Effect> {
    if !super::happens(dice, faults.rate) {
        return None;
    }
    let after = super::happens(dice, faults.after_effect);
    let is_wanted = |kind: &FaultKind| {
        if faults.kinds.is_empty() { kind.is_usual() } else { faults.kinds.contains(kind) }
    };
    let wanted: Vec<FaultKind> =
        FaultKind::ALL.into_iter().filter(|kind| is_wanted(kind) && kind.meets(path)).collect();
    // Where only one sort was asked for, the other one's share is its own.
    let of_sort: Vec<FaultKind> =
        wanted.iter().copied().filter(|kind| kind.is_after_effect() == after).collect();
    let kinds = if of_sort.is_empty() { wanted } else { of_sort };
    if kinds.is_empty() {
        return None;
    }
    let kind = pick(dice, &kinds);
    tracing::debug!(%kind, path, "a fault strikes");
    Some(kind.effect(dice, faults))
}

/// One of several.
fn pick<T: Copy>(dice: &mut StdRng, from: &[T]) -> T {
    from[dice.random_range(0..from.len())]
}

/// One of the shapes of the contract.
fn shape(dice: &mut StdRng) -> ErrorShape {
    use ErrorShape::{A, B, C, D, E, Empty};
    pick(dice, &[A, B, C, D, E, Empty])
}

/// The service has failed.
fn server_error(dice: &mut StdRng) -> Refusal {
    let status = pick(dice, &[500, 502, 503, 504]);
    Refusal::new(status, shape(dice), "Internal Server Error")
}

/// A gateway has failed.
fn proxy_page(dice: &mut StdRng) -> Refusal {
    let status = pick(dice, &[502, 503, 504]);
    let page = format!("<html><head><title>{status}</title></head><body>nginx</body></html>");
    Refusal::new(status, ErrorShape::Raw, &page)
}

/// Too many requests.
fn rate_limit(dice: &mut StdRng, retry_after: Option<String>) -> Refusal {
    let refusal = Refusal::new(429, shape(dice), "Too many requests");
    match retry_after {
        Some(value) => refusal.with_header("Retry-After", &value),
        None => refusal,
    }
}

/// A moment some seconds from now, as HTTP writes it.
fn http_date(seconds: u64) -> String {
    let at: DateTime<Utc> = (SystemTime::now() + Duration::from_secs(seconds)).into();
    at.format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}
