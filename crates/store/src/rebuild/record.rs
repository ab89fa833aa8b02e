//! What the database remembers of a rebuild: its state and its finished slices, so that whoever
//! runs it next goes on from there. One run at a time works on it, fenced by its id.

use domain::ids::Timestamp;
use sha2::{Digest as _, Sha256};
use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Postgres, Transaction};
use uuid::Uuid;

use super::generation::Progress;
use crate::{Error, Store, hex};

/// The lock of the process that rebuilds.
const REBUILD_LOCK: i64 = 0x7461_6c6c_796c_6968;

/// How far a rebuild is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RebuildState {
    /// It was asked for.
    Created,
    /// The new generation's tables exist; slices are folded in memory.
    Folding,
    /// Slices are folded and written, one after the other.
    Loading,
    /// All slices are written; keys and indexes are made.
    Indexing,
    /// What was applied live meanwhile is applied to the new generation too.
    CatchingUp,
    /// It may be swapped in.
    Ready,
    /// It is the live generation.
    Live,
    /// It was given up.
    Aborted,
    /// It was live, and the generation before it is again.
    RolledBack,
}

impl RebuildState {
    const ALL: [Self; 9] = [
        Self::Created,
        Self::Folding,
        Self::Loading,
        Self::Indexing,
        Self::CatchingUp,
        Self::Ready,
        Self::Live,
        Self::Aborted,
        Self::RolledBack,
    ];

    /// Its name, as stored.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Folding => "folding",
            Self::Loading => "loading",
            Self::Indexing => "indexing",
            Self::CatchingUp => "catching_up",
            Self::Ready => "ready",
            Self::Live => "live",
            Self::Aborted => "aborted",
            Self::RolledBack => "rolled_back",
        }
    }

    /// Reads a stored name, which a check of the table has passed.
    fn read(name: &str) -> Self {
        Self::ALL.into_iter().find(|state| state.name() == name).unwrap_or(Self::Aborted)
    }

    /// Whether it goes on from here.
    pub fn is_open(self) -> bool {
        self < Self::Live
    }
}

/// A rebuild as the database remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RebuildStatus {
    /// Its id.
    pub id: Uuid,
    /// How far it is.
    pub state: RebuildState,
    /// When it began.
    pub began_at: Timestamp,
    /// When it came to this state.
    pub state_at: Timestamp,
    /// Slices that are written.
    pub slices: i64,
    /// Events folded to them.
    pub events: i64,
    /// Subjects that have a state in them.
    pub subjects: i64,
}

/// The right to work on a rebuild, held by one run of one process.
pub(crate) struct Run {
    pub(crate) id: Uuid,
    runner: Uuid,
    /// Holds the lock: it ends with this connection, however the process ends.
    _turn: PgConnection,
}

/// What a transaction of a rebuild may take its time for.
const PATIENT: &str =
    "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0";

impl Run {
    /// Takes up the open rebuild, or begins one.
    ///
    /// # Errors
    /// [`Error::RebuildRuns`], [`Error::RebuildShape`].
    pub(crate) async fn begin(store: &Store) -> Result<(Self, RebuildState), Error> {
        let turn = turn(store).await?;
        let runner = Uuid::now_v7();
        let mut tx = store.pool.begin().await?;
        let shape = shape(&mut tx).await?;
        let open = sqlx::query!(
            "SELECT id, state, shape FROM tallylight.rebuild
              WHERE state NOT IN ('live', 'aborted', 'rolled_back') FOR UPDATE"
        )
        .fetch_optional(&mut *tx)
        .await?;
        let (id, state) = match open {
            Some(open) if open.shape == shape => {
                sqlx::query!(
                    "UPDATE tallylight.rebuild SET runner = $2 WHERE id = $1",
                    open.id,
                    runner
                )
                .execute(&mut *tx)
                .await?;
                (open.id, RebuildState::read(&open.state))
            }
            Some(open) => return Err(Error::RebuildShape { id: open.id }),
            None => {
                let id = Uuid::now_v7();
                sqlx::query!(
                    "INSERT INTO tallylight.rebuild (id, state, shape, runner)
                     VALUES ($1, 'created', $2, $3)",
                    id,
                    shape,
                    runner,
                )
                .execute(&mut *tx)
                .await?;
                (id, RebuildState::Created)
            }
        };
        tx.commit().await?;
        Ok((Self { id, runner, _turn: turn }, state))
    }

