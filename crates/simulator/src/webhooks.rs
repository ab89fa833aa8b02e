//! Sends webhooks: one queue, by due time, one attempt each, the next after the previous has ended.
//!
//! That is the platform's contract at its worst: unsigned, without id, sent once, so that a receiver
//! that is down or slow loses what it does not take in time.

use std::collections::BTreeMap;
use std::sync::Mutex;

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::header::CONTENT_TYPE;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use crate::faults::Fate;
use crate::log::{Log, WebhookLogEntry, WebhookOutcome};
use crate::shared::{lock, now, sleep_until};
use crate::world::Webhook;

/// Webhooks that wait for their turn, and the log of those that had it.
pub(crate) struct DeliveryQueue {
    url: Mutex<Option<String>>,
    waiting: Mutex<Waiting>,
    changed: Notify,
    pub(crate) log: Log<WebhookLogEntry>,
}

/// Deliveries by due time; those of one moment stay in the order of queueing.
#[derive(Default)]
struct Waiting {
    deliveries: BTreeMap<(DateTime<Utc>, u64), Delivery>,
    queued: u64,
}

/// One attempt to send one webhook.
struct Delivery {
    webhook: Webhook,
    lost: bool,
    /// Told when the attempt has ended.
    done: Option<oneshot::Sender<()>>,
}

impl DeliveryQueue {
    /// Makes an empty queue.
    pub(crate) fn new(url: Option<String>) -> Self {
        Self {
            url: Mutex::new(url),
            waiting: Mutex::default(),
            changed: Notify::new(),
            log: Log::new(),
        }
    }

    /// Changes where webhooks go, from the next one on.
    pub(crate) fn set_url(&self, url: Option<String>) {
        *lock(&self.url) = url;
    }

    /// Returns how many wait for their turn.
    pub(crate) fn waiting(&self) -> usize {
        lock(&self.waiting).deliveries.len()
    }

    /// Queues a webhook as often as its fate says. If its cause has to wait for it, returns what
    /// tells that the first attempt has ended.
    pub(crate) fn enqueue(&self, webhook: &Webhook, fate: &Fate) -> Option<oneshot::Receiver<()>> {
        let (mut done, receiver) = if webhook.before_answer {
            let (sender, receiver) = oneshot::channel();
            (Some(sender), Some(receiver))
        } else {
            (None, None)
        };
        let mut waiting = lock(&self.waiting);
        for wait in &fate.waits {
            let due = webhook.due + TimeDelta::from_std(*wait).unwrap_or_default();
            waiting.queued += 1;
            let key = (due, waiting.queued);
            let delivery =
                Delivery { webhook: webhook.clone(), lost: fate.lost, done: done.take() };
            waiting.deliveries.insert(key, delivery);
        }
        drop(waiting);
        self.changed.notify_one();
        receiver
    }

    /// Sends what is due, one after the other, until the simulator is shut down.
    pub(crate) async fn run(&self, client: &reqwest::Client, shutdown: &CancellationToken) {
        loop {
            let (due, next) = self.pop_due(now());
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.attempt_or_wait(client, due, next) => {}
            }
        }
    }

    /// Takes out the first delivery if it is due, else says when the first one will be.
    fn pop_due(&self, now: DateTime<Utc>) -> (Option<Delivery>, Option<DateTime<Utc>>) {
        let mut waiting = lock(&self.waiting);
        match waiting.deliveries.first_entry() {
            Some(first) if first.key().0 <= now => (Some(first.remove()), None),
            Some(first) => (None, Some(first.key().0)),
            None => (None, None),
        }
    }

    /// Makes an attempt, or waits until there may be one to make.
    async fn attempt_or_wait(
        &self,
        client: &reqwest::Client,
        due: Option<Delivery>,
        next: Option<DateTime<Utc>>,
    ) {
        if let Some(delivery) = due {
            self.attempt(client, delivery).await;
            return;
        }
        tokio::select! {
            () = self.changed.notified() => {}
            () = sleep_until(next) => {}
        }
    }

    /// Sends one webhook and notes what became of it.
    async fn attempt(&self, client: &reqwest::Client, delivery: Delivery) {
        let Delivery { webhook, lost, done } = delivery;
        let at = now();
        let url = lock(&self.url).clone();
        let (status, outcome) = match url {
            _ if lost => (None, WebhookOutcome::Lost),
            None => (None, WebhookOutcome::NoReceiver),
            Some(url) => send(client, &url, webhook.body.to_string()).await,
        };
        tracing::debug!(webhook.kind = webhook.kind, ?status, ?outcome, "webhook had its turn");
        self.log.add(|seq| WebhookLogEntry {
            seq,
            at,
            kind: webhook.kind.to_owned(),
            body: webhook.body,
            status,
            outcome,
        });
        if let Some(done) = done {
            // Nobody listens any more if the caller has hung up.
            let _ = done.send(());
        }
    }
}

/// Posts a body and returns what came back.
async fn send(client: &reqwest::Client, url: &str, body: String) -> (Option<u16>, WebhookOutcome) {
    match client.post(url).header(CONTENT_TYPE, "application/json").body(body).send().await {
        Ok(response) => (Some(response.status().as_u16()), WebhookOutcome::Answered),
        Err(error) if error.is_timeout() => (None, WebhookOutcome::TimedOut),
        Err(_) => (None, WebhookOutcome::Failed),
    }
}
