//! Enqueues jobs for Tallylight from another Rust service, inside its own sqlx transaction.
//!
//! The contract is the SQL functions `tallylight.enqueue_job`, `enqueue_many` and `enqueue_parent`
//! in the service's database; this crate is their typed form. It knows no table and none of our other crates, and its queries are checked
//! when they run, so that a build of the service needs no schema of ours. What a job does, and
//! when it is tried again, is not its job.
//!
//! The service's database role has to be a member of `tallylight_producer`, which may enqueue and
//! nothing else.
//!
//! ```no_run
//! # async fn order(pool: sqlx::PgPool) -> Result<(), Box<dyn std::error::Error>> {
//! let mut tx = pool.begin().await?;
//! sqlx::query("INSERT INTO orders (number) VALUES ($1)").bind(7).execute(&mut *tx).await?;
//! let job = client::Job::new("clean_up_inactive", &serde_json::json!({ "inactive_days": 30 }))?
//!     .key("nightly")
//!     .enqueue(&mut *tx)
//!     .await?;
//! // Order and job become true together, or neither does.
//! tx.commit().await?;
//! println!("job {} {}", job.id, if job.is_new { "is new" } else { "was waiting already" });
//! # Ok(())
//! # }
//! ```

use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::Value;
use sqlx::PgExecutor;
use uuid::Uuid;

mod error;
mod parent;

pub use error::Error;
pub use parent::{Family, OnCancel, OnChildFailure, Parent};

/// A job to enqueue. What is not set has the default of the SQL function.
#[derive(Debug, Clone, PartialEq)]
#[must_use = "a job is enqueued by `enqueue`"]
pub struct Job {
    kind: String,
    args: Value,
    options: Options,
    due: Due,
}

/// When a job is due.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Due {
    Now,
    At(SystemTime),
    After(Duration),
}

impl Due {
    /// In microseconds: since 1970, or from now.
    fn micros(self) -> (Option<i64>, Option<i64>) {
        match self {
            Self::Now => (None, None),
            Self::At(at) => (Some(micros_since_epoch(at)), None),
            Self::After(delay) => (None, Some(micros(delay))),
        }
    }
}

/// The options that the SQL function takes as they are.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
struct Options {
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wait_for: Option<WaitFor>,
}

/// An event that a job waits for.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct WaitFor {
    subject: String,
    types: Vec<String>,
    timeout: u64,
}

/// A job that waits in the table, once the transaction is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enqueued {
    /// Its id.
    pub id: Uuid,
    /// Whether it was added now; else a live job of the kind and subject has the key, and this is
    /// the id of that one.
    pub is_new: bool,
}

impl Job {
    /// A job of `kind`, due at once. `args` is what its handler takes: a JSON object.
    ///
    /// # Errors
    /// [`Error::Args`] where `args` cannot be written as JSON.
    pub fn new(kind: impl Into<String>, args: &impl Serialize) -> Result<Self, Error> {
        let kind = kind.into();
        match serde_json::to_value(args) {
            Ok(args) => Ok(Self { kind, args, options: Options::default(), due: Due::Now }),
            Err(source) => Err(Error::Args { kind, source }),
        }
    }

