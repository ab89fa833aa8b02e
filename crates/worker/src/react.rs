//! The consumer `react`: one follower for each held slice, on its own, so that no slice waits for
//! another.
//!
//! A *follower* applies the events of one slice under one lease. It is woken by hints; this loop
//! asks for the heads of all held slices besides, in one question, and wakes those that missed
//! their hint. Not its job: what a follower does, which is in `follower`.

use std::collections::{HashMap, HashSet};

use store::{Consumer, Error, Lease};
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::leases::{Leases, chain};

mod batch;
mod cache;
mod commits;
mod follower;
mod mend;
mod pace;

use commits::Commits;
use follower::Follower;

/// What tells followers apart: slice and epoch.
type Key = (i16, i64);

/// The followers that run.
#[derive(Default)]
struct Followers {
    tasks: JoinSet<()>,
    commits: Commits,
    running: HashMap<Id, Key>,
}

impl Followers {
    /// Starts a follower for each held slice that has none.
    fn start(&mut self, ctx: &Context, leases: &Leases, stop: &CancellationToken) {
        let running: HashSet<Key> = self.running.values().copied().collect();
        for lease in leases.held(Consumer::React) {
            let key = (lease.slice, lease.epoch);
            if running.contains(&key) {
                continue;
            }
            let (ctx, leases, stop) = (ctx.clone(), leases.clone(), stop.clone());
            let commits = self.commits.clone();
            let followed = async move { follow(ctx, leases, commits, lease, stop).await };
            let task = self.tasks.spawn(followed);
            self.running.insert(task.id(), key);
        }
    }

    /// Waits for one to end; forever where none runs.
    async fn ended(&mut self) {
        let Some(ended) = self.tasks.join_next_with_id().await else {
            return std::future::pending().await;
        };
        let id = match ended {
            Ok((id, ())) => id,
            Err(error) => {
                tracing::error!(%error, "the follower of a slice died, starting it again");
                error.id()
            }
        };
        self.running.remove(&id);
    }
}

/// Applies events until `stop`, then lets the batches under way end.
pub(crate) async fn run(ctx: &Context, leases: &Leases, stop: CancellationToken) {
    let mut followers = Followers::default();
    let mut poll = tokio::time::interval(ctx.config().poll);
    poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        followers.start(ctx, leases, &stop);
        tokio::select! {
            // In this order, so that a simulation can be repeated.
            biased;
            () = stop.cancelled() => break,
            () = followers.ended() => {}
            () = ctx.claim_wake() => {}
            _ = poll.tick() => {
                if let Err(error) = look(ctx, leases).await {
                    tracing::warn!(error = %chain(&error), "heads not read, trying again");
                }
                ctx.progress().retain(|slice| leases.has(Consumer::React, slice));
            }
        }
    }
    while followers.tasks.join_next().await.is_some() {}
}

/// Asks for the heads of the held slices and wakes the followers that have something to do.
async fn look(ctx: &Context, leases: &Leases) -> Result<(), Error> {
    let slices: Vec<i16> = leases.held(Consumer::React).iter().map(|lease| lease.slice).collect();
    for (slice, head) in ctx.store().heads(&slices).await? {
        if ctx.progress().saw_head(slice, head) {
            ctx.wake_slice(slice);
        }
    }
    Ok(())
}

/// Follows one slice for as long as its lease lasts.
async fn follow(
    ctx: Context,
    leases: Leases,
    commits: Commits,
    lease: Lease,
    stop: CancellationToken,
) {
    let slice = lease.slice;
    let mut follower = Follower::new(ctx, leases, commits, lease);
    follower.run(&stop).await;
    tracing::debug!(slice, "no longer followed");
}

#[cfg(test)]
mod tests;
