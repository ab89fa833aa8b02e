//! The tables of the in-memory store, and what SQL does with log and leases, as plain functions of
//! the tables and the time. Each is one transaction: it looks first, then changes, so that a
//! refusal changes nothing.
//!
//! `tests/it/conformance.rs` holds them to what PostgreSQL answers to the same calls.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use domain::event::{Meta, NewEvent, RecordedEvent};
use domain::ids::{Subject, Timestamp};
use domain::slice::SliceCount;
use domain::view::{Row, RowKey};
use serde_json::Value;
use uuid::Uuid;

use super::endpoints::EndpointRow;
use super::jobs::{DeadRow, JobRow};
use super::rate::BucketRow;
use super::reactions::{ParkedRow, Reacted};
use super::schedules::ScheduleRow;
use super::waits::{ChildRow, StepRow};
use crate::{Appended, AppendedAll, Consumer, Error, EventWait, Lease, Pauses, Stored};

/// Protections that can be taken away, to show that what is missing then is noticed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flaws {
    /// No epoch and no position is compared.
    pub no_fence: bool,
    /// A batch is stored as often as it comes.
    pub no_batch_ids: bool,
    /// No timer that was decided is kept.
    pub no_timers: bool,
}

/// A row of `checkpoint`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Checkpoint {
    /// Who holds the slice.
    pub owner: Option<Uuid>,
    /// The fence.
    pub epoch: i64,
    /// The last applied position.
    pub position: i64,
    /// When that event was recorded.
    pub recorded_at: Timestamp,
    /// Until when it is held.
    pub lease_until: Timestamp,
}

