//! Events that are set aside: listing them, asking for a retry or a skip, and what a worker writes.
//!
//! A *poisoned* event parks its subject: it and every later event of that subject wait in order,
//! the slice goes on. A request is a mark on the first of them; the worker that holds the slice
//! performs it behind its fence. What is skipped keeps its row, so that a rebuild passes it too.
//!
//! Not its job: folding anything. That is the worker's, since only it may decide.

use domain::ids::{Subject, Timestamp};
use sqlx::PgConnection;

use crate::consumer::Consumer;
use crate::{Error, Store};

/// An event set aside by a reaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedEvent {
    /// Its position.
    pub position: i64,
    /// Its subject: later events of it are set aside too.
    pub subject: Subject,
    /// What went wrong; `None`: it only waits.
    pub error: Option<String>,
    /// Its version is newer than this build: one that knows it asks for the retry by itself.
    pub awaits_build: bool,
}

/// What somebody wants done with a parked subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Apply its events in order, with today's code.
    Retry,
    /// Pass its first event over for good, then apply the rest.
    Skip,
}

impl Request {
    /// Its name in `parked.request`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Skip => "skip",
        }
    }
}

/// A subject whose events are set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedSubject {
    /// The slice.
    pub slice: i16,
    /// The subject.
    pub subject: Subject,
    /// Position of its first event that waits: the poisoned one.
    pub position: i64,
    /// How many of its events wait.
    pub events: i64,
    /// What went wrong with the first.
    pub error: Option<String>,
    /// How often that was tried.
    pub attempts: i32,
    /// Since when it waits.
    pub since: Timestamp,
    /// Whether somebody's request waits for a worker.
    pub is_requested: bool,
}

/// An event that was passed over for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedEvent {
    /// The slice.
    pub slice: i16,
    /// Its position.
    pub position: i64,
    /// Its subject.
    pub subject: Subject,
    /// What went wrong with it.
    pub error: Option<String>,
    /// Who asked for it.
    pub by: Option<String>,
    /// Why, in their words.
    pub reason: Option<String>,
    /// When it was passed over.
    pub at: Timestamp,
}

/// A request that waits for the holder of the slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingRequest {
    /// The subject.
    pub subject: Subject,
    /// Its first waiting event, which carries the request.
    pub position: i64,
    /// What is wanted.
    pub request: Request,
    /// When it was asked for: tells it from a later one about the same event.
    pub requested_at: Timestamp,
}

/// What a worker did with parked events of one subject.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mended {
    /// The event that carried the request.
    pub requested: i64,
    /// When that request was made.
    pub requested_at: Timestamp,
    /// Passed over for good.
    pub skipped: Option<i64>,
    /// Applied: they wait no more.
    pub applied: Vec<i64>,
    /// The first that waits still, and why; `None`: nothing is left of the subject.
    pub next: Option<Next>,
}

/// Why events of a subject wait still.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// This one failed, again or for the first time.
    Failed {
        /// Its position.
        position: i64,
        /// What went wrong.
        error: String,
        /// As in [`ParkedEvent`].
        awaits_build: bool,
    },
    /// They are to be retried in the next transaction.
    GoesOn {
        /// The first of them.
        position: i64,
    },
}

