//! Reading the log across the border between segments and table.
//!
//! The table is asked first, and the segments after it: what left the table meanwhile was noted as
//! a segment before, so nothing falls between the two.

use domain::event::RecordedEvent;
use domain::ids::Subject;
use sqlx::PgConnection;

use super::archive::failed;
use super::format::Block;
use super::record::Record;
use super::{Archive, Segment, segments_after};
use crate::Error;

/// Events of the segment that holds the position after `position`, up to `limit` of them. `None`:
/// no segment holds it.
///
/// # Errors
/// [`Error::NoHistory`] and [`Error::Segment`] where one does and cannot be read.
pub(crate) async fn after(
    archive: Option<&Archive>,
    connection: &mut PgConnection,
    slice: i16,
    position: i64,
    limit: usize,
) -> Result<Option<Vec<RecordedEvent>>, Error> {
    let found = segments_after(connection, slice, position, 1).await?.pop();
    // Segments are the beginning of a slice: the first that ends later holds it.
    let Some(segment) = found.filter(|segment| segment.from <= position.saturating_add(1)) else {
        return Ok(None);
    };
    let archive = known(archive, &segment)?;
    let index = archive.index(&segment).await?;
    let mut events = Vec::new();
    for block in index.blocks_after(position) {
        for record in block_events(archive, &segment, block).await? {
            if record.position > position && events.len() < limit {
                events.push(event(record, &segment)?);
            }
        }
        if events.len() >= limit {
            break;
        }
    }
    Ok(Some(events))
}

/// What the segments of a slice have of a subject.
pub(crate) struct Found {
    /// Up to `limit` events, in order.
    pub(crate) events: Vec<RecordedEvent>,
    /// The last sealed position: what the table has up to it is among them.
    pub(crate) sealed_to: i64,
}

/// Events of a subject after `position` that are sealed, up to `limit` of them.
///
/// # Errors
/// As for [`after`].
pub(crate) async fn of_subject(
    archive: Option<&Archive>,
    connection: &mut PgConnection,
    (slice, subject): (i16, &Subject),
    position: i64,
    limit: usize,
) -> Result<Found, Error> {
    let segments = segments_after(connection, slice, position, i64::MAX).await?;
    let sealed_to = segments.last().map_or(0, |segment| segment.to);
    let mut events = Vec::new();
    for segment in &segments {
        if events.len() >= limit {
            break;
        }
        let archive = known(archive, segment)?;
        let index = archive.index(segment).await?;
        for block in index.blocks_of(subject.as_str(), position) {
            let records = block_events(archive, segment, &block).await?;
            for record in records {
                if record.position > position && record.subject == subject.as_str() {
                    events.push(event(record, segment)?);
                }
            }
            if events.len() >= limit {
                break;
            }
        }
    }
    events.truncate(limit);
    Ok(Found { events, sealed_to })
}

fn known<'a>(archive: Option<&'a Archive>, segment: &Segment) -> Result<&'a Archive, Error> {
    archive.ok_or_else(|| Error::NoHistory {
        slice: segment.slice,
        from: segment.from,
        to: segment.to,
        file: segment.file.clone(),
    })
}

async fn block_events(
    archive: &Archive,
    segment: &Segment,
    block: &Block,
) -> Result<Vec<Record>, Error> {
    let read = async || {
        let bytes = archive.range(segment, block.range()).await?;
        Ok(block.decode_events(&bytes)?)
    };
    read().await.map_err(|fault| failed(segment, fault))
}

fn event(record: Record, segment: &Segment) -> Result<RecordedEvent, Error> {
    record.into_event(segment.slice).map_err(|damage| failed(segment, damage.into()))
}
