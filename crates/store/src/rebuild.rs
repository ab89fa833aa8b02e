//! Rebuilding projections from the log: evolve only, no effects. One slice at a time, in place,
//! while live consumers go on.

use std::collections::{HashMap, HashSet};

use domain::event::{Event, RecordedEvent};
use domain::ids::{Subject, Timestamp};
use domain::state::{State, evolve};
use domain::view::{Row, RowKey, rows};
use futures_util::TryStreamExt as _;
use sha2::{Digest as _, Sha256};
use sqlx::{PgConnection, Postgres, Transaction};

use crate::consumer::Consumer;
use crate::{Error, Store, projection};

mod strangers;

/// Events read at once.
const CHUNK: i64 = 5_000;

/// Rows written at once.
const WRITE_CHUNK: usize = 1_000;

/// What a rebuild did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Events folded.
    pub events: u64,
    /// Subjects that have a state.
    pub subjects: u64,
}

/// A digest of all projections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// SHA-256 over all rows, hexadecimal.
    pub sha256: String,
    /// Number of rows.
    pub rows: i64,
}

/// The fold of a slice so far.
#[derive(Default)]
struct Fold {
    position: i64,
    recorded_at: Timestamp,
    events: u64,
    states: HashMap<Subject, (State, i64)>,
    rows: HashMap<RowKey, (Row, i64)>,
}

impl Fold {
    fn apply(&mut self, stored: &RecordedEvent) {
        let event = Event::decode(stored);
        let before = self.states.remove(&stored.subject).map(|(state, _)| state);
        if let Some(state) = evolve(before, stored, &event) {
            for row in rows(&stored.subject, &state) {
                self.rows.insert(row.key(), (row, stored.position));
            }
            self.states.insert(stored.subject.clone(), (state, stored.position));
        }
        self.skip(stored);
        self.events += 1;
    }

    /// Passes an event that is set aside.
    fn skip(&mut self, stored: &RecordedEvent) {
        self.position = stored.position;
        self.recorded_at = stored.recorded_at;
    }

    fn state(&self, subject: &Subject) -> Option<(Subject, State, i64)> {
        let (state, position) = self.states.get(subject)?;
        Some((subject.clone(), state.clone(), *position))
    }
}

impl Store {
    /// Rebuilds the projections of one slice and returns what was folded. Events that are set
    /// aside stay unfolded, as they are live, and what is right already is not written.
    ///
    /// The slice is written a chunk at a time, each under the checkpoint's lock and up to date
    /// with it: live consumers wait for one chunk, never for the slice. An interrupted rebuild
    /// leaves each row as it was or as it should be; run it again.
    pub async fn rebuild_slice(&self, slice: i16) -> Result<Rebuilt, Error> {
        let mut fold = Fold::default();
        self.catch_up(slice, &mut fold).await?;
        self.stand_still(slice, &mut fold).await?.commit().await?;
        // What is new from here on is written by the consumer itself.
        let subjects: Vec<Subject> = fold.states.keys().cloned().collect();
        for chunk in subjects.chunks(WRITE_CHUNK) {
            let mut tx = self.stand_still(slice, &mut fold).await?;
            let states: Vec<_> = chunk.iter().filter_map(|subject| fold.state(subject)).collect();
            projection::upsert_states(&mut tx, slice, &states).await?;
            tx.commit().await?;
        }
        let keys: Vec<RowKey> = fold.rows.keys().cloned().collect();
        for chunk in keys.chunks(WRITE_CHUNK) {
            let mut tx = self.stand_still(slice, &mut fold).await?;
            let rows: Vec<_> = chunk.iter().filter_map(|key| fold.rows.get(key).cloned()).collect();
            projection::upsert_rows(&mut tx, slice, &rows).await?;
            tx.commit().await?;
        }
        let mut tx = self.stand_still(slice, &mut fold).await?;
        strangers::delete(&mut tx, slice, &fold).await?;
        tx.commit().await?;
        Ok(Rebuilt { events: fold.events, subjects: fold.states.len() as u64 })
    }

    /// Folds what is applied, until less than a chunk is missing.
    async fn catch_up(&self, slice: i16, fold: &mut Fold) -> Result<(), Error> {
        loop {
            let (goal, _) = self.checkpoint(slice).await?;
            if goal - fold.position < CHUNK {
                return Ok(());
            }
            let mut connection = self.pool.acquire().await?;
            self.fold_up_to(&mut connection, slice, goal, fold).await?;
        }
    }

    /// Begins a transaction in which the slice stands still and the fold is level with it: the
    /// consumer's own fence waits for this lock.
    async fn stand_still(
        &self,
        slice: i16,
        fold: &mut Fold,
    ) -> Result<Transaction<'static, Postgres>, Error> {
        let mut tx = self.pool.begin().await?;
        let goal = sqlx::query_scalar!(
            "SELECT position FROM tallylight.checkpoint
              WHERE consumer = $1 AND slice = $2 FOR NO KEY UPDATE",
            Consumer::React.name(),
            slice,
        )
        .fetch_one(&mut *tx)
        .await?;
        self.fold_up_to(&mut tx, slice, goal, fold).await?;
        Ok(tx)
    }

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
        Ok(Digest { sha256: crate::hex(&hash.finalize()), rows })
    }
}

impl Store {
    /// Folds from where `fold` stands up to `goal`, a position that is applied. What is set aside
    /// was set aside in the transaction that passed it, so all of it is known by then.
    async fn fold_up_to(
        &self,
        connection: &mut PgConnection,
        slice: i16,
        goal: i64,
        fold: &mut Fold,
    ) -> Result<(), Error> {
        let parked = parked_between(connection, slice, fold.position, goal).await?;
        while fold.position < goal {
            let limit = CHUNK.min(goal - fold.position);
            let (after, since) = (fold.position, fold.recorded_at);
            let events = self.read_on(connection, slice, after, since, limit).await?;
            if events.is_empty() {
                return Err(Error::Hole { slice, after, found: goal });
            }
            for event in &events {
                if parked.contains(&event.position) { fold.skip(event) } else { fold.apply(event) }
            }
        }
        Ok(())
    }
}

/// Positions that are set aside after `from`, up to `to`.
async fn parked_between(
    connection: &mut PgConnection,
    slice: i16,
    from: i64,
    to: i64,
) -> Result<HashSet<i64>, Error> {
    let positions = sqlx::query_scalar!(
        "SELECT position FROM tallylight.parked
          WHERE consumer = $1 AND slice = $2 AND position > $3 AND position <= $4",
        Consumer::React.name(),
        slice,
        from,
        to,
    )
    .fetch_all(connection)
    .await?;
    Ok(positions.into_iter().collect())
}
