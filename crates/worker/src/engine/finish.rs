//! Stores how runs have ended: all that have ended meanwhile in one transaction, since a commit is
//! most of what an end costs. A loop of its own, so that ends are stored while others are started.
//!
//! An end that cannot be stored is *owed*: it is tried again while the lease is ours. One that the
//! database refuses is found by storing slice by slice and then one by one, and has failed by that.

use std::collections::BTreeMap;

use store::{Consumer, Error, Finish, Finished, Finishes};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::outcome;
use crate::claimed::{Ended, Verdict};
use crate::context::Context;
use crate::jobs::Done;
use crate::leases::{Leases, chain};
use crate::running::RunningJobs;

/// What stores the ends.
pub(crate) struct Finisher {
    pub(crate) ctx: Context,
    pub(crate) leases: Leases,
    pub(crate) running: RunningJobs,
    pub(crate) ended: mpsc::UnboundedReceiver<Ended>,
    /// Tells that runs have ended; with whether their jobs are over, so that none will be due again.
    pub(crate) freed: mpsc::UnboundedSender<bool>,
    /// Runs that have ended and whose end is not stored: tried again while the lease is ours.
    pub(crate) owed: Vec<Ended>,
}

/// Ended runs of one lease, each with what becomes of its job.
struct Batch {
    slice: i16,
    epoch: i64,
    ended: Vec<Ended>,
    finishes: Vec<Finish>,
}

impl Batch {
    fn new(slice: i16, epoch: i64) -> Self {
        Self { slice, epoch, ended: Vec::new(), finishes: Vec::new() }
    }

    fn of(&self) -> Finishes<'_> {
        Finishes { slice: self.slice, epoch: self.epoch, runs: &self.finishes }
    }

    /// Each run by itself.
    fn apart(self) -> impl Iterator<Item = Self> {
        let (slice, epoch) = (self.slice, self.epoch);
        self.ended.into_iter().zip(self.finishes).map(move |(ended, finish)| Self {
            slice,
            epoch,
            ended: vec![ended],
            finishes: vec![finish],
        })
    }
}

impl Finisher {
    /// Stores ends until nothing is `started` any more and nothing runs. With `cut` what runs is
    /// cancelled and given back.
    pub(crate) async fn run(mut self, started: CancellationToken, cut: CancellationToken) {
        let poll = self.ctx.config().poll;
        let mut cut_off = false;
        while !started.is_cancelled() || self.running.count() > 0 {
            tokio::select! {
                // In this order, so that a simulation can be repeated.
                biased;
                () = cut.cancelled(), if !cut_off => {
                    cut_off = true;
                    self.running.abort_all();
                }
                Some(ended) = self.ended.recv() => {
                    let is_over = self.finish(ended).await;
                    // Nobody listens any more when the process stops.
                    let _ = self.freed.send(is_over);
                }
                () = tokio::time::sleep(poll), if !self.owed.is_empty() => {
                    self.pay().await;
                    let _ = self.freed.send(false);
                    if started.is_cancelled() {
                        self.write_off();
                    }
                }
                () = started.cancelled(), if !started.is_cancelled() => {}
            }
        }
    }

    /// Finishes an ended run and all others that have ended meanwhile. Returns whether all their
    /// jobs are over.
    pub(super) async fn finish(&mut self, first: Ended) -> bool {
        let mut ended = vec![first];
        while let Ok(more) = self.ended.try_recv() {
            ended.push(more);
        }
        // The end of a child is a word to its parent, which is due.
        let is_over = ended.iter().all(|ended| {
            matches!(ended.verdict, Verdict::Done(Done::Call(_) | Done::Value(_) | Done::Quiet))
                && ended.job.waits.is_none()
        });
        let owed = self.finish_all(ended).await;
        self.owed.extend(owed);
        is_over && self.owed.is_empty()
    }

    /// Tries again to store what could not be stored.
    pub(super) async fn pay(&mut self) {
        if !self.owed.is_empty() {
            let owed = std::mem::take(&mut self.owed);
            self.owed = self.finish_all(owed).await;
        }
    }

    /// Gives up what cannot be stored because the lease has ended: the next holder runs it again.
    fn write_off(&mut self) {
        let (leases, running) = (&self.leases, &self.running);
        self.owed.retain(|owed| {
            let is_held = leases.holds(Consumer::Jobs, owed.job.slice, owed.job.epoch);
            if !is_held {
                running.remove(owed.job.id);
            }
            is_held
        });
    }

    /// Stores ended runs. Returns those that are to be tried again.
    async fn finish_all(&self, ended: Vec<Ended>) -> Vec<Ended> {
        let batches = self.batches(ended);
        let all: Vec<Finishes<'_>> = batches.iter().map(Batch::of).collect();
        let answer = self.leases.working(self.ctx.store().finish_all(&all)).await;
        match answer {
            Err(Error::Data { .. } | Error::OneByOne) if batches.len() > 1 => {
                let mut owed = Vec::new();
                for batch in batches {
                    owed.extend(self.finish_batch(batch).await);
                }
                owed
            }
            answer => self.settled(batches, answer).await,
        }
    }

