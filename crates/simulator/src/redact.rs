//! Takes secrets out of JSON before it is kept or shown.
//!
//! A *secret* is a value under a key that the platform's contract names as one: tokens, push
//! addresses, passphrases, passwords, and `uri`, which may carry the push token. Only text can be
//! one: `{"errors":{"password":[..]}}` names a field and stays.

use serde_json::Value;

/// What stands in the place of a secret.
const PLACEHOLDER: &str = "[secret]";

/// Returns the value with every secret replaced, on all levels.
pub(crate) fn redacted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields
                .iter()
                .map(|(key, value)| {
                    let hidden = is_secret(key) && value.is_string();
                    (key.clone(), if hidden { PLACEHOLDER.into() } else { redacted(value) })
                })
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.iter().map(redacted).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// True for keys whose values are secret.
fn is_secret(key: &str) -> bool {
    key.contains("push_url")
        || matches!(
            key,
            "token"
                | "srt_passphrase"
                | "password"
                | "one_time_password"
                | "access"
                | "refresh"
                | "uri"
        )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::redacted;

    #[test]
    fn secrets_disappear_on_every_level_and_the_rest_stays() {
        let body = json!([{"id": 1, "token": "abc", "push_url_srt": "srt://x", "srt_passphrase": null,
            "message": {"stream": {"uri": "rtmp://x?abc", "live": true}}}]);
        let expected = json!([{"id": 1, "token": "[secret]", "push_url_srt": "[secret]",
            "srt_passphrase": null,
            "message": {"stream": {"uri": "[secret]", "live": true}}}]);
        assert_eq!(redacted(&body), expected);
    }
}
