//! One lane: takes what is queued for its slice, and repeats a batch until its outcome is known.
//!
//! Only a refused value (SQLSTATE classes 22 and 23) and the deadline end the tries: any other
//! failure may pass, and what is given up here is lost. A refused batch is halved until the
//! refused event stands alone, so that it does not fail its neighbours.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::batch::Batch;
use super::{Queued, Shared};
use crate::Rejected;

/// Waits between tries: 50, 100, 200, 400, 800 ms, then every second. No jitter: lanes are few,
/// and each waits for its own commit.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A slice's queue and what it needs.
pub(super) struct Lane {
    pub(super) slice: i16,
    pub(super) shared: Arc<Shared>,
    pub(super) queue: mpsc::Receiver<Queued>,
    pub(super) pulse: Arc<Pulse>,
}

/// Why a batch was not stored.
enum Failed {
    /// The database refuses one of its values.
    Refused { sqlstate: String },
    /// No try succeeded in time; the last may still.
    Late,
}

impl Lane {
    /// Stores batch after batch until the queue is closed and empty.
    pub(super) async fn run(mut self) {
        // The event that did not fit into the batch before.
        let mut left = None;
        loop {
            let first = match left.take() {
                Some(queued) => Some(queued),
                None => self.next().await,
            };
            let Some(first) = first else { break };
            let batch = self.gather(first, &mut left);
            self.pulse.begin(batch.oldest);
            self.deliver(batch).await;
            self.pulse.end();
        }
    }

    /// Waits for an event; `None` once closed and empty.
    async fn next(&mut self) -> Option<Queued> {
        tokio::select! {
            queued = self.queue.recv() => queued,
            () = self.shared.closing.cancelled() => {
                self.queue.close();
                self.queue.recv().await
            }
        }
    }

    /// Adds to `first` what is queued, up to the limits.
    fn gather(&mut self, first: Queued, left: &mut Option<Queued>) -> Batch {
        let mut batch = Batch::of(first);
        while batch.events().len() < self.shared.config.batch_events {
            let Ok(queued) = self.queue.try_recv() else { break };
            if batch.bytes() + queued.event.payload.len() > self.shared.config.batch_bytes {
                *left = Some(queued);
                break;
            }
            batch.push(queued);
        }
        batch
    }

    /// Decides a batch: stored, refused event by event, or given up. What is to outlive the
    /// database comes in here.
    async fn deliver(&self, batch: Batch) {
        let mut parts = vec![batch];
        while let Some(part) = parts.pop() {
            match self.store(&part).await {
                Ok(()) => part.answer(|event| Ok(event.event_id)),
                Err(Failed::Refused { sqlstate }) => match part.halves() {
                    // The left half is taken first: order is kept.
                    Ok((left, right)) => parts.extend([right, left]),
                    Err(single) => single.answer(|event| {
                        let (sqlstate, event) = (sqlstate.clone(), Box::new(event));
                        Err(Rejected::Refused { sqlstate, event })
                    }),
                },
                Err(Failed::Late) => self.give_up(part),
            }
        }
    }

    /// Calls the database until the outcome is known or the last caller has stopped waiting.
    async fn store(&self, batch: &Batch) -> Result<(), Failed> {
        let deadline = batch.youngest + self.shared.config.deadline;
        let mut pause = FIRST_PAUSE;
        loop {
            let started = Instant::now();
            let call = self.shared.store.append(self.slice, Some(batch.id), batch.events());
            let failure = match timeout(self.shared.config.attempt, call).await {
                Ok(Ok(_)) => {
                    self.stored(batch, started.elapsed());
                    return Ok(());
                }
                Ok(Err(error)) => match refusal(&error) {
                    Some(sqlstate) => return Err(Failed::Refused { sqlstate }),
                    None => chain(&error),
                },
                Err(_) => "no answer".to_owned(),
            };
            if Instant::now() + pause >= deadline {
                return Err(Failed::Late);
            }
            self.shared.counters.retries(1);
            let events = batch.events().len();
            tracing::warn!(slice = self.slice, events, failure, "append not known, is repeated");
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Counts a committed batch and tells who waits for its slice.
    fn stored(&self, batch: &Batch, took: Duration) {
        self.shared.notifier.moved(self.slice);
        self.shared.counters.batches(1);
        self.shared.counters.batch_events(batch.events().len());
        self.shared.counters.append_micros(usize::try_from(took.as_micros()).unwrap_or(usize::MAX));
    }

    /// Tells the callers, and loses the events unless one of the tries still succeeds.
    fn give_up(&self, batch: Batch) {
        let events = batch.events().len();
        self.shared.counters.given_up(events);
        tracing::error!(slice = self.slice, events, "events given up: no commit in time");
        batch.answer(|_| Err(Rejected::Unavailable));
    }
}

/// PostgreSQL's code, where it refuses a value; `none` where the value could not even be sent.
fn refusal(error: &store::Error) -> Option<String> {
    let store::Error::Data { source } = error else { return None };
    let Some(error) = source.as_database_error() else { return Some("none".to_owned()) };
    Some(error.code().unwrap_or_default().into_owned())
}

/// An error and its causes in one line. Not for refused values, which PostgreSQL may quote.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Since when the oldest event of a lane waits. The batch under way holds it: queued events are
/// younger.
#[derive(Debug)]
pub(super) struct Pulse {
    base: Instant,
    /// Microseconds after `base`, plus one; 0: idle.
    since: AtomicU64,
}

impl Default for Pulse {
    fn default() -> Self {
        Self { base: Instant::now(), since: AtomicU64::new(0) }
    }
}

impl Pulse {
    /// A batch is under way whose first event waits since `oldest`.
    fn begin(&self, oldest: Instant) {
        let micros = oldest.saturating_duration_since(self.base).as_micros();
        self.since.store(u64::try_from(micros).unwrap_or(u64::MAX - 1) + 1, Ordering::Relaxed);
    }

    /// Nothing is under way.
    fn end(&self) {
        self.since.store(0, Ordering::Relaxed);
    }

    /// How long the oldest event has waited; zero where there is none.
    pub(super) fn age(&self) -> Duration {
        match self.since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            micros => self.base.elapsed().saturating_sub(Duration::from_micros(micros - 1)),
        }
    }
}
