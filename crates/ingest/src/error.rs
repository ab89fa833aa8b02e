//! What can be wrong with the settings, and why an append was rejected.

use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

/// A setting that is wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Could be guessed.
    #[error(
        "take a webhook token of {length} characters: use {shortest} or more, best 32 random bytes \
         in base64url"
    )]
    TokenTooShort {
        /// Its length in characters.
        length: usize,
        /// The least.
        shortest: usize,
    },
    /// Would never match a path.
    #[error("take a webhook token that is no plain path segment: use A-Z a-z 0-9 - _ . ~ only")]
    TokenCharacters,
    /// Would not be one part of a subject.
    #[error("take {source_name:?} as a source's name: use 1 to 63 of a-z 0-9 -")]
    SourceName {
        /// The name.
        source_name: String,
    },
    /// Two entries for one source.
    #[error("take source {source_name} twice: give it one entry with all its tokens")]
    SourceTwice {
        /// The source.
        source_name: String,
    },
    /// None, or more than a rotation needs.
    #[error(
        "take {count} tokens for source {source_name}: give it one, and up to 4 while it rotates"
    )]
    TokenCount {
        /// The source.
        source_name: String,
        /// How many.
        count: usize,
    },
    /// Nothing, or more than memory should hold.
    #[error("limit bodies to {limit} bytes: use 1 to {largest}")]
    BodyLimit {
        /// What was set.
        limit: usize,
        /// The most.
        largest: usize,
    },
    /// Another process has the spool.
    #[error(
        "use the spool directory {}: another process has it. Stop that one, or give this one a \
         directory of its own in ingest.spool_dir", dir.display()
    )]
    SpoolTaken {
        /// The directory.
        dir: PathBuf,
    },
    /// The spool holds events of another installation.
    #[error(
        "drain the spool: it holds events of installation {theirs}, and the database is of {ours}. \
         Correct database.url, or give this process another ingest.spool_dir and drain the old one \
         with the database it belongs to"
    )]
    SpoolOfAnother {
        /// Of the database.
        ours: Uuid,
        /// Of the files.
        theirs: Uuid,
    },
    /// The spool cannot be used.
    #[error("{doing} ({})", path.display())]
    Spool {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Not an address with a prefix length.
    #[error("read {text:?} as a network: write an address such as 192.0.2.7 or 2001:db8::/32")]
    Network {
        /// What was written.
        text: String,
    },
}

impl Error {
    /// For `map_err`.
    pub(crate) fn spool(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Spool { doing, path: path.to_owned(), source }
    }
}

/// Why an append was rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejected {
    /// This process is ending and takes nothing more.
    #[error("take an event while draining: send it to another process")]
    Draining,
    /// Neither the database nor the spool took it in time; it may still be stored later.
    #[error("store or spool the event within its deadline")]
    Unavailable,
    /// The database refuses the event itself; trying again will not help.
    #[error("store an event that the database refuses (SQLSTATE {sqlstate})")]
    Refused {
        /// Why, as PostgreSQL's code: its text could quote the event.
        sqlstate: String,
    },
}
