//! The jobs table: claim and count. Jobs come in by `enqueue`, are started by `mark`, how runs end is
//! in `finish`, what is kept of them in `history`, what people do about jobs in `cancel`, `dead` and
//! `look`.
//!
//! Only the holder of a slice's `jobs` lease touches its jobs, so a claim is a plain read.

use std::time::Duration;

use domain::effect::NewJob;
use domain::ids::{Subject, Timestamp};
use serde_json::Value;
use sqlx::{PgConnection, Postgres, Transaction};
use tokio::time::Instant;
use uuid::Uuid;

use crate::consumer::{Consumer, micros};
use crate::{Error, Store};

mod acquit;
mod cancel;
mod dead;
pub(crate) mod elsewhere;
pub(crate) mod ends;
mod enqueue;
mod finish;
mod history;
mod lanes;
mod look;
mod mark;
mod pauses;
pub(crate) mod relay;
mod sample;
mod waiting;
pub(crate) mod waits;

pub(crate) use cancel::mark_cancelled;
pub use cancel::{Cancellation, Cancelled};
pub use dead::{DeadFilter, DeadJob, Redrive};
#[cfg(any(test, feature = "testing"))]
pub(crate) use enqueue::ignored;
pub(crate) use enqueue::refusal;
pub use enqueue::{EnqueueOptions, Enqueued, KeyStates, OnConflict, WaitFor};
pub use finish::{Ending, Finish, Finished, Finishes};
pub use history::{Attempt, Crashes, JobDays, JobHistory};
pub use lanes::Holder;
#[cfg(any(test, feature = "testing"))]
pub(crate) use lanes::MOVE;
pub use look::{JobFilter, JobView, Standing};
pub use mark::{Started, StartedAll, Starts};
pub use pauses::{Pause, PauseScope, Pauses};
pub use relay::{EventWait, Relay, Word};
pub use sample::{JobGroup, JobSample, TableRows};
pub use waiting::{JobWaits, OpenStep};
pub use waits::{Awaits, Begin, Child, OnCancel, OnFailure, Parent, Step, StepKind, Ties};

/// Due jobs read at once of each fair key and priority: as many as may start before the others had
/// their turn.
pub(crate) const PER_FAIR_KEY: i64 = 8;

/// How a transaction begins that finds rows by their keys; appends have settings of their own.
const BY_KEY: &str = "BEGIN; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; \
                      SET LOCAL enable_seqscan = off";

/// Fair keys of a slice read at once; the next look goes on behind them.
pub const FAIR_KEYS: i64 = 128;

/// A job that is due.
#[derive(Debug, Clone, PartialEq)]
pub struct DueJob {
    /// Its slice.
    pub slice: i16,
    /// Its id.
    pub id: Uuid,
    /// Which handler runs it.
    pub kind: String,
    /// What it is about.
    pub subject: Subject,
    /// The handler's arguments.
    pub args: Value,
    /// When it became due.
    pub run_at: Timestamp,
    /// Starts so far.
    pub attempt: i32,
    /// Failures so far.
    pub errors: i32,
    /// Failures after which it is discarded.
    pub max_attempts: i32,
    /// The event that caused it.
    pub causation_id: Option<Uuid>,
    /// What started the whole chain.
    pub correlation_id: Option<Uuid>,
    /// 1 (first) to 4.
    pub priority: i16,
    /// What it is paused with.
    pub queue: String,
    /// How it was found.
    pub lane: Lane,
    /// Takes the place of the subject as its key.
    pub limit_key: Option<String>,
    /// Jobs of its key that may run at once, from 1.
    pub limit: i16,
    /// Whether it holds its key from its first start until it ends.
    pub ordered: bool,
    /// Whose it is.
    pub fair_key: Option<String>,
    /// Starts that ended with their process, a former holder's included.
    pub crashes: i32,
    /// How long it has been due.
    pub waited: Waited,
    /// What it has of steps and of a parent; none, as most: neither.
    pub waits: Option<Value>,
}

/// How long something has waited: by the database's clock when it was read, and by this process's
/// from then on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Waited {
    when_read: Duration,
    read: Instant,
}

