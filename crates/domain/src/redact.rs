//! Redaction of raw bodies: push tokens, push addresses and passphrases never reach the log, and
//! neither does what the platform echoes of a person.
//!
//! Works on bytes, so that it also covers bodies that are no JSON, and replaces the bytes in
//! question only. It errs on the side of replacing: a body is stored for ever.

use std::borrow::Cow;

mod echo;

/// What stands in the place of a secret.
pub const REDACTED: &[u8] = b"[redacted]";

/// Names of string fields whose whole value is secret.
const SECRET_FIELDS: [&str; 8] = [
    "token",
    "push_url",
    "backup_push_url",
    "push_url_srt",
    "backup_push_url_srt",
    "push_url_whip",
    "srt_passphrase",
    "stream_key",
];

/// Address schemes of ingest, whose query, fragment or path holds the push token; of the last two
/// only addresses of WHIP.
const SCHEMES: [&str; 6] = ["rtmp", "rtmps", "srt", "whip", "https", "http"];

/// What follows the colon of an address, plain and as JSON may escape it.
const SLASHES: [&[u8]; 2] = [b"//", b"\\/\\/"];

/// Returns the body without secrets and how many were replaced.
pub fn redact(body: &[u8]) -> (Vec<u8>, usize) {
    replace(body, secrets(body, &names(body)).collect())
}

/// Returns a body of the platform without secrets and without what it echoes of a person, and how
/// many values were replaced.
pub fn redact_platform(body: &[u8]) -> (Vec<u8>, usize) {
    let names = names(body);
    replace(body, secrets(body, &names).chain(echo::find(body, &names)).collect())
}

type Span = std::ops::Range<usize>;

/// Bytes to replace.
struct Replaced {
    span: Span,
    by: Cow<'static, [u8]>,
}

/// Places behind a quote where a name may stand that is looked for: most quotes begin others, which
/// their first byte tells.
fn names(body: &[u8]) -> Vec<usize> {
    let pairs = body.windows(2).enumerate();
    let is_name = |pair: &[u8]| is_quote(pair[0]) && b"tpbsuncd".contains(&pair[1]);
    pairs.filter(|(_, pair)| is_name(pair)).map(|(at, _)| at + 1).collect()
}

fn secrets(body: &[u8], names: &[usize]) -> impl Iterator<Item = Replaced> {
    let spans = field_spans(body, names).into_iter().chain(address_spans(body));
    spans.map(|span| Replaced { span, by: Cow::Borrowed(REDACTED) })
}

/// Replaces what does not lie in something that is replaced already.
fn replace(body: &[u8], mut all: Vec<Replaced>) -> (Vec<u8>, usize) {
    all.sort_by_key(|replaced| (replaced.span.start, std::cmp::Reverse(replaced.span.end)));
    let mut out = Vec::with_capacity(body.len());
    let mut count = 0;
    let mut at = 0;
    for Replaced { span, by } in all {
        if span.start < at || span.is_empty() {
            continue;
        }
        out.extend_from_slice(&body[at..span.start]);
        out.extend_from_slice(&by);
        at = span.end;
        count += 1;
    }
    out.extend_from_slice(&body[at..]);
    (out, count)
}

/// Values of fields named in [`SECRET_FIELDS`], and the secret parts of `uri`. A name is looked for
/// at every quote, so that a stray quote before it hides nothing.
fn field_spans(body: &[u8], places: &[usize]) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut end = 0;
    for at in places.iter().copied() {
        // What lies in a value is replaced with it.
        if at <= end || !b"tpbsu".contains(&body[at]) {
            continue;
        }
        let named = |name: &str| value_of(body, at, name);
        if let Some(value) = SECRET_FIELDS.iter().find_map(|name| named(name)) {
            end = value.end;
            spans.push(value);
        } else if let Some(value) = named("uri") {
            end = value.end;
            spans.extend(secrets_of_address(body, value));
        }
    }
    spans
}

fn is_quote(byte: u8) -> bool {
    matches!(byte, b'"' | b'\'')
}

/// The string value of the field `name`, if that name stands at `at`, behind its opening quote.
fn value_of(body: &[u8], at: usize, name: &str) -> Option<Span> {
    string_at(body, begin_of_value(body, at, name)?)
}

/// Where the value of the field `name` begins, if that name stands at `at`.
fn begin_of_value(body: &[u8], at: usize, name: &str) -> Option<usize> {
    let skip = |at: usize| at + body[at..].iter().take_while(|b| b.is_ascii_whitespace()).count();
    if !body[at..].starts_with(name.as_bytes()) {
        return None;
    }
    let (behind, _) = past_quote(body, at + name.len())?;
    let colon = skip(behind);
    (body.get(colon) == Some(&b':')).then(|| skip(colon + 1))
}

