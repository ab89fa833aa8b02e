//! The jobs table: enqueue, claim, mark; dead letters. How runs end is in `finish`.
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

mod finish;

pub use finish::{Ending, Finish};

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
}

/// A job whose start is marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Started {
    /// The job.
    pub id: Uuid,
    /// This start's number, from 1. Above 1: look first, then act.
    pub attempt: i32,
    /// Starts that ended with their process.
    pub crashes: i32,
}

/// Options of a plain job.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct EnqueueOptions {
    /// What it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// When it is due; none: now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_at: Option<Timestamp>,
    /// At most one live job of the kind and subject has this key. Without a subject, the key
    /// decides it, so that it stands for the kind alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// 1 (first) to 4.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i16>,
    /// Failures after which it is discarded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<i32>,
}

/// A dead letter.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadJob {
    /// Its id.
    pub id: Uuid,
    /// Its kind.
    pub kind: String,
    /// What it is about.
    pub subject: Subject,
    /// Its arguments.
    pub args: Value,
    /// Starts it took.
    pub attempt: i32,
    /// `discarded` or `quarantined`.
    pub state: String,
    /// Its last error.
    pub last_error: Option<String>,
    /// When it died.
    pub died_at: Timestamp,
}

/// How many jobs there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobCounts {
    /// Due and not running.
    pub available: i64,
    /// Due later.
    pub scheduled: i64,
    /// Running.
    pub running: i64,
    /// Dead letters.
    pub dead: i64,
}

impl Store {
    /// Enqueues a plain job, by the same SQL function that other services call. Returns its id, or
    /// that of the live job that has the key.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the reason where kind, args or options are refused.
    pub async fn enqueue(
        &self,
        kind: &str,
        args: &Value,
        options: &EnqueueOptions,
    ) -> Result<Uuid, Error> {
        let options = serde_json::to_value(options).unwrap_or_default();
        let id = sqlx::query_scalar!("SELECT tallylight.enqueue($1, $2, $3)", kind, args, options)
            .fetch_one(&self.pool)
            .await
            .map_err(Error::from)
            .map_err(refusal)?;
        id.ok_or_else(|| Error::Invalid { reason: "the job was not accepted".to_owned() })
    }