impl Waited {
    /// It waits since then, and was read at `now` by the same clock, in this moment.
    pub fn since(then: Timestamp, now: Timestamp) -> Self {
        Self { when_read: (now - then).to_std().unwrap_or_default(), read: Instant::now() }
    }

    /// Until now.
    pub fn so_far(self) -> Duration {
        self.when_read + self.read.elapsed()
    }
}

impl DueJob {
    /// What is limited: its limit key, else its subject.
    pub fn key(&self) -> &str {
        self.limit_key.as_deref().unwrap_or(self.subject.as_str())
    }
}

/// How a job is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// By time.
    Open,
    /// By its key: others of it were in the way.
    Parked,
    /// Not at all: it is paused and was in the way.
    Aside,
    /// By its fair key.
    Shared,
}

impl Lane {
    fn of(number: i16) -> Self {
        match number {
            1 => Self::Parked,
            2 => Self::Aside,
            3 => Self::Shared,
            _ => Self::Open,
        }
    }
}

/// A job as the table has it.
struct DueRow {
    slice: i16,
    id: Uuid,
    kind: String,
    subject: String,
    args: Value,
    run_at: Timestamp,
    attempt: i32,
    errors: i32,
    max_attempts: i32,
    causation_id: Option<Uuid>,
    correlation_id: Option<Uuid>,
    priority: i16,
    queue: String,
    lane: i16,
    limit_key: Option<String>,
    max_running: Option<i16>,
    ordered: bool,
    fair_key: Option<String>,
    crashes: i32,
    enqueued_at: Timestamp,
    read_at: Timestamp,
    waits: Option<Value>,
}

impl From<DueRow> for DueJob {
    fn from(row: DueRow) -> Self {
        Self {
            slice: row.slice,
            id: row.id,
            kind: row.kind,
            subject: Subject::from_stored(row.subject),
            args: row.args,
            run_at: row.run_at,
            attempt: row.attempt,
            errors: row.errors,
            max_attempts: row.max_attempts,
            causation_id: row.causation_id,
            correlation_id: row.correlation_id,
            priority: row.priority,
            queue: row.queue,
            lane: Lane::of(row.lane),
            limit_key: row.limit_key,
            limit: row.max_running.unwrap_or(1),
            ordered: row.ordered,
            fair_key: row.fair_key,
            crashes: row.crashes,
            // A producer may name a time that was before.
            waited: Waited::since(row.run_at.max(row.enqueued_at), row.read_at),
            waits: row.waits,
        }
    }
}

/// How many jobs there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobCounts {
    /// Due and not running.
    pub available: i64,
    /// Due later.
    pub scheduled: i64,
    /// Due later, after a failure.
    pub retryable: i64,
    /// Running.
    pub running: i64,
    /// Cancelled, and not ended yet by the holder of their slice.
    pub cancelled: i64,
    /// Dead letters.
    pub dead: i64,
    /// Dead letters that took their process with them.
    pub quarantined: i64,
}

impl JobCounts {
    /// Dead letters that failed for good.
    pub fn discarded(&self) -> i64 {
        self.dead - self.quarantined
    }
}