impl Store {
    /// The subjects whose events are set aside, by slice and position.
    pub async fn parked(&self) -> Result<Vec<ParkedSubject>, Error> {
        let rows = sqlx::query!(
            r#"SELECT f.slice, f.subject, f.position, f.error, f.attempts, f.parked_at,
                      f.request IS NOT NULL AS "is_requested!", w.events AS "events!"
                 FROM (SELECT slice, subject, min(position) AS position, count(*) AS events
                         FROM tallylight.parked WHERE consumer = $1 AND skipped_at IS NULL
                        GROUP BY slice, subject) AS w
                 JOIN tallylight.parked f
                   ON f.consumer = $1 AND f.slice = w.slice AND f.position = w.position
                ORDER BY f.slice, f.position"#,
            Consumer::React.name(),
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|r| ParkedSubject {
                slice: r.slice,
                subject: Subject::from_stored(r.subject),
                position: r.position,
                events: r.events,
                error: r.error,
                attempts: r.attempts,
                since: r.parked_at,
                is_requested: r.is_requested,
            })
            .collect())
    }

    /// The events that were passed over for good, by slice and position.
    pub async fn skipped(&self) -> Result<Vec<SkippedEvent>, Error> {
        let rows = sqlx::query!(
            r#"SELECT slice, position, subject, error, requested_by, reason, skipped_at AS "at!"
                 FROM tallylight.parked WHERE consumer = $1 AND skipped_at IS NOT NULL
                ORDER BY slice, position"#,
            Consumer::React.name(),
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|r| SkippedEvent {
                slice: r.slice,
                position: r.position,
                subject: Subject::from_stored(r.subject),
                error: r.error,
                by: r.requested_by,
                reason: r.reason,
                at: r.at,
            })
            .collect())
    }

    /// The subject of the event at a position, if it is set aside and waits.
    pub async fn parked_at(&self, slice: i16, position: i64) -> Result<Option<Subject>, Error> {
        let subject = sqlx::query_scalar!(
            "SELECT subject FROM tallylight.parked
              WHERE consumer = $1 AND slice = $2 AND position = $3 AND skipped_at IS NULL",
            Consumer::React.name(),
            slice,
            position,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(subject.map(Subject::from_stored))
    }

    /// Asks the holder of the slice to retry or skip, and wakes it. `position` is the subject's
    /// first waiting event, as the caller saw it.
    ///
    /// # Errors
    /// [`Error::NotParked`] where that is not the first waiting event of the subject any more.
    pub async fn request_parked(
        &self,
        subject: &Subject,
        position: i64,
        request: Request,
        by: &str,
        reason: Option<&str>,
    ) -> Result<(), Error> {
        let slice = self.slice_of(subject);
        let marked = sqlx::query!(
            "UPDATE tallylight.parked p
                SET request = $5, requested_by = $6, requested_at = now(), reason = $7
              WHERE p.consumer = $1 AND p.slice = $2 AND p.subject = $3 AND p.position = $4
                AND p.skipped_at IS NULL
                AND NOT EXISTS (SELECT FROM tallylight.parked e
                     WHERE e.consumer = $1 AND e.slice = $2 AND e.subject = $3
                       AND e.position < $4 AND e.skipped_at IS NULL)",
            Consumer::React.name(),
            slice,
            subject.as_str(),
            position,
            request.name(),
            by,
            reason,
        )
        .execute(&self.pool)
        .await?;
        if marked.rows_affected() == 0 {
            return Err(Error::NotParked { subject: subject.to_string(), slice, position });
        }
        self.wake_slice(slice).await
    }

    /// How many events of each subject of a slice wait: what its holder keeps in memory.
    pub async fn parked_counts(&self, slice: i16) -> Result<Vec<(Subject, i64)>, Error> {
        let rows = sqlx::query!(
            r#"SELECT subject, count(*) AS "events!" FROM tallylight.parked
                WHERE consumer = $1 AND slice = $2 AND skipped_at IS NULL
                GROUP BY subject ORDER BY subject"#,
            Consumer::React.name(),
            slice,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|r| (Subject::from_stored(r.subject), r.events)).collect())
    }

    /// The subjects of a slice that have events set aside which wait.
    pub async fn parked_subjects(&self, slice: i16) -> Result<Vec<Subject>, Error> {
        let counts = self.parked_counts(slice).await?;
        Ok(counts.into_iter().map(|(subject, _)| subject).collect())
    }

    /// Events of a slice that wait for a build that knows their version, and for nothing else.
    pub async fn awaiting_build(&self, slice: i16) -> Result<Vec<(Subject, i64)>, Error> {
        let rows = sqlx::query!(
            "SELECT subject, position FROM tallylight.parked
              WHERE consumer = $1 AND slice = $2 AND skipped_at IS NULL AND request IS NULL
                AND awaits_build ORDER BY position",
            Consumer::React.name(),
            slice,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|r| (Subject::from_stored(r.subject), r.position)).collect())
    }

    /// The requests that wait for the holder of a slice, in order of position.
    pub async fn parked_requests(&self, slice: i16) -> Result<Vec<PendingRequest>, Error> {
        let rows = sqlx::query!(
            r#"SELECT subject, position, request AS "request!", requested_at AS "requested_at!"
                 FROM tallylight.parked
                WHERE consumer = $1 AND slice = $2 AND skipped_at IS NULL AND request IS NOT NULL
                ORDER BY position"#,
            Consumer::React.name(),
            slice,
        )
        .fetch_all(&self.pool)
        .await?;
        let wanted = |name: &str| {
            if name == Request::Skip.name() { Request::Skip } else { Request::Retry }
        };
        Ok(rows
            .into_iter()
            .map(|r| PendingRequest {
                subject: Subject::from_stored(r.subject),
                position: r.position,
                request: wanted(&r.request),
                requested_at: r.requested_at,
            })
            .collect())
    }

    /// Positions of the first waiting events of a subject, in order.
    pub async fn parked_positions(
        &self,
        slice: i16,
        subject: &Subject,
        limit: i64,
    ) -> Result<Vec<i64>, Error> {
        let positions = sqlx::query_scalar!(
            "SELECT position FROM tallylight.parked
              WHERE consumer = $1 AND slice = $2 AND subject = $3 AND skipped_at IS NULL
              ORDER BY position LIMIT $4",
            Consumer::React.name(),
            slice,
            subject.as_str(),
            limit,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(positions)
    }
}

