//! The job engine: hands out due jobs of the held slices and finishes what has ended.
//!
//! Only the holder of a slice's `jobs` lease runs its jobs, so claiming is a plain read. A job
//! runs only after its start was marked durably; it ends, and its outcome is appended, in one
//! fenced transaction. Timers and forwards have no handler: their effect is that transaction.

use std::collections::{BTreeMap, HashMap};

use domain::effect::{FORWARD, RELAY, TIMER};
use store::{Consumer, DueJob, Ending, Error, Finish, Started};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::claimed::{ClaimedJob, Ended, Verdict};
use crate::context::Context;
use crate::jobs::{self, Done};
use crate::leases::{Leases, chain};
use crate::running::RunningJobs;

mod cancel;
mod choose;
mod direct;
mod doubt;
mod lanes;
mod outcome;
mod relays;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use cancel::Oversight;
use choose::{Offer, choose};
pub(crate) use doubt::Doubt;
use lanes::Full;
pub(crate) use lanes::Lanes;

/// Due jobs read at once of each slice and priority.
const PER_SLICE: u8 = 64;

/// Processes that a job may take with it before it is set aside.
const MAX_CRASHES: i32 = 3;

/// When to look for due jobs.
#[derive(Debug, Clone, Copy)]
struct Look {
    at: Instant,
    /// Something due was left: also when a run ends.
    is_held_up: bool,
}

impl Look {
    fn now() -> Self {
        Self { at: Instant::now(), is_held_up: true }
    }

    fn is_due(self) -> bool {
        self.at <= Instant::now()
    }
}

/// The engine's ends of the channels to the handlers.
pub(crate) struct Engine {
    pub(crate) ctx: Context,
    pub(crate) leases: Leases,
    pub(crate) running: RunningJobs,
    pub(crate) jobs: mpsc::Sender<ClaimedJob>,
    pub(crate) ended: mpsc::UnboundedReceiver<Ended>,
    /// Runs that have ended and whose end is not stored: tried again while the lease is ours.
    pub(crate) owed: Vec<Ended>,
    /// Starts that may have been marked: not to be looked for before that is settled.
    pub(crate) doubts: Vec<Doubt>,
    /// What is known of cancelled jobs and of what former holders left.
    pub(crate) oversight: Oversight,
    /// What is kept out of the way of other jobs.
    pub(crate) lanes: Lanes,
}

/// What a claim leaves.
#[derive(Debug, Default)]
struct Left {
    /// Something due, which fits once a run has ended.
    is_held_up: bool,
    /// Something that was not looked at: it stood behind what is out of the way now.
    is_more: bool,
}

impl Engine {
    /// Hands out and finishes until `stop`; then only finishes, until nothing runs or `cut`, after
    /// which what runs is cancelled and given back.
    pub(crate) async fn run(mut self, stop: CancellationToken, cut: CancellationToken) {
        let mut look = Look::now();
        while !stop.is_cancelled() {
            self.pay().await;
            if self.settle().await {
                look = Look::now();
            }
            if look.is_due() {
                look = self.claim().await;
            }
            tokio::select! {
                // In this order, so that a simulation can be repeated.
                biased;
                () = stop.cancelled() => {}
                Some(ended) = self.ended.recv() => {
                    let is_over = self.finish(ended).await;
                    if look.is_held_up || !is_over {
                        look = Look::now();
                    }
                }
                () = self.ctx.job_wake() => look = Look::now(),
                () = tokio::time::sleep_until(look.at) => {}
            }
        }
        let mut cut_off = false;
        while self.running.count() > 0 {
            tokio::select! {
                biased;
                () = cut.cancelled(), if !cut_off => {
                    cut_off = true;
                    self.running.abort_all();
                }
                Some(ended) = self.ended.recv() => {
                    self.finish(ended).await;
                }
                () = tokio::time::sleep(self.ctx.config().poll), if !self.owed.is_empty() => {
                    self.pay().await;
                    self.write_off();
                }
            }
        }
    }

    /// Claims what is due and fits. Returns when to look again.
    async fn claim(&mut self) -> Look {
        let poll = self.ctx.config().poll;
        self.ctx.metrics().job_looks.inc();
        // Asked first: what becomes due between the two reads is found by the second.
        let next = self.ctx.store().next_due_in(self.ctx.process()).await;
        let wait = next.ok().flatten().map_or(poll, |due| due.min(poll));
        let at = Instant::now() + wait;
        let left = self.try_claim().await.unwrap_or_else(|error| {
            tracing::warn!(error = %chain(&error), "no jobs claimed, trying again");
            Left { is_held_up: true, is_more: false }
        });
        if left.is_more {
            return Look::now();
        }
        Look { at, is_held_up: left.is_held_up }
    }