    /// Takes up the last rebuild, which is live, to undo it.
    pub(crate) async fn resume_live(store: &Store) -> Result<Self, Error> {
        let turn = turn(store).await?;
        let runner = Uuid::now_v7();
        let mut tx = store.pool.begin().await?;
        let last = sqlx::query!(
            "SELECT id, state FROM tallylight.rebuild
              WHERE state <> 'aborted' ORDER BY began_at DESC, id DESC LIMIT 1 FOR UPDATE"
        )
        .fetch_optional(&mut *tx)
        .await?;
        let refuse = |reason: &str| Err(Error::NoRollback { reason: reason.to_owned() });
        let Some(last) = last else { return refuse("there was none") };
        let id = match RebuildState::read(&last.state) {
            RebuildState::Live => last.id,
            RebuildState::RolledBack => return refuse("that was done already"),
            RebuildState::Created
            | RebuildState::Folding
            | RebuildState::Loading
            | RebuildState::Indexing
            | RebuildState::CatchingUp
            | RebuildState::Ready
            | RebuildState::Aborted => {
                return refuse(
                    "another rebuild is in work; run `tallylight projections abort` first",
                );
            }
        };
        sqlx::query!("UPDATE tallylight.rebuild SET runner = $2 WHERE id = $1", id, runner)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(Self { id, runner, _turn: turn })
    }

    /// Begins a transaction that may take its time, after the fence.
    pub(crate) async fn begin_patient(
        &self,
        store: &Store,
    ) -> Result<Transaction<'static, Postgres>, Error> {
        let mut tx = store.pool.begin().await?;
        // Two settings at once, which a prepared statement cannot hold.
        sqlx::raw_sql(PATIENT).execute(&mut *tx).await?;
        self.fence(&mut tx).await?;
        Ok(tx)
    }

    /// The fence: nobody has aborted the rebuild or taken it over.
    pub(crate) async fn fence(&self, connection: &mut PgConnection) -> Result<(), Error> {
        let mine = sqlx::query!(
            "SELECT id FROM tallylight.rebuild
              WHERE id = $1 AND runner = $2 AND state NOT IN ('aborted', 'rolled_back') FOR SHARE",
            self.id,
            self.runner,
        )
        .fetch_optional(connection)
        .await?;
        mine.map(|_| ()).ok_or(Error::RebuildLost { id: self.id })
    }

    /// Notes a state.
    pub(crate) async fn enter(
        &self,
        connection: &mut PgConnection,
        state: RebuildState,
    ) -> Result<(), Error> {
        let noted = sqlx::query!(
            "UPDATE tallylight.rebuild SET state = $3, state_at = now()
              WHERE id = $1 AND runner = $2 AND state NOT IN ('aborted', 'rolled_back')",
            self.id,
            self.runner,
            state.name(),
        )
        .execute(connection)
        .await?;
        if noted.rows_affected() == 1 { Ok(()) } else { Err(Error::RebuildLost { id: self.id }) }
    }

    /// Notes that a slice is written.
    pub(crate) async fn note_slice(
        &self,
        connection: &mut PgConnection,
        progress: &Progress,
        events: u64,
        subjects: usize,
    ) -> Result<(), Error> {
        sqlx::query!(
            "INSERT INTO tallylight.rebuild_slice AS s
                    (rebuild, slice, position, recorded_at, set_aside, events, subjects)
             VALUES ($1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (rebuild, slice)
             DO UPDATE SET position = excluded.position, recorded_at = excluded.recorded_at,
                           set_aside = excluded.set_aside, events = s.events + excluded.events",
            self.id,
            progress.slice,
            progress.position,
            progress.recorded_at,
            &progress.set_aside,
            i64::try_from(events).unwrap_or(i64::MAX),
            i64::try_from(subjects).unwrap_or(i64::MAX),
        )
        .execute(connection)
        .await?;
        Ok(())
    }

    /// The slices that are written, locked.
    pub(crate) async fn slices(
        &self,
        connection: &mut PgConnection,
    ) -> Result<Vec<Progress>, Error> {
        let rows = sqlx::query_as!(
            Progress,
            "SELECT slice, position, recorded_at, set_aside FROM tallylight.rebuild_slice
              WHERE rebuild = $1 ORDER BY slice FOR UPDATE",
            self.id,
        )
        .fetch_all(connection)
        .await?;
        Ok(rows)
    }

    /// Checks that the tables of `schema` look like the live ones.
    pub(crate) async fn check_shape(
        &self,
        connection: &mut PgConnection,
        schema: &str,
    ) -> Result<(), Error> {
        let same = sqlx::query_scalar!(
            r#"SELECT tallylight.generation_shape($1::text::name)
                    = tallylight.generation_shape('tallylight') AS "same!""#,
            schema,
        )
        .fetch_one(connection)
        .await?;
        if same { Ok(()) } else { Err(Error::RebuildShape { id: self.id }) }
    }
}

