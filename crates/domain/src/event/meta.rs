//! What is known of how an event reached us, as text of JSON: written once, stored as written, and
//! never read by a fold.

use serde::Serialize;
use serde_json::{Map, Value, json};

/// The field that holds the trace, named as the header.
const TRACE: &str = "traceparent";

/// The field of a forwarded event that holds slice and position of its cause.
const CAUSE_AT: &str = "cause_at";

/// The trace that an event is part of, by its meta.
pub(super) fn trace(meta: &Value) -> Option<&str> {
    meta.get(TRACE)?.as_str().filter(|trace| is_traceparent(trace))
}

/// Where the event stands that caused a forwarded one, by its meta.
pub(super) fn cause_at(meta: &Value) -> Option<(i16, i64)> {
    serde_json::from_value(meta.get(CAUSE_AT)?.clone()).ok()
}

/// Whether `value` is a well-formed `traceparent` of version 00 (W3C Trace Context).
pub fn is_traceparent(value: &str) -> bool {
    let is_hex = value.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-'));
    is_hex && value.split('-').map(str::len).eq([2, 32, 16, 2]) && value.starts_with("00")
}

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

    /// Of an event that is part of a trace (W3C Trace Context); `None` where that is no trace.
    pub fn of_trace(traceparent: &str) -> Option<Self> {
        is_traceparent(traceparent).then(|| Self::from(json!({ TRACE: traceparent })))
    }

    /// The trace that an event is part of.
    pub fn trace(&self) -> Option<String> {
        trace(&self.value()).map(str::to_owned)
    }

    /// Of an event that was forwarded: its trace, and where the event stands that caused it.
    pub(crate) fn of_forward(trace: Option<&str>, cause_at: Option<(i16, i64)>) -> Option<Self> {
        let trace = trace.filter(|trace| is_traceparent(trace));
        let mut fields = Map::new();
        fields.extend(trace.map(|trace| (TRACE.to_owned(), json!(trace))));
        fields.extend(cause_at.map(|at| (CAUSE_AT.to_owned(), json!(at))));
        (!fields.is_empty()).then(|| Self::from(Value::Object(fields)))
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
    use super::*;

    #[test]
    fn only_a_trace_is_taken_for_one() {
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let meta = Meta::of_trace(trace).unwrap().value();
        assert_eq!(super::trace(&meta), Some(trace));
        assert_eq!(Meta::of_trace(&trace.to_uppercase()), None);
        assert_eq!(Meta::of_trace("00-1-2-3"), None);
        let forward = Meta::of_forward(Some("odd"), Some((3, 41))).unwrap().value();
        assert_eq!((super::trace(&forward), cause_at(&forward)), (None, Some((3, 41))));
        assert_eq!(Meta::of_forward(None, None), None);
    }

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
