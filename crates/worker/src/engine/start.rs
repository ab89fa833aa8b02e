//! Starts what was chosen: marks all that was chosen meanwhile in one transaction, since a commit is
//! most of what a mark costs, and hands it to the handlers. A loop of its own, so that others are
//! chosen while these are marked.
//!
//! Only what the mark returns may run. A kind whose runs are cheap and may be repeated without harm
//! is not marked: it costs no write before it runs, and no crash of it is counted.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use store::{Consumer, Ending, Error, Finish, Started, StartedAll, Starts};
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::doubt::{Doubt, Doubts};
use super::{Due, Engine, finish, outcome};
use crate::claimed::ClaimedJob;
use crate::context::Context;
use crate::jobs;
use crate::leases::{Leases, chain};
use crate::running::RunningJobs;

/// Held while jobs are marked, and while others are moved between the lanes: both change rows of
/// waiting jobs, each in an order of its own, and would wait for each other in a circle.
pub(crate) type Marks = Arc<Mutex<()>>;

/// A job that was chosen, and the epoch of the lease to start it under.
pub(crate) struct ToStart {
    job: Due,
    epoch: i64,
}

/// What marks and hands out. Whatever it holds is in the book of what runs.
pub(crate) struct Starter {
    pub(crate) ctx: Context,
    pub(crate) leases: Leases,
    pub(crate) running: RunningJobs,
    pub(crate) chosen: mpsc::UnboundedReceiver<Vec<ToStart>>,
    pub(crate) jobs: mpsc::Sender<Arc<ClaimedJob>>,
    pub(crate) doubts: Doubts,
    pub(crate) marks: Marks,
    /// Tells that chosen jobs are not started; with whether nothing of them is in doubt.
    pub(crate) freed: mpsc::UnboundedSender<bool>,
}

/// Chosen jobs by their leases, slices in ascending order.
type Parts = BTreeMap<(i16, i64), Vec<Due>>;

/// What a round of marks came to.
#[derive(Default)]
struct Marked {
    all: StartedAll,
    /// The leases of which no answer came.
    unheard: Vec<(i16, i64)>,
}

impl Marked {
    fn add(&mut self, starts: &[Starts], answer: Result<StartedAll, Error>) {
        match answer {
            Ok(all) => {
                self.all.started.extend(all.started);
                self.all.fenced.extend(all.fenced);
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "no jobs started, trying again");
                self.unheard.extend(starts.iter().map(|starts| (starts.slice, starts.epoch)));
            }
        }
    }
}

impl Engine {
    /// Starts jobs of the ready slices, in this order.
    pub(super) async fn start(&mut self, ready: &HashMap<i16, i64>, chosen: Vec<Due>) {
        let mut to_mark = Vec::new();
        for job in chosen {
            let epoch = ready[&job.slice];
            if !self.running.add(&job, epoch) {
                continue;
            }
            // Who holds a key has to be known to the next holder of the slice.
            if job.ordered || jobs::is_marked(&self.ctx, &job.kind) {
                to_mark.push(ToStart { job, epoch });
            } else {
                let attempt = job.attempt + 1;
                self.ctx.metrics().jobs.started(&job.kind, job.waited.so_far());
                let job = ClaimedJob::new(*job, epoch, attempt);
                hand_out(&self.jobs, &self.running, job).await;
            }
        }
        if to_mark.is_empty() {
            return;
        }
        if let Err(unsent) = self.to_mark.send(to_mark) {
            // The worker is dying.
            unsent.0.iter().for_each(|one| self.running.remove(one.job.id));
        }
    }
}

/// Gives a job to its handler.
async fn hand_out(
    handlers: &mpsc::Sender<Arc<ClaimedJob>>,
    running: &RunningJobs,
    job: ClaimedJob,
) {
    let id = job.id;
    // The channel holds as many as may run, so this waits for nothing but a dead worker.
    if handlers.send(job.into()).await.is_err() {
        running.remove(id);
    }
}

