//! The sessions that something is waited for: what sweeps look after.

use domain::ids::{LiveStreamId, Timestamp};

use crate::{Error, Store};

/// A session on its live stream that is not over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwaitedSession {
    /// The slice of its live stream.
    pub slice: i16,
    /// Its live stream.
    pub live_stream: LiveStreamId,
    /// Where it stands.
    pub status: String,
    /// Since when.
    pub since: Timestamp,
}

impl Store {
    /// The sessions of a source that are not over, by their live streams.
    pub async fn awaited_sessions(&self, source: &str) -> Result<Vec<AwaitedSession>, Error> {
        let rows = sqlx::query!(
            "SELECT slice, live_stream_id, status, status_at FROM tallylight.session
              WHERE source = $1 AND status <> 'ended'
              ORDER BY live_stream_id, status_at, status, slice",
            source,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| AwaitedSession {
                slice: row.slice,
                live_stream: LiveStreamId(row.live_stream_id),
                status: row.status,
                since: row.status_at,
            })
            .collect())
    }
}
