//! Messages to endpoints, on a real database against a scripted receiver: what is told to whom, in
//! which order, how it is signed, what a refusal comes to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use domain::announcement::SessionNews;
use domain::endpoint::{Filter, Secret};
use domain::ids::{LiveStreamId, Timestamp};
use platform::outbound::Outbound;
use serde_json::json;
use store::{Again, EndpointChange, EnqueueOptions, NewEndpoint, SealingKey, Store};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::engine::tests::{config, until};
use crate::{Config, Worker};

const OK: &str = "HTTP/1.1 204 -\r\nconnection: close\r\n\r\n";
const DOWN: &str = "HTTP/1.1 500 -\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
const GONE_ANSWER: &str = "HTTP/1.1 410 -\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// A receiver: what it heard, and what it answers, one line of its script after another, the last
/// one for ever.
struct Receiving {
    url: String,
    heard: Arc<Mutex<Vec<Heard>>>,
}

/// A request.
#[derive(Debug, Clone)]
struct Heard {
    headers: HashMap<String, String>,
    body: String,
}

impl Heard {
    fn id(&self) -> &str {
        &self.headers["webhook-id"]
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// What it has to be signed with, by a secret.
    fn signature(&self, secret: &Secret) -> String {
        let at = self.headers["webhook-timestamp"].parse().unwrap();
        secret.sign(self.id(), at, &self.body)
    }
}

impl Receiving {
    async fn start(script: &'static [&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hooks", listener.local_addr().unwrap());
        let heard: Arc<Mutex<Vec<Heard>>> = Arc::default();
        let seen = Arc::clone(&heard);
        tokio::spawn(async move {
            loop {
                let (mut connection, _) = listener.accept().await.unwrap();
                let request = read(&mut connection).await;
                let number = {
                    let mut seen = seen.lock().unwrap();
                    seen.push(request);
                    seen.len() - 1
                };
                let answer = script[number.min(script.len() - 1)];
                let _ = connection.write_all(answer.as_bytes()).await;
            }
        });
        Self { url, heard }
    }

    fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }

    /// Waits until so many requests have come.
    async fn wait(&self, count: usize) -> Vec<Heard> {
        until(async || Some(self.heard()).filter(|heard| heard.len() >= count)).await
    }
}

async fn read(connection: &mut TcpStream) -> Heard {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let pairs = head.lines().skip(1).filter_map(|line| line.split_once(": "));
            let headers: HashMap<String, String> =
                pairs.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
            if body.len() >= headers["content-length"].parse().unwrap() {
                return Heard { headers, body: body.to_owned() };
            }
        }
        assert!(connection.read_buf(&mut bytes).await.unwrap() > 0, "a whole request");
    }
}

/// A database and a worker that may send into this machine.
struct Place {
    store: Store,
    worker: Worker,
}

fn key() -> SealingKey {
    SealingKey::new([7; 32])
}

impl Place {
    async fn start() -> Self {
        Self::with(Config { endpoints: Outbound::anywhere(true).unwrap(), ..config() }).await
    }

    async fn with(config: Config) -> Self {
        let store = store::testing::store().await;
        let ctx = Context::new(store.clone(), HashMap::new(), key(), config);
        Self { store, worker: Worker::start(ctx) }
    }

    /// Adds an endpoint that hears some types.
    async fn endpoint(&self, url: &str, types: &[&str]) -> (Uuid, Secret) {
        let types = types.iter().map(|text| (*text).to_owned()).collect();
        let filter = Filter { types, ..Filter::default() };
        let new = NewEndpoint { url: url.to_owned(), description: None, filter };
        self.store.add_endpoint(&key(), &new).await.unwrap()
    }

    /// Appends announcements to a live stream, as one reaction does.
    async fn announce(&self, live_stream: i64, all: &[fn(SessionNews) -> Announcement]) {
        let subject = Subject::live_stream("main", LiveStreamId(live_stream));
        let news = |note: usize| SessionNews {
            session: Uuid::nil(),
            live_stream: Some(LiveStreamId(live_stream)),
            account: None,
            note: Some(note.to_string()),
            derived: None,
        };
        let at = crate::context::now();
        let events: Vec<NewEvent> = (0..)
            .zip(all)
            .map(|(n, announce)| {
                let event = Event::Announced(announce(news(n)));
                NewEvent::new(subject.clone(), &event, at, Uuid::now_v7())
            })
            .collect();
        self.store.append(self.store.slice_of(&subject), None, &events).await.unwrap();
    }

