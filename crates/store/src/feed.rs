//! The feed: announcements of all slices, read on from any point of the log, each one once.
//!
//! A *point* is a position in every slice. Positions are dense and become visible in their order,
//! so whoever reads each slice on from its position misses nothing, whatever is appended meanwhile;
//! no order exists across slices, and pages are merged by the time of recording only to read well.
//! Heads are read first: up to there everything is visible to every later statement. Not its job:
//! how a point is told to callers.

use domain::announcement::TOPICS;
use domain::event::RecordedEvent;
use domain::ids::Timestamp;
use domain::message::MessageId;
use serde_json::Value;
use sqlx::PgConnection;

use crate::log::EventRow;
use crate::{Error, Store, history};

/// Positions of a slice that one statement looks through: it is over soon, however few of them are
/// looked for.
const WINDOW: i64 = 100_000;

/// Events of a sealed slice that are looked through at once: they are read whole.
const SEALED_WINDOW: usize = 2_000;

/// Windows that are looked through for a page that finds nothing.
const MOST_WINDOWS: usize = 20;

/// Some announcements, and how far the log was looked through for them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Announced {
    /// In order within each slice, and merged by the time of recording.
    pub events: Vec<RecordedEvent>,
    /// The point up to which they are all of them.
    pub reached: Vec<i64>,
    /// There was nothing behind that point.
    pub is_complete: bool,
}

/// Where a slice ends, and up to where it is sealed.
struct Extent {
    head: i64,
    sealed_to: i64,
}

impl Store {
    /// Reads up to `limit` announcements after a point, which has a position for every slice; only
    /// those of these names in the log.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a point of another number of slices; [`Error::NoHistory`] and
    /// [`Error::Segment`] where what is sealed cannot be read.
    pub async fn announced(
        &self,
        after: &[i64],
        names: &[&str],
        limit: usize,
    ) -> Result<Announced, Error> {
        let slices = self.slices().slices().count();
        if after.len() != slices {
            let reason = format!("a point has {slices} positions here, not {}", after.len());
            return Err(Error::Invalid { reason });
        }
        let mut page = Announced { reached: after.to_vec(), ..Announced::default() };
        for _ in 0..MOST_WINDOWS {
            page = self.announced_once(&page.reached, names, limit.max(1)).await?;
            if page.is_complete || !page.events.is_empty() {
                break;
            }
        }
        Ok(page)
    }

    /// As [`Store::announced`], one window of each slice.
    async fn announced_once(
        &self,
        after: &[i64],
        names: &[&str],
        limit: usize,
    ) -> Result<Announced, Error> {
        let mut connection = self.pool.acquire().await?;
        loop {
            let extents = extents(&mut connection).await?;
            let mut page = Announced { reached: after.to_vec(), ..Announced::default() };
            for ((slice, extent), reached) in (0..).zip(&extents).zip(&mut page.reached) {
                let from = *reached;
                if extent.head <= from {
                    continue;
                }
                let (events, to) = if extent.sealed_to > from {
                    self.of_sealed(&mut connection, slice, from, names).await?
                } else {
                    of_table(&mut connection, slice, from, extent.head, names, limit).await?
                };
                page.events.extend(events);
                *reached = to;
            }
            // A month that left the table meanwhile may have taken some along, unseen.
            if let Some(now) = moved(&mut connection, &extents, after).await? {
                tracing::debug!(slice = now, "a month was sealed meanwhile, reading again");
                continue;
            }
            page.cut(limit);
            let at_head = |(at, extent): (&i64, &Extent)| *at >= extent.head;
            page.is_complete = page.reached.iter().zip(&extents).all(at_head);
            return Ok(page);
        }
    }

    /// What a sealed slice has after a position, and how far that was looked through.
    async fn of_sealed(
        &self,
        connection: &mut PgConnection,
        slice: i16,
        from: i64,
        names: &[&str],
    ) -> Result<(Vec<RecordedEvent>, i64), Error> {
        let archive = self.history.as_ref();
        let found = history::after(archive, connection, slice, from, SEALED_WINDOW).await?;
        let mut events = found.unwrap_or_default();
        let to = events.last().map_or(from, |last| last.position);
        events.retain(|event| names.contains(&event.event_type.as_str()));
        Ok((events, to))
    }

    /// The point behind all that is recorded now.
    pub async fn feed_end(&self) -> Result<Vec<i64>, Error> {
        let mut connection = self.pool.acquire().await?;
        let extents = extents(&mut connection).await?;
        Ok(extents.iter().map(|extent| extent.head).collect())
    }

    /// The point before all that is in the database: what is sealed lies before it.
    pub async fn feed_start(&self) -> Result<Vec<i64>, Error> {
        let mut connection = self.pool.acquire().await?;
        let extents = extents(&mut connection).await?;
        Ok(extents.iter().map(|extent| extent.sealed_to).collect())
    }

    /// The point before all that was recorded at `since` or later, and is in the database.
    pub async fn feed_since(&self, since: Timestamp) -> Result<Vec<i64>, Error> {
        let mut connection = self.pool.acquire().await?;
        let mut point = Vec::new();
        for (slice, extent) in (0..).zip(extents(&mut connection).await?) {
            // Positions of a slice are in the order of their recording, so it is halved.
            let (mut low, mut high) = (extent.sealed_to, extent.head);
            while low < high {
                let middle = low + (high - low) / 2;
                match recorded_after(&mut connection, slice, middle).await? {
                    Some((position, at)) if at < since => low = position,
                    Some(_) | None => high = middle,
                }
            }
            point.push(low);
        }
        Ok(point)
    }