    /// Claims what is due and fits.
    async fn try_claim(&mut self) -> Result<Left, Error> {
        let held: HashMap<i16, i64> =
            self.leases.held(Consumer::Jobs).iter().map(|l| (l.slice, l.epoch)).collect();
        self.oversee(&held).await?;
        let (ready, mut is_more) = self.keep_lanes(&held).await?;
        let (store, process) = (self.ctx.store(), self.ctx.process());
        let mut due = store.due_jobs(process, i64::from(PER_SLICE), &self.lanes.fair_after).await?;
        let full = Full::of(&due);
        let mut taken = self.running.taken();
        taken.ids.extend(self.doubts.iter().flat_map(|doubt| doubt.runs.iter().map(|run| run.id)));
        let slots = self.ctx.config().concurrency.saturating_sub(taken.ids.len());
        let parked = self.parked(&ready, &taken, slots).await?;
        if !parked.is_empty() {
            due.extend(parked);
            due.sort_by_key(|job| (job.priority, job.run_at, job.id));
        }
        due.retain(|job| ready.contains_key(&job.slice) && !taken.ids.contains(&job.id));
        let (direct, due): (Vec<DueJob>, _) = due.into_iter().partition(|job| self.is_direct(job));
        let pauses = self.lanes.pauses.clone();
        let offer = Offer { taken, slots, pauses: &pauses, parked: &self.lanes.parked };
        let mut chosen = choose(due, offer, &mut self.lanes.shares);
        for (slice, jobs) in by_slice(direct) {
            direct::perform(&self.ctx, &self.leases, slice, ready[&slice], jobs).await;
        }
        for (slice, jobs) in by_slice(std::mem::take(&mut chosen.start)) {
            self.start(slice, ready[&slice], jobs).await?;
        }
        is_more |= self.clear_way(&ready, &full, &chosen).await?;
        // A full page may not be all, and of a parked key only what may start was read.
        let is_held_up = chosen.is_held_up || full.any() || !self.lanes.parked.is_empty();
        Ok(Left { is_held_up, is_more })
    }

    /// Whether a job is performed by the engine itself. A kind that is not known only waits: that
    /// is work too, and not done for paused ones.
    fn is_direct(&self, job: &DueJob) -> bool {
        matches!(job.kind.as_str(), TIMER | FORWARD | RELAY)
            || !jobs::is_known(&self.ctx, &job.kind) && !self.lanes.pauses.hold(job)
    }

