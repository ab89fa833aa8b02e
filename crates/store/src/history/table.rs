//! Rows of the log's table as records, for writing them to segments and comparing them.

use domain::ids::Timestamp;
use sqlx::PgPool;

use super::record::Record;
use crate::Error;

/// Rows read at once: bodies may have a megabyte.
pub(super) const CHUNK: i64 = 500;

/// The rows of a slice after a position that were recorded in `[from_at, until)`, in order.
pub(super) async fn records(
    pool: &PgPool,
    slice: i16,
    after: i64,
    from_at: Timestamp,
    until: Timestamp,
) -> Result<Vec<Record>, Error> {
    let records = sqlx::query_as!(
        Record,
        r#"SELECT position, recorded_at, received_at, event_id, subject, event_type, schema_version,
                  causation_id, correlation_id, meta::text AS meta, payload
             FROM tallylight.event
            WHERE slice = $1 AND position > $2 AND position <= $3
              AND recorded_at >= $4 AND recorded_at < $5
            ORDER BY position"#,
        slice,
        after,
        after.saturating_add(CHUNK),
        from_at,
        until,
    )
    .fetch_all(pool)
    .await?;
    Ok(records)
}

/// The last position of a slice among what was recorded in `[from_at, until)`.
pub(super) async fn last_position(
    pool: &PgPool,
    slice: i16,
    from_at: Timestamp,
    until: Timestamp,
) -> Result<Option<i64>, Error> {
    let last = sqlx::query_scalar!(
        "SELECT max(position) FROM tallylight.event
          WHERE slice = $1 AND recorded_at >= $2 AND recorded_at < $3",
        slice,
        from_at,
        until,
    )
    .fetch_one(pool)
    .await?;
    Ok(last)
}
