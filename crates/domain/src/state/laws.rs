//! Laws of facts that have a rank: however they are ordered and repeated, the same is known.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::call::Call;
use crate::event::{
    CallIntended, CallSucceeded, SessionBound, SessionOptions, SessionRequested, VideoChanged,
};
use crate::ids::{Subject, derived_id};
use crate::scenario::{SOURCE, Scenario};
use crate::webhook;

const STREAM: i64 = 320_423;
const VIDEO: i64 = 803_111;

/// What webhooks tell of one video on its way: any status, its renditions as far as they are.
fn arb_fact() -> impl Strategy<Value = Value> {
    let status = prop::sample::select(vec!["empty", "pending", "viewable", "ready", "error"]);
    let rendition = prop::option::of(prop::sample::select(vec!["processing", "error", "complete"]));
    let renditions = [rendition.clone(), rendition];
    (status, renditions, any::<[bool; 3]>()).prop_map(
        |(status, renditions, [deleted, timed, told])| {
            let kind = if deleted { "video_delete" } else { "video" };
            let renditions = renditions.iter().zip(["a", "b"]).filter_map(|(status, name)| {
                status.map(|status| json!({"name": name, "status": status}))
            });
            let mut video = json!({"id": VIDEO, "status": status, "name": "n",
            "converted_videos": renditions.collect::<Vec<_>>()});
            if timed {
                video["duration"] = json!(48_410);
            }
            if told {
                video["stream_id"] = json!(STREAM);
            }
            json!({"type": kind, "message": {"video": video}})
        },
    )
}

/// Facts, and the same facts in another order, some of them several times.
fn arb_orders() -> impl Strategy<Value = (Vec<Value>, Vec<Value>)> {
    prop::collection::vec(arb_fact(), 1..8).prop_flat_map(|facts| {
        let repeats = prop::collection::vec(0..facts.len(), 0..6);
        let all = facts.clone();
        let other = repeats.prop_map(move |repeats| {
            let again = repeats.into_iter().map(|n| all[n].clone());
            all.iter().cloned().chain(again).collect::<Vec<_>>()
        });
        (Just(facts), other.prop_shuffle())
    })
}

fn fold(subject: &Subject, from: Option<State>, events: &[Event]) -> Option<State> {
    let received_at = Timestamp::from_timestamp(1_654_262_600, 0).unwrap();
    let mut state = from;
    for event in events {
        let stored = StoredEvent {
            received_at,
            subject,
            event_type: event.name(),
            schema_version: 1,
            payload: &[],
        };
        evolve_in_place(&mut state, stored, event);
    }
    state
}

fn webhooks(facts: &[Value]) -> Vec<Event> {
    let read = |fact: &Value| Event::WebhookReceived(webhook::read(fact.to_string().as_bytes()));
    facts.iter().map(read).collect()
}

/// A session on a live stream that was made for it.
fn session() -> (Subject, Option<State>) {
    let live_stream = LiveStreamId(STREAM);
    let request = SessionRequested {
        session: derived_id("session", &[]),
        source: SOURCE.to_owned(),
        account: None,
        name: "n".to_owned(),
        live_stream: None,
        options: SessionOptions::default(),
    };
    let (observed, go_live, end) = (None, false, false);
    let bound = SessionBound { request, live_stream, created: true, observed, go_live, end };
    let subject = Subject::live_stream(SOURCE, live_stream);
    let state = fold(&subject, None, &[Event::SessionBound(bound)]);
    (subject, state)
}

/// What is known of the parts of all sessions. Whether one could ever be played depends on what was
/// told before it was deleted.
fn parts(state: Option<&State>) -> Vec<webhook::VideoObserved> {
    let Some(State { body: Body::LiveStream(stream), .. }) = state else { return Vec::new() };
    let parts = stream.sessions.iter().flat_map(|session| &session.recording.parts);
    parts.map(|part| part.video.clone()).collect()
}

/// Fields that states of earlier builds lack.
const ADDED: [&str; 17] = [
    "started_at",
    "told_at",
    "sent",
    "looked",
    "orphan",
    "look_due",
    "had_session",
    "intent",
    "given_up",
    "end_reason",
    "broadcasts_given_up",
    "label_by_hand",
    "losses",
    "waiting",
    "off_air_at",
    "lasts",
    "asked",
];

/// Those of parts.
const ADDED_TO_PARTS: [&str; 2] = ["since", "overdue"];

/// The value without fields that were added.
fn earlier(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let is_part = fields.contains_key("unlisted");
            let is_added =
                |name: &str| ADDED.contains(&name) || is_part && ADDED_TO_PARTS.contains(&name);
            let known = fields.iter().filter(|(name, _)| !is_added(name));
            Value::Object(known.map(|(name, value)| (name.clone(), earlier(value))).collect())
        }
        Value::Array(items) => items.iter().map(earlier).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

#[test]
fn states_of_earlier_builds_are_read() {
    let mut s = Scenario::new();
    let session = s.request("key", |r| r.options.auto_go_live = true);
    s.encoder_connects(STREAM);
    s.recording_shows(STREAM, true);
    s.pass(std::time::Duration::from_mins(1));
    s.encoder_drops(STREAM);
    s.pass(std::time::Duration::from_secs(20));
    s.end(session);
    let mut seen = 0;
    for (_, state) in s.states() {
        let old = earlier(&serde_json::to_value(state).unwrap());
        let read: State = serde_json::from_value(old).unwrap();
        assert_eq!(read.at, state.at);
        seen += 1;
    }
    assert!(seen >= 3);
}

