//! What answers come to, in forms that can be compared.

use std::fmt::Debug;

use domain::event::RecordedEvent;
use store::{Error, Lease, Started};
use uuid::Uuid;

/// What an answer comes to: the value, or the kind of its error.
pub(in super::super) fn told<T: Debug>(answer: Result<T, Error>) -> String {
    match answer {
        Ok(value) => format!("{value:?}"),
        Err(error) => kind_of(&error).to_owned(),
    }
}

pub(super) fn told_lease(answer: Result<Option<Lease>, Error>) -> String {
    told(answer.map(|lease| lease.map(|l| (l.slice, l.epoch, l.position, l.recorded_at))))
}

pub(super) fn told_starts(started: Vec<Started>) -> Vec<(Uuid, i32, i32, Option<String>)> {
    let told_one = |s: Started| (s.id, s.attempt, s.crashes, s.args.map(|args| args.to_string()));
    sorted(started.into_iter().map(told_one).collect())
}

pub(super) fn told_events(events: &[RecordedEvent]) -> Vec<String> {
    events.iter().map(super::super::dump::event).collect()
}

pub(super) fn sorted<T: Ord>(mut values: Vec<T>) -> Vec<T> {
    values.sort();
    values
}

/// What kind of error it is: what callers tell apart.
pub(super) fn kind_of(error: &Error) -> &'static str {
    if let Error::Fenced { .. } = error {
        "fenced"
    } else if let Error::Data { .. } = error {
        "refused"
    } else if let Error::Invalid { .. } = error {
        "invalid"
    } else if let Error::TooMany { .. } = error {
        "too many"
    } else if let Error::NoSuchJob { .. } = error {
        "no such job"
    } else if let Error::NotParked { .. } = error {
        "not parked"
    } else if let Error::RequestReplaced { .. } = error {
        "replaced"
    } else if let Error::Hole { .. } = error {
        "hole"
    } else {
        panic!("an error that no call should come to: {error:?}")
    }
}
