//! Starts of which nobody knows whether they were marked, because the answer was lost.
//!
//! A marked job is not due again while its lease lasts, so one whose mark was not heard of would
//! wait for the next holder, perhaps for ever. What is *doubtful* is therefore given back before it
//! is looked for again: its mark is taken off, if it is there, no failure is counted, and the number
//! of the start is used up, so that a mark that arrives after that finds another number and does
//! nothing.

use store::{Consumer, DueJob, Ending, Error, Finish};

use super::Engine;
use crate::leases::chain;

/// Starts of one slice in doubt.
#[derive(Debug)]
pub(crate) struct Doubt {
    slice: i16,
    epoch: i64,
    /// The runs, to be given back.
    pub(super) runs: Vec<Finish>,
}

impl Doubt {
    /// Of jobs of one slice that may have been started under `epoch`.
    pub(super) fn of<'a>(slice: i16, epoch: i64, jobs: impl Iterator<Item = &'a DueJob>) -> Self {
        let run = |job: &DueJob| Finish {
            id: job.id,
            attempt: job.attempt + 1,
            ending: Ending::Released,
            events: Vec::new(),
        };
        Self { slice, epoch, runs: jobs.map(run).collect() }
    }

    /// A run that was started under `epoch` and is not to go on here.
    pub(super) fn of_run(slice: i16, epoch: i64, run: &Finish) -> Self {
        let run = Finish { ending: Ending::Released, events: Vec::new(), ..run.clone() };
        Self { slice, epoch, runs: vec![run] }
    }
}

impl Engine {
    /// Gives back what is in doubt; what cannot be is tried again in the next round. Returns
    /// whether anything was: it is due then.
    pub(super) async fn settle(&mut self) -> bool {
        let mut is_given_back = false;
        for doubt in std::mem::take(&mut self.doubts) {
            let Doubt { slice, epoch, runs } = &doubt;
            match self.ctx.store().finish(*slice, *epoch, runs).await {
                Ok(_) => is_given_back = true,
                Err(Error::Fenced { .. }) => self.leases.forget(Consumer::Jobs, *slice, *epoch),
                Err(error) => {
                    tracing::warn!(slice, error = %chain(&error), "starts in doubt, trying again");
                    self.doubts.push(doubt);
                }
            }
        }
        is_given_back
    }
}
