//! History: closed months of the log as segment files outside of the database.
//!
//! A *segment* is a closed range of one slice. The segments of a slice are its beginning, without
//! a hole, and the table has the rest: a reader takes both as one log, or fails by the name of the
//! segment that it could not read. No row is dropped that was not read back from its file and
//! compared. What the files look like: docs/history.md.

use domain::ids::Timestamp;
use sqlx::PgConnection;

use crate::{Error, Store};

mod archive;
mod damage;
mod format;
mod keys;
mod metrics;
mod read;
mod record;
mod sealing;
mod table;
mod verify;

pub(crate) use archive::Archive;
pub use archive::SegmentFault;
pub use damage::Damage;
pub use keys::{KeysRemoved, MIN_KEY_AGE};
pub use metrics::Metrics as HistoryMetrics;
pub(crate) use read::{after, of_subject};
pub use sealing::{Month, Sealed};

/// A closed range of one slice in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The slice.
    pub slice: i16,
    /// Its first position.
    pub from: i64,
    /// Its last position.
    pub to: i64,
    /// When its first event was recorded.
    pub from_at: Timestamp,
    /// When its last event was recorded.
    pub to_at: Timestamp,
    /// Its path below `history.url`.
    pub file: String,
    /// The file's size.
    pub bytes: i64,
    /// SHA-256 of the file.
    pub sha256: Vec<u8>,
    /// When it was noted.
    pub sealed_at: Timestamp,
}

impl Segment {
    /// The number of its events.
    pub fn events(&self) -> u64 {
        self.to.abs_diff(self.from) + 1
    }
}

/// The segments of a slice that end after a position, in order.
async fn segments_after(
    connection: &mut PgConnection,
    slice: i16,
    position: i64,
    limit: i64,
) -> Result<Vec<Segment>, Error> {
    let segments = sqlx::query_as!(
        Segment,
        r#"SELECT slice, from_position AS "from", to_position AS "to", from_at, to_at, file, bytes,
                  sha256, sealed_at
             FROM tallylight.segment WHERE slice = $1 AND to_position > $2
            ORDER BY from_position LIMIT $3"#,
        slice,
        position,
        limit,
    )
    .fetch_all(connection)
    .await?;
    Ok(segments)
}

/// The last sealed position of a slice; 0: nothing of it is sealed.
pub(crate) async fn sealed_to(connection: &mut PgConnection, slice: i16) -> Result<i64, Error> {
    let last = sqlx::query_scalar!(
        r#"SELECT coalesce(max(to_position), 0) AS "last!" FROM tallylight.segment WHERE slice = $1"#,
        slice,
    )
    .fetch_one(connection)
    .await?;
    Ok(last)
}

impl Store {
    /// All segments, by slice and position.
    pub async fn segments(&self) -> Result<Vec<Segment>, Error> {
        let segments = sqlx::query_as!(
            Segment,
            r#"SELECT slice, from_position AS "from", to_position AS "to", from_at, to_at, file, bytes,
                      sha256, sealed_at
                 FROM tallylight.segment ORDER BY slice, from_position"#,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(segments)
    }

    /// Whether this process knows where segments are.
    pub fn has_history(&self) -> bool {
        self.history.is_some()
    }

    /// The numbers of history; register them where metrics are served.
    pub fn history_metrics(&self) -> &HistoryMetrics {
        &self.history_metrics
    }

    /// The place of segments.
    ///
    /// # Errors
    /// [`Error::Invalid`] where none is configured.
    fn archive(&self) -> Result<&Archive, Error> {
        self.history.as_ref().ok_or_else(|| Error::Invalid {
            reason: "history.url is not set: name a directory, such as file:///var/lib/tallylight/history"
                .to_owned(),
        })
    }
}
