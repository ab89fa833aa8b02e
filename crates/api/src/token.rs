//! Bearer tokens: what they allow, how they are made, what is kept of them.
//!
//! A generated token is `tl_`, 32 random bytes in base62 (43 digits) and a checksum (6 digits), so
//! that scanners find leaked ones and a mistyped one is told apart. Only its SHA-256 is kept:
//! 256 random bits need no slow hash.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use domain::ids::Timestamp;
use sha2::{Digest as _, Sha256};

/// How generated tokens begin.
const PREFIX: &str = "tl_";
/// Digits of 32 bytes: 62^43 is above 2^256.
const SECRET_DIGITS: usize = 43;
/// Digits of the 4 bytes of the checksum: 62^6 is above 2^32.
const CHECKSUM_DIGITS: usize = 6;

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Read sessions.
    SessionsRead,
    /// Start and command sessions.
    SessionsWrite,
    /// Read push addresses and keys.
    IngestRead,
    /// Look at jobs.
    JobsRead,
    /// Enqueue plain jobs, cancel them, let dead ones run again.
    JobsWrite,
    /// Tell that accounts were deleted.
    AccountsWrite,
    /// Erase the data of accounts.
    AccountsErase,
    /// Read live streams.
    LiveStreamsRead,
    /// Read the feed.
    EventsRead,
    /// Look at endpoints.
    EndpointsRead,
    /// Register endpoints, change them, send them messages again.
    EndpointsWrite,
    /// All of it.
    Admin,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 12] = [
        Self::SessionsRead,
        Self::SessionsWrite,
        Self::IngestRead,
        Self::JobsRead,
        Self::JobsWrite,
        Self::AccountsWrite,
        Self::AccountsErase,
        Self::LiveStreamsRead,
        Self::EventsRead,
        Self::EndpointsRead,
        Self::EndpointsWrite,
        Self::Admin,
    ];

    /// Its name in configurations and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::SessionsRead => "sessions:read",
            Self::SessionsWrite => "sessions:write",
            Self::IngestRead => "ingest:read",
            Self::JobsRead => "jobs:read",
            Self::JobsWrite => "jobs:write",
            Self::AccountsWrite => "accounts:write",
            Self::AccountsErase => "accounts:erase",
            Self::LiveStreamsRead => "live-streams:read",
            Self::EventsRead => "events:read",
            Self::EndpointsRead => "endpoints:read",
            Self::EndpointsWrite => "endpoints:write",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that names no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "read scope \"{0}\": known are sessions:read, sessions:write, ingest:read, jobs:read, jobs:write, accounts:write, accounts:erase, live-streams:read, events:read, endpoints:read, endpoints:write, admin"
)]
pub struct UnknownScope(
    /// The text.
    pub String,
);

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        let known = Self::ALL.into_iter().find(|scope| scope.name() == text);
        known.ok_or_else(|| UnknownScope(text.to_owned()))
    }
}

/// A token as it is kept: without its secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Whose it is; stands in the log beside each command.
    pub name: String,
    /// SHA-256 of the secret.
    pub sha256: [u8; 32],
    /// What it allows.
    pub scopes: BTreeSet<Scope>,
    /// From then on it is refused; none: never.
    pub not_after: Option<Timestamp>,
}

impl Token {
    /// The token of `secret`, which does not expire.
    pub fn of(
        name: impl Into<String>,
        secret: &str,
        scopes: impl IntoIterator<Item = Scope>,
    ) -> Self {
        Self {
            name: name.into(),
            sha256: hash(secret),
            scopes: scopes.into_iter().collect(),
            not_after: None,
        }
    }

    /// Whether it allows `scope`.
    pub fn allows(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope) || self.scopes.contains(&Scope::Admin)
    }

    /// Whether it is refused at `now`.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.not_after.is_some_and(|end| end <= now)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("name", &self.name)
            .field("scopes", &self.scopes)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// SHA-256 of a secret.
pub(crate) fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// Makes a token of 32 random bytes. Show it once and keep [`Token::of`] it.
pub fn generate_token(random: [u8; 32]) -> String {
    let token = format!("{PREFIX}{}", base62(&random, SECRET_DIGITS));
    let checksum = checksum(&token);
    token + &checksum
}

/// Whether `text` looks like a generated token and its checksum is right: no typing error.
pub fn is_token(text: &str) -> bool {
    let at = PREFIX.len() + SECRET_DIGITS;
    text.starts_with(PREFIX)
        && text.len() == at + CHECKSUM_DIGITS
        && text.split_at_checked(at).is_some_and(|(token, sum)| checksum(token) == sum)
}

/// The first 4 bytes of SHA-256, in base62.
fn checksum(token: &str) -> String {
    base62(&hash(token)[..4], CHECKSUM_DIGITS)
}

/// Writes a big-endian number in base62 with leading zeros: long division, a digit a round.
fn base62(bytes: &[u8], digits: usize) -> String {
    const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut number: Vec<u32> = bytes.iter().copied().map(u32::from).collect();
    let mut text = vec!['0'; digits];
    for digit in text.iter_mut().rev() {
        let mut rest = 0;
        for byte in &mut number {
            let value = rest * 256 + *byte;
            *byte = value / 62;
            rest = value % 62;
        }
        *digit = char::from(ALPHABET[rest as usize]);
    }
    text.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base62_counts_like_a_number() {
        assert_eq!(base62(&[0], 2), "00");
        assert_eq!(base62(&[61], 2), "0z");
        assert_eq!(base62(&[62], 2), "10");
        assert_eq!(base62(&[1, 0], 3), "048");
        assert_eq!(base62(&[0xff; 4], 6), "4gfFC3");
    }

    #[test]
    fn different_bytes_make_different_tokens() {
        let (lowest, highest) = (generate_token([0; 32]), generate_token([0xff; 32]));
        assert_eq!(lowest.len(), 52);
        assert_eq!(highest.len(), 52);
        assert!(lowest.starts_with("tl_0000") && highest.starts_with("tl_"));
        // The highest number uses all digits and none is lost.
        assert!(!highest.starts_with("tl_0"));
        assert_ne!(lowest, highest);
    }

    #[test]
    fn every_changed_character_is_noticed() {
        let token = generate_token(std::array::from_fn(|n| u8::try_from(n).unwrap()));
        assert!(is_token(&token));
        for at in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'7' { b'8' } else { b'7' };
            assert!(!is_token(&String::from_utf8(bytes).unwrap()), "position {at}");
        }
        for bad in ["", "tl_", &token[1..], &format!("{token}0"), &"é".repeat(26)] {
            assert!(!is_token(bad), "{bad}");
        }
    }

    #[test]
    fn scopes_are_read_as_they_are_written() {
        for scope in Scope::ALL {
            assert_eq!(scope.name().parse(), Ok(scope));
            assert!(
                "sessions:red".parse::<Scope>().unwrap_err().to_string().contains(scope.name())
            );
        }
    }

    #[test]
    fn a_token_shows_nothing_of_its_secret() {
        let token = Token::of("backend", "hunter2", [Scope::JobsWrite]);
        let shown = format!("{token:?}");
        assert!(shown.contains("backend") && shown.contains("JobsWrite"));
        assert!(!shown.contains("sha256") && !shown.contains("hunter2"));
    }

    #[test]
    fn admin_allows_everything_and_another_scope_only_itself() {
        let admin = Token::of("a", "s", [Scope::Admin]);
        let reader = Token::of("r", "s", [Scope::SessionsRead]);
        for scope in Scope::ALL {
            assert!(admin.allows(scope));
            assert_eq!(reader.allows(scope), scope == Scope::SessionsRead);
        }
    }
}
