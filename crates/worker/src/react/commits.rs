//! Commits reactions: small ones of several slices together, since a commit and its calls are most
//! of what a small one costs.
//!
//! Nobody waits for company: while a transaction is under way others gather, and whoever comes first
//! commits them all by the next one. What is large has its own transaction. One that is refused
//! costs the others nothing: each then has its own.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use store::{Committed, Error, Lease, Reacting, Reaction};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::time::timeout;

use crate::context::Context;

/// How long one waits for its turn; then it goes alone. A transaction that hangs, perhaps at a lock
/// that somebody holds on one slice, holds up those that are part of it, and no others.
const PATIENCE: Duration = Duration::from_secs(1);

/// Events of a batch from which on it is large.
const LARGE: i64 = 32;

/// The commits of a process's reactions.
#[derive(Debug, Clone, Default)]
pub(super) struct Commits(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Those that gather.
    waiting: Mutex<Vec<Waiting>>,
    /// Held by whoever commits.
    turn: tokio::sync::Mutex<()>,
}

/// A reaction, and who is told what became of it.
#[derive(Debug)]
struct Waiting {
    lease: Lease,
    reaction: Reaction,
    told: oneshot::Sender<Done>,
}

/// What became of a reaction, which is given back.
type Done = (Reaction, Result<Committed, Error>);

impl Commits {
    /// Commits a reaction of the slice of `lease`.
    ///
    /// # Errors
    /// As [`store::Store::commit_reaction`]; [`Error::Shared`] where the transaction of several
    /// failed, [`Error::Unheard`] where whoever committed it has died.
    pub(super) async fn commit(&self, ctx: &Context, lease: Lease, reaction: Reaction) -> Done {
        if is_large(&lease, &reaction) {
            return alone(ctx, lease, reaction).await;
        }
        let (told, mut hears) = oneshot::channel();
        self.gather(Waiting { lease, reaction, told });
        let Ok(turn) = timeout(PATIENCE, self.0.turn.lock()).await else {
            return match self.take_back(lease.slice) {
                Some(Waiting { reaction, .. }) => alone(ctx, lease, reaction).await,
                None => hear(hears).await,
            };
        };
        match hears.try_recv() {
            // Somebody committed it meanwhile, or died of it.
            Ok(done) => done,
            Err(TryRecvError::Closed) => (Reaction::default(), Err(Error::Unheard)),
            Err(TryRecvError::Empty) => {
                together(ctx, self.gathered()).await;
                drop(turn);
                // It was among them.
                hear(hears).await
            }
        }
    }

    fn gather(&self, waiting: Waiting) {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(waiting);
    }

    /// Takes the one of a slice back, unless somebody commits it.
    fn take_back(&self, slice: i16) -> Option<Waiting> {
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let at = waiting.iter().position(|one| one.lease.slice == slice)?;
        Some(waiting.swap_remove(at))
    }

    /// Takes all that gathered, in the order of the slices.
    fn gathered(&self) -> Vec<Waiting> {
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = std::mem::take(&mut *waiting);
        all.sort_by_key(|one| one.lease.slice);
        all
    }
}

/// Waits for what somebody else's transaction comes to; where that somebody is gone, nobody knows.
async fn hear(hears: oneshot::Receiver<Done>) -> Done {
    hears.await.unwrap_or_else(|_| (Reaction::default(), Err(Error::Unheard)))
}

/// Whether a reaction has a transaction of its own.
pub(super) fn is_large(lease: &Lease, reaction: &Reaction) -> bool {
    reaction.mended.is_some() || reaction.to - lease.position >= LARGE
}

/// Commits one by itself.
async fn alone(ctx: &Context, lease: Lease, reaction: Reaction) -> Done {
    let one = [Reacting { lease: &lease, reaction: &reaction }];
    let done = ctx.store().commit_reactions(&one, ctx.config().lease).await;
    let done =
        done.and_then(|mut done| done.pop().flatten().ok_or(Error::Fenced { slice: lease.slice }));
    (reaction, done)
}

