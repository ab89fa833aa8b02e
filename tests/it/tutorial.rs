//! The platform's tutorial, step by step: everything that we send and hear, and nothing besides.

use std::path::Path;

use domain::event::RecordedEvent;
use domain::ids::Timestamp;
use domain::timer::Policy;
use serde_json::Value;
use simulator::{Behaviour, BodyForm, Encoding, RequestLogEntry};

use crate::system::{Setup, TestSystem, behaviour, until};

/// Slow enough that the platform's own steps keep their order on a busy machine.
const TIME_SCALE: f64 = 10.0;

/// The tutorial's names: with the ids, which the simulator gives as the tutorial prints them, all
/// paths are its paths.
const NAME: &str = "test_stream";

/// One step of the tutorial.
struct Step {
    number: u64,
    exchange: Value,
}

#[tokio::test]
async fn the_tutorials_nineteen_steps_happen_in_order() {
    let system = TestSystem::start(as_the_tutorial_has_it()).await;
    let session = system.request(NAME, serde_json::json!({})).await;
    let stream = system.until_ready(session).await;
    system.simulator.push(stream).unwrap();
    // Playable before it is shown: so the webhook that repeats step 4 comes before step 5.
    until("the stream can be played", async || {
        (system.stream(stream)["transcoding"] == true).then_some(())
    })
    .await;
    system.tell(session, "go-live").await;
    system.until_status(session, "live").await;
    system.until_recorded(stream).await;
    system.tell(session, "end").await;
    // The renditions are the platform's and end when they end: after the broadcast is deleted.
    until("the broadcast is deleted", async || {
        (system.changes().last()?.method == "DELETE").then_some(())
    })
    .await;
    system.simulator.behave(as_it_was(Encoding::Completes));
    let end = system.until_ended(session).await;
    assert!(end.is_all_ready());

    let steps = steps();
    let changes = system.changes();
    let webhooks = webhooks(&system.events().await);
    let fetches = fetches_of(&system, end.videos[0]);
    let got: Vec<u64> = in_time(&steps, &changes, &webhooks, &fetches);
    let four_twice: Vec<u64> = [1, 2, 3, 4].into_iter().chain(4..=19).collect();
    assert_eq!(got, four_twice);
    system.end().await;
}

/// The platform as it was when the tutorial was written.
fn as_the_tutorial_has_it() -> Setup {
    Setup {
        wrap_create: true,
        policy: Policy::default().scaled(TIME_SCALE),
        simulator: simulator::Config {
            time_scale: TIME_SCALE,
            legacy_broadcast_webhooks: true,
            behaviour: as_it_was(Encoding::Waits),
            ..simulator::Config::default()
        },
        ..Setup::default()
    }
}

/// The forms of that time.
fn as_it_was(encoding: Encoding) -> Behaviour {
    Behaviour {
        create_body: BodyForm::Wrapped,
        legacy_stream_webhooks: true,
        legacy_video_webhooks: true,
        encoding,
        ..behaviour()
    }
}

/// The numbers of the steps that happened, in order of time. Every request that changes something
/// and every webhook must be the next step of its kind, in every field.
fn in_time(
    steps: &[Step],
    changes: &[RequestLogEntry],
    webhooks: &[(Timestamp, Value)],
    fetches: &[RequestLogEntry],
) -> Vec<u64> {
    let is_change = |step: &&Step| !step.exchange["method"].is_null() && step.number != 19;
    let calls: Vec<&Step> = steps.iter().filter(is_change).collect();
    let mut told: Vec<&Step> = steps.iter().filter(|s| !s.exchange["webhook"].is_null()).collect();
    // In the oldest form, "live" and "playable" are the same bytes.
    told.insert(1, told[0]);
    let lines = |all: &[RequestLogEntry]| -> Vec<String> {
        all.iter().map(|r| format!("{} {}", r.method, r.path)).collect()
    };
    assert_eq!(changes.len(), calls.len(), "{:?}", lines(changes));
    assert_eq!(webhooks.len(), told.len(), "{webhooks:?}");

    let mut happened: Vec<(Timestamp, u64)> = Vec::new();
    for (change, step) in changes.iter().zip(calls) {
        step.must_be_request(change);
        happened.push((change.at, step.number));
    }
    for ((at, body), step) in webhooks.iter().zip(told) {
        step.must_be_webhook(body);
        happened.push((*at, step.number));
    }
    let last = fetches.last().expect("the video is fetched");
    steps[18].must_be_request(last);
    assert_eq!(last.response.as_ref().unwrap()["status"], "ready");
    happened.push((last.at, 19));
    happened.sort();
    happened.into_iter().map(|(_, number)| number).collect()
}

