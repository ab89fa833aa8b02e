//! The job engine: hands out due jobs of the held slices, and stores what has ended.
//!
//! Only the holder of a slice's `jobs` lease runs its jobs, so claiming is a plain read. A job
//! runs only after its start was marked durably; it ends, and its outcome is appended, in one
//! fenced transaction. Timers and forwards have no handler: their effect is that transaction.
//! Three loops, so that each works while the others wait for the disk: the one here claims, which is
//! to read and to choose; `start` marks and hands out, `finish` stores.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use domain::effect::{FORWARD, RELAY, TIMER};
use futures_util::{StreamExt as _, stream};
use store::{Consumer, DueJob, Error};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::claimed::ClaimedJob;
use crate::context::Context;
use crate::jobs;
use crate::leases::{Leases, chain};
use crate::news::News;
use crate::running::RunningJobs;

mod ahead;
mod backlog;
mod cancel;
mod choose;
mod direct;
mod doubt;
mod finish;
mod lanes;
mod outcome;
mod relays;
mod start;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use ahead::Ahead;
pub(crate) use cancel::Oversight;
use choose::{Chosen, Offer, choose};
pub(crate) use doubt::Doubts;
pub(crate) use finish::Finisher;
pub(crate) use lanes::Lanes;
pub(crate) use start::{Marks, Starter, ToStart};

/// Slices whose timers and forwards are performed side by side: one that waits for the locked head of
/// another slice holds up few, and some connections are left.
const ABREAST: usize = 4;

/// A due job, small to move: thousands are put in order again and again.
type Due = Box<DueJob>;

/// When to look for due jobs.
#[derive(Debug)]
struct Look {
    at: Instant,
    /// Something due was left: also when a run ends.
    is_held_up: bool,
    /// Where something may be due that was not there to be seen, or not yet.
    news: News,
}

impl Look {
    fn now() -> Self {
        Self { at: Instant::now(), is_held_up: true, news: News::All }
    }

    /// At once, and besides what was to be looked at also at the news.
    fn hear(&mut self, news: News) {
        self.news.add(news);
        self.at = Instant::now();
    }

    fn is_due(&self) -> bool {
        self.at <= Instant::now()
    }
}

