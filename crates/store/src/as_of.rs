//! What was known at some time: the log folded up to there, in memory. Reads only.

use domain::ids::{Subject, Timestamp};
use domain::state::State;
use domain::view::{LiveStreamRow, Row};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::history::Archive;
use crate::parked::applied_after;
use crate::read::SessionView;
use crate::rebuild::{EventRow, Fold};
use crate::{Error, Store, log};

/// Events read at once.
const PAGE: i64 = 1_000;

/// A moment in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AsOf {
    /// Everything that was recorded at or before this time.
    Time(Timestamp),
    /// The event at this position of this slice, and what was recorded before it; in other slices
    /// what was recorded up to the same time.
    Position {
        /// The slice.
        slice: i16,
        /// The position.
        position: i64,
    },
}

/// The last event of a moment, for one slice.
#[derive(Debug, Clone, Copy)]
struct Until {
    recorded_at: Timestamp,
    position: Option<i64>,
}

/// What was known of a session.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionThen {
    /// The session, as [`Store::session`] would have told.
    pub session: SessionView,
    /// Its live stream, as [`Store::live_stream`] would have told.
    pub live_stream: Option<LiveStreamRow>,
}

impl Store {
    /// The state of a subject at a moment, with the position of its last event; `None`: it had
    /// none. What was set aside then, is now, or was passed over, is not folded.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the moment names an event that does not exist.
    pub async fn state_as_of(
        &self,
        subject: &Subject,
        at: Option<AsOf>,
    ) -> Result<Option<(State, i64)>, Error> {
        let fold = self.fold_as_of(subject, at).await?;
        Ok(fold.states().next().map(|(_, state, position)| (state.clone(), position)))
    }

    /// What was known of a session of `source` at a moment; `None`: nothing yet.
    ///
    /// # Errors
    /// As [`Store::state_as_of`].
    pub async fn session_as_of(
        &self,
        source: &str,
        id: Uuid,
        at: AsOf,
    ) -> Result<Option<SessionThen>, Error> {
        let fold = self.fold_as_of(&Subject::request(source, id), Some(at)).await?;
        let request = fold.rows().into_iter().find_map(|(row, _)| match row {
            Row::Request(request) if request.session == id => Some(request),
            Row::Request(_)
            | Row::Session(_)
            | Row::LiveStream(_)
            | Row::Video(_)
            | Row::Account(_) => None,
        });
        let Some(request) = request else { return Ok(None) };
        let mut then = SessionThen { session: SessionView::requested(request), live_stream: None };
        let Some(live_stream) = then.session.live_stream else { return Ok(Some(then)) };
        let fold = self.fold_as_of(&Subject::live_stream(source, live_stream), Some(at)).await?;
        for (row, _) in fold.rows() {
            match row {
                Row::Session(row) if row.session == id => then.session.run(row),
                Row::LiveStream(row) => then.live_stream = Some(row),
                Row::Session(_) | Row::Request(_) | Row::Video(_) | Row::Account(_) => {}
            }
        }
        Ok(Some(then))
    }

    /// The time of a moment.
    ///
    /// # Errors
    /// As [`Store::state_as_of`].
    pub async fn time_of(&self, at: AsOf) -> Result<Timestamp, Error> {
        let mut connection = self.pool.acquire().await?;
        Ok(until(self.history.as_ref(), &mut connection, 0, at).await?.recorded_at)
    }

    async fn fold_as_of(&self, subject: &Subject, at: Option<AsOf>) -> Result<Fold, Error> {
        let slice = self.slice_of(subject);
        let mut connection = self.pool.acquire().await?;
        let until = match at {
            None => None,
            Some(at) => Some(until(self.history.as_ref(), &mut connection, slice, at).await?),
        };
        let mut aside = crate::rebuild::set_aside(&mut connection, slice, i64::MAX).await?;
        if let Some(until) = until {
            aside.extend(applied_after(&mut connection, slice, until.recorded_at).await?);
        }
        let mut fold = Fold::new(slice, Default::default(), &aside);
        let mut after = 0;
        loop {
            let archive = self.history.as_ref();
            let of = (slice, subject);
            let page = log::read_subject(archive, &mut connection, of, after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(fold) };
            after = last.position;
            for event in &page {
                let row = EventRow::of(event);
                if until.is_some_and(|until| until.is_before(&row)) {
                    return Ok(fold);
                }
                fold.apply_one(&row)?;
            }
        }
    }
}

impl Until {
    /// Whether an event came later.
    fn is_before(self, event: &EventRow<'_>) -> bool {
        match self.position {
            Some(position) => event.position > position,
            None => event.recorded_at > self.recorded_at,
        }
    }
}

/// The last event of a moment, for `slice`.
async fn until(
    archive: Option<&Archive>,
    connection: &mut PgConnection,
    slice: i16,
    at: AsOf,
) -> Result<Until, Error> {
    match at {
        AsOf::Time(recorded_at) => Ok(Until { recorded_at, position: None }),
        AsOf::Position { slice: of, position } => {
            let after = position.saturating_sub(1);
            let events = log::read(archive, connection, of, after, Timestamp::default(), 1).await;
            let found = match events {
                Ok(mut events) => events.pop(),
                Err(Error::Hole { .. }) => None,
                Err(error) => return Err(error),
            };
            let Some(event) = found else {
                let reason = format!("there is no event {of}:{position}");
                return Err(Error::Invalid { reason });
            };
            let position = (of == slice).then_some(position);
            Ok(Until { recorded_at: event.recorded_at, position })
        }
    }
}
