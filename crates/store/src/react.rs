//! The transaction of reactions: fence and advance, states and rows, jobs, events last.
//!
//! All of it or nothing: so each event has its effect on our tables exactly once. Small reactions
//! of several slices share a transaction, since a commit and its calls are most of what they cost.
//! The heads of the slices are locked by the append, for which everybody else who appends waits:
//! after it comes nothing but the commit.

use std::collections::{HashMap, HashSet};
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
use crate::together::append_within;
use crate::{Error, Store, jobs, projection};

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

/// A reaction, and the lease it is made under.
#[derive(Debug, Clone, Copy)]
pub struct Reacting<'a> {
    /// The lease.
    pub lease: &'a Lease,
    /// The reaction.
    pub reaction: &'a Reaction,
}

impl Reacting<'_> {
    fn slice(&self) -> i16 {
        self.lease.slice
    }
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
        let mut done = self.commit_all(&[Reacting { lease, reaction }], ttl).await?;
        done.pop().flatten().ok_or(Error::Fenced { slice })
    }

    /// As [`commit_reaction`](Self::commit_reaction), for reactions of several slices in one
    /// transaction. Give the slices in ascending order, each once. `None` for each whose lease has
    /// passed on: nothing of it happened.
    ///
    /// # Errors
    /// [`Error::Data`] where the database refuses a value of any of them: nothing happened.
    /// [`Error::OneByOne`] where it takes one slice at a time.
    pub async fn commit_reactions(
        &self,
        all: &[Reacting<'_>],
        ttl: Duration,
    ) -> Result<Vec<Option<Committed>>, Error> {
        self.together(all.len(), self.commit_all(all, ttl)).await
    }

    async fn commit_all(
        &self,
        all: &[Reacting<'_>],
        ttl: Duration,
    ) -> Result<Vec<Option<Committed>>, Error> {
        for one in all {
            self.check_slice(one.slice(), &one.reaction.events)?;
        }
        let mut tx = self.begin_by_key().await?;
        let held = advance(&mut tx, all, ttl).await?;
        let own: Vec<&Reacting<'_>> =
            all.iter().filter(|one| held.contains_key(&one.slice())).collect();
        write(&mut tx, &own).await?;
        let mut woken = HashMap::new();
        for one in own.iter().filter(|one| held[&one.slice()]) {
            let Lease { slice, position, recorded_at, .. } = *one.lease;
            let to = one.reaction.to;
            let jobs = relay::wake_waiting(&mut tx, slice, position, recorded_at, to).await?;
            woken.insert(slice, jobs);
        }
        for one in own.iter().filter(|one| !one.reaction.cancels.is_empty()) {
            jobs::mark_cancelled(&mut tx, one.slice(), &one.reaction.cancels).await?;
        }
        let inserted = enqueue(&mut tx, &own).await?;
        let told: Vec<(i16, Vec<&NewEvent>)> =
            own.iter().map(|one| (one.slice(), one.reaction.events.iter().collect())).collect();
        let appended: HashMap<i16, usize> =
            append_within(&mut tx, &told).await?.into_iter().collect();
        tx.commit().await?;
        let of = |jobs: &HashMap<i16, u64>, slice| jobs.get(&slice).copied().unwrap_or_default();
        let committed = |one: &Reacting<'_>| {
            let (slice, Reaction { to, recorded_at, .. }) = (one.slice(), one.reaction);
            held.contains_key(&slice).then(|| Committed {
                lease: Lease { position: *to, recorded_at: *recorded_at, ..*one.lease },
                jobs: of(&inserted, slice) + of(&woken, slice),
                events: appended.get(&slice).copied().unwrap_or_default(),
            })
        };
        Ok(all.iter().map(committed).collect())
    }
}

