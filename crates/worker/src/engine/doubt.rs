//! Starts of which nobody knows whether they were marked, because the answer was lost.
//!
//! A marked job is not due again while its lease lasts, so one whose mark was not heard of would
//! wait for the next holder, perhaps for ever. What is *doubtful* is therefore given back before it
//! is looked for again: its mark is taken off, if it is there, no failure is counted, and the number
//! of the start is used up, so that a mark that arrives after that finds another number and does
//! nothing.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use store::{Consumer, Ending, Error, Finish};

use super::{Due, Engine};
use crate::leases::chain;

/// Starts of one slice in doubt.
#[derive(Debug)]
pub(crate) struct Doubt {
    slice: i16,
    epoch: i64,
    /// The runs, to be given back.
    runs: Vec<Finish>,
}

impl Doubt {
    /// Of jobs that may have been started under a lease, given by slice and epoch.
    pub(super) fn of((slice, epoch): (i16, i64), jobs: &[Due]) -> Self {
        let run = |job: &Due| Finish {
            id: job.id,
            attempt: job.attempt + 1,
            ending: Ending::Released,
            events: Vec::new(),
        };
        Self { slice, epoch, runs: jobs.iter().map(run).collect() }
    }

    /// A run that was started under a lease and is not to go on here.
    pub(super) fn of_run((slice, epoch): (i16, i64), run: &Finish) -> Self {
        let run = Finish { ending: Ending::Released, events: Vec::new(), ..run.clone() };
        Self { slice, epoch, runs: vec![run] }
    }
}

/// All that is in doubt, shared by what starts jobs and what settles the doubts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Doubts(Arc<Mutex<Vec<Doubt>>>);

impl Doubts {
    fn lock(&self) -> MutexGuard<'_, Vec<Doubt>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, doubt: Doubt) {
        self.lock().push(doubt);
    }

    fn take(&self) -> Vec<Doubt> {
        std::mem::take(&mut *self.lock())
    }

    /// The slices in which nothing is to be started before it is settled: a later job of a key must
    /// not pass one that is in doubt.
    pub(super) fn slices(&self) -> HashSet<i16> {
        self.lock().iter().map(|doubt| doubt.slice).collect()
    }
}

impl Engine {
    /// Gives back what is in doubt; what cannot be is tried again in the next round. Returns
    /// whether anything was: it is due then.
    pub(super) async fn settle(&mut self) -> bool {
        let mut is_given_back = false;
        for doubt in self.doubts.take() {
            let Doubt { slice, epoch, runs } = &doubt;
            match self.ctx.store().finish(*slice, *epoch, runs).await {
                Ok(_) => is_given_back = true,
                Err(Error::Fenced { .. }) => self.leases.forget(Consumer::Jobs, *slice, *epoch),
                Err(error) => {
                    tracing::warn!(slice, error = %chain(&error), "starts in doubt, trying again");
                    self.doubts.add(doubt);
                }
            }
        }
        is_given_back
    }
}