/// What is told of the files of one recording: each its own time, each told again and again.
fn arb_files() -> impl Strategy<Value = (Vec<Event>, Vec<Event>)> {
    let status = prop::sample::select(vec!["pending", "viewable", "ready", "error"]);
    let told = (0..4_i64, status).prop_map(|(n, status)| {
        let began = Timestamp::from_timestamp(1_654_262_600 + n * 100, 0).unwrap();
        let video = json!({"id": VIDEO + (n * 3) % 4, "status": status, "stream_id": STREAM,
            "duration": 60_000 + n, "recording_started_at": began.to_rfc3339()});
        Event::VideoChanged(VideoChanged { video: webhook::video(&video).unwrap() })
    });
    prop::collection::vec(told, 1..10).prop_flat_map(|told| {
        let all: Vec<Event> = told.iter().chain(&told).cloned().collect();
        (Just(told), Just(all).prop_shuffle())
    })
}

/// The parts and the gaps of the first session's recording.
fn recording(state: Option<&State>) -> (Vec<VideoId>, Vec<crate::recording::Gap>) {
    let Some(State { body: Body::LiveStream(stream), .. }) = state else {
        return Default::default();
    };
    let recording = &stream.sessions[0].recording;
    (recording.parts.iter().map(|part| part.video.id).collect(), recording.gaps())
}

/// What was commanded of the first session.
fn commanded(state: Option<&State>) -> (bool, bool) {
    let Some(State { body: Body::LiveStream(stream), .. }) = state else { return (false, false) };
    stream.sessions.first().map_or((false, false), |session| (session.go_live, session.end))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_recording_has_its_parts_and_gaps_in_whatever_order_they_are_told(
        (told, other) in arb_files(),
    ) {
        let (subject, bound) = session();
        let known = |told: &[Event]| fold(&subject, bound.clone(), told);
        let (first, second) = (known(&told), known(&other));
        prop_assert_eq!(recording(first.as_ref()), recording(second.as_ref()));
        prop_assert_eq!(parts(first.as_ref()), parts(second.as_ref()));
    }

    /// Commands have no rank among each other, and one that came counts for good.
    #[test]
    fn commands_count_once_in_whatever_order_they_come(
        (told, other) in prop::collection::vec(any::<bool>(), 1..6).prop_flat_map(|told| {
            let again: Vec<bool> = told.iter().chain(&told).copied().collect();
            (Just(told), Just(again).prop_shuffle())
        }),
    ) {
        let (subject, bound) = session();
        // While it is called for, it does not end.
        let call = Call::CreateBroadcast {
            live_stream: LiveStreamId(STREAM), name: "n".to_owned(), earlier: Vec::new(),
            only_look: false,
        };
        let intent = derived_id("intent", &[]);
        let bound = fold(&subject, bound, &[Event::CallIntended(CallIntended { intent, call })]);
        let of = crate::event::SessionRef { session: derived_id("session", &[]) };
        let command = |ends: &bool| {
            if *ends { Event::EndRequested(of) } else { Event::GoLiveRequested(of) }
        };
        let known = |told: &[bool]| {
            fold(&subject, bound.clone(), &told.iter().map(command).collect::<Vec<_>>())
        };
        prop_assert_eq!(commanded(known(&told).as_ref()), commanded(known(&other).as_ref()));
        let last = command(told.last().unwrap());
        let once = known(&told);
        prop_assert_eq!(fold(&subject, once.clone(), &[last]), once);
    }

    #[test]
    fn a_video_is_known_alike_in_whatever_order_it_is_told((facts, other) in arb_orders()) {
        let subject = Subject::video(SOURCE, VideoId(VIDEO));
        let known = |facts: &[Value]| fold(&subject, None, &webhooks(facts));
        prop_assert_eq!(known(&facts), known(&other));
    }

    #[test]
    fn a_part_is_known_alike_in_whatever_order_it_is_told((facts, other) in arb_orders()) {
        let (subject, bound) = session();
        let known = |facts: &[Value]| {
            let changes: Vec<Event> = webhooks(facts).iter().filter_map(|event| {
                let Some(webhook::Observation::Video(video)) = event.observation() else { return None };
                Some(Event::VideoChanged(VideoChanged { video: video.clone() }))
            }).collect();
            parts(fold(&subject, bound.clone(), &changes).as_ref())
        };
        prop_assert_eq!(known(&facts), known(&other));
    }

    /// The outcome of a call that was told is no news the second time, and none of another call.
    #[test]
    fn an_outcome_counts_once(repeats in 1..4_usize, stranger in any::<u64>()) {
        let (subject, bound) = session();
        let (call, intent) = (Call::CreateBroadcast {
            live_stream: LiveStreamId(STREAM), name: "n".to_owned(), earlier: Vec::new(),
            only_look: false,
        }, derived_id("intent", &[]));
        let observed = json!({"id": 192_470, "status": "pending"});
        let done = |intent, observed: &Value| Event::CallSucceeded(CallSucceeded {
            intent, result: crate::call::CallResult::Broadcast { observed: observed.clone() },
        });
        let once = [Event::CallIntended(CallIntended { intent, call }), done(intent, &observed)];
        let again = std::iter::repeat_n(done(intent, &json!({"id": 7})), repeats);
        let other = done(derived_id("other", &[&stranger.to_string()]), &json!({"id": 8}));
        let known = fold(&subject, bound, &once);
        let told: Vec<Event> = again.chain([other]).collect();
        prop_assert_eq!(fold(&subject, known.clone(), &told), known);
    }
}
