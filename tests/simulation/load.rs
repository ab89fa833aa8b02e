//! The load: webhooks of several live streams, sessions that are asked for, plain jobs; and the book
//! of what was acknowledged, which no fault can touch.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use domain::event::{Event, NewEvent, SessionOptions, SessionRef, SessionRequested};
use domain::ids::{Subject, session_id};
use ingest::Lanes;
use ingest::lanes::Kept;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use store::testing::Memory;
use store::{EnqueueOptions, Log as _, Queue as _};
use tokio::time::sleep;
use uuid::Uuid;

use crate::clock;
use crate::platform::{FLAKY, PLAIN};

/// The source.
pub(crate) const SOURCE: &str = "gcore-main";

/// Senders of webhooks, each with a live stream of its own. The first of these are the live streams
/// that the platform creates for sessions.
pub(crate) const SENDERS: u64 = 6;

/// What was acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Book {
    /// Webhooks: the event's id, the sender, the number.
    pub(crate) webhooks: Vec<(Uuid, u64, u64)>,
    /// Events of other services, by their ids, which follow from their keys.
    pub(crate) keyed: Vec<Uuid>,
    /// Commands, by their ids, which follow from their keys.
    pub(crate) commands: Vec<Uuid>,
    /// Plain jobs.
    pub(crate) jobs: Vec<Uuid>,
    /// How far each sender has come.
    sent: [u64; 16],
}

/// The load of a life.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) book: Arc<Mutex<Book>>,
    pub(crate) lanes: Lanes,
    /// The database, as a backend service sees it.
    pub(crate) api: Memory,
    pub(crate) seed: u64,
}

impl Load {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }

    /// Starts everything.
    pub(crate) fn start(&self) -> tokio::task::JoinSet<()> {
        let mut tasks = tokio::task::JoinSet::new();
        for sender in 0..SENDERS {
            tasks.spawn(self.clone().webhooks(sender));
        }
        tasks.spawn(self.clone().events());
        tasks.spawn(self.clone().sessions());
        tasks.spawn(self.clone().jobs());
        tasks
    }

    fn rng(&self, part: u64) -> StdRng {
        StdRng::seed_from_u64(self.seed ^ (part + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    fn next(&self, part: u64) -> u64 {
        let mut book = self.book();
        let sent = &mut book.sent[usize::try_from(part).unwrap()];
        *sent += 1;
        *sent
    }

    /// Webhooks of one live stream, the next when the last was answered. What is not acknowledged
    /// is not sent again: the platform would not.
    async fn webhooks(self, sender: u64) {
        let mut rng = self.rng(sender);
        loop {
            pause(&mut rng, 150).await;
            let n = self.next(sender);
            let id = Uuid::from_u128(rng.random());
            let live_stream = 320_423 + sender;
            let (live, recording) = (!n.is_multiple_of(3), n.is_multiple_of(5));
            let stream = json!({"id": live_stream, "live": live, "recording": recording});
            let body = json!({"type": "stream", "n": n, "message": {"stream": stream}});
            let event = NewEvent {
                event_id: id,
                subject: Subject::object(SOURCE, "stream", i64::try_from(live_stream).unwrap()),
                event_type: "WebhookReceived".to_owned(),
                schema_version: 1,
                key: None,
                received_at: clock::process(),
                causation_id: None,
                correlation_id: None,
                meta: None,
                payload: body.to_string().into_bytes(),
            };
            if let Ok(kept) = self.lanes.append(event).await {
                assert!(kept != Kept::Known && kept != Kept::Unrecognized, "{kept:?}");
                self.book().webhooks.push((id, sender, n));
            }
        }
    }

    /// Events of another service, in requests of several, some of them sent again under their keys.
    async fn events(self) {
        let mut rng = self.rng(SENDERS);
        loop {
            pause(&mut rng, 300).await;
            let events = (0..rng.random_range(1..8)).map(|_| {
                let n = rng.random_range(0..200);
                let key = Uuid::from_u64_pair(9, n);
                let subject = Subject::unrecognized(&format!("service-{}", n % 7));
                NewEvent::new(subject, &Event::Unrecognized, clock::process(), key).with_key(key)
            });
            let events: Vec<NewEvent> = events.collect();
            let keys: Vec<Uuid> = events.iter().map(|event| event.event_id).collect();
            let ended = self.lanes.append_all(events).await;
            let kept = keys.into_iter().zip(ended).filter(|(_, ended)| ended.is_ok());
            self.book().keyed.extend(kept.map(|(key, _)| key));
        }
    }

    /// Sessions that are asked for, shown and ended; each command again until it is acknowledged.
    async fn sessions(self) {
        let part = SENDERS + 1;
        let mut rng = self.rng(part);
        loop {
            pause(&mut rng, 800).await;
            let session = session_id(SOURCE, &format!("session {}", self.next(part)));
            let requested = Event::SessionRequested(SessionRequested {
                session,
                source: SOURCE.to_owned(),
                account: Some("user-17".to_owned()),
                name: "a session".to_owned(),
                live_stream: None,
                options: SessionOptions { record: true, ..SessionOptions::default() },
            });
            self.command(session, &requested, 0).await;
            pause(&mut rng, 2_000).await;
            let show = Event::GoLiveRequested(SessionRef { session });
            self.command(session, &show, 1).await;
            pause(&mut rng, 2_000).await;
            self.command(session, &Event::EndRequested(SessionRef { session }), 2).await;
        }
    }

    async fn command(&self, session: Uuid, event: &Event, nth: u64) {
        let key = domain::ids::derived_id("command", &[&session.to_string(), &nth.to_string()]);
        let subject = Subject::request(SOURCE, session);
        let event = NewEvent::new(subject, event, clock::process(), key).with_key(key);
        while self.api.append_one(event.clone()).await.is_err() {
            sleep(Duration::from_millis(50)).await;
        }
        self.book().commands.push(event.event_id);
    }

    /// Plain jobs. One whose enqueueing was not acknowledged may be there all the same.
    async fn jobs(self) {
        let mut rng = self.rng(SENDERS + 2);
        loop {
            pause(&mut rng, 400).await;
            let kind = if rng.random_ratio(1, 3) { FLAKY } else { PLAIN };
            let subject =
                rng.random_ratio(1, 2).then(|| format!("a/job/{}", rng.random_range(0..3)));
            let options = EnqueueOptions { subject, ..EnqueueOptions::default() };
            if let Ok(id) = self.api.enqueue(kind, &json!({}), &options).await {
                self.book().jobs.push(id);
            }
        }
    }
}

async fn pause(rng: &mut StdRng, most: u64) {
    sleep(Duration::from_millis(rng.random_range(1..most))).await;
}
