//! Enqueueing plain jobs, by the same SQL functions that other services call. What the options
//! mean, and what becomes of a key that is taken, stands in `tallylight.enqueue_job`.

use std::time::Instant;

use domain::ids::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use crate::{Error, KeysRemoved, Store};

/// Options of a plain job.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct EnqueueOptions {
    /// What it is about; none: its limit key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// When it is due; none: now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_at: Option<Timestamp>,
    /// At most one live job of the kind and subject has this key. Without a subject, the key
    /// decides it, so that it stands for the kind alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What a key that is taken comes to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_conflict: Option<OnConflict>,
    /// How long a job has its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_states: Option<KeyStates>,
    /// Seconds for which the key is taken from now on, also when its job has ended before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_period: Option<i32>,
    /// 1 (first) to 4.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i16>,
    /// Failures after which it is discarded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<i32>,
    /// What it is paused with; none: `default`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Takes the place of the subject as what is limited, and decides the slice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_key: Option<String>,
    /// Jobs of the limit key that run at once; none: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<i16>,
    /// Live jobs of the limit key beyond which this one is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_waiting: Option<i16>,
    /// From its first start until it ends, others of its key with this option wait, also while it
    /// waits for its next try.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ordered: Option<bool>,
    /// Whose it is: jobs of different ones take turns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fair_key: Option<String>,
    /// It is due when this event comes, or its time has passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_for: Option<WaitFor>,
}

/// An event that a job waits for before its first start: the first one after it was enqueued.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct WaitFor {
    /// The event's subject.
    pub subject: String,
    /// Its types; none: any.
    #[serde(default)]
    pub types: Vec<String>,
    /// Seconds after which the job is due without the event.
    pub timeout: i32,
}

/// What a key that is taken comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnConflict {
    /// The id of the job that has it.
    Existing,
    /// Nothing.
    Ignore,
    /// The job that waits gets the new arguments, and `run_at` and priority where they are given.
    Replace,
    /// The job that waits is due at the new `run_at`, if that is later.
    Debounce,
}

/// How long a job has its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyStates {
    /// Until it has ended.
    Live,
    /// Until its first start.
    UntilStarted,
}

/// What an enqueue came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enqueued {
    /// The job: the new one, or that which has the key. `None`: ignored, as was asked.
    pub id: Option<Uuid>,
    /// Whether it was added now.
    pub is_new: bool,
}

impl Store {
    /// Enqueues a plain job. Returns its id, or that of the job that has the key.
    ///
    /// # Errors
    /// As [`Store::enqueue_job`]; and [`Error::Invalid`] where it is ignored because its key is
    /// taken.
    pub async fn enqueue(
        &self,
        kind: &str,
        args: &Value,
        options: &EnqueueOptions,
    ) -> Result<Uuid, Error> {
        let enqueued = self.enqueue_job(kind, args, options, None).await?;
        enqueued.id.ok_or_else(ignored)
    }

    /// Enqueues a plain job, as part of the trace that `trace` (a `traceparent`) names, and tells
    /// whether it is new.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the reason where kind, args or options are refused,
    /// [`Error::TooMany`] where its limit key has as many live jobs as `limit_waiting` says.
    pub async fn enqueue_job(
        &self,
        kind: &str,
        args: &Value,
        options: &EnqueueOptions,
        trace: Option<&str>,
    ) -> Result<Enqueued, Error> {
        let options = serde_json::to_value(options).unwrap_or_default();
        let row = sqlx::query!(
            // The function takes what it reads of the trace, so that it is called after it is set.
            r#"SELECT e.id, e.is_new AS "is_new!"
                 FROM (SELECT set_config('tallylight.traceparent', coalesce($4, ''), true) AS trace) AS t
                CROSS JOIN LATERAL tallylight.enqueue_job(
                      $1, $2, CASE WHEN t.trace IS NOT NULL THEN $3::jsonb END) AS e"#,
            kind,
            args,
            options,
            trace,
        )
        .fetch_one(&self.pool)
        .await
        .map_err(Error::from)
        .map_err(refusal)?;
        Ok(Enqueued { id: row.id, is_new: row.is_new })
    }
}

/// Keys looked at in one transaction.
const PAGE: i64 = 10_000;

impl Store {
    /// Removes keys of jobs whose period is over, slice by slice, until `deadline`.
    pub async fn forget_job_keys(&self, deadline: Instant) -> Result<KeysRemoved, Error> {
        let mut removed = KeysRemoved { keys: 0, complete: true };
        for slice in self.slices.slices() {
            loop {
                if Instant::now() >= deadline {
                    return Ok(KeysRemoved { complete: false, ..removed });
                }
                let done = sqlx::query!(
                    "DELETE FROM tallylight.job_key WHERE slice = $1 AND (kind, subject, unique_key) IN (
                       SELECT k.kind, k.subject, k.unique_key FROM tallylight.job_key k
                        WHERE k.slice = $1 AND k.until < now() LIMIT $2) AND until < now()",
                    slice,
                    PAGE,
                )
                .execute(&self.pool)
                .await?;
                removed.keys += done.rows_affected();
                if done.rows_affected() < PAGE.unsigned_abs() {
                    break;
                }
            }
        }
        Ok(removed)
    }
}

/// What a caller that wants an id gets for one that was ignored.
pub(crate) fn ignored() -> Error {
    Error::Invalid { reason: "the job was ignored: its key is taken".to_owned() }
}

/// A refusal by the SQL function, in its own words.
pub(crate) fn refusal(error: Error) -> Error {
    if let Error::Data { source } = &error
        && let Some(database) = source.as_database_error()
    {
        return Error::Invalid { reason: database.message().to_owned() };
    }
    error
}
