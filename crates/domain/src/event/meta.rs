//! What is known of how an event reached us, as text of JSON: written once, stored as written, and
//! never read by a fold.

use serde::Serialize;
use serde_json::Value;

/// An event's transport: content type, headers, what was redacted. Always valid JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta(String);

impl Meta {
    /// Writes `value` as JSON; `None` where it is none, such as a map whose keys are no text.
    pub fn of(value: &impl Serialize) -> Option<Self> {
        serde_json::to_string(value).ok().map(Self)
    }

    /// Takes text that is JSON already; `None` where it is not.
    pub fn read(text: String) -> Option<Self> {
        serde_json::from_str::<serde::de::IgnoredAny>(&text).ok()?;
        Some(Self(text))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As a value.
    pub fn value(&self) -> Value {
        // What `of` and `read` let in is JSON.
        serde_json::from_str(&self.0).unwrap_or_default()
    }
}

impl From<Value> for Meta {
    fn from(value: Value) -> Self {
        Self(value.to_string())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_json_is_taken() {
        assert_eq!(Meta::read("{\"a\":1}".to_owned()).unwrap().value(), json!({"a": 1}));
        for odd in ["", "{", "a", "{\"a\":1} x"] {
            assert_eq!(Meta::read(odd.to_owned()), None, "{odd}");
        }
        let of = Meta::of(&json!({"b": [1, null], "a": "\u{0}"})).unwrap();
        assert_eq!(of, Meta::from(of.value()));
    }
}
