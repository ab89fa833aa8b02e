//! Takes secrets out of texts that go into errors, events and logs.
//!
//! The platform echoes what it was sent: a 401 quotes the start of the token, a 422 may quote an
//! address with the push token in it. Rather an address too few than a token too many.

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

/// What stands in the place of a secret.
const MASK: &str = "***";
/// From this length on, a run of letters and digits with both in it is taken for a secret.
/// Push tokens in public samples have up to 32 characters; words and numeric ids have fewer.
const OPAQUE_LENGTH: usize = 20;
/// Names after whose colon or equals sign a secret stands.
const SECRET_WORDS: [&str; 4] = ["token", "password", "passphrase", "secret"];

/// Masks `own` secrets, addresses beyond their host, values after words such as "token:", and
/// long opaque words; replaces control and direction characters by blanks.
pub(crate) fn text(text: &str, own: &[SecretString]) -> String {
    let mut text = text.to_owned();
    for secret in own.iter().map(ExposeSecret::expose_secret).filter(|secret| secret.len() >= 4) {
        text = text.replace(secret, MASK);
    }
    let text: String = text.chars().map(|c| if is_unprintable(c) { ' ' } else { c }).collect();
    let mut masked = String::with_capacity(text.len());
    let mut after_secret_word = false;
    for word in text.split_inclusive(is_boundary) {
        let (word, boundary) = match word.char_indices().next_back() {
            Some((at, last)) if is_boundary(last) => word.split_at(at),
            _ => (word, ""),
        };
        if after_secret_word && !word.is_empty() {
            masked.push_str(MASK);
            after_secret_word = false;
        } else {
            masked.push_str(&mask_word(word));
            after_secret_word |= ends_in_secret_word(word);
        }
        masked.push_str(boundary);
    }
    masked
}

/// Masks the values of fields that hold secrets, and the texts of all others.
pub(crate) fn json(value: &Value, own: &[SecretString]) -> Value {
    match value {
        Value::String(inner) => Value::String(text(inner, own)),
        Value::Array(items) => items.iter().map(|item| json(item, own)).collect(),
        Value::Object(fields) => Value::Object(
            fields
                .iter()
                .map(|(name, value)| {
                    let value = if is_secret_name(name) { MASK.into() } else { json(value, own) };
                    (text(name, own), value)
                })
                .collect(),
        ),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

/// Whether a JSON field of this name holds a secret.
fn is_secret_name(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    has_secret_word(name)
        || lower.contains("push_url")
        || ["uri", "access", "refresh", "authorization", "origin_http_headers"]
            .contains(&lower.as_str())
}

/// Whether a name has a word in it after which a secret stands.
pub(crate) fn has_secret_word(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| name.contains(word))
}

/// Masks one word: an address beyond its host, a value behind `token=`, an opaque run.
fn mask_word(word: &str) -> String {
    if let Some((scheme, rest)) = word.split_once("://") {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = authority.rsplit('@').next().unwrap_or_default();
        let tail = if rest.len() > authority.len() { "/***" } else { "" };
        return format!("{scheme}://{host}{tail}");
    }
    if let Some(at) = word.find(['=', ':'])
        && at + 1 < word.len()
        && ends_in_secret_word(&word[..=at])
    {
        return format!("{}{MASK}", &word[..=at]);
    }
    if is_opaque(word) { MASK.to_owned() } else { word.to_owned() }
}

/// Whether a secret follows after this word.
fn ends_in_secret_word(word: &str) -> bool {
    word.strip_suffix([':', '=']).is_some_and(|name| {
        let name = name.to_ascii_lowercase();
        SECRET_WORDS.iter().any(|word| name.ends_with(word))
    })
}

/// Whether the word looks made by a machine: long, with letters and digits.
fn is_opaque(word: &str) -> bool {
    word.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '$'))).any(|run| {
        run.len() >= OPAQUE_LENGTH
            && run.contains(|c: char| c.is_ascii_digit())
            && run.contains(|c: char| c.is_ascii_alphabetic())
    })
}

/// Whether the character ends a word.
fn is_boundary(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | '(' | ')' | ',' | ';' | '{' | '}')
}

/// Whether the character could forge lines of a log or turn the direction of writing.
fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_do_not_survive() {
        let own = [SecretString::from("hunter-2")];
        let cases = [
            ("Bad permanent token: 1234", "Bad permanent token: ***"),
            ("Bad permanent token: \"1234\"", "Bad permanent token: \"***\""),
            ("token=1234 refused", "token=*** refused"),
            ("user hunter-2 unknown", "user *** unknown"),
            ("at rtmp://u:p@push.example/in/1?abcd now", "at rtmp://push.example/*** now"),
            ("at srt://push.example:5001?streamid=1#ab", "at srt://push.example:5001/***"),
            ("key 6460e735eda6b61bd4c99e02abf0c8df is busy", "key *** is busy"),
            ("line\r\n\u{1b}[2J\u{202e}end", "line   [2J end"),
        ];
        for (given, expected) in cases {
            assert_eq!(text(given, &own), expected);
        }
    }

    #[test]
    fn ordinary_words_survive() {
        for given in [
            "can't be blank",
            "No space for recording the stream.",
            "Queue limit reached (100), try later.",
            "from: query param is not set",
            "Quota limit for volume_size exceeded by 70",
            "Token is invalid or expired",
        ] {
            assert_eq!(text(given, &[]), given);
        }
    }

    #[test]
    fn fields_with_secrets_are_masked_by_name() {
        let given = json!({"id": 1, "token": "t", "push_url_srt": "srt://x", "a": [{"uri": "u"}]});
        let expected = json!({"id": 1, "token": MASK, "push_url_srt": MASK, "a": [{"uri": MASK}]});
        assert_eq!(json(&given, &[]), expected);
    }
}
