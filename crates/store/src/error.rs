//! What can go wrong with the database, sorted by what to do about it.

use std::sync::Arc;

use uuid::Uuid;

use crate::history::SegmentFault;

/// A failure of the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address cannot be read.
    #[error(
        "read the database address ({reason}): use postgres://USER:PASSWORD@HOST:PORT/DATABASE"
    )]
    BadUrl {
        /// What is wrong, without the address.
        reason: String,
    },
    /// Nothing answers, or the connection broke: try again.
    #[error("reach the database")]
    Unreachable {
        /// The cause.
        #[source]
        source: sqlx::Error,
    },
    /// The tables are missing.
    #[error("find Tallylight's tables in the database: run `tallylight migrate` first")]
    NotMigrated,
    /// The schema was restored and has no incarnation of its own yet.
    #[error(
        "take the database for this installation's: it was restored; run `tallylight migrate`, \
         which gives its log a new incarnation"
    )]
    Restored,
    /// A restore was interrupted before it dropped what it replaced.
    #[error(
        "restore: the schema tallylight_replaced holds what an earlier restore has replaced; if \
         nothing of it is needed, run DROP SCHEMA tallylight_replaced CASCADE"
    )]
    SetAside,
    /// The database is not the one that was known.
    #[error(
        "use the database: it is of installation {found}, and this process knows {known}. Correct \
         database.url, or start again with an empty spool directory"
    )]
    OtherInstallation {
        /// From an earlier connection.
        known: Uuid,
        /// In the database.
        found: Uuid,
    },
    /// The database's log is not the one that was known, though of the same installation.
    #[error(
        "use the database: its log was restored and is incarnation {found}, and this process \
         began with {known}. Correct database.url, or start this process again if the restored \
         log is the right one"
    )]
    OtherIncarnation {
        /// From an earlier connection.
        known: Uuid,
        /// In the database.
        found: Uuid,
    },
    /// The database changes one slice at a time.
    #[error("the database changes one slice at a time")]
    OneByOne,
    /// Who committed a transaction that several had part in is gone.
    #[error("hear what became of a commit together with other slices")]
    Unheard,
    /// A transaction that several had part in failed.
    #[error("commit together with other slices")]
    Shared {
        /// The cause.
        #[source]
        source: Arc<Error>,
    },
    /// The database has no Citus.
    #[error(
        "distribute: the database has no Citus; on every node add citus to shared_preload_libraries \
         and restart, on the coordinator run CREATE EXTENSION citus and add the nodes by \
         citus_add_node"
    )]
    NoCitus,
    /// Something is in the way of distributing the installation.
    #[error("distribute: {reason}")]
    NotDistributable {
        /// What, and what to do.
        reason: String,
    },
    /// A migration failed.
    #[error("migrate the database")]
    Migrate {
        /// The cause.
        #[source]
        source: sqlx::migrate::MigrateError,
    },
    /// The installation has another number of slices.
    #[error("set {wanted} slices: this installation has {present}, and the number is fixed")]
    SlicesFixed {
        /// What was asked for.
        wanted: i16,
        /// What is there.
        present: i16,
    },
    /// Another process owns the slice now: forget it.
    #[error("work on slice {slice}: its lease has passed to another process")]
    Fenced {
        /// The slice.
        slice: i16,
    },
    /// A position is missing: the log is damaged.
    #[error(
        "read slice {slice}: position {} is missing, and the log goes on to {found}. The slice \
         stands still: restore the missing events from a backup",
        after + 1
    )]
    Hole {
        /// The slice.
        slice: i16,
        /// The last position read.
        after: i64,
        /// The next one found, or the head.
        found: i64,
    },
    /// The data was refused (SQLSTATE classes 22 and 23, and 54: too large or too deep; or an event
    /// in a slice that is not its subject's): trying again will not help.
    #[error("store what is refused")]
    Data {
        /// The cause.
        #[source]
        source: sqlx::Error,
    },
    /// A row does not have the shape it should.
    #[error("read {table} {row}")]
    Inconsistent {
        /// The table.
        table: &'static str,
        /// Which row.
        row: String,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// A caller's argument was refused.
    #[error("{reason}")]
    Invalid {
        /// Why, for the caller.
        reason: String,
    },
    /// A limit key has as many live jobs as it may have: later there may be room.
    #[error("{reason}")]
    TooMany {
        /// Which key, for the caller.
        reason: String,
    },
    /// No such job.
    #[error("find dead job {id}")]
    NoSuchJob {
        /// The job.
        id: Uuid,
    },
    /// An event is not the first of its subject that is set aside and waits.
    #[error("find {subject} set aside at {slice}:{position}: look again, it has moved on")]
    NotParked {
        /// The subject.
        subject: String,
        /// Its slice.
        slice: i16,
        /// The event.
        position: i64,
    },
    /// Somebody asked for something else while a request was performed: nothing happened.
    #[error("answer the request about {slice}:{position}: a later one has taken its place")]
    RequestReplaced {
        /// The slice.
        slice: i16,
        /// The event that carries the request.
        position: i64,
    },
    /// A seal does not open: another key, or damaged.
    #[error("open the sealed secrets of {subject}: is this the key they were sealed with?")]
    Seal {
        /// Whose.
        subject: String,
    },
    /// An account's key does not open: another sealing key, or damaged.
    #[error(
        "open the key of account {pseudonym}: it was sealed with another sealing key than this \
         process has. Give every process the same one"
    )]
    AccountKey {
        /// The account's pseudonym.
        pseudonym: String,
    },
    /// Sessions of an account are on their way or on air.
    #[error(
        "erase the account's data: {} of its sessions are not off air ({}): end them first",
        sessions.len(),
        listed(sessions)
    )]
    SessionsRun {
        /// Which.
        sessions: Vec<Uuid>,
    },
    /// A segment of history cannot be read.
    #[error("read positions {from} to {to} of slice {slice} from segment {file}")]
    Segment {
        /// The slice.
        slice: i16,
        /// The segment's first position.
        from: i64,
        /// Its last position.
        to: i64,
        /// Its file below `history.url`.
        file: String,
        /// The cause.
        #[source]
        source: Box<SegmentFault>,
    },
    /// A segment is needed, and this process does not know where segments are.
    #[error(
        "read positions {from} to {to} of slice {slice}: they are sealed in {file}, and this \
         process has no history.url"
    )]
    NoHistory {
        /// The slice.
        slice: i16,
        /// The segment's first position.
        from: i64,
        /// Its last position.
        to: i64,
        /// Its file below `history.url`.
        file: String,
    },
    /// The place of segments cannot be used.
    #[error("use {file} at history.url")]
    History {
        /// Which file.
        file: String,
        /// The cause.
        #[source]
        source: object_store::Error,
    },
    /// An event cannot be folded: a rebuild stops there, where a live consumer sets aside.
    #[error("fold event {slice}:{position}: {reason}")]
    Unfoldable {
        /// Its slice.
        slice: i16,
        /// Its position.
        position: i64,
        /// Why not.
        reason: String,
    },
    /// The process is stopping.
    #[error("finish: the process is stopping")]
    Stopped,
    /// Another process rebuilds, or takes the swap back.
    #[error(
        "rebuild the projections: another process is at it; `tallylight projections status` shows how far"
    )]
    RebuildRuns,
    /// The rebuild was aborted, or another process goes on with it.
    #[error("go on with rebuild {id}: it was aborted or taken over; begin anew")]
    RebuildLost {
        /// The rebuild.
        id: Uuid,
    },
    /// The tables or the fold are not those with which the rebuild began.
    #[error(
        "go on with rebuild {id}: the projections' tables or this version's fold differ from those it \
         began with; run `tallylight projections abort`, then rebuild anew"
    )]
    RebuildShape {
        /// The rebuild.
        id: Uuid,
    },
    /// The tables were in use whenever the swap was tried, or the database was slow.
    #[error(
        "swap the rebuilt projections in: for {seconds} s the tables were in use by long transactions, \
         or the database was too slow to swap without holding everybody up; what is rebuilt is kept, run `tallylight projections rebuild` again"
    )]
    SwapBlocked {
        /// How long it was tried.
        seconds: u64,
    },
    /// The last rebuild cannot be taken back.
    #[error("take the last rebuild back: {reason}")]
    NoRollback {
        /// Why not.
        reason: String,
    },
    /// Any other failure of the database.
    #[error("use the database")]
    Database {
        /// The cause.
        #[source]
        source: sqlx::Error,
    },
}

