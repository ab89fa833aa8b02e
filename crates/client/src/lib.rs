//! Enqueues jobs for Tallylight from another Rust service, inside its own sqlx transaction.
//!
//! The contract is the SQL functions `tallylight.enqueue_job`, `enqueue_many` and `enqueue_parent`
//! in the service's database; this crate is their typed form. It knows no table and none of our
//! other crates, and its queries are checked when they run, so that a build of the service needs no
//! schema of ours. What a job does, and when it is tried again, is not its job.
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
//! println!("job {:?} {}", job.id, if job.is_new { "is new" } else { "was waiting already" });
//! # Ok(())
//! # }
//! ```

use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::Value;
use sqlx::PgExecutor;
use uuid::Uuid;

mod error;
mod options;
mod parent;

pub use error::Error;
pub use options::{KeyStates, OnConflict};
use options::{Options, WaitFor};
pub use parent::{Family, OnCancel, OnChildFailure, Parent};

/// A job to enqueue. What is not set has the default of the SQL function.
#[derive(Debug, Clone, PartialEq)]
#[must_use = "a job is enqueued by `enqueue`"]
pub struct Job {
    kind: String,
    args: Value,
    options: Options,
    due: Due,
    traceparent: Option<String>,
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

/// A job that waits in the table, once the transaction is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enqueued {
    /// Its id; `None`: its key was taken, and it was to be ignored then ([`OnConflict::Ignore`]).
    pub id: Option<Uuid>,
    /// Whether it was added now; else another job of the kind and subject has the key, and this is
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
            Ok(args) => Ok(Self {
                kind,
                args,
                options: Options::default(),
                due: Due::Now,
                traceparent: None,
            }),
            Err(source) => Err(Error::Args { kind, source }),
        }
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
        let row: (Option<Uuid>, bool) = sqlx::query_as(ENQUEUE)
            .bind(&self.kind)
            .bind(&self.args)
            .bind(sqlx::types::Json(&self.options))
            .bind(at)
            .bind(delay)
            .bind(self.traceparent.as_deref())
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
/// As [`Job::enqueue`]; a refusal begins with the number of the job, from 1. At most 10,000 jobs, and
/// all of one trace or of none.
pub async fn enqueue_many(
    jobs: &[Job],
    executor: impl PgExecutor<'_>,
) -> Result<Vec<Enqueued>, Error> {
    let of_batch = |source| Error::of("batch", source);
    let trace = jobs.first().and_then(|job| job.traceparent.as_deref());
    if jobs.iter().any(|job| job.traceparent.as_deref() != trace) {
        let reason = "its jobs name different traces: enqueue those of each by themselves";
        return Err(Error::Refused { kind: "batch".to_owned(), reason: reason.to_owned() });
    }
    let rows: Vec<(Option<Uuid>, bool)> = sqlx::query_as(ENQUEUE_MANY)
        .bind(sqlx::types::Json(jobs.iter().map(Item::of).collect::<Vec<_>>()))
        .bind(trace)
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
    SELECT e.id, e.is_new, set_config('tallylight.traceparent', w.trace, true)
      FROM (SELECT coalesce(current_setting('tallylight.traceparent', true), '') AS trace OFFSET 0) AS w
     CROSS JOIN LATERAL
           (SELECT set_config('tallylight.traceparent', coalesce($2, w.trace), true) AS trace OFFSET 0) AS t
     CROSS JOIN LATERAL tallylight.enqueue_many(CASE WHEN t.trace IS NOT NULL THEN (
      SELECT coalesce(jsonb_agg(jsonb_build_object('kind', j.job -> 'kind', 'args', j.job -> 'args',
        'opts', (j.job -> 'opts') || jsonb_strip_nulls(jsonb_build_object('run_at', coalesce(
          timestamptz '1970-01-01T00:00:00Z' + (j.job ->> 'at')::bigint * interval '1 microsecond',
          clock_timestamp() + (j.job ->> 'delay')::bigint * interval '1 microsecond'))))
        ORDER BY j.n), '[]')
      FROM jsonb_array_elements($1) WITH ORDINALITY AS j (job, n)) END) AS e
    ORDER BY e.n";

/// The call: kind, args, options, when it is due in microseconds, since 1970 or from now, and its
/// trace. That is told by a setting, which is put back for what the caller's transaction does next:
/// each row depends on the one before it, so they are made in this order.
const ENQUEUE: &str = "\
    SELECT e.id, e.is_new, set_config('tallylight.traceparent', w.trace, true)
      FROM (SELECT coalesce(current_setting('tallylight.traceparent', true), '') AS trace OFFSET 0) AS w
     CROSS JOIN LATERAL
           (SELECT set_config('tallylight.traceparent', coalesce($6, w.trace), true) AS trace OFFSET 0) AS t
     CROSS JOIN LATERAL tallylight.enqueue_job($1, $2, CASE WHEN t.trace IS NOT NULL THEN
       $3 || jsonb_strip_nulls(jsonb_build_object('run_at', coalesce(
         timestamptz '1970-01-01T00:00:00Z' + $4::bigint * interval '1 microsecond',
         clock_timestamp() + $5::bigint * interval '1 microsecond'))) END) AS e";

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
