//! What may be done after a failure.
//!
//! The platform has no idempotency keys and uses PUT for actions that must not be repeated, so
//! the HTTP method decides nothing. Two things depend on the operation, by its class: what an
//! *unknown outcome* means (the request may have been carried out, its answer is lost), and what a
//! *missing* object means. The rest is the same for all. `docs/platform.md` has it as a table.
//!
//! Not the job of this module: how often and when to repeat.

use std::time::Duration;

use crate::{Class, Operation, refusal::Refusal};

/// What may be done after a failed call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Disposition {
    /// The goal already holds: the object to delete is not there.
    Done,
    /// Nothing was carried out, or repeating it changes nothing: repeat later.
    Retry {
        /// The earliest time for it that the platform named, counted from now.
        after: Option<Duration>,
    },
    /// The platform asks to wait, or lags behind its own webhook. No failure of the call; a limit
    /// on the waiting is the caller's, above all for a 404, which may also mean "gone".
    Wait {
        /// The time to wait that the platform named.
        after: Option<Duration>,
    },
    /// It may have been carried out, and repeating it would do harm: look first.
    Ambiguous,
    /// The same call will be refused again.
    Refused,
    /// The credentials do not work: stop the calls of this source and tell a person.
    Unauthorized,
    /// A limit of the account is reached: wait until something is freed, burn no attempts.
    Quota,
    /// The account lacks the feature: only a person can have it enabled.
    FeatureMissing,
}

impl Disposition {
    /// The name in snake case, for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Retry { .. } => "retry",
            Self::Wait { .. } => "wait",
            Self::Ambiguous => "ambiguous",
            Self::Refused => "refused",
            Self::Unauthorized => "unauthorized",
            Self::Quota => "quota",
            Self::FeatureMissing => "feature_missing",
        }
    }
}

/// What 404 means for an operation.
#[derive(Clone, Copy)]
enum Missing {
    /// The goal is reached.
    Goal,
    /// Perhaps the webhook was faster than the object.
    Lag,
    /// The path itself is wrong.
    Wrong,
}

/// What 404 means for operations of a class.
fn missing(class: Class) -> Missing {
    match class {
        Class::Delete => Missing::Goal,
        Class::Read | Class::Change | Class::Act | Class::Cancel => Missing::Lag,
        Class::List | Class::Create => Missing::Wrong,
    }
}

/// Whether a second time changes nothing more.
fn is_repeatable(class: Class) -> bool {
    match class {
        Class::Read | Class::List | Class::Change | Class::Delete | Class::Cancel => true,
        Class::Create | Class::Act => false,
    }
}

/// The disposition after an answer that is no success.
pub(crate) fn of_answer(
    operation: Operation,
    status: u16,
    refusal: &Refusal,
    retry_after: Option<Duration>,
) -> Disposition {
    let wait = Disposition::Wait { after: retry_after };
    let class = operation.class();
    match (status, missing(class)) {
        (401, _) => Disposition::Unauthorized,
        // A page for people comes from a proxy, which knows nothing of the object.
        (404 | 410, Missing::Goal) if refusal.is_markup() => wait,
        (404 | 410, Missing::Goal) => Disposition::Done,
        (412, _) if class == Class::Cancel && refusal.is_markup() => wait,
        // What has ended cannot be stopped.
        (412, _) if class == Class::Cancel => Disposition::Done,
        (404, Missing::Lag) | (425, _) => wait,
        // With Retry-After the server says that it did not take the request.
        (503, _) if retry_after.is_some() => wait,
        (408 | 500..=599, _) => of_unknown(operation, retry_after),
        // 2xx: a success with errors inside.
        (200..=299 | 400 | 402 | 403 | 409 | 422 | 429, _) => {
            of_refusal(status, refusal, retry_after)
        }
        _ => Disposition::Refused,
    }
}

/// The disposition after a status that may stand for a limit: the text decides.
///
/// No public document says how a reached quota is answered, so every plausible status counts.
fn of_refusal(status: u16, refusal: &Refusal, retry_after: Option<Duration>) -> Disposition {
    if refusal.names_missing_feature() {
        return Disposition::FeatureMissing;
    }
    if refusal.names_request_rate() || (status == 429 && retry_after.is_some()) {
        return Disposition::Wait { after: retry_after };
    }
    if refusal.names_quota() || (status == 403 && refusal.is_lack_of_capacity()) {
        return Disposition::Quota;
    }
    match status {
        403 => Disposition::Unauthorized,
        409 | 429 => Disposition::Wait { after: retry_after },
        _ => Disposition::Refused,
    }
}

/// The disposition when the request may have been carried out and no usable answer came.
pub(crate) fn of_unknown(operation: Operation, after: Option<Duration>) -> Disposition {
    if is_repeatable(operation.class()) {
        Disposition::Retry { after }
    } else {
        Disposition::Ambiguous
    }
}

/// Whether the operation names one object, so that 404 speaks of this object.
pub(crate) fn is_on_object(operation: Operation) -> bool {
    !matches!(missing(operation.class()), Missing::Wrong)
}

#[cfg(test)]
mod tests;
