//! What is kept of runs and jobs that have ended: their attempts and their last state, by day.
//!
//! How much is a setting; a run that ended with its process (a *crash*) is always noted, with the
//! process and its build, since that is what a quarantine is judged by. Not its job: ending jobs.

use std::time::Duration;

use domain::ids::Timestamp;
use serde::Serialize;
use sqlx::PgConnection;
use sqlx::postgres::types::PgInterval;
use uuid::Uuid;

use super::finish::Run;
use crate::consumer::{Consumer, fence_all, micros};
use crate::{Error, Store};

/// Days made ahead: upkeep runs daily, and may miss some.
const DAYS_AHEAD: i32 = 7;

/// How much is kept of jobs that have ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum JobHistory {
    /// Nothing.
    None,
    /// Failed runs, and jobs that were given up or cancelled.
    #[default]
    Failures,
    /// Those that did their work too.
    All,
}

impl JobHistory {
    pub(super) fn keeps_failures(self) -> bool {
        self != Self::None
    }
}

/// A run to note: its outcome and its error.
pub(super) type Noted<'a> = (Run, &'static str, Option<&'a str>);

/// A run of a job that has ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Attempt {
    /// The number of the start.
    pub attempt: i32,
    /// The epoch of the lease it ran under.
    pub epoch: i64,
    /// The process that ran it.
    pub process: Option<Uuid>,
    /// The process's machine.
    pub host: Option<String>,
    /// The process's build.
    pub version: Option<String>,
    /// When it was started.
    pub started_at: Option<Timestamp>,
    /// When it ended; of a crash, when it was found.
    pub ended_at: Timestamp,
    /// `completed`, `failed`, `discarded`, `cancelled`, `crashed`, or `lost`: its lease had passed on
    /// while its process lived.
    pub outcome: String,
    /// What went wrong.
    pub error: Option<String>,
    /// `traceparent` of the trace that it was part of.
    pub trace: Option<String>,
    /// Of a crash, the digest of the arguments that it was started with: equal ones are equal.
    pub args_digest: Option<String>,
}

/// What was done about the days of history.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobDays {
    /// Days that were missing and are made, of both tables.
    pub made: i32,
    /// Days that were dropped, of both tables.
    pub dropped: i32,
}

/// What former holders left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Crashes {
    /// Runs that ended with their process and are noted now.
    pub runs: u64,
    /// The leases that have passed on, by slice and epoch: nothing under them is noted.
    pub fenced: Vec<(i16, i64)>,
}

impl Store {
    /// Notes the runs that ended with their process, once each: in slices that are held by these
    /// leases, given by slice and epoch, those marked under an earlier epoch. To be called by a new
    /// holder, before it starts jobs. All slices at once, since it reads all their jobs: a start
    /// mark writes no index.
    pub async fn note_crashes(&self, leases: &[(i16, i64)]) -> Result<Crashes, Error> {
        let mut leases = leases.to_vec();
        leases.sort_unstable();
        match self.together(leases.len(), self.note_lost(&leases)).await {
            Err(Error::OneByOne) => {
                let mut all = Crashes::default();
                for lease in leases.chunks(1) {
                    let Crashes { runs, fenced } = self.note_lost(lease).await?;
                    all.runs += runs;
                    all.fenced.extend(fenced);
                }
                Ok(all)
            }
            noted => noted,
        }
    }

    async fn note_lost(&self, leases: &[(i16, i64)]) -> Result<Crashes, Error> {
        let mut tx = self.pool.begin().await?;
        let fenced = fence_all(&mut tx, Consumer::Jobs, leases).await?;
        let held = leases.iter().filter(|lease| !fenced.contains(lease)).copied();
        let (slices, epochs): (Vec<i16>, Vec<i64>) = held.unzip();
        let noted = sqlx::query!(
            "INSERT INTO tallylight.job_attempt (slice, job, attempt, kind, epoch, process, host, version,
                                                 started_at, outcome, error, trace, args_digest)
             SELECT j.slice, j.id, j.attempt, j.kind, j.run_epoch, h.process, h.host, h.version,
                    j.started_at, 'crashed', 'its process ended while it ran', j.trace,
                    tallylight.args_digest(j.args)
               FROM tallylight.job j
               JOIN unnest($1::smallint[], $2::bigint[]) AS lease (slice, epoch)
                 ON j.slice = lease.slice AND j.run_epoch < lease.epoch
               LEFT JOIN tallylight.job_holder h ON h.slice = j.slice AND h.epoch = j.run_epoch
              WHERE j.slice = ANY ($1) AND j.run_epoch IS NOT NULL
                AND NOT EXISTS (SELECT FROM tallylight.job_attempt a
                                 WHERE a.slice = j.slice AND a.job = j.id AND a.attempt = j.attempt)",
            &slices,
            &epochs,
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(Crashes { runs: noted.rows_affected(), fenced })
    }

    /// The runs of a job that have ended and were kept, in order.
    pub async fn job_attempts(&self, slice: i16, id: Uuid) -> Result<Vec<Attempt>, Error> {
        let attempts = sqlx::query_as!(
            Attempt,
            "SELECT attempt, epoch, process, host, version, started_at, ended_at, outcome, error, trace,
                    args_digest
               FROM tallylight.job_attempt WHERE slice = $1 AND job = $2 ORDER BY attempt, ended_at",
            slice,
            id,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(attempts)
    }

    /// Makes the days of history ahead, and drops those older than `keep`.
    ///
    /// # Errors
    /// A transient one where a day was in use: the next upkeep does it.
    pub async fn keep_job_history(&self, keep: Duration) -> Result<JobDays, Error> {
        let keep = PgInterval { months: 0, days: 0, microseconds: micros(keep) };
        let days = sqlx::query!(
            r#"SELECT made AS "made!", dropped AS "dropped!" FROM tallylight.keep_job_history($1, $2)"#,
            DAYS_AHEAD,
            keep,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(JobDays { made: days.made, dropped: days.dropped })
    }
}

/// Notes runs under the present lease that are about to be ended, in one statement. A job that
/// does not run has none; what a former holder left is a crash.
pub(super) async fn note_runs(
    connection: &mut PgConnection,
    slice: i16,
    epoch: i64,
    noted: &[Noted<'_>],
) -> Result<(), Error> {
    if noted.is_empty() {
        return Ok(());
    }
    let (ids, attempts): (Vec<Uuid>, Vec<i32>) = noted.iter().map(|(run, ..)| *run).unzip();
    let outcomes: Vec<&str> = noted.iter().map(|(_, outcome, _)| *outcome).collect();
    let errors: Vec<Option<&str>> = noted.iter().map(|(.., error)| *error).collect();
    sqlx::query!(
        "INSERT INTO tallylight.job_attempt (slice, job, attempt, kind, epoch, process, host, version,
                                             started_at, outcome, error, trace)
         SELECT j.slice, j.id, run.attempt, j.kind, $6, h.process, h.host, h.version,
                j.started_at, run.outcome, run.error, j.trace
           FROM unnest($2::uuid[], $3::int[], $4::text[], $5::text[]) AS run (id, attempt, outcome, error)
           JOIN tallylight.job j ON j.slice = $1 AND j.id = run.id
            AND tallylight.is_run(run.attempt, j.attempt, j.run_epoch)
           LEFT JOIN tallylight.job_holder h ON h.slice = j.slice AND h.epoch = $6
          WHERE j.run_epoch = $6 OR j.attempt < run.attempt",
        slice,
        &ids,
        &attempts,
        &outcomes as &[&str],
        &errors as &[Option<&str>],
        epoch,
    )
    .execute(connection)
    .await?;
    Ok(())
}