/// Sets events aside.
pub(crate) async fn park(
    connection: &mut PgConnection,
    slice: i16,
    parked: &[ParkedEvent],
) -> Result<(), Error> {
    if parked.is_empty() {
        return Ok(());
    }
    let positions: Vec<i64> = parked.iter().map(|p| p.position).collect();
    let subjects: Vec<&str> = parked.iter().map(|p| p.subject.as_str()).collect();
    let errors: Vec<Option<String>> =
        parked.iter().map(|p| p.error.as_deref().map(storable)).collect();
    let awaits: Vec<bool> = parked.iter().map(|p| p.awaits_build).collect();
    sqlx::query!(
        "INSERT INTO tallylight.parked
                (consumer, slice, position, subject, error, attempts, awaits_build)
         SELECT $1, $2, u.position, u.subject, u.error, (u.error IS NOT NULL)::int, u.awaits_build
           FROM unnest($3::bigint[], $4::text[], $5::text[], $6::bool[])
                AS u (position, subject, error, awaits_build)",
        Consumer::React.name(),
        slice,
        &positions,
        &subjects as &[&str],
        &errors as &[Option<String>],
        &awaits,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Writes what became of a request. One that was replaced meanwhile is not answered: who asked for
/// the later one would never hear of it.
pub(crate) async fn mend(
    connection: &mut PgConnection,
    slice: i16,
    mended: &Mended,
) -> Result<(), Error> {
    let requested = sqlx::query_scalar!(
        "SELECT requested_at FROM tallylight.parked
          WHERE consumer = $1 AND slice = $2 AND position = $3 FOR UPDATE",
        Consumer::React.name(),
        slice,
        mended.requested,
    )
    .fetch_optional(&mut *connection)
    .await?;
    if requested.flatten() != Some(mended.requested_at) {
        return Err(Error::RequestReplaced { slice, position: mended.requested });
    }
    match &mended.next {
        Some(Next::Failed { position, error, awaits_build }) => {
            let failed = (*position, error.as_str(), *awaits_build);
            fail(connection, slice, mended.requested, failed).await?;
        }
        Some(Next::GoesOn { position }) => {
            go_on(connection, slice, mended.requested, *position).await?;
        }
        None => {}
    }
    if let Some(position) = mended.skipped {
        sqlx::query!(
            "UPDATE tallylight.parked SET skipped_at = now()
              WHERE consumer = $1 AND slice = $2 AND position = $3",
            Consumer::React.name(),
            slice,
            position,
        )
        .execute(&mut *connection)
        .await?;
    }
    if !mended.applied.is_empty() {
        sqlx::query!(
            "WITH applied AS (
               DELETE FROM tallylight.parked
                WHERE consumer = $1 AND slice = $2 AND position = ANY ($3)
            RETURNING consumer, slice, position, parked_at)
             INSERT INTO tallylight.parked_past (consumer, slice, position, parked_at)
             SELECT consumer, slice, position, parked_at FROM applied
             ON CONFLICT DO NOTHING",
            Consumer::React.name(),
            slice,
            &mended.applied,
        )
        .execute(connection)
        .await?;
    }
    Ok(())
}

/// Positions of a slice that were not applied at a time, though they are now: they were set aside.
pub(crate) async fn applied_after(
    connection: &mut PgConnection,
    slice: i16,
    at: Timestamp,
) -> Result<Vec<i64>, Error> {
    let positions = sqlx::query_scalar!(
        "SELECT position FROM tallylight.parked_past
          WHERE consumer = $1 AND slice = $2 AND applied_at > $3",
        Consumer::React.name(),
        slice,
        at,
    )
    .fetch_all(connection)
    .await?;
    Ok(positions)
}

/// The request has ended at an event that fails.
async fn fail(
    connection: &mut PgConnection,
    slice: i16,
    requested: i64,
    (position, error, awaits_build): (i64, &str, bool),
) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE tallylight.parked
            SET request = NULL, requested_by = NULL, requested_at = NULL, reason = NULL,
                error = CASE WHEN position = $4 THEN $5 ELSE error END,
                awaits_build = CASE WHEN position = $4 THEN $6 ELSE awaits_build END,
                attempts = attempts + (position = $4)::int
          WHERE consumer = $1 AND slice = $2 AND position IN ($3, $4)",
        Consumer::React.name(),
        slice,
        requested,
        position,
        storable(error),
        awaits_build,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The request goes on with a later event, as a retry.
async fn go_on(
    connection: &mut PgConnection,
    slice: i16,
    requested: i64,
    position: i64,
) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE tallylight.parked n
            SET request = 'retry', requested_by = r.requested_by, requested_at = r.requested_at
           FROM tallylight.parked r
          WHERE r.consumer = $1 AND r.slice = $2 AND r.position = $3
            AND n.consumer = $1 AND n.slice = $2 AND n.position = $4",
        Consumer::React.name(),
        slice,
        requested,
        position,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// A text as PostgreSQL takes it.
fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
