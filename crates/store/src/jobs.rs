//! The jobs table: claim, mark, count. Jobs come in by `enqueue`, how runs end is in `finish`, what
//! is kept of them in `history`, what people do about jobs in `cancel`, `dead` and `look`.
//!
//! Only the holder of a slice's `jobs` lease touches its jobs, so a claim is a plain read. The
//! token of a run is (epoch, attempt): the attempt is raised by the start mark and never goes back.

use std::time::Duration;

use domain::effect::NewJob;
use domain::ids::{Subject, Timestamp};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::consumer::{Consumer, fence};
use crate::{Error, Store};

mod acquit;
mod cancel;
mod dead;
pub(crate) mod elsewhere;
mod enqueue;
mod finish;
mod history;
mod lanes;
mod look;
mod pauses;

pub(crate) use cancel::mark_cancelled;
pub use cancel::{Cancellation, Cancelled};
pub use dead::{DeadFilter, DeadJob, Redrive};
#[cfg(any(test, feature = "testing"))]
pub(crate) use enqueue::ignored;
pub(crate) use enqueue::refusal;
pub use enqueue::{EnqueueOptions, Enqueued, KeyStates, OnConflict};
pub use finish::{Ending, Finish};
pub use history::{Attempt, JobDays, JobHistory};
#[cfg(any(test, feature = "testing"))]
pub(crate) use lanes::MOVE;
pub use look::{JobFilter, JobView, Standing};
pub use pauses::{Pause, PauseScope, Pauses};

/// Due jobs read at once of each fair key and priority: as many as may start before the others had
/// their turn.
pub(crate) const PER_FAIR_KEY: i64 = 8;

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
    /// Whose it is.
    pub fair_key: Option<String>,
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
    fair_key: Option<String>,
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
            fair_key: row.fair_key,
        }
    }
}

/// A job whose start is marked.
#[derive(Debug, Clone, PartialEq)]
pub struct Started {
    /// The job.
    pub id: Uuid,
    /// This start's number, from 1. Above 1: look first, then act.
    pub attempt: i32,
    /// Starts that ended with their process.
    pub crashes: i32,
    /// Its arguments, where they may have been replaced since it was read.
    pub args: Option<Value>,
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
    /// The due jobs of all slices that `process` holds: up to `per_slice` of each slice and
    /// priority, and some of each of its [`FAIR_KEYS`] first fair keys after `fair_after` (empty:
    /// from the beginning). Marked ones of this epoch, parked and paused ones are left out. A read
    /// without locks.
    pub async fn due_jobs(
        &self,
        process: Uuid,
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
                      j.limit_key, j.max_running, j.fair_key
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
                WHERE c.consumer = $1 AND c.owner = $2
                ORDER BY j.priority, j.run_at, j.id"#,
            Consumer::Jobs.name(),
            process,
            per_slice,
            fair_after,
            FAIR_KEYS,
            PER_FAIR_KEY,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(DueJob::from).collect())
    }

    /// How long until the next job of the slices that `process` holds is due; `None`: none waits.
    /// What is parked or set aside was due.
    pub async fn next_due_in(&self, process: Uuid) -> Result<Option<Duration>, Error> {
        let next = sqlx::query_scalar!(
            r#"SELECT (extract(epoch FROM min(j.run_at) - now()) * 1000000)::bigint
                 FROM tallylight.checkpoint c
                CROSS JOIN (VALUES (0::smallint), (3)) AS l (lane)
                CROSS JOIN (VALUES (1::smallint), (2), (3), (4)) AS p (priority)
                CROSS JOIN LATERAL (
                      SELECT run_at FROM tallylight.job
                       WHERE slice = c.slice AND lane = l.lane AND priority = p.priority
                         AND run_at > now()
                       ORDER BY run_at LIMIT 1) AS j
                WHERE c.consumer = $1 AND c.owner = $2"#,
            Consumer::Jobs.name(),
            process,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(next.map(|micros| Duration::from_micros(u64::try_from(micros).unwrap_or_default())))
    }

    /// Marks jobs of a slice as started, durably, before their handlers run. Only those that come
    /// back may run. A mark of an older epoch was a run that ended with its process. A job that was
    /// pushed back since it was read stays.
    ///
    /// # Errors
    /// [`Error::Fenced`] where the lease has passed on.
    pub async fn mark_started(
        &self,
        slice: i16,
        epoch: i64,
        ids: &[Uuid],
    ) -> Result<Vec<Started>, Error> {
        let mut tx = self.pool.begin().await?;
        fence(&mut tx, Consumer::Jobs, slice, epoch).await?;
        let rows = sqlx::query!(
            "UPDATE tallylight.job
                SET attempt = attempt + 1, run_epoch = $2, started_at = now(),
                    crashes = crashes + (run_epoch IS NOT NULL)::int,
                    unique_key = CASE WHEN key_until_started THEN NULL ELSE unique_key END
              WHERE slice = $1 AND id = ANY ($3) AND (run_epoch IS NULL OR run_epoch < $2)
                AND (edits = 0 OR run_at <= now())
          RETURNING id, attempt, crashes, CASE WHEN edits > 0 THEN args END AS args",
            slice,
            epoch,
            ids,
        )
        .fetch_all(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(rows
            .into_iter()
            .map(|r| Started { id: r.id, attempt: r.attempt, crashes: r.crashes, args: r.args })
            .collect())
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

/// Inserts jobs of one slice; an id that is there already is left as it is. Returns how many were
/// inserted.
pub(crate) async fn insert(
    connection: &mut PgConnection,
    slice: i16,
    jobs: &[&NewJob],
) -> Result<u64, Error> {
    if jobs.is_empty() {
        return Ok(0);
    }
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
    let inserted = sqlx::query!(
        "INSERT INTO tallylight.job (slice, id, kind, subject, args, run_at, priority,
                                     max_attempts, causation_id, correlation_id, trace, queue)
         SELECT $1, u.*, 'platform'
           FROM unnest($2::uuid[], $3::text[], $4::text[], $5::jsonb[], $6::timestamptz[],
                $7::smallint[], $8::int[], $9::uuid[], $10::uuid[], $11::text[]) AS u
         ON CONFLICT DO NOTHING",
        slice,
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
    .execute(connection)
    .await?;
    Ok(inserted.rows_affected())
}