    /// Waits until nothing waits to be sent.
    async fn idle(&self) {
        until(async || {
            let counts = self.store.job_counts().await.unwrap();
            (counts.available + counts.running == 0).then_some(())
        })
        .await;
    }

    /// Makes what waits for its next try due, once it does.
    async fn hurry(&self) {
        until(async || {
            let counts = self.store.job_counts().await.unwrap();
            (counts.retryable > 0 && counts.running == 0).then_some(())
        })
        .await;
        store::testing::hurry_retries(&self.store).await;
    }

    async fn end(self) {
        self.worker.shutdown().await;
    }
}

#[tokio::test]
async fn an_endpoint_hears_what_it_wants_in_order_and_signed() {
    let place = Place::start().await;
    let (all, some) = (Receiving::start(&[OK]).await, Receiving::start(&[OK]).await);
    let (_, secret) = place.endpoint(&all.url, &[]).await;
    place.endpoint(&some.url, &["recording.*"]).await;
    let ended = [
        Announcement::SessionReady as fn(SessionNews) -> Announcement,
        Announcement::SessionWentLive,
        Announcement::SessionStopped,
        Announcement::RecordingReady,
        Announcement::SessionEnded,
    ];
    place.announce(1, &ended).await;
    let heard = all.wait(5).await;
    let types: Vec<Value> = heard.iter().map(|request| request.json()["type"].clone()).collect();
    let expected =
        ["session.ready", "session.live", "session.stopped", "recording.ready", "session.ended"];
    assert_eq!(types, expected);
    assert!(heard.is_sorted_by_key(|request| request.json()["sequence"].as_i64().unwrap()));
    for request in &heard {
        assert_eq!(request.headers["webhook-signature"], request.signature(&secret));
        assert_eq!(request.headers["content-type"], "application/json");
        assert_eq!(request.json()["id"], request.id());
        assert_eq!(request.json()["data"]["source"], "main");
    }
    let [only] = some.wait(1).await.try_into().unwrap();
    assert_eq!(only.id(), heard[3].id(), "a message has one id, whoever hears it");
    place.idle().await;
    assert_eq!((all.heard().len(), some.heard().len()), (5, 1), "each once");
    place.end().await;
}

#[tokio::test]
async fn what_nobody_hears_makes_no_job() {
    let place = Place::start().await;
    let receiving = Receiving::start(&[OK]).await;
    let (endpoint, _) = place.endpoint(&receiving.url, &["session.failed"]).await;
    place.announce(1, &[Announcement::SessionReady, Announcement::SessionFailed]).await;
    let [heard] = receiving.wait(1).await.try_into().unwrap();
    assert_eq!(heard.json()["type"], "session.failed");
    let off = EndpointChange { enabled: Some(false), ..EndpointChange::default() };
    assert!(place.store.change_endpoint(endpoint, &off).await.unwrap());
    place.announce(1, &[Announcement::SessionFailed]).await;
    let on = EndpointChange { enabled: Some(true), ..EndpointChange::default() };
    let subject = Subject::live_stream("main", LiveStreamId(1));
    let slice = place.store.slice_of(&subject);
    until(async || {
        let status = place.store.slice_status().await.unwrap();
        status.iter().any(|s| s.slice == slice && s.position == 3).then_some(())
    })
    .await;
    place.store.change_endpoint(endpoint, &on).await.unwrap();
    place.announce(1, &[Announcement::SessionFailed]).await;
    let heard = receiving.wait(2).await;
    assert_eq!(heard[1].json()["sequence"], 4, "what came while it was disabled is not sent");
    place.end().await;
}

