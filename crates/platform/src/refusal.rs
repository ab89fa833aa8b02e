//! What a body that is no success says, whatever its shape.
//!
//! Five JSON shapes are documented, and an edge proxy may answer in HTML. None is required: a
//! *refusal* is the best message that can be had, without secrets and cut to a bounded length.

use secrecy::SecretString;
use serde_json::{Map, Value};

use crate::redact;

/// Longest message, characters: some messages quote a whole standard.
const MESSAGE_LENGTH: usize = 400;

/// What the platform said in place of a success.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Refusal {
    /// Best-effort text, redacted and capped; empty when the body said nothing.
    pub(crate) message: String,
    /// The exception class of gateway errors.
    class: Option<String>,
    /// Whether the body is a page for people.
    is_markup: bool,
}

impl Refusal {
    /// Reads any body. `own` are secrets of the client that must not show.
    pub(crate) fn read(body: &[u8], own: &[SecretString]) -> Self {
        let text = String::from_utf8_lossy(body);
        let text = text.trim_start_matches('\u{feff}').trim();
        let parsed: Option<Value> = serde_json::from_str(text).ok();
        let class = parsed
            .as_ref()
            .and_then(|value| value.get("exception_class")?.as_str())
            .map(|class| cap(&redact::text(class, own)));
        let message = match &parsed {
            Some(value) => of_json(value, own),
            None => redact::text(&of_markup(text), own),
        };
        Self { message: cap(message.trim()), class, is_markup: text.starts_with('<') }
    }

    /// Whether it is a page for people, so that a proxy wrote it and not the platform's API.
    pub(crate) fn is_markup(&self) -> bool {
        self.is_markup
    }

    /// Whether the text names a limit of the account.
    ///
    /// A limit on the length of a text is a fault of the request and does not count.
    pub(crate) fn names_quota(&self) -> bool {
        const NAMES: [&str; 8] =
            ["limit", "limits", "quota", "quotas", "exceed", "exceeds", "exceeded", "space"];
        const LENGTH: [&str; 5] = ["long", "length", "character", "characters", "maximum"];
        let class = self.class.as_deref().unwrap_or_default().to_ascii_lowercase();
        if class.contains("quota") || class.contains("limit") {
            return true;
        }
        let message = self.message.to_ascii_lowercase();
        let has = |names: &[&str]| {
            message.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| names.contains(&word))
        };
        has(&NAMES) && !has(&LENGTH)
    }

    /// Whether the text says that requests come too fast.
    pub(crate) fn names_request_rate(&self) -> bool {
        const PHRASES: [&str; 6] = [
            "rate limit",
            "too many requests",
            "throttl",
            "requests per",
            "request limit",
            "request rate",
        ];
        let message = self.message.to_ascii_lowercase();
        PHRASES.iter().any(|phrase| message.contains(phrase))
    }

    /// Whether the text says that the account lacks the feature.
    pub(crate) fn names_missing_feature(&self) -> bool {
        self.message.to_ascii_lowercase().contains("feature is disabled")
    }

    /// Whether a gateway's 403 stands for missing capacity: so its class is documented.
    pub(crate) fn is_lack_of_capacity(&self) -> bool {
        self.class.as_deref() == Some("ForbiddenError")
    }
}

/// The texts of a list whose items are texts or objects with `message` or `key`.
pub(crate) fn texts(value: Option<&Value>, own: &[SecretString]) -> Vec<String> {
    match value {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(items)) => items.iter().map(|item| cap(&of_item(item, own))).collect(),
        Some(Value::Object(fields)) if fields.is_empty() => Vec::new(),
        Some(Value::Object(fields)) => {
            of_fields(fields, own).iter().map(|text| cap(text)).collect()
        }
        Some(other) => vec![cap(&of_item(other, own))],
    }
}

/// The message in a JSON body: `errors`, else `error`, else `message`, else the body itself.
fn of_json(value: &Value, own: &[SecretString]) -> String {
    let found = texts(value.get("errors"), own);
    if !found.is_empty() {
        return found.join("; ");
    }
    let single = ["error", "message"].iter().find_map(|name| value.get(name)?.as_str());
    match (single, value) {
        (Some(text), _) => redact::text(text, own),
        (None, Value::Null) => String::new(),
        (None, Value::Object(fields)) if fields.is_empty() => String::new(),
        (None, Value::String(text)) => redact::text(text, own),
        (None, other) => redact::json(other, own).to_string(),
    }
}

/// `field: text` for each text of each field; the field named `errors` holds texts of no field.
fn of_fields(fields: &Map<String, Value>, own: &[SecretString]) -> Vec<String> {
    let of_field = |(name, value): (&String, &Value)| {
        let items = texts(Some(value), own);
        let prefix = if name == "errors" { String::new() } else { format!("{name}: ") };
        items.into_iter().map(move |text| format!("{prefix}{text}")).collect::<Vec<_>>()
    };
    fields.iter().flat_map(of_field).collect()
}

/// The text of one item of a list of errors or warnings.
fn of_item(item: &Value, own: &[SecretString]) -> String {
    let part = |name| item.get(name).and_then(Value::as_str).map(|text| redact::text(text, own));
    match (part("key"), part("message"), item) {
        (Some(key), Some(message), _) => format!("{key}: {message}"),
        (Some(text), None, _) | (None, Some(text), _) => text,
        (None, None, Value::String(text)) => redact::text(text, own),
        (None, None, other) => redact::json(other, own).to_string(),
    }
}

/// The title of an HTML page, else its text without tags; other texts unchanged.
fn of_markup(text: &str) -> String {
    if !text.starts_with('<') {
        return text.to_owned();
    }
    let lower = text.to_ascii_lowercase();
    let title = lower.find("<title>").and_then(|start| {
        let start = start + "<title>".len();
        let length = lower[start..].find("</title>")?;
        Some(text[start..start + length].to_owned())
    });
    title.unwrap_or_else(|| {
        let after_tags = text.split('<').filter_map(|part| part.split_once('>'));
        let words = after_tags.flat_map(|(_, content)| content.split_whitespace());
        words.collect::<Vec<_>>().join(" ")
    })
}

/// Cuts a text to [`MESSAGE_LENGTH`].
fn cap(text: &str) -> String {
    match text.char_indices().nth(MESSAGE_LENGTH) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