/// What starts jobs.
pub(crate) struct Engine {
    pub(crate) ctx: Context,
    pub(crate) leases: Leases,
    pub(crate) running: RunningJobs,
    /// Where jobs go that need no mark.
    pub(crate) jobs: mpsc::Sender<Arc<ClaimedJob>>,
    /// Where the others go.
    pub(crate) to_mark: mpsc::UnboundedSender<Vec<ToStart>>,
    /// Runs have ended, or will not start; with whether their jobs are over.
    pub(crate) freed: mpsc::UnboundedReceiver<bool>,
    /// Starts that may have been marked: not to be looked for before that is settled.
    pub(crate) doubts: Doubts,
    pub(crate) marks: Marks,
    /// What is known of cancelled jobs and of what former holders left.
    pub(crate) oversight: Oversight,
    /// What is kept out of the way of other jobs.
    pub(crate) lanes: Lanes,
    /// Due jobs that were read and are not started.
    pub(crate) ahead: Ahead,
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
    /// Starts jobs until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut look = Look::now();
        while !stop.is_cancelled() {
            if self.settle().await {
                look = Look::now();
            }
            if look.is_due() {
                look = self.claim(look).await;
            }
            if self.ahead.ask_at().is_some_and(|at| at <= Instant::now()) {
                self.ask().await;
                look.at = look.at.min(self.ahead.until);
            }
            let wake_at = self.ahead.ask_at().map_or(look.at, |at| at.min(look.at));
            tokio::select! {
                // In this order, so that a simulation can be repeated.
                biased;
                () = stop.cancelled() => {}
                Some(is_over) = self.freed.recv() => {
                    if !self.are_over(is_over) {
                        look = Look::now();
                    } else if look.is_held_up {
                        look.at = Instant::now();
                    }
                }
                news = self.ctx.job_wake() => look.hear(news),
                () = tokio::time::sleep_until(wake_at) => {}
            }
        }
    }

    /// Whether all jobs are over whose runs have ended meanwhile.
    fn are_over(&mut self, first: bool) -> bool {
        let mut are_over = first;
        while let Ok(is_over) = self.freed.try_recv() {
            are_over &= is_over;
        }
        are_over
    }

    /// Claims what is due and fits. Returns when to look again.
    async fn claim(&mut self, look: Look) -> Look {
        self.ctx.metrics().job_looks.inc();
        self.ahead.look(look.news, self.ctx.config().poll);
        let left = match self.try_claim().await {
            Ok(left) => left,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "no jobs claimed, trying again");
                self.ahead.stale = News::All;
                Left { is_held_up: true, is_more: false }
            }
        };
        if left.is_more {
            return Look::now();
        }
        Look { at: self.ahead.until, is_held_up: left.is_held_up, news: News::default() }
    }

    /// Claims what is due and fits.
    async fn try_claim(&mut self) -> Result<Left, Error> {
        let held: HashMap<i16, i64> =
            self.leases.held(Consumer::Jobs).iter().map(|l| (l.slice, l.epoch)).collect();
        self.oversee(&held).await?;
        let (mut ready, mut is_more) = self.keep_lanes(&held).await?;
        let taken = self.running.taken();
        // After what runs: what passes from there to the doubts is seen in one of them.
        let in_doubt = self.doubts.slices();
        ready.retain(|slice, _| !in_doubt.contains(slice));
        let slots = self.ctx.config().concurrency.saturating_sub(taken.ids.len());
        let mut due = self.read_due(&ready, slots).await?;
        let parked = self.parked(&ready, &taken, slots).await?;
        let has_parked = !parked.is_empty();
        if has_parked {
            // Perhaps read ahead before its key was parked.
            let ids: HashSet<Uuid> = parked.iter().map(|job| job.id).collect();
            due.retain(|job| !ids.contains(&job.id));
            self.ahead.backlog.retain(|job| !ids.contains(&job.id));
            due.extend(parked);
        }
        due.retain(|job| ready.contains_key(&job.slice) && !taken.ids.contains(&job.id));
        let (direct, due): (Vec<Due>, _) = due.into_iter().partition(|job| self.is_direct(job));
        let (paused, due): (Vec<Due>, Vec<Due>) =
            due.into_iter().partition(|job| self.lanes.pauses.hold(job));
        self.ahead.backlog.put(due);
        let holders = self.holders(&taken).await?;
        let offer = Offer { taken, slots, parked: &self.lanes.parked, holders };
        let Chosen { start, blocked } =
            choose(&mut self.ahead.backlog, offer, &mut self.lanes.shares);
        let direct = by_slice(direct.into_iter().map(|job| (job.slice, job)));
        let perform =
            |(slice, jobs)| direct::perform(&self.ctx, &self.leases, slice, ready[&slice], jobs);
        stream::iter(direct).for_each_concurrent(ABREAST, perform).await;
        self.start(&ready, start).await;
        is_more |= self.clear_way(&ready, &blocked, &paused).await?;
        // A full page may not be all, and of a parked key only what may start was read.
        let is_held_up = !blocked.is_empty()
            || !self.ahead.backlog.is_empty()
            || self.ahead.full.any()
            || !self.lanes.parked.is_empty();
        self.ahead.keep(blocked, has_parked);
        Ok(Left { is_held_up, is_more })
    }

    /// Whether a job is performed by the engine itself. A kind that is not known only waits: that
    /// is work too, and not done for paused ones.
    fn is_direct(&self, job: &DueJob) -> bool {
        matches!(job.kind.as_str(), TIMER | FORWARD | RELAY)
            || !jobs::is_known(&self.ctx, &job.kind) && !self.lanes.pauses.hold(job)
    }
}

fn by_slice<T>(items: impl IntoIterator<Item = (i16, T)>) -> BTreeMap<i16, Vec<T>> {
    let mut slices: BTreeMap<i16, Vec<T>> = BTreeMap::new();
    for (slice, item) in items {
        slices.entry(slice).or_default().push(item);
    }
    slices
}
