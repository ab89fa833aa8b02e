//! Marks the start of jobs, durably, before their handlers run: of one slice, or of several in one
//! transaction of one call, since a commit and the way there are most of what a mark costs.
//!
//! The token of a run is (epoch, attempt): the attempt is raised by the mark and never goes back.
//! Who marks says how many starts it knows of, and a job that has had another one since stays: so a
//! mark that was given up, and arrives after it was taken back, marks nothing.

use std::collections::HashSet;

use serde_json::Value;
use uuid::Uuid;

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
        let (slices, epochs): (Vec<i16>, Vec<i64>) =
            starts.iter().map(|starts| (starts.slice, starts.epoch)).unzip();
        let of = |s: &Starts| s.ids.iter().map(|_| (s.slice, s.epoch)).collect::<Vec<_>>();
        let (of_slices, of_epochs): (Vec<i16>, Vec<i64>) = starts.iter().flat_map(of).unzip();
        let ids: Vec<Uuid> = starts.iter().flat_map(|s| s.ids.iter().copied()).collect();
        let attempts: Vec<Option<i32>> =
            starts.iter().flat_map(|s| s.attempts.iter().copied()).collect();
        let rows = sqlx::query!(
            r#"SELECT slice AS "slice!", epoch AS "epoch!", id, attempt, crashes, args
                 FROM tallylight.mark_started($1, $2, $3, $4, $5, $6)"#,
            &slices,
            &epochs,
            &of_slices,
            &of_epochs,
            &ids,
            &attempts as &[Option<i32>],
        )
        .fetch_all(&self.pool)
        .await?;
        let mut held = HashSet::new();
        let mut started = Vec::with_capacity(ids.len());
        for row in rows {
            // The leases that hold come first, each without a job.
            let (Some(id), Some(attempt), Some(crashes)) = (row.id, row.attempt, row.crashes)
            else {
                held.insert((row.slice, row.epoch));
                continue;
            };
            started.push(Started { id, attempt, crashes, args: row.args });
        }
        let leases = starts.iter().map(|starts| (starts.slice, starts.epoch));
        let fenced = leases.filter(|lease| !held.contains(lease)).collect();
        Ok(StartedAll { started, fenced })
    }
}