impl Starter {
    /// Starts what is chosen until nobody chooses any more. After `stop` nothing more is marked.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        while let Some(mut chosen) = self.chosen.recv().await {
            while let Ok(more) = self.chosen.try_recv() {
                chosen.extend(more);
            }
            if stop.is_cancelled() {
                self.not_started(chosen.iter().map(|one| one.job.id), true);
            } else {
                self.start(chosen).await;
            }
        }
    }

    /// Marks jobs and hands out those that are marked.
    async fn start(&self, chosen: Vec<ToStart>) {
        let mut parts = Parts::new();
        for ToStart { job, epoch } in chosen {
            parts.entry((job.slice, epoch)).or_default().push(job);
        }
        let Marked { all, unheard } = self.mark(&parts).await;
        for (slice, epoch) in all.fenced {
            self.leases.forget(Consumer::Jobs, slice, epoch);
        }
        for lease in unheard {
            let jobs = parts.remove(&lease).unwrap_or_default();
            self.doubts.add(Doubt::of(lease, &jobs));
            self.not_started(jobs.iter().map(|job| job.id), false);
        }
        self.hand_out_all(parts, all.started).await;
    }

    /// Marks jobs, by one transaction where the database can do that.
    async fn mark(&self, parts: &Parts) -> Marked {
        let of = |(&(slice, epoch), jobs): (&(i16, i64), &Vec<Due>)| Starts {
            slice,
            epoch,
            ids: jobs.iter().map(|job| job.id).collect(),
            attempts: jobs.iter().map(|job| Some(job.attempt)).collect(),
        };
        let starts: Vec<Starts> = parts.iter().map(of).collect();
        let mut marked = Marked::default();
        let _marks = self.marks.lock().await;
        match self.leases.working(self.ctx.store().mark_all(&starts)).await {
            Err(Error::OneByOne) => {
                for one in starts.chunks(1) {
                    marked.add(one, self.ctx.store().mark_all(one).await);
                }
            }
            answer => marked.add(&starts, answer),
        }
        marked
    }

    /// Hands out the jobs that were marked; the others were ended, edited or taken meanwhile.
    async fn hand_out_all(&self, parts: Parts, started: Vec<Started>) {
        let mut started: HashMap<Uuid, Started> =
            started.into_iter().map(|start| (start.id, start)).collect();
        let mut others = Vec::new();
        for ((_, epoch), jobs) in parts {
            for mut job in jobs {
                let Some(start) = started.remove(&job.id) else {
                    others.push(job.id);
                    continue;
                };
                job.args = start.args.unwrap_or(job.args);
                self.ctx.metrics().jobs.started(&job.kind, job.waited.so_far());
                let job = ClaimedJob::new(*job, epoch, start.attempt);
                if start.crashes > jobs::max_crashes(&job.kind) {
                    self.quarantine(&job, start.crashes).await;
                } else {
                    hand_out(&self.jobs, &self.running, job).await;
                }
            }
        }
        if !others.is_empty() {
            self.not_started(others.into_iter(), true);
        }
    }

    /// Sets a job aside that took its process with it again and again.
    async fn quarantine(&self, job: &ClaimedJob, crashes: i32) {
        let error = format!("its process died {crashes} times while it ran");
        tracing::error!(job = %job.id, kind = %job.kind, %error, "job quarantined");
        self.ctx.metrics().jobs.ended(&job.kind, "quarantined");
        let events = outcome::given_up(&self.ctx, job, &error);
        let ending = Ending::Quarantined { error };
        let end = Finish { id: job.id, attempt: job.attempt, ending, events };
        let ends = std::slice::from_ref(&end);
        let stored = finish::store(&self.ctx, job.slice, job.epoch, ends).await;
        if let Err(error) = &stored {
            tracing::warn!(slice = job.slice, error = %chain(error), "quarantine not stored");
            // Given back, it is started and quarantined again.
            self.doubts.add(Doubt::of_run((job.slice, job.epoch), &end));
        }
        self.not_started(std::iter::once(job.id), stored.is_ok());
    }

    /// Strikes jobs from the book and says so. What is in doubt was noted before: so a job is in the
    /// one or the other at any time, and not chosen anew.
    fn not_started(&self, jobs: impl Iterator<Item = Uuid>, is_settled: bool) {
        jobs.for_each(|job| self.running.remove(job));
        // Nobody listens any more when the process stops.
        let _ = self.freed.send(is_settled);
    }
}
