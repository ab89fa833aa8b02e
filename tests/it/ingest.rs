//! The webhook endpoint, as whoever knows its address may treat it.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use crate::system::{Setup, TestSystem, http, until};

#[tokio::test]
async fn whatever_is_posted_is_stored_and_stops_nobody() {
    let system = TestSystem::start(Setup { workers: 2, ..Setup::default() }).await;
    let first = system.on_air("before").await;
    let before = system.finish(first.session).await;

    let client = http();
    let mut ids = Vec::new();
    for (name, body) in bodies() {
        let request = client.post(&system.webhook_url).header("content-type", "application/json");
        let response = request.body(body).send().await.unwrap();
        assert_eq!(response.status(), 200, "{name}");
        let answer: Value = response.json().await.unwrap();
        ids.push(answer["event_id"].as_str().unwrap().parse::<Uuid>().unwrap());
    }
    assert!(ids.len() > 100, "{} bodies", ids.len());
    assert_eq!(system.database.stored(&ids).await, vec![1; ids.len()]);

    // Everything was applied, nothing was set aside, and the next session runs as the first did.
    let second = system.on_air("after").await;
    let after = system.finish(second.session).await;
    assert_eq!(after.moments, before.moments);
    assert_eq!(after.videos.len(), 1);
    system.end().await;
}

#[tokio::test]
async fn strangers_and_giants_are_turned_away() {
    let system = TestSystem::start(Setup { workers: 0, ..Setup::default() }).await;
    let client = http();
    let (stem, _) = system.webhook_url.rsplit_once('/').unwrap();
    let stranger = client.post(format!("{stem}/0123456789abcdef")).body("{}").send().await.unwrap();
    assert_eq!(stranger.status(), 404);
    let giant = vec![b' '; (1 << 20) + 1];
    let giant = client.post(&system.webhook_url).body(giant).send().await.unwrap();
    assert_eq!(giant.status(), 413);
    assert!(system.events().await.is_empty());
    system.end().await;
}

#[tokio::test]
async fn a_head_that_does_not_end_is_cut_off() {
    let system = TestSystem::start(Setup { workers: 0, ..Setup::default() }).await;
    let address = system.ingest.address().await;
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(b"POST /webhooks/gcore-main/x HTTP/1.1\r\nhost: x\r\n").await.unwrap();
    let begun = Instant::now();
    let mut answer = Vec::new();
    let cut = timeout(Duration::from_secs(20), slow.read_to_end(&mut answer)).await;
    assert!(cut.is_ok(), "still open after {:?}", begun.elapsed());
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    system.end().await;
}

#[tokio::test]
async fn what_was_acknowledged_outlives_a_killed_endpoint_and_is_stored_once() {
    const POSTS: usize = 200;
    let mut system = TestSystem::start(Setup { workers: 1, ..Setup::default() }).await;
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let next = Arc::new(AtomicUsize::new(0));
    let mut senders = JoinSet::new();
    for _ in 0..16 {
        let (url, acknowledged, next) =
            (system.webhook_url.clone(), acknowledged.clone(), next.clone());
        senders.spawn(async move {
            let client = http();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= POSTS {
                    return;
                }
                let sent = client.post(&url).json(&restream(n)).send().await;
                // Refused or broken off, once the endpoint is gone: not acknowledged.
                let Ok(response) = sent else { continue };
                if response.status() == 200
                    && let Ok(answer) = response.json::<Value>().await
                {
                    let id: Uuid = answer["event_id"].as_str().unwrap().parse().unwrap();
                    acknowledged.lock().unwrap().push(id);
                }
            }
        });
    }
    until("half of the posts are answered", async || {
        (acknowledged.lock().unwrap().len() >= POSTS / 2).then_some(())
    })
    .await;
    system.ingest.kill();
    while let Some(ended) = senders.join_next().await {
        ended.unwrap();
    }
    let ids = acknowledged.lock().unwrap().clone();
    assert!(ids.len() < POSTS, "the endpoint was killed too late to prove anything");
    assert_eq!(system.database.stored(&ids).await, vec![1; ids.len()]);
    // Those that were not acknowledged may be there, but none twice.
    let events = system.events().await;
    let mut bodies: Vec<_> = events.iter().map(|event| event.payload.clone()).collect();
    bodies.retain(|body| body.starts_with(b"{\"message\":{\"restream\""));
    let stored = bodies.len();
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), stored);
    assert!(stored >= ids.len());

    system.restart_ingest().await;
    let on_air = system.on_air("afterwards").await;
    system.finish(on_air.session).await;
    system.end().await;
}

/// The `n`th of many webhooks that differ.
fn restream(n: usize) -> Value {
    json!({"type": "restream", "message": {"restream": {"id": n + 1, "live": true}}})
}

/// All bodies of the fixtures that a sender might post.
fn bodies() -> Vec<(String, Vec<u8>)> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    let mut bodies = Vec::new();
    for folder in ["webhooks", "malformed"] {
        for entry in std::fs::read_dir(fixtures.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            bodies.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
    bodies.sort();
    bodies
}

#[tokio::test]
async fn a_sender_gets_through_while_a_stranger_holds_all_connections_he_can() {
    const CONNECTIONS: usize = 32;
    let setup = Setup { workers: 0, connections: CONNECTIONS, ..Setup::default() };
    let system = TestSystem::start(setup).await;
    let address = system.ingest.address().await;
    let post = async |client: &reqwest::Client| {
        let sent = client.post(&system.webhook_url).json(&restream(1)).send();
        let answer = timeout(Duration::from_secs(20), sent).await.expect("it is answered in time");
        assert_eq!(answer.unwrap().status(), 200);
    };
    let client = http();
    post(&client).await;
    let mut strangers = Vec::new();
    for n in 0..CONNECTIONS * 4 {
        let mut stranger = TcpStream::connect(address).await.unwrap();
        // Idle after an answer that everybody gets, or in the middle of a head.
        let said: &[u8] = if n % 2 == 0 {
            b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"
        } else {
            b"POST /webhooks/gcore-main/x HTTP/1.1\r\n"
        };
        stranger.write_all(said).await.unwrap();
        strangers.push(stranger);
    }
    // On the connection that it has, and on a new one.
    post(&client).await;
    post(&http()).await;
    assert_eq!(system.events().await.len(), 3);
    drop(strangers);
    system.end().await;
}
