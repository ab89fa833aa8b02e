//! Why a job was not enqueued, sorted by who can mend it.

use sqlx::error::DatabaseError;
use sqlx::postgres::PgDatabaseError;

/// A job was not enqueued.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The arguments cannot be written as JSON: mend the type.
    #[error("write the arguments of job {kind} as JSON")]
    Args {
        /// The job's kind.
        kind: String,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// Kind, arguments or options are refused: mend the call.
    #[error("enqueue job {kind}: {reason}")]
    Refused {
        /// The job's kind.
        kind: String,
        /// What is wrong, in words for the caller.
        reason: String,
    },
    /// As many jobs of its limit key are live as `limit_waiting` says: enqueue it again later.
    #[error("enqueue job {kind}: {reason}")]
    TooMany {
        /// The job's kind.
        kind: String,
        /// What is full, in words for the caller.
        reason: String,
    },
    /// The role lacks the privilege: let an administrator grant it.
    #[error(
        "enqueue job {kind}: the database role may not; run `GRANT tallylight_producer TO role`"
    )]
    NotAllowed {
        /// The job's kind.
        kind: String,
        /// The cause.
        #[source]
        source: sqlx::Error,
    },
    /// The database has no such function: it is the wrong one, or it is not migrated.
    #[error(
        "enqueue job {kind}: this database lacks tallylight's functions; connect to the \
         one that Tallylight uses, and run `tallylight migrate` there if it is older than this client"
    )]
    NotInstalled {
        /// The job's kind.
        kind: String,
        /// The cause.
        #[source]
        source: sqlx::Error,
    },
    /// The database or the connection failed. Within a transaction, begin that anew; without one,
    /// the job may have been stored, and a key makes a repeat harmless.
    #[error("enqueue job {kind}")]
    Database {
        /// The job's kind.
        kind: String,
        /// The cause.
        #[source]
        source: sqlx::Error,
    },
}

impl Error {
    /// Sorts what the database answered.
    pub(crate) fn of(kind: &str, source: sqlx::Error) -> Self {
        let kind = kind.to_owned();
        let Some(answer) = source.as_database_error() else {
            return Self::Database { kind, source };
        };
        let code = answer.code().unwrap_or_default().into_owned();
        match code.as_str() {
            "TL030" => Self::TooMany { kind, reason: words(answer) },
            "42501" => Self::NotAllowed { kind, source },
            // Undefined schema, function, table.
            "3F000" | "42883" | "42P01" => Self::NotInstalled { kind, source },
            // The function's refusals, and values that PostgreSQL cannot hold.
            refused if refused.starts_with("22") => Self::Refused { kind, reason: words(answer) },
            _ => Self::Database { kind, source },
        }
    }
}

/// What the database says, with the detail that it may add.
fn words(answer: &dyn DatabaseError) -> String {
    let detail = answer.try_downcast_ref::<PgDatabaseError>().and_then(PgDatabaseError::detail);
    let message = answer.message();
    detail.map_or_else(|| message.to_owned(), |detail| format!("{message}: {detail}"))
}
