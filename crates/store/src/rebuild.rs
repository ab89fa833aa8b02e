//! Rebuilding projections from the log: evolve only, no effects.
//!
//! A rebuild makes a new *generation* of the projections' tables beside the live ones, while these
//! are read and written as ever: slices are folded in memory, in parallel, and written by COPY;
//! keys and indexes follow; what was applied meanwhile is applied to it too; then one short
//! transaction swaps the tables. Each step is noted in `tallylight.rebuild`, so an interrupted
//! rebuild is gone on with. The generation before stays for a rollback.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::try_join_all;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::OnceCell;

use crate::{Error, Store, history};

mod copy_binary;
mod fold;
mod generation;
pub(crate) mod lists;
mod record;
mod source;
mod subject;
mod swap;
mod sweep;

pub use record::{RebuildState, RebuildStatus};

pub(crate) use fold::Fold;
pub(crate) use generation::{CopyText, Generation, load, set_aside};
pub(crate) use source::EventRow;

use generation::{Progress, copy_texts};
use record::Run;
use source::{Chunk, Range, read_chunk_from};
use sweep::Swept;

/// Positions that are read at once: some 15 MB of webhooks, a tenth of a second of folding.
const CHUNK: i64 = 20_000;

/// How to rebuild.
#[derive(Debug, Clone)]
pub struct RebuildOptions {
    /// Threads that fold: each takes a core.
    pub parallel: usize,
    /// Stop in this state, to go on later; `None`: swap.
    pub stop_in: Option<RebuildState>,
}

impl Default for RebuildOptions {
    /// As many threads as there are cores, through to the swap.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Self { parallel: cores, stop_in: None }
    }
}

/// What a rebuild did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Events folded.
    pub events: u64,
    /// Subjects that have a state.
    pub subjects: u64,
    /// Where it stopped: [`RebuildState::Live`] unless asked to stop before.
    pub state: Option<RebuildState>,
}

/// How far a rebuild is; shared with whoever shows it.
#[derive(Debug, Default)]
pub struct RebuildProgress {
    events: AtomicU64,
    goal: AtomicU64,
    state: Mutex<Option<RebuildState>>,
}

impl RebuildProgress {
    /// Events folded by this run, and those that are to be.
    pub fn events(&self) -> (u64, u64) {
        (self.events.load(Ordering::Relaxed), self.goal.load(Ordering::Relaxed))
    }

    /// The state it is in; `None`: it has not begun.
    pub fn state(&self) -> Option<RebuildState> {
        *self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn enter(&self, state: RebuildState) {
        *self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(state);
    }
}

impl Store {
    /// Rebuilds all projections and swaps them in, going on with a rebuild that was interrupted.
    /// What is not applied live is not folded, nor what is set aside.
    ///
    /// # Errors
    /// [`Error::RebuildRuns`] where another process is at it, [`Error::RebuildShape`] where the
    /// tables or the fold have changed since it began, [`Error::Hole`] and [`Error::Unfoldable`]
    /// naming the event, [`Error::SwapBlocked`] where the tables stayed in use.
    pub async fn rebuild(
        &self,
        options: &RebuildOptions,
        progress: &RebuildProgress,
    ) -> Result<Rebuilt, Error> {
        let (run, mut state) = Run::begin(self).await?;
        loop {
            progress.enter(state);
            let is_over = state == RebuildState::Live || options.stop_in == Some(state);
            if is_over {
                return self.rebuilt(state).await;
            }
            state = match state {
                RebuildState::Created => self.create(&run).await?,
                RebuildState::Folding | RebuildState::Loading => {
                    self.fold_slices(&run, options, progress).await?
                }
                RebuildState::Indexing => self.index(&run, options.parallel).await?,
                RebuildState::CatchingUp => self.catch_up(&run).await?,
                RebuildState::Ready => self.swap(&run).await?,
                RebuildState::Live | RebuildState::Aborted | RebuildState::RolledBack => {
                    return Err(Error::RebuildLost { id: run.id });
                }
            };
        }
    }

    async fn rebuilt(&self, state: RebuildState) -> Result<Rebuilt, Error> {
        let status = self.rebuild_status().await?;
        let count = |n: i64| u64::try_from(n).unwrap_or_default();
        Ok(Rebuilt {
            events: status.as_ref().map_or(0, |s| count(s.events)),
            subjects: status.as_ref().map_or(0, |s| count(s.subjects)),
            state: Some(state),
        })
    }

    /// Makes the new generation's tables.
    async fn create(&self, run: &Run) -> Result<RebuildState, Error> {
        let mut tx = run.begin_patient(self).await?;
        sqlx::query!("SELECT tallylight.create_shadow()").execute(&mut *tx).await?;
        run.enter(&mut tx, RebuildState::Folding).await?;
        tx.commit().await?;
        Ok(RebuildState::Folding)
    }

