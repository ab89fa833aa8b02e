//! What becomes of a job whose run has ended, on the in-memory tables.

use std::collections::HashSet;
use std::time::Duration;

use domain::ids::Timestamp;
use uuid::Uuid;

use super::{DeadRow, JobRow, NEVER};
use crate::testing::tables::{SliceTables, bounded, micros};
use crate::{Ending, Finish};

impl SliceTables {
    /// Those of the finishes, each once, that end the present run of their job.
    pub(super) fn ending<'a>(&self, finishes: &'a [Finish]) -> Vec<&'a Finish> {
        let mut seen = HashSet::new();
        let is_told = |f: &&Finish| {
            let is_failure = matches!(f.ending, Ending::Retry { .. });
            seen.insert((f.id, f.attempt))
                && self.jobs.get(&f.id).is_some_and(|job| {
                    let runs = job.run_epoch.is_some_and(|run| run != NEVER);
                    let is_unmarked = job.attempt == f.attempt - 1 && !runs;
                    is_unmarked || job.attempt == f.attempt && (!is_failure || runs)
                })
        };
        finishes.iter().filter(is_told).collect()
    }

    /// Notes a run under this lease that failed or was cancelled.
    pub(super) fn note_run(&mut self, epoch: i64, finish: &Finish) {
        let outcome = match finish.ending {
            Ending::Retry { .. } => "failed",
            Ending::Discarded { .. } => "discarded",
            Ending::Cancelled { .. } => "cancelled",
            Ending::Completed
            | Ending::Snooze { .. }
            | Ending::Again { .. }
            | Ending::Wait { .. }
            | Ending::Quarantined { .. }
            | Ending::Released => return,
        };
        let runs = |job: &JobRow| job.run_epoch == Some(epoch) || job.attempt == finish.attempt - 1;
        if self.jobs.get(&finish.id).is_some_and(runs) {
            self.attempts.push(((finish.id, finish.attempt), outcome));
        }
    }

    /// What becomes of a job whose run has ended.
    pub(super) fn end_run(&mut self, now: Timestamp, epoch: i64, finish: &Finish) {
        let storable = |text: &String| text.replace('\0', "\u{fffd}");
        let is_counted = matches!(
            finish.ending,
            Ending::Retry { .. } | Ending::Discarded { .. } | Ending::Quarantined { .. }
        );
        if let Some(job) = self.jobs.get_mut(&finish.id).filter(|_| is_counted) {
            job.attempt = finish.attempt;
        }
        self.end_waits(now, finish);
        let how = match &finish.ending {
            Ending::Wait { step } => {
                self.wait(now, (finish.id, finish.attempt), step);
                "waiting"
            }
            Ending::Completed => {
                self.jobs.remove(&finish.id);
                "completed"
            }
            Ending::Retry { error, after } => {
                self.again(
                    (now, epoch),
                    (finish.id, finish.attempt),
                    *after,
                    Some(storable(error)),
                );
                "failed"
            }
            Ending::Snooze { after } => {
                self.again((now, epoch), (finish.id, finish.attempt), *after, None);
                "snoozed"
            }
            Ending::Again { after } => {
                self.again((now, epoch), (finish.id, finish.attempt), *after, None);
                self.forget_failures(finish.id);
                "again"
            }
            Ending::Released => {
                self.again((now, epoch), (finish.id, finish.attempt), Duration::ZERO, None);
                "released"
            }
            Ending::Cancelled { .. } => {
                self.jobs.remove(&finish.id);
                "cancelled"
            }
            Ending::Discarded { error } => self.bury(finish.id, "discarded", storable(error)),
            Ending::Quarantined { error } => self.bury(finish.id, "quarantined", storable(error)),
        };
        self.ended.push((finish.id, finish.attempt, how));
    }

    fn again(
        &mut self,
        (now, epoch): (Timestamp, i64),
        (id, attempt): (Uuid, i32),
        after: Duration,
        error: Option<String>,
    ) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let delay = bounded(after);
        if delay.is_zero() {
            job.attempt = attempt;
        } else {
            job.run_at = micros(now + delay);
            job.lane = job.home();
        }
        job.crashes += i32::from(job.run_epoch.is_some_and(|run| run < epoch));
        job.run_epoch = job.is_cancelled.then_some(NEVER);
        job.errors += i32::from(error.is_some());
        job.last_error = error.or_else(|| job.last_error.take());
    }

    /// What failed before is over.
    fn forget_failures(&mut self, id: Uuid) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        (job.errors, job.crashes) = (0, 0);
        job.last_error = None;
        job.order = job.order.ended();
    }

    fn bury(&mut self, id: Uuid, state: &'static str, error: String) -> &'static str {
        if let Some(mut job) = self.jobs.remove(&id) {
            job.errors += 1;
            job.last_error = Some(error);
            job.order = job.order.ended();
            if let Some(died_before) = self.dead.remove(&id) {
                let JobRow { args, attempt, errors, crashes, last_error, .. } = job;
                job = JobRow { args, attempt, errors, crashes, last_error, ..died_before.job };
            }
            self.dead.insert(id, DeadRow { job, state });
        }
        state
    }
}
