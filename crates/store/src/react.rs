//! The transaction of a reaction: fence and advance, state and rows, jobs, announcements last.
//!
//! All of it or nothing, for one slice: so each event has its effect on our tables exactly once.

use std::collections::HashSet;
use std::time::Duration;

use domain::effect::NewJob;
use domain::event::NewEvent;
use domain::ids::{Subject, Timestamp};
use domain::state::State;
use domain::view::Row;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::consumer::{Consumer, Lease, micros};
use crate::jobs::relay;
use crate::parked::{self, Mended, ParkedEvent};
use crate::{Error, Store, jobs, log, projection};

/// What a batch of events of one slice leads to.
#[derive(Debug, Clone, Default)]
pub struct Reaction {
    /// The last position of the batch.
    pub to: i64,
    /// When that event was recorded.
    pub recorded_at: Timestamp,
    /// The last state of each subject that the batch touched, with its last position.
    pub states: Vec<(Subject, State, i64)>,
    /// Rows of the projections, the last of each, with the position they follow from.
    pub rows: Vec<(Row, i64)>,
    /// Jobs to insert.
    pub jobs: Vec<NewJob>,
    /// Jobs to cancel, if they are live.
    pub cancels: Vec<Uuid>,
    /// Events to append to this slice.
    pub events: Vec<NewEvent>,
    /// Events that could not be applied, or wait behind such a one.
    pub parked: Vec<ParkedEvent>,
    /// What became of events that were set aside before.
    pub mended: Option<Mended>,
}

/// What a reaction did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// The lease, advanced.
    pub lease: Lease,
    /// Jobs inserted.
    pub jobs: u64,
    /// Events appended.
    pub events: usize,
}

impl Store {
    /// Performs a reaction in one transaction and advances the checkpoint, renewing the lease.
    ///
    /// # Errors
    /// [`Error::Fenced`] where the lease has passed on: nothing happened, forget the slice.
    /// [`Error::Data`] where the database refuses a value: nothing happened.
    pub async fn commit_reaction(
        &self,
        lease: &Lease,
        reaction: &Reaction,
        ttl: Duration,
    ) -> Result<Committed, Error> {
        let slice = lease.slice;
        self.check_slice(slice, &reaction.events)?;
        let mut tx = self.pool.begin().await?;
        let has_waits = advance(&mut tx, lease, reaction, ttl).await?;
        projection::upsert_states(&mut tx, slice, &reaction.states).await?;
        projection::upsert_rows(&mut tx, slice, &reaction.rows).await?;
        parked::park(&mut tx, slice, &reaction.parked).await?;
        if let Some(mended) = &reaction.mended {
            parked::mend(&mut tx, slice, mended).await?;
        }
        let claimed = claimed_keys(&mut tx, slice, &reaction.jobs).await?;
        let is_new = |job: &&NewJob| job.once_for.is_none_or(|key| !claimed.contains(&key));
        let new_jobs: Vec<&NewJob> = reaction.jobs.iter().filter(is_new).collect();
        let mut jobs = jobs::insert(&mut tx, slice, &new_jobs).await?;
        if has_waits {
            let Lease { position, recorded_at, .. } = *lease;
            jobs += relay::wake_waiting(&mut tx, slice, position, recorded_at, reaction.to).await?;
        }
        jobs::mark_cancelled(&mut tx, slice, &reaction.cancels).await?;
        let appended = log::append(&mut tx, slice, None, &reaction.events).await?;
        tx.commit().await?;
        let lease = Lease { position: reaction.to, recorded_at: reaction.recorded_at, ..*lease };
        let events = appended.stored(&reaction.events).count();
        Ok(Committed { lease, jobs, events })
    }
}

/// The fence: epoch and old position must be the lease's. Returns whether somebody may wait for
/// events of the slice.
async fn advance(
    connection: &mut PgConnection,
    lease: &Lease,
    reaction: &Reaction,
    ttl: Duration,
) -> Result<bool, Error> {
    let advanced = sqlx::query_scalar!(
        "UPDATE tallylight.checkpoint
            SET position = $5, recorded_at = $6,
                lease_until = now() + $7::bigint * interval '1 microsecond'
          WHERE consumer = $1 AND slice = $2 AND epoch = $3 AND position = $4
      RETURNING has_waits",
        Consumer::React.name(),
        lease.slice,
        lease.epoch,
        lease.position,
        reaction.to,
        reaction.recorded_at,
        micros(ttl),
    )
    .fetch_optional(connection)
    .await?;
    advanced.ok_or(Error::Fenced { slice: lease.slice })
}

/// Which jobs' keys were claimed before: those jobs were enqueued before, and perhaps done. Exact
/// under the fence, since only the holder of the slice claims such keys.
async fn claimed_keys(
    connection: &mut PgConnection,
    slice: i16,
    jobs: &[NewJob],
) -> Result<HashSet<Uuid>, Error> {
    let keys: Vec<Uuid> = jobs.iter().filter_map(|job| job.once_for).collect();
    if keys.is_empty() {
        return Ok(HashSet::new());
    }
    let claimed = sqlx::query_scalar!(
        "SELECT key FROM tallylight.event_key WHERE slice = $1 AND key = ANY ($2)",
        slice,
        &keys,
    )
    .fetch_all(connection)
    .await?;
    Ok(claimed.into_iter().collect())
}
