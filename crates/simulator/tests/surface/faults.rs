//! Each fault as a client meets it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use simulator::{Effect, ErrorShape, Faults, Refusal, Rule};

use crate::stage::Stage;

const STREAMS: &str = "/streaming/streams";

/// Sets one fault that meets the next create of a stream.
async fn stage_with(effect: Effect) -> Stage {
    let stage = Stage::new().await;
    let rules = vec![Rule::once("POST /streaming/streams", effect)];
    stage.simulator.faults(Faults { rules, ..Faults::default() });
    stage
}

/// Returns how many streams there are.
async fn streams(stage: &Stage) -> usize {
    stage.call("GET", STREAMS, Value::Null).await.json().as_array().unwrap().len()
}

fn create() -> Value {
    json!({"name": "n"})
}

#[tokio::test]
async fn a_status_is_answered_once_and_nothing_is_done() {
    let refusal = Refusal::new(429, ErrorShape::C, "slow down").with_header("Retry-After", "2");
    let stage = stage_with(Effect::Status(refusal)).await;
    let response = stage.send("POST", STREAMS, create()).await.unwrap();
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "2");
    assert_eq!(response.json::<Value>().await.unwrap(), json!({"error": "slow down"}));
    assert_eq!(streams(&stage).await, 0);
    assert_eq!(stage.call("POST", STREAMS, create()).await.status, 200);
}

#[tokio::test]
async fn a_proxy_page_is_not_json() {
    let refusal = Refusal::new(502, ErrorShape::Raw, "<html>Bad Gateway</html>");
    let stage = stage_with(Effect::Status(refusal)).await;
    let answer = stage.call("POST", STREAMS, create()).await;
    assert_eq!((answer.status, answer.text.as_str()), (502, "<html>Bad Gateway</html>"));
}

#[tokio::test]
async fn latency_delays_the_answer() {
    let stage = stage_with(Effect::LatencyMs(120)).await;
    let asked = Instant::now();
    assert_eq!(stage.call("POST", STREAMS, create()).await.status, 200);
    assert!(asked.elapsed() >= Duration::from_millis(120));
}

#[tokio::test]
async fn a_reset_answers_nothing_and_does_nothing() {
    let stage = stage_with(Effect::Reset).await;
    assert!(stage.send("POST", STREAMS, create()).await.is_err());
    assert_eq!(streams(&stage).await, 0);
    assert_eq!(stage.simulator.requests()[0].status, 0);
}

#[tokio::test]
async fn an_ambiguous_write_is_done_and_answered_with_an_error() {
    let refusal = Refusal::new(500, ErrorShape::D, "internal server error");
    let stage = stage_with(Effect::ApplyThenStatus(refusal)).await;
    assert_eq!(stage.call("POST", STREAMS, create()).await.status, 500);
    assert_eq!(streams(&stage).await, 1);
}

#[tokio::test]
async fn an_ambiguous_write_is_done_and_the_connection_closed() {
    let stage = stage_with(Effect::ApplyThenReset).await;
    assert!(stage.send("POST", STREAMS, create()).await.is_err());
    assert_eq!(streams(&stage).await, 1);
}

#[tokio::test]
async fn an_ambiguous_write_is_done_before_its_late_answer() {
    let stage = stage_with(Effect::ApplyThenLatencyMs(60_000)).await;
    let late = stage.send("POST", STREAMS, create());
    assert!(tokio::time::timeout(Duration::from_millis(300), late).await.is_err());
    assert_eq!(streams(&stage).await, 1);
    // A held answer does not hold up the end.
    stage.simulator.shutdown().await;
}

#[tokio::test]
async fn a_caller_that_hangs_up_has_asked_all_the_same() {
    let stage = stage_with(Effect::LatencyMs(200)).await;
    let late = stage.send("POST", STREAMS, create());
    assert!(tokio::time::timeout(Duration::from_millis(100), late).await.is_err());
    stage.wait_for(STREAMS, |page| page.as_array().unwrap().len() == 1).await;
}

#[tokio::test]
async fn faults_are_put_read_and_deleted_over_http() {
    let stage = Stage::new().await;
    let faults = json!({"rules": [{"match": "GET /streaming/**", "times": 5,
        "effect": {"status": {"status": 503, "text": "away"}}}]});
    assert_eq!(stage.call("PUT", "/_control/faults", faults).await.status, 204);
    assert_eq!(stage.call("GET", STREAMS, Value::Null).await.status, 503);
    let left = stage.call("GET", "/_control/faults", Value::Null).await.json();
    assert_eq!(left["rules"][0]["times"], 4);
    assert_eq!(stage.call("DELETE", "/_control/faults", Value::Null).await.status, 204);
    assert_eq!(stage.call("GET", STREAMS, Value::Null).await.status, 200);
    let wrong = json!({"rules": [{"match": "GET /", "effect": "explode"}]});
    assert_eq!(stage.call("PUT", "/_control/faults", wrong).await.status, 422);
}
