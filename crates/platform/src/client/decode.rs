//! From the body of a success to a wire type.
//!
//! A success that cannot be read is an error whose disposition is that of an unknown outcome:
//! the platform has done something.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{Error, Operation, http::Answer};

/// The body as JSON; nothing at all counts as null.
///
/// Bytes that are not UTF-8 are replaced: a broken name must not hide the rest.
pub(super) fn value(operation: Operation, answer: &Answer) -> Result<Value, Error> {
    let text = String::from_utf8_lossy(&answer.body);
    let text = text.trim_start_matches('\u{feff}').trim();
    if text.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(text).map_err(|error| unreadable(operation, answer, &error.to_string()))
}

/// Whether a success has errors inside and therefore is none.
///
/// Documented for start_recording alone, which reads its body itself; elsewhere it costs nothing.
pub(super) fn has_errors_inside(operation: Operation, answer: &Answer) -> bool {
    const NAME: &[u8] = b"\"errors\"";
    if operation == Operation::StartRecording || !answer.body.windows(NAME.len()).any(|w| w == NAME)
    {
        return false;
    }
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let errors = body.get("errors");
    errors.is_some_and(|errors| match errors {
        Value::Array(errors) => !errors.is_empty(),
        Value::Object(errors) => !errors.is_empty(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    })
}

/// The body as an object that names itself.
pub(super) fn object<T: DeserializeOwned>(
    operation: Operation,
    answer: &Answer,
) -> Result<T, Error> {
    typed(operation, answer, value(operation, answer)?)
}

/// The object in a field of the body.
pub(super) fn object_in<T: DeserializeOwned>(
    operation: Operation,
    answer: &Answer,
    name: &str,
) -> Result<T, Error> {
    let found = value(operation, answer)?.get_mut(name).map(Value::take);
    typed(operation, answer, found.unwrap_or_default())
}

/// The body as the object with this id. Answers may be cut down to a few fields without it, but
/// an object without any field says nothing.
pub(super) fn object_with_id<T: DeserializeOwned>(
    operation: Operation,
    answer: &Answer,
    id: i64,
) -> Result<T, Error> {
    let value = value(operation, answer)?;
    if says_nothing(&value) {
        return typed(operation, answer, value);
    }
    typed(operation, answer, with_id(value, id))
}

/// The body as the object with this id after a change, of which the status alone is proof: a body
/// that says nothing is an object of which only the id is known.
pub(super) fn changed<T: DeserializeOwned>(
    operation: Operation,
    answer: &Answer,
    id: i64,
) -> Result<T, Error> {
    let value = value(operation, answer)?;
    let value = if value.is_null() { Value::Object(Map::new()) } else { value };
    typed(operation, answer, with_id(value, id))
}

/// The body as an object, or `None` where it says nothing: zero bytes, `null` or `{}`.
pub(super) fn optional<T: DeserializeOwned>(
    operation: Operation,
    answer: &Answer,
) -> Result<Option<T>, Error> {
    let value = value(operation, answer)?;
    if says_nothing(&value) { Ok(None) } else { typed(operation, answer, value).map(Some) }
}

/// The body as a list. Only `[]` is an empty one: from a body that says nothing, nothing may be
/// concluded, and neither from a row that cannot be identified.
/// `within` names the field that holds it; there `null` is an empty list too.
pub(super) fn list<T: DeserializeOwned>(
    operation: Operation,
    answer: &Answer,
    within: Option<&str>,
) -> Result<Vec<T>, Error> {
    let mut value = value(operation, answer)?;
    if let Some(name) = within {
        value = match value.get_mut(name).map(Value::take) {
            Some(Value::Null) => Value::Array(Vec::new()),
            found => found.unwrap_or_default(),
        };
    }
    if !value.is_array() {
        return Err(unreadable(operation, answer, "not a list"));
    }
    typed(operation, answer, value)
}

/// Whether the body is a page for people: a proxy's, whatever the status says.
pub(super) fn is_markup(answer: &Answer) -> bool {
    answer.body.trim_ascii_start().starts_with(b"<")
}

/// The error of a success that is a page for people.
pub(super) fn markup(operation: Operation, answer: &Answer) -> Error {
    unreadable(operation, answer, "a page for people, not the platform's")
}

/// Whether the value is null or an object without fields.
fn says_nothing(value: &Value) -> bool {
    value.is_null() || value.as_object().is_some_and(Map::is_empty)
}

/// The object with its id, which it may leave out.
fn with_id(mut value: Value, id: i64) -> Value {
    if let Value::Object(fields) = &mut value
        && fields.get("id").is_none_or(Value::is_null)
    {
        fields.insert("id".to_owned(), id.into());
    }
    value
}

/// The value as a wire type. The error texts are those of `wire`; they quote no values.
fn typed<T: DeserializeOwned>(
    operation: Operation,
    answer: &Answer,
    value: Value,
) -> Result<T, Error> {
    serde_json::from_value(value).map_err(|error| unreadable(operation, answer, &error.to_string()))
}

/// The error of a success that cannot be read.
pub(super) fn unreadable(operation: Operation, answer: &Answer, reason: &str) -> Error {
    Error::of_body(operation, answer.status, format!("the answer cannot be read: {reason}"))
}
