//! What a lane has in the spool, in order, and how it is drained.
//!
//! A record is *released* once it is committed and the live streams it touched are to be looked at:
//! another ingest process may have stored later webhooks meanwhile. Releasing comes file by file,
//! as files are deleted. A process that dies in between drains again, which stores nothing twice:
//! every append of a record has an id or a key that follows from the record's.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use domain::event::{Event, NewEvent, ReconcileRequested};
use domain::ids::Subject;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::append::Failed;
use super::batch::ids_of_halves;
use super::{Pulse, Shared};
use crate::spool::{Frozen, Place};

/// Why live streams are asked about, for people.
const REASON: &str = "webhooks were stored late: their order may be wrong";

/// Wait before a spool file that could not be read is tried again.
const READ_PAUSE: Duration = Duration::from_millis(500);

/// A lane's records, the oldest first.
#[derive(Debug)]
pub(super) struct Backlog {
    records: VecDeque<(Place, Instant)>,
    /// Of the file in turn: live streams that its drained records touched.
    touched: BTreeSet<Subject>,
    /// Of the file in turn: drained records.
    drained: u64,
    pulse: Arc<Pulse>,
}

/// Records of one file that were drained one after the other.
pub(super) struct Closed {
    last: Place,
    records: u64,
    touched: BTreeSet<Subject>,
}

impl Backlog {
    /// What an earlier process left.
    pub(super) fn new(left: VecDeque<Place>) -> Self {
        let now = Instant::now();
        let records = left.into_iter().map(|place| (place, now)).collect();
        let pulse = Arc::new(Pulse::default());
        let backlog = Self { records, touched: BTreeSet::new(), drained: 0, pulse };
        backlog.measure();
        backlog
    }

    /// Since when its oldest record waits.
    pub(super) fn pulse(&self) -> Arc<Pulse> {
        Arc::clone(&self.pulse)
    }

    /// Whether nothing is left.
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Adds a record whose first event waits since `oldest`.
    pub(super) fn push(&mut self, place: Place, oldest: Instant) {
        self.records.push_back((place, oldest));
        self.measure();
    }

    /// The records that are to be drained next, at most `most`, all of one file.
    pub(super) fn next(&self, most: usize) -> Vec<Place> {
        let places = self.records.iter().map(|(place, _)| *place);
        let Some(first) = places.clone().next() else { return Vec::new() };
        places.take_while(|place| place.file() == first.file()).take(most).collect()
    }

    /// Notes that the first `records` are committed, and which live streams they touched. Returns
    /// what may be released, where the next record is in another file or there is none.
    pub(super) fn done(&mut self, records: usize, touched: BTreeSet<Subject>) -> Option<Closed> {
        let (last, _) = self.records.drain(..records).next_back()?;
        self.measure();
        self.drained += records as u64;
        self.touched.extend(touched);
        if self.records.front().is_some_and(|(next, _)| next.file() == last.file()) {
            return None;
        }
        let (records, touched) =
            (std::mem::take(&mut self.drained), std::mem::take(&mut self.touched));
        Some(Closed { last, records, touched })
    }

    fn measure(&self) {
        match self.records.front() {
            Some((_, since)) => self.pulse.begin(*since),
            None => self.pulse.end(),
        }
    }
}

impl Shared {
    /// Commits records in their order, however long it takes, and returns the live streams they
    /// touched. What was one batch is one again: a commit for each record would drain more slowly
    /// than a busy lane spools.
    pub(super) async fn drain(&self, places: Vec<Place>) -> BTreeSet<Subject> {
        let mut frozen = Vec::with_capacity(places.len());
        for place in places {
            match self.read(place).await {
                Some(read) => frozen.push(read),
                None => self.lost(place).await,
            }
        }
        let touched = frozen.iter().flat_map(|frozen| touched(&frozen.events)).collect();
        for batch in frozen.chunk_by(|one, next| one.id == next.id && one.slice < next.slice) {
            self.commit_all(batch).await;
        }
        touched
    }

    /// Commits the records of one batch, of which each has a slice.
    async fn commit_all(&self, batch: &[Frozen]) {
        if let [first, _, ..] = batch {
            let events: Vec<NewEvent> =
                batch.iter().flat_map(|frozen| &frozen.events).cloned().collect();
            // Each slice claims the batch's id, as it does where it is committed alone.
            if self.append(first.id, &events, None).await.is_ok() {
                return;
            }
        }
        for frozen in batch {
            self.commit(frozen.clone()).await;
        }
    }

    /// Tells of a record that is damaged. Its file is kept, and says so in its name.
    async fn lost(&self, place: Place) {
        self.spool.spoil(place.file()).await;
        self.metrics.spool_lost_records.inc();
        tracing::error!(
            file = place.file(),
            slice = place.slice,
            "a spooled batch cannot be read any more: its file is kept. Check the disk, and recover \
             the batch from that file"
        );
    }

    /// Reads a record, however long the system cannot; `None` where it is damaged.
    async fn read(&self, place: Place) -> Option<Frozen> {
        loop {
            match self.spool.read(place).await {
                Ok(read) => return read,
                Err(error) => {
                    let (file, slice) = (place.file(), place.slice);
                    tracing::warn!(file, slice, %error, "spool not readable now, trying again");
                    sleep(READ_PAUSE).await;
                }
            }
        }
    }

    /// Asks for a look at the live streams that were touched, then releases the records.
    pub(super) async fn close(&self, closed: Closed) {
        let Closed { last, records, touched } = closed;
        if !touched.is_empty() {
            let at = (self.config.clock)();
            let event = Event::ReconcileRequested(ReconcileRequested { reason: REASON.to_owned() });
            let of = |subject| NewEvent::new(subject, &event, at, Uuid::now_v7());
            let events: Vec<NewEvent> = touched.into_iter().map(of).collect();
            // None of it can be refused: the subjects were stored before. A process that dies
            // before the release asks once more, which does no harm.
            let _ = self.append(Uuid::now_v7(), &events, None).await;
        }
        self.spool.release(last.file(), records).await;
    }

    /// Appends a frozen batch; a refused one is halved as it would be live.
    async fn commit(&self, frozen: Frozen) {
        let mut parts = vec![frozen];
        while let Some(Frozen { slice, id, mut events }) = parts.pop() {
            let ended = self.append(id, &events, None).await;
            let Err(Failed::Refused { sqlstate }) = ended else { continue };
            if events.len() < 2 {
                for event in events {
                    // Without a time limit it ends only when it is stored; a second refusal would
                    // be for a form that holds nothing of the sender's but the payload.
                    if self.keep_refused(event, &sqlstate, None).await.is_err() {
                        tracing::error!(slice, sqlstate, "a spooled event is refused in any form");
                    }
                }
                continue;
            }
            let (left_id, right_id) = ids_of_halves(id);
            let right = events.split_off(events.len() / 2);
            // The left half is taken first: order is kept.
            parts.push(Frozen { slice, id: right_id, events: right });
            parts.push(Frozen { slice, id: left_id, events });
        }
    }
}

/// The live streams that webhooks among `events` speak of.
fn touched(events: &[NewEvent]) -> BTreeSet<Subject> {
    let is_live_stream = |subject: &&Subject| {
        subject.parts().is_some_and(|(_, kind, id)| kind == "stream" && id.parse::<i64>().is_ok())
    };
    // Events of other services have no effect here, and ask for nothing.
    let webhooks = events.iter().filter(|event| event.event_type == "WebhookReceived");
    webhooks.map(|event| &event.subject).filter(is_live_stream).cloned().collect()
}