    /// The due jobs of all slices that `process` holds: up to `per_slice` of each slice and
    /// priority, marked ones of this epoch left out. A read without locks.
    pub async fn due_jobs(&self, process: Uuid, per_slice: i64) -> Result<Vec<DueJob>, Error> {
        let rows = sqlx::query!(
            r#"SELECT j.slice, j.id, j.kind, j.subject, j.args, j.run_at, j.attempt, j.errors,
                      j.max_attempts, j.causation_id, j.correlation_id
                 FROM tallylight.checkpoint c
                CROSS JOIN (VALUES (1::smallint), (2), (3), (4)) AS p (priority)
                CROSS JOIN LATERAL (
                      SELECT * FROM tallylight.job
                       WHERE slice = c.slice AND priority = p.priority AND run_at <= now()
                         AND (run_epoch IS NULL OR run_epoch < c.epoch)
                       ORDER BY run_at, id LIMIT $3) AS j
                WHERE c.consumer = $1 AND c.owner = $2
                ORDER BY j.priority, j.run_at, j.id"#,
            Consumer::Jobs.name(),
            process,
            per_slice,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|r| DueJob {
                slice: r.slice,
                id: r.id,
                kind: r.kind,
                subject: Subject::from_stored(r.subject),
                args: r.args,
                run_at: r.run_at,
                attempt: r.attempt,
                errors: r.errors,
                max_attempts: r.max_attempts,
                causation_id: r.causation_id,
                correlation_id: r.correlation_id,
            })
            .collect())
    }

    /// How long until the next job of the slices that `process` holds is due; `None`: none waits.
    pub async fn next_due_in(&self, process: Uuid) -> Result<Option<Duration>, Error> {
        let next = sqlx::query_scalar!(
            r#"SELECT (extract(epoch FROM min(j.run_at) - now()) * 1000000)::bigint
                 FROM tallylight.checkpoint c
                CROSS JOIN (VALUES (1::smallint), (2), (3), (4)) AS p (priority)
                CROSS JOIN LATERAL (
                      SELECT run_at FROM tallylight.job
                       WHERE slice = c.slice AND priority = p.priority AND run_at > now()
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
    /// back may run. A mark of an older epoch was a run that ended with its process.
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
                    crashes = crashes + (run_epoch IS NOT NULL)::int
              WHERE slice = $1 AND id = ANY ($3) AND (run_epoch IS NULL OR run_epoch < $2)
          RETURNING id, attempt, crashes",
            slice,
            epoch,
            ids,
        )
        .fetch_all(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(rows
            .into_iter()
            .map(|r| Started { id: r.id, attempt: r.attempt, crashes: r.crashes })
            .collect())
    }

    /// Dead letters, the latest first.
    pub async fn dead_jobs(&self, limit: i64) -> Result<Vec<DeadJob>, Error> {
        let rows = sqlx::query!(
            "SELECT id, kind, subject, args, attempt, state, last_error, died_at
               FROM tallylight.job_dead ORDER BY died_at DESC, id LIMIT $1",
            limit,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|r| DeadJob {
                id: r.id,
                kind: r.kind,
                subject: Subject::from_stored(r.subject),
                args: r.args,
                attempt: r.attempt,
                state: r.state,
                last_error: r.last_error,
                died_at: r.died_at,
            })
            .collect())
    }

    /// Moves a dead job back among the living, its budgets reset; `attempt` goes on.
    ///
    /// # Errors
    /// [`Error::NoSuchJob`].
    pub async fn retry_dead(&self, id: Uuid) -> Result<(), Error> {
        let moved = sqlx::query_scalar!(
            r#"WITH dead AS (DELETE FROM tallylight.job_dead WHERE id = $1 RETURNING *),
                    moved AS (
               INSERT INTO tallylight.job (slice, id, kind, subject, args, priority, max_attempts,
                                           causation_id, correlation_id, enqueued_at, attempt)
               SELECT slice, id, kind, subject, args, priority, max_attempts, causation_id,
                      correlation_id, enqueued_at, attempt FROM dead
               ON CONFLICT DO NOTHING)
               SELECT count(*) AS "count!" FROM dead"#,
            id,
        )
        .fetch_one(&self.pool)
        .await?;
        if moved == 0 { Err(Error::NoSuchJob { id }) } else { Ok(()) }
    }

    /// Counts jobs. Scans the live table, so not for every second.
    pub async fn job_counts(&self) -> Result<JobCounts, Error> {
        let row = sqlx::query!(
            r#"SELECT count(*) FILTER (WHERE run_epoch IS NULL AND run_at <= now()) AS "available!",
                      count(*) FILTER (WHERE run_epoch IS NULL AND run_at > now()) AS "scheduled!",
                      count(*) FILTER (WHERE run_epoch IS NOT NULL) AS "running!",
                      (SELECT count(*) FROM tallylight.job_dead) AS "dead!"
                 FROM tallylight.job"#
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(JobCounts {
            available: row.available,
            scheduled: row.scheduled,
            running: row.running,
            dead: row.dead,
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
    let inserted = sqlx::query!(
        "INSERT INTO tallylight.job (slice, id, kind, subject, args, run_at, priority,
                                     max_attempts, causation_id, correlation_id)
         SELECT $1, u.* FROM unnest($2::uuid[], $3::text[], $4::text[], $5::jsonb[],
                $6::timestamptz[], $7::smallint[], $8::int[], $9::uuid[], $10::uuid[]) AS u
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
    )
    .execute(connection)
    .await?;
    Ok(inserted.rows_affected())
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
