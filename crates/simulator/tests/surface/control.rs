//! The control surface and the ends of a simulator's life.

use serde_json::{Value, json};
use simulator::{Behaviour, Config, ControlError, Error, NothingRecorded, Simulator};

use crate::receiver::Receiver;
use crate::stage::Stage;

#[tokio::test]
async fn encoders_are_driven_by_path() {
    let stage = Stage::new().await;
    let id = stage.active_stream().await;
    for (action, status) in [
        ("push", 204),
        ("push", 409),
        ("drop", 204),
        ("return", 204),
        ("stop", 204),
        ("stop", 409),
        ("dance", 404),
        ("push?line=backup", 204),
    ] {
        let path = format!("/_control/streams/{id}/{action}");
        assert_eq!(stage.call("POST", &path, Value::Null).await.status, status, "{action}");
    }
    assert_eq!(stage.call("POST", "/_control/streams/1/push", Value::Null).await.status, 404);
    assert_eq!(stage.simulator.drop_connection(1), Err(ControlError::UnknownStream(1)));
}

#[tokio::test]
async fn push_to_an_inactive_stream_is_a_conflict() {
    let stage = Stage::new().await;
    let id = stage.active_stream().await;
    let off = json!({"stream": {"active": false}});
    stage.call("PATCH", &format!("/streaming/streams/{id}"), off).await;
    let path = format!("/_control/streams/{id}/push");
    assert_eq!(stage.call("POST", &path, Value::Null).await.status, 409);
}

#[tokio::test]
async fn logs_show_requests_and_webhooks_without_secrets() {
    let receiver = Receiver::answering(200).await;
    let webhook_url = Some(receiver.url.clone());
    let stage = Stage::with(Config { webhook_url, ..Config::default() }).await;
    let body = json!({"name": "n", "active": true, "srt_passphrase": "correct_horse_battery"});
    let stream = stage.call("POST", "/streaming/streams?x=1", body).await.json();
    let id = stream["id"].as_i64().unwrap();
    stage.simulator.push(id).unwrap();
    receiver.wait_for("live", |body| body["message"]["stream"]["live"] == true).await;

    let requests = stage.call("GET", "/_control/requests", Value::Null).await;
    let first = &requests.json()[0];
    assert_eq!(first["method"], "POST");
    assert_eq!(first["path"], "/streaming/streams");
    assert_eq!(first["query"], "x=1");
    assert_eq!(first["status"], 200);
    assert_eq!(first["body"]["srt_passphrase"], "[secret]");
    assert_eq!(first["response"]["id"], id);
    let webhooks = stage
        .wait_for("/_control/webhooks", |log| log.as_array().is_some_and(|log| !log.is_empty()))
        .await;
    assert_eq!(webhooks[0]["outcome"], "answered");
    assert_eq!(webhooks[0]["body"]["message"]["stream"]["uri"], "[secret]");
    let token = stream["token"].as_str().unwrap();
    let world = stage.call("GET", "/_control/state", Value::Null).await;
    assert_eq!(world.json()["streams"][0]["live"], true);
    for text in [requests.text, webhooks.to_string(), world.text] {
        assert!(!text.contains(token) && !text.contains("correct_horse"), "{text}");
    }
}

#[tokio::test]
async fn switches_are_turned_over_http() {
    let stage = Stage::new().await;
    let body = json!({"nothing_recorded": "null"});
    assert_eq!(stage.call("PUT", "/_control/behaviour", body).await.status, 204);
    let behaviour = stage.call("GET", "/_control/behaviour", Value::Null).await.json();
    assert_eq!(behaviour["nothing_recorded"], "null");
    assert_eq!(behaviour["recording_hold_s"], 10);
}

#[tokio::test]
async fn empty_answers_are_empty_on_the_wire() {
    for (nothing_recorded, status, text) in [
        (NothingRecorded::ZeroBytes, 200, ""),
        (NothingRecorded::Null, 200, "null"),
        (NothingRecorded::EmptyObject, 200, "{}"),
        (NothingRecorded::NoContent, 204, ""),
    ] {
        let behaviour = Behaviour { nothing_recorded, ..Behaviour::default() };
        let stage = Stage::with(Config { behaviour, ..Config::default() }).await;
        let id = stage.active_stream().await;
        let path = format!("/streaming/streams/{id}/stop_recording");
        let answer = stage.call("PUT", &path, Value::Null).await;
        assert_eq!((answer.status, answer.text.as_str()), (status, text));
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let stage = Stage::new().await;
    let body = json!({"name": "x".repeat(2 * 1024 * 1024)});
    // Refused before it is read to its end, so the caller may see a closed connection instead.
    if let Ok(response) = stage.send("POST", "/streaming/streams", body).await {
        assert_eq!(response.status(), 413);
    }
    assert_eq!(stage.call("GET", "/streaming/streams", Value::Null).await.json(), json!([]));
}

#[tokio::test]
async fn other_machines_are_shut_out_by_default() {
    let listen = "0.0.0.0:0".parse().unwrap();
    let refused = Simulator::start(Config { listen, ..Config::default() }).await;
    assert!(matches!(refused, Err(Error::NotLoopback { .. })));
    let config = Config { listen, allow_remote: true, ..Config::default() };
    assert!(Simulator::start(config).await.is_ok());
}

#[tokio::test]
async fn a_senseless_time_scale_is_refused() {
    for time_scale in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let refused = Simulator::start(Config { time_scale, ..Config::default() }).await;
        assert!(matches!(refused, Err(Error::TimeScale { .. })), "{time_scale}");
    }
}

