//! The fields of a body or a query, taken one by one: every wrong one is named in one answer, and
//! what is left over at the end is unknown and refused.

use std::ops::RangeInclusive;

use domain::ids::Timestamp;
use serde_json::{Map, Value};
use store::AsOf;

use crate::config::Config;
use crate::error::{FieldProblem, Problem};

/// Fields that were sent, and what is wrong with those taken so far.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    sent: Map<String, Value>,
    known: Vec<&'static str>,
    problems: Vec<FieldProblem>,
    /// Of a query: numbers are texts.
    of_query: bool,
}

impl Fields {
    /// Reads a JSON body.
    pub(crate) fn of_body(bytes: &[u8]) -> Result<Self, Problem> {
        let value = serde_json::from_slice(bytes)
            .map_err(|error| Problem::malformed(format!("the body is not JSON: {error}")))?;
        let Value::Object(sent) = value else {
            return Err(Problem::invalid_field("body", "must be a JSON object"));
        };
        Ok(Self { sent, ..Self::default() })
    }

    /// Whether a field was sent, and has a value.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.sent.get(name).is_some_and(|value| !value.is_null())
    }

    /// Takes an object inside of a body.
    pub(crate) fn of_object(sent: Map<String, Value>) -> Self {
        Self { sent, ..Self::default() }
    }

    /// Takes the pairs of a query.
    pub(crate) fn of_query(pairs: Vec<(String, String)>) -> Self {
        let mut fields = Self { of_query: true, ..Self::default() };
        for (name, value) in pairs {
            if fields.sent.insert(name.clone(), Value::String(value)).is_some() {
                fields.wrong(&name, "is there twice");
            }
        }
        fields
    }

    /// Notes that a field is wrong; `problem` reads after its name.
    pub(crate) fn wrong(&mut self, field: &str, problem: impl Into<String>) {
        self.problems.push(FieldProblem { field: field.to_owned(), problem: problem.into() });
    }

    /// Any JSON that PostgreSQL can hold; `null` counts as not sent.
    pub(crate) fn json(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        let value = self.sent.remove(name).filter(|value| !value.is_null())?;
        if has_nul(&value) {
            self.wrong(name, "must not contain the character U+0000");
            return None;
        }
        Some(value)
    }

    /// A text of 1 to `max` characters, without control characters.
    pub(crate) fn text(&mut self, name: &'static str, max: usize) -> Option<String> {
        match self.json(name)? {
            Value::String(text) if is_plain(&text, max) => return Some(text),
            Value::String(_) => self.wrong(
                name,
                format!(
                    "must be 1 to {max} characters, not only blanks, without control characters"
                ),
            ),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_) => {
                self.wrong(name, "must be a string");
            }
        }
        None
    }

    /// A text that has to be there; empty where it is wrong, which `finish` tells.
    pub(crate) fn required_text(&mut self, name: &'static str, max: usize) -> String {
        let wrong = self.problems.len();
        self.text(name, max).unwrap_or_else(|| {
            if self.problems.len() == wrong {
                self.wrong(name, "is needed");
            }
            String::new()
        })
    }

    /// `true` or `false`.
    pub(crate) fn flag(&mut self, name: &'static str, default: bool) -> bool {
        self.optional_flag(name).unwrap_or(default)
    }

    /// `true` or `false`, if it was sent.
    pub(crate) fn optional_flag(&mut self, name: &'static str) -> Option<bool> {
        let value = self.json(name)?;
        if value.as_bool().is_none() {
            self.wrong(name, "must be true or false");
        }
        value.as_bool()
    }

    /// A moment in the log: a time in RFC 3339, or `slice:position`.
    pub(crate) fn moment(&mut self, name: &'static str) -> Option<AsOf> {
        let text = self.text(name, 64)?;
        let position = text.split_once(':').and_then(|(slice, position)| {
            Some(AsOf::Position { slice: slice.parse().ok()?, position: position.parse().ok()? })
        });
        let at = position.or_else(|| text.parse().ok().map(AsOf::Time));
        if at.is_none() {
            self.wrong(name, "must be a time such as 2026-11-22T14:03:00Z, or slice:position");
        }
        at
    }

    /// A whole number within `range`.
    pub(crate) fn integer(
        &mut self,
        name: &'static str,
        range: RangeInclusive<i64>,
    ) -> Option<i64> {
        let value = self.json(name)?;
        let number = if self.of_query {
            value.as_str().and_then(|text| text.parse().ok())
        } else {
            value.as_i64()
        };
        let number = number.filter(|n| range.contains(n));
        if number.is_none() {
            self.wrong(name, format!("must be a whole number, {}", worded(&range)));
        }
        number
    }

    /// A point in time as RFC 3339 writes it.
    pub(crate) fn time(&mut self, name: &'static str) -> Option<Timestamp> {
        let value = self.json(name)?;
        let time = value.as_str().and_then(|t| chrono::DateTime::parse_from_rfc3339(t).ok());
        if time.is_none() {
            self.wrong(name, "must be a time such as 2026-03-01T12:00:00Z (RFC 3339)");
        }
        time.map(|time| time.to_utc())
    }

    /// A configured source, if one is named.
    pub(crate) fn source(&mut self, config: &Config) -> Option<String> {
        let source = self.text("source", 63)?;
        if config.sources.contains(&source) {
            return Some(source);
        }
        self.wrong("source", format!("is not one of {}", config.sources.join(", ")));
        None
    }

    /// A configured source, or the only one; empty where it is wrong, which `finish` tells.
    pub(crate) fn required_source(&mut self, config: &Config) -> String {
        let wrong = self.problems.len();
        match (self.source(config), config.sources.as_slice()) {
            (Some(source), _) => return source,
            (None, _) if self.problems.len() > wrong => {}
            (None, [only]) => return only.clone(),
            (None, several) => {
                self.wrong("source", format!("is needed: one of {}", several.join(", ")));
            }
        }
        String::new()
    }

    /// Refuses the request if anything was wrong or is left over.
    pub(crate) fn finish(self) -> Result<(), Problem> {
        let problems = self.problems();
        if problems.is_empty() { Ok(()) } else { Err(Problem::invalid(problems)) }
    }

    /// All that was wrong or is left over.
    pub(crate) fn problems(mut self) -> Vec<FieldProblem> {
        let unknown: Vec<String> = self.sent.keys().cloned().collect();
        for name in unknown {
            let known = match self.known.as_slice() {
                [] => "none is".to_owned(),
                names => names.join(", "),
            };
            // Enough to recognize it by.
            let name: String = name.chars().take(100).collect();
            self.wrong(&name, format!("is not known; known: {known}"));
        }
        self.problems
    }
}

/// Whether `text` has 1 to `max` characters, more than blanks, and no control character.
pub(crate) fn is_plain(text: &str, max: usize) -> bool {
    !text.trim().is_empty() && text.chars().count() <= max && !text.chars().any(char::is_control)
}

/// Whether a text inside holds U+0000, which PostgreSQL's JSON cannot.
fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(fields) => {
            fields.iter().any(|(name, value)| name.contains('\0') || has_nul(value))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// A range in words.
fn worded(range: &RangeInclusive<i64>) -> String {
    let (low, high) = (range.start(), range.end());
    if *high == i64::MAX { format!("at least {low}") } else { format!("{low} to {high}") }
}
