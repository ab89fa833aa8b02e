//! Marks the start of jobs, durably, before their handlers run: of one slice, or of several in one
//! transaction, since a commit is most of what a mark costs.
//!
//! The token of a run is (epoch, attempt): the attempt is raised by the mark and never goes back.
//! Who marks says how many starts it knows of, and a job that has had another one since stays: so a
//! mark that was given up, and arrives after it was taken back, marks nothing.

use serde_json::Value;
use uuid::Uuid;

use crate::consumer::{Consumer, fence_all};
use crate::{Error, Store};

/// Due jobs of a slice that are to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Starts {
    /// The slice.
    pub slice: i16,
    /// The epoch of its lease.
    pub epoch: i64,
    /// The jobs.
    pub ids: Vec<Uuid>,
    /// The starts of each so far, as it was read; none: any number.
    pub attempts: Vec<Option<i32>>,
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

/// What marks of several slices came to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StartedAll {
    /// The jobs that may run.
    pub started: Vec<Started>,
    /// The leases that have passed on, by slice and epoch: nothing under them is marked.
    pub fenced: Vec<(i16, i64)>,
}

impl Store {
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
        let attempts = vec![None; ids.len()];
        let starts = [Starts { slice, epoch, ids: ids.to_vec(), attempts }];
        let all = self.mark(&starts).await?;
        if all.fenced.is_empty() { Ok(all.started) } else { Err(Error::Fenced { slice }) }
    }

    /// As [`mark_started`](Self::mark_started), for jobs of several slices in one transaction.
    ///
    /// # Errors
    /// [`Error::OneByOne`] where the database takes one slice at a time.
    pub async fn mark_all(&self, starts: &[Starts]) -> Result<StartedAll, Error> {
        self.together(starts.len(), self.mark(starts)).await
    }

    async fn mark(&self, starts: &[Starts]) -> Result<StartedAll, Error> {
        let leases: Vec<(i16, i64)> = starts.iter().map(|s| (s.slice, s.epoch)).collect();
        let mut tx = self.begin_by_key().await?;
        let fenced = fence_all(&mut tx, Consumer::Jobs, &leases).await?;
        let held =
            || starts.iter().filter(|starts| !fenced.contains(&(starts.slice, starts.epoch)));
        let slices: Vec<i16> = held().map(|starts| starts.slice).collect();
        let of_jobs = held().flat_map(|s| s.ids.iter().map(|id| (s.slice, (s.epoch, *id))));
        let (of, jobs): (Vec<i16>, Vec<(i64, Uuid)>) = of_jobs.unzip();
        let (epochs, ids): (Vec<i64>, Vec<Uuid>) = jobs.into_iter().unzip();
        let attempts: Vec<Option<i32>> =
            held().flat_map(|starts| starts.attempts.iter().copied()).collect();
        let rows = sqlx::query!(
            "UPDATE tallylight.job j
                SET attempt = j.attempt + 1, run_epoch = due.epoch, started_at = now(),
                    crashes = crashes + (run_epoch IS NOT NULL)::int,
                    unique_key = CASE WHEN key_until_started THEN NULL ELSE unique_key END
               FROM unnest($2::smallint[], $3::bigint[], $4::uuid[], $5::int[])
                    AS due (slice, epoch, id, attempt)
              WHERE j.slice = ANY ($1) AND j.slice = due.slice AND j.id = due.id
                AND (j.run_epoch IS NULL OR j.run_epoch < due.epoch)
                AND (j.edits = 0 OR j.run_at <= now())
                AND (due.attempt IS NULL OR j.attempt = due.attempt)
          RETURNING j.id, j.attempt, j.crashes, CASE WHEN j.edits > 0 THEN j.args END AS args",
            &slices,
            &of,
            &epochs,
            &ids,
            &attempts as &[Option<i32>],
        )
        .fetch_all(&mut *tx)
        .await?;
        tx.commit().await?;
        let started = rows
            .into_iter()
            .map(|r| Started { id: r.id, attempt: r.attempt, crashes: r.crashes, args: r.args })
            .collect();
        Ok(StartedAll { started, fenced })
    }
}
