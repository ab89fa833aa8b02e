//! What can be wrong with the settings, and why an append was rejected.

use domain::event::NewEvent;
use tokio::task::JoinError;

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
    #[error("take source {source_name} twice: give it one entry with up to two tokens")]
    SourceTwice {
        /// The source.
        source_name: String,
    },
    /// None, or more than a rotation needs.
    #[error("take {count} tokens for source {source_name}: give it one, or two while it rotates")]
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
    /// Not an address with a prefix length.
    #[error("read {text:?} as a network: write an address such as 192.0.2.7 or 2001:db8::/32")]
    Network {
        /// What was written.
        text: String,
    },
}

/// Why an append was rejected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Rejected {
    /// This process is ending and takes nothing more.
    #[error("take an event while draining: send it to another process")]
    Draining,
    /// No commit within the deadline; the event may still be stored later.
    #[error("store the event within its deadline")]
    Unavailable,
    /// The database refuses the event itself; trying again will not help.
    #[error("store an event that the database refuses (SQLSTATE {sqlstate})")]
    Refused {
        /// Why, as PostgreSQL's code: its text could quote the event.
        sqlstate: String,
        /// The event, given back.
        event: Box<NewEvent>,
    },
}

/// Why a webhook is not known to be stored; its text is logged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotKept {
    /// By the lanes.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// A defect of ours.
    #[error("finish a task that has panicked")]
    Panicked(#[from] JoinError),
}