/// What stands between the quotes of the string that begins at `at`, if one does.
fn string_at(body: &[u8], at: usize) -> Option<Span> {
    let (start, escapes) = past_quote(body, at)?;
    Some(start..end_of_string(body, start, escapes, body[start - 1]))
}

/// The place behind the quote at `at`, and the backslashes before that quote: in JSON that is
/// itself a string of JSON, quotes are escaped.
fn past_quote(body: &[u8], at: usize) -> Option<(usize, usize)> {
    let escapes = body.get(at..)?.iter().take_while(|b| **b == b'\\').count();
    is_quote(*body.get(at + escapes)?).then_some((at + escapes + 1, escapes))
}

/// Where a string ends whose opening `quote` had `escapes` backslashes; cut off: at the end.
fn end_of_string(body: &[u8], start: usize, escapes: usize, quote: u8) -> usize {
    let mut backslashes = 0;
    for (n, byte) in body[start..].iter().enumerate() {
        let closes = if escapes == 0 { backslashes % 2 == 0 } else { backslashes <= escapes };
        if *byte == quote && closes {
            return start + n - if escapes == 0 { 0 } else { backslashes };
        }
        backslashes = if *byte == b'\\' { backslashes + 1 } else { 0 };
    }
    body.len()
}

/// Ingest addresses anywhere in the body, in any field and any syntax.
fn address_spans(body: &[u8]) -> Vec<Span> {
    let mut spans = Vec::new();
    // By scheme, where its last address ended: an address inside an address is part of it.
    let mut ends = [0; SCHEMES.len()];
    // Every address has a colon, and a body has few: they are found in one pass.
    let colons = body.iter().enumerate().filter(|(_, byte)| **byte == b':').map(|(at, _)| at);
    for colon in colons.filter(|at| SLASHES.iter().any(|s| body[at + 1..].starts_with(s))) {
        for (scheme, end) in SCHEMES.iter().zip(&mut ends) {
            let start = colon - scheme.len().min(colon);
            if start < *end || &body[start..colon] != scheme.as_bytes() {
                continue;
            }
            let length = body[start..].iter().take_while(|b| !ends_address(**b)).count();
            *end = start + length;
            let address = &body[start..*end];
            let escapes = address.iter().rev().take_while(|b| **b == b'\\').count();
            if !scheme.starts_with("http") || find(address, b"whip").is_some() {
                spans.extend(secrets_of_address(body, start..*end - escapes));
            }
        }
    }
    spans
}

/// Bytes that cannot be part of an address in running text.
fn ends_address(byte: u8) -> bool {
    byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\'' | b'<' | b'>' | b',')
}

/// The secret parts of one address: those of its path, and all after `?` or `#` but a leading
/// `streamid=NUMBER`.
fn secrets_of_address(body: &[u8], address: Span) -> Vec<Span> {
    let text = &body[address.clone()];
    let path_end = text.iter().position(|b| matches!(b, b'?' | b'#')).unwrap_or(text.len());
    let authority = find(text, b"://").map_or(0, |at| at + 3).min(path_end);
    let mut spans = secrets_of_path(text, authority..path_end);
    if path_end < text.len() {
        let query = &text[path_end + 1..];
        let keep = query
            .strip_prefix(b"streamid=")
            .and_then(|rest| {
                let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
                (rest.get(digits) == Some(&b'#')).then_some(digits)
            })
            .map_or(0, |digits| "streamid=".len() + digits + 1);
        spans.push(path_end + 1 + keep..text.len());
    }
    spans.into_iter().map(|span| address.start + span.start..address.start + span.end).collect()
}

/// User info, segments of a token's length, and what follows a live stream's id: WHIP writes
/// `{live stream}_{token}`.
fn secrets_of_path(text: &[u8], path: Span) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut start = path.start;
    let mut after_id = false;
    while start <= path.end {
        let is_boundary = |b: &u8| matches!(b, b'/' | b'_' | b'@' | b'\\');
        let length = text[start..path.end].iter().position(is_boundary);
        let end = length.map_or(path.end, |length| start + length);
        let part = &text[start..end];
        let boundary = text[start..path.end].get(end - start);
        if boundary == Some(&b'@') || is_token(part) || after_id {
            spans.push(start..end);
        }
        let is_id = !part.is_empty() && part.iter().all(u8::is_ascii_digit);
        after_id = is_id && boundary == Some(&b'_');
        start = end + 1;
    }
    spans
}

