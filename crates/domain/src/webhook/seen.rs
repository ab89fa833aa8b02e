//! Platform objects parsed for what is read of them: fields that nobody reads are checked and
//! skipped, not built. Accepts exactly the bodies that [`Value`] accepts.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Fields of live streams, videos and broadcasts that [`webhook`](super) reads.
const READ: [&str; 23] = [
    "started_at_primary",
    "started_at_backup",
    "finished_at_primary",
    "id",
    "active",
    "live",
    "backup_live",
    "recording",
    "recording_duration",
    "transcoding",
    "client_entity_data",
    "hls_cmaf_url",
    "hls_mpegts_url",
    "dash_url",
    "iframe_url",
    "stream_id",
    "status",
    "name",
    "duration",
    "recording_started_at",
    "converted_videos",
    "error",
    "hls_url",
];

/// What is parsed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Seen {
    /// A webhook's body: its type and its message.
    Body,
    /// A message: objects by kind.
    Message,
    /// An object, or a list of them.
    Object,
    /// A webhook's body, for its type and the ids of its objects alone.
    Route,
    /// Its message.
    RouteMessage,
    /// An object of it.
    RouteObject,
    /// Anything, whole.
    Whole,
    /// Anything, checked and dropped.
    Nothing,
}

impl Seen {
    /// How the field `name` is parsed.
    fn field(self, name: &str) -> Self {
        match self {
            Self::Body | Self::Route if name == "type" => Self::Whole,
            Self::Body if name == "message" => Self::Message,
            Self::Message => Self::Object,
            Self::Object if READ.contains(&name) => Self::Whole,
            Self::Route if name == "message" => Self::RouteMessage,
            Self::RouteMessage => Self::RouteObject,
            Self::RouteObject if name == "id" => Self::Whole,
            Self::Whole => Self::Whole,
            Self::Body | Self::Object | Self::Route | Self::RouteObject | Self::Nothing => {
                Self::Nothing
            }
        }
    }

    /// How an item of a list is parsed.
    fn item(self) -> Self {
        match self {
            Self::Object | Self::Whole => self,
            Self::Body
            | Self::Message
            | Self::Route
            | Self::RouteMessage
            | Self::RouteObject
            | Self::Nothing => Self::Nothing,
        }
    }

    fn keep(self, value: impl FnOnce() -> Value) -> Value {
        if matches!(self, Self::Nothing) { Value::Null } else { value() }
    }
}

/// Parses a webhook's body.
pub(crate) fn body(bytes: &[u8]) -> serde_json::Result<Value> {
    parse(Seen::Body, bytes)
}

/// Parses a webhook's body for where it belongs.
pub(crate) fn route(bytes: &[u8]) -> serde_json::Result<Value> {
    parse(Seen::Route, bytes)
}

fn parse(seen: Seen, bytes: &[u8]) -> serde_json::Result<Value> {
    // Checked as a whole, the encoding costs a fraction of checking it text by text.
    if let Ok(text) = std::str::from_utf8(bytes) {
        let mut from = serde_json::Deserializer::from_str(text);
        return seen.deserialize(&mut from).and_then(|value| from.end().map(|()| value));
    }
    let mut from = serde_json::Deserializer::from_slice(bytes);
    seen.deserialize(&mut from).and_then(|value| from.end().map(|()| value))
}

impl<'de> DeserializeSeed<'de> for Seen {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seen {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(self.keep(|| Value::String(value.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self.item())? {
            if !matches!(self, Self::Nothing) {
                list.push(item);
            }
        }
        Ok(self.keep(|| Value::Array(list)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some((name, seen)) = fields.next_key_seed(Name(self))? {
            let value = fields.next_value_seed(seen)?;
            if let Some(name) = name {
                map.insert(name, value);
            }
        }
        Ok(self.keep(|| Value::Object(map)))
    }
}

/// The name of a field, with how it is parsed: kept only where its value is.
struct Name(Seen);

impl<'de> DeserializeSeed<'de> for Name {
    type Value = (Option<String>, Seen);

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = (Option<String>, Seen);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        let seen = self.0.field(name);
        let is_kept = !matches!(seen, Seen::Nothing);
        Ok((is_kept.then(|| name.to_owned()), seen))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::webhook;

    fn bodies(folder: &str) -> Vec<Vec<u8>> {
        let folder =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(folder);
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.is_file()).map(|path| std::fs::read(path).unwrap()).collect()
    }

    /// Everything that is read of a body is the same of what is seen of it.
    fn assert_same(bytes: &[u8]) {
        let whole = serde_json::from_slice::<Value>(bytes);
        let seen = body(bytes);
        assert_eq!(whole.is_ok(), seen.is_ok(), "{}", String::from_utf8_lossy(bytes));
        let (Ok(whole), Ok(seen)) = (whole, seen) else { return };
        assert_eq!(webhook::observe(&whole), webhook::observe(&seen), "{whole}");
        let routed = route(bytes).unwrap();
        assert_eq!(webhook::about("a", &whole), webhook::about("a", &routed), "{whole}");
        let object = parse(Seen::Object, bytes).unwrap();
        assert_eq!(webhook::live_stream(&whole), webhook::live_stream(&object), "{whole}");
        assert_eq!(webhook::video(&whole), webhook::video(&object), "{whole}");
        assert_eq!(webhook::broadcast(&whole), webhook::broadcast(&object), "{whole}");
    }

    #[test]
    fn all_fixtures_read_the_same() {
        let all = [bodies("webhooks"), bodies("api")].concat();
        assert!(all.len() > 60);
        for bytes in all {
            assert_same(&bytes);
            // Each object of it, as an answer has it.
            let Ok(Value::Object(whole)) = serde_json::from_slice(&bytes) else { continue };
            for value in whole.values().filter_map(Value::as_object).flat_map(Map::values) {
                assert_same(value.to_string().as_bytes());
            }
        }
    }

    #[test]
    fn what_cannot_be_parsed_is_refused_in_skipped_fields_too() {
        let deep = "[".repeat(200) + &"]".repeat(200);
        for odd in
            ["1e999", "\"\\ud800\"", "tru", "[1,]", "{\"a\":}", "\"\u{1}\"", deep.as_str(), "1 2"]
        {
            assert_same(format!("{{\"type\":\"stream\",\"other\":{odd}}}").as_bytes());
            assert_same(format!("{{\"message\":{{\"stream\":{{\"x\":{odd}}}}}}}").as_bytes());
        }
        assert_same(b"{\"type\":\"stream\",\"x\":\"\xff\"}");
    }

    fn arb_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,6}".prop_map(Value::String),
            prop::sample::select(vec!["ready", "live", "complete", "12"]).prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            let names = READ.iter().copied().chain(["type", "message", "stream", "video", "x"]);
            let name = prop::sample::select(names.map(str::to_owned).collect::<Vec<_>>());
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                prop::collection::btree_map(name, inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_body_reads_the_same(
            object in arb_json(),
            kind in prop::sample::select(vec!["stream", "video", "vod", "video_delete", "broadcast"]),
            cut in any::<prop::sample::Index>(),
        ) {
            let name = if matches!(kind, "vod" | "video_delete") { "video" } else { kind };
            let text = json!({"type": kind, "message": {name: object}, "other": object}).to_string();
            assert_same(text.as_bytes());
            assert_same(object.to_string().as_bytes());
            assert_same(&text.as_bytes()[..cut.index(text.len())]);
        }
    }
}
