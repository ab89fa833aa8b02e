//! The job engine: hands out due jobs of the held slices and finishes what has ended.
//!
//! Only the holder of a slice's `jobs` lease runs its jobs, so claiming is a plain read. A job
//! runs only after its start was marked durably; it ends, and its outcome is appended, in one
//! fenced transaction. Timers and forwards have no handler: their effect is that transaction.

use std::collections::HashMap;

use domain::effect::{FORWARD, TIMER};
use store::{Consumer, DueJob, Ending, Error, Finish, Started};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::claimed::{ClaimedJob, Ended};
use crate::context::Context;
use crate::jobs;
use crate::leases::{Leases, chain};
use crate::running::RunningJobs;

mod direct;
mod outcome;
#[cfg(test)]
pub(crate) mod tests;

/// Due jobs read at once of each slice and priority.
const PER_SLICE: i64 = 64;

/// Processes that a job may take with it before it is set aside.
const MAX_CRASHES: i32 = 3;

/// The engine's ends of the channels to the handlers.
pub(crate) struct Engine {
    pub(crate) ctx: Context,
    pub(crate) leases: Leases,
    pub(crate) running: RunningJobs,
    pub(crate) jobs: mpsc::Sender<ClaimedJob>,
    pub(crate) ended: mpsc::UnboundedReceiver<Ended>,
}