/// Whether a path segment is long and plain enough to be a token, and is no host name.
fn is_token(segment: &[u8]) -> bool {
    segment.len() >= 12 && segment.iter().all(u8::is_ascii_alphanumeric)
}

/// Position of `needle` in `haystack`.
fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redacted(body: &str) -> String {
        String::from_utf8(redact(body.as_bytes()).0).unwrap()
    }

    #[test]
    fn secret_fields_lose_their_value_only() {
        assert_eq!(
            redacted(r#"{"id":1, "token" : "abc\"def", "live":true}"#),
            r#"{"id":1, "token" : "[redacted]", "live":true}"#
        );
    }

    #[test]
    fn addresses_lose_their_token_in_every_form() {
        let cases = [
            ("srt://h.example:5001?streamid=12345#aaabbbcccddd", "aaabbbcccddd"),
            ("rtmp://h.example/in/12345b?0123456789abcdef", "0123456789abcdef"),
            ("https://h.example/whip/12345_0123456789abcdef/whip", "0123456789abcdef"),
            ("rtmp://user:secretpass@h.example/in/1", "user:secretpass"),
            ("srt://h.example:5001?streamid=12345&passphrase=aaabbbcccddd#x", "aaabbbcccddd"),
            ("srt://h.example?streamid=srt:\\/\\/h2?aaabbbcccddd#x", "aaabbbcccddd"),
        ];
        for (uri, secret) in cases {
            let body = redacted(&format!(r#"{{"uri":"{uri}"}}"#));
            assert!(!body.contains(secret), "{body}");
            assert!(body.contains("h.example"), "{body}");
        }
    }

    #[test]
    fn short_tokens_of_whip_are_found_in_any_field() {
        let body = redacted(r#"{"x":"https://whip.example/123_561041/whip","y":"https://h/1_2"}"#);
        assert_eq!(body, r#"{"x":"https://whip.example/123_[redacted]/whip","y":"https://h/1_2"}"#);
    }

    #[test]
    fn json_inside_a_string_loses_its_secrets_and_stays_json() {
        let body = redacted(r#"{"m":"{\"token\":\"abc\",\"uri\":\"srt://h:1?x=1#abc\"}"}"#);
        assert!(!body.contains("abc"), "{body}");
        let outer: serde_json::Value = serde_json::from_str(&body).unwrap();
        let inner = outer["m"].as_str().unwrap();
        assert!(serde_json::from_str::<serde_json::Value>(inner).is_ok(), "{inner}");
    }

    #[test]
    fn a_stray_quote_hides_no_field() {
        for body in [r#"{"id"": 1, "token": "abc"}"#, r"{'id':1,'token':'abc'}"] {
            assert!(!redacted(body).contains("abc"), "{}", redacted(body));
        }
    }

    /// Ingest redacts before it knows the sender: no body may cost more than its length.
    #[test]
    fn cost_grows_with_length_only() {
        let megabyte = 1 << 20;
        let repeated = |text: &str| text.repeat(megabyte / text.len());
        for text in [
            "rtmp://",
            "\"token\":\"",
            "\\\"token\\\":\\\"",
            "\"",
            "\\",
            "\"uri\":\"",
            "https://_",
            "\"converted_videos\":[",
            "\"name\":[",
            "\"name\":",
            "\"client_entity_data\":\"",
            "\"name\":1,",
        ] {
            let started = std::time::Instant::now();
            let _ = redact_platform(repeated(text).as_bytes());
            assert!(started.elapsed().as_secs() < 20, "{text}");
        }
    }

    #[test]
    fn bodies_that_are_no_json_are_redacted_too() {
        for body in [
            "uri='srt://h:1?streamid=1#aaabbbcccddd'",
            r#"{"type":"stream","message":{"stream":{"uri":"rtmp:\/\/h\/in\/1?aaabbbcccddd"#,
            "push=rtmp://h/in/1?aaabbbcccddd&x=1",
        ] {
            assert!(!redacted(body).contains("aaabbbcccddd"), "{}", redacted(body));
        }
    }

    #[test]
    fn a_body_without_secrets_is_untouched() {
        let body = r#"{"type":"stream","message":{"stream":{"id":1,"uri":null,"live":true}}}"#;
        assert_eq!(redact(body.as_bytes()), (body.as_bytes().to_vec(), 0));
    }

    #[test]
    fn redacting_twice_changes_nothing_more() {
        let once = redact(br#"{"uri":"srt://h:1?streamid=1#aaabbbcccddd","token":"x"}"#).0;
        assert_eq!(redact(&once).0, once);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let _ = redact(&body);
        }
    }
}
