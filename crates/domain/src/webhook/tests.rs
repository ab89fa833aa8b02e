//! Tests of the lenient reading, over all fixtures.

use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use crate::redact::redact;

const SOURCE: &str = "gcore-main";

/// The fixtures of a folder, by name.
fn fixtures(folder: &str) -> BTreeMap<String, Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(folder);
    let files = std::fs::read_dir(root).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        (name, std::fs::read(path).unwrap())
    });
    files.collect()
}

fn webhook(name: &str) -> Vec<u8> {
    fixtures("webhooks").remove(name).unwrap_or_else(|| panic!("no fixture {name}"))
}

fn live_stream_of(name: &str) -> LiveStreamObserved {
    let Observation::LiveStream(seen) = read(&webhook(name)).observation else {
        panic!("{name} is no live stream")
    };
    seen
}

fn video_of(name: &str) -> VideoObserved {
    let Observation::Video(seen) = read(&webhook(name)).observation else {
        panic!("{name} is no video")
    };
    seen
}

/// The subject without its source, or `unrecognized`.
fn subject_of(body: &[u8]) -> String {
    let subject = subject(SOURCE, body);
    subject.as_str().strip_prefix("gcore-main/").unwrap().to_owned()
}

#[test]
fn every_fixture_is_read_and_its_subject_agrees_with_its_meaning() {
    let (webhooks, malformed) = (fixtures("webhooks"), fixtures("malformed"));
    assert!(webhooks.len() >= 106 && malformed.len() >= 29);
    for (name, body) in webhooks.iter().chain(&malformed) {
        let subject = subject_of(body);
        let expected = match read(body).observation {
            Observation::LiveStream(_) => "stream/",
            Observation::Video(video) => &format!("video/{}", video.id),
            Observation::Broadcast(broadcast) => &format!("broadcast/{}", broadcast.id),
            Observation::Unrecognized => continue,
        };
        assert!(subject.starts_with(expected), "{name}: {subject} is no {expected}");
    }
}

#[test]
fn current_and_legacy_webhooks_are_all_recognized() {
    for (name, body) in fixtures("webhooks") {
        if name.starts_with("hostile-") || name.contains("restream") {
            continue;
        }
        assert_ne!(read(&body).observation, Observation::Unrecognized, "{name}");
        assert_ne!(subject_of(&body), "unrecognized", "{name}");
    }
}

#[test]
fn subjects_follow_the_type_and_the_id() {
    for (name, expected) in [
        ("tutorial-step-04-stream-live", "stream/320423"),
        ("tutorial-step-06-broadcast-live", "broadcast/192470"),
        ("tutorial-step-11-video-pending", "video/803111"),
        ("hostile-id-string", "stream/1001"),
        ("hostile-two-entities", "stream/1001"),
        // Of two keys the last counts: a video without an object of that name.
        ("hostile-duplicate-keys", "unrecognized"),
        ("hostile-whitespace", "stream/1"),
        ("hostile-lone-surrogate", "stream/1001"),
        ("hostile-nul-character", "stream/1001"),
        ("hostile-unknown-fields", "stream/1001"),
        ("hostile-id-exponent", "unrecognized"),
        ("hostile-id-float", "unrecognized"),
        ("hostile-id-negative", "unrecognized"),
        ("hostile-id-zero", "unrecognized"),
        ("hostile-id-null", "unrecognized"),
        ("hostile-id-missing", "unrecognized"),
        ("hostile-id-not-a-number", "unrecognized"),
        ("hostile-id-beyond-i64", "unrecognized"),
        ("hostile-id-beyond-u64", "unrecognized"),
        ("hostile-type-wrong-case", "unrecognized"),
        ("hostile-type-missing", "unrecognized"),
        ("hostile-type-null", "unrecognized"),
        ("hostile-type-number", "unrecognized"),
        ("hostile-message-missing", "unrecognized"),
        ("hostile-message-string", "unrecognized"),
        ("hostile-entity-missing", "unrecognized"),
        ("hostile-entity-mismatch", "unrecognized"),
        ("hostile-batch-array", "unrecognized"),
        ("hostile-top-level-string", "unrecognized"),
    ] {
        assert_eq!(subject_of(&webhook(name)), expected, "{name}");
    }
}

#[test]
fn video_delete_and_vod_speak_of_a_video() {
    for name in
        ["video-delete", "hostile-video-delete-bad-time", "hostile-video-delete-without-time"]
    {
        assert_eq!(video_of(name).status, VideoStatus::Deleted, "{name}");
        assert!(subject_of(&webhook(name)).starts_with("video/"), "{name}");
    }
    // Its entity is named either way.
    assert!(subject_of(&webhook("video-type-vod-alias")).starts_with("video/"));
}

