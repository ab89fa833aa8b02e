//! Rules, chance and kinds, without a network.

use serde_json::json;

use super::*;

#[test]
fn a_pattern_meets_what_it_spells_out() {
    for (pattern, method, path, met) in [
        ("POST /streaming/streams", "POST", "/streaming/streams", true),
        ("POST /streaming/streams", "POST", "/streaming/streams/1", false),
        ("POST /streaming/streams", "GET", "/streaming/streams", false),
        (
            "put /streaming/streams/*/stop_recording",
            "PUT",
            "/streaming/streams/7/stop_recording",
            true,
        ),
        ("* /streaming/**", "DELETE", "/streaming/videos/9", true),
        ("* /streaming/**", "GET", "/streaming", true),
        ("* /streaming/**", "GET", "/iam/clients/me", false),
        ("GET", "GET", "/", false),
    ] {
        assert_eq!(meets(pattern, method, path), met, "{pattern} on {method} {path}");
    }
}

#[test]
fn a_counted_rule_ends_and_lets_the_next_one_decide() {
    let book = FaultBook::new(1);
    let rules =
        vec![Rule::times(2, "* /**", Effect::Reset), Rule::always("* /**", Effect::LatencyMs(1))];
    book.set(Faults { rules, ..Faults::default() });
    let effects: Vec<_> = (0..3).filter_map(|_| book.effect_on("GET", "/x")).collect();
    assert_eq!(effects, [Effect::Reset, Effect::Reset, Effect::LatencyMs(1)]);
}

#[test]
fn chance_is_seeded() {
    let draw = |seed| {
        let book = FaultBook::new(seed);
        let rules = vec![Rule::sometimes(0.5, "* /**", Effect::Reset)];
        book.set(Faults { rules, ..Faults::default() });
        (0..64).map(|_| book.effect_on("GET", "/").is_some()).collect::<Vec<_>>()
    };
    assert_eq!(draw(7), draw(7));
    assert_ne!(draw(7), draw(8));
    assert!(draw(7).contains(&true) && draw(7).contains(&false));
}

#[test]
fn only_the_named_webhooks_are_touched() {
    let book = FaultBook::new(1);
    let webhooks =
        WebhookFaults { lose: 1.0, only: vec!["video".to_owned()], ..Default::default() };
    book.set(Faults { webhooks, ..Faults::default() });
    assert!(book.fate_of("video", 1).lost);
    assert!(!book.fate_of("stream", 1).lost);
}

#[test]
fn the_control_body_reads_as_documented() {
    let faults: Faults = serde_json::from_value(json!({
        "rules": [
            {"match": "POST /streaming/streams", "times": 1,
             "effect": {"apply_then_status": {"status": 500, "shape": "d", "text": "internal"}}},
            {"match": "* /**", "probability": 0.1, "effect": {"latency_ms": 50}},
            {"match": "GET /streaming/videos", "effect": "reset"},
            {"match": "GET /streaming/streams", "effect":
                {"status": {"status": 429, "headers": {"Retry-After": "2"}}}},
        ],
        "webhooks": {"lose": 0.1, "duplicate": 0.2, "delay_ms": 300},
    }))
    .unwrap();
    assert_eq!(faults.rules.len(), 4);
    assert_eq!(faults.rules[2].effect, Effect::Reset);
    let again = serde_json::from_value(serde_json::to_value(&faults).unwrap()).unwrap();
    assert_eq!(faults, again);
}

/// The effects on `count` requests of one path.
fn effects(calls: CallFaults, path: &str, count: usize) -> Vec<Option<Effect>> {
    let book = FaultBook::new(11);
    book.set(Faults { calls, ..Faults::default() });
    (0..count).map(|_| book.effect_on("PUT", path)).collect()
}

