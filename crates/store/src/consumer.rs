//! Leases: which process works on which slice, for which consumer.
//!
//! A lease ends by the database's clock; safety never depends on it. What protects the tables is
//! the *epoch*, raised by every claim and checked first in every transaction of an owner.

use std::collections::HashSet;
use std::time::Duration;

use domain::ids::Timestamp;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{Error, Store};

/// A consumer of slices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Consumer {
    /// Reads the log, folds it, decides.
    React,
    /// Runs jobs; a lease only, reads no log.
    Jobs,
}

impl Consumer {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::React, Self::Jobs];

    /// Its name in `checkpoint`.
    pub fn name(self) -> &'static str {
        match self {
            Self::React => "react",
            Self::Jobs => "jobs",
        }
    }
}

/// A lease on a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The slice.
    pub slice: i16,
    /// The fence.
    pub epoch: i64,
    /// The last applied position.
    pub position: i64,
    /// When that event was recorded.
    pub recorded_at: Timestamp,
}

impl Store {
    /// Tells that `process` lives, and returns all that were seen within `ttl`, in order of id.
    pub async fn heartbeat(
        &self,
        process: Uuid,
        host: &str,
        version: &str,
        ttl: Duration,
    ) -> Result<Vec<Uuid>, Error> {
        sqlx::query!(
            "INSERT INTO tallylight.process (id, host, version) VALUES ($1, $2, $3)
             ON CONFLICT (id) DO UPDATE SET seen_at = now()",
            process,
            host,
            version,
        )
        .execute(&self.lifeline)
        .await?;
        let rows = sqlx::query_scalar!(
            "SELECT id FROM tallylight.process
              WHERE seen_at > now() - $1::bigint * interval '1 microsecond' ORDER BY id",
            micros(ttl),
        )
        .fetch_all(&self.lifeline)
        .await?;
        Ok(rows)
    }

    /// Takes `process` off the list, so that its slices are shared at once; forgets those that
    /// have not been seen for a day.
    pub async fn leave(&self, process: Uuid) -> Result<(), Error> {
        sqlx::query!(
            "DELETE FROM tallylight.process WHERE id = $1 OR seen_at < now() - interval '1 day'",
            process,
        )
        .execute(&self.lifeline)
        .await?;
        Ok(())
    }