/// Commits all in one transaction, and tells each what became of it.
async fn together(ctx: &Context, all: Vec<Waiting>) {
    if all.is_empty() {
        return;
    }
    let reacting: Vec<Reacting<'_>> =
        all.iter().map(|one| Reacting { lease: &one.lease, reaction: &one.reaction }).collect();
    let answer = if reacting.len() == 1 {
        Err(Error::OneByOne)
    } else {
        ctx.store().commit_reactions(&reacting, ctx.config().lease).await
    };
    match answer {
        Ok(done) => {
            for (Waiting { lease, reaction, told }, done) in all.into_iter().zip(done) {
                // Who does not hear any more needs it no more.
                let _ = told.send((reaction, done.ok_or(Error::Fenced { slice: lease.slice })));
            }
        }
        Err(error) if error.is_transient() => {
            let source = Arc::new(error);
            for Waiting { reaction, told, .. } in all {
                let _ = told.send((reaction, Err(Error::Shared { source: Arc::clone(&source) })));
            }
        }
        // Refused for one of them, or the database takes one slice at a time.
        Err(_) => {
            for Waiting { lease, reaction, told } in all {
                let _ = told.send(alone(ctx, lease, reaction).await);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::event::{Event, NewEvent};
    use domain::ids::Subject;
    use store::{Consumer, Store};
    use uuid::Uuid;

    use super::*;
    use crate::context::now;
    use crate::engine::tests::{config, context, until};

    /// A lease of the slice of a subject, and a reaction to one event that appends to the subject.
    async fn reaction(store: &Store, ctx: &Context, name: &str) -> (Lease, Reaction) {
        let subject = Subject::from_stored(name.to_owned());
        let slice = store.slice_of(&subject);
        let claimed = store.claim(Consumer::React, slice, ctx.process(), Duration::from_mins(1));
        let lease = claimed.await.unwrap().expect("no two of the names are of one slice");
        let event = NewEvent::new(subject, &Event::Unrecognized, now(), Uuid::now_v7());
        (lease, Reaction { to: lease.position + 1, events: vec![event], ..Reaction::default() })
    }

    #[tokio::test]
    async fn those_that_gather_are_committed_together_and_one_that_is_refused_alone_fails() {
        let store = store::testing::store().await;
        let ctx = context(&store, config());
        let commits = Commits::default();
        let turn = commits.0.turn.lock().await;
        let mut tasks = Vec::new();
        for name in ["a/one", "a/two", "a/three"] {
            let (lease, mut reaction) = reaction(&store, &ctx, name).await;
            if name == "a/two" {
                reaction.events[0].event_type = "\0".to_owned();
            }
            let (ctx, commits) = (ctx.clone(), commits.clone());
            tasks.push(tokio::spawn(async move { commits.commit(&ctx, lease, reaction).await.1 }));
        }
        until(async || (commits.0.waiting.lock().unwrap().len() == 3).then_some(())).await;
        drop(turn);
        let mut done = Vec::new();
        for task in tasks {
            done.push(task.await.unwrap());
        }
        assert!(matches!(&done[0], Ok(one) if one.events == 1), "{done:?}");
        assert!(matches!(&done[1], Err(Error::Data { .. })), "{done:?}");
        assert!(matches!(&done[2], Ok(one) if one.events == 1), "{done:?}");
    }

    #[tokio::test]
    async fn nobody_waits_for_long_behind_a_transaction_that_hangs() {
        let store = store::testing::store().await;
        let ctx = context(&store, config());
        let commits = Commits::default();
        let _hangs = commits.0.turn.lock().await;
        let (lease, reaction) = reaction(&store, &ctx, "a/one").await;
        assert!(commits.commit(&ctx, lease, reaction).await.1.is_ok());
        assert!(commits.gathered().is_empty());
    }

    #[tokio::test]
    async fn whose_committer_has_died_keeps_its_lease_and_looks_where_it_stands() {
        let store = store::testing::store().await;
        let ctx = context(&store, config());
        let commits = Commits::default();
        let turn = commits.0.turn.lock().await;
        let (lease, reaction) = reaction(&store, &ctx, "a/one").await;
        let committing = {
            let (ctx, commits) = (ctx.clone(), commits.clone());
            tokio::spawn(async move { commits.commit(&ctx, lease, reaction).await.1 })
        };
        until(async || (commits.0.waiting.lock().unwrap().len() == 1).then_some(())).await;
        drop(commits.gathered());
        drop(turn);
        let done = committing.await.unwrap();
        assert!(matches!(&done, Err(error @ Error::Unheard) if error.is_transient()), "{done:?}");
    }

    #[tokio::test]
    async fn one_whose_lease_has_passed_on_is_told_so_and_costs_the_others_nothing() {
        let store = store::testing::store().await;
        let ctx = context(&store, config());
        let commits = Commits::default();
        let turn = commits.0.turn.lock().await;
        let mut tasks = Vec::new();
        for name in ["a/one", "a/two"] {
            let (lease, reaction) = reaction(&store, &ctx, name).await;
            if name == "a/one" {
                store.release(Consumer::React, lease.slice, lease.epoch).await.unwrap();
                let other = Uuid::now_v7();
                let claimed =
                    store.claim(Consumer::React, lease.slice, other, Duration::from_mins(1)).await;
                claimed.unwrap().unwrap();
            }
            let (ctx, commits) = (ctx.clone(), commits.clone());
            tasks.push(tokio::spawn(async move { commits.commit(&ctx, lease, reaction).await.1 }));
        }
        until(async || (commits.0.waiting.lock().unwrap().len() == 2).then_some(())).await;
        drop(turn);
        let lost = tasks.remove(0).await.unwrap();
        assert!(matches!(lost, Err(Error::Fenced { .. })), "{lost:?}");
        assert!(tasks.remove(0).await.unwrap().is_ok());
    }
}
