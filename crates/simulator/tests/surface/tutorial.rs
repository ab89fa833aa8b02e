//! The nineteen steps of the platform's tutorial, in order, compared with the printed samples.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use simulator::Config;

use crate::receiver::Receiver;
use crate::stage::Stage;

/// Fields of the printed samples that the current API no longer has.
const RETIRED: [&str; 2] = ["rtmp_play_url", "transcoding_enabled"];

/// Returns a published sample.
pub(crate) fn fixture(name: &str) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    let text = std::fs::read_to_string(folder.join(name)).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Checks that every field of a sample is there with the same JSON type, on all levels.
fn assert_shaped_like(given: &Value, sample: &Value, place: &str) {
    match (given, sample) {
        (Value::Object(given), Value::Object(sample)) => {
            for (field, sample) in sample.iter().filter(|(field, _)| !RETIRED.contains(&&***field))
            {
                let place = format!("{place}.{field}");
                let given = given.get(field).unwrap_or_else(|| panic!("{place} is missing"));
                assert_shaped_like(given, sample, &place);
            }
        }
        (Value::Array(given), Value::Array(sample)) => {
            for (given, sample) in given.iter().zip(sample) {
                assert_shaped_like(given, sample, place);
            }
        }
        (Value::Bool(_), Value::Bool(_))
        | (Value::Number(_), Value::Number(_))
        | (Value::String(_), Value::String(_))
        | (Value::Null, Value::Null) => {}
        _ => panic!("{place}: {given} is not shaped like {sample}"),
    }
}

/// Returns the one entity of a webhook.
fn entity(webhook: &Value) -> &Value {
    webhook["message"].as_object().unwrap().values().next().unwrap()
}

/// True if a webhook tells what a sample tells.
fn tells(body: &Value, sample: &Value) -> bool {
    let (given, wanted) = (entity(body), entity(sample));
    body["type"] == sample["type"]
        && ["id", "live", "recording", "status"]
            .iter()
            .all(|field| wanted.get(field).is_none_or(|value| given.get(field) == Some(value)))
}

#[tokio::test]
async fn the_tutorial_can_be_walked_as_printed() {
    let receiver = Receiver::answering(200).await;
    let config = Config {
        webhook_url: Some(receiver.url.clone()),
        legacy_broadcast_webhooks: true,
        ..Config::default()
    };
    let stage = Stage::with(config).await;
    // Where the last webhook of each type was found: equal bodies come twice, and types interleave.
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    for exchange in fixture("tutorial-exchanges.json")["steps"].as_array().unwrap() {
        let place = format!("step {}", exchange["step"]);
        if let Some(sample) = exchange["webhook"].as_str().map(fixture) {
            let kind = sample["type"].as_str().unwrap().to_owned();
            let earlier = found.get(&kind).map_or(0, |index| index + 1);
            let wanted = |body: &Value| tells(body, &sample);
            let (index, body) = receiver.wait_after(earlier, &place, wanted).await;
            assert_shaped_like(&body, &sample, &place);
            found.insert(kind, index);
        } else {
            take_step(&stage, exchange, &place).await;
        }
        between_steps(&stage, &exchange["step"]).await;
    }
}

/// Makes the call of a step and compares the answer.
async fn take_step(stage: &Stage, exchange: &Value, place: &str) {
    let text = |field: &str| exchange[field].as_str();
    let body = text("request").map_or(Value::Null, fixture);
    let answer = stage.call(text("method").unwrap(), text("path").unwrap(), body).await;
    assert_eq!(json!(answer.status), exchange["status"], "{place}");
    if let Some(sample) = text("response").map(fixture) {
        assert_shaped_like(&answer.json(), &sample, place);
        for field in ["id", "live", "active", "status", "stream_id", "stream_ids"] {
            if let Some(value) = sample.get(field) {
                assert_eq!(answer.json().get(field), Some(value), "{place}.{field}");
            }
        }
    }
}

/// Does what the tutorial leaves to its user: stream, and record long enough for a video.
async fn between_steps(stage: &Stage, step: &Value) {
    if step == 3 {
        stage.simulator.push(320_423).unwrap();
    }
    if step == 8 {
        let target = "/streaming/streams/320423";
        let long_enough = |stream: &Value| stream["recording_duration"].as_f64() > Some(0.15);
        stage.wait_for(target, long_enough).await;
    }
}
