//! One lane: takes what is queued for its slices, and keeps every batch: in the database, or in the
//! spool where the database does not take it in time.
//!
//! While the lane has a *backlog* in the spool, newer batches go behind it, so that order is kept.
//! A refused batch is halved until the refused event stands alone, so that it does not fail its
//! neighbours.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::append::Failed;
use super::backlog::Backlog;
use super::batch::{Batch, Halved, Waiter};
use super::{Kept, Pulse, Queued, Shared};
use crate::Rejected;

/// Drained batches for each that is spooled meanwhile, where the database works.
const PER_BATCH: u32 = 2;

/// Longest wait for the next batch to be spooled while the backlog is drained.
const SPOOL_EVERY: Duration = Duration::from_millis(100);

/// The queue of some slices and what it needs.
pub(super) struct Lane {
    slices: Vec<i16>,
    shared: Arc<Shared>,
    queue: mpsc::Receiver<Queued>,
    pulse: Arc<Pulse>,
    backlog: Backlog,
    /// What did not fit into the batch before.
    left: Option<Queued>,
    /// Nothing more is queued.
    ended: bool,
}

impl Lane {
    /// A lane that begins with its backlog.
    pub(super) fn new(
        slices: Vec<i16>,
        shared: Arc<Shared>,
        queue: mpsc::Receiver<Queued>,
        pulse: Arc<Pulse>,
        backlog: Backlog,
    ) -> Self {
        Self { slices, shared, queue, pulse, backlog, left: None, ended: false }
    }

    /// Keeps batch after batch until the queue is closed and empty, and the backlog too.
    pub(super) async fn run(mut self) {
        loop {
            if !self.backlog.is_empty() {
                // On the heap: it is rare, and would make the task of a lane large.
                Box::pin(self.drain()).await;
            }
            let Some(first) = self.next().await else { break };
            self.take(first).await;
        }
    }

    /// Drains the backlog, and meanwhile spools what is queued: a batch for every [`PER_BATCH`]
    /// that are drained, so that the backlog shrinks however many callers there are, and one every
    /// [`SPOOL_EVERY`], so that they are answered where the database is away.
    async fn drain(&mut self) {
        let mut next_batch = Instant::now();
        for drained in 1.. {
            let places = self.backlog.next(self.slices.len());
            let records = places.len();
            if records == 0 {
                break;
            }
            let shared = Arc::clone(&self.shared);
            let draining = Box::pin(async move { shared.drain(places).await });
            let touched = self.meanwhile(draining, &mut next_batch).await;
            if drained % PER_BATCH == 0 {
                next_batch = Instant::now();
            }
            let Some(closed) = self.backlog.done(records, touched) else { continue };
            let shared = Arc::clone(&self.shared);
            let closing = Box::pin(async move { shared.close(closed).await });
            self.meanwhile(closing, &mut next_batch).await;
        }
    }

    /// Does some work to its end. Until then, from `next_batch` on, spools what is queued.
    async fn meanwhile<F: Future + Unpin>(
        &mut self,
        mut work: F,
        next_batch: &mut Instant,
    ) -> F::Output {
        loop {
            let is_open = !self.ended;
            let first = async {
                sleep_until(*next_batch).await;
                self.next().await
            };
            tokio::select! {
                // In this order, so that a simulation can be repeated.
                biased;
                done = &mut work => return done,
                first = first, if is_open => match first {
                    Some(first) => {
                        self.take(first).await;
                        *next_batch = Instant::now() + SPOOL_EVERY;
                    }
                    None => self.ended = true,
                },
            }
        }
    }

    /// Waits for something; `None` once closed and empty.
    async fn next(&mut self) -> Option<Queued> {
        if let Some(left) = self.left.take() {
            return Some(left);
        }
        tokio::select! {
            biased;
            queued = self.queue.recv() => queued,
            () = self.shared.closing.cancelled() => {
                self.queue.close();
                self.queue.recv().await
            }
        }
    }

    /// Keeps a batch that begins with `first`.
    async fn take(&mut self, first: Queued) {
        let batch = self.gather(first);
        self.pulse.begin(batch.oldest);
        self.keep(batch).await;
        self.pulse.end();
    }