#[tokio::test]
async fn a_message_that_is_not_accepted_comes_again_with_the_same_id_and_body() {
    let place = Place::start().await;
    let elsewhere = Receiving::start(&[OK]).await;
    let redirect =
        format!("HTTP/1.1 302 -\r\nlocation: {}\r\nconnection: close\r\n\r\n", elsewhere.url);
    let script = vec![DOWN, "", redirect.leak(), OK].leak();
    let receiving = Receiving::start(script).await;
    let (endpoint, secret) = place.endpoint(&receiving.url, &[]).await;
    place.announce(1, &[Announcement::SessionReady]).await;
    for tries in 1..=3 {
        receiving.wait(tries).await;
        place.hurry().await;
    }
    let failing = place.store.endpoint(endpoint).await.unwrap().unwrap();
    assert!(failing.failing_since.is_some());
    let heard = receiving.wait(4).await;
    for request in &heard {
        assert_eq!((request.id(), &request.body), (heard[0].id(), &heard[0].body));
        assert_eq!(request.headers["webhook-signature"], request.signature(&secret));
    }
    assert!(elsewhere.heard().is_empty(), "no redirect is followed");
    place.idle().await;
    let well = place.store.endpoint(endpoint).await.unwrap().unwrap();
    assert_eq!((well.failing_since, well.last_error), (None, None));
    place.end().await;
}

#[tokio::test]
async fn while_two_secrets_are_valid_both_sign() {
    let place = Place::start().await;
    let receiving = Receiving::start(&[OK]).await;
    let (endpoint, old) = place.endpoint(&receiving.url, &[]).await;
    let new = place.store.rotate_secret(&key(), endpoint).await.unwrap().unwrap();
    place.announce(1, &[Announcement::SessionReady]).await;
    let [heard] = receiving.wait(1).await.try_into().unwrap();
    let both = format!("{} {}", heard.signature(&new), heard.signature(&old));
    assert_eq!(heard.headers["webhook-signature"], both);
    place.end().await;
}

#[tokio::test]
async fn an_endpoint_that_is_gone_is_disabled_and_the_others_are_told() {
    let place = Place::start().await;
    let (gone, other) = (Receiving::start(&[GONE_ANSWER]).await, Receiving::start(&[OK]).await);
    let (endpoint, _) = place.endpoint(&gone.url, &["session.*"]).await;
    place.endpoint(&other.url, &["endpoint.*"]).await;
    place.announce(1, &[Announcement::SessionReady, Announcement::SessionWentLive]).await;
    let [told] = other.wait(1).await.try_into().unwrap();
    let expected = json!({"endpoint": endpoint, "reason": "it answered 410 Gone"});
    assert_eq!(
        (&told.json()["type"], &told.json()["data"]),
        (&json!("endpoint.disabled"), &expected)
    );
    place.idle().await;
    let disabled = place.store.endpoint(endpoint).await.unwrap().unwrap().disabled.unwrap();
    assert_eq!(disabled.reason, "it answered 410 Gone");
    assert_eq!(gone.heard().len(), 1, "what waited is dropped");
    let dead = place.store.dead_jobs(5).await.unwrap();
    assert_eq!(dead.len(), 1, "what was refused is kept");
    place.end().await;
}

#[tokio::test]
async fn an_endpoint_that_has_failed_for_days_is_disabled() {
    let place = Place::start().await;
    let receiving = Receiving::start(&[DOWN]).await;
    let (endpoint, _) = place.endpoint(&receiving.url, &[]).await;
    place.announce(1, &[Announcement::SessionReady]).await;
    receiving.wait(1).await;
    until(async || place.store.endpoint(endpoint).await.unwrap()?.failing_since).await;
    store::testing::fail_for_days(&place.store, 6).await;
    place.hurry().await;
    let disabled =
        until(async || place.store.endpoint(endpoint).await.unwrap()?.disabled).await.reason;
    assert!(disabled.starts_with("it has accepted nothing for 6 days: "), "{disabled}");
    place.end().await;
}

#[tokio::test]
async fn nothing_is_sent_inside_unless_the_configuration_allows_it() {
    let config = Config { endpoints: Outbound::anywhere(false).unwrap(), ..config() };
    let place = Place::with(config).await;
    let receiving = Receiving::start(&[OK]).await;
    let inside = receiving.url.replace("http://", "https://");
    let (plain, _) = place.endpoint(&receiving.url, &[]).await;
    let (private, _) = place.endpoint(&inside, &[]).await;
    place.announce(1, &[Announcement::SessionReady]).await;
    for (endpoint, reason) in
        [(plain, "must begin with https"), (private, "no address that may be called")]
    {
        let told = until(async || place.store.endpoint(endpoint).await.unwrap()?.last_error).await;
        assert!(told.contains(reason), "{told}");
    }
    assert!(receiving.heard().is_empty());
    place.end().await;
}