    /// When the first event between two points was recorded; `None`: there is none.
    pub(crate) async fn first_between(
        &self,
        from: &[i64],
        to: &[i64],
    ) -> Result<Option<Timestamp>, Error> {
        let mut connection = self.pool.acquire().await?;
        let mut first = None;
        for (slice, (from, _)) in (0..).zip(from.iter().zip(to)).filter(|(_, (from, to))| from < to)
        {
            if let Some((_, at)) = recorded_after(&mut connection, slice, *from).await? {
                first = Some(first.map_or(at, |first: Timestamp| first.min(at)));
            }
        }
        Ok(first)
    }

    /// The announcement of a message's id; `None`: there is none of that id.
    pub async fn announcement(&self, id: MessageId) -> Result<Option<RecordedEvent>, Error> {
        let known = self.slices().slices().any(|slice| slice == id.slice);
        let found = if known { self.read_event(id.slice, id.position).await? } else { None };
        let is_announced = |event: &RecordedEvent| names().contains(&event.event_type.as_str());
        Ok(found.filter(|event| id.is_of(event) && is_announced(event)))
    }
}

/// The names of all announcements in the log.
pub(crate) fn names() -> [&'static str; TOPICS.len()] {
    TOPICS.map(|(name, _)| name)
}

impl Announced {
    /// Merges what the slices have, and cuts it at `limit`: what is cut off is behind the point.
    fn cut(&mut self, limit: usize) {
        // Stable: within a slice the order of recording is that of the positions.
        self.events.sort_by_key(|event| (event.recorded_at, event.slice, event.position));
        for event in self.events.drain(limit.min(self.events.len())..).rev() {
            let at = usize::try_from(event.slice).ok().and_then(|n| self.reached.get_mut(n));
            if let Some(at) = at {
                *at = event.position - 1;
            }
        }
    }
}

/// The extents of all slices, in their order.
async fn extents(connection: &mut PgConnection) -> Result<Vec<Extent>, Error> {
    let extents = sqlx::query_as!(
        Extent,
        r#"SELECT h.position AS head, coalesce(s.sealed_to, 0) AS "sealed_to!"
             FROM tallylight.slice_head h
             LEFT JOIN (SELECT slice, max(to_position) AS sealed_to
                          FROM tallylight.segment GROUP BY slice) AS s ON s.slice = h.slice
            ORDER BY h.slice"#,
    )
    .fetch_all(connection)
    .await?;
    Ok(extents)
}

/// A slice that was read from the table, and of which a part behind `after` is sealed since.
async fn moved(
    connection: &mut PgConnection,
    then: &[Extent],
    after: &[i64],
) -> Result<Option<i16>, Error> {
    if then.iter().zip(after).all(|(extent, from)| extent.head <= *from) {
        return Ok(None);
    }
    let now = extents(connection).await?;
    let mut slices = (0..).zip(then).zip(&now).zip(after);
    let sealed = slices.find(|(((_, then), now), from)| {
        then.sealed_to <= **from && then.head > **from && now.sealed_to > **from
    });
    Ok(sealed.map(|(((slice, _), _), _)| slice))
}

/// What the table has of a slice after a position, and how far it was looked through.
async fn of_table(
    connection: &mut PgConnection,
    slice: i16,
    from: i64,
    head: i64,
    names: &[&str],
    limit: usize,
) -> Result<(Vec<RecordedEvent>, i64), Error> {
    let until = head.min(from.saturating_add(WINDOW));
    // The names' beginnings are those of the index, word by word.
    let rows = sqlx::query_as!(
        EventRow,
        r#"SELECT slice, position, recorded_at, received_at, event_id, subject, event_type,
                  schema_version, causation_id, correlation_id, meta AS "meta: Value", payload
             FROM tallylight.event
            WHERE slice = $1 AND position > $2 AND position <= $3
              AND (event_type LIKE 'Session%' OR event_type LIKE 'Recording%'
                   OR event_type LIKE 'Quota%' OR event_type LIKE 'Cleanup%'
                   OR event_type LIKE 'Endpoint%')
              AND event_type = ANY ($4)
            ORDER BY position LIMIT $5"#,
        slice,
        from,
        until,
        names as &[&str],
        i64::try_from(limit).unwrap_or(i64::MAX),
    )
    .fetch_all(connection)
    .await?;
    let is_full = rows.len() >= limit;
    let reached = rows.last().filter(|_| is_full).map_or(until, |last| last.position);
    Ok((rows.into_iter().map(RecordedEvent::from).collect(), reached))
}

/// The first event after a position, and when it was recorded.
async fn recorded_after(
    connection: &mut PgConnection,
    slice: i16,
    position: i64,
) -> Result<Option<(i64, Timestamp)>, Error> {
    let row = sqlx::query!(
        "SELECT position, recorded_at FROM tallylight.event
          WHERE slice = $1 AND position > $2 ORDER BY position LIMIT 1",
        slice,
        position,
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| (row.position, row.recorded_at)))
}
