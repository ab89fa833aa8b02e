//! Catching up with what was applied live, the swap, and the way back.
//!
//! The swap is the one transaction that spans slices: it locks all checkpoints of `react`, applies
//! what is missing, renames the tables and raises every epoch. A consumer that folded from rows of
//! the old generation is fenced by that, and reads again.

use std::time::{Duration, Instant};

use rand::RngExt as _;
use sqlx::PgConnection;

use super::generation::{Generation, Progress, follow, set_aside};
use super::record::{RebuildState, Run};
use crate::consumer::Consumer;
use crate::history::Archive;
use crate::{Error, Store};

/// Events that are applied to a generation in one transaction.
const BATCH: i64 = 2_000;

/// Most events that may be missing when the checkpoints are locked: some 20 ms of work.
const SWAP_LAG: i64 = 500;

/// Longest time to go on trying. Each try waits 100 ms for a lock, so nobody waits longer behind us.
const SWAP_LIMIT: Duration = Duration::from_mins(1);

/// Longest time that a try holds the checkpoints: half of what consumers wait for a lock. It takes
/// some 20 ms, unless the database is in trouble.
const MAX_HOLD: Duration = Duration::from_secs(1);

/// What came of a try to swap.
enum Tried {
    Swapped,
    /// Too much was applied meanwhile, or a subject is to be folded anew.
    Behind,
    /// It took longer than consumers may be held up.
    Slow,
}

impl Store {
    /// Applies to the new generation what was applied live since its slices were folded.
    pub(super) async fn catch_up(&self, run: &Run) -> Result<RebuildState, Error> {
        self.follow_live(run, Generation::Shadow).await?;
        self.enter(run, RebuildState::Ready).await
    }

    /// Brings all slices of a generation close to the live ones.
    async fn follow_live(&self, run: &Run, generation: Generation) -> Result<(), Error> {
        let mut lag = i64::MAX;
        while lag > SWAP_LAG {
            lag = 0;
            for slice in self.slices.slices() {
                lag += self.follow_slice(run, generation, slice).await?;
            }
        }
        Ok(())
    }

    /// Applies a batch to a slice; returns what is still missing.
    async fn follow_slice(
        &self,
        run: &Run,
        generation: Generation,
        slice: i16,
    ) -> Result<i64, Error> {
        let (goal, _) = self.checkpoint(slice).await?;
        let mut tx = run.begin_patient(self).await?;
        let slices = run.slices(&mut tx).await?;
        let Some(from) = slices.iter().find(|progress| progress.slice == slice) else {
            return Err(Error::RebuildLost { id: run.id });
        };
        let to = goal.min(from.position + BATCH);
        advance(self.history.as_ref(), &mut tx, run, generation, from, to).await?;
        tx.commit().await?;
        Ok(goal - to)
    }

    /// Swaps the new generation in.
    pub(super) async fn swap(&self, run: &Run) -> Result<RebuildState, Error> {
        self.swap_patiently(run, Generation::Shadow, RebuildState::Live).await?;
        Ok(RebuildState::Live)
    }

    /// Tries to swap until nobody holds the tables for longer than a moment.
    async fn swap_patiently(
        &self,
        run: &Run,
        generation: Generation,
        state: RebuildState,
    ) -> Result<(), Error> {
        let mut begun = Instant::now();
        loop {
            let tried = match self.try_swap(run, generation, state).await {
                Ok(Tried::Behind) => {
                    self.follow_live(run, generation).await.map(|()| Tried::Behind)
                }
                tried => tried,
            };
            match tried {
                Ok(Tried::Swapped) => return Ok(()),
                // However much there was to apply, the swap itself was not in anybody's way.
                Ok(Tried::Behind) => begun = Instant::now(),
                Err(error) if !error.is_lock_conflict() && !error.is_statement_timeout() => {
                    return Err(error);
                }
                Ok(Tried::Slow) | Err(_) if begun.elapsed() > SWAP_LIMIT => {
                    return Err(Error::SwapBlocked { seconds: SWAP_LIMIT.as_secs() });
                }
                Ok(Tried::Slow) | Err(_) => {
                    tracing::debug!("the projections' tables are in use, trying the swap again");
                    let pause = rand::rng().random_range(20..200);
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                }
            }
        }
    }

    /// One try: all or nothing, and nothing where it would hold consumers up.
    async fn try_swap(
        &self,
        run: &Run,
        generation: Generation,
        state: RebuildState,
    ) -> Result<Tried, Error> {
        // The limits of a serving connection, and not those of a rebuild that takes its time.
        let mut tx = self.pool.begin().await?;
        run.fence(&mut tx).await?;
        let statement = format!("{}ms", MAX_HOLD.as_millis());
        sqlx::query!(
            "SELECT set_config('lock_timeout', '100ms', true) AS lock,
                    set_config('statement_timeout', $1, true) AS statement",
            statement,
        )
        .fetch_one(&mut *tx)
        .await?;
        let swap = swap_locked(self.history.as_ref(), &mut tx, run, generation, state);
        let Ok(tried) = tokio::time::timeout(MAX_HOLD, swap).await else {
            return Ok(Tried::Slow);
        };
        let tried = tried?;
        match tried {
            // Not part of the time: what is being committed must not be taken for undone.
            Tried::Swapped => tx.commit().await?,
            Tried::Behind | Tried::Slow => tx.rollback().await?,
        }
        Ok(tried)
    }

