//! `http_call` on a real database against a scripted server: what it sends, what it sends again,
//! what it keeps, and what it never tells.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use domain::event::{Event, JobEnded};
use domain::ids::Subject;
use platform::outbound::{Allow, Outbound};
use store::{EnqueueOptions, PlainJob, SealingKey, Store};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use super::*;
use crate::engine::tests::{config, until};
use crate::{Config, Rate, Rates, Worker};

/// In no event, row or error.
const SECRET: &str = "hunter-2-of-the-shop";

/// A server that answers one line of its script after another, the last one for ever.
struct Server {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// `script`: whole answers; empty: the connection is closed without one.
    async fn start(script: &'static [&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&requests);
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
        Self { url, requests }
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// One request: its head in lower case, and its body.
async fn read(connection: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return text;
            }
        }
        assert!(connection.read_buf(&mut bytes).await.unwrap() > 0, "a whole request");
    }
}

const OK: &str = "HTTP/1.1 200 -\r\ncontent-length: 13\r\nconnection: close\r\n\r\n{\"paid\":true}";

/// A database, a server, and a worker that may call it.
struct Place {
    store: Store,
    server: Server,
    worker: Worker,
}

impl Place {
    async fn with(script: &'static [&'static str]) -> Self {
        Self::rated(script, None).await
    }

    async fn rated(script: &'static [&'static str], rate: Option<Rate>) -> Self {
        let store = store::testing::store().await;
        let server = Server::start(script).await;
        let allow = Allow {
            url: format!("{}/hooks/", server.url),
            private: true,
            secrets: BTreeSet::from(["shop".to_owned()]),
        };
        let places = rate.map(|rate| (allow.url.clone(), rate)).into_iter().collect();
        let rates = Rates { places, ..Rates::default() };
        let secrets = BTreeMap::from([("shop".to_owned(), SECRET.into())]);
        let outbound = Outbound::new(&[allow], secrets).unwrap();
        let config = Config { outbound, rates, ..config() };
        let key = SealingKey::new([7; 32]);
        let ctx = Context::new(store.clone(), HashMap::new(), key, config);
        Self { store, server, worker: Worker::start(ctx) }
    }

    async fn enqueue(&self, args: &Value) -> Uuid {
        // One failure is the end of it, so that a wait which counted would show.
        let max_attempts = args["may_fail"].is_null().then_some(1);
        let mut args = args.clone();
        args.as_object_mut().unwrap().remove("may_fail");
        let options = EnqueueOptions { max_attempts, ..EnqueueOptions::default() };
        self.store.enqueue(KIND, &args, &options).await.unwrap()
    }

    /// The outcome of a call of the path.
    async fn call(&self, path: &str, mut args: Value) -> (Uuid, Event) {
        args["url"] = format!("{}{path}", self.server.url).into();
        let id = self.enqueue(&args).await;
        (id, self.outcome(id).await)
    }

    async fn outcome(&self, id: Uuid) -> Event {
        let subject = Subject::job(id);
        let event =
            until(async || self.store.read_subject(&subject, 0, 10).await.unwrap().pop()).await;
        Event::decode(&event)
    }

    async fn end(self) {
        self.worker.shutdown().await;
    }
}

fn value(event: Event) -> Value {
    let Event::JobCompleted(JobEnded { value: Some(value), .. }) = event else {
        panic!("{event:?}")
    };
    value
}

fn reason(event: Event) -> String {
    let Event::JobDiscarded(JobEnded { error: Some(error), .. }) = event else {
        panic!("{event:?}")
    };
    error
}

#[tokio::test]
async fn a_call_is_made_once_with_key_secret_and_body_and_its_answer_is_in_the_log() {
    let place = Place::with(&[OK]).await;
    let args = json!({
        "method": "POST", "body": {"order": 7},
        "headers": {"X-Plain": "1", "Authorization": {"secret": "shop", "prefix": "Bearer "}},
    });
    let (id, event) = place.call("/hooks/paid?x=1", args).await;
    assert_eq!(value(event), json!({"status": 200, "body": {"paid": true}, "is_cut": false}));
    let [request] = place.server.requests().try_into().unwrap();
    for part in [
        "post /hooks/paid?x=1 ".to_owned(),
        format!("\r\nidempotency-key: {id}\r\n"),
        format!("\r\nauthorization: bearer {SECRET}\r\n"),
        "\r\nx-plain: 1\r\n".to_owned(),
        "\r\ncontent-type: application/json\r\n".to_owned(),
        "\r\n\r\n{\"order\":7}".to_owned(),
    ] {
        assert!(request.contains(&part), "{part} is not in {request}");
    }
    place.end().await;
}

#[tokio::test]
async fn a_call_whose_answer_was_lost_is_sent_again_with_the_same_key() {
    let place = Place::with(&["", OK]).await;
    let args = json!({"may_fail": true, "method": "POST", "idempotency_header": "X-Once"});
    let (id, event) = place.call("/hooks/a", args).await;
    assert_eq!(value(event)["status"], 200);
    let requests = place.server.requests();
    assert_eq!(requests.len(), 2);
    assert!(requests.iter().all(|r| r.contains(&format!("\r\nx-once: {id}\r\n"))), "{requests:?}");
    place.end().await;
}