/// Takes the lock of the process that rebuilds.
async fn turn(store: &Store) -> Result<PgConnection, Error> {
    // Of its own: the pool may have one connection only.
    let mut turn = PgConnection::connect_with(&store.pool.connect_options()).await?;
    let mine = sqlx::query_scalar!(r#"SELECT pg_try_advisory_lock($1) AS "mine!""#, REBUILD_LOCK)
        .fetch_one(&mut turn)
        .await?;
    if mine { Ok(turn) } else { Err(Error::RebuildRuns) }
}

/// A digest of what a rebuild depends on: the tables' definitions and this build's fold.
async fn shape(connection: &mut PgConnection) -> Result<String, Error> {
    let tables =
        sqlx::query_scalar!(r#"SELECT tallylight.generation_shape('tallylight') AS "shape!""#)
            .fetch_one(connection)
            .await?;
    let mut hash = Sha256::new();
    hash.update(env!("FOLD_DIGEST"));
    hash.update(tables);
    Ok(hex(&hash.finalize()))
}

impl Store {
    /// The last rebuild; `None`: there was none.
    pub async fn rebuild_status(&self) -> Result<Option<RebuildStatus>, Error> {
        let row = sqlx::query!(
            r#"SELECT r.id, r.state, r.began_at, r.state_at, count(s.slice) AS "slices!",
                      coalesce(sum(s.events), 0)::bigint AS "events!",
                      coalesce(sum(s.subjects), 0)::bigint AS "subjects!"
                 FROM tallylight.rebuild r
                 LEFT JOIN tallylight.rebuild_slice s ON s.rebuild = r.id
                GROUP BY r.id ORDER BY r.began_at DESC, r.id DESC LIMIT 1"#
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(|r| RebuildStatus {
            id: r.id,
            state: RebuildState::read(&r.state),
            began_at: r.began_at,
            state_at: r.state_at,
            slices: r.slices,
            events: r.events,
            subjects: r.subjects,
        }))
    }

    /// Gives up the open rebuild and drops what it has made; a run that is at it fails at its next
    /// step. Returns whether there was one.
    pub async fn abort_rebuild(&self) -> Result<bool, Error> {
        let mut tx = self.pool.begin().await?;
        // A run that writes holds its row for as long as it takes.
        sqlx::query!(
            "SELECT set_config('lock_timeout', '60s', true) AS lock,
                    set_config('statement_timeout', '70s', true) AS statement"
        )
        .fetch_one(&mut *tx)
        .await?;
        let aborted = sqlx::query!(
            "UPDATE tallylight.rebuild SET state = 'aborted', state_at = now()
              WHERE state NOT IN ('live', 'aborted', 'rolled_back')"
        )
        .execute(&mut *tx)
        .await?;
        if aborted.rows_affected() == 0 {
            return Ok(false);
        }
        sqlx::query!("SELECT tallylight.drop_generation('tallylight_shadow')")
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(true)
    }
}
