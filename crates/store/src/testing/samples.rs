//! Samples of jobs on the in-memory tables: `jobs/sample.rs` without SQL, and without its cap.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::ids::Timestamp;

use super::jobs::{DeadRow, JobRow};
use super::tables::Tables;
use crate::{JobGroup, JobSample};

impl Tables {
    pub(super) fn sample_jobs(&mut self, now: Timestamp, slice: i16) -> JobSample {
        let pauses = self.pauses.clone();
        let Some(tables) = self.slice(slice) else { return JobSample::default() };
        let mut groups: BTreeMap<(String, String, &str), (i64, Option<Duration>)> = BTreeMap::new();
        let mut count = |job: &JobRow, state, waited: Option<Duration>| {
            let of = (job.kind.clone(), job.queue.clone(), state);
            let (jobs, oldest) = groups.entry(of).or_default();
            *jobs += 1;
            *oldest = (*oldest).max(waited);
        };
        for job in tables.jobs.values() {
            let state = job.state(now);
            let may_start =
                state == "available" && !pauses.hold_one(&job.kind, &job.queue, job.key());
            let waited = (now - job.run_at.max(job.enqueued_at)).to_std().unwrap_or_default();
            count(job, state, may_start.then_some(waited));
        }
        for DeadRow { job, state } in tables.dead.values() {
            count(job, state, None);
        }
        let groups = groups.into_iter().map(|((kind, queue, state), (jobs, oldest))| JobGroup {
            kind,
            queue,
            state: state.to_owned(),
            jobs,
            oldest,
        });
        JobSample { groups: groups.collect(), is_capped: false }
    }
}

impl JobRow {
    /// Its state, as `tallylight.job_state` names it.
    fn state(&self, now: Timestamp) -> &'static str {
        match self.run_epoch {
            Some(epoch) if epoch < i64::MAX => "running",
            _ if self.is_cancelled => "cancelled",
            _ if self.run_at <= now => "available",
            _ if self.errors > 0 => "retryable",
            _ => "scheduled",
        }
    }
}
