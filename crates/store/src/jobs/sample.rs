//! Samples of the jobs table, for the numbers of a process: how many jobs there are by kind, queue
//! and state, how long the oldest that may start has waited, how many dead rows the tables carry.
//!
//! A sample is of one slice and of bounded cost: it reads no more than [`MOST`] live jobs, in the
//! order in which they are found, and as many dead letters, the latest first. Beyond that it is
//! *capped*: a lower bound. Not its job: how often samples are taken.

use std::time::Duration;

use crate::{Error, Store};

/// Rows read of either table: less than 0.1 s of work, for rows that are in memory.
const MOST: i64 = 20_000;

/// Tables whose rows live for a short time, so that vacuum has to keep up with them.
const BUSY: [&str; 4] = ["job", "job_dead", "job_key", "checkpoint"];

/// Jobs of a slice that are alike.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobGroup {
    /// Their kind.
    pub kind: String,
    /// Their queue.
    pub queue: String,
    /// Their state.
    pub state: String,
    /// How many they are.
    pub jobs: i64,
    /// How long the one that has been due longest has waited, of those that are due, do not run and
    /// are not paused.
    pub oldest: Option<Duration>,
}

/// A look at the jobs of a slice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobSample {
    /// Live jobs and dead letters.
    pub groups: Vec<JobGroup>,
    /// There are more than were counted.
    pub is_capped: bool,
}

/// Rows of a table, as the server's statistics count them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableRows {
    /// The table.
    pub table: String,
    /// Rows that somebody may see.
    pub live: i64,
    /// Rows that nobody sees any more, and that vacuum has not removed yet.
    pub dead: i64,
}

impl Store {
    /// Looks at the jobs of a slice. Reads rows, so not for every second.
    pub async fn sample_jobs(&self, slice: i16) -> Result<JobSample, Error> {
        let rows = sqlx::query!(
            r#"WITH pause AS MATERIALIZED (
                 SELECT array(SELECT name FROM tallylight.job_pause WHERE scope = 'queue') AS queues,
                        array(SELECT name FROM tallylight.job_pause WHERE scope = 'kind') AS kinds,
                        array(SELECT name FROM tallylight.job_pause WHERE scope = 'key') AS keys)
               SELECT f.kind AS "kind!", f.queue AS "queue!", f.state AS "state!",
                      count(*) AS "jobs!", f.is_live AS "is_live!",
                      (extract(epoch FROM now() - min(f.since)) * 1000000)::bigint AS oldest
                 FROM (SELECT q.kind, q.queue, q.state, true AS is_live,
                              CASE WHEN q.state = 'available'
                                    AND (q.kind IN ('timer', 'forward', 'relay')
                                         OR q.queue <> ALL (pause.queues) AND q.kind <> ALL (pause.kinds)
                                            AND q.key <> ALL (pause.keys))
                                   THEN q.since END AS since
                         FROM pause
                        CROSS JOIN (
                              SELECT j.kind, j.queue, coalesce(j.limit_key, j.subject) AS key,
                                     tallylight.job_state(j.run_epoch, j.cancel_at, j.errors, j.run_at) AS state,
                                     greatest(j.run_at, j.enqueued_at) AS since
                                FROM tallylight.job j WHERE j.slice = $1
                               ORDER BY j.lane, j.priority, j.run_at, j.id LIMIT $2) AS q
                       UNION ALL
                       SELECT d.kind, d.queue, d.state, false, NULL
                         FROM (SELECT kind, queue, state FROM tallylight.job_dead WHERE slice = $1
                                ORDER BY died_at DESC LIMIT $2) AS d) AS f
                GROUP BY f.kind, f.queue, f.state, f.is_live
                ORDER BY f.kind, f.queue, f.state"#,
            slice,
            MOST,
        )
        .fetch_all(&self.pool)
        .await?;
        let read = |is_live| {
            let of_table = rows.iter().filter(|row| row.is_live == is_live);
            of_table.map(|row| row.jobs).sum::<i64>()
        };
        let is_capped = read(true) >= MOST || read(false) >= MOST;
        let groups = rows.into_iter().map(|row| JobGroup {
            kind: row.kind,
            queue: row.queue,
            state: row.state,
            jobs: row.jobs,
            oldest: row
                .oldest
                .map(|us| Duration::from_micros(u64::try_from(us).unwrap_or_default())),
        });
        Ok(JobSample { groups: groups.collect(), is_capped })
    }

    /// The rows of the tables that change most, by the server's own statistics: nothing is read of
    /// the tables themselves.
    pub async fn job_tables(&self) -> Result<Vec<TableRows>, Error> {
        let tables = sqlx::query_as!(
            TableRows,
            r#"SELECT relname::text AS "table!", n_live_tup AS "live!", n_dead_tup AS "dead!"
                 FROM pg_stat_user_tables
                WHERE schemaname = 'tallylight' AND relname = ANY ($1) ORDER BY relname"#,
            &BUSY.map(str::to_owned) as &[String],
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(tables)
    }
}
