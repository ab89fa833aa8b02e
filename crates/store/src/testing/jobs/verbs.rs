//! What people do to jobs that are there, and what takeovers find, on the in-memory tables.

use domain::ids::Timestamp;
use uuid::Uuid;

use super::{DeadRow, JobRow, NEVER, is_held, is_reserved};
use crate::testing::tables::{SliceTables, Tables};
use crate::{Cancellation, Cancelled, Consumer, Crashes, Error};

impl Tables {
    pub(in crate::testing) fn acquit(
        &mut self,
        slice: i16,
        epoch: i64,
        runs: &[(Uuid, i32)],
    ) -> u64 {
        let Some(tables) = self.slice(slice) else { return 0 };
        let mut acquitted = 0;
        for (id, attempt) in runs {
            for (run, outcome) in &mut tables.attempts {
                if *run == (*id, *attempt) && *outcome == "crashed" {
                    *outcome = "lost";
                }
            }
            let Some(job) = tables.jobs.get_mut(id) else { continue };
            if job.attempt > *attempt && job.crashes > 0 {
                job.crashes -= 1;
                acquitted += 1;
            } else if job.attempt == *attempt && job.run_epoch == Some(epoch) {
                job.run_epoch = None;
                acquitted += 1;
            }
        }
        acquitted
    }

    pub(in crate::testing) fn retry_dead(&mut self, now: Timestamp, id: Uuid) -> Result<(), Error> {
        for tables in &mut self.slices {
            let Some(DeadRow { job, .. }) = tables.dead.remove(&id) else { continue };
            let (errors, crashes) = (0, 0);
            let row = JobRow {
                run_at: now,
                lane: job.home(),
                key_until_started: false,
                edits: 0,
                unique_key: None,
                errors,
                crashes,
                run_epoch: None,
                last_error: None,
                is_cancelled: false,
                ..job
            };
            tables.jobs.entry(id).or_insert(row);
            return Ok(());
        }
        Err(Error::NoSuchJob { id })
    }

    pub(in crate::testing) fn cancel_job(
        &mut self,
        id: Uuid,
        force: bool,
    ) -> Result<Option<Cancelled>, Error> {
        for (slice, tables) in (0..).zip(&mut self.slices) {
            let Some(job) = tables.jobs.get(&id) else { continue };
            if is_reserved(&job.kind) && !force {
                let reason = format!("a session waits for job {id}");
                return Err(Error::Invalid { reason });
            }
            tables.mark_cancelled(id);
            let Some(job) = tables.jobs.get(&id) else { continue };
            let is_running = job.run_epoch != Some(NEVER);
            let state = if is_running { "running" } else { "cancelled" }.to_owned();
            return Ok(Some(Cancelled { slice, state }));
        }
        Ok(None)
    }

    pub(in crate::testing) fn cancellations(
        &mut self,
        now: Timestamp,
        process: Uuid,
    ) -> Vec<Cancellation> {
        let mut found = Vec::new();
        for (slice, tables) in (0..).zip(&self.slices).filter(|(_, t)| is_held(t, process)) {
            let cancelled = tables.jobs.iter().filter(|(_, job)| job.is_cancelled);
            found.extend(cancelled.map(|(id, job)| Cancellation {
                job: job.due(slice, *id, now),
                is_running: job.run_epoch == Some(tables.jobs_lease.epoch),
            }));
        }
        found
    }

    pub(in crate::testing) fn note_crashes(
        &mut self,
        leases: &[(i16, i64)],
    ) -> Result<Crashes, Error> {
        let mut crashes = Crashes::default();
        for (slice, epoch) in leases {
            match self.fence(Consumer::Jobs, *slice, *epoch) {
                Ok(tables) => crashes.runs += tables.note_crashes(*epoch),
                Err(Error::Fenced { slice }) => crashes.fenced.push((slice, *epoch)),
                Err(error) => return Err(error),
            }
        }
        Ok(crashes)
    }
}

impl SliceTables {
    fn note_crashes(&mut self, epoch: i64) -> u64 {
        let mut noted = 0;
        for (id, job) in &self.jobs {
            let is_crashed = job.run_epoch.is_some_and(|run| run < epoch);
            let run = (*id, job.attempt);
            if is_crashed && !self.attempts.iter().any(|(of, _)| *of == run) {
                self.attempts.push((run, "crashed"));
                noted += 1;
            }
        }
        noted
    }
}
