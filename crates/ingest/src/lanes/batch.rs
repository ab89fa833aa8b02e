//! A batch: events that are appended in one call, under one id.
//!
//! Once sent, a batch is *frozen*: the same events under the same id, so that a second call after
//! a lost reply stores nothing twice. Parts of a batch are other batches, with ids of their own.

use domain::event::NewEvent;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;
use uuid::Uuid;

use super::Queued;
use crate::Rejected;

/// A caller that waits, and the room that its event takes.
#[derive(Debug)]
struct Waiter {
    reply: oneshot::Sender<Result<Uuid, Rejected>>,
    _room: OwnedSemaphorePermit,
}

/// Events in order, and their callers in the same order.
#[derive(Debug)]
pub(super) struct Batch {
    /// Makes a repeated call harmless.
    pub(super) id: Uuid,
    /// Since when the first event waits.
    pub(super) oldest: Instant,
    /// Since when the last event waits.
    pub(super) youngest: Instant,
    events: Vec<NewEvent>,
    waiters: Vec<Waiter>,
    bytes: usize,
}

impl Batch {
    /// A batch of one.
    pub(super) fn of(first: Queued) -> Self {
        let mut batch = Self {
            id: Uuid::now_v7(),
            oldest: first.since,
            youngest: first.since,
            events: Vec::new(),
            waiters: Vec::new(),
            bytes: 0,
        };
        batch.push(first);
        batch
    }

    /// Adds an event at the end.
    pub(super) fn push(&mut self, queued: Queued) {
        self.bytes += queued.event.payload.len();
        self.youngest = queued.since;
        self.events.push(queued.event);
        self.waiters.push(Waiter { reply: queued.reply, _room: queued.room });
    }

    /// The events.
    pub(super) fn events(&self) -> &[NewEvent] {
        &self.events
    }

    /// Payload bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Two batches with fresh ids, or nothing where there is only one event. Only for a batch
    /// whose call failed as a whole: its own id is forgotten.
    pub(super) fn halves(mut self) -> Result<(Self, Self), Self> {
        if self.events.len() < 2 {
            return Err(self);
        }
        let middle = self.events.len() / 2;
        let events = self.events.split_off(middle);
        let right = Self {
            id: Uuid::now_v7(),
            bytes: events.iter().map(|event| event.payload.len()).sum(),
            events,
            waiters: self.waiters.split_off(middle),
            ..self
        };
        let left = Self {
            id: Uuid::now_v7(),
            bytes: self.bytes - right.bytes,
            events: self.events,
            waiters: self.waiters,
            ..right
        };
        Ok((left, right))
    }

    /// Tells each caller how its event ended. One that has left is not missed.
    pub(super) fn answer(self, mut ended: impl FnMut(NewEvent) -> Result<Uuid, Rejected>) {
        for (event, waiter) in self.events.into_iter().zip(self.waiters) {
            let _ = waiter.reply.send(ended(event));
        }
    }
}