    /// What it is about, 1 to 1024 bytes. Jobs of one subject run one at a time.
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.options.subject = Some(subject.into());
        self
    }

    /// Its key, 1 to 512 bytes: at most one live job of the kind and subject has it. Once that job
    /// has ended, the key is free again.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.options.key = Some(key.into());
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

    /// Due at a moment. Takes the place of an earlier [`Job::after`].
    pub fn run_at(mut self, at: impl Into<SystemTime>) -> Self {
        self.due = Due::At(at.into());
        self
    }

    /// Due after a time, counted by the database's clock from the moment it is enqueued. Takes the
    /// place of an earlier [`Job::run_at`].
    pub fn after(mut self, delay: Duration) -> Self {
        self.due = Due::After(delay);
        self
    }

    /// Due when an event of a subject comes, of one of these types (none: of any), or else after a
    /// time of whole seconds. Takes the place of a due time.
    pub fn wait_for(
        mut self,
        subject: impl Into<String>,
        types: &[&str],
        timeout: Duration,
    ) -> Self {
        let types = types.iter().map(|one| (*one).to_owned()).collect();
        let timeout = timeout.as_secs();
        self.options.wait_for = Some(WaitFor { subject: subject.into(), types, timeout });
        self.due = Due::Now;
        self
    }

    /// The parent of other jobs: it is due when they have ended.
    pub fn after_children(self, children: impl IntoIterator<Item = Job>) -> Parent {
        let children = children.into_iter().collect();
        let (on_failure, on_cancel) = (OnChildFailure::Run, OnCancel::Cancel);
        Parent { job: self, children, on_failure, on_cancel }
    }

    /// Enqueues it on a pool, a connection, or in a transaction: then it waits from the commit on,
    /// and a rollback leaves nothing of it. Until then, only enqueuers of the same kind, subject
    /// and key wait for that transaction.
    ///
    /// # Errors
    /// An [`Error`] that says what to do. As after any failed statement, PostgreSQL goes on with
    /// the transaction only from a savepoint before it.
    pub async fn enqueue(&self, executor: impl PgExecutor<'_>) -> Result<Enqueued, Error> {
        let (at, delay) = self.due.micros();
        let row: (Uuid, bool) = sqlx::query_as(ENQUEUE)
            .bind(&self.kind)
            .bind(&self.args)
            .bind(sqlx::types::Json(&self.options))
            .bind(at)
            .bind(delay)
            .fetch_one(executor)
            .await
            .map_err(|source| Error::of(&self.kind, source))?;
        Ok(Enqueued { id: row.0, is_new: row.1 })
    }
}

/// Enqueues many jobs in one statement, all or none. Returns what became of each, in their order.
/// Due times after a delay count from this call.
///
/// # Errors
/// As [`Job::enqueue`]; a refusal begins with the number of the job, from 1. At most 10,000 jobs.
pub async fn enqueue_many(
    jobs: &[Job],
    executor: impl PgExecutor<'_>,
) -> Result<Vec<Enqueued>, Error> {
    let of_batch = |source| Error::of("batch", source);
    let rows: Vec<(Uuid, bool)> = sqlx::query_as(ENQUEUE_MANY)
        .bind(sqlx::types::Json(jobs.iter().map(Item::of).collect::<Vec<_>>()))
        .fetch_all(executor)
        .await
        .map_err(of_batch)?;
    Ok(rows.into_iter().map(|(id, is_new)| Enqueued { id, is_new }).collect())
}

/// A job of a batch, as the statement reads it.
#[derive(Debug, Serialize)]
struct Item<'a> {
    kind: &'a str,
    args: &'a Value,
    opts: &'a Options,
    /// Microseconds since 1970.
    at: Option<i64>,
    /// Microseconds from now.
    delay: Option<i64>,
}

impl<'a> Item<'a> {
    fn of(job: &'a Job) -> Self {
        let (at, delay) = job.due.micros();
        Self { kind: &job.kind, args: &job.args, opts: &job.options, at, delay }
    }
}

/// The call of a batch: what [`ENQUEUE`] does, for each.
const ENQUEUE_MANY: &str = "\
    SELECT e.id, e.is_new FROM tallylight.enqueue_many((
      SELECT coalesce(jsonb_agg(jsonb_build_object('kind', j.job -> 'kind', 'args', j.job -> 'args',
        'opts', (j.job -> 'opts') || jsonb_strip_nulls(jsonb_build_object('run_at', coalesce(
          timestamptz '1970-01-01T00:00:00Z' + (j.job ->> 'at')::bigint * interval '1 microsecond',
          clock_timestamp() + (j.job ->> 'delay')::bigint * interval '1 microsecond'))))
        ORDER BY j.n), '[]')
      FROM jsonb_array_elements($1) WITH ORDINALITY AS j (job, n))) AS e
    ORDER BY e.n";

/// The call: kind, args, options, and when it is due in microseconds, since 1970 or from now.
const ENQUEUE: &str = "\
    SELECT id, is_new FROM tallylight.enqueue_job($1, $2, $3 || jsonb_strip_nulls(jsonb_build_object(
      'run_at', coalesce(timestamptz '1970-01-01T00:00:00Z' + $4::bigint * interval '1 microsecond',
                         clock_timestamp() + $5::bigint * interval '1 microsecond'))))";

/// A moment in PostgreSQL's resolution. What lies beyond its calendar, PostgreSQL refuses.
fn micros_since_epoch(at: SystemTime) -> i64 {
    match at.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => micros(after),
        Err(before) => micros(before.duration()).saturating_neg(),
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
