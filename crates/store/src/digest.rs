//! A digest of all projections: what a rebuild must leave as it was.

use std::fmt::Write as _;

use domain::ids::Timestamp;
use futures_util::TryStreamExt as _;
use sha2::{Digest as _, Sha256};

use crate::consumer::Consumer;
use crate::{Error, Store};

/// A digest of all projections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// SHA-256 over all rows, hexadecimal.
    pub sha256: String,
    /// Number of rows.
    pub rows: i64,
}

impl Store {
    /// How far `react` has come in a slice.
    pub async fn checkpoint(&self, slice: i16) -> Result<(i64, Timestamp), Error> {
        let row = sqlx::query!(
            "SELECT position, recorded_at FROM tallylight.checkpoint
              WHERE consumer = $1 AND slice = $2",
            Consumer::React.name(),
            slice,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok((row.position, row.recorded_at))
    }

    /// A digest of all rows of all projections, in order of their keys: equal before and after a
    /// rebuild. It reads every row, however long that takes.
    pub async fn digest(&self) -> Result<Digest, Error> {
        let mut tx = self.pool.begin().await?;
        sqlx::query!("SELECT set_config('statement_timeout', '0', true)")
            .fetch_one(&mut *tx)
            .await?;
        let mut lines = sqlx::query_scalar!(
            r#"SELECT line AS "line!" FROM (
                 SELECT 1 AS t, slice, subject AS k, to_jsonb(s)::text AS line FROM tallylight.subject_state s
                 UNION ALL SELECT 2, slice, session_id::text, to_jsonb(s)::text FROM tallylight.session_request s
                 UNION ALL SELECT 3, slice, session_id::text, to_jsonb(s)::text FROM tallylight.session s
                 UNION ALL SELECT 4, slice, source || '/' || live_stream_id, to_jsonb(s)::text FROM tallylight.live_stream s
                 UNION ALL SELECT 5, slice, source || '/' || video_id, to_jsonb(s)::text FROM tallylight.video s
                 UNION ALL SELECT 6, slice, source || '/' || account, to_jsonb(s)::text FROM tallylight.account s
               ) AS all_rows ORDER BY t, slice, k COLLATE "C""#
        )
        .fetch(&mut *tx);
        let mut hash = Sha256::new();
        let mut rows = 0;
        while let Some(line) = lines.try_next().await? {
            hash.update(line.as_bytes());
            hash.update(b"\n");
            rows += 1;
        }
        Ok(Digest { sha256: hex(&hash.finalize()), rows })
    }
}

/// Hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string never fails.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
