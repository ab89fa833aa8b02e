//! Endpoints: what they hear, how messages to them are signed and ordered.

use proptest::prelude::*;

use super::*;
use crate::announcement::{CleanupNews, EndpointNews, SessionNews};
use crate::ids::LiveStreamId;

fn went_live(account: Option<&str>) -> Announcement {
    Announcement::SessionWentLive(SessionNews {
        session: Uuid::nil(),
        live_stream: Some(LiveStreamId(1)),
        account: account.map(str::to_owned),
        note: None,
        derived: None,
    })
}

fn filter(types: &[&str], accounts: &[&str], sources: &[&str]) -> Filter {
    let list = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    Filter { types: list(types), accounts: list(accounts), sources: list(sources) }
}

#[test]
fn an_endpoint_hears_what_passes_all_of_its_lists() {
    for (types, accounts, sources, hears) in [
        (&[][..], &[][..], &[][..], true),
        (&["session.live"], &[], &[], true),
        (&["session.*"], &[], &[], true),
        (&["*"], &[], &[], true),
        (&["recording.*", "session.l*"], &[], &[], true),
        (&["session"], &[], &[], false),
        (&["session.ended", "recording.*"], &[], &[], false),
        (&[], &["a", "b"], &[], true),
        (&[], &["b"], &[], false),
        (&[], &[], &["main"], true),
        (&[], &[], &["other"], false),
        (&["session.*"], &["a"], &["other"], false),
        (&["session.*"], &["a"], &["other", "main"], true),
    ] {
        let filter = filter(types, accounts, sources);
        assert_eq!(filter.hears("main", &went_live(Some("a"))), hears, "{filter:?}");
    }
}

#[test]
fn what_is_about_no_account_passes_no_list_of_accounts() {
    let of_account = filter(&[], &["a"], &[]);
    assert!(!of_account.hears("main", &went_live(None)));
    let news = EndpointNews { endpoint: Uuid::nil(), reason: String::new() };
    assert!(!of_account.hears("endpoint", &Announcement::EndpointDisabled(news)));
    let cleanup = CleanupNews {
        run: Uuid::nil(),
        live_stream: LiveStreamId(1),
        deleted: true,
        reason: String::new(),
        videos: Vec::new(),
        account: Some("a".to_owned()),
    };
    assert!(of_account.hears("main", &Announcement::CleanupDone(cleanup)));
}

#[test]
fn a_pattern_means_some_topic() {
    for pattern in ["*", "session.*", "session.l*", "recording.part_ready", "s*"] {
        assert!(is_pattern(pattern), "{pattern}");
    }
    for pattern in ["", "session", "session.gone", "*.live", "sessions.*", "session.**"] {
        assert!(!is_pattern(pattern), "{pattern}");
    }
}

/// The key, message and signature that the libraries of the specification are tested with.
#[test]
fn the_signature_is_that_of_the_specification() {
    let key = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    let body = r#"{"test": 2432232314}"#;
    let mac = mac(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
    assert_eq!(STANDARD.encode(mac), "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
}

#[test]
fn a_secret_is_told_in_the_form_of_the_specification_and_shown_nowhere() {
    let secret = Secret::new([7; 32]);
    assert_eq!(secret.text(), "whsec_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=");
    assert_eq!(format!("{secret:?}"), "Secret([redacted])");
    let (one, other) = (secret.sign("a", 1, "b"), Secret::new([8; 32]).sign("a", 1, "b"));
    assert!(one.starts_with("v1,") && one.len() == 3 + 44);
    assert_ne!(one, other);
}

fn announced(slice: i16, position: i64) -> RecordedEvent {
    let (name, version, payload) = crate::event::Event::Announced(went_live(None)).encode();
    RecordedEvent {
        slice,
        position,
        recorded_at: Timestamp::default(),
        received_at: Timestamp::default(),
        event_id: Uuid::nil(),
        subject: Subject::live_stream("main", LiveStreamId(1)),
        event_type: name.to_owned(),
        schema_version: version,
        causation_id: None,
        correlation_id: None,
        meta: None,
        payload,
    }
}

proptest! {
    #[test]
    fn deliveries_of_one_subject_are_in_the_order_of_their_events(
        slice in 0i16.., position in 1i64..i64::MAX, endpoint: u128,
    ) {
        let endpoint = Uuid::from_u128(endpoint);
        let (one, next) = (announced(slice, position), announced(slice, position + 1));
        let (one, next) = (delivery(endpoint, &one), delivery(endpoint, &next));
        prop_assert_eq!(&one.subject, &next.subject);
        prop_assert!((one.run_at, one.id) < (next.run_at, next.id));
        let args: DeliverArgs = serde_json::from_value(one.args).unwrap();
        prop_assert_eq!(args.message, Told::At(slice, position));
    }
}

#[test]
fn endpoints_have_deliveries_of_their_own() {
    let stored = announced(3, 4);
    let (one, other) = (delivery(Uuid::nil(), &stored), delivery(Uuid::max(), &stored));
    assert_ne!((&one.id, &one.subject), (&other.id, &other.subject));
    assert_eq!(delivery(Uuid::nil(), &stored), one, "folded again it is the same");
}
