//! Webhooks on the network: once, in order, one at a time, and what is lost stays lost.

use std::time::Duration;

use serde_json::{Value, json};
use simulator::{Config, Faults, WebhookFaults, WebhookOutcome};

use crate::receiver::{PATIENCE, Receiver};
use crate::stage::Stage;

/// Waits until a number of webhooks have had their turn.
async fn wait_for_turns(stage: &Stage, count: usize) {
    let turns = async {
        while stage.simulator.webhooks().len() < count {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, turns).await.unwrap();
}

/// Starts a run of a stream, which gives two webhooks.
async fn two_webhooks(stage: &Stage) {
    let id = stage.active_stream().await;
    stage.simulator.push(id).unwrap();
    wait_for_turns(stage, 2).await;
}

async fn stage_telling(receiver: &Receiver) -> Stage {
    let webhook_url = Some(receiver.url.clone());
    Stage::with(Config { webhook_url, ..Config::default() }).await
}

#[tokio::test]
async fn webhooks_are_unsigned_json_in_order() {
    let receiver = Receiver::answering(200).await;
    let stage = stage_telling(&receiver).await;
    two_webhooks(&stage).await;
    let sent: Vec<Value> = stage.simulator.webhooks().into_iter().map(|one| one.body).collect();
    assert_eq!(receiver.bodies(), sent);
    for headers in receiver.headers() {
        assert_eq!(headers["content-type"], "application/json");
        let known = ["content-type", "content-length", "host", "accept"];
        let others = headers.keys().filter(|name| !known.contains(&name.as_str()));
        assert_eq!(others.count(), 0, "{headers:?}");
    }
}

#[tokio::test]
async fn a_refused_webhook_is_never_sent_again() {
    let receiver = Receiver::answering(500).await;
    let stage = stage_telling(&receiver).await;
    two_webhooks(&stage).await;
    assert_eq!(receiver.bodies().len(), 2);
    assert!(stage.simulator.webhooks().iter().all(|one| one.status == Some(500)));
}

#[tokio::test]
async fn the_next_one_waits_until_the_last_one_has_timed_out() {
    let receiver = Receiver::answering(0).await;
    let webhook_timeout = Duration::from_millis(150);
    let webhook_url = Some(receiver.url.clone());
    let config = Config { webhook_url, webhook_timeout, ..Config::default() };
    let stage = Stage::with(config).await;
    two_webhooks(&stage).await;
    let sent = stage.simulator.webhooks();
    assert!(sent.iter().all(|one| one.outcome == WebhookOutcome::TimedOut));
    let between = sent[1].at - sent[0].at;
    assert!(between.to_std().unwrap() >= webhook_timeout, "{between}");
}

#[tokio::test]
async fn an_absent_receiver_and_no_receiver_are_told_apart() {
    let receiver = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}/", listener.local_addr().unwrap())
    };
    let stage = Stage::new().await;
    two_webhooks(&stage).await;
    stage.simulator.set_webhook_url(Some(receiver));
    let id = stage.active_stream().await;
    stage.simulator.push(id).unwrap();
    wait_for_turns(&stage, 4).await;
    let outcomes: Vec<_> = stage.simulator.webhooks().iter().map(|one| one.outcome).collect();
    assert_eq!(outcomes[0], WebhookOutcome::NoReceiver);
    assert_eq!(outcomes[3], WebhookOutcome::Failed);
}

#[tokio::test]
async fn lost_webhooks_are_logged_and_not_sent() {
    let receiver = Receiver::answering(200).await;
    let stage = stage_telling(&receiver).await;
    let webhooks = WebhookFaults { lose: 1.0, ..WebhookFaults::default() };
    stage.simulator.faults(Faults { webhooks, ..Faults::default() });
    two_webhooks(&stage).await;
    assert!(receiver.bodies().is_empty());
    assert!(stage.simulator.webhooks().iter().all(|one| one.outcome == WebhookOutcome::Lost));
}

#[tokio::test]
async fn duplicates_are_equal() {
    let receiver = Receiver::answering(200).await;
    let stage = stage_telling(&receiver).await;
    let webhooks = WebhookFaults { duplicate: 1.0, ..WebhookFaults::default() };
    stage.simulator.faults(Faults { webhooks, ..Faults::default() });
    let id = stage.active_stream().await;
    stage.simulator.push(id).unwrap();
    wait_for_turns(&stage, 4).await;
    let bodies = receiver.bodies();
    assert_eq!((&bodies[0], &bodies[2]), (&bodies[1], &bodies[3]));
}

#[tokio::test]
async fn delays_let_webhooks_overtake_each_other() {
    let receiver = Receiver::answering(200).await;
    let webhook_url = Some(receiver.url.clone());
    // So fast, and so many, that they cannot all keep their order by chance.
    let config = Config { webhook_url, time_scale: 1000.0, active_quota: 8, ..Config::default() };
    let stage = Stage::with(config).await;
    let webhooks = WebhookFaults { delay_ms: 300, ..WebhookFaults::default() };
    stage.simulator.faults(Faults { webhooks, ..Faults::default() });
    for _ in 0..8 {
        let id = stage.active_stream().await;
        stage.simulator.push(id).unwrap();
        let path = format!("/streaming/streams/{id}");
        stage.wait_for(&path, |stream| stream["live"] == true).await;
    }
    wait_for_turns(&stage, 16).await;
    let heard = receiver.bodies().into_iter().map(|body| {
        let stream = &body["message"]["stream"];
        (stream["id"].as_i64().unwrap(), stream["transcoding"].as_bool().unwrap())
    });
    assert!(!heard.is_sorted(), "all in order of decision");
}

#[tokio::test]
async fn a_broadcast_webhook_comes_before_the_answer() {
    let receiver = Receiver::answering(200).await;
    let config = Config {
        webhook_url: Some(receiver.url.clone()),
        legacy_broadcast_webhooks: true,
        ..Config::default()
    };
    let stage = Stage::with(config).await;
    let body = json!({"broadcast": {"name": "b", "status": "pending"}});
    stage.call("POST", "/streaming/broadcasts", body).await;
    for (count, status) in [(1, "live"), (2, "paused"), (3, "finished")] {
        let body = json!({"broadcast": {"status": status}});
        stage.call("PATCH", "/streaming/broadcasts/192470", body).await;
        assert_eq!(receiver.bodies().len(), count);
    }
}

#[tokio::test]
async fn an_answer_does_not_wait_for_a_deaf_receiver_for_ever() {
    let receiver = Receiver::answering(0).await;
    let config = Config {
        webhook_url: Some(receiver.url.clone()),
        legacy_broadcast_webhooks: true,
        ..Config::default()
    };
    let stage = Stage::with(config).await;
    let body = json!({"broadcast": {"name": "b", "status": "pending"}});
    stage.call("POST", "/streaming/broadcasts", body).await;
    let asked = std::time::Instant::now();
    let body = json!({"broadcast": {"status": "live"}});
    let answer = stage.call("PATCH", "/streaming/broadcasts/192470", body).await;
    assert_eq!(answer.status, 200);
    let waited = asked.elapsed();
    assert!(waited >= Duration::from_secs(2) && waited < Duration::from_secs(4), "{waited:?}");
}
