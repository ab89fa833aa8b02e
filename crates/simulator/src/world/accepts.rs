//! What the fields of a request's body accept, and the words that refuse the rest.

use serde_json::Value;

/// What a field accepts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Accepts {
    /// `true` or `false`.
    Flag,
    /// Text that is not blank.
    Name,
    /// Text up to a number of characters, or null.
    Text { max: usize },
    /// Printable ASCII of 10 to 80 characters, or null.
    Passphrase,
    /// A whole number, or null.
    Number,
    /// A whole number between bounds.
    NumberIn { min: i64, max: i64 },
    /// One of some words.
    Word(&'static [&'static str]),
    /// A list of whole numbers.
    Numbers,
}

/// Says what is wrong with a value.
pub(super) fn check(accepts: Accepts, value: &Value) -> Result<(), &'static str> {
    let nullable = matches!(accepts, Accepts::Text { .. } | Accepts::Passphrase | Accepts::Number);
    if nullable && value.is_null() {
        return Ok(());
    }
    let (good, problem) = match accepts {
        Accepts::Flag => (value.is_boolean(), "is not a boolean"),
        Accepts::Name => {
            (value.as_str().is_some_and(|name| !name.trim().is_empty()), "can't be blank")
        }
        Accepts::Text { max } => (
            value.as_str().is_some_and(|text| text.chars().count() <= max),
            "is not a string or is too long",
        ),
        Accepts::Passphrase => (value.as_str().is_some_and(is_passphrase), "is invalid"),
        Accepts::Number => (value.is_i64(), "is not a number"),
        Accepts::NumberIn { min, max } => {
            (value.as_i64().is_some_and(|number| (min..=max).contains(&number)), "is out of range")
        }
        Accepts::Word(words) => (
            value.as_str().is_some_and(|word| words.contains(&word)),
            "is not included in the list",
        ),
        Accepts::Numbers => (
            value.as_array().is_some_and(|items| items.iter().all(Value::is_i64)),
            "is not a list of numbers",
        ),
    };
    if good { Ok(()) } else { Err(problem) }
}

/// True for 10 to 80 printable ASCII characters without blanks.
fn is_passphrase(text: &str) -> bool {
    (10..=80).contains(&text.len()) && text.chars().all(|letter| letter.is_ascii_graphic())
}
