//! Names of things: platform ids as newtypes, subjects, and ids derived from other ids.
//!
//! A *derived id* is the first 128 bits of SHA-256 over length-prefixed parts, marked as UUID
//! version 8, so that the same fact always gets the same id, in whichever process it is decided.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::personal::Pseudonym;

/// A point in time: UTC, microseconds in the database.
pub type Timestamp = chrono::DateTime<chrono::Utc>;

/// Defines a newtype over the platform's integer ids.
macro_rules! platform_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

platform_id!(
    /// The platform's id of a live stream.
    LiveStreamId
);
platform_id!(
    /// The platform's id of a broadcast.
    BroadcastId
);
platform_id!(
    /// The platform's id of a video.
    VideoId
);

/// Derives an id from a scope and parts. Each part is prefixed by its length, so `("ab", "c")`
/// and `("a", "bc")` differ.
pub fn derived_id(scope: &str, parts: &[&str]) -> Uuid {
    let mut hash = Sha256::new();
    for part in std::iter::once(&scope).chain(parts) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let digest = hash.finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// The id of the session that `idempotency_key` asks for on `source`: one key is one session.
pub fn session_id(source: &str, idempotency_key: &str) -> Uuid {
    derived_id("session", &[source, idempotency_key])
}

/// The id of the `n`th platform call of `subject`. Deciding it twice gives the same id, so it is
/// made once.
pub fn intent_id(subject: &Subject, n: u64) -> Uuid {
    derived_id("intent", &[subject.as_str(), &n.to_string()])
}

impl std::borrow::Borrow<str> for Subject {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// The log's grouping key, `{source}/{kind}/{id}`. Events of one subject are in order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Subject(String);

impl Subject {
    /// Wraps text read from the log.
    pub fn from_stored(text: String) -> Self {
        Self(text)
    }

    /// The subject of a live stream and of the sessions on it.
    pub fn live_stream(source: &str, id: LiveStreamId) -> Self {
        Self(format!("{source}/stream/{id}"))
    }

    /// The subject of a video.
    pub fn video(source: &str, id: VideoId) -> Self {
        Self(format!("{source}/video/{id}"))
    }

    /// The subject of a broadcast.
    pub fn broadcast(source: &str, id: BroadcastId) -> Self {
        Self(format!("{source}/broadcast/{id}"))
    }

    /// The subject of a session's request and of every command to it.
    pub fn request(source: &str, session: Uuid) -> Self {
        Self(format!("{source}/request/{session}"))
    }

    /// The subject of an account of the product, whose live streams lie on `source`.
    pub fn account(source: &str, account: &str) -> Self {
        Self(format!("{source}/account/{account}"))
    }

    /// The subject of a cleanup run on `source`.
    pub fn cleanup(source: &str, run: Uuid) -> Self {
        Self(format!("{source}/cleanup/{run}"))
    }

    /// The subject of another kind of platform object, as a webhook names it.
    pub fn object(source: &str, kind: &str, id: i64) -> Self {
        Self(format!("{source}/{kind}/{id}"))
    }

    /// The subject of the quota of active live streams of `source`: its state is the semaphore.
    pub fn quota(source: &str) -> Self {
        Self(format!("{source}/quota"))
    }

    /// Where webhooks go that name no object.
    pub fn unrecognized(source: &str) -> Self {
        Self(format!("{source}/unrecognized"))
    }

    /// The subject of a plain job that names none: its random id spreads such jobs over the slices.
    pub fn job(id: Uuid) -> Self {
        Self(format!("job/{id}"))
    }

    /// The subject of a schedule, and of its jobs where they name none: they run one at a time.
    pub fn schedule(name: &str) -> Self {
        Self(format!("schedule/{name}"))
    }

    /// The subject of an endpoint.
    pub fn endpoint(endpoint: Uuid) -> Self {
        Self(format!("endpoint/{endpoint}"))
    }

    /// What messages of `about` to an endpoint are in order by.
    pub fn delivery(endpoint: Uuid, about: &Self) -> Self {
        Self(format!("endpoint/{endpoint}/{about}"))
    }

    /// The whole text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Source, kind and id, where the text has three parts.
    pub fn parts(&self) -> Option<(&str, &str, &str)> {
        let mut parts = self.0.splitn(3, '/');
        Some((parts.next()?, parts.next()?, parts.next()?))
    }

    /// Kind and id, as of [`parts`](Self::parts); the one quota of a source has no id.
    pub(crate) fn kind_and_id(&self) -> Option<(&str, &str)> {
        let of_source = |text| self.0.strip_suffix(text).filter(|source| is_source_name(source));
        if of_source("/quota").is_some() {
            return Some(("quota", ""));
        }
        self.parts().map(|(_, kind, id)| (kind, id))
    }

    /// The source, the first part.
    pub fn source(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns whether `name` may be a source: 1 to 63 of `a-z`, `0-9`, `-`.
pub fn is_source_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Returns whether `id` may be an account id: 1 to 200 printable ASCII characters without blank,
/// `/`, `?`, `#` and `%`, so that it is one part of a subject and of a path, and no
/// [pseudonym](crate::personal::Pseudonym).
pub fn is_account_id(id: &str) -> bool {
    (1..=200).contains(&id.len())
        && Pseudonym::read(id).is_none()
        && id.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b'?' | b'#' | b'%'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_is_one_session_per_source() {
        assert_eq!(session_id("a", "k"), session_id("a", "k"));
        assert_ne!(session_id("a", "k"), session_id("b", "k"));
        assert_eq!(session_id("a", "k").get_version_num(), 8);
    }

    #[test]
    fn parts_are_prefixed_by_their_length() {
        assert_ne!(derived_id("s", &["ab", "c"]), derived_id("s", &["a", "bc"]));
        assert_ne!(derived_id("s", &["a"]), derived_id("s", &["a", ""]));
    }

    /// Stored for ever: a change here would make a second session of an old key.
    #[test]
    fn derived_ids_never_change() {
        assert_eq!(
            session_id("gcore-main", "key-1").to_string(),
            "d54f0739-a331-817d-b2cb-4a0db3d8e330"
        );
        assert_eq!(
            Subject::live_stream("gcore-main", LiveStreamId(320_423)).as_str(),
            "gcore-main/stream/320423"
        );
    }

    #[test]
    fn account_ids_are_one_path_segment() {
        assert!(is_account_id("user-17@example.org"));
        for bad in [
            "",
            "a b",
            "a/b",
            "ü",
            "a?b",
            "a#b",
            &"x".repeat(201),
            &Pseudonym(Uuid::nil()).to_string(),
        ] {
            assert!(!is_account_id(bad), "{bad}");
        }
    }
}
