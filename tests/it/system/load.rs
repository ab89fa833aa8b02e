//! Senders of webhooks that go on whatever happens, and what must be stored in the end.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use domain::event::RecordedEvent;
use domain::ids::Timestamp;
use serde_json::{Value, json};
use store::Store;
use tokio::time::sleep;
use uuid::Uuid;

use super::SOURCE;
use super::client::http;

/// Longest wait of a sender for an answer.
const ANSWER: Duration = Duration::from_secs(5);

/// A webhook that was acknowledged: its event, its sender, and the number that the sender gave it.
pub(crate) type Acknowledged = (Uuid, i64, i64);

/// What senders and faults share.
#[derive(Default)]
pub(crate) struct Load {
    /// Where webhooks go now, for each endpoint.
    pub(crate) endpoints: Vec<Mutex<Option<SocketAddr>>>,
    pub(crate) acknowledged: Mutex<Vec<Acknowledged>>,
    /// Answers other than 200, and none at all.
    pub(crate) refused: AtomicUsize,
    pub(crate) has_ended: AtomicBool,
}

impl Load {
    /// For some endpoints, not known yet.
    pub(crate) fn of(endpoints: usize) -> Self {
        let endpoints = (0..endpoints).map(|_| Mutex::default()).collect();
        Self { endpoints, ..Self::default() }
    }

    /// Sends the webhooks of one subject, always to the same endpoint, the next when the last was
    /// answered or given up. What is not acknowledged is not sent again: the platform would not.
    pub(crate) async fn send(&self, secret: &str, sender: i64) {
        let client = http();
        let place = usize::try_from(sender).unwrap() % self.endpoints.len();
        for n in 0.. {
            if self.has_ended.load(Ordering::Relaxed) {
                return;
            }
            let endpoint = *self.endpoints[place].lock().unwrap();
            let Some(address) = endpoint else {
                sleep(Duration::from_millis(20)).await;
                continue;
            };
            let url = format!("http://{address}/webhooks/{SOURCE}/{secret}");
            let stream = json!({"id": sender + 1, "live": n % 2 == 0});
            let body = json!({"type": "stream", "n": n, "message": {"stream": stream}});
            let sent = client.post(url).json(&body).timeout(ANSWER).send().await;
            let Some(id) = acknowledged(sent).await else {
                self.refused.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_millis(20)).await;
                continue;
            };
            self.acknowledged.lock().unwrap().push((id, sender, n));
        }
    }

    /// How many webhooks of each of `senders` are acknowledged, at least.
    pub(crate) fn least(&self, senders: i64) -> usize {
        let acknowledged = self.acknowledged.lock().unwrap();
        let of = |sender| acknowledged.iter().filter(|(_, by, _)| *by == sender).count();
        (0..senders).map(of).min().unwrap_or_default()
    }
}

/// The event's id, where the answer is 200.
async fn acknowledged(sent: Result<reqwest::Response, reqwest::Error>) -> Option<Uuid> {
    let response = sent.ok().filter(|response| response.status() == 200)?;
    let answer: Value = response.json().await.ok()?;
    Some(answer["event_id"].as_str().unwrap().parse().unwrap())
}

/// All events, slice by slice; a hole is an error of the read.
pub(crate) async fn log(store: &Store) -> Vec<RecordedEvent> {
    let mut events = Vec::new();
    for slice in store.slices().slices() {
        let (mut position, mut since) = (0, Timestamp::default());
        loop {
            let read = store.read_after(slice, position, since, 10_000).await.unwrap();
            let Some(last) = read.last() else { break };
            (position, since) = (last.position, last.recorded_at);
            events.extend(read);
        }
    }
    events
}

/// Each acknowledged webhook is stored once, those of a subject in their order; of the others, none
/// twice.
pub(crate) fn check(events: &[RecordedEvent], acknowledged: &[Acknowledged]) {
    assert!(!acknowledged.is_empty());
    let mut numbers: HashMap<i64, Vec<i64>> = HashMap::new();
    let mut stored = HashMap::new();
    for event in events.iter().filter(|event| event.event_type == "WebhookReceived") {
        let body: Value = serde_json::from_slice(&event.payload).unwrap();
        let sent =
            (body["message"]["stream"]["id"].as_i64().unwrap() - 1, body["n"].as_i64().unwrap());
        assert_eq!(stored.insert(sent, event.event_id), None, "{sent:?} is stored twice");
        numbers.entry(sent.0).or_default().push(sent.1);
    }
    for (id, sender, n) in acknowledged {
        assert_eq!(stored.get(&(*sender, *n)), Some(id), "{n} of {sender} was acknowledged");
    }
    let acknowledged: HashSet<_> =
        acknowledged.iter().map(|(_, sender, n)| (*sender, *n)).collect();
    for (sender, numbers) in numbers {
        let told: Vec<i64> =
            numbers.into_iter().filter(|n| acknowledged.contains(&(sender, *n))).collect();
        assert!(told.is_sorted(), "out of order, of {sender}: {told:?}");
    }
}