impl Error {
    /// Whether the server cannot do such a thing at all.
    pub(crate) fn is_unsupported(&self) -> bool {
        let Self::Database { source } = self else { return false };
        let code = source.as_database_error().and_then(sqlx::error::DatabaseError::code);
        code.is_some_and(|code| code == "0A000")
    }

    /// Whether a lock was waited for in vain.
    pub(crate) fn is_lock_timeout(&self) -> bool {
        self.code().is_some_and(|code| code == "55P03")
    }

    /// Whether a lock was waited for in vain, or would have been for ever.
    pub(crate) fn is_lock_conflict(&self) -> bool {
        self.code().is_some_and(|code| matches!(&*code, "55P03" | "40P01"))
    }

    /// Whether a statement took longer than it may.
    pub(crate) fn is_statement_timeout(&self) -> bool {
        self.code().is_some_and(|code| code == "57014")
    }

    fn code(&self) -> Option<std::borrow::Cow<'_, str>> {
        let Self::Database { source } = self else { return None };
        source.as_database_error().and_then(sqlx::error::DatabaseError::code)
    }

    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Unheard
            | Self::History { .. }
            | Self::RequestReplaced { .. } => true,
            Self::Shared { source } => source.is_transient(),
            // A disk or a network may come back; a file that is missing or damaged will not.
            Self::Segment { source, .. } => matches!(
                source.as_ref(),
                SegmentFault::File(cause) if !matches!(cause, object_store::Error::NotFound { .. })
            ),
            Self::Database { source } => source
                .as_database_error()
                .and_then(sqlx::error::DatabaseError::code)
                .is_some_and(|code| is_transient_code(&code)),
            Self::BadUrl { .. }
            | Self::NotMigrated
            | Self::Restored
            | Self::SetAside
            | Self::OneByOne
            | Self::NoCitus
            | Self::NotDistributable { .. }
            | Self::OtherInstallation { .. }
            | Self::OtherIncarnation { .. }
            | Self::Migrate { .. }
            | Self::SlicesFixed { .. }
            | Self::Fenced { .. }
            | Self::Hole { .. }
            | Self::Data { .. }
            | Self::Inconsistent { .. }
            | Self::Invalid { .. }
            | Self::TooMany { .. }
            | Self::NoHistory { .. }
            | Self::NoSuchJob { .. }
            | Self::NotParked { .. }
            | Self::Seal { .. }
            | Self::AccountKey { .. }
            | Self::SessionsRun { .. }
            | Self::Unfoldable { .. }
            | Self::Stopped
            | Self::RebuildRuns
            | Self::RebuildLost { .. }
            | Self::RebuildShape { .. }
            | Self::SwapBlocked { .. }
            | Self::NoRollback { .. } => false,
        }
    }
}