    /// Claims a slice that nobody holds. `None`: somebody does. Who ran jobs under which epoch is
    /// noted beside, since a process that dies takes its own row along.
    pub async fn claim(
        &self,
        consumer: Consumer,
        slice: i16,
        process: Uuid,
        ttl: Duration,
    ) -> Result<Option<Lease>, Error> {
        let row = sqlx::query!(
            "WITH claimed AS (
               UPDATE tallylight.checkpoint
                  SET owner = $3, epoch = epoch + 1,
                      lease_until = now() + $4::bigint * interval '1 microsecond'
                WHERE consumer = $1 AND slice = $2 AND (owner IS NULL OR lease_until < now())
            RETURNING slice, epoch, position, recorded_at),
             noted AS (
               INSERT INTO tallylight.job_holder (slice, epoch, process, host, version)
               SELECT c.slice, c.epoch, $3, p.host, p.version
                 FROM claimed c LEFT JOIN tallylight.process p ON p.id = $3
                WHERE $1 = 'jobs'
               ON CONFLICT DO NOTHING)
             SELECT epoch, position, recorded_at FROM claimed",
            consumer.name(),
            slice,
            process,
            micros(ttl),
        )
        .fetch_optional(&self.lifeline)
        .await?;
        Ok(row.map(|r| Lease {
            slice,
            epoch: r.epoch,
            position: r.position,
            recorded_at: r.recorded_at,
        }))
    }

    /// The lease as the table has it: how far its holder has come. `None`: it has passed on. It
    /// waits for a transaction of the holder that is still being committed.
    pub async fn lease(
        &self,
        consumer: Consumer,
        slice: i16,
        epoch: i64,
    ) -> Result<Option<Lease>, Error> {
        let row = sqlx::query!(
            "SELECT position, recorded_at FROM tallylight.checkpoint
              WHERE consumer = $1 AND slice = $2 AND epoch = $3 FOR SHARE",
            consumer.name(),
            slice,
            epoch,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(|r| Lease { slice, epoch, position: r.position, recorded_at: r.recorded_at }))
    }

    /// Renews leases and returns the slices that are still held at these epochs.
    ///
    /// A transaction that keeps one checkpoint locked delays that one alone: the others are
    /// renewed first. One that stays locked counts as held; the epoch protects the tables.
    pub async fn renew(
        &self,
        consumer: Consumer,
        held: &[(i16, i64)],
        ttl: Duration,
    ) -> Result<Vec<i16>, Error> {
        let mut renewed = match self.renew_unlocked(consumer, held, ttl).await {
            // Citus skips no locks over several nodes.
            Err(error) if error.is_unsupported() => Vec::new(),
            renewed => renewed?,
        };
        let done: HashSet<i16> = renewed.iter().copied().collect();
        for (slice, epoch) in held.iter().filter(|(slice, _)| !done.contains(slice)) {
            if self.renew_one(consumer, *slice, *epoch, ttl).await? {
                renewed.push(*slice);
            }
        }
        Ok(renewed)
    }

    /// Renews those leases whose checkpoint nobody locks.
    async fn renew_unlocked(
        &self,
        consumer: Consumer,
        held: &[(i16, i64)],
        ttl: Duration,
    ) -> Result<Vec<i16>, Error> {
        let (slices, epochs): (Vec<i16>, Vec<i64>) = held.iter().copied().unzip();
        let renewed = sqlx::query_scalar!(
            "WITH free AS (
               SELECT c.slice FROM tallylight.checkpoint c
                 JOIN unnest($2::smallint[], $3::bigint[]) AS held (slice, epoch)
                   ON c.slice = held.slice AND c.epoch = held.epoch
                WHERE c.consumer = $1 AND c.owner IS NOT NULL
                  FOR NO KEY UPDATE OF c SKIP LOCKED)
             UPDATE tallylight.checkpoint c
                SET lease_until = now() + $4::bigint * interval '1 microsecond'
               FROM free WHERE c.consumer = $1 AND c.slice = free.slice
          RETURNING c.slice",
            consumer.name(),
            &slices,
            &epochs,
            micros(ttl),
        )
        .fetch_all(&self.lifeline)
        .await?;
        Ok(renewed)
    }

    /// Renews one lease, waiting for whoever has its checkpoint locked.
    async fn renew_one(
        &self,
        consumer: Consumer,
        slice: i16,
        epoch: i64,
        ttl: Duration,
    ) -> Result<bool, Error> {
        let renewed = sqlx::query!(
            "UPDATE tallylight.checkpoint
                SET lease_until = now() + $4::bigint * interval '1 microsecond'
              WHERE consumer = $1 AND slice = $2 AND epoch = $3 AND owner IS NOT NULL",
            consumer.name(),
            slice,
            epoch,
            micros(ttl),
        )
        .execute(&self.lifeline)
        .await
        .map_err(Error::from);
        match renewed {
            Ok(renewed) => Ok(renewed.rows_affected() == 1),
            Err(error) if error.is_lock_timeout() => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Gives a slice back, so that another process can claim it at once.
    pub async fn release(&self, consumer: Consumer, slice: i16, epoch: i64) -> Result<(), Error> {
        sqlx::query!(
            "UPDATE tallylight.checkpoint SET owner = NULL, lease_until = 'epoch'
              WHERE consumer = $1 AND slice = $2 AND epoch = $3",
            consumer.name(),
            slice,
            epoch,
        )
        .execute(&self.lifeline)
        .await?;
        Ok(())
    }
}

/// The fence of a transaction that does not advance: the row is locked against a takeover until
/// the end of the transaction. `FOR KEY SHARE` would let a takeover pass.
pub(crate) async fn fence(
    connection: &mut PgConnection,
    consumer: Consumer,
    slice: i16,
    epoch: i64,
) -> Result<(), Error> {
    let held = sqlx::query!(
        "SELECT epoch FROM tallylight.checkpoint
          WHERE consumer = $1 AND slice = $2 AND epoch = $3 FOR SHARE",
        consumer.name(),
        slice,
        epoch,
    )
    .fetch_optional(connection)
    .await?;
    held.map(|_| ()).ok_or(Error::Fenced { slice })
}

/// The fence of a transaction over several slices, in their order. Returns the leases that have
/// passed on; the others are locked against a takeover.
pub(crate) async fn fence_all(
    connection: &mut PgConnection,
    consumer: Consumer,
    leases: &[(i16, i64)],
) -> Result<Vec<(i16, i64)>, Error> {
    let (slices, epochs): (Vec<i16>, Vec<i64>) = leases.iter().copied().unzip();
    let rows = sqlx::query!(
        "SELECT c.slice, c.epoch FROM tallylight.checkpoint c
           JOIN unnest($2::smallint[], $3::bigint[]) AS held (slice, epoch)
             ON c.slice = held.slice AND c.epoch = held.epoch
          WHERE c.consumer = $1 AND c.slice = ANY ($2)
          ORDER BY c.slice FOR SHARE OF c",
        consumer.name(),
        &slices,
        &epochs,
    )
    .fetch_all(connection)
    .await?;
    let held: HashSet<(i16, i64)> = rows.into_iter().map(|r| (r.slice, r.epoch)).collect();
    Ok(leases.iter().filter(|lease| !held.contains(lease)).copied().collect())
}

/// Longest time from now that is told to PostgreSQL: a hundred years, well inside its calendar.
const MAX_DELAY: Duration = Duration::from_hours(100 * 365 * 24);

/// A duration as PostgreSQL's microseconds.
pub(crate) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.min(MAX_DELAY).as_micros()).unwrap_or(i64::MAX)
}