#[test]
fn no_webhook_writes_to_our_own_subjects() {
    for kind in ["request", "account", "quota", "unrecognized"] {
        let body = format!(r#"{{"type":"{kind}","message":{{"{kind}":{{"id":5}}}}}}"#);
        assert_eq!(subject_of(body.as_bytes()), "unrecognized");
    }
}

#[test]
fn a_live_stream_is_read_field_by_field() {
    let seen = live_stream_of("tutorial-step-08-stream-recording-started");
    assert_eq!((seen.live, seen.recording, seen.backup_live), (Some(true), Some(true), None));
    let seen = live_stream_of("stream-backup-only");
    assert_eq!((seen.live, seen.backup_live), (Some(false), Some(true)));
    for name in ["hostile-bool-as-string", "hostile-bool-as-int", "hostile-bool-null"] {
        let seen = live_stream_of(name);
        assert_eq!((seen.live, seen.recording), (None, None), "{name} is unclear");
    }
    assert_eq!(live_stream_of("hostile-stream-only-id"), LiveStreamObserved::default());
}

#[test]
fn only_our_own_tag_is_a_tag() {
    assert!(live_stream_of("stream-foreign-entity-data").tag.is_none());
    assert!(live_stream_of("hostile-entity-data-object").tag.is_none());
    let tag = Tag::new(Uuid::from_u128(1), Uuid::from_u128(2), Some(serde_json::json!({"a": 1})));
    assert_eq!(Tag::read(&tag.text()), Some(tag));
    assert!(Tag::read(r#"{"v":1,"owner":"other","installation":"x","key":"y"}"#).is_none());
}

#[test]
fn a_video_is_read_field_by_field() {
    let seen = video_of("tutorial-step-17-video-viewable");
    assert_eq!((seen.id, seen.status), (VideoId(803_111), VideoStatus::Viewable));
    assert_eq!((seen.duration_ms, seen.renditions.len()), (Some(48_410), 4));
    assert!(!seen.tells_live_stream && seen.live_stream.is_none());
    let seen = video_of("hostile-stream-id-string");
    assert!(seen.live_stream.is_some() && seen.tells_live_stream);
    assert_eq!(video_of("hostile-unknown-status").status, VideoStatus::Unknown);
    assert_eq!(video_of("video-status-new").status, VideoStatus::Empty);
    for name in ["hostile-duration-string", "hostile-duration-negative", "hostile-duration-float"] {
        assert_eq!(video_of(name).duration_ms, None, "{name}");
    }
    for name in ["hostile-converted-videos-null", "hostile-converted-videos-object"] {
        assert!(video_of(name).renditions.is_empty(), "{name}");
    }
}

#[test]
fn an_odd_live_stream_id_of_a_video_tells_nothing() {
    for (id, tells) in [("null", true), ("5", true), ("\"5\"", true), ("1.5", false), ("{}", false)]
    {
        let object = serde_json::from_str(&format!(r#"{{"id":1,"stream_id":{id}}}"#)).unwrap();
        assert_eq!(video(&object).unwrap().tells_live_stream, tells, "{id}");
    }
}

#[test]
fn the_answers_of_the_api_are_read_the_same_way() {
    let api = fixtures("api");
    let object = |name: &str| serde_json::from_slice::<Value>(&api[name]).unwrap();
    let ended = video(&object("docs-video-empty-with-error.response")).unwrap();
    assert_eq!(ended.status, VideoStatus::Error);
    let pending = video(&object("docs-video-pending-progress.response")).unwrap();
    assert_eq!((pending.status, pending.error), (VideoStatus::Pending, None));
    let stopped = video(&object("tutorial-step-09-stop-recording.response")).unwrap();
    assert_eq!(stopped.status, VideoStatus::Unknown);
    assert!(stopped.recording_started_at.is_some());
    let flag = live_stream(&object("openapi-stream-with-recording-flag.response"));
    assert!(flag.recording.is_some());
    let duration = live_stream(&object("openapi-stream.response"));
    assert_eq!(duration.recording, Some(true), "told by its duration alone");
    let disabled = live_stream(&object("tutorial-step-14-disable-stream.response"));
    assert_eq!((disabled.active, disabled.live), (Some(false), Some(true)));
    assert!(broadcast(&object("openapi-broadcast.response")).is_none(), "it has no id");
}

#[test]
fn a_broadcast_is_read_in_any_letter_case() {
    let status = |name: &str| match read(&webhook(name)).observation {
        Observation::Broadcast(broadcast) => broadcast.status,
        Observation::LiveStream(_) | Observation::Video(_) | Observation::Unrecognized => {
            panic!("{name} is no broadcast")
        }
    };
    assert!(status("hostile-broadcast-capitalised-status").is_some());
    assert_eq!(status("hostile-broadcast-unknown-status"), None);
}

#[test]
fn the_name_of_a_recording_tells_when_it_began() {
    let seen = video_of("tutorial-step-11-video-pending");
    let began = seen.began_at().unwrap();
    assert_eq!(began.to_rfc3339(), "2022-06-03T13:24:27.590+00:00");
    for name in ["Stream Record: x", "Stream Record: x, yesterday", "x, 2022-06-03 13:25:16 +0000"]
    {
        assert_eq!(VideoObserved { name: Some(name.to_owned()), ..seen.clone() }.began_at(), None);
    }
}

#[test]
fn what_the_database_cannot_hold_is_replaced() {
    for name in ["a\\u0000b", "a\\ud800b", "a\\udc00\\ud800b", "a\0b"] {
        let body =
            format!(r#"{{"type":"video","message":{{"video":{{"id":1,"name":"{name}"}}}}}}"#);
        let Observation::Video(video) = read(body.as_bytes()).observation else {
            panic!("{name:?}")
        };
        let read = video.name.unwrap();
        assert!(!read.contains('\0') && read.starts_with('a') && read.ends_with('b'), "{read:?}");
    }
    let pair = r#"{"type":"video","message":{"video":{"id":1,"name":"\ud83d\ude00 \ud800"}}}"#;
    let Observation::Video(video) = read(pair.as_bytes()).observation else { panic!("no video") };
    assert_eq!(video.name.as_deref(), Some("\u{1f600} \u{fffd}"));
}

#[test]
fn a_byte_order_mark_and_bad_bytes_are_read_over() {
    for name in ["byte-order-mark", "invalid-utf8", "raw-nul-byte", "raw-control-character"] {
        let body = fixtures("malformed").remove(name).unwrap();
        assert_ne!(subject_of(&body), "unrecognized", "{name}");
    }
}

#[test]
fn a_body_that_is_broken_is_unrecognized_and_not_guessed() {
    for name in ["truncated", "two-documents", "trailing-comma", "html-502", "empty-body", "xml"] {
        let body = fixtures("malformed").remove(name).unwrap();
        assert_eq!(subject_of(&body), "unrecognized", "{name}");
        assert_eq!(read(&body).observation, Observation::Unrecognized, "{name}");
    }
}

#[test]
fn ten_megabytes_and_endless_nesting_are_survived() {
    let name = "x".repeat(10 << 20);
    let big = format!(r#"{{"type":"video","message":{{"video":{{"id":1,"name":"{name}"}}}}}}"#);
    assert_eq!(subject_of(big.as_bytes()), "video/1");
    let deep = "[".repeat(100_000);
    let open = format!(r#"{{"type":"stream","message":{{"stream":{{"id":1,"x":{deep}"#);
    let closed = format!("{open}{}}}}}}}", "]".repeat(100_000));
    for body in [open, closed, deep] {
        assert_eq!(subject_of(body.as_bytes()), "unrecognized");
        let _ = redact(body.as_bytes());
    }
}

#[test]
fn no_secret_of_any_fixture_is_left() {
    let secrets = [
        "aaabbbcccddd",
        "08cd54f0",
        "561041",
        "6460e735eda6b61bd4c99e02abf0c8df",
        "4a5d279b6371c7bcc5ce47afb0f74637",
        "your_secret_passphrase",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "X2lkIjoxMDE1fSwi",
    ];
    let mut found = 0;
    for folder in ["webhooks", "api", "malformed"] {
        for (name, body) in fixtures(folder) {
            let (clean, count) = redact(&body);
            let text = String::from_utf8_lossy(&clean);
            for secret in secrets {
                assert!(!text.contains(secret), "{name}: {text}");
            }
            found += count;
            if serde_json::from_slice::<Value>(&body).is_ok() {
                assert!(serde_json::from_slice::<Value>(&clean).is_ok(), "{name} is JSON no more");
            }
            assert_eq!(subject(SOURCE, &clean), subject(SOURCE, &body), "{name}");
            assert_eq!(redact(&clean).0, clean, "{name}: twice is once");
        }
    }
    assert!(found >= 30, "{found} secrets");
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(body in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        let _ = (read(&body), subject(SOURCE, &body));
    }

    #[test]
    fn no_change_of_a_fixture_makes_it_panic(
        n in 0..200_usize,
        at in 0..4000_usize,
        byte in proptest::num::u8::ANY,
    ) {
        let all = fixtures("webhooks");
        let mut body = all.values().nth(n % all.len()).unwrap().clone();
        let at = at % body.len();
        body[at] = byte;
        let _ = (read(&body), subject(SOURCE, &body), redact(&body));
    }
}
