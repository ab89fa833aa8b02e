//! Starts chosen jobs: marks them, all slices at once, and hands them to the handlers.
//!
//! Only what the mark returns may run. A kind whose runs are cheap and may be repeated without harm
//! is not marked: it costs no write before it runs, and no crash of it is counted.

use std::collections::HashMap;

use store::{Consumer, DueJob, Ending, Error, Finish, Started, StartedAll, Starts};
use uuid::Uuid;

use super::{Doubt, Engine, by_slice, finish, outcome};
use crate::claimed::ClaimedJob;
use crate::jobs;
use crate::leases::chain;

/// Processes that a job may take with it before it is set aside.
pub(super) const MAX_CRASHES: i32 = 3;

/// What a round of marks came to.
#[derive(Default)]
struct Marked {
    all: StartedAll,
    /// The slices of which no answer came, and why.
    unheard: Vec<i16>,
    error: Option<Error>,
}

impl Marked {
    fn add(&mut self, starts: &[Starts], answer: Result<StartedAll, Error>) {
        match answer {
            Ok(all) => {
                self.all.started.extend(all.started);
                self.all.fenced.extend(all.fenced);
            }
            Err(error) => {
                self.unheard.extend(starts.iter().map(|starts| starts.slice));
                self.error = Some(error);
            }
        }
    }
}

impl Engine {
    /// Starts jobs of the ready slices, in this order.
    pub(super) async fn start(
        &mut self,
        ready: &HashMap<i16, i64>,
        chosen: Vec<DueJob>,
    ) -> Result<(), Error> {
        let is_marked = |job: &DueJob| jobs::is_marked(&self.ctx, &job.kind);
        let (to_mark, unmarked): (Vec<DueJob>, Vec<DueJob>) =
            chosen.into_iter().partition(is_marked);
        for job in unmarked {
            let (epoch, attempt) = (ready[&job.slice], job.attempt + 1);
            self.ctx.metrics().jobs.started(&job.kind, job.waited.so_far());
            self.hand_out(ClaimedJob::new(job, epoch, attempt)).await;
        }
        if to_mark.is_empty() {
            return Ok(());
        }
        let mut marked = self.mark(ready, &to_mark).await;
        for (slice, epoch) in &marked.all.fenced {
            self.leases.forget(Consumer::Jobs, *slice, *epoch);
        }
        for slice in &marked.unheard {
            let jobs = to_mark.iter().filter(|job| job.slice == *slice);
            self.doubts.push(Doubt::of(*slice, ready[slice], jobs));
        }
        let mut started: HashMap<Uuid, Started> =
            marked.all.started.drain(..).map(|start| (start.id, start)).collect();
        for mut job in to_mark {
            let Some(start) = started.remove(&job.id) else { continue };
            job.args = start.args.unwrap_or(job.args);
            self.ctx.metrics().jobs.started(&job.kind, job.waited.so_far());
            let epoch = ready[&job.slice];
            let job = ClaimedJob::new(job, epoch, start.attempt);
            if start.crashes > MAX_CRASHES {
                self.quarantine(&job, start.crashes).await;
            } else {
                self.hand_out(job).await;
            }
        }
        marked.error.map_or(Ok(()), Err)
    }

    /// Marks jobs, by one transaction where the database can do that.
    async fn mark(&self, ready: &HashMap<i16, i64>, jobs: &[DueJob]) -> Marked {
        let due = by_slice(jobs.iter().map(|job| (job.slice, (job.id, Some(job.attempt)))));
        let starts: Vec<Starts> = due
            .into_iter()
            .map(|(slice, due)| {
                let (ids, attempts) = due.into_iter().unzip();
                Starts { slice, epoch: ready[&slice], ids, attempts }
            })
            .collect();
        let mut marked = Marked::default();
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

    /// Gives a job to its handler.
    async fn hand_out(&self, job: ClaimedJob) {
        self.running.add(&job);
        let id = job.id;
        // The channel holds as many as may run, so this waits for nothing but a dead worker.
        if self.jobs.send(job.into()).await.is_err() {
            self.running.remove(id);
        }
    }

    /// Sets a job aside that took its process with it again and again.
    async fn quarantine(&mut self, job: &ClaimedJob, crashes: i32) {
        let error = format!("its process died {crashes} times while it ran");
        tracing::error!(job = %job.id, kind = %job.kind, %error, "job quarantined");
        self.ctx.metrics().jobs.ended(&job.kind, "quarantined");
        let events = outcome::given_up(&self.ctx, job, &error);
        let ending = Ending::Quarantined { error };
        let end = Finish { id: job.id, attempt: job.attempt, ending, events };
        let ends = std::slice::from_ref(&end);
        if let Err(error) = finish::store(&self.ctx, job.slice, job.epoch, ends).await {
            tracing::warn!(slice = job.slice, error = %chain(&error), "quarantine not stored");
            // Given back, it is started and quarantined again.
            self.doubts.push(Doubt::of_run(job.slice, job.epoch, &end));
        }
    }
}