#[test]
fn calls_fail_at_the_rate_that_is_asked_for_and_half_of_them_after_the_effect() {
    let calls = CallFaults { rate: 0.2, after_effect: 0.5, ..CallFaults::default() };
    let effects = effects(calls, "/streaming/streams/1", 5000);
    let failed: Vec<&Effect> = effects.iter().flatten().collect();
    assert!((900..1100).contains(&failed.len()), "{}", failed.len());
    let is_after =
        |effect: &&&Effect| matches!(effect, Effect::ApplyThenStatus(_) | Effect::ApplyThenReset);
    let after = failed.iter().filter(is_after).count();
    assert!((400..600).contains(&after), "{after}");
}

#[test]
fn every_kind_strikes_where_it_can_and_does_what_its_name_says() {
    for kind in FaultKind::ALL {
        let calls =
            CallFaults { rate: 1.0, kinds: vec![kind], late_ms: 9, ..CallFaults::default() };
        let path = format!("/streaming/streams/1{}", kind.place().unwrap_or_default());
        let effect = effects(calls.clone(), &path, 1).remove(0).unwrap();
        let carried_out =
            !matches!(effect, Effect::Status(_) | Effect::Reset | Effect::ResetAfterMs(9));
        assert_eq!(carried_out, kind.is_after_effect(), "{kind}");
        if kind.place().is_some() {
            assert_eq!(effects(calls, "/streaming/streams/1", 1), [None], "{kind}");
        }
    }
}

#[test]
fn both_forms_of_retry_after_and_every_shape_come_up() {
    let calls = |kinds| CallFaults { rate: 1.0, kinds, ..CallFaults::default() };
    let header = |kind| match effects(calls(vec![kind]), "/x", 1).remove(0) {
        Some(Effect::Status(refusal)) => refusal.headers.get("Retry-After").cloned(),
        _ => None,
    };
    assert_eq!(header(FaultKind::RateLimitSeconds).as_deref(), Some("1"));
    assert!(header(FaultKind::RateLimitDate).is_some_and(|date| date.ends_with(" GMT")));
    assert_eq!(header(FaultKind::RateLimitSilent), None);
    let shapes = effects(calls(vec![FaultKind::ServerError]), "/x", 200);
    for shape in [ErrorShape::A, ErrorShape::B, ErrorShape::C, ErrorShape::D, ErrorShape::E] {
        let has = |effect: &Option<Effect>| matches!(effect, Some(Effect::Status(refusal)) if refusal.shape == shape);
        assert!(shapes.iter().any(has), "{shape:?}");
    }
    let refused = effects(calls(vec![FaultKind::Refused]), "/x", 200);
    for status in [400, 403, 404, 410, 422] {
        let has = |effect: &Option<Effect>| matches!(effect, Some(Effect::Status(refusal)) if refusal.status == status);
        assert!(refused.iter().any(has), "{status}");
    }
}

#[test]
fn webhooks_are_lost_repeated_and_overtaken_at_their_rates() {
    let book = FaultBook::new(5);
    let webhooks = WebhookFaults {
        lose: 0.3,
        duplicate: 0.1,
        reorder: 0.2,
        late_ms: 1000,
        ..WebhookFaults::default()
    };
    book.set(Faults { webhooks, ..Faults::default() });
    let fates: Vec<Fate> = (0..2000).map(|id| book.fate_of("stream", id)).collect();
    let count = |test: &dyn Fn(&Fate) -> bool| fates.iter().filter(|fate| test(fate)).count();
    assert!((520..680).contains(&count(&|fate| fate.lost)));
    assert!((150..250).contains(&count(&|fate| fate.waits.len() == 2)));
    assert!((330..490).contains(&count(&|fate| fate.waits[0] > Duration::ZERO)));
}

#[test]
fn the_page_about_the_simulator_names_every_kind_and_every_mishap() {
    let page = include_str!("../../../../docs/simulator.md");
    let kinds = FaultKind::ALL.map(|kind| kind.to_string());
    let mishaps = Mishap::ALL.map(|mishap| mishap.to_string());
    for name in kinds.iter().chain(&mishaps) {
        assert!(page.contains(&format!("| `{name}` |")), "{name}");
    }
}