/// The fence: epoch and old position must be those of the lease. Returns the slices where they are,
/// each with whether somebody may wait for events of it.
async fn advance(
    connection: &mut PgConnection,
    all: &[Reacting<'_>],
    ttl: Duration,
) -> Result<HashMap<i16, bool>, Error> {
    let column = |value: fn(&Reacting<'_>) -> i64| all.iter().map(value).collect::<Vec<i64>>();
    let slices: Vec<i16> = all.iter().map(Reacting::slice).collect();
    let times: Vec<Timestamp> = all.iter().map(|one| one.reaction.recorded_at).collect();
    let advanced = sqlx::query!(
        r#"UPDATE tallylight.checkpoint c
              SET position = r.reached, recorded_at = r.recorded_at,
                  lease_until = now() + $7::bigint * interval '1 microsecond'
             FROM unnest($2::smallint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::timestamptz[])
                  AS r (slice, epoch, position, reached, recorded_at)
            WHERE c.consumer = $1 AND c.slice = ANY ($2) AND c.slice = r.slice
              AND c.epoch = r.epoch AND c.position = r.position
        RETURNING c.slice, c.has_waits"#,
        Consumer::React.name(),
        &slices,
        &column(|one| one.lease.epoch),
        &column(|one| one.lease.position),
        &column(|one| one.reaction.to),
        &times,
        micros(ttl),
    )
    .fetch_all(connection)
    .await?;
    Ok(advanced.into_iter().map(|row| (row.slice, row.has_waits)).collect())
}

/// Writes states and rows, and what is set aside or was before.
async fn write(connection: &mut PgConnection, own: &[&Reacting<'_>]) -> Result<(), Error> {
    let states = own.iter().flat_map(|one| one.reaction.states.iter().map(|s| (one.slice(), s)));
    projection::upsert_states(connection, &states.collect::<Vec<_>>()).await?;
    let rows = own.iter().flat_map(|one| one.reaction.rows.iter().map(|row| (one.slice(), row)));
    projection::upsert_rows(connection, &rows.collect::<Vec<_>>()).await?;
    for one in own {
        parked::park(connection, one.slice(), &one.reaction.parked).await?;
        if let Some(mended) = &one.reaction.mended {
            parked::mend(connection, one.slice(), mended).await?;
        }
    }
    Ok(())
}

/// Inserts the jobs that were not inserted before, exactly under the fence: only the holder of the
/// slice claims their keys, by the append of the events that carry them. Returns how many of each
/// slice.
async fn enqueue(
    connection: &mut PgConnection,
    own: &[&Reacting<'_>],
) -> Result<HashMap<i16, u64>, Error> {
    let mut jobs: Vec<(i16, &NewJob)> =
        own.iter().flat_map(|one| one.reaction.jobs.iter().map(|job| (one.slice(), job))).collect();
    let keys = jobs.iter().filter_map(|(slice, job)| Some((*slice, job.once_for?)));
    let claimed = claimed_keys(connection, keys.unzip()).await?;
    jobs.retain(|(slice, job)| job.once_for.is_none_or(|key| !claimed.contains(&(*slice, key))));
    let mut inserted: HashMap<i16, u64> = HashMap::new();
    for slice in jobs::insert(connection, &jobs).await? {
        *inserted.entry(slice).or_default() += 1;
    }
    Ok(inserted)
}

/// Which keys, each of its slice, were claimed before: the jobs that are enqueued once for them were,
/// and are perhaps done.
async fn claimed_keys(
    connection: &mut PgConnection,
    (slices, keys): (Vec<i16>, Vec<Uuid>),
) -> Result<HashSet<(i16, Uuid)>, Error> {
    if keys.is_empty() {
        return Ok(HashSet::new());
    }
    let claimed = sqlx::query!(
        "SELECT k.slice, k.key FROM tallylight.event_key k
           JOIN unnest($1::smallint[], $2::uuid[]) AS asked (slice, key)
             ON k.slice = asked.slice AND k.key = asked.key
          WHERE k.slice = ANY ($1)",
        &slices,
        &keys,
    )
    .fetch_all(connection)
    .await?;
    Ok(claimed.into_iter().map(|row| (row.slice, row.key)).collect())
}
