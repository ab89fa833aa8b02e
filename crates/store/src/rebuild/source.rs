//! Where a replay reads the log: a *chunk* of one slice, behind a position, in one short
//! transaction. What is sealed of it comes from segments, the rest from the table. Nothing else of
//! a replay knows where events lie.

use domain::event::RecordedEvent;
use domain::ids::Timestamp;
use futures_util::TryStreamExt as _;
use sqlx::{Connection as _, PgConnection};

use super::copy_binary::{Fields, Malformed, Tuples};
use crate::history::{self, Archive};
use crate::{Error, Store};

/// What a fold reads of an event, borrowed from its chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EventRow<'a> {
    pub(crate) position: i64,
    pub(crate) recorded_at: Timestamp,
    pub(crate) received_at: Timestamp,
    pub(crate) subject: &'a str,
    pub(crate) event_type: &'a str,
    pub(crate) schema_version: i16,
    pub(crate) payload: &'a [u8],
}

/// A range of a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) slice: i16,
    /// The last position before it.
    pub(crate) after: i64,
    /// Its last position.
    pub(crate) to: i64,
    /// No event of it was recorded earlier: older partitions are not read.
    pub(crate) since: Timestamp,
}

/// Events of a range: those from segments, then those of the table as they came over the wire.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) range: Range,
    sealed: Vec<RecordedEvent>,
    bytes: Vec<u8>,
    /// Where the last event begins.
    last: usize,
}

/// A range is a walk along the primary key. Left to itself the planner sorts, with two processes
/// started to help it: for 20,000 events that takes twice the time.
const ALONG_THE_KEY: &str = "SET LOCAL max_parallel_workers_per_gather = 0; SET LOCAL enable_sort = off; \
                             SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off";

/// Reads a large range in a transaction of its own; a connection is held for no longer.
pub(crate) async fn read_chunk_from(store: &Store, range: Range) -> Result<Chunk, Error> {
    let mut connection = store.pool.acquire().await?;
    let chunk = read_alone(store.history.as_ref(), &mut connection, range).await;
    if chunk.is_err() {
        // It may be in the middle of a COPY.
        connection.close_on_drop();
    }
    chunk
}

async fn read_alone(
    history: Option<&Archive>,
    connection: &mut PgConnection,
    range: Range,
) -> Result<Chunk, Error> {
    let mut tx = connection.begin().await?;
    // Several settings at once, which a prepared statement cannot hold.
    sqlx::raw_sql(ALONG_THE_KEY).execute(&mut *tx).await?;
    let chunk = read_chunk(history, &mut tx, range).await?;
    tx.commit().await?;
    Ok(chunk)
}

/// Reads a range within a transaction, or on its own.
///
/// # Errors
/// [`Error::NoHistory`] and [`Error::Segment`] where a part of it is sealed and cannot be read.
pub(crate) async fn read_chunk(
    history: Option<&Archive>,
    connection: &mut PgConnection,
    range: Range,
) -> Result<Chunk, Error> {
    let mut chunk = Chunk { range, sealed: Vec::new(), bytes: Vec::new(), last: 0 };
    // COPY takes no parameters, and the macros do not know it: numbers and a time of ours.
    let statement = format!(
        "COPY (SELECT position, recorded_at, received_at, subject, event_type, schema_version, payload
                 FROM tallylight.event
                WHERE slice = {} AND position > {} AND position <= {} AND recorded_at >= '{}'
                ORDER BY position) TO STDOUT (FORMAT binary)",
        range.slice,
        range.after,
        range.to,
        range.since.format("%Y-%m-%d %H:%M:%S%.6f+00"),
    );
    let mut rows = connection.copy_out_raw(&statement).await?;
    while let Some(row) = rows.try_next().await? {
        // PostgreSQL sends a row a message, and the trailer in one of two bytes.
        if row.len() > 2 {
            chunk.last = chunk.bytes.len();
        }
        chunk.bytes.extend_from_slice(&row);
    }
    drop(rows);
    // Asked after the table: what left it meanwhile was noted as a segment before.
    let first = chunk.first_of_table().unwrap_or(range.to.saturating_add(1));
    let mut after = range.after;
    while after + 1 < first {
        let missing = usize::try_from(first - 1 - after).unwrap_or(usize::MAX);
        let found = history::after(history, connection, range.slice, after, missing).await?;
        // Where no segment has it either, `for_each` tells of the hole.
        let Some(last) = found.as_ref().and_then(|events| events.last()) else { break };
        after = last.position;
        chunk.sealed.extend(found.into_iter().flatten());
    }
    Ok(chunk)
}

impl Chunk {
    /// Calls `each` with every event, in order, and checks that none is missing.
    pub(crate) fn for_each(
        &self,
        mut each: impl FnMut(&EventRow<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Range { slice, after, to, .. } = self.range;
        let mut position = after;
        let malformed = |position, Malformed(what)| Error::Unfoldable {
            slice,
            position,
            reason: format!("its row cannot be read ({what})"),
        };
        for event in &self.sealed {
            if event.position != position + 1 {
                return Err(Error::Hole { slice, after: position, found: event.position });
            }
            each(&EventRow::of(event))?;
            position = event.position;
        }
        let mut tuples = Tuples::new(&self.bytes).map_err(|m| malformed(position + 1, m))?;
        while let Some(fields) = tuples.next_tuple().map_err(|m| malformed(position + 1, m))? {
            let row = EventRow::read(fields).map_err(|m| malformed(position + 1, m))?;
            if row.position != position + 1 {
                return Err(Error::Hole { slice, after: position, found: row.position });
            }
            each(&row)?;
            position = row.position;
        }
        if position == to { Ok(()) } else { Err(Error::Hole { slice, after: position, found: to }) }
    }

    /// The position of the first event that the table has; a malformed row is told of later.
    fn first_of_table(&self) -> Option<i64> {
        let fields = Tuples::new(&self.bytes).ok()?.next_tuple().ok()??;
        EventRow::read(fields).ok().map(|row| row.position)
    }

    /// When its last event was recorded; what lies behind it was not recorded earlier.
    pub(crate) fn until(&self) -> Timestamp {
        let last = match self.last {
            0 => Tuples::new(&self.bytes).ok().and_then(|mut tuples| tuples.next_tuple().ok()?),
            at => {
                self.bytes.get(at..).and_then(|bytes| Tuples::headless(bytes).next_tuple().ok()?)
            }
        };
        let last = last.and_then(|fields| EventRow::read(fields).ok());
        let sealed = self.sealed.last().map(|event| event.recorded_at);
        last.map(|row| row.recorded_at).or(sealed).unwrap_or(self.range.since)
    }
}

impl<'a> EventRow<'a> {
    /// The same of an event that was read whole.
    pub(crate) fn of(event: &'a RecordedEvent) -> Self {
        Self {
            position: event.position,
            recorded_at: event.recorded_at,
            received_at: event.received_at,
            subject: event.subject.as_str(),
            event_type: &event.event_type,
            schema_version: event.schema_version,
            payload: &event.payload,
        }
    }

    /// Reads the fields behind the slice, if they have one.
    pub(crate) fn read(mut fields: Fields<'a>) -> Result<Self, Malformed> {
        let row = Self {
            position: fields.bigint()?,
            recorded_at: fields.timestamp()?,
            received_at: fields.timestamp()?,
            subject: fields.text()?,
            event_type: fields.text()?,
            schema_version: fields.smallint()?,
            payload: fields.bytes()?,
        };
        if fields.left() == 0 { Ok(row) } else { Err(Malformed("too many fields")) }
    }
}
