//! Personal values: what the log may hold of a person, event type by event type, and how it is
//! written so that it can be forgotten.
//!
//! A value that tells of a person is *sealed* where it enters, with the key of the account that it
//! belongs to, and stays sealed in events, states, rows and jobs: folding and deciding need only
//! carry it. The account itself is named by a *pseudonym*, which says nothing once the key is gone.
//! What the platform echoes of such values is not kept a second time: [`redact`](mod@crate::redact).
//! Not its job: keys and cipher, which are the store's.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::redact::{REDACTED, redact_platform};

mod fields;

pub use fields::{FIELDS, Kept, PersonalField};

/// What is shown in the place of a value whose key is gone.
pub const ERASED: &str = "[erased]";

/// How a sealed value begins.
const MARK: &str = "sealed:";

/// How a pseudonym begins; 32 hexadecimal digits follow.
const PSEUDONYM_MARK: char = '~';

/// An account without its name: made by chance together with its key, and tied to the account by
/// nothing but that key's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pseudonym(pub Uuid);

impl Pseudonym {
    /// Reads one; `None` where the text is an account's own id.
    pub fn read(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(PSEUDONYM_MARK).filter(|digits| digits.len() == 32)?;
        let is_ours = digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        Uuid::try_parse(digits).ok().filter(|_| is_ours).map(Self)
    }
}

impl fmt::Display for Pseudonym {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PSEUDONYM_MARK}{}", self.0.simple())
    }
}

/// Which value of a session is sealed. The names stand in the log for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SealedField {
    /// Its name.
    Name,
    /// What the product gave for itself: [`ClientValues`].
    Client,
}

impl SealedField {
    fn name(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Client => "client",
        }
    }

    fn read(text: &str) -> Option<Self> {
        [Self::Name, Self::Client].into_iter().find(|field| field.name() == text)
    }
}

/// What the product gave for itself, sealed as one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ClientValues {
    /// Its own number for the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_user_id: Option<i64>,
    /// Its own data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
}

/// A sealed value. As text: `sealed:KEY:SESSION:FIELD:BYTES`, ids as 32 hexadecimal digits, bytes in
/// base64url. All but the bytes is bound into the seal, so that it opens in its own place only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The key: the pseudonym of its account.
    pub key: Pseudonym,
    /// The session it belongs to.
    pub session: Uuid,
    /// Which of its values it is.
    pub field: SealedField,
    /// Nonce, ciphertext and tag.
    pub bytes: Vec<u8>,
}

impl Sealed {
    /// What is bound into the seal of a value.
    pub fn place(key: Pseudonym, session: Uuid, field: SealedField) -> String {
        format!("{MARK}{}:{}:{}", key.0.simple(), session.simple(), field.name())
    }

    /// Reads one; `None` where the text is in the open.
    pub fn read(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix(MARK)?.split(':');
        let mut next = || parts.next();
        let key = Pseudonym(Uuid::try_parse(next()?).ok()?);
        let session = Uuid::try_parse(next()?).ok()?;
        let field = SealedField::read(next()?)?;
        let bytes = URL_SAFE_NO_PAD.decode(next()?).ok()?;
        next().is_none().then_some(Self { key, session, field, bytes })
    }
}

impl fmt::Display for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = Self::place(self.key, self.session, self.field);
        write!(f, "{place}:{}", URL_SAFE_NO_PAD.encode(&self.bytes))
    }
}

/// An object of the platform without what it echoes of a person, and without secrets.
#[must_use]
pub fn without_echo(object: Value) -> Value {
    let Ok(bytes) = serde_json::to_vec(&object) else { return Value::Null };
    match redact_platform(&bytes) {
        (_, 0) => object,
        (kept, _) => serde_json::from_slice(&kept).unwrap_or_default(),
    }
}

/// A text of the platform in which what it may quote of `values` is replaced. Shorter ones than
/// three characters are left: they stand everywhere and tell nothing.
#[must_use]
pub fn without_quotes(mut text: String, values: &[String]) -> String {
    for value in values.iter().filter(|value| value.chars().count() >= 3) {
        if text.contains(value.as_str()) {
            text = text.replace(value.as_str(), &String::from_utf8_lossy(REDACTED));
        }
    }
    text
}

/// The personal fields of an event that hold a value in the open, which no key can forget.
pub fn in_the_open(event_type: &str, payload: &[u8]) -> Vec<String> {
    let Some(fields) = fields::of(event_type).filter(|fields| !fields.is_empty()) else {
        return Vec::new();
    };
    let Ok(body) = serde_json::from_slice::<Value>(payload) else { return Vec::new() };
    let is_open =
        |field: &&PersonalField| field.values(&body).into_iter().any(|value| field.is_open(value));
    fields.iter().filter(is_open).map(|field| field.path.to_owned()).collect()
}

#[cfg(test)]
mod tests;