    /// Ended runs by their leases, in the order of the slices.
    fn batches(&self, ended: Vec<Ended>) -> Vec<Batch> {
        let mut batches: BTreeMap<(i16, i64), Batch> = BTreeMap::new();
        for ended in ended {
            let is_cancelled = self.running.is_cancelled(ended.job.id);
            let finish = outcome::finish(&self.ctx, &ended, is_cancelled);
            let lease = (ended.job.slice, ended.job.epoch);
            let batch = batches.entry(lease).or_insert_with(|| Batch::new(lease.0, lease.1));
            batch.ended.push(ended);
            batch.finishes.push(finish);
        }
        batches.into_values().collect()
    }

    /// Stores the runs of one lease; where the database refuses them, one by one.
    async fn finish_batch(&self, batch: Batch) -> Vec<Ended> {
        let answer = self.ctx.store().finish_all(&[batch.of()]).await;
        if !matches!(answer, Err(Error::Data { .. })) || batch.ended.len() == 1 {
            return self.settled(vec![batch], answer).await;
        }
        let mut owed = Vec::new();
        for alone in batch.apart() {
            let answer = self.ctx.store().finish_all(&[alone.of()]).await;
            owed.extend(self.settled(vec![alone], answer).await);
        }
        owed
    }

    /// What an answer means for the runs. Returns those that are to be tried again: while the
    /// database is away, also past the lease's trusted time, since the epoch may still be ours
    /// after it.
    async fn settled(&self, batches: Vec<Batch>, answer: Result<Finished, Error>) -> Vec<Ended> {
        let finished = match answer {
            Ok(finished) => finished,
            // Only one run at a time comes to this: see above.
            Err(error @ Error::Data { .. }) => {
                tracing::error!(error = %chain(&error), "outcome refused");
                let all = batches.into_iter().flat_map(|batch| batch.ended);
                return all.map(|ended| failed_by(ended, &error)).collect();
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "outcomes not stored, trying again");
                return batches.into_iter().flat_map(|batch| batch.ended).collect();
            }
        };
        for batch in batches {
            if finished.fenced.contains(&(batch.slice, batch.epoch)) {
                self.lost(&batch).await;
            } else {
                self.stored(&batch, &finished);
            }
            for ended in &batch.ended {
                self.running.remove(ended.job.id);
            }
        }
        Vec::new()
    }

    fn stored(&self, batch: &Batch, finished: &Finished) {
        let Batch { slice, ended, finishes, .. } = batch;
        let mut lost = 0;
        for (ended, finish) in ended.iter().zip(finishes) {
            let (jobs, kind) = (&self.ctx.metrics().jobs, &ended.job.kind);
            if finished.ended.contains(&finish.id) {
                jobs.ended(kind, outcome::name(&finish.ending));
            } else {
                jobs.dropped(kind);
                lost += 1;
            }
        }
        if lost > 0 {
            tracing::warn!(slice, lost, "runs had been ended by somebody else");
        }
        if finishes.iter().any(|finish| !finish.events.is_empty()) {
            self.ctx.events_appended(*slice);
        }
    }

    /// The lease has passed on: the jobs run again, elsewhere.
    async fn lost(&self, batch: &Batch) {
        let Batch { slice, epoch, finishes, .. } = batch;
        tracing::warn!(slice, epoch, "lease lost: outcomes dropped, the jobs run again");
        self.ctx.metrics().fenced(Consumer::Jobs);
        for run in &batch.ended {
            self.ctx.metrics().jobs.dropped(&run.job.kind);
        }
        self.leases.forget(Consumer::Jobs, *slice, *epoch);
        let runs: Vec<(Uuid, i32)> = finishes.iter().map(|run| (run.id, run.attempt)).collect();
        // Their process did not die with them.
        match self.ctx.store().acquit(*slice, *epoch, &runs).await {
            Ok(acquitted) => {
                self.ctx.metrics().jobs.acquitted.inc_by(acquitted);
            }
            // Not again: it may have been heard. At worst each counts a crash too many.
            Err(error) => {
                tracing::warn!(slice, error = %chain(&error), "lost runs count as crashes");
            }
        }
    }
}

/// Stores ends of jobs of one slice that do not run here.
pub(super) async fn store(
    ctx: &Context,
    slice: i16,
    epoch: i64,
    finishes: &[Finish],
) -> Result<(), Error> {
    let stored = ctx.store().finish(slice, epoch, finishes).await?;
    let lost = finishes.iter().filter(|f| !stored.contains(&f.id)).count();
    if lost > 0 {
        tracing::warn!(slice, lost, "runs had been ended by somebody else");
    }
    ctx.events_appended(slice);
    Ok(())
}

/// A run whose outcome the database refuses has failed, so that its job is not held up for ever.
fn failed_by(mut ended: Ended, error: &Error) -> Ended {
    let reason = format!("its outcome was refused: {}", chain(error));
    ended.verdict = Verdict::Retry { after: None, reason };
    ended
}
