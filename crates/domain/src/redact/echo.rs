//! What the platform echoes of a person: names, and what the product gave with its session. We know
//! it already, sealed under the key of its account, and a second copy here could not be forgotten.
//!
//! Two things stay, since a fold reads them: the frame of a recording's name, which tells when it
//! ended, and our ownership tag, without the product's data.

use std::borrow::Cow;

use super::{REDACTED, Replaced, Span, begin_of_value, string_at};
use crate::webhook::{RECORDING_NAME, Tag, recording_end};

/// Fields that tell of a person, whatever they hold.
const FIELDS: [&str; 3] = ["name", "description", "client_user_id"];

/// The field that holds our ownership tag, or somebody else's data.
const TAG: &str = "client_entity_data";

/// How our tag is written. One that begins so and has no data is left without being read.
const OURS: &[u8] = br#"{\"v\":1,\"owner\":\"tallylight\","#;

/// The list of renditions, whose names are the platform's own.
const RENDITIONS: &str = "converted_videos";

/// The echoes in a body.
pub(super) fn find(body: &[u8], names: &[usize]) -> Vec<Replaced> {
    let mut found: Vec<Replaced> = Vec::new();
    let mut end = 0;
    // A list that is cut off would be looked through to its end again and again.
    let mut is_cut = false;
    for at in names.iter().copied() {
        if at <= end || !b"ncd".contains(&body[at]) {
            continue;
        }
        let begin = |name: &&str| begin_of_value(body, at, name);
        let echo = if let Some(start) = FIELDS.iter().find_map(begin) {
            field(body, start)
        } else if let Some(start) = begin(&TAG) {
            tag(body, start)
        } else {
            if let Some(start) = begin(&RENDITIONS).filter(|_| !is_cut) {
                let list = end_of_list(body, start);
                is_cut = list.is_none() && matches!(body.get(start), Some(b'[' | b'{'));
                end = list.unwrap_or(end);
            }
            None
        };
        if let Some(echo) = echo {
            end = echo.span.end;
            found.push(echo);
        }
    }
    found
}

/// The value of a personal field: as a whole, but for the frame of a recording's name.
fn field(body: &[u8], start: usize) -> Option<Replaced> {
    let Some(span) = string_at(body, start) else { return other(body, start) };
    let span = part_of_name(&body[span.clone()])
        .map_or(span.clone(), |part| span.start + part.start..span.start + part.end);
    Some(Replaced { span, by: Cow::Borrowed(REDACTED) })
}

/// What a recording's name says of the live stream, where the name says when the recording ended.
fn part_of_name(name: &[u8]) -> Option<Span> {
    let name = std::str::from_utf8(name).ok()?;
    recording_end(name)?;
    let (before, _) = name.rsplit_once(", ")?;
    Some(RECORDING_NAME.len()..before.len())
}

/// The text that may hold our tag: ours loses its data, another all.
fn tag(body: &[u8], start: usize) -> Option<Replaced> {
    let Some(span) = string_at(body, start) else { return other(body, start) };
    let inner = &body[span.clone()];
    if inner.starts_with(OURS) && !inner.windows(4).any(|word| word == b"data") {
        return None;
    }
    let text = body.get(span.start - 1..=span.end).and_then(|t| serde_json::from_slice(t).ok());
    match text.and_then(|text: String| Tag::read(&text)) {
        Some(Tag { data: None, .. }) => None,
        Some(tag) => {
            let text = serde_json::to_string(&Tag { data: None, ..tag }.text()).unwrap_or_default();
            let inner = text.trim_matches('"').as_bytes().to_vec();
            Some(Replaced { span, by: Cow::Owned(inner) })
        }
        None => Some(Replaced { span, by: Cow::Borrowed(REDACTED) }),
    }
}

/// A value that is no string: a number, an object or a list becomes `null`.
fn other(body: &[u8], start: usize) -> Option<Replaced> {
    let rest = body.get(start..)?;
    if rest.starts_with(b"null") {
        return None;
    }
    let scalar = || {
        let ends = |b: &u8| b.is_ascii_whitespace() || matches!(b, b',' | b'}' | b']');
        start + rest.iter().position(ends).unwrap_or(rest.len())
    };
    let end = match rest.first()? {
        // Cut off: nothing behind it can be told apart.
        b'{' | b'[' => end_of_list(body, start).unwrap_or(body.len()),
        _ => scalar(),
    };
    Some(Replaced { span: start..end, by: Cow::Borrowed(b"null") })
}

