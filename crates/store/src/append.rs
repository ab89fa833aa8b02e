//! The one way into the event log: events of one slice, or of several in one transaction.
//!
//! Positions are given out by SQL under the lock of the slice's head. A *batch id* makes a call
//! safe to repeat: under it, each slice stores its events once, whichever try runs first.

use std::collections::BTreeMap;

use domain::event::{Meta, NewEvent};
use domain::ids::Timestamp;
use futures_util::future::try_join_all;
use sqlx::PgConnection;
use uuid::Uuid;

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
    /// Appends events, all of `slice`, in order, and returns after commit.
    ///
    /// `batch` makes the call safe to repeat after a lost reply: give each batch one id and never
    /// change it once sent.
    ///
    /// # Errors
    /// [`Error::Data`] where a value is refused, also an event whose subject lies in another slice;
    /// nothing is stored then. [`Error::OtherInstallation`] where the store was made from known
    /// facts and the database says otherwise.
    pub async fn append(
        &self,
        slice: i16,
        batch: Option<Uuid>,
        events: &[NewEvent],
    ) -> Result<Appended, Error> {
        self.check_slice(slice, events)?;
        self.check_installation().await?;
        let mut connection = self.pool.acquire().await?;
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
}

/// Appends within a transaction, or on its own. Comes last in a transaction: it locks the head.
pub(crate) async fn append(
    connection: &mut PgConnection,
    slice: i16,
    batch: Option<Uuid>,
    events: &[NewEvent],
) -> Result<Appended, Error> {
    if events.is_empty() {
        return Ok(Appended::default());
    }
    let ids: Vec<Uuid> = events.iter().map(|e| e.event_id).collect();
    let subjects: Vec<&str> = events.iter().map(|e| e.subject.as_str()).collect();
    let types: Vec<&str> = events.iter().map(|e| e.event_type.as_str()).collect();
    let versions: Vec<i16> = events.iter().map(|e| e.schema_version).collect();
    let keys = column(events, |e| e.key);
    let received: Vec<Timestamp> = events.iter().map(|e| e.received_at).collect();
    let causations = column(events, |e| e.causation_id);
    let correlations = column(events, |e| e.correlation_id);
    let metas = column(events, |e| e.meta.as_ref().map(Meta::as_str));
    let payloads: Vec<&[u8]> = events.iter().map(|e| e.payload.as_slice()).collect();
    let row = sqlx::query!(
        "SELECT after_position, skipped
           FROM tallylight.append_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        slice,
        batch,
        &ids,
        &subjects as &[&str],
        &types as &[&str],
        &versions,
        keys.as_deref() as Option<&[Option<Uuid>]>,
        &received,
        causations.as_deref() as Option<&[Option<Uuid>]>,
        correlations.as_deref() as Option<&[Option<Uuid>]>,
        metas.as_deref() as Option<&[Option<&str>]>,
        &payloads as &[&[u8]],
    )
    .fetch_one(connection)
    .await?;
    let skipped = row.skipped.unwrap_or_default().into_iter();
    // They count from one.
    let skipped = skipped.filter_map(|nth| usize::try_from(nth - 1).ok()).collect();
    Ok(Appended { after: row.after_position, skipped })
}

/// One value of each event; `None` where no event has one: the database then reads no array.
fn column<'a, T>(
    events: &'a [NewEvent],
    of: impl Fn(&'a NewEvent) -> Option<T>,
) -> Option<Vec<Option<T>>> {
    events.iter().any(|event| of(event).is_some()).then(|| events.iter().map(of).collect())
}