    /// Marks jobs of one slice as started and hands them to the handlers.
    async fn start(&mut self, slice: i16, epoch: i64, due: Vec<DueJob>) -> Result<(), Error> {
        let ids: Vec<Uuid> = due.iter().map(|job| job.id).collect();
        let started = match self.ctx.store().mark_started(slice, epoch, &ids).await {
            Err(Error::Fenced { .. }) => {
                self.leases.forget(Consumer::Jobs, slice, epoch);
                return Ok(());
            }
            Err(error) => {
                self.doubts.push(Doubt::of(slice, epoch, &due));
                return Err(error);
            }
            Ok(started) => started,
        };
        let started: HashMap<Uuid, Started> = started.into_iter().map(|s| (s.id, s)).collect();
        for mut due in due {
            let Some(mark) = started.get(&due.id) else { continue };
            due.args = mark.args.clone().unwrap_or(due.args);
            self.ctx.metrics().job_claimed(&due.kind);
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
    async fn quarantine(&mut self, job: &ClaimedJob, crashes: i32) {
        let error = format!("its process died {crashes} times while it ran");
        tracing::error!(job = %job.id, kind = %job.kind, %error, "job quarantined");
        self.ctx.metrics().job_ended(&job.kind, "quarantined");
        let events = outcome::given_up(&self.ctx, job, &error);
        let ending = Ending::Quarantined { error };
        let finish = Finish { id: job.id, attempt: job.attempt, ending, events };
        if let Err(error) = self.store(job.slice, job.epoch, std::slice::from_ref(&finish)).await {
            tracing::warn!(slice = job.slice, error = %chain(&error), "quarantine not stored");
            // Given back, it is started and quarantined again.
            self.doubts.push(Doubt::of_run(job.slice, job.epoch, &finish));
        }
    }

    /// Finishes an ended run and all others that have ended meanwhile, slice by slice. Returns
    /// whether all their jobs are over, so that none of them will be due again.
    async fn finish(&mut self, first: Ended) -> bool {
        let mut ended = vec![first];
        while let Ok(more) = self.ended.try_recv() {
            ended.push(more);
        }
        // The end of a child is a word to its parent, which is due.
        let is_over = ended.iter().all(|ended| {
            matches!(ended.verdict, Verdict::Done(Done::Call(_) | Done::Value(_)))
                && ended.job.waits.is_none()
        });
        let owed = self.finish_all(ended).await;
        self.owed.extend(owed);
        is_over && self.owed.is_empty()
    }

    /// Tries again to store what could not be stored.
    async fn pay(&mut self) {
        if !self.owed.is_empty() {
            let owed = std::mem::take(&mut self.owed);
            self.owed = self.finish_all(owed).await;
        }
    }

    /// Stores ended runs, all slices at once. Returns those that are to be tried again.
    async fn finish_all(&self, ended: Vec<Ended>) -> Vec<Ended> {
        let mut by_slice: BTreeMap<(i16, i64), Vec<Ended>> = BTreeMap::new();
        for ended in ended {
            by_slice.entry((ended.job.slice, ended.job.epoch)).or_default().push(ended);
        }
        let stores = by_slice.into_iter().map(|((slice, epoch), list)| async move {
            let ids: Vec<Uuid> = list.iter().map(|ended| ended.job.id).collect();
            let owed = self.finish_slice(slice, epoch, list).await;
            for id in ids.iter().filter(|id| !owed.iter().any(|owed| owed.job.id == **id)) {
                self.running.remove(*id);
            }
            owed
        });
        futures_util::future::join_all(stores).await.into_iter().flatten().collect()
    }

    /// Stores ended runs of one slice; where the database refuses them, one by one, and one that is
    /// refused alone has failed by that. Returns those whose end is owed.
    async fn finish_slice(&self, slice: i16, epoch: i64, ended: Vec<Ended>) -> Vec<Ended> {
        let (refused, error) = match self.store_ended(slice, epoch, ended).await {
            Ok(owed) => return owed,
            Err(refused) => refused,
        };
        tracing::error!(slice, error = %chain(&error), "outcomes refused");
        if refused.len() == 1 {
            return refused.into_iter().map(|ended| failed_by(ended, &error)).collect();
        }
        let mut owed = Vec::new();
        for alone in refused {
            match self.store_ended(slice, epoch, vec![alone]).await {
                Ok(still) => owed.extend(still),
                Err((refused, error)) => {
                    owed.extend(refused.into_iter().map(|ended| failed_by(ended, &error)));
                }
            }
        }
        owed
    }

    /// Stores ended runs in one transaction. Returns those to be tried again: while the database
    /// is away, also past the lease's trusted time, since the epoch may still be ours after it.
    ///
    /// # Errors
    /// The runs, where the database refuses them.
    async fn store_ended(
        &self,
        slice: i16,
        epoch: i64,
        ended: Vec<Ended>,
    ) -> Result<Vec<Ended>, (Vec<Ended>, Error)> {
        let finish = |ended: &Ended| {
            outcome::finish(&self.ctx, ended, self.running.is_cancelled(ended.job.id))
        };
        let finishes: Vec<Finish> = ended.iter().map(finish).collect();
        match self.store(slice, epoch, &finishes).await {
            Ok(()) => {
                for (ended, finish) in ended.iter().zip(&finishes) {
                    self.ctx.metrics().job_ended(&ended.job.kind, outcome::name(&finish.ending));
                }
                Ok(Vec::new())
            }
            Err(Error::Fenced { .. }) => {
                tracing::warn!(slice, epoch, "lease lost: outcomes dropped, the jobs run again");
                self.ctx.metrics().fenced(Consumer::Jobs);
                self.leases.forget(Consumer::Jobs, slice, epoch);
                self.acquit(slice, epoch, &finishes).await;
                Ok(Vec::new())
            }
            Err(error @ Error::Data { .. }) => Err((ended, error)),
            Err(error) => {
                tracing::warn!(slice, error = %chain(&error), "outcomes not stored, trying again");
                Ok(ended)
            }
        }
    }

    /// Says of runs that lost their lease that their process did not die with them.
    async fn acquit(&self, slice: i16, epoch: i64, runs: &[Finish]) {
        let runs: Vec<(Uuid, i32)> = runs.iter().map(|run| (run.id, run.attempt)).collect();
        if let Err(error) = self.ctx.store().acquit(slice, epoch, &runs).await {
            // Not again: it may have been heard. At worst each counts a crash too many.
            tracing::warn!(slice, error = %chain(&error), "lost runs count as crashes");
        }
    }

    async fn store(&self, slice: i16, epoch: i64, finishes: &[Finish]) -> Result<(), Error> {
        let stored = self.ctx.store().finish(slice, epoch, finishes).await?;
        let lost = finishes.iter().filter(|f| !stored.contains(&f.id)).count();
        if lost > 0 {
            tracing::warn!(slice, lost, "runs had been ended by somebody else");
        }
        self.ctx.events_appended(slice);
        Ok(())
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
}

fn by_slice(jobs: Vec<DueJob>) -> BTreeMap<i16, Vec<DueJob>> {
    let mut slices: BTreeMap<i16, Vec<DueJob>> = BTreeMap::new();
    for job in jobs {
        slices.entry(job.slice).or_default().push(job);
    }
    slices
}

/// A run whose outcome the database refuses has failed, so that its job is not held up for ever.
fn failed_by(mut ended: Ended, error: &Error) -> Ended {
    let reason = format!("its outcome was refused: {}", chain(error));
    ended.verdict = Verdict::Retry { after: None, reason };
    ended
}