    /// Adds to `first` what is queued, up to the limits.
    fn gather(&mut self, first: Queued) -> Batch {
        let config = &self.shared.config;
        let mut batch = Batch::of(first);
        while batch.events().len() < config.batch_events {
            let Ok(queued) = self.queue.try_recv() else { break };
            let bytes = batch.bytes() + queued.piece.bytes();
            let events = batch.events().len() + queued.piece.len();
            if bytes > config.batch_bytes || events > config.batch_events {
                self.left = Some(queued);
                break;
            }
            batch.push(queued);
        }
        batch
    }

    /// Decides a batch: stored, spooled, refused event by event, or given up.
    async fn keep(&mut self, batch: Batch) {
        let mut parts = vec![batch];
        while let Some(part) = parts.pop() {
            if self.goes_behind() {
                if let Err(part) = self.spool(part).await {
                    self.give_up(part);
                }
                continue;
            }
            let soon = part.oldest + self.shared.config.spool_after;
            let mut ended = self.append(&part, soon).await;
            let mut part = part;
            if let Err(Failed::Late) = ended {
                part = match self.spool(part).await {
                    Ok(()) => continue,
                    Err(part) => part,
                };
                // The spool is full or broken: the database may still come back in time.
                let last = part.youngest + self.shared.config.deadline;
                ended = self.append(&part, last).await;
            }
            match ended {
                Ok(appended) => part.answer_appended(&appended),
                Err(Failed::Late) => self.give_up(part),
                Err(Failed::Refused { sqlstate }) => match part.halved() {
                    // The left half is taken first: order is kept.
                    Halved::Two(left, right) => parts.extend([right, left]),
                    Halved::Single(single) => self.refused(single, sqlstate).await,
                },
            }
        }
    }

    /// Whether newer batches go to the spool too, behind what is there.
    fn goes_behind(&self) -> bool {
        #[cfg(feature = "testing")]
        if self.shared.config.overtakes_spool {
            return false;
        }
        !self.backlog.is_empty()
    }

    async fn append(&self, part: &Batch, until: Instant) -> Result<store::AppendedAll, Failed> {
        self.shared.append(part.id, part.events(), Some(until)).await
    }

    /// Writes a batch to the spool, a record for each slice, and answers its callers; gives it back
    /// where it was not kept. What of it was written is drained all the same: under the batch's id
    /// it is stored once.
    async fn spool(&mut self, batch: Batch) -> Result<(), Batch> {
        let shared = Arc::clone(&self.shared);
        let records = batch.by_slice(|event| shared.store.slice_of(&event.subject));
        let written =
            records.iter().map(|(slice, events)| shared.spool.write(*slice, batch.id, events));
        let mut kept = true;
        for written in join_all(written).await {
            match written {
                Ok(place) => self.backlog.push(place, batch.oldest),
                Err(error) => {
                    tracing::debug!(slices = ?self.slices, %error, "batch not spooled");
                    kept = false;
                }
            }
        }
        if !kept {
            return Err(batch);
        }
        shared.metrics.events_spooled.inc_by(batch.events().len() as u64);
        batch.answer_all(&Ok(Kept::Spooled));
        Ok(())
    }

    /// Keeps a refused webhook in another form; tells others.
    async fn refused(&self, single: Option<(domain::event::NewEvent, Waiter)>, sqlstate: String) {
        let Some((event, waiter)) = single else { return };
        if !waiter.is_one() {
            self.shared.metrics.events_refused.inc();
            return waiter.answer(Err(Rejected::Refused { sqlstate }));
        }
        let until = Instant::now() + self.shared.config.spool_after;
        let kept = self.shared.keep_refused(event, &sqlstate, Some(until)).await;
        waiter.answer(kept.map(|()| Kept::Unrecognized).map_err(|_| Rejected::Unavailable));
    }

    fn give_up(&self, batch: Batch) {
        let events = batch.events().len();
        self.shared.metrics.events_given_up.inc_by(events as u64);
        tracing::error!(
            slices = ?self.slices,
            events,
            "events given up: neither the database nor the spool took them"
        );
        batch.answer_all(&Err(Rejected::Unavailable));
    }
}
