//! Settings of the endpoint. Reads no environment; the binary fills them in.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use domain::ids::{Timestamp, is_source_name};
use sha2::{Digest, Sha256};

use crate::{Cidr, Error};

/// Shortest token that is taken, in characters. 16 random ones of base64url hold 96 bits, far
/// beyond guessing; 43 (256 bits) are what we generate.
const SHORTEST_TOKEN: usize = 16;

/// Tokens per source: the one in use and, during a rotation, its successor; and room for senders
/// that are moved one by one.
pub(crate) const TOKENS_PER_SOURCE: usize = 4;

/// Largest body limit that can be set. Bodies are held in memory and in one database parameter.
const LARGEST_BODY_LIMIT: usize = 16 << 20;

/// How the endpoint listens and whom it believes.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen; for whoever serves the routes.
    pub listen: SocketAddr,
    /// Largest body that is stored, in bytes; one more is answered 413.
    pub body_limit: usize,
    /// Longest wait for a request's head; for whoever serves the routes.
    pub header_timeout: Duration,
    /// Longest wait for a whole body; then 408.
    pub body_timeout: Duration,
    /// Most connections at a time; for whoever serves the routes.
    pub max_connections: usize,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Cidr>,
    /// Who may send.
    pub sources: Vec<SourceTokens>,
    /// Who may send batches of events.
    pub batch_tokens: Vec<BatchToken>,
    /// `/readyz` says no while an event waits longer than this for its commit.
    pub max_queue_age: Duration,
    /// The clock that dates arrivals and ends tokens.
    pub clock: fn() -> Timestamp,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            body_limit: 1 << 20,
            header_timeout: Duration::from_secs(5),
            body_timeout: Duration::from_secs(10),
            max_connections: 1024,
            trusted_proxies: Vec::new(),
            sources: Vec::new(),
            batch_tokens: Vec::new(),
            max_queue_age: Duration::from_secs(5),
            clock: || SystemTime::now().into(),
        }
    }
}

impl Config {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// The first setting that is wrong, by name.
    pub fn check(&self) -> Result<(), Error> {
        if !(1..=LARGEST_BODY_LIMIT).contains(&self.body_limit) {
            return Err(Error::BodyLimit { limit: self.body_limit, largest: LARGEST_BODY_LIMIT });
        }
        let mut names = BTreeSet::new();
        for source in &self.sources {
            let name = &source.source;
            if !is_source_name(name) {
                return Err(Error::SourceName { source_name: name.clone() });
            }
            if !names.insert(name) {
                return Err(Error::SourceTwice { source_name: name.clone() });
            }
            if !(1..=TOKENS_PER_SOURCE).contains(&source.tokens.len()) {
                let count = source.tokens.len();
                return Err(Error::TokenCount { source_name: name.clone(), count });
            }
        }
        Ok(())
    }
}

/// A source and the secrets that its webhook path may hold.
#[derive(Debug, Clone, Default)]
pub struct SourceTokens {
    /// Its name, such as `gcore-main`.
    pub source: String,
    /// One token, or several while senders are being moved from one to the next.
    pub tokens: Vec<PathToken>,
    /// Networks it may send from; empty: from anywhere. Narrows only: the token authenticates.
    pub networks: Vec<Cidr>,
}

/// A bearer token for batches of events.
#[derive(Debug, Clone)]
pub struct BatchToken {
    /// Its name; stands in the log beside each event.
    pub name: String,
    /// The secret, and until when it is taken.
    pub token: PathToken,
    /// For which sources it may tell events: the first part of their subjects.
    pub sources: BTreeSet<String>,
}

/// A secret path segment, or a bearer token, as its digest.
#[derive(Clone)]
pub struct PathToken {
    /// Its name in numbers and logs; not secret.
    pub name: String,
    /// SHA-256 of the secret's text. No salt: the secret is random and long.
    pub sha256: [u8; 32],
    /// The last moment at which it is taken; none: until it is removed.
    pub not_after: Option<Timestamp>,
}

impl PathToken {
    /// The token whose text is `secret`, without an end.
    ///
    /// # Errors
    /// [`Error::TokenTooShort`] below 16 characters, [`Error::TokenCharacters`] where the text is
    /// not one plain path segment. Neither holds the text.
    pub fn of(secret: &str) -> Result<Self, Error> {
        let length = secret.chars().count();
        if length < SHORTEST_TOKEN {
            return Err(Error::TokenTooShort { length, shortest: SHORTEST_TOKEN });
        }
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~');
        if !secret.bytes().all(is_plain) {
            return Err(Error::TokenCharacters);
        }
        Ok(Self::of_digest(Sha256::digest(secret.as_bytes()).into()))
    }

    /// The token whose text has this SHA-256, without an end and without a name.
    pub fn of_digest(sha256: [u8; 32]) -> Self {
        Self { name: String::new(), sha256, not_after: None }
    }

    /// The same token, called `name`.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The same token, taken up to and including `moment`.
    #[must_use]
    pub fn until(mut self, moment: Timestamp) -> Self {
        self.not_after = Some(moment);
        self
    }
}

/// Without the digest: a weak secret could be found from it.
impl fmt::Debug for PathToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PathToken")
            .field("name", &self.name)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdef";

    fn config(name: &str, tokens: usize) -> Config {
        let tokens = vec![PathToken::of(SECRET).unwrap(); tokens];
        let source = SourceTokens { source: name.to_owned(), tokens, networks: Vec::new() };
        Config { sources: vec![source], ..Config::default() }
    }

    #[test]
    fn tokens_are_long_and_plain() {
        assert!(matches!(PathToken::of(&SECRET[1..]), Err(Error::TokenTooShort { .. })));
        for bad in ["0123456789abcde/", "0123456789abcde%", "0123456789abcdeé", "0123456789abcde "]
        {
            let error = PathToken::of(bad).unwrap_err();
            assert!(matches!(error, Error::TokenCharacters), "{bad}");
            assert!(!error.to_string().contains("0123"));
        }
    }

    #[test]
    fn a_token_does_not_print_its_digest() {
        let token = PathToken::of(SECRET).unwrap();
        assert_eq!(format!("{token:?}"), "PathToken { name: \"\", not_after: None, .. }");
    }

    #[test]
    fn wrong_settings_are_named() {
        assert!(config("gcore-main", 2).check().is_ok());
        assert!(matches!(config("Gcore", 1).check(), Err(Error::SourceName { .. })));
        assert!(matches!(config("a", 0).check(), Err(Error::TokenCount { count: 0, .. })));
        assert!(matches!(config("a", 5).check(), Err(Error::TokenCount { count: 5, .. })));
        let mut twice = config("a", 1);
        twice.sources.push(twice.sources[0].clone());
        assert!(matches!(twice.check(), Err(Error::SourceTwice { .. })));
        let unlimited = Config { body_limit: usize::MAX, ..Config::default() };
        assert!(matches!(unlimited.check(), Err(Error::BodyLimit { .. })));
    }
}
