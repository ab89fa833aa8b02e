//! The writable fields of a stream: their names, types, defaults and limits.
//!
//! An *option* is a field that a create or PATCH body may set. Unknown fields, also retired ones
//! such as `webrtc`, are taken and forgotten, except `transcoding_region`, which still moves the
//! push addresses. The table is a reading of `createStream` in the published API description.

use serde_json::{Map, Value, json};

use super::Reply;
use super::accepts::{Accepts, check};

/// Every option with what it accepts.
const OPTIONS: [(&str, Accepts); 17] = [
    ("name", Accepts::Name),
    ("active", Accepts::Flag),
    ("pull", Accepts::Flag),
    ("uri", Accepts::Text { max: 8192 }),
    ("auto_record", Accepts::Flag),
    ("record_type", Accepts::Word(&["origin", "transcoded"])),
    ("dvr_enabled", Accepts::Flag),
    ("dvr_duration", Accepts::NumberIn { min: 30, max: 14_400 }),
    ("hls_mpegts_endlist_tag", Accepts::Flag),
    ("html_overlay", Accepts::Flag),
    ("quality_set_id", Accepts::Number),
    ("cdn_id", Accepts::Number),
    ("client_user_id", Accepts::Number),
    ("client_entity_data", Accepts::Text { max: 4096 }),
    ("broadcast_ids", Accepts::Numbers),
    ("projection", Accepts::Word(&["regular", "vr360", "vr180", "vr360tb"])),
    ("srt_passphrase", Accepts::Passphrase),
];

/// The options of one stream.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Options {
    values: Map<String, Value>,
    region: String,
}

impl Default for Options {
    fn default() -> Self {
        let mut values = Map::new();
        for (field, accepts) in OPTIONS {
            values.insert(field.to_owned(), default_of(field, accepts));
        }
        Self { values, region: "ed1".to_owned() }
    }
}

impl Options {
    /// Returns the options after a body has been applied, or the 422 that names the first bad field.
    pub(super) fn with(&self, body: &Map<String, Value>) -> Result<Self, Reply> {
        let mut changed = self.clone();
        for (field, accepts) in OPTIONS {
            if let Some(value) = body.get(field) {
                check(accepts, value).map_err(|problem| Reply::invalid(field, problem))?;
                changed.values.insert(field.to_owned(), value.clone());
            }
        }
        if let Some(region) = body.get("transcoding_region").and_then(Value::as_str) {
            region.clone_into(&mut changed.region);
        }
        Ok(changed)
    }

    /// True if a flag is set.
    pub(super) fn flag(&self, field: &str) -> bool {
        self.values.get(field) == Some(&Value::Bool(true))
    }

    /// Sets a flag.
    pub(super) fn set_flag(&mut self, field: &str, value: bool) {
        self.values.insert(field.to_owned(), value.into());
    }

    /// Sets a text.
    pub(super) fn set_text(&mut self, field: &str, value: &str) {
        self.values.insert(field.to_owned(), value.into());
    }

    /// Returns a text option, or `""` if it is null.
    pub(super) fn text(&self, field: &str) -> &str {
        self.values.get(field).and_then(Value::as_str).unwrap_or_default()
    }

    /// Returns an option as JSON.
    pub(super) fn value(&self, field: &str) -> Value {
        self.values.get(field).cloned().unwrap_or(Value::Null)
    }

    /// Returns all options as the fields of a stream object.
    pub(super) fn fields(&self) -> &Map<String, Value> {
        &self.values
    }

    /// Returns the region of the push servers.
    pub(super) fn region(&self) -> &str {
        &self.region
    }
}

/// The value of an option that nobody has set.
fn default_of(field: &str, accepts: Accepts) -> Value {
    match accepts {
        Accepts::Flag => json!(field == "hls_mpegts_endlist_tag"),
        Accepts::Name | Accepts::Text { .. } | Accepts::Passphrase | Accepts::Number => Value::Null,
        Accepts::NumberIn { .. } => json!(3600),
        Accepts::Word(words) => json!(words.first()),
        Accepts::Numbers => json!([]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::Options;

    fn refused_field(body: Value) -> Option<String> {
        let Value::Object(body) = body else { return None };
        let refusal = Options::default().with(&body).err()?;
        refusal.document()["errors"].as_object()?.keys().next().cloned()
    }

    #[test]
    fn defaults_are_those_of_the_api_description() {
        let options = Options::default();
        assert!(!options.flag("active") && options.flag("hls_mpegts_endlist_tag"));
        assert_eq!(options.value("dvr_duration"), json!(3600));
        assert_eq!(options.value("projection"), json!("regular"));
        assert_eq!(options.value("client_user_id"), Value::Null);
    }

    #[test]
    fn each_limit_is_told_by_the_name_of_its_field() {
        for (body, field) in [
            (json!({"name": " "}), "name"),
            (json!({"name": null}), "name"),
            (json!({"active": "true"}), "active"),
            (json!({"client_user_id": "7"}), "client_user_id"),
            (json!({"client_entity_data": {"v": 1}}), "client_entity_data"),
            (json!({"client_entity_data": "x".repeat(4097)}), "client_entity_data"),
            (json!({"srt_passphrase": "short"}), "srt_passphrase"),
            (json!({"dvr_duration": 29}), "dvr_duration"),
            (json!({"projection": "flat"}), "projection"),
        ] {
            assert_eq!(refused_field(body.clone()).as_deref(), Some(field), "{body}");
        }
    }

    #[test]
    fn the_longest_entity_data_and_unknown_fields_are_taken() {
        assert_eq!(refused_field(json!({"client_entity_data": "é".repeat(4096)})), None);
        assert_eq!(refused_field(json!({"webrtc": "anything"})), None);
    }
}
