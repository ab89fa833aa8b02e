//! Relays: words from job to job, performed by the engine of the slice where they were spoken.
//!
//! Those to one slice go there in one transaction, in their order; a fan-in of thousands of children
//! is so a few calls. A word that is spoken again changes nothing, so a failure leaves the jobs as
//! they are, to be tried again.

use std::collections::BTreeMap;
use std::time::Duration;

use store::{Consumer, Ending, Error, EventWait, Finish, Relay, Word};
use uuid::Uuid;

use super::Due;
use crate::context::Context;
use crate::leases::{Leases, chain};
use crate::steps;

/// Arguments of a newer build wait this long for a process that can read them.
const UNREADABLE_WAIT: Duration = Duration::from_mins(1);

/// What is to be done in one slice, with the jobs that ask for it.
#[derive(Debug, Default)]
struct There {
    words: Vec<Word>,
    unneeded: Vec<Uuid>,
    awaited: Vec<EventWait>,
    by: Vec<Finish>,
}

/// Performs relays. Returns the ends of those that are done.
pub(super) async fn perform(ctx: &Context, leases: &Leases, jobs: Vec<Due>) -> Vec<Finish> {
    let mut finishes = Vec::new();
    let mut slices: BTreeMap<i16, There> = BTreeMap::new();
    for job in jobs {
        let relay = serde_json::from_value(job.args.clone());
        let ending = match &relay {
            Ok(_) => Ending::Completed,
            Err(_) => Ending::Snooze { after: UNREADABLE_WAIT },
        };
        let done = Finish { id: job.id, attempt: job.attempt, ending, events: Vec::new() };
        let to = match relay {
            Ok(Relay::Tell { to, word }) => {
                slices.entry(to).or_default().words.push(word);
                to
            }
            Ok(Relay::Cancel { to, jobs }) => {
                slices.entry(to).or_default().unneeded.extend(jobs);
                to
            }
            Ok(Relay::Await(wait)) => {
                let to = wait.job_slice;
                slices.entry(to).or_default().awaited.push(wait);
                to
            }
            Err(error) => {
                tracing::error!(job = %job.id, %error, "a relay cannot be read; it waits");
                finishes.push(done);
                continue;
            }
        };
        slices.entry(to).or_default().by.push(done);
    }
    for (to, there) in slices {
        match there.perform(ctx, to).await {
            Ok(()) => {
                ctx.jobs_enqueued(to, leases.has(Consumer::Jobs, to));
                finishes.extend(there.by);
            }
            Err(error) => {
                tracing::warn!(slice = to, error = %chain(&error), "not relayed, trying again");
            }
        }
    }
    finishes
}

impl There {
    async fn perform(&self, ctx: &Context, to: i16) -> Result<(), Error> {
        let mut words = self.words.clone();
        for wait in &self.awaited {
            words.extend(steps::look(ctx, wait).await?);
        }
        if !words.is_empty() {
            ctx.store().relay(to, &words).await?;
        }
        if !self.unneeded.is_empty() {
            ctx.store().cancel_unstarted(to, &self.unneeded).await?;
        }
        Ok(())
    }
}
