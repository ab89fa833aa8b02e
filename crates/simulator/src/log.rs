//! What was asked and what was sent, in order, for tests and for people.
//!
//! Requests are kept without secrets. Each log holds the last [`CAPACITY`] entries, so that a
//! simulator may run for days.

use std::collections::VecDeque;
use std::sync::Mutex;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;

use crate::redact::redacted;
use crate::shared::lock;
use crate::world::{Reply, ReplyBody};

/// Entries kept in each log: far more than a test makes, and some tens of megabytes.
const CAPACITY: usize = 20_000;

/// One request of the platform's API.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RequestLogEntry {
    /// Order of arrival, from 1.
    pub seq: u64,
    /// When it arrived.
    pub at: DateTime<Utc>,
    /// Upper-case method.
    pub method: String,
    /// Path without the query.
    pub path: String,
    /// Query as written, without the question mark; empty if there is none.
    pub query: String,
    /// Body without secrets; `None` if there is none or it is not JSON.
    pub body: Option<Value>,
    /// Status as sent; 0 while it is not answered, and for ever if the connection was closed.
    pub status: u16,
    /// JSON body of the answer without secrets.
    pub response: Option<Value>,
}

/// One webhook whose turn has come.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct WebhookLogEntry {
    /// Order of sending, from 1.
    pub seq: u64,
    /// When its turn came.
    pub at: DateTime<Utc>,
    /// The value of `type`.
    pub kind: String,
    /// The whole body.
    pub body: Value,
    /// Status of the receiver's answer; `None` if there was none.
    pub status: Option<u16>,
    /// What became of it.
    pub outcome: WebhookOutcome,
}

/// What became of a webhook. None of them is ever sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WebhookOutcome {
    /// The receiver answered, with whatever status.
    Answered,
    /// The receiver did not answer in time; it may have it.
    TimedOut,
    /// The receiver was not reached, or closed the connection.
    Failed,
    /// It was never sent: a fault.
    Lost,
    /// It was never sent: nobody has said where to.
    NoReceiver,
}

/// The last entries of something, numbered from 1.
pub(crate) struct Log<T> {
    inner: Mutex<Entries<T>>,
}

/// Entries and how many there ever were.
struct Entries<T> {
    kept: VecDeque<T>,
    count: u64,
}

impl<T: Clone> Log<T> {
    /// Makes an empty log.
    pub(crate) fn new() -> Self {
        Self { inner: Mutex::new(Entries { kept: VecDeque::new(), count: 0 }) }
    }

    /// Adds the entry that `make` builds from its number, which is returned.
    pub(crate) fn add(&self, make: impl FnOnce(u64) -> T) -> u64 {
        let mut log = lock(&self.inner);
        log.count += 1;
        let seq = log.count;
        if log.kept.len() == CAPACITY {
            log.kept.pop_front();
        }
        log.kept.push_back(make(seq));
        seq
    }

    /// Returns how many there ever were.
    pub(crate) fn count(&self) -> u64 {
        lock(&self.inner).count
    }

    /// Returns all entries that are kept.
    pub(crate) fn all(&self) -> Vec<T> {
        lock(&self.inner).kept.iter().cloned().collect()
    }

    /// Changes the entry with a number, if it is still kept.
    fn change(&self, seq: u64, change: impl FnOnce(&mut T)) {
        let mut log = lock(&self.inner);
        let from_end = usize::try_from(log.count.saturating_sub(seq)).unwrap_or(usize::MAX);
        let index = log.kept.len().checked_sub(from_end.saturating_add(1));
        if let Some(entry) = index.and_then(|index| log.kept.get_mut(index)) {
            change(entry);
        }
    }
}

impl Log<RequestLogEntry> {
    /// Notes the answer to a request.
    pub(crate) fn answered(&self, seq: u64, reply: &Reply) {
        let response = match &reply.body {
            ReplyBody::Json(document) => Some(redacted(document)),
            ReplyBody::Empty | ReplyBody::Text(_) => None,
        };
        self.change(seq, |entry| {
            entry.status = reply.status;
            entry.response = response;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::{CAPACITY, Log};

    #[test]
    fn the_oldest_entries_make_room_and_numbers_go_on() {
        let log = Log::new();
        let count = u64::try_from(CAPACITY).unwrap() + 5;
        for _ in 0..count {
            log.add(|seq| (seq, false));
        }
        log.change(count, |entry| entry.1 = true);
        log.change(1, |entry| entry.1 = true);
        let kept = log.all();
        assert_eq!(kept.len(), CAPACITY);
        assert_eq!(kept.first(), Some(&(6, false)));
        assert_eq!(kept.last(), Some(&(count, true)));
    }
}
