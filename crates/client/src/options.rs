//! The options of a job, one method each. What they mean together stands in Tallylight's docs/jobs.md;
//! what is wrong with them, the SQL function says.

use std::time::Duration;

use serde::Serialize;

use crate::Job;

/// What a key that is taken comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OnConflict {
    /// The job that has it stays as it is, and its id is returned. So it is where nothing is set.
    Existing,
    /// The job that has it stays as it is, and no id is returned.
    Ignore,
    /// The job that waits gets the new arguments, and `run_at` and `priority` where they are set.
    Replace,
    /// The job that waits is due at the new time, if that is later; its arguments stay.
    Debounce,
}

/// How long a job has its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum KeyStates {
    /// Until it has ended. So it is where nothing is set.
    Live,
    /// Until its first start.
    UntilStarted,
}

/// The options that the SQL function takes as they are.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Options {
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_conflict: Option<OnConflict>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_states: Option<KeyStates>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_period: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit_waiting: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ordered: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fair_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) wait_for: Option<WaitFor>,
}

/// An event that a job waits for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct WaitFor {
    pub(crate) subject: String,
    pub(crate) types: Vec<String>,
    pub(crate) timeout: u64,
}

impl Job {
    /// What it is about, 1 to 1024 bytes. Jobs of one subject run one at a time.
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.options.subject = Some(subject.into());
        self
    }

    /// Its key, 1 to 512 bytes: at most one live job of the kind and subject has it. Once that job
    /// has ended, the key is free again, unless [`Job::key_states`] or [`Job::key_period`] says
    /// otherwise.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.options.key = Some(key.into());
        self
    }

    /// What it comes to where the key is taken. [`OnConflict::Replace`] and [`OnConflict::Debounce`]
    /// change a job that has not started, so the key then holds until the start.
    pub fn on_conflict(mut self, then: OnConflict) -> Self {
        self.options.on_conflict = Some(then);
        self
    }

    /// How long it has its key.
    pub fn key_states(mut self, states: KeyStates) -> Self {
        self.options.key_states = Some(states);
        self
    }

    /// How long the key is taken from the enqueue on, also when the job has ended before: in whole
    /// seconds, a part of one counted as one; up to three years.
    pub fn key_period(mut self, period: Duration) -> Self {
        let part = u64::from(period.subsec_nanos() > 0);
        self.options.key_period = Some(period.as_secs().saturating_add(part));
        self
    }

    /// 1 (first) to 4; 2 where none is set.
    pub fn priority(mut self, priority: u8) -> Self {
        self.options.priority = Some(priority);
        self
    }

    /// Failures after which it is given up, from 1; 14 where none is set.
    pub fn max_attempts(mut self, max_attempts: u32) -> Self {
        self.options.max_attempts = Some(max_attempts);
        self
    }

    /// What it can be paused with: 1 to 63 of `a-z`, `0-9`, `_` and `-`; `default` where none is set.
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.options.queue = Some(queue.into());
        self
    }

    /// What is limited in the place of its subject, 1 to 1024 bytes: jobs of it run one at a time, or
    /// as many at once as [`Job::limit`] says.
    pub fn limit_key(mut self, limit_key: impl Into<String>) -> Self {
        self.options.limit_key = Some(limit_key.into());
        self
    }

    /// How many jobs of its limit key run at once in the whole installation, 1 to 1000; 1 where none
    /// is set.
    pub fn limit(mut self, at_once: u32) -> Self {
        self.options.limit = Some(at_once);
        self
    }

    /// With as many live jobs of its limit key, up to 10,000, it is refused
    /// ([`Error::TooMany`](crate::Error::TooMany)).
    pub fn limit_waiting(mut self, most: u32) -> Self {
        self.options.limit_waiting = Some(most);
        self
    }

    /// In strict order: from its first start until it ends, however often it fails and waits
    /// meanwhile, later ordered jobs of its limit key or subject do not start. It needs one of the
    /// two.
    pub fn ordered(mut self) -> Self {
        self.options.ordered = Some(true);
        self
    }

    /// Whose it is, 1 to 512 bytes: jobs of different ones take turns.
    pub fn fair_key(mut self, fair_key: impl Into<String>) -> Self {
        self.options.fair_key = Some(fair_key.into());
        self
    }

    /// The trace that it is part of, as the header `traceparent` of W3C Trace Context has it; one
    /// that is not well formed is left out. Where none is set, it is the one that the transaction's
    /// setting `tallylight.traceparent` names.
    pub fn traceparent(mut self, traceparent: impl Into<String>) -> Self {
        self.traceparent = Some(traceparent.into());
        self
    }
}
