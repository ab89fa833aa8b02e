//! The list is complete, and what is written once is read for ever.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use super::*;
use crate::event::current_types;
use crate::scenario::Scenario;

/// Stands in every personal value of the sessions here.
const MARK: &str = "Ann-of-the-test";

const NUMBER: i64 = 987_654_321;

#[test]
fn every_event_type_is_listed_once() {
    let listed: Vec<&str> = FIELDS.iter().map(|(name, _)| *name).collect();
    let distinct: BTreeSet<&str> = listed.iter().copied().collect();
    assert_eq!(listed.len(), distinct.len());
    assert_eq!(distinct, current_types().collect());
}

/// A whole session, asked for as `change` makes it.
fn session(change: impl FnOnce(&mut crate::event::SessionRequested)) -> Scenario {
    let mut s = Scenario::new();
    let session = s.request("key", |request| {
        request.options.auto_go_live = true;
        change(request);
    });
    s.encoder_connects(320_423);
    s.recording_shows(320_423, true);
    s.pass(Duration::from_mins(2));
    s.end(session);
    s.pass(Duration::from_mins(30));
    s
}

/// Paths of all places where a personal value stands, by event type.
fn places(s: &Scenario) -> BTreeSet<(String, String)> {
    fn walk(value: &Value, path: &str, found: &mut Vec<String>) {
        match value {
            Value::String(text) if text.contains(MARK) => found.push(path.to_owned()),
            Value::Number(number) if number.as_i64() == Some(NUMBER) => found.push(path.to_owned()),
            Value::Array(items) => items.iter().for_each(|v| walk(v, &format!("{path}.*"), found)),
            Value::Object(fields) => {
                fields.iter().for_each(|(name, v)| walk(v, &format!("{path}.{name}"), found));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let mut all = BTreeSet::new();
    for event in s.log() {
        let mut found = Vec::new();
        if let Ok(body) = serde_json::from_slice::<Value>(&event.payload) {
            walk(&body, "", &mut found);
        }
        let places = found.iter().map(|path| path.trim_start_matches('.').to_owned());
        all.extend(places.map(|path| (event.event_type.clone(), path)));
    }
    all
}

#[test]
fn everywhere_a_personal_value_gets_to_is_listed() {
    let s = session(|request| {
        MARK.clone_into(&mut request.name);
        request.account = Some(MARK.to_owned());
        request.options.client_user_id = Some(NUMBER);
        request.options.data = Some(json!({"of": [MARK]}));
    });
    let places = places(&s);
    assert!(places.len() > 10, "{places:#?}");
    for (event_type, path) in &places {
        let fields = fields::of(event_type).unwrap();
        let is_listed = |field: &PersonalField| {
            path == field.path || path.starts_with(&format!("{}.", field.path))
        };
        assert!(fields.iter().any(is_listed), "{event_type}: {path}");
    }
    for event in s.log().iter().filter(|e| places.iter().any(|(name, _)| *name == e.event_type)) {
        // Announcements and commands of other sorts share a type with those that have none.
        let has_mark = String::from_utf8_lossy(&event.payload).contains(MARK);
        assert_eq!(has_mark, !in_the_open(&event.event_type, &event.payload).is_empty());
    }
}

#[test]
fn what_is_sealed_in_the_request_is_in_the_open_nowhere() {
    let key = Pseudonym(Uuid::from_u128(1));
    let s = session(|request| {
        let sealed =
            |field| Sealed { key, session: request.session, field, bytes: vec![7; 40] }.to_string();
        request.name = sealed(SealedField::Name);
        request.account = Some(key.to_string());
        request.options.sealed = Some(sealed(SealedField::Client));
    });
    let mut with_key = 0;
    for event in s.log() {
        let open = in_the_open(&event.event_type, &event.payload);
        assert_eq!(open, [""; 0], "{}", event.event_type);
        let text = String::from_utf8_lossy(&event.payload).into_owned();
        with_key += usize::from(text.contains(&key.0.simple().to_string()));
    }
    assert!(with_key > 5, "they are carried: {with_key}");
}

/// Stored for ever: a text that was written must be read for ever.
#[test]
fn the_sealed_form_never_changes() {
    let sealed = Sealed {
        key: Pseudonym(Uuid::from_u128(0x6f0c_2a90_b1d9_4a5e_8f3e_5a4c_7d2b_1e09)),
        session: Uuid::from_u128(2),
        field: SealedField::Client,
        bytes: vec![0xff, 0xfe, 0x01, 0x00],
    };
    let text =
        "sealed:6f0c2a90b1d94a5e8f3e5a4c7d2b1e09:00000000000000000000000000000002:client:__4BAA";
    assert_eq!(sealed.to_string(), text);
    assert_eq!(Sealed::read(text), Some(sealed.clone()));
    assert_eq!(sealed.key.to_string(), "~6f0c2a90b1d94a5e8f3e5a4c7d2b1e09");
    assert_eq!(Pseudonym::read("~6f0c2a90b1d94a5e8f3e5a4c7d2b1e09"), Some(sealed.key));
}

#[test]
fn a_name_of_a_product_is_not_taken_for_a_sealed_one() {
    for text in ["sealed: the story", "sealed:", "sealed:a:b:name:", "x", "", "sealed:1:2:3:4:5"] {
        assert_eq!(Sealed::read(text), None, "{text}");
    }
    let digits = "6f0c2a90b1d94a5e8f3e5a4c7d2b1e09";
    for id in ["~", "~user", digits, &format!("~{}", digits.to_uppercase()), &format!("~{digits}0")]
    {
        assert_eq!(Pseudonym::read(id), None, "{id}");
    }
}

#[test]
fn bodies_from_before_are_told_to_be_in_the_open() {
    let request = include_bytes!("../../golden/SessionRequested.v1.json");
    let open = ["account", "name", "options.client_user_id", "options.data"];
    assert_eq!(in_the_open("SessionRequested", request), open);
    let sealed = include_bytes!("../../golden/SessionRequested.v2.json");
    assert_eq!(in_the_open("SessionRequested", sealed), [""; 0]);
    assert_eq!(in_the_open("shop.OrderPaid", br#"{"name":"Ann"}"#), [""; 0]);
}

#[test]
fn what_a_text_quotes_of_personal_values_is_replaced() {
    let values = [MARK.to_owned(), "on".to_owned()];
    let text = without_quotes(format!("the name {MARK} is not on the list"), &values);
    assert_eq!(text, "the name [redacted] is not on the list");
}

#[test]
fn an_observed_object_loses_its_echo_and_nothing_else() {
    let object = json!({"id": 1, "name": MARK, "client_user_id": NUMBER, "live": true,
        "converted_videos": [{"name": "vod720n", "status": "complete"}]});
    let kept = json!({"id": 1, "name": "[redacted]", "client_user_id": null, "live": true,
        "converted_videos": [{"name": "vod720n", "status": "complete"}]});
    assert_eq!(without_echo(object), kept);
    assert_eq!(without_echo(kept.clone()), kept);
}