impl Engine {
    /// Hands out and finishes until `stop`; then only finishes, until nothing runs or `cut`, after
    /// which what runs is cancelled and given back.
    pub(crate) async fn run(mut self, stop: CancellationToken, cut: CancellationToken) {
        while !stop.is_cancelled() {
            let wait = self.claim().await;
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.ctx.job_wake() => {}
                () = tokio::time::sleep(wait) => {}
                Some(ended) = self.ended.recv() => self.finish(ended).await,
            }
        }
        let mut cut_off = false;
        while self.running.count() > 0 {
            tokio::select! {
                () = cut.cancelled(), if !cut_off => {
                    cut_off = true;
                    self.running.abort_all();
                }
                Some(ended) = self.ended.recv() => self.finish(ended).await,
            }
        }
    }

    /// Claims what is due and fits. Returns how long to wait for the next.
    async fn claim(&self) -> std::time::Duration {
        let poll = self.ctx.config().poll;
        match self.try_claim().await {
            Ok(()) => {}
            Err(error) => {
                tracing::warn!(error = %chain(&error), "no jobs claimed, trying again");
                return poll;
            }
        }
        let next = self.ctx.store().next_due_in(self.ctx.process()).await;
        next.ok().flatten().map_or(poll, |due| due.min(poll))
    }

    async fn try_claim(&self) -> Result<(), Error> {
        let due = self.ctx.store().due_jobs(self.ctx.process(), PER_SLICE).await?;
        let held: HashMap<i16, i64> =
            self.leases.held(Consumer::Jobs).iter().map(|l| (l.slice, l.epoch)).collect();
        let (mut ids, mut subjects) = self.running.taken();
        let mut slots = self.ctx.config().concurrency.saturating_sub(ids.len());
        let mut by_slice: HashMap<i16, Vec<DueJob>> = HashMap::new();
        let mut direct: HashMap<i16, Vec<DueJob>> = HashMap::new();
        for job in due {
            if !held.contains_key(&job.slice) || ids.contains(&job.id) {
                continue;
            }
            if matches!(job.kind.as_str(), TIMER | FORWARD) || !jobs::is_known(&job.kind) {
                direct.entry(job.slice).or_default().push(job);
            } else if slots > 0 && subjects.insert(job.subject.to_string()) {
                slots -= 1;
                ids.insert(job.id);
                by_slice.entry(job.slice).or_default().push(job);
            }
        }
        for (slice, jobs) in direct {
            direct::perform(&self.ctx, &self.leases, slice, held[&slice], jobs).await;
        }
        for (slice, jobs) in by_slice {
            self.start(slice, held[&slice], jobs).await?;
        }
        Ok(())
    }

    /// Marks jobs of one slice as started and hands them to the handlers.
    async fn start(&self, slice: i16, epoch: i64, due: Vec<DueJob>) -> Result<(), Error> {
        let ids: Vec<Uuid> = due.iter().map(|job| job.id).collect();
        let started = match self.ctx.store().mark_started(slice, epoch, &ids).await {
            Err(Error::Fenced { .. }) => {
                self.leases.forget(Consumer::Jobs, slice, epoch);
                return Ok(());
            }
            other => other?,
        };
        let started: HashMap<Uuid, Started> = started.into_iter().map(|s| (s.id, s)).collect();
        for due in due {
            let Some(mark) = started.get(&due.id) else { continue };
            let job = ClaimedJob::new(due, epoch, mark.attempt);
            if mark.crashes > MAX_CRASHES {
                self.quarantine(&job, mark.crashes).await;
                continue;
            }
            self.running.add(&job);
            let id = job.id;
            // The channel holds as many as may run, so this waits for nothing but a dead worker.
            if self.jobs.send(job).await.is_err() {
                self.running.remove(id);
            }
        }
        Ok(())
    }

    /// Sets a job aside that took its process with it again and again.
    async fn quarantine(&self, job: &ClaimedJob, crashes: i32) {
        let error = format!("its process died {crashes} times while it ran");
        tracing::error!(job = %job.id, kind = %job.kind, %error, "job quarantined");
        let events = outcome::given_up(job, &error);
        let ending = Ending::Quarantined { error };
        let finish = Finish { id: job.id, attempt: job.attempt, ending, events };
        self.store_finishes(job.slice, job.epoch, vec![finish]).await;
    }

    /// Finishes an ended run and all others that have ended meanwhile, slice by slice.
    async fn finish(&mut self, first: Ended) {
        let mut ended = vec![first];
        while let Ok(more) = self.ended.try_recv() {
            ended.push(more);
        }
        let mut by_slice: HashMap<(i16, i64), Vec<Finish>> = HashMap::new();
        let ids: Vec<Uuid> = ended.iter().map(|e| e.job.id).collect();
        for ended in &ended {
            let key = (ended.job.slice, ended.job.epoch);
            by_slice.entry(key).or_default().push(outcome::finish(ended));
        }
        let stores = by_slice.into_iter().map(|((s, e), list)| self.store_finishes(s, e, list));
        futures_util::future::join_all(stores).await;
        for id in ids {
            self.running.remove(id);
        }
    }

    /// Stores ended runs of one slice, trying again while the database is away and the lease lasts.
    async fn store_finishes(&self, slice: i16, epoch: i64, finishes: Vec<Finish>) {
        loop {
            match self.ctx.store().finish(slice, epoch, &finishes).await {
                Ok(stored) => {
                    let lost = finishes.iter().filter(|f| !stored.contains(&f.id)).count();
                    if lost > 0 {
                        tracing::warn!(slice, lost, "runs had been ended by somebody else");
                    }
                    self.ctx.events_appended(slice);
                    return;
                }
                Err(Error::Fenced { .. }) => {
                    tracing::warn!(
                        slice,
                        epoch,
                        "lease lost: outcomes dropped, the jobs run again"
                    );
                    self.leases.forget(Consumer::Jobs, slice, epoch);
                    return;
                }
                Err(error) if error.is_transient() => {
                    tracing::warn!(slice, error = %chain(&error), "outcomes not stored, trying again");
                    if !self.leases.holds(Consumer::Jobs, slice, epoch) {
                        return;
                    }
                    tokio::time::sleep(self.ctx.config().poll).await;
                }
                Err(error) => {
                    tracing::error!(slice, error = %chain(&error), "outcomes refused; the jobs run again");
                    return;
                }
            }
        }
    }
}