    /// Takes the last rebuild back: the generation before it is brought up to date and swapped in.
    ///
    /// # Errors
    /// [`Error::NoRollback`] where there is none to take back, else as [`Store::rebuild`].
    pub async fn roll_back(&self) -> Result<(), Error> {
        let run = Run::resume_live(self).await?;
        let mut connection = self.pool.acquire().await?;
        // A migration since the swap has changed the live tables alone.
        let same = run.check_shape(&mut connection, Generation::Previous.schema()).await;
        drop(connection);
        match same {
            Err(Error::RebuildShape { .. }) => {
                let reason =
                    "the tables' definitions have changed since; rebuild instead".to_owned();
                return Err(Error::NoRollback { reason });
            }
            other => other?,
        }
        self.follow_live(&run, Generation::Previous).await?;
        self.swap_patiently(&run, Generation::Previous, RebuildState::RolledBack).await
    }
}

/// The swap in its transaction, from the locks on.
async fn swap_locked(
    history: Option<&Archive>,
    connection: &mut PgConnection,
    run: &Run,
    generation: Generation,
    state: RebuildState,
) -> Result<Tried, Error> {
    let goals = lock_checkpoints(connection).await?;
    let slices = run.slices(connection).await?;
    if slices.len() != goals.len() {
        return Err(Error::RebuildLost { id: run.id });
    }
    if !is_close(connection, &slices, &goals).await? {
        return Ok(Tried::Behind);
    }
    for (from, goal) in
        slices.iter().zip(&goals).filter(|(from, goal)| from.position < goal.position)
    {
        advance(history, connection, run, generation, from, goal.position).await?;
    }
    run.check_shape(connection, generation.schema()).await?;
    let out = match generation {
        Generation::Previous => Generation::Shadow,
        Generation::Shadow | Generation::Folded => Generation::Previous,
    };
    sqlx::query!(
        "SELECT tallylight.swap_generation($1::text::name, $2::text::name)",
        generation.schema(),
        out.schema(),
    )
    .execute(&mut *connection)
    .await?;
    fence_consumers(connection).await?;
    run.enter(connection, state).await?;
    if state == RebuildState::RolledBack {
        // What was rebuilt was not wanted.
        sqlx::query!("SELECT tallylight.drop_generation('tallylight_shadow')")
            .execute(connection)
            .await?;
    }
    Ok(Tried::Swapped)
}

/// Whether what is missing is little enough to be applied while consumers wait: few events, and no
/// subject that would be folded from its first event.
async fn is_close(
    connection: &mut PgConnection,
    slices: &[Progress],
    goals: &[Goal],
) -> Result<bool, Error> {
    let lag: i64 = goals.iter().map(|g| g.position).sum::<i64>()
        - slices.iter().map(|s| s.position).sum::<i64>();
    if lag > SWAP_LAG {
        return Ok(false);
    }
    for (slice, goal) in slices.iter().zip(goals) {
        let set_aside = set_aside(connection, slice.slice, goal.position).await?;
        if slice.outdated(&set_aside).next().is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A checkpoint of `react`.
struct Goal {
    position: i64,
}

/// Locks all checkpoints of `react`, in order of slices. Consumers wait at their next fence.
async fn lock_checkpoints(connection: &mut PgConnection) -> Result<Vec<Goal>, Error> {
    let goals = sqlx::query_as!(
        Goal,
        "SELECT position FROM tallylight.checkpoint WHERE consumer = $1 ORDER BY slice FOR UPDATE",
        Consumer::React.name(),
    )
    .fetch_all(connection)
    .await?;
    Ok(goals)
}

/// Raises every epoch of `react` and frees its leases, to be claimed anew at once: a batch in work
/// was folded from rows of the generation that goes.
async fn fence_consumers(connection: &mut PgConnection) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE tallylight.checkpoint SET epoch = epoch + 1, owner = NULL, lease_until = 'epoch'
          WHERE consumer = $1",
        Consumer::React.name(),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Brings one slice of a generation up to `to`, and notes it.
async fn advance(
    history: Option<&Archive>,
    connection: &mut PgConnection,
    run: &Run,
    generation: Generation,
    from: &Progress,
    to: i64,
) -> Result<(), Error> {
    let (progress, events) = follow(history, connection, generation, from, to).await?;
    if progress != *from {
        run.note_slice(connection, &progress, events, 0).await?;
    }
    Ok(())
}
