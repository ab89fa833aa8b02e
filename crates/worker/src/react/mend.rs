//! Requests about parked subjects: their events are applied after all, in order, or passed over.
//!
//! Each step is a transaction of the slice's holder, with its fence: nothing is applied twice, and
//! a request outlives whoever works on it. A retry that meets an event that fails keeps that one
//! and the rest, with the new error.

use std::collections::HashSet;

use domain::event::RecordedEvent;
use domain::ids::Subject;
use store::{Error, Mended, Next, ParkedEvent, PendingRequest, Reaction, Request};

use super::batch::{Batch, Folded, readable_here};
use super::follower::{Follower, concerns_data};
use crate::leases::chain;

/// Parked events applied in one transaction.
const AT_ONCE: usize = 200;

impl Follower {
    /// Asks for the retry of events that a build before this one could not read.
    pub(super) async fn retry_readable(&self) -> Result<(), Error> {
        let (store, slice) = (self.ctx.store(), self.lease.slice);
        for (subject, position) in store.awaiting_build(slice).await? {
            let event = store.read_event(slice, position).await?;
            if event.is_none_or(|event| readable_here(&event).is_err()) {
                continue;
            }
            let by = concat!("worker ", env!("CARGO_PKG_VERSION"));
            let reason = Some("this build knows its version");
            match store.request_parked(&subject, position, Request::Retry, by, reason).await {
                // Somebody else has asked, and was answered.
                Ok(()) | Err(Error::NotParked { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Performs the requests that wait, step by step, until none is left.
    pub(super) async fn perform_requests(&mut self) -> Result<(), Error> {
        loop {
            let requests = self.ctx.store().parked_requests(self.lease.slice).await?;
            if requests.is_empty() {
                return Ok(());
            }
            for request in requests {
                let performed = match request.request {
                    Request::Skip => self.skip(&request).await,
                    Request::Retry => self.retry(&request).await,
                };
                match performed {
                    // Nothing happened, and the later request is read next.
                    Err(Error::RequestReplaced { .. }) => self.cache.clear(),
                    performed => performed?,
                }
            }
        }
    }

    /// Passes the first event of a subject over; the rest is to be retried.
    async fn skip(&mut self, request: &PendingRequest) -> Result<(), Error> {
        let (slice, subject) = (self.lease.slice, &request.subject);
        let positions = self.ctx.store().parked_positions(slice, subject, 2).await?;
        let next = positions.into_iter().find(|position| *position > request.position);
        tracing::warn!(slice, position = request.position, %subject, "event skipped as asked for");
        let mended = Mended {
            requested: request.position,
            requested_at: request.requested_at,
            skipped: Some(request.position),
            applied: Vec::new(),
            next: next.map(|position| Next::GoesOn { position }),
        };
        self.commit_mended(subject, mended, None).await
    }

    /// Applies the next parked events of a subject: many at once, or, where the database refuses
    /// them, one.
    async fn retry(&mut self, request: &PendingRequest) -> Result<(), Error> {
        match self.retry_some(request, AT_ONCE).await {
            Err(error) if concerns_data(&error) => {}
            done => return done,
        }
        self.cache.clear();
        let Err(error) = self.retry_some(request, 1).await else { return Ok(()) };
        if !concerns_data(&error) {
            return Err(error);
        }
        self.cache.clear();
        let mended = Mended {
            requested: request.position,
            requested_at: request.requested_at,
            skipped: None,
            applied: Vec::new(),
            next: Some(Next::Failed {
                position: request.position,
                error: chain(&error),
                awaits_build: false,
            }),
        };
        self.commit_mended(&request.subject, mended, None).await
    }

    /// Applies up to `most` parked events of a subject in one transaction.
    async fn retry_some(&mut self, request: &PendingRequest, most: usize) -> Result<(), Error> {
        let (store, slice) = (self.ctx.store(), self.lease.slice);
        let limit = i64::try_from(most + 1).unwrap_or(i64::MAX);
        let positions = store.parked_positions(slice, &request.subject, limit).await?;
        let tried: HashSet<i64> = positions.iter().take(most).copied().collect();
        let after = request.position.saturating_sub(1);
        // Skipped ones may lie between: then fewer are tried at once.
        let mut events = store.read_subject(&request.subject, after, limit).await?;
        events.retain(|event| tried.contains(&event.position));
        let Some(mut folded) = self.fold(&events).await? else {
            return Err(Error::Hole { slice, after, found: request.position });
        };
        let mut applied: Vec<i64> = events.iter().map(|event| event.position).collect();
        let failed = std::mem::take(&mut folded.reaction.parked).into_iter().next();
        let next = if let Some(failed) = failed {
            applied.retain(|position| *position < failed.position);
            let error = failed.error.clone().unwrap_or_default();
            let ParkedEvent { position, awaits_build, .. } = failed;
            Some(Next::Failed { position, error, awaits_build })
        } else {
            let last = applied.last().copied().unwrap_or_default();
            let rest = positions.into_iter().find(|position| *position > last);
            rest.map(|position| Next::GoesOn { position })
        };
        let (requested, requested_at) = (request.position, request.requested_at);
        let mended = Mended { requested, requested_at, skipped: None, applied, next };
        self.commit_mended(&request.subject, mended, Some(folded)).await
    }

    /// Folds parked events with today's code; `None` where there are none.
    async fn fold(&mut self, events: &[RecordedEvent]) -> Result<Option<Folded>, Error> {
        let Some(last) = events.last() else { return Ok(None) };
        let states = self.states(events).await?;
        let hearing = self.hearing(events).await?;
        let mut batch = Batch::new(&self.ctx.config().policy, &hearing, states);
        for event in events {
            batch.apply(event, false);
        }
        Ok(Some(batch.finish(last)))
    }

    /// Commits a step; the checkpoint stays where it is.
    async fn commit_mended(
        &mut self,
        subject: &Subject,
        mended: Mended,
        folded: Option<Folded>,
    ) -> Result<(), Error> {
        let mut folded = folded.unwrap_or_else(|| Folded {
            reaction: Reaction::default(),
            untouched: Vec::new(),
            unrecognized: 0,
        });
        let done = mended.applied.len() + usize::from(mended.skipped.is_some());
        let is_over = mended.next.is_none();
        folded.reaction.to = self.lease.position;
        folded.reaction.recorded_at = self.lease.recorded_at;
        folded.reaction.mended = Some(mended);
        self.commit(folded, None).await?;
        if is_over {
            self.parked.remove(subject);
        } else if let Some(waiting) = self.parked.get_mut(subject) {
            *waiting -= i64::try_from(done).unwrap_or_default();
        }
        self.ctx.progress().applied(&self.lease, self.parked.values().sum());
        Ok(())
    }
}
