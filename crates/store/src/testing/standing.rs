//! How the in-memory tables stand: what is left to do, and the states of jobs by their usual names.

use domain::ids::Timestamp;
use uuid::Uuid;

use super::jobs::{JobRow, Order};
use super::tables::{SliceTables, Tables};

impl SliceTables {
    /// Whether a job has to wait for the ends of others that hold its key.
    fn is_held_up(&self, job: &JobRow) -> bool {
        let holds = |of: &&JobRow| of.order == Order::Holds && of.key() == job.key();
        let most = usize::from(job.limit.unwrap_or(1).unsigned_abs());
        job.order == Order::Ordered && self.jobs.values().filter(holds).count() >= most
    }
}

impl Tables {
    /// Whether something is at work: a job runs, or is to be ended because it was cancelled, or
    /// events are not applied yet.
    pub fn is_busy(&self) -> bool {
        self.slices.iter().any(|slice| {
            let epoch = slice.jobs_lease.epoch;
            let works = |job: &JobRow| job.is_cancelled || job.run_epoch == Some(epoch);
            slice.head() > slice.react.position || slice.jobs.values().any(works)
        })
    }

    /// Whether a job or a schedule is due that is not paused.
    pub fn has_due(&self, now: Timestamp) -> bool {
        let is_due = |job: &JobRow| {
            job.run_at <= now && !self.pauses.hold_one(&job.kind, &job.queue, job.key())
        };
        self.slices.iter().any(|slice| {
            let mut schedules = slice.schedules.values().filter(|row| !row.paused);
            slice.jobs.values().any(|job| is_due(job) && !slice.is_held_up(job))
                || schedules.any(|row| row.next_fire_at.is_some_and(|at| at <= now))
        })
    }

    /// How much has happened so far: it grows with whatever happens.
    pub fn happened(&self) -> usize {
        let of = |slice: &SliceTables| {
            let jobs = slice.enqueued.len() + slice.started.len() + slice.ended.len();
            jobs + slice.events.len() + slice.reacted.len() + slice.fires.len()
        };
        self.slices.iter().map(of).sum()
    }

    /// The state of a job by its usual name; `unknown` for an id that no job ever had.
    pub fn state_of(&self, now: Timestamp, id: Uuid) -> &'static str {
        let live = self.slices.iter().find_map(|slice| Some((slice, slice.jobs.get(&id)?)));
        if let Some((slice, job)) = live {
            let is_running = job.run_epoch == Some(slice.jobs_lease.epoch);
            return match job {
                _ if is_running => "running",
                JobRow { is_cancelled: true, .. } => "cancelled",
                JobRow { run_at, .. } if *run_at <= now => "available",
                JobRow { errors: 1.., .. } => "retryable",
                _ => "scheduled",
            };
        }
        if let Some(dead) = self.slices.iter().find_map(|slice| slice.dead.get(&id)) {
            return dead.state;
        }
        let ended = self.slices.iter().flat_map(|slice| slice.ended.iter().rev());
        ended.filter(|(of, ..)| *of == id).map(|(.., how)| *how).next().unwrap_or("unknown")
    }
}