impl Store {
    /// Begins a transaction that finds the rows of many jobs, each by its key. Left to itself the
    /// planner may read the table instead, as long as it believes it to be small.
    pub(crate) async fn begin_by_key(&self) -> Result<Transaction<'static, Postgres>, Error> {
        Ok(self.pool.begin_with(BY_KEY).await?)
    }

    /// The due jobs of the slices that `process` holds, of all or of those `of` them: up to
    /// `per_slice` of each slice and priority, and some of each of its [`FAIR_KEYS`] first fair keys
    /// after `fair_after` (empty: from the beginning). Marked ones of this epoch, parked and paused
    /// ones are left out. A read without locks.
    pub async fn due_jobs(
        &self,
        process: Uuid,
        of: Option<&[i16]>,
        per_slice: i64,
        fair_after: &str,
    ) -> Result<Vec<DueJob>, Error> {
        // Fair keys are found one after another by the index: as many steps as keys.
        let rows = sqlx::query_as!(
            DueRow,
            r#"SELECT j.slice AS "slice!", j.id AS "id!", j.kind AS "kind!",
                      j.subject AS "subject!", j.args AS "args!", j.run_at AS "run_at!",
                      j.attempt AS "attempt!", j.errors AS "errors!",
                      j.max_attempts AS "max_attempts!", j.causation_id, j.correlation_id,
                      j.priority AS "priority!", j.queue AS "queue!", j.lane AS "lane!",
                      j.limit_key, j.max_running, j.ordered AS "ordered!", j.fair_key, j.waits,
                      j.crashes + (j.run_epoch IS NOT NULL)::int AS "crashes!",
                      j.enqueued_at AS "enqueued_at!", now() AS "read_at!"
                 FROM tallylight.checkpoint c
                CROSS JOIN LATERAL (
                      SELECT q.* FROM (VALUES (1::smallint), (2), (3), (4)) AS p (priority)
                       CROSS JOIN LATERAL (
                             SELECT * FROM tallylight.job
                              WHERE slice = c.slice AND lane = 0 AND priority = p.priority
                                AND run_at <= now() AND (run_epoch IS NULL OR run_epoch < c.epoch)
                              ORDER BY run_at, id LIMIT $3) AS q
                      UNION ALL
                      SELECT q.* FROM (
                             WITH RECURSIVE f (fair_key) AS (
                               (SELECT fair_key FROM tallylight.job
                                 WHERE slice = c.slice AND lane = 3 AND fair_key > $4
                                 ORDER BY fair_key LIMIT 1)
                               UNION ALL
                               SELECT (SELECT n.fair_key FROM tallylight.job n
                                        WHERE n.slice = c.slice AND n.lane = 3
                                          AND n.fair_key > f.fair_key
                                        ORDER BY n.fair_key LIMIT 1)
                                 FROM f WHERE f.fair_key IS NOT NULL)
                             SELECT fair_key FROM f WHERE fair_key IS NOT NULL LIMIT $5) AS f
                       CROSS JOIN (VALUES (1::smallint), (2), (3), (4)) AS p (priority)
                       CROSS JOIN LATERAL (
                             SELECT * FROM tallylight.job
                              WHERE slice = c.slice AND lane = 3 AND fair_key = f.fair_key
                                AND priority = p.priority AND run_at <= now()
                                AND (run_epoch IS NULL OR run_epoch < c.epoch)
                              ORDER BY run_at, id LIMIT $6) AS q) AS j
                WHERE c.consumer = $1 AND c.owner = $2 AND ($7::smallint[] IS NULL OR c.slice = ANY ($7))"#,
            Consumer::Jobs.name(),
            process,
            per_slice,
            fair_after,
            FAIR_KEYS,
            PER_FAIR_KEY,
            of,
        )
        .fetch_all(&self.pool)
        .await?;
        let mut due: Vec<DueJob> = rows.into_iter().map(DueJob::from).collect();
        // Here, since PostgreSQL would move whole rows about: it took more time than finding them.
        due.sort_by_cached_key(|job| (job.priority, job.run_at, job.id));
        Ok(due)
    }

    /// How long until the next job is due, of slices that `process` holds, each `read` that long
    /// ago: of those that were not due then; `None`: none waits. What is parked or set aside was
    /// due.
    pub async fn next_due_in(
        &self,
        process: Uuid,
        read: &[(i16, Duration)],
    ) -> Result<Option<Duration>, Error> {
        let (slices, ago): (Vec<i16>, Vec<i64>) =
            read.iter().map(|(slice, ago)| (*slice, micros(*ago))).unzip();
        let next = sqlx::query_scalar!(
            r#"SELECT (extract(epoch FROM min(j.run_at) - now()) * 1000000)::bigint
                 FROM unnest($3::smallint[], $4::bigint[]) AS r (slice, ago)
                 JOIN tallylight.checkpoint c
                   ON c.consumer = $1 AND c.owner = $2 AND c.slice = r.slice
                CROSS JOIN (VALUES (0::smallint), (3)) AS l (lane)
                CROSS JOIN (VALUES (1::smallint), (2), (3), (4)) AS p (priority)
                CROSS JOIN LATERAL (
                      SELECT run_at FROM tallylight.job
                       WHERE slice = c.slice AND lane = l.lane AND priority = p.priority
                         AND run_at > now() - r.ago * interval '1 microsecond'
                       ORDER BY run_at LIMIT 1) AS j"#,
            Consumer::Jobs.name(),
            process,
            &slices,
            &ago,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(next.map(|micros| Duration::from_micros(u64::try_from(micros).unwrap_or_default())))
    }

    /// Counts jobs. Scans the live table, so not for every second.
    pub async fn job_counts(&self) -> Result<JobCounts, Error> {
        let row = sqlx::query!(
            r#"SELECT count(*) FILTER (WHERE state = 'available') AS "available!",
                      count(*) FILTER (WHERE state = 'scheduled') AS "scheduled!",
                      count(*) FILTER (WHERE state = 'retryable') AS "retryable!",
                      count(*) FILTER (WHERE state = 'running') AS "running!",
                      count(*) FILTER (WHERE state = 'cancelled') AS "cancelled!",
                      (SELECT count(*) FROM tallylight.job_dead) AS "dead!",
                      (SELECT count(*) FROM tallylight.job_dead WHERE state = 'quarantined') AS "quarantined!"
                 FROM (SELECT tallylight.job_state(run_epoch, cancel_at, errors, run_at) AS state
                         FROM tallylight.job) AS j"#
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(JobCounts {
            available: row.available,
            scheduled: row.scheduled,
            retryable: row.retryable,
            running: row.running,
            cancelled: row.cancelled,
            dead: row.dead,
            quarantined: row.quarantined,
        })
    }
}

/// Inserts jobs, each of its slice; an id that is there already is left as it is. Returns the slice
/// of each that was inserted.
pub(crate) async fn insert(
    connection: &mut PgConnection,
    jobs: &[(i16, &NewJob)],
) -> Result<Vec<i16>, Error> {
    if jobs.is_empty() {
        return Ok(Vec::new());
    }
    let (slices, jobs): (Vec<i16>, Vec<&NewJob>) = jobs.iter().copied().unzip();
    let ids: Vec<Uuid> = jobs.iter().map(|j| j.id).collect();
    let kinds: Vec<&str> = jobs.iter().map(|j| j.kind.as_str()).collect();
    let subjects: Vec<&str> = jobs.iter().map(|j| j.subject.as_str()).collect();
    let args: Vec<Value> = jobs.iter().map(|j| j.args.clone()).collect();
    let run_ats: Vec<Timestamp> = jobs.iter().map(|j| j.run_at).collect();
    let priorities: Vec<i16> = jobs.iter().map(|j| j.priority).collect();
    let max_attempts: Vec<i32> = jobs.iter().map(|j| j.max_attempts).collect();
    let causations: Vec<Option<Uuid>> = jobs.iter().map(|j| j.causation_id).collect();
    let correlations: Vec<Option<Uuid>> = jobs.iter().map(|j| j.correlation_id).collect();
    let traces: Vec<Option<&str>> = jobs.iter().map(|j| j.trace.as_deref()).collect();
    let inserted = sqlx::query_scalar!(
        "INSERT INTO tallylight.job (slice, id, kind, subject, args, run_at, priority,
                                     max_attempts, causation_id, correlation_id, trace, queue)
         SELECT u.*, CASE u.kind WHEN 'deliver_webhook' THEN 'webhooks' ELSE 'platform' END
           FROM unnest($1::smallint[], $2::uuid[], $3::text[], $4::text[], $5::jsonb[],
                $6::timestamptz[], $7::smallint[], $8::int[], $9::uuid[], $10::uuid[], $11::text[])
                AS u (slice, id, kind, subject, args, run_at, priority, max_attempts, causation_id,
                      correlation_id, trace)
         ON CONFLICT DO NOTHING
      RETURNING slice",
        &slices,
        &ids,
        &kinds as &[&str],
        &subjects as &[&str],
        &args,
        &run_ats,
        &priorities,
        &max_attempts,
        &causations as &[Option<Uuid>],
        &correlations as &[Option<Uuid>],
        &traces as &[Option<&str>],
    )
    .fetch_all(connection)
    .await?;
    Ok(inserted)
}
