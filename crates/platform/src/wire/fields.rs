//! Lenient reading of one JSON object: a field is what it should be, or it is absent.
//!
//! Reading goes through [`Value`] on purpose: duplicate keys then mean "the last one" instead of
//! an error, and every wrong type ends in `None`.

use chrono::{DateTime, NaiveDateTime, SecondsFormat, Utc};
use secrecy::SecretString;
use serde::{Deserialize, Deserializer, de};
use serde_json::{Map, Value};

/// The fields of one JSON object.
pub(super) struct Fields<'a>(&'a Map<String, Value>);

/// An object that is read leniently.
pub(super) trait Object: Sized {
    /// What it is, in words, for errors.
    const WHAT: &'static str;

    /// Reads it; `None` means that it cannot be identified.
    fn read(fields: &Fields<'_>) -> Option<Self>;

    /// The view for the event log.
    fn observed(&self) -> Value;
}

/// Reads an object.
pub(super) fn deserialize<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Object,
{
    let value = Value::deserialize(deserializer)?;
    let object = value
        .as_object()
        .ok_or_else(|| de::Error::custom(format_args!("{} is not an object", T::WHAT)))?;
    T::read(&Fields(object))
        .ok_or_else(|| de::Error::custom(format_args!("{} has no usable id", T::WHAT)))
}

impl Fields<'_> {
    /// A whole number, or a string that holds one.
    pub(super) fn integer(&self, name: &str) -> Option<i64> {
        integer(self.0.get(name)?)
    }

    /// An id: a whole number above zero. Fractions and exponents are not ids.
    pub(super) fn id(&self, name: &str) -> Option<i64> {
        self.integer(name).filter(|id| *id > 0)
    }

    /// A list of ids; items that are not ids are left out.
    pub(super) fn ids(&self, name: &str) -> Option<Vec<i64>> {
        let items = self.0.get(name)?.as_array()?;
        Some(items.iter().filter_map(integer).filter(|id| *id > 0).collect())
    }

    /// A number that is not negative, or a string that holds one.
    pub(super) fn amount(&self, name: &str) -> Option<f64> {
        let amount = match self.0.get(name)? {
            Value::Number(number) => number.as_f64()?,
            Value::String(text) => text.trim().parse().ok()?,
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
        };
        (amount.is_finite() && amount >= 0.0).then_some(amount)
    }

    /// A number that is not negative, cut to whole units.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "checked to lie between zero and 2^53, where f64 is exact"
    )]
    pub(super) fn whole(&self, name: &str) -> Option<i64> {
        const EXACT: f64 = 9_007_199_254_740_992.0;
        self.amount(name).filter(|amount| *amount <= EXACT).map(|amount| amount.trunc() as i64)
    }

    /// A boolean. Strings and numbers in its place are unknown, not true or false.
    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        self.0.get(name)?.as_bool()
    }

    /// A text, with U+0000 replaced: PostgreSQL cannot hold it.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.0.get(name)?.as_str().map(storable)
    }

    /// A text that says something: the platform writes "no error" both as null and as "".
    pub(super) fn note(&self, name: &str) -> Option<String> {
        self.text(name).filter(|text| !text.trim().is_empty())
    }

    /// A text; a number in its place is written out.
    pub(super) fn word(&self, name: &str) -> Option<String> {
        match self.0.get(name)? {
            Value::Number(number) => Some(number.to_string()),
            Value::String(text) => Some(storable(text)),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        }
    }

    /// Whatever it is; null is absent.
    pub(super) fn json(&self, name: &str) -> Option<Value> {
        self.0.get(name).filter(|value| !value.is_null()).cloned()
    }

    /// A text; a JSON object or list in its place is kept as compact JSON.
    pub(super) fn text_or_json(&self, name: &str) -> Option<String> {
        match self.0.get(name)? {
            Value::String(text) => Some(storable(text)),
            nested @ (Value::Object(_) | Value::Array(_)) => Some(nested.to_string()),
            Value::Null | Value::Bool(_) | Value::Number(_) => None,
        }
    }

    /// A text that must not be shown.
    pub(super) fn secret(&self, name: &str) -> Option<SecretString> {
        self.0.get(name)?.as_str().filter(|text| !text.is_empty()).map(SecretString::from)
    }

    /// A time; see [`parse_time`].
    pub(super) fn time(&self, name: &str) -> Option<DateTime<Utc>> {
        parse_time(self.0.get(name)?.as_str()?)
    }

    /// A list of texts; other items are left out.
    pub(super) fn texts(&self, name: &str) -> Option<Vec<String>> {
        let items = self.0.get(name)?.as_array()?;
        Some(items.iter().filter_map(Value::as_str).map(storable).collect())
    }

    /// An object.
    pub(super) fn object<T: Object>(&self, name: &str) -> Option<T> {
        T::read(&Fields(self.0.get(name)?.as_object()?))
    }

    /// The objects of a list; other items are left out.
    pub(super) fn objects<T: Object>(&self, name: &str) -> Option<Vec<T>> {
        let objects = self.0.get(name)?.as_array()?.iter().filter_map(Value::as_object);
        Some(objects.filter_map(|object| T::read(&Fields(object))).collect())
    }
}

/// A whole number, or a string that holds one.
fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The text without U+0000.
fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// Reads a time as the platform writes it: RFC 3339, or `2022-06-03 13:25:16 +0000`, or either
/// without a zone, which then is UTC. Returns `None` for anything else.
pub(super) fn parse_time(text: &str) -> Option<DateTime<Utc>> {
    const ZONED: [&str; 2] = ["%Y-%m-%d %H:%M:%S%.f %z", "%Y-%m-%dT%H:%M:%S%.f%z"];
    const BARE: [&str; 2] = ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"];
    let text = text.trim();
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.to_utc());
    }
    let zoned = ZONED.iter().find_map(|format| DateTime::parse_from_str(text, format).ok());
    zoned.map(|time| time.to_utc()).or_else(|| {
        let bare = BARE.iter().find_map(|format| NaiveDateTime::parse_from_str(text, format).ok());
        bare.map(|time| time.and_utc())
    })
}

/// A JSON object of the fields that are known; unknown ones (null) are left out.
pub(super) fn known<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let known = fields.into_iter().filter(|(_, value)| !value.is_null());
    Value::Object(known.map(|(name, value)| (name.to_owned(), value)).collect())
}

/// The views of a list's items, or null.
pub(super) fn observed_list<T: Object>(items: Option<&[T]>) -> Value {
    items.map(|items| items.iter().map(Object::observed).collect::<Value>()).into()
}

/// A time in RFC 3339 with milliseconds, or null.
pub(super) fn time_value(time: Option<DateTime<Utc>>) -> Value {
    time.map(|time| time.to_rfc3339_opts(SecondsFormat::Millis, true)).into()
}