#[tokio::test]
async fn a_taken_port_is_an_error_with_the_address() {
    let first = Simulator::start(Config::default()).await.unwrap();
    let listen = first.base_url().trim_start_matches("http://").parse().unwrap();
    let second = Simulator::start(Config { listen, ..Config::default() }).await;
    assert!(matches!(second, Err(Error::Bind { .. })));
    first.shutdown().await;
    assert!(Simulator::start(Config { listen, ..Config::default() }).await.is_ok());
}

#[tokio::test]
async fn the_configuration_prints_no_secret() {
    let config = Config {
        token: Some("7_permanent".to_owned()),
        password: "hunter2".to_owned(),
        webhook_url: Some("http://localhost/webhooks/path-secret".to_owned()),
        ..Config::default()
    };
    let printed = format!("{config:?}");
    assert!(!["permanent", "hunter2", "path-secret"].iter().any(|one| printed.contains(one)));
}

#[tokio::test]
async fn the_truth_is_told_line_by_line_and_in_parts() {
    let stage = Stage::new().await;
    let first = stage.active_stream().await;
    stage.active_stream().await;
    let text = stage.call("GET", "/_truth", Value::Null).await.text;
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["type"], "run");
    assert_eq!(lines[1]["id"], first);
    assert!(!text.contains("token"), "{text}");
    let part = stage.call("GET", &format!("/_truth?after={first}&limit=1"), Value::Null).await;
    assert_eq!(part.text.lines().count(), 2);
    assert_eq!(stage.simulator.truth().len(), 3);
}

#[tokio::test]
async fn encoders_come_by_themselves_where_they_are_asked_for() {
    let stage = Stage::new().await;
    let plans = json!({"length_s": [3600, 3600], "incidents": 0});
    assert_eq!(stage.call("PUT", "/_control/encoders", plans).await.status, 204);
    let id = stage.active_stream().await;
    stage.wait_for(&format!("/streaming/streams/{id}"), |stream| stream["live"] == true).await;
    let told = stage.call("GET", "/_control/encoders", Value::Null).await.json();
    assert_eq!(told["states"][id.to_string()], "playing");
    assert_eq!(stage.call("DELETE", "/_control/encoders", Value::Null).await.status, 204);
    let told = stage.call("GET", "/_control/encoders", Value::Null).await.json();
    assert_eq!(told["plans"], Value::Null);
}

#[tokio::test]
async fn mishaps_strike_when_they_are_told_to() {
    let stage = Stage::new().await;
    let id = stage.active_stream().await;
    let path = format!("/_control/mishaps/deactivates?stream={id}");
    assert_eq!(stage.call("POST", &path, Value::Null).await.status, 204);
    assert_eq!(stage.call("POST", &path, Value::Null).await.status, 409);
    let unknown = stage.call("POST", "/_control/mishaps/explodes", Value::Null).await;
    assert_eq!(unknown.status, 404);
    assert!(unknown.text.contains("switches_off"), "{}", unknown.text);
    let faults = json!({"mishaps": {"restarts": 100_000.0}, "calls": {"rate": 0.0}});
    assert_eq!(stage.call("PUT", "/_control/faults", faults).await.status, 204);
    let restarted = |run: &str| {
        serde_json::from_str::<Value>(run).is_ok_and(|run| run["mishaps"][1].is_object())
    };
    loop {
        let told = stage.call("GET", "/_truth?limit=0", Value::Null).await;
        if told.text.lines().next().is_some_and(restarted) {
            break;
        }
    }
}

#[tokio::test]
async fn webhooks_go_where_they_are_told_to() {
    let receiver = Receiver::answering(200).await;
    let stage = Stage::new().await;
    let url = json!({"url": receiver.url});
    assert_eq!(stage.call("PUT", "/_control/webhook-url", url).await.status, 204);
    let id = stage.active_stream().await;
    stage.simulator.push(id).unwrap();
    receiver.wait_for("live", |body| body["message"]["stream"]["live"] == true).await;
}
