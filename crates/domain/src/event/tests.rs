//! Stored forms: one golden body per event and version, which must be readable for ever.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::*;
use crate::announcement::Announcement;
use crate::webhook::VideoStatus;

/// `golden/{event type}.v{version}.json`.
fn golden_files() -> Vec<(String, i16, PathBuf)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| {
            let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let (name, version) = stem.split_once(".v").unwrap();
            (name.to_owned(), version.parse().unwrap(), path)
        })
        .collect();
    files.sort();
    files
}

fn stored(name: &str, version: i16, payload: Vec<u8>) -> RecordedEvent {
    RecordedEvent {
        slice: 0,
        position: 1,
        recorded_at: Timestamp::default(),
        received_at: Timestamp::default(),
        event_id: Uuid::nil(),
        subject: Subject::from_stored("gcore-main/stream/320423".to_owned()),
        event_type: name.to_owned(),
        schema_version: version,
        causation_id: None,
        correlation_id: None,
        meta: None,
        payload,
    }
}

#[test]
fn every_type_has_a_golden_body_of_each_of_its_versions() {
    let golden: Vec<(String, i16)> = golden_files().into_iter().map(|(n, v, _)| (n, v)).collect();
    let written: BTreeSet<(String, i16)> = VERSIONS
        .current
        .iter()
        .flat_map(|(name, current)| (1..=*current).map(|version| ((*name).to_owned(), version)))
        .collect();
    assert_eq!(golden, written.into_iter().collect::<Vec<_>>(), "golden bodies, VERSIONS");
}

/// A golden body is what a released build has stored: it can be neither changed nor removed. The
/// sums are those of `sha256sum *.json`.
#[test]
fn golden_bodies_are_never_changed_nor_removed() {
    let sum = |path: &Path| {
        let digest = Sha256::digest(std::fs::read(path).unwrap());
        digest.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
    };
    let found: BTreeSet<String> = golden_files()
        .iter()
        .map(|(_, _, path)| format!("{}  {}", sum(path), path.file_name().unwrap().display()))
        .collect();
    let sums = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/SHA256SUMS");
    let listed: BTreeSet<String> =
        std::fs::read_to_string(sums).unwrap().lines().map(str::to_owned).collect();
    let gone: Vec<_> = listed.difference(&found).collect();
    assert!(gone.is_empty(), "restore what was changed or removed: {gone:#?}");
    let new: Vec<_> = found.difference(&listed).collect();
    assert!(new.is_empty(), "add to golden/SHA256SUMS: {new:#?}");
}

#[test]
fn golden_bodies_are_readable_for_ever() {
    for (name, version, path) in golden_files() {
        let event = Event::decode(&stored(&name, version, std::fs::read(&path).unwrap()));
        assert_eq!(event.name(), name, "{}", path.display());
        if let Event::WebhookReceived(webhook) = &event {
            assert_ne!(webhook.observation, Observation::Unrecognized);
        }
    }
}

#[test]
fn what_is_written_is_what_was_read() {
    for (name, version, path) in golden_files() {
        let bytes = std::fs::read(&path).unwrap();
        let event = Event::decode(&stored(&name, version, bytes.clone()));
        if matches!(event, Event::WebhookReceived(_)) || VERSIONS.of(&name) != Some(version) {
            continue;
        }
        let (written_name, written_version, body) = event.encode();
        assert_eq!((written_name, written_version), (name.as_str(), version));
        let (golden, written): (Value, Value) =
            (serde_json::from_slice(&bytes).unwrap(), serde_json::from_slice(&body).unwrap());
        assert_eq!(written, golden, "{name}");
    }
}

