//! Oversight of the held slices: ends cancelled jobs, and notes the runs that former holders lost.
//!
//! A *cancelled* job is one that somebody marked so. One that waits is ended with its event; one
//! that runs here is aborted, and ends as cancelled when its run has ended. Looked for at every poll
//! and not at every claim: a mark by itself keeps a job from being started.

use std::collections::{BTreeMap, HashMap};

use store::{Cancellation, Consumer, Crashes, Error, Finish};
use tokio::time::Instant;

use super::{Engine, finish, outcome};
use crate::claimed::ClaimedJob;
use crate::leases::chain;

#[cfg(test)]
mod tests;

/// What is known of cancelled jobs and of what former holders left.
#[derive(Debug, Default)]
pub(crate) struct Oversight {
    /// The slices that were looked through for lost runs, by the epoch of their lease.
    seen: HashMap<i16, i64>,
    /// When to look for cancelled jobs again; none: now.
    due: Option<Instant>,
}

impl Engine {
    /// Looks after the held slices, each with its epoch, before jobs of them are started.
    ///
    /// # Errors
    /// Where the database is away: no job of a new slice may be started then, since its former
    /// holder's lost runs could not be told from those of this one any more.
    pub(super) async fn oversee(&mut self, held: &HashMap<i16, i64>) -> Result<(), Error> {
        let is_taken = self.note_crashes(held).await?;
        if !is_taken && self.oversight.due.is_some_and(|due| due > Instant::now()) {
            return Ok(());
        }
        self.end_cancelled(held).await?;
        self.oversight.due = Some(Instant::now() + self.ctx.config().poll);
        Ok(())
    }

    /// Notes the runs that ended with their process, once for each lease. Returns whether any slice
    /// is new.
    async fn note_crashes(&mut self, held: &HashMap<i16, i64>) -> Result<bool, Error> {
        let seen = &mut self.oversight.seen;
        seen.retain(|slice, epoch| held.get(slice) == Some(epoch));
        let new: Vec<(i16, i64)> =
            held.iter().filter(|(s, _)| !seen.contains_key(s)).map(|(s, e)| (*s, *e)).collect();
        if new.is_empty() {
            return Ok(false);
        }
        let Crashes { runs, fenced } = self.ctx.store().note_crashes(&new).await?;
        if runs > 0 {
            self.ctx.metrics().jobs.crashed.inc_by(runs);
            tracing::warn!(runs, "processes died while they ran these jobs");
        }
        for (slice, epoch) in &fenced {
            // It is not claimed from: its jobs' marks are fenced too.
            self.leases.forget(Consumer::Jobs, *slice, *epoch);
        }
        let noted = new.into_iter().filter(|lease| !fenced.contains(lease));
        self.oversight.seen.extend(noted);
        Ok(true)
    }

    /// Ends the cancelled jobs that wait, and aborts those that run here.
    async fn end_cancelled(&mut self, held: &HashMap<i16, i64>) -> Result<(), Error> {
        let cancelled = self.ctx.store().cancellations(self.ctx.process()).await?;
        let mut by_slice: BTreeMap<i16, (Vec<String>, Vec<Finish>)> = BTreeMap::new();
        for Cancellation { job, is_running } in cancelled {
            // One that is marked and not in the book is in doubt, and given back soon.
            if self.running.cancel(job.id) || is_running {
                continue;
            }
            let Some(epoch) = held.get(&job.slice) else { continue };
            let (slice, attempt) = (job.slice, job.attempt);
            let job = ClaimedJob::new(job, *epoch, attempt);
            let (ending, events) = outcome::cancelled(&self.ctx, &job, outcome::CANCELLED);
            let finish = Finish { id: job.id, attempt, ending, events };
            let (kinds, finishes) = by_slice.entry(slice).or_default();
            kinds.push(job.kind);
            finishes.push(finish);
        }
        for (slice, (kinds, finishes)) in by_slice {
            if let Err(error) = finish::store(&self.ctx, slice, held[&slice], &finishes).await {
                tracing::warn!(slice, error = %chain(&error), "cancellations not stored, trying again");
                continue;
            }
            for (kind, finish) in kinds.iter().zip(&finishes) {
                self.ctx.metrics().jobs.ended(kind, outcome::name(&finish.ending));
            }
        }
        Ok(())
    }
}