    /// Folds and writes all slices that are not written yet.
    async fn fold_slices(
        &self,
        run: &Run,
        options: &RebuildOptions,
        progress: &RebuildProgress,
    ) -> Result<RebuildState, Error> {
        let mut connection = self.pool.acquire().await?;
        let written: Vec<i16> =
            run.slices(&mut connection).await?.into_iter().map(|s| s.slice).collect();
        drop(connection);
        let mut due = Vec::new();
        for slice in self.slices.slices().filter(|slice| !written.contains(slice)) {
            let (goal, _) = self.checkpoint(slice).await?;
            progress.goal.fetch_add(u64::try_from(goal).unwrap_or_default(), Ordering::Relaxed);
            due.push((slice, goal));
        }
        let stop = options.stop_in == Some(RebuildState::Loading);
        if stop {
            // One slice is enough to go on from.
            due.truncate(1);
        }
        let loading = OnceCell::new();
        let write = |swept| self.write_slice(run, &loading, progress, swept);
        if let Some(together) = self.slices_of_a_sweep(due.len()).await? {
            for due in due.chunks(together) {
                let begun = try_join_all(due.iter().map(|of| self.begin_slice(*of, progress)));
                let swept = self.sweep(begun.await?, options.parallel, progress).await?;
                let swept = stream::iter(swept).map(Ok);
                swept.try_for_each_concurrent(options.parallel.max(1), write).await?;
            }
        } else {
            let each = async |of| write(self.begin_slice(of, progress).await?).await;
            let due = stream::iter(due).map(Ok);
            due.try_for_each_concurrent(options.parallel.max(1), each).await?;
        }
        if stop {
            return Ok(RebuildState::Loading);
        }
        self.enter(run, RebuildState::Indexing).await
    }

    /// Begins the fold of a slice with what is sealed of it.
    async fn begin_slice(
        &self,
        (slice, goal): (i16, i64),
        progress: &RebuildProgress,
    ) -> Result<Swept, Error> {
        let mut connection = self.pool.acquire().await?;
        let set_aside = set_aside(&mut connection, slice, goal).await?;
        let sealed = history::sealed_to(&mut connection, slice).await?;
        drop(connection);
        let fold = Fold::new(slice, Default::default(), &set_aside);
        let fold = self.fold_to(fold, slice, goal.min(sealed), progress).await?;
        Ok(Swept::new(slice, goal, fold, set_aside))
    }

    /// Completes the fold of a slice and writes what it came to, in one transaction.
    async fn write_slice(
        &self,
        run: &Run,
        loading: &OnceCell<()>,
        progress: &RebuildProgress,
        swept: Swept,
    ) -> Result<(), Error> {
        let Swept { slice, goal, fold, set_aside, .. } = swept;
        let fold = self.fold_to(fold, slice, goal, progress).await?;
        let done =
            Progress { slice, position: fold.position, recorded_at: fold.recorded_at, set_aside };
        let events = fold.events;
        let (texts, subjects) = blocking(move || {
            let outcome = fold.finish();
            let subjects = outcome.states.len();
            copy_texts(slice, outcome).map(|texts| (texts, subjects))
        })
        .await??;
        loading
            .get_or_try_init(async || {
                progress.enter(self.enter(run, RebuildState::Loading).await?);
                Ok::<(), Error>(())
            })
            .await?;
        let mut tx = run.begin_patient(self).await?;
        load(&mut tx, Generation::Shadow, texts).await?;
        run.note_slice(&mut tx, &done, events, subjects).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Folds a slice up to `goal` and returns its rows as text for COPY.
    pub(crate) async fn fold_whole(
        &self,
        slice: i16,
        goal: i64,
        set_aside: &[i64],
    ) -> Result<Vec<CopyText>, Error> {
        let fold = Fold::new(slice, Default::default(), set_aside);
        let fold = self.fold_to(fold, slice, goal, &RebuildProgress::default()).await?;
        blocking(move || copy_texts(slice, fold.finish())).await?
    }

    /// Folds a slice up to `goal`, reading the next chunk while this one is folded.
    async fn fold_to(
        &self,
        mut fold: Fold,
        slice: i16,
        goal: i64,
        progress: &RebuildProgress,
    ) -> Result<Fold, Error> {
        let read = |after: i64, since| {
            let range = Range { slice, after, to: goal.min(after + CHUNK), since };
            let store = self.clone();
            tokio::spawn(async move { read_chunk_from(&store, range).await })
        };
        let mut next = (goal > fold.position).then(|| read(fold.position, fold.recorded_at));
        while let Some(reading) = next.take() {
            let chunk: Chunk = reading.await.map_err(|_| Error::Stopped)??;
            if chunk.range.to < goal {
                next = Some(read(chunk.range.to, chunk.until()));
            }
            let before = fold.events;
            fold = blocking(move || fold.apply_chunk(&chunk).map(|()| fold)).await??;
            progress.events.fetch_add(fold.events - before, Ordering::Relaxed);
        }
        Ok(fold)
    }

    /// Gives the new generation its keys and indexes.
    async fn index(&self, run: &Run, parallel: usize) -> Result<RebuildState, Error> {
        let tables =
            sqlx::query_scalar!(r#"SELECT name::text AS "name!" FROM tallylight.projection"#)
                .fetch_all(&self.pool)
                .await?;
        let index = |table: String| async move {
            let mut tx = run.begin_patient(self).await?;
            sqlx::query!("SELECT tallylight.index_shadow($1::text::name)", table)
                .execute(&mut *tx)
                .await?;
            tx.commit().await?;
            Ok::<(), Error>(())
        };
        stream::iter(tables).map(Ok).try_for_each_concurrent(parallel.max(1), index).await?;
        self.enter(run, RebuildState::CatchingUp).await
    }

    /// Notes a state.
    async fn enter(&self, run: &Run, state: RebuildState) -> Result<RebuildState, Error> {
        let mut tx = self.pool.begin().await?;
        run.enter(&mut tx, state).await?;
        tx.commit().await?;
        Ok(state)
    }
}

/// Does what takes processor time beside the runtime.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Stopped)
}
