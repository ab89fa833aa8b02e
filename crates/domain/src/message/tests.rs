//! Messages: every announcement is one, their JSON is what docs/webhooks.md shows.

use std::collections::BTreeSet;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::announcement::{PREFIXES, TOPICS};
use crate::ids::Subject;

/// The event of a golden body, as the log might hold it.
fn stored(name: &str) -> RecordedEvent {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("golden/{name}.v1.json"));
    let at = "2026-11-22T14:03:20Z".parse().unwrap();
    RecordedEvent {
        slice: 11,
        position: 5021,
        recorded_at: at,
        received_at: at,
        event_id: Uuid::from_u128(0x9f3a_2c1b),
        subject: Subject::from_stored("gcore-main/stream/320423".to_owned()),
        event_type: name.to_owned(),
        schema_version: 1,
        causation_id: None,
        correlation_id: None,
        meta: None,
        payload: std::fs::read(file).unwrap(),
    }
}

#[test]
fn every_announcement_has_one_topic_and_a_name_that_the_feed_finds() {
    let topics: BTreeSet<&str> = TOPICS.iter().map(|(_, topic)| *topic).collect();
    assert_eq!(topics.len(), TOPICS.len());
    for (name, topic) in TOPICS {
        assert!(PREFIXES.iter().any(|prefix| name.starts_with(prefix)), "{name}");
        let stored = stored(name);
        let Event::Announced(announcement) = Event::decode(&stored) else { panic!("{name}") };
        assert_eq!(announcement.name(), name);
        assert_eq!(Message::of(&stored).unwrap().topic, topic);
    }
    for name in crate::event::current_types() {
        let is_announced = TOPICS.iter().any(|(known, _)| *known == name);
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("golden/{name}.v1.json"));
        let decoded = Event::decode(&RecordedEvent {
            event_type: name.to_owned(),
            payload: std::fs::read(golden).unwrap(),
            ..stored("CleanupDone")
        });
        assert_eq!(matches!(decoded, Event::Announced(_)), is_announced, "{name}");
    }
}

/// The examples of the page are what is sent, character by character but for the blanks.
#[test]
fn the_documented_examples_are_what_is_sent() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/webhooks.md");
    let page = std::fs::read_to_string(page).unwrap();
    let examples: Vec<Value> = page
        .split("```json\n")
        .skip(1)
        .filter_map(|rest| serde_json::from_str(rest.split("```").next()?).ok())
        .filter(|example: &Value| example["type"].is_string())
        .collect();
    for (name, topic) in TOPICS {
        let written: Value =
            serde_json::from_str(&Message::of(&stored(name)).unwrap().body()).unwrap();
        let shown = examples.iter().find(|example| example["type"] == topic);
        let text = serde_json::to_string_pretty(&written).unwrap();
        assert_eq!(shown, Some(&written), "put this into docs/webhooks.md:\n{text}");
    }
    assert_eq!(examples.len(), TOPICS.len(), "and no other");
}

#[test]
fn other_events_are_no_messages() {
    assert_eq!(Message::of(&stored("SessionBound")), None);
    assert_eq!(Message::of(&stored("TimerElapsed")), None);
    let damaged = RecordedEvent { payload: b"[]".to_vec(), ..stored("SessionReady") };
    assert_eq!(Message::of(&damaged), None);
}

#[test]
fn an_id_is_of_the_one_event_at_its_position() {
    let stored = stored("SessionReady");
    let id = MessageId::read(&Message::of(&stored).unwrap().id).unwrap();
    assert_eq!(id.to_string(), "evt_11_5021_9f3a2c1b");
    assert!(id.is_of(&stored));
    let other = RecordedEvent { event_id: Uuid::from_u128(7), ..stored };
    assert!(!id.is_of(&other), "a restore has put another event there");
    let test = Message::test(Uuid::nil(), Uuid::nil(), Timestamp::default()).id;
    for text in ["", "evt_", "evt_1_2", "evt_1_2_3", "evt_-1_2_00000003", "evt_1_0_00000003", &test]
    {
        assert_eq!(MessageId::read(text), None, "{text}");
    }
}

proptest! {
    #[test]
    fn every_id_is_read_as_it_was_written(slice in 0i16.., position in 1i64.., check: u32) {
        let id = MessageId { slice, position, check };
        prop_assert_eq!(MessageId::read(&id.to_string()), Some(id));
        // The signature joins id, time and body by dots.
        prop_assert!(!id.to_string().contains('.'));
    }

    #[test]
    fn no_text_panics(text: String) {
        let _ = MessageId::read(&text);
    }
}