/// Ids, the first few.
fn listed(ids: &[Uuid]) -> String {
    let first: Vec<String> = ids.iter().take(5).map(Uuid::to_string).collect();
    let more = if ids.len() > first.len() { ", .." } else { "" };
    first.join(", ") + more
}

/// Serialization, resources, operator intervention, lock not available; and a primary that has
/// just become a replica.
fn is_transient_code(code: &str) -> bool {
    matches!(code.get(..2), Some("40" | "53" | "55" | "57")) || matches!(code, "25006" | "25P03")
}

impl From<sqlx::Error> for Error {
    fn from(source: sqlx::Error) -> Self {
        if let Some(error) = source.as_database_error() {
            let code = error.code().unwrap_or_default().into_owned();
            return match code.get(..2).unwrap_or_default() {
                "22" | "23" | "54" => Self::Data { source },
                "TL" if code == "TL030" => Self::TooMany { reason: error.message().to_owned() },
                // Our own functions' refusals, in their words.
                "TL" => Self::Invalid { reason: error.message().to_owned() },
                "08" => Self::Unreachable { source },
                // Undefined table, column, schema or function: the tables of an older version.
                "3F" => Self::NotMigrated,
                "42" if matches!(code.as_str(), "42P01" | "42703" | "42883") => Self::NotMigrated,
                _ => Self::Database { source },
            };
        }
        let is_unreachable = matches!(
            source,
            sqlx::Error::Io(_)
                | sqlx::Error::Tls(_)
                | sqlx::Error::Protocol(_)
                | sqlx::Error::WorkerCrashed
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
        );
        if is_unreachable {
            Self::Unreachable { source }
        } else if matches!(source, sqlx::Error::Encode(_)) {
            Self::Data { source }
        } else {
            Self::Database { source }
        }
    }
}