#[tokio::test]
async fn what_passes_is_tried_again_and_what_stays_is_given_up_at_once() {
    const BUSY: &str =
        "HTTP/1.1 429 -\r\nretry-after: 0\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    const DOWN: &str = "HTTP/1.1 503 -\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    const WRONG: &str =
        "HTTP/1.1 422 -\r\ncontent-length: 11\r\nconnection: close\r\n\r\nno such way";
    let place = Place::with(&[BUSY, DOWN, OK, WRONG]).await;
    let (_, event) =
        place.call("/hooks/a", json!({"may_fail": true, "method": "PUT", "body": "text"})).await;
    assert_eq!(value(event)["status"], 200);
    let (_, event) = place.call("/hooks/a", json!({"method": "PUT"})).await;
    let error = reason(event);
    assert!(error.contains("answered 422: no such way"), "{error}");
    assert_eq!(place.server.requests().len(), 4);
    place.end().await;
}

#[tokio::test]
async fn a_call_that_may_not_be_made_is_given_up_unsent_and_told_why() {
    let place = Place::with(&[OK]).await;
    let get = |more: Value| {
        let mut args = json!({"method": "GET"});
        args.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        args
    };
    for (path, args, why) in [
        ("/elsewhere", get(json!({})), "not on the list"),
        ("/hooks/../admin", get(json!({})), "not on the list"),
        ("/hooks/a", get(json!({"headers": {"a": {"secret": "other"}}})), "may not be sent there"),
        ("/hooks/a", get(json!({"headers": {"a": 7}})), "must be a text or"),
        ("/hooks/a", get(json!({"headers": {"Host": "b"}})), "cannot be set"),
        ("/hooks/a", get(json!({"timeout_seconds": 900})), "must be 1 to 115"),
        ("/hooks/a", get(json!({"deadline_seconds": 0})), "deadline of 0 s is over"),
        ("/hooks/a", get(json!({"retries": 3})), "unknown field `retries`"),
    ] {
        let error = reason(place.call(path, args).await.1);
        assert!(error.contains(why), "{path}: {error}");
    }
    assert!(place.server.requests().is_empty());
    place.end().await;
}

#[tokio::test]
async fn a_secret_that_the_other_side_quotes_is_stored_nowhere() {
    const QUOTE: &str = "HTTP/1.1 200 -\r\ncontent-length: 34\r\nconnection: close\r\n\r\n\
                         {\"sent\":\"hunter-2-of-the-shop ok\"}";
    const QUOTE_WRONG: &str = "HTTP/1.1 400 -\r\ncontent-length: 20\r\nconnection: close\r\n\r\n\
                               hunter-2-of-the-shop";
    let place = Place::with(&[QUOTE, QUOTE_WRONG]).await;
    let args = json!({"method": "POST", "headers": {"Authorization": {"secret": "shop"}}});
    let (_, event) = place.call("/hooks/a", args.clone()).await;
    assert!(value(event).to_string().contains("*** ok"));
    let (_, event) = place.call("/hooks/a", args).await;
    let error = reason(event);
    let dead = format!("{:?}", place.store.dead_jobs(10).await.unwrap());
    assert!(dead.contains("answered 400") && error.contains("answered 400"), "{dead}");
    assert!(!dead.contains("hunter") && !error.contains("hunter"), "{dead}");
    assert!(place.server.requests().iter().all(|request| request.contains(SECRET)), "it was sent");
    place.end().await;
}

#[tokio::test]
async fn calls_wait_for_the_rate_of_their_place_and_burn_no_attempt() {
    let place = Place::rated(&[OK], Rate::new(4.0, Some(1.0))).await;
    let begun = std::time::Instant::now();
    let args = json!({"method": "GET", "url": format!("{}/hooks/a", place.server.url)});
    let mut jobs = Vec::new();
    for _ in 0..4 {
        jobs.push(place.enqueue(&args).await);
    }
    for job in jobs {
        assert_eq!(value(place.outcome(job).await)["status"], 200);
    }
    assert!(begun.elapsed() >= Duration::from_millis(750), "three had to wait for a token");
    place.end().await;
}

#[tokio::test]
async fn a_call_that_waits_is_given_up_at_its_deadline() {
    let place = Place::rated(&[OK], Rate::new(0.001, Some(1.0))).await;
    let (_, event) = place.call("/hooks/a", json!({"method": "GET"})).await;
    assert_eq!(value(event)["status"], 200);
    let (_, event) = place.call("/hooks/a", json!({"method": "GET", "deadline_seconds": 1})).await;
    let error = reason(event);
    assert!(error.contains("deadline of 1 s is over"), "{error}");
    assert_eq!(place.server.requests().len(), 1);
    place.end().await;
}

#[tokio::test]
async fn a_call_tells_how_the_calls_ended_that_it_waited_for() {
    const GONE: &str = "HTTP/1.1 410 -\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let place = Place::with(&[GONE, OK]).await;
    let call = |path: &str, more: Value| {
        let mut args =
            json!({"method": "POST", "url": format!("{}/hooks/{path}", place.server.url)});
        args.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let options = EnqueueOptions { max_attempts: Some(1), ..EnqueueOptions::default() };
        PlainJob { kind: KIND.to_owned(), args, options }
    };
    let parent = call("done", json!({"include": ["children"], "body": {"order": 7}}));
    let one = [call("part", json!({}))];
    let (parent, _) =
        place.store.enqueue_parent(&parent, &one, Ties::default(), None).await.unwrap();
    assert_eq!(value(place.outcome(parent.id.unwrap()).await)["status"], 200);
    let requests = place.server.requests();
    let (_, body) = requests[1].split_once("\r\n\r\n").unwrap();
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!((&body["order"], &body["children"][0]["state"]), (&json!(7), &json!("discarded")));
    assert!(body["children"][0]["error"].as_str().unwrap().contains("410"), "{body}");
    place.end().await;
}