#[tokio::test]
async fn an_account_is_told_by_its_own_name_and_no_more_once_it_is_erased() {
    let place = Place::start().await;
    let receiving = Receiving::start(&[OK]).await;
    let account = place.store.account_key(&key(), "user-17").await.unwrap().pseudonym();
    let of_account = Filter { accounts: vec![account.to_string()], ..Filter::default() };
    let new = NewEndpoint { url: receiving.url.clone(), description: None, filter: of_account };
    let (endpoint, _) = place.store.add_endpoint(&key(), &new).await.unwrap();
    let subject = Subject::live_stream("main", LiveStreamId(1));
    for account in [None, Some(account.to_string())] {
        let news = SessionNews {
            session: Uuid::nil(),
            live_stream: None,
            account,
            note: None,
            derived: None,
        };
        let event = Event::Announced(Announcement::SessionReady(news));
        let event = NewEvent::new(subject.clone(), &event, crate::context::now(), Uuid::now_v7());
        place.store.append_one(event).await.unwrap();
    }
    let [heard] = receiving.wait(1).await.try_into().unwrap();
    assert_eq!(heard.json()["data"]["account"], "user-17");
    place.idle().await;
    assert_eq!(receiving.heard().len(), 1, "others' sessions are not heard");
    let (sources, now) = (["main".to_owned()], crate::context::now());
    place.store.erase_account("user-17", &sources, now, &json!({})).await.unwrap().unwrap();
    let endpoint = place.store.endpoint(endpoint).await.unwrap().unwrap();
    let all = Again::Since { since: Timestamp::UNIX_EPOCH, until: None };
    place.store.resend(&endpoint, all, false).await.unwrap();
    let again = receiving.wait(2).await;
    assert_eq!(
        (again[1].id(), &again[1].json()["data"]["account"]),
        (heard.id(), &json!("[erased]"))
    );
    place.end().await;
}

#[tokio::test]
async fn a_test_message_tells_how_it_went_and_counts_for_nothing() {
    let place = Place::start().await;
    let receiving = Receiving::start(&[OK, DOWN]).await;
    let (endpoint, secret) = place.endpoint(&receiving.url, &["session.live"]).await;
    let args = DeliverArgs { endpoint, message: Told::Test(crate::context::now()) };
    let args = serde_json::to_value(args).unwrap();
    let options = EnqueueOptions { max_attempts: Some(1), ..EnqueueOptions::default() };
    let job = place.store.enqueue(KIND, &args, &options).await.unwrap();
    let [heard] = receiving.wait(1).await.try_into().unwrap();
    assert_eq!(heard.json()["type"], "endpoint.test");
    assert_eq!(heard.id(), format!("evt_test_{}", job.simple()));
    assert_eq!(heard.headers["webhook-signature"], heard.signature(&secret));
    place.store.enqueue(KIND, &args, &options).await.unwrap();
    let dead = until(async || place.store.dead_jobs(1).await.unwrap().pop()).await;
    assert!(dead.last_error.unwrap_or_default().contains("answered 500"));
    let endpoint = place.store.endpoint(endpoint).await.unwrap().unwrap();
    assert_eq!(endpoint.failing_since, None);
    place.end().await;
}

#[test]
fn the_waits_are_the_schedule_less_a_little() {
    let total: Duration = (0..9).map(|errors| wait(errors, 0.0)).sum();
    assert_eq!(total.as_secs(), 5 + 300 + 1_800 + 75 * 3_600);
    assert_eq!(wait(0, 0.0), Duration::from_secs(5));
    assert_eq!(wait(1, 1.0), Duration::from_secs(270));
    assert_eq!(wait(40, 0.0), Duration::from_hours(24));
    assert_eq!(SCHEDULE.len() + 1, usize::try_from(endpoint::MAX_ATTEMPTS).unwrap());
}
