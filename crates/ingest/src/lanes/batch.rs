//! A batch: events that are appended in one call, under one id.
//!
//! Once sent, a batch is *frozen*: the same events under the same id, so that a second call after
//! a lost reply stores nothing twice. The halves of a refused batch are other batches; their ids
//! follow from its own, so that halving it again, in another process, is harmless too.

use std::sync::{Arc, Mutex, PoisonError};

use domain::event::NewEvent;
use domain::ids::derived_id;
use store::AppendedAll;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;
use uuid::Uuid;

use super::{Ended, Kept, Piece, Queued};
use crate::Rejected;

/// Who waits for an event.
#[derive(Debug)]
pub(super) enum Waiter {
    /// For this one, and the room that it takes.
    One(oneshot::Sender<Ended>, OwnedSemaphorePermit),
    /// For several; this is the `n`th.
    Part(Arc<Together>, usize),
}

/// Answers that are given together, with the last of them.
#[derive(Debug)]
pub(super) struct Together {
    ended: Mutex<Vec<Ended>>,
    reply: Option<oneshot::Sender<Vec<Ended>>>,
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

/// What a refused batch is cut into.
pub(super) enum Halved {
    /// Two batches, the first to be taken first.
    Two(Batch, Batch),
    /// The refused event and who waits for it.
    Single(Option<(NewEvent, Waiter)>),
}

/// The ids of the two halves of a refused batch.
pub(super) fn ids_of_halves(batch: Uuid) -> (Uuid, Uuid) {
    let batch = batch.to_string();
    (derived_id("left half", &[&batch]), derived_id("right half", &[&batch]))
}

impl Waiter {
    /// Tells how the event ended. A caller that has left is not missed.
    pub(super) fn answer(self, ended: Ended) {
        match self {
            Self::One(reply, _room) => {
                let _ = reply.send(ended);
            }
            Self::Part(together, nth) => {
                let mut all = together.ended.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(place) = all.get_mut(nth) {
                    *place = ended;
                }
            }
        }
    }

    /// Whether a caller that sent one webhook waits, for whom it is kept in any form.
    pub(super) fn is_one(&self) -> bool {
        matches!(self, Self::One(..))
    }
}

impl Drop for Together {
    fn drop(&mut self) {
        let ended = std::mem::take(self.ended.get_mut().unwrap_or_else(PoisonError::into_inner));
        if let Some(reply) = self.reply.take() {
            let _ = reply.send(ended);
        }
    }
}

impl Batch {
    /// A batch of what was queued first.
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

    /// Adds a piece at the end.
    pub(super) fn push(&mut self, queued: Queued) {
        self.youngest = queued.since;
        self.bytes += queued.piece.bytes();
        match queued.piece {
            Piece::One(event, reply) => {
                self.events.push(event);
                self.waiters.push(Waiter::One(reply, queued.room));
            }
            Piece::Many(events, reply) => {
                let ended = events.iter().map(|_| Err(Rejected::Unavailable)).collect();
                let (ended, reply) = (Mutex::new(ended), Some(reply));
                let together = Arc::new(Together { ended, reply, _room: queued.room });
                let parts = (0..events.len()).map(|n| Waiter::Part(Arc::clone(&together), n));
                self.waiters.extend(parts);
                self.events.extend(events);
            }
        }
    }

    /// The events.
    pub(super) fn events(&self) -> &[NewEvent] {
        &self.events
    }

    /// The events of each slice, in order; the slices in ascending order.
    pub(super) fn by_slice(
        &self,
        slice_of: impl Fn(&NewEvent) -> i16,
    ) -> Vec<(i16, Vec<&NewEvent>)> {
        let mut parts: Vec<(i16, Vec<&NewEvent>)> = Vec::new();
        for event in &self.events {
            let slice = slice_of(event);
            match parts.binary_search_by_key(&slice, |(of, _)| *of) {
                Ok(at) => parts[at].1.push(event),
                Err(at) => parts.insert(at, (slice, vec![event])),
            }
        }
        parts
    }

    /// Payload bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Cuts a batch whose call was refused as a whole: its own id is forgotten.
    pub(super) fn halved(mut self) -> Halved {
        if self.events.len() < 2 {
            return Halved::Single(self.events.pop().zip(self.waiters.pop()));
        }
        let (left, right) = ids_of_halves(self.id);
        let middle = self.events.len() / 2;
        let events = self.events.split_off(middle);
        let right = Self {
            id: right,
            bytes: events.iter().map(|event| event.payload.len()).sum(),
            events,
            waiters: self.waiters.split_off(middle),
            ..self
        };
        let left = Self {
            id: left,
            bytes: self.bytes - right.bytes,
            events: self.events,
            waiters: self.waiters,
            ..right
        };
        Halved::Two(left, right)
    }

    /// Tells each caller that its event is committed, or was there before.
    pub(super) fn answer_appended(self, appended: &AppendedAll) {
        let mut skipped = appended.skipped.iter().peekable();
        for (n, waiter) in self.waiters.into_iter().enumerate() {
            let is_known = skipped.next_if_eq(&&n).is_some();
            waiter.answer(Ok(if is_known { Kept::Known } else { Kept::Appended }));
        }
    }

    /// Tells each caller the same.
    pub(super) fn answer_all(self, ended: &Ended) {
        for waiter in self.waiters {
            waiter.answer(ended.clone());
        }
    }
}

impl Piece {
    /// How many events it has.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::One(..) => 1,
            Self::Many(events, _) => events.len(),
        }
    }

    /// Their payload bytes.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::One(event, _) => event.payload.len(),
            Self::Many(events, _) => events.iter().map(|event| event.payload.len()).sum(),
        }
    }
}
