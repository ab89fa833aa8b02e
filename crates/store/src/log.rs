//! The event log: append to one slice, read a slice in order.

use std::borrow::Borrow;

use domain::event::{Meta, NewEvent, RecordedEvent};
use domain::ids::{Subject, Timestamp};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::history::{self, Archive};
use crate::{Error, Store};

/// An event that an append stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Its id.
    pub event_id: Uuid,
    /// Its position in the slice.
    pub position: i64,
}

/// What an append did with its events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Appended {
    /// The slice's head before them; `None`: the batch was stored before, or is empty.
    pub after: Option<i64>,
    /// Which of them, counted from 0 and in order, were not stored because their key was known.
    pub skipped: Vec<usize>,
}

impl Appended {
    /// Those of `events`, which were appended, that are stored now, with their positions: dense,
    /// in order.
    pub fn stored<'a>(&'a self, events: &'a [NewEvent]) -> impl Iterator<Item = Stored> + 'a {
        let present = events.iter().enumerate().filter(|(n, _)| !self.skipped.contains(n));
        let numbered = self.after.into_iter().flat_map(|after| after + 1..);
        let numbered = present.zip(numbered);
        numbered.map(|((_, event), position)| Stored { event_id: event.event_id, position })
    }
}

impl Store {
    /// The slice of `subject`.
    pub fn slice_of(&self, subject: &Subject) -> i16 {
        self.slices.slice_of(subject)
    }

    /// Appends events, all of `slice`, in order, and returns after commit.
    ///
    /// `batch` makes the call safe to repeat after a lost reply: give each batch one id and never
    /// change it once sent.
    ///
    /// # Errors
    /// [`Error::Data`] where a value is refused, also an event whose subject lies in another slice;
    /// nothing is stored then. [`Error::OtherInstallation`] and the others of
    /// [`Store::check_installation`] where the address leads elsewhere now.
    pub async fn append(
        &self,
        slice: i16,
        batch: Option<Uuid>,
        events: &[NewEvent],
    ) -> Result<Appended, Error> {
        self.check_slice(slice, events)?;
        let mut connection = self.identity.connection(&self.pool).await?;
        append(&mut connection, slice, batch, events).await
    }