impl Step {
    /// Method, path, status, and each field that we send: it must be one of the tutorial's and have
    /// its value. Names are ours, and so is the tag; what we leave out has its default.
    fn must_be_request(&self, request: &RequestLogEntry) {
        let Self { number, exchange } = self;
        assert_eq!(exchange["method"], request.method, "step {number}");
        assert_eq!(exchange["path"], request.path, "step {number}");
        assert_eq!(exchange["status"], request.status, "step {number}");
        let ours = request.body.clone().unwrap_or_default();
        let theirs = exchange["request"].as_str().map(fixture).unwrap_or_default();
        must_be_part(&ours, &theirs, &format!("step {number}"));
    }

    /// The same fields with the same values, but for what differs from video to video.
    fn must_be_webhook(&self, body: &Value) {
        let mut expected = fixture(self.exchange["webhook"].as_str().unwrap());
        if let Some(video) = expected["message"].get_mut("video") {
            for field in ["slug", "name", "duration"] {
                let ours = &body["message"]["video"][field];
                assert!(!ours.is_null(), "step {}: {field} is missing in {body}", self.number);
                video[field] = ours.clone();
            }
        }
        assert_eq!(body, &expected, "step {}", self.number);
    }
}

/// Every field of `ours` is one of `theirs`, with its value.
fn must_be_part(ours: &Value, theirs: &Value, place: &str) {
    let (Value::Object(ours), Value::Object(theirs)) = (ours, theirs) else {
        return assert_eq!(ours, theirs, "{place}");
    };
    for (field, value) in ours {
        match field.as_str() {
            "name" => assert!(value.as_str().is_some_and(|name| name.starts_with(NAME)), "{place}"),
            "client_entity_data" => assert!(value.is_string(), "{place}"),
            _ => {
                let expected = theirs.get(field).unwrap_or_else(|| panic!("{place}: {field}?"));
                must_be_part(value, expected, &format!("{place}, {field}"));
            }
        }
    }
}

/// The tutorial's steps, in order.
fn steps() -> Vec<Step> {
    let document = fixture("tutorial-exchanges.json");
    let steps = document["steps"].as_array().unwrap().iter();
    steps.map(|s| Step { number: s["step"].as_u64().unwrap(), exchange: s.clone() }).collect()
}

fn fixture(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The webhooks of the log, by the time of their arrival.
fn webhooks(events: &[RecordedEvent]) -> Vec<(Timestamp, Value)> {
    let webhooks = events.iter().filter(|event| event.event_type == "WebhookReceived");
    let mut webhooks: Vec<_> = webhooks
        .map(|event| (event.received_at, serde_json::from_slice(&event.payload).unwrap()))
        .collect();
    webhooks.sort_by_key(|(at, _)| *at);
    webhooks
}

/// Requests for a video.
fn fetches_of(system: &TestSystem, video: i64) -> Vec<RequestLogEntry> {
    let path = format!("/streaming/videos/{video}");
    let all = system.simulator.requests().into_iter();
    all.filter(|request| request.method == "GET" && request.path == path).collect()
}