/// Behind the bracket that closes the one at `start`; `None`: there is none, or it is not closed.
fn end_of_list(body: &[u8], start: usize) -> Option<usize> {
    if !matches!(body.get(start)?, b'[' | b'{') {
        return None;
    }
    let (mut depth, mut in_string, mut is_escaped) = (0_u32, false, false);
    for (n, byte) in body[start..].iter().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => depth += 1,
            b']' | b'}' if !in_string => {
                depth -= 1;
                if depth == 0 {
                    return Some(start + n + 1);
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use uuid::Uuid;

    use super::super::redact_platform;
    use crate::personal::in_the_open;
    use crate::webhook::{self, Tag};

    fn kept(body: &str) -> String {
        String::from_utf8(redact_platform(body.as_bytes()).0).unwrap()
    }

    #[test]
    fn names_and_the_products_own_values_are_not_kept() {
        let body = r#"{"id":1,"name" : "Ann","client_user_id":17,"client_entity_data":"Ann, 17",
            "description":"Ann\"s","slug":"aBc","live":true}"#;
        let expected = r#"{"id":1,"name" : "[redacted]","client_user_id":null,"client_entity_data":"[redacted]",
            "description":"[redacted]","slug":"aBc","live":true}"#;
        assert_eq!(kept(body), expected);
    }

    #[test]
    fn values_of_another_type_are_not_kept_either() {
        for value in ["17.5e3", "true", r#"{"x":["a]",{"name":"b"}]}"#, "[1,[2]]", r#"{"cut":"#] {
            for name in ["name", "client_user_id", "client_entity_data"] {
                let body = kept(&format!(r#"{{"{name}":{value},"id":1}}"#));
                assert!(body.starts_with(&format!(r#"{{"{name}":null"#)), "{body}");
            }
        }
        assert_eq!(
            kept(r#"{"name":null,"client_user_id":null}"#),
            r#"{"name":null,"client_user_id":null}"#
        );
    }

    #[test]
    fn a_recording_keeps_when_it_ended() {
        let body = r#"{"name":"Stream Record: Ann, at home, 2022-06-03 13:25:16 +0000","id":1}"#;
        let expected = r#"{"name":"Stream Record: [redacted], 2022-06-03 13:25:16 +0000","id":1}"#;
        assert_eq!(kept(body), expected);
        assert_eq!(kept(expected), expected);
        assert_eq!(kept(r#"{"name":"Stream Record: Ann, at home"}"#), r#"{"name":"[redacted]"}"#);
    }

    #[test]
    fn our_tag_stays_and_loses_the_products_data() {
        let tag = Tag::new(Uuid::from_u128(1), Uuid::from_u128(2), None);
        let body = |tag: &Tag| serde_json::json!({"client_entity_data": tag.text()}).to_string();
        let with_data = Tag { data: Some(serde_json::json!({"room": "\"Ann\""})), ..tag.clone() };
        assert_eq!(kept(&body(&with_data)), body(&tag));
        assert_eq!(kept(&body(&tag)), body(&tag));
    }

    #[test]
    fn renditions_keep_their_names() {
        let body = r#"{"converted_videos":[{"name":"vod720n","x":"]"}],"name":"Ann"}"#;
        assert_eq!(
            kept(body),
            r#"{"converted_videos":[{"name":"vod720n","x":"]"}],"name":"[redacted]"}"#
        );
    }

    /// Webhooks of all kinds: nothing personal is kept, and a fold reads the same of them.
    #[test]
    fn no_fixture_keeps_anything_personal_or_means_less() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
        let mut told = 0;
        for folder in ["webhooks", "malformed"].map(|name| folder.join(name)) {
            for file in std::fs::read_dir(folder).unwrap() {
                let path = file.unwrap().path();
                let body = std::fs::read(&path).unwrap();
                let (kept, _) = redact_platform(&body);
                assert_eq!(in_the_open("WebhookReceived", &kept), [""; 0], "{}", path.display());
                assert_eq!(redact_platform(&kept).0, kept, "{}", path.display());
                told += usize::from(!in_the_open("WebhookReceived", &body).is_empty());
                let (mut before, mut after) = (webhook::read(&body), webhook::read(&kept));
                for observed in [&mut before, &mut after] {
                    if let webhook::Observation::Video(video) = &mut observed.observation {
                        let began = video.began_at();
                        video.name = None;
                        video.recording_started_at = began;
                    }
                }
                assert_eq!(before, after, "{}", path.display());
            }
        }
        assert!(told > 20, "{told} of them held something personal");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in r#"("(name|client_user_id|client_entity_data|converted_videos)"|[\[\]{}:,"\\x1]| ){0,40}"#) {
            let (kept, _) = redact_platform(body.as_bytes());
            proptest::prop_assert!(kept.len() <= body.len() + 20 * body.len());
        }
    }
}