    /// An event in a slice that is not its subject's would be out of order, and never found again.
    pub(crate) fn check_slice<'a>(
        &self,
        slice: i16,
        events: impl IntoIterator<Item = &'a NewEvent>,
    ) -> Result<(), Error> {
        for event in events {
            let own = self.slice_of(&event.subject);
            if own != slice {
                let subject = &event.subject;
                let reason = format!("the event of {subject} belongs to slice {own}, not {slice}");
                return Err(Error::Data { source: sqlx::Error::InvalidArgument(reason) });
            }
        }
        Ok(())
    }

    /// Appends one event to the slice of its subject. Returns `None` where its key was stored
    /// before.
    pub async fn append_one(&self, event: NewEvent) -> Result<Option<Stored>, Error> {
        let slice = self.slice_of(&event.subject);
        let appended = self.append(slice, None, std::slice::from_ref(&event)).await?;
        Ok(appended.stored(&[event]).next())
    }

    /// Reads up to `limit` events of a slice after `position`, which was recorded at `since`.
    ///
    /// # Errors
    /// [`Error::Hole`] where a position is missing.
    pub async fn read_after(
        &self,
        slice: i16,
        position: i64,
        since: Timestamp,
        limit: i64,
    ) -> Result<Vec<RecordedEvent>, Error> {
        let mut connection = self.pool.acquire().await?;
        read(self.history.as_ref(), &mut connection, slice, position, since, limit).await
    }

    /// Reads up to `limit` events of one subject after `position`.
    pub async fn read_subject(
        &self,
        subject: &Subject,
        position: i64,
        limit: i64,
    ) -> Result<Vec<RecordedEvent>, Error> {
        let mut connection = self.pool.acquire().await?;
        let of = (self.slice_of(subject), subject);
        read_subject(self.history.as_ref(), &mut connection, of, position, limit).await
    }

    /// Reads the event at a position.
    pub async fn read_event(
        &self,
        slice: i16,
        position: i64,
    ) -> Result<Option<RecordedEvent>, Error> {
        let events =
            self.read_after(slice, position.saturating_sub(1), Timestamp::default(), 1).await;
        match events {
            Ok(mut events) => Ok(events.pop()),
            Err(Error::Hole { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The last positions of `slices`.
    pub async fn heads(&self, slices: &[i16]) -> Result<Vec<(i16, i64)>, Error> {
        let rows = sqlx::query!(
            "SELECT slice, position FROM tallylight.slice_head WHERE slice = ANY ($1) ORDER BY slice",
            slices,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|row| (row.slice, row.position)).collect())
    }
}

/// Reads within a transaction, or on its own. What is sealed comes from its segment; fewer
/// events than `limit` mean that the slice has no more.
pub(crate) async fn read(
    history: Option<&Archive>,
    connection: &mut PgConnection,
    slice: i16,
    mut position: i64,
    since: Timestamp,
    limit: i64,
) -> Result<Vec<RecordedEvent>, Error> {
    let limit = usize::try_from(limit).unwrap_or_default();
    let mut events: Vec<RecordedEvent> = Vec::new();
    while events.len() < limit {
        let rest = limit - events.len();
        let mut found = read_table(connection, slice, position, since, rest).await?;
        let in_order = found.first().is_none_or(|first| first.position == position + 1);
        // Nothing here, or only later: what is missing may be sealed.
        let missing = found.is_empty() || !in_order;
        let mut is_sealed = false;
        if missing
            && let Some(sealed) = history::after(history, connection, slice, position, rest).await?
        {
            (found, is_sealed) = (sealed, true);
        } else if found.is_empty() {
            check_end(connection, slice, position).await?;
        }
        check_dense(slice, position, &found)?;
        let Some(last) = found.last() else { break };
        position = last.position;
        events.append(&mut found);
        // The table had all of them up to the limit; behind what is sealed there may be more.
        if !is_sealed {
            break;
        }
    }
    Ok(events)
}

/// Reads up to `limit` events after `position` from the table. All of them have a position of the
/// next `limit`, so that reading what is sealed does not fetch what comes later.
async fn read_table(
    connection: &mut PgConnection,
    slice: i16,
    position: i64,
    since: Timestamp,
    limit: usize,
) -> Result<Vec<RecordedEvent>, Error> {
    let rows = sqlx::query_as!(
        EventRow,
        r#"SELECT slice, position, recorded_at, received_at, event_id, subject, event_type,
                  schema_version, causation_id, correlation_id, meta as "meta: Value", payload
             FROM tallylight.event
            WHERE slice = $1 AND position > $2 AND position <= $3 AND recorded_at >= $4
            ORDER BY position"#,
        slice,
        position,
        position.saturating_add(i64::try_from(limit).unwrap_or(i64::MAX)),
        since,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(RecordedEvent::from).collect())
}

/// A slice ends after `position`, or it has a hole there.
async fn check_end(connection: &mut PgConnection, slice: i16, after: i64) -> Result<(), Error> {
    let next = sqlx::query_scalar!(
        "SELECT position FROM tallylight.event WHERE slice = $1 AND position > $2
          ORDER BY position LIMIT 1",
        slice,
        after,
    )
    .fetch_optional(connection)
    .await?;
    match next {
        // Appended in this moment: the next read finds it.
        Some(found) if found > after + 1 => Err(Error::Hole { slice, after, found }),
        Some(_) | None => Ok(()),
    }
}

/// Reads a subject within a transaction, or on its own. Sealed events come from their segments.
pub(crate) async fn read_subject(
    history: Option<&Archive>,
    connection: &mut PgConnection,
    (slice, subject): (i16, &Subject),
    position: i64,
    limit: i64,
) -> Result<Vec<RecordedEvent>, Error> {
    let rows = sqlx::query_as!(
        EventRow,
        r#"SELECT slice, position, recorded_at, received_at, event_id, subject, event_type,
                  schema_version, causation_id, correlation_id, meta as "meta: Value", payload
             FROM tallylight.event
            WHERE slice = $1 AND subject = $2 AND position > $3
            ORDER BY position LIMIT $4"#,
        slice,
        subject.as_str(),
        position,
        limit,
    )
    .fetch_all(&mut *connection)
    .await?;
    let limit = usize::try_from(limit).unwrap_or_default();
    let of = (slice, subject);
    let sealed = history::of_subject(history, connection, of, position, limit).await?;
    let mut events = sealed.events;
    let stored = rows.into_iter().map(RecordedEvent::from);
    events.extend(stored.filter(|event| event.position > sealed.sealed_to));
    events.truncate(limit);
    Ok(events)
}

/// Appends within a transaction, or on its own. Comes last in a transaction: it locks the head.
pub(crate) async fn append<E: Borrow<NewEvent>>(
    connection: &mut PgConnection,
    slice: i16,
    batch: Option<Uuid>,
    events: &[E],
) -> Result<Appended, Error> {
    if events.is_empty() {
        return Ok(Appended::default());
    }
    let of = Columns::of(&events.iter().map(Borrow::borrow).collect::<Vec<_>>());
    let row = sqlx::query!(
        "SELECT after_position, skipped
           FROM tallylight.append_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        slice,
        batch,
        &of.ids,
        &of.subjects as &[&str],
        &of.types as &[&str],
        &of.versions,
        of.keys.as_deref() as Option<&[Option<Uuid>]>,
        &of.received,
        of.causations.as_deref() as Option<&[Option<Uuid>]>,
        of.correlations.as_deref() as Option<&[Option<Uuid>]>,
        of.metas.as_deref() as Option<&[Option<&str>]>,
        &of.payloads as &[&[u8]],
    )
    .fetch_one(connection)
    .await?;
    let skipped = row.skipped.unwrap_or_default().into_iter();
    // They count from one.
    let skipped = skipped.filter_map(|nth| usize::try_from(nth - 1).ok()).collect();
    Ok(Appended { after: row.after_position, skipped })
}

/// Events by column, as both functions that append take them.
pub(crate) struct Columns<'a> {
    pub(crate) ids: Vec<Uuid>,
    pub(crate) subjects: Vec<&'a str>,
    pub(crate) types: Vec<&'a str>,
    pub(crate) versions: Vec<i16>,
    pub(crate) keys: Option<Vec<Option<Uuid>>>,
    pub(crate) received: Vec<Timestamp>,
    pub(crate) causations: Option<Vec<Option<Uuid>>>,
    pub(crate) correlations: Option<Vec<Option<Uuid>>>,
    pub(crate) metas: Option<Vec<Option<&'a str>>>,
    pub(crate) payloads: Vec<&'a [u8]>,
}

impl<'a> Columns<'a> {
    /// The columns of some events.
    pub(crate) fn of(events: &[&'a NewEvent]) -> Self {
        Self {
            ids: events.iter().map(|e| e.event_id).collect(),
            subjects: events.iter().map(|e| e.subject.as_str()).collect(),
            types: events.iter().map(|e| e.event_type.as_str()).collect(),
            versions: events.iter().map(|e| e.schema_version).collect(),
            keys: column(events, |e| e.key),
            received: events.iter().map(|e| e.received_at).collect(),
            causations: column(events, |e| e.causation_id),
            correlations: column(events, |e| e.correlation_id),
            metas: column(events, |e| e.meta.as_ref().map(Meta::as_str)),
            payloads: events.iter().map(|e| e.payload.as_slice()).collect(),
        }
    }
}

/// One value of each event; `None` where no event has one: the database then reads no array.
fn column<'a, T>(
    events: &[&'a NewEvent],
    of: impl Fn(&'a NewEvent) -> Option<T>,
) -> Option<Vec<Option<T>>> {
    let has_one = events.iter().any(|event| of(event).is_some());
    has_one.then(|| events.iter().map(|event| of(event)).collect())
}

/// Positions are dense by construction: a hole is damage, and is never passed over.
fn check_dense(slice: i16, after: i64, events: &[RecordedEvent]) -> Result<(), Error> {
    let mut after = after;
    for event in events {
        if event.position != after + 1 {
            return Err(Error::Hole { slice, after, found: event.position });
        }
        after = event.position;
    }
    Ok(())
}

/// A row of `event`.
pub(crate) struct EventRow {
    pub(crate) slice: i16,
    pub(crate) position: i64,
    pub(crate) recorded_at: Timestamp,
    pub(crate) received_at: Timestamp,
    pub(crate) event_id: Uuid,
    pub(crate) subject: String,
    pub(crate) event_type: String,
    pub(crate) schema_version: i16,
    pub(crate) causation_id: Option<Uuid>,
    pub(crate) correlation_id: Option<Uuid>,
    pub(crate) meta: Option<Value>,
    pub(crate) payload: Vec<u8>,
}

impl From<EventRow> for RecordedEvent {
    fn from(row: EventRow) -> Self {
        Self {
            slice: row.slice,
            position: row.position,
            recorded_at: row.recorded_at,
            received_at: row.received_at,
            event_id: row.event_id,
            subject: Subject::from_stored(row.subject),
            event_type: row.event_type,
            schema_version: row.schema_version,
            causation_id: row.causation_id,
            correlation_id: row.correlation_id,
            meta: row.meta,
            payload: row.payload,
        }
    }
}