#[test]
fn every_call_and_every_result_has_a_stable_form() {
    let call = |json: &str| serde_json::from_str::<Call>(json).unwrap().kind();
    let ids = r#""from":"2026-11-22T14:00:00Z","to":"2026-11-22T14:10:00Z","live_stream":1,"broadcast":2,"video":3,"name":"n","status":"live","options":{}"#;
    let run =
        r#""run":"00000000-0000-0000-0000-000000000000","delete_recordings":true,"videos":[3]"#;
    for kind in [
        "create_live_stream",
        "update_live_stream",
        "clear_dvr",
        "create_broadcast",
        "activate_live_stream",
        "deactivate_live_stream",
        "set_broadcast_status",
        "start_recording",
        "stop_recording",
        "delete_broadcast",
        "observe_live_stream",
        "observe_broadcast",
        "list_videos",
        "fetch_video",
        "delete_live_stream",
        "observe_quota",
        "probe_live_stream",
        "delete_recordings",
    ] {
        assert_eq!(call(&format!(r#"{{"kind":"{kind}",{ids},{run}}}"#)), kind);
    }
    for result in [
        r#"{"type":"live_stream","observed":{"id":1}}"#,
        r#"{"type":"broadcast","observed":null}"#,
        r#"{"type":"recording_started","warnings":["w"]}"#,
        r#"{"type":"recording_refused","errors":["e"]}"#,
        r#"{"type":"recording_stopped","video":null}"#,
        r#"{"type":"videos","observed":[]}"#,
        r#"{"type":"video","observed":{}}"#,
        r#"{"type":"gone"}"#,
        r#"{"type":"done"}"#,
        r#"{"type":"deleted","videos":[1]}"#,
        r#"{"type":"recordings_deleted","videos":[1]}"#,
        r#"{"type":"kept","reason":"r"}"#,
        r#"{"type":"active_streams","active":[1],"inactive":[2]}"#,
        r#"{"type":"air_times","times":[{"from":"2026-11-22T14:00:00Z","until":"2026-11-22T14:00:10Z"}],"precision_s":10}"#,
    ] {
        let read: CallResult = serde_json::from_str(result).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), result);
    }
}

#[test]
fn an_unknown_type_or_body_is_unrecognized() {
    for (name, payload) in [
        ("SessionPaused", "{}"),
        ("SessionRequested", "{}"),
        ("SessionRequested", "not json"),
        ("SessionEnded", "[]"),
        ("", ""),
    ] {
        let event = Event::decode(&stored(name, 1, payload.as_bytes().to_vec()));
        assert_eq!(event, Event::Unrecognized, "{name}");
    }
}

#[test]
fn a_field_of_a_later_build_is_ignored() {
    let body = br#"{"timer":"poll","generation":7,"later":true}"#;
    let event = Event::decode(&stored("TimerElapsed", 1, body.to_vec()));
    let elapsed = TimerElapsed { timer: TimerKind::Poll, generation: 7 };
    assert_eq!(event, Event::TimerElapsed(elapsed));
}

#[test]
fn a_version_of_a_later_build_is_told_apart_and_has_no_effect() {
    let body = br#"{"timer":"poll","generation":7}"#;
    let newer = stored("TimerElapsed", 2, body.to_vec());
    assert_eq!(Event::decode(&newer), Event::Unrecognized);
    let told = NewerVersion { event_type: "TimerElapsed".to_owned(), version: 2, known: 1 };
    assert_eq!(readable(newer.stored()), Err(told));
    assert_eq!(readable(stored("TimerElapsed", 1, body.to_vec()).stored()), Ok(()));
    assert_eq!(readable(stored("OfAnotherService", 2, body.to_vec()).stored()), Ok(()));
}

#[test]
fn a_news_body_without_its_optional_fields_is_read() {
    let body = br#"{"session":"00000000-0000-0000-0000-000000000000","live_stream":5}"#;
    let event = Event::decode(&stored("SessionReady", 1, body.to_vec()));
    let Event::Announced(Announcement::SessionReady(news)) = event else { panic!("{event:?}") };
    assert_eq!(news.live_stream, Some(LiveStreamId(5)));
}

#[test]
fn nul_in_stored_text_is_replaced() {
    let body = br#"{"intent":"00000000-0000-0000-0000-000000000000","reason":"a\u0000b"}"#;
    let event = Event::decode(&stored("CallFailed", 1, body.to_vec()));
    let Event::CallFailed(failed) = event else { panic!("{event:?}") };
    assert_eq!(failed.reason, "a\u{fffd}b");
}

#[test]
fn video_statuses_are_stored_by_name() {
    for status in [VideoStatus::Unknown, VideoStatus::Empty, VideoStatus::Deleted] {
        let text = serde_json::to_value(status).unwrap();
        assert_eq!(text, status.name());
    }
}