/// What the tables hold of one slice, and what happened to it.
#[derive(Debug, Clone, Default)]
pub struct SliceTables {
    /// The log.
    pub events: Vec<RecordedEvent>,
    /// `last_at` of the head.
    pub last_at: Timestamp,
    /// Claimed keys and batch ids.
    pub keys: BTreeSet<Uuid>,
    /// Of `react`.
    pub react: Checkpoint,
    /// Of `jobs`.
    pub jobs_lease: Checkpoint,
    /// Folded states as JSON, each with the position it follows from.
    pub states: BTreeMap<Subject, (Value, i64)>,
    /// Rows of the projections, each with the position it follows from.
    pub rows: BTreeMap<RowKey, (Row, i64)>,
    /// Events set aside.
    pub parked: BTreeMap<i64, ParkedRow>,
    /// Live jobs.
    pub jobs: BTreeMap<Uuid, JobRow>,
    /// Dead letters.
    pub dead: BTreeMap<Uuid, DeadRow>,
    /// Keys that hold for a time: of kind, subject and key, the job, and until when.
    pub job_keys: BTreeMap<(String, Subject, Option<String>), (Uuid, Timestamp)>,
    /// Steps, by job and name.
    pub steps: BTreeMap<(Uuid, String), StepRow>,
    /// Children, by parent, step and number.
    pub children: BTreeMap<(Uuid, String, i32), ChildRow>,
    /// Who waits for events, by subject, job and step.
    pub event_waits: BTreeMap<(Subject, Uuid, String), EventWait>,
    /// Schedules by name.
    pub schedules: BTreeMap<String, ScheduleRow>,
    /// Fires, each with its job.
    pub fires: BTreeMap<(String, Timestamp), Uuid>,
    /// Sealed secrets, as they are.
    pub sealed: BTreeMap<Subject, Vec<u8>>,
    /// History: every reaction that was committed, in order.
    pub reacted: Vec<Reacted>,
    /// History: every job that was inserted, in order.
    pub enqueued: Vec<Uuid>,
    /// History: every start of a job: its number and the epoch, in order.
    pub started: Vec<(Uuid, i32, i64)>,
    /// Runs that failed, were cancelled or ended with their process, in order.
    pub attempts: Vec<((Uuid, i32), &'static str)>,
    /// History: every run that ended, and how, in order.
    pub ended: Vec<(Uuid, i32, &'static str)>,
}

impl SliceTables {
    /// The last position.
    pub fn head(&self) -> i64 {
        self.events.last().map_or(0, |event| event.position)
    }

    pub(super) fn checkpoint(&mut self, consumer: Consumer) -> &mut Checkpoint {
        match consumer {
            Consumer::React => &mut self.react,
            Consumer::Jobs => &mut self.jobs_lease,
        }
    }
}

/// All tables of an installation.
#[derive(Debug, Clone)]
pub struct Tables {
    /// By slice.
    pub slices: Vec<SliceTables>,
    /// What is not to be started.
    pub pauses: Pauses,
    /// Processes, and when each was last seen.
    pub processes: BTreeMap<Uuid, Timestamp>,
    /// Rates that are shared, by name.
    pub buckets: BTreeMap<String, BucketRow>,
    /// Endpoints by id.
    pub endpoints: BTreeMap<Uuid, EndpointRow>,
    pub(super) count: SliceCount,
    pub(super) flaws: Flaws,
    /// Jobs enqueued from outside, which get their ids here.
    pub(super) enqueued: u64,
}

impl Tables {
    pub(super) fn new(count: SliceCount, flaws: Flaws) -> Self {
        let slices = count.slices().map(|_| SliceTables::default()).collect();
        Self {
            slices,
            pauses: Pauses::default(),
            processes: BTreeMap::new(),
            buckets: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            count,
            flaws,
            enqueued: 0,
        }
    }

    /// A slice; none outside of the installation.
    pub(super) fn slice(&mut self, slice: i16) -> Option<&mut SliceTables> {
        usize::try_from(slice).ok().and_then(|slice| self.slices.get_mut(slice))
    }

    pub(super) fn existing(&mut self, slice: i16) -> Result<&mut SliceTables, Error> {
        let reason = format!("slice {slice} does not exist in this installation");
        self.slice(slice).ok_or(Error::Invalid { reason })
    }

    /// As `Store::check_slice`.
    pub(super) fn check_slice<'a>(
        &self,
        slice: i16,
        events: impl IntoIterator<Item = &'a NewEvent>,
    ) -> Result<(), Error> {
        for event in events {
            if self.count.slice_of(&event.subject) != slice {
                return Err(refused("the event belongs to another slice"));
            }
        }
        Ok(())
    }

    /// The whole log: `append_batch`.
    pub(super) fn append(
        &mut self,
        now: Timestamp,
        slice: i16,
        batch: Option<Uuid>,
        events: &[NewEvent],
    ) -> Result<Appended, Error> {
        self.check_slice(slice, events)?;
        if events.is_empty() {
            return Ok(Appended::default());
        }
        // A call with such a value is refused before anything is looked up.
        check_events(events)?;
        let no_batch_ids = self.flaws.no_batch_ids;
        let tables = self.existing(slice)?;
        if let Some(batch) = batch
            && !no_batch_ids
            && tables.keys.contains(&batch)
        {
            return Ok(Appended::default());
        }
        tables.keys.extend(batch);
        Ok(tables.store(now, slice, events))
    }

    /// Batches of several slices in one transaction: `append_batches`.
    pub(super) fn append_all(
        &mut self,
        now: Timestamp,
        batch: Uuid,
        events: &[NewEvent],
    ) -> Result<AppendedAll, Error> {
        check_events(events)?;
        let mut parts: BTreeMap<i16, Vec<usize>> = BTreeMap::new();
        for (n, event) in events.iter().enumerate() {
            parts.entry(self.count.slice_of(&event.subject)).or_default().push(n);
        }
        let mut all = AppendedAll::default();
        for (slice, numbers) in parts {
            let own: Vec<NewEvent> = numbers.iter().map(|n| events[*n].clone()).collect();
            let appended = self.append(now, slice, Some(batch), &own)?;
            all.slices.push(slice);
            all.stored += positions(&appended, &own).len();
            all.skipped.extend(appended.skipped.iter().map(|n| numbers[*n]));
        }
        all.skipped.sort_unstable();
        Ok(all)
    }

    pub(super) fn heads(&mut self, slices: &[i16]) -> Vec<(i16, i64)> {
        let asked: BTreeSet<i16> = slices.iter().copied().collect();
        asked.into_iter().filter_map(|n| Some((n, self.slice(n)?.head()))).collect()
    }

    pub(super) fn read_after(
        &mut self,
        slice: i16,
        position: i64,
        since: Timestamp,
        limit: i64,
    ) -> Result<Vec<RecordedEvent>, Error> {
        let Some(tables) = self.slice(slice) else { return Ok(Vec::new()) };
        let to = position.saturating_add(limit.max(0));
        let from = index(position);
        let later = tables.events.get(from..).unwrap_or_default();
        let events =
            later.iter().take_while(|e| e.position <= to).filter(|e| e.recorded_at >= since);
        let events: Vec<RecordedEvent> = events.cloned().collect();
        match events.first() {
            Some(first) if first.position != position + 1 => {
                Err(Error::Hole { slice, after: position, found: first.position })
            }
            _ => Ok(events),
        }
    }

    pub(super) fn read_event(&mut self, slice: i16, position: i64) -> Option<RecordedEvent> {
        let events = &self.slice(slice)?.events;
        events.iter().find(|event| event.position == position).cloned()
    }

    pub(super) fn read_subject(
        &mut self,
        subject: &Subject,
        position: i64,
        limit: i64,
    ) -> Vec<RecordedEvent> {
        let slice = self.count.slice_of(subject);
        let Some(tables) = self.slice(slice) else { return Vec::new() };
        let later = tables.events.get(index(position)..).unwrap_or_default();
        let own = later.iter().filter(|event| event.subject == *subject);
        own.take(usize::try_from(limit).unwrap_or_default()).cloned().collect()
    }

    pub(super) fn heartbeat(&mut self, now: Timestamp, process: Uuid, ttl: Duration) -> Vec<Uuid> {
        self.processes.insert(process, now);
        let living = self.processes.iter().filter(|(_, seen)| **seen > now - bounded(ttl));
        living.map(|(id, _)| *id).collect()
    }

    pub(super) fn leave(&mut self, now: Timestamp, process: Uuid) {
        let day = Duration::from_hours(24);
        self.processes.retain(|id, seen| *id != process && *seen >= now - day);
    }

    pub(super) fn claim(
        &mut self,
        now: Timestamp,
        (consumer, slice): (Consumer, i16),
        process: Uuid,
        ttl: Duration,
    ) -> Option<Lease> {
        let row = self.slice(slice)?.checkpoint(consumer);
        if row.owner.is_some() && row.lease_until >= now {
            return None;
        }
        row.owner = Some(process);
        row.epoch += 1;
        row.lease_until = now + bounded(ttl);
        Some(lease(slice, row))
    }

    pub(super) fn lease(&mut self, consumer: Consumer, slice: i16, epoch: i64) -> Option<Lease> {
        let row = self.slice(slice)?.checkpoint(consumer);
        (row.epoch == epoch).then(|| lease(slice, row))
    }

    pub(super) fn renew(
        &mut self,
        now: Timestamp,
        consumer: Consumer,
        held: &[(i16, i64)],
        ttl: Duration,
    ) -> Vec<i16> {
        let mut renewed = Vec::new();
        for (slice, epoch) in held {
            let Some(row) = self.slice(*slice).map(|s| s.checkpoint(consumer)) else { continue };
            if row.epoch == *epoch && row.owner.is_some() {
                row.lease_until = now + bounded(ttl);
                renewed.push(*slice);
            }
        }
        renewed
    }

    pub(super) fn release(&mut self, consumer: Consumer, slice: i16, epoch: i64) {
        let Some(row) = self.slice(slice).map(|s| s.checkpoint(consumer)) else { return };
        if row.epoch == epoch {
            row.owner = None;
            row.lease_until = Timestamp::default();
        }
    }

    /// The fence of a transaction that does not advance.
    pub(super) fn fence(
        &mut self,
        consumer: Consumer,
        slice: i16,
        epoch: i64,
    ) -> Result<&mut SliceTables, Error> {
        let no_fence = self.flaws.no_fence;
        let tables = self.slice(slice).ok_or(Error::Fenced { slice })?;
        if tables.checkpoint(consumer).epoch != epoch && !no_fence {
            return Err(Error::Fenced { slice });
        }
        Ok(tables)
    }
}

impl SliceTables {
    /// Stores events that were checked; those whose key is known are skipped.
    pub(super) fn store(&mut self, now: Timestamp, slice: i16, events: &[NewEvent]) -> Appended {
        let after = self.head();
        if events.is_empty() {
            return Appended::default();
        }
        let recorded_at = micros(now).max(self.last_at);
        let mut skipped = Vec::new();
        for (n, event) in events.iter().enumerate() {
            if event.key.is_some_and(|key| !self.keys.insert(key)) {
                skipped.push(n);
                continue;
            }
            let position = self.head() + 1;
            self.last_at = recorded_at;
            self.events.push(recorded(event, slice, position, recorded_at));
        }
        Appended { after: Some(after), skipped }
    }
}

/// The positions that an append gave.
pub(super) fn positions(appended: &Appended, events: &[NewEvent]) -> Vec<Stored> {
    appended.stored(events).collect()
}

fn lease(slice: i16, row: &Checkpoint) -> Lease {
    let (epoch, position, recorded_at) = (row.epoch, row.position, row.recorded_at);
    Lease { slice, epoch, position, recorded_at }
}

fn recorded(event: &NewEvent, slice: i16, position: i64, recorded_at: Timestamp) -> RecordedEvent {
    RecordedEvent {
        slice,
        position,
        recorded_at,
        received_at: micros(event.received_at),
        event_id: event.event_id,
        subject: event.subject.clone(),
        event_type: event.event_type.clone(),
        schema_version: event.schema_version,
        causation_id: event.causation_id,
        correlation_id: event.correlation_id,
        meta: event.meta.as_ref().map(Meta::value),
        payload: event.payload.clone(),
    }
}

/// Events that PostgreSQL takes: no text of theirs has the character that it cannot hold.
pub(super) fn check_events(events: &[NewEvent]) -> Result<(), Error> {
    for event in events {
        check_text(event.subject.as_str())?;
        check_text(&event.event_type)?;
    }
    Ok(())
}

/// A text that PostgreSQL takes.
pub(super) fn check_text(text: &str) -> Result<(), Error> {
    if text.contains('\0') { Err(refused("a text holds U+0000")) } else { Ok(()) }
}

/// A value that PostgreSQL takes as `jsonb`.
pub(super) fn check_json(value: &Value) -> Result<(), Error> {
    match value {
        Value::String(text) => check_text(text),
        Value::Array(values) => values.iter().try_for_each(check_json),
        Value::Object(fields) => {
            fields.iter().try_for_each(|(name, value)| check_text(name).and(check_json(value)))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

/// A value is refused, and would be again.
pub(super) fn refused(reason: &str) -> Error {
    Error::Data { source: sqlx::Error::InvalidArgument(reason.to_owned()) }
}

/// Where the events after a position begin.
fn index(position: i64) -> usize {
    usize::try_from(position).unwrap_or_default()
}

/// A time as PostgreSQL keeps it.
pub(super) fn micros(at: Timestamp) -> Timestamp {
    Timestamp::from_timestamp_micros(at.timestamp_micros()).unwrap_or(at)
}

/// A duration that a time can be moved by.
pub(super) fn bounded(duration: Duration) -> Duration {
    Duration::from_micros(u64::try_from(crate::consumer::micros(duration)).unwrap_or_default())
}

/// Values in order.
pub(super) fn sorted<T: Ord + Copy>(values: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut values: Vec<T> = values.into_iter().collect();
    values.sort_unstable();
    values
}

/// Counts by subject, in order.
pub(super) fn counted<'a>(subjects: impl Iterator<Item = &'a Subject>) -> Vec<(Subject, i64)> {
    let mut counts: HashMap<&Subject, i64> = HashMap::new();
    subjects.for_each(|subject| *counts.entry(subject).or_default() += 1);
    let mut counts: Vec<_> = counts.into_iter().map(|(s, n)| (s.clone(), n)).collect();
    counts.sort();
    counts
}
