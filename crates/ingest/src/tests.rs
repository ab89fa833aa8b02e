//! The endpoint as its callers see it, on a real database.

mod faults;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use domain::event::NewEvent;
use domain::ids::{Subject, Timestamp};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::lanes::Kept;
use crate::testing::{
    End, SOURCE, TOKEN, Wire, chunks, config, endpoint, eventually, get, impatient, lanes_of, log,
    path, patient, post, routes, send, spool as open, told,
};
use crate::{Config, Ingest, PathToken, router, spool};

/// A webhook about live stream `id`.
fn stream(id: usize) -> String {
    format!(r#"{{"type":"stream","message":{{"stream":{{"id":{id},"live":true}}}}}}"#)
}

/// All bodies of a folder of fixtures, by name.
fn fixtures(folder: &str) -> BTreeMap<String, Vec<u8>> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    let files = fs::read_dir(root.join(folder)).unwrap().map(|file| file.unwrap());
    files.map(|f| (f.file_name().into_string().unwrap(), fs::read(f.path()).unwrap())).collect()
}

/// What every 404 looks like.
fn is_plain_404(answer: &crate::testing::Answer) {
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert_eq!(answer.headers[header::CONTENT_TYPE], "application/problem+json");
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(body, json!({"type": "about:blank", "title": "Not Found", "status": 404}));
}

#[tokio::test]
async fn every_authenticated_body_is_stored_as_it_came_but_for_secrets() {
    let (router, store, lanes) = endpoint(config()).await;
    let mut sent = BTreeMap::new();
    for (name, body) in fixtures("webhooks").into_iter().chain(fixtures("malformed")) {
        let id = post(&router, &path(), body.clone()).await.event_id();
        sent.insert(id, (name, body));
    }
    assert!(sent.len() > 130, "{} fixtures", sent.len());

    let stored = log(&store).await;
    assert_eq!(stored.len(), sent.len());
    let mut redacted = 0;
    for event in stored {
        let (name, body) = &sent[&event.event_id];
        let (expected, secrets) = domain::redact::redact_platform(body);
        assert_eq!(event.payload, expected, "{name}");
        assert_eq!(event.event_type, "WebhookReceived", "{name}");
        assert_eq!(event.subject, domain::webhook::subject(SOURCE, body), "{name}");
        let meta = event.meta.unwrap();
        assert_eq!(meta["bytes"], body.len(), "{name}");
        assert_eq!(meta["redacted"], secrets, "{name}");
        assert_eq!(meta["remote"], "192.0.2.1", "{name}");
        redacted += secrets;
    }
    assert!(redacted > 0);
    let counted = lanes.metrics();
    assert_eq!(counted.stored.get(), sent.len() as u64);
    assert_eq!(counted.events_appended.get(), sent.len() as u64);
    assert_eq!(counted.redacted.get(), redacted as u64);
    assert!(counted.unrecognized.get() >= 20, "{counted:?}");
}

#[tokio::test]
async fn a_push_token_never_reaches_the_log() {
    let (router, store, _lanes) = endpoint(config()).await;
    let body = r#"{"type":"stream","message":{"stream":{"id":7,
        "uri":"srt://vp.example:5001?streamid=7#aaabbbcccdddeee"}}}"#;
    post(&router, &path(), body).await.event_id();
    let stored = log(&store).await.remove(0);
    let payload = String::from_utf8(stored.payload).unwrap();
    assert!(!payload.contains("aaabbbcccdddeee"), "{payload}");
    assert!(payload.contains("streamid=7"), "{payload}");
    assert_eq!(stored.subject.as_str(), "gcore-main/stream/7");
}

#[tokio::test]
async fn strangers_get_one_answer_and_store_nothing() {
    let (router, store, lanes) = endpoint(config()).await;
    let wrong = [
        format!("/webhooks/{SOURCE}/wrong-token-0123456789"),
        format!("/webhooks/nobody/{TOKEN}"),
        format!("/webhooks/{SOURCE}/%FF%FE"),
        format!("/webhooks/{SOURCE}/{TOKEN}x"),
        format!("/webhooks/{SOURCE}/{TOKEN}/"),
        format!("/webhooks/{SOURCE}"),
        "/".to_owned(),
    ];
    for path in &wrong {
        is_plain_404(&post(&router, path, stream(1)).await);
    }
    // Nothing of a stranger's body is waited for.
    is_plain_404(&post(&router, &wrong[0], chunks([], End::Stalled)).await);
    assert!(log(&store).await.is_empty());
    assert_eq!(lanes.metrics().stored.get(), 0);
    assert_eq!(lanes.metrics().not_found.get(), 5);
}

#[tokio::test]
async fn other_methods_are_refused_as_problems() {
    let (router, store, _lanes) = endpoint(config()).await;
    let answer = get(&router, &path()).await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(answer.headers[header::CONTENT_TYPE], "application/problem+json");
    assert_eq!(answer.headers[header::ALLOW], "POST");
    assert!(log(&store).await.is_empty());
}

#[tokio::test]
async fn tokens_rotate_without_a_lost_webhook() {
    const NEXT: &str = "bmV4dC10b2tlbi1uZXh0";
    let moment = |text: &str| text.parse::<Timestamp>().unwrap();
    let with_clock = |clock: fn() -> Timestamp| {
        let mut config = Config { clock, ..config() };
        let old = PathToken::of(TOKEN).unwrap().until(moment("2026-02-01T00:00:00Z"));
        config.sources[0].tokens = vec![old, PathToken::of(NEXT).unwrap()];
        config
    };
    let store = store::testing::store().await;
    let lanes = lanes_of(&store, patient());
    let before = || "2026-01-31T23:59:59Z".parse().unwrap();
    let after = || "2026-02-01T00:00:01Z".parse().unwrap();
    let next = format!("/webhooks/{SOURCE}/{NEXT}");

    let router = routes(with_clock(before), &store, &lanes);
    post(&router, &path(), stream(1)).await.event_id();
    post(&router, &next, stream(2)).await.event_id();
    let router = routes(with_clock(after), &store, &lanes);
    is_plain_404(&post(&router, &path(), stream(3)).await);
    post(&router, &next, stream(4)).await.event_id();

    let stored = log(&store).await;
    assert_eq!(stored.len(), 3);
    let times: BTreeSet<Timestamp> = stored.iter().map(|event| event.received_at).collect();
    assert_eq!(times, BTreeSet::from([before(), after()]));
}

#[tokio::test]
async fn callers_outside_the_networks_of_a_source_are_strangers() {
    let with = |networks: &[&str], proxies: &[&str]| {
        let mut config = config();
        config.sources[0].networks = networks.iter().map(|n| n.parse().unwrap()).collect();
        config.trusted_proxies = proxies.iter().map(|n| n.parse().unwrap()).collect();
        config
    };
    let store = store::testing::store().await;
    let lanes = lanes_of(&store, patient());
    let forwarded = || {
        let request = Request::post(path()).header("x-forwarded-for", "6.6.6.6, 203.0.113.9");
        request.body(Body::from(stream(1))).unwrap()
    };
    let outside = routes(with(&["203.0.113.0/24"], &[]), &store, &lanes);
    is_plain_404(&send(&outside, forwarded()).await);
    let inside = routes(with(&["203.0.113.0/24"], &["192.0.2.0/24"]), &store, &lanes);
    send(&inside, forwarded()).await.event_id();
    assert_eq!(log(&store).await[0].meta.as_ref().unwrap()["remote"], "203.0.113.9");
    assert_eq!(lanes.metrics().outside_networks.get(), 1);
}

#[tokio::test]
async fn a_body_of_the_limit_is_stored_and_one_more_byte_is_refused() {
    const LIMIT: usize = 1000;
    let (router, store, lanes) = endpoint(Config { body_limit: LIMIT, ..config() }).await;
    let halves = |second: usize| [vec![b'x'; LIMIT / 2], vec![b'y'; second]];
    let whole = vec![b'x'; LIMIT];
    post(&router, &path(), whole.clone()).await.event_id();
    post(&router, &path(), chunks(halves(LIMIT / 2), End::Whole)).await.event_id();
    for body in [Body::from(vec![b'x'; LIMIT + 1]), chunks(halves(LIMIT / 2 + 1), End::Whole)] {
        let answer = post(&router, &path(), body).await;
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(answer.headers[header::CONTENT_TYPE], "application/problem+json");
    }
    let stored = log(&store).await;
    assert_eq!(stored.len(), 2);
    assert!(stored.iter().all(|event| event.payload.len() == LIMIT));
    assert_eq!(lanes.metrics().too_large.get(), 2);
}

#[tokio::test]
async fn half_a_body_is_never_stored() {
    let body_timeout = Duration::from_millis(20);
    let (router, store, lanes) = endpoint(Config { body_timeout, ..config() }).await;
    let half = || [stream(1).into_bytes()];
    let stalled = post(&router, &path(), chunks(half(), End::Stalled)).await;
    assert_eq!(stalled.status, StatusCode::REQUEST_TIMEOUT);
    let broken = post(&router, &path(), chunks(half(), End::Broken)).await;
    assert_eq!(broken.status, StatusCode::BAD_REQUEST);
    assert!(log(&store).await.is_empty());
    let counted = lanes.metrics();
    assert_eq!((counted.timed_out.get(), counted.broken_off.get()), (1, 1));
}

#[tokio::test]
async fn an_identical_body_is_marked_and_stored() {
    let (router, store, lanes) = endpoint(config()).await;
    let first = post(&router, &path(), stream(1)).await.event_id();
    let second = post(&router, &path(), stream(1)).await.event_id();
    let other = post(&router, &path(), stream(2)).await.event_id();
    let stored = log(&store).await;
    let repeat_of = |id: Uuid| {
        let event = stored.iter().find(|event| event.event_id == id).unwrap();
        event.meta.as_ref().unwrap().get("repeat_of").cloned()
    };
    assert_eq!(repeat_of(first), None);
    assert_eq!(repeat_of(second), Some(json!(first)));
    assert_eq!(repeat_of(other), None);
    assert_eq!(lanes.metrics().repeated.get(), 1);
}

/// Posts `count` webhooks at once and returns the ids of those that were acknowledged.
async fn posted(router: &axum::Router, count: usize) -> Vec<Uuid> {
    let mut posts = JoinSet::new();
    for n in 0..count {
        let router = router.clone();
        posts.spawn(async move { post(&router, &path(), stream(n + 1)).await });
    }
    let answers = posts.join_all().await;
    let stored = answers.iter().filter(|answer| answer.status == StatusCode::OK);
    stored.map(crate::testing::Answer::event_id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn webhooks_at_once_are_stored_exactly_once_and_in_batches() {
    let (router, store, lanes) = endpoint(config()).await;
    let acknowledged: BTreeSet<Uuid> = posted(&router, 100).await.into_iter().collect();
    let stored: Vec<Uuid> = log(&store).await.into_iter().map(|event| event.event_id).collect();
    assert_eq!(stored.len(), 100);
    assert_eq!(stored.into_iter().collect::<BTreeSet<_>>(), acknowledged);
    assert!(told(&lanes, "append_batch_events_sum").total_cmp(&100.0).is_eq());
    assert!(told(&lanes, "append_batch_events_count") <= 100.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn cut_connections_neither_lose_nor_double_a_webhook() {
    let wire = Wire::new(8).await;
    let lanes = wire.lanes(patient());
    let router = routes(config(), &wire.wired, &lanes);
    let mut acknowledged = Vec::new();
    for _ in 0..4 {
        let posts = posted(&router, 50);
        let cuts = async {
            for _ in 0..3 {
                wire.cut();
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        };
        acknowledged.extend(tokio::join!(posts, cuts).0);
    }
    assert_eq!(acknowledged.len(), 200, "{:?}", lanes.metrics());
    assert!(lanes.metrics().append_retries.get() > 0, "the cuts hit nothing");
    let mut stored: Vec<_> = log(&wire.direct).await.into_iter().map(|e| e.event_id).collect();
    stored.sort();
    acknowledged.sort();
    assert_eq!(stored, acknowledged);
}

#[tokio::test]
async fn a_lost_reply_of_the_database_stores_the_webhook_once() {
    let wire = Wire::new(1).await;
    let lanes = wire.lanes(patient());
    let router = routes(config(), &wire.wired, &lanes);
    // The connection has the statement prepared now.
    post(&router, &path(), stream(1)).await.event_id();
    wire.mute();
    let second = tokio::spawn(async move { post(&router, &path(), stream(1)).await });
    eventually(async || log(&wire.direct).await.len() == 2).await;
    assert!(!second.is_finished());
    wire.up();
    wire.cut();
    let id = second.await.unwrap().event_id();
    let stored = log(&wire.direct).await;
    assert_eq!(stored.len(), 2);
    assert_eq!(stored[1].event_id, id);
    assert_eq!(lanes.metrics().append_retries.get(), 1);
}

#[tokio::test]
async fn while_the_database_is_away_webhooks_are_taken_and_the_endpoint_is_ready() {
    let wire = Wire::new(4).await;
    let lanes = wire.lanes(impatient());
    let router = routes(config(), &wire.wired, &lanes);
    wire.down();
    let id = post(&router, &path(), stream(1)).await.event_id();
    let probe = get(&router, "/readyz").await;
    assert_eq!(probe.status, StatusCode::OK);
    let told: Value = serde_json::from_slice(&probe.body).unwrap();
    assert_eq!(told, json!({"status": "ready", "spooling": true}));
    wire.up();
    eventually(async || log(&wire.direct).await.iter().any(|event| event.event_id == id)).await;
    eventually(async || {
        let probe = get(&router, "/readyz").await;
        serde_json::from_slice::<Value>(&probe.body).unwrap()["spooling"] == false
    })
    .await;
}

#[tokio::test]
async fn with_the_spool_full_as_well_webhooks_are_told_to_come_back() {
    let wire = Wire::new(4).await;
    let full = spool::Config { max_bytes: 1, ..spool::Config::new(wire.dir.path()) };
    let lanes = wire.lanes_on(open(&wire.direct, &full), impatient());
    let router = routes(config(), &wire.wired, &lanes);
    wire.down();
    let answer = post(&router, &path(), stream(1)).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    let after: u8 = answer.headers[header::RETRY_AFTER].to_str().unwrap().parse().unwrap();
    assert!((1..=5).contains(&after));
    assert_eq!(lanes.metrics().unavailable.get(), 1);
    eventually(async || get(&router, "/readyz").await.status != StatusCode::OK).await;
    assert_eq!(get(&router, "/livez").await.status, StatusCode::OK);
    wire.up();
    eventually(async || post(&router, &path(), stream(2)).await.status == StatusCode::OK).await;
    eventually(async || get(&router, "/readyz").await.status == StatusCode::OK).await;
}

#[tokio::test]
async fn a_webhook_whose_caller_has_left_is_stored() {
    let wire = Wire::new(4).await;
    let lanes = wire.lanes(patient());
    let router = routes(config(), &wire.wired, &lanes);
    wire.down();
    let caller = tokio::spawn(async move { post(&router, &path(), stream(1)).await });
    eventually(async || lanes.metrics().append_retries.get() > 0).await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    wire.up();
    eventually(async || log(&wire.direct).await.len() == 1).await;
    eventually(async || lanes.metrics().events_appended.get() == 1).await;
}

#[tokio::test]
async fn a_large_body_is_stored_like_any_other() {
    let (router, store, _lanes) = endpoint(config()).await;
    let mut body = stream(7).into_bytes();
    body.resize(1 << 20, b' ');
    post(&router, &path(), body.clone()).await.event_id();
    let stored = log(&store).await.remove(0);
    assert_eq!(stored.subject.as_str(), "gcore-main/stream/7");
    assert!(stored.payload == body);
}

#[tokio::test]
async fn what_the_database_refuses_is_kept_as_unrecognized() {
    let (_router, store, lanes) = endpoint(config()).await;
    let event = NewEvent {
        event_id: Uuid::now_v7(),
        subject: Subject::from_stored("gcore-main/st\0ream/1".to_owned()),
        event_type: "WebhookReceived".to_owned(),
        schema_version: 1,
        key: None,
        received_at: Timestamp::default(),
        causation_id: None,
        correlation_id: None,
        meta: Some(json!({ "bytes": 3, "user_agent": "a\0b" }).into()),
        payload: b"a\0b".to_vec(),
    };
    let id = event.event_id;
    assert_eq!(lanes.append(event).await, Ok(Kept::Unrecognized));
    let stored = log(&store).await.remove(0);
    assert_eq!((stored.event_id, stored.payload.as_slice()), (id, b"a\0b".as_slice()));
    assert_eq!(stored.subject, Subject::unrecognized(SOURCE));
    assert_eq!(stored.meta, Some(json!({ "bytes": 3, "refused": "22021" })));
    assert_eq!(lanes.metrics().events_refused.get(), 1);
}

#[tokio::test]
async fn a_draining_process_is_not_ready_and_loses_nothing() {
    let store = store::testing::store().await;
    let lanes = lanes_of(&store, patient());
    let draining = CancellationToken::new();
    let ingest = Ingest::new(config(), store.clone(), lanes.clone(), draining.clone()).unwrap();
    let router = router(ingest);
    draining.cancel();
    let probe = get(&router, "/readyz").await;
    assert_eq!(probe.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(String::from_utf8_lossy(&probe.body).contains("draining"));
    // Until the balancer has heard of it, webhooks are taken.
    post(&router, &path(), stream(1)).await.event_id();
    assert!(lanes.drain().await);
    let late = post(&router, &path(), stream(2)).await;
    assert_eq!(late.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(log(&store).await.len(), 1);
}

/// Sends lines, and returns the answer's lines.
async fn batch(router: &axum::Router, token: &str, lines: &str) -> (StatusCode, Vec<Value>) {
    let request =
        Request::post("/v1/events:batch").header("authorization", format!("Bearer {token}"));
    let answer = send(router, request.body(Body::from(lines.to_owned())).unwrap()).await;
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    (answer.status, text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

#[tokio::test]
async fn a_batch_is_answered_line_by_line_and_stores_what_is_allowed() {
    let (router, store, queues) = endpoint(config()).await;
    let now: Timestamp = std::time::SystemTime::now().into();
    let lines = [
        (r#"{"type":"WebhookReceived","source":"gcore-main","payload":{"type":"stream","message":{"stream":{"id":7,"live":true,"uri":"srt://h:1?streamid=7#aaabbbcccddd"}}},"received_at":"2026-01-02T03:04:05Z"}"#.to_owned(), "stored"),
        (r#"{"type":"shop.OrderPaid","subject":"gcore-main/order/17","payload":{"n":1},"key":"17"}"#.to_owned(), "stored"),
        (r#"{"type":"shop.OrderPaid","subject":"gcore-main/order/17","payload":{"n":2},"key":"17"}"#.to_owned(), "duplicate"),
        (r#"{"type":"CallSucceeded","subject":"gcore-main/stream/7","payload":{}}"#.to_owned(), "type is not taken"),
        (r#"{"type":"WebhookReceived","subject":"gcore-main/stream/7","payload":{}}"#.to_owned(), "a webhook's subject follows"),
        (r#"{"type":"WebhookReceived","source":"other","payload":{}}"#.to_owned(), "not one of this token's"),
        (r#"{"type":"a.b","subject":"other/x/1","payload":{}}"#.to_owned(), "not one of this token's"),
        (r#"{"type":"a.b","subject":"gcore-main/x","payload":{}}"#.to_owned(), "no subject"),
        (r#"{"type":"a.b","subject":"gcore-main/x/a\u0000b","payload":{}}"#.to_owned(), "no subject"),
        (r#"{"type":"a.b","subject":"gcore-main/x/1","payload":{},"odd":1}"#.to_owned(), "unknown field"),
        ("not json".to_owned(), "not an event"),
        (format!(r#"{{"type":"a.b","subject":"gcore-main/x/1","payload":{{}},"received_at":"{}"}}"#, (now + Duration::from_mins(9)).to_rfc3339()), "future"),
        (r#"{"type":"a.b","subject":"gcore-main/x/1","payload":{},"key":""}"#.to_owned(), "key is empty"),
    ];
    let body: Vec<&str> = lines.iter().map(|(line, _)| line.as_str()).collect();
    let (status, answers) = batch(&router, TOKEN, &body.join("\n\n")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(answers.len(), lines.len());
    for ((line, expected), answer) in lines.iter().zip(&answers) {
        let told = answer["error"].as_str().or(answer["status"].as_str()).unwrap();
        assert!(told.contains(expected), "{line}: {answer}");
    }
    assert_eq!(answers[1]["event_id"], answers[2]["event_id"]);
    let mut stored = log(&store).await;
    stored.sort_by_key(|event| event.received_at);
    let [webhook, order] = &stored[..] else { panic!("{stored:?}") };
    assert_eq!(webhook.subject.as_str(), "gcore-main/stream/7");
    assert_eq!(webhook.received_at.to_rfc3339(), "2026-01-02T03:04:05+00:00");
    assert!(!String::from_utf8_lossy(&webhook.payload).contains("aaabbbcccddd"));
    assert_eq!(
        (order.payload.as_slice(), order.event_type.as_str()),
        (&b"{\"n\":1}"[..], "shop.OrderPaid")
    );
    assert_eq!(order.meta.as_ref().unwrap()["token"], "backfill");
    assert_eq!(queues.metrics().batches.get(), 1);
}

#[tokio::test]
async fn a_batch_without_a_token_or_beyond_the_limits_is_turned_away() {
    let (router, store, _lanes) = endpoint(config()).await;
    let line = r#"{"type":"a.b","subject":"gcore-main/x/1","payload":{}}"#;
    for token in ["", "wrong", &TOKEN[1..]] {
        assert_eq!(batch(&router, token, line).await.0, StatusCode::UNAUTHORIZED);
    }
    let many = format!("{line}\n").repeat(1001);
    assert_eq!(batch(&router, TOKEN, &many).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    let large = " ".repeat((1 << 20) + 1);
    assert_eq!(batch(&router, TOKEN, &large).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(log(&store).await.is_empty());
    let most = format!("{line}\n").repeat(1000);
    let (status, answers) = batch(&router, TOKEN, &most).await;
    assert_eq!((status, answers.len()), (StatusCode::OK, 1000));
    assert_eq!(log(&store).await.len(), 1000);
}

/// Collects what is logged.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

// For the whole process, so that the other tests' logs are looked at, too.
#[tokio::test]
async fn no_token_path_or_body_is_logged() {
    let captured = Captured::default();
    let writer = captured.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::DEBUG)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let wire = Wire::new(2).await;
    let lanes = wire.lanes(impatient());
    let router = routes(Config { body_limit: 500, ..config() }, &wire.wired, &lanes);
    let body = r#"{"type":"stream","message":{"stream":{"id":1,"name":"body-text"}}}"#;

    let id = post(&router, &path(), body).await.event_id();
    let queried = format!("{}?query=query-text", path());
    post(&router, &queried, body).await.event_id();
    post(&router, &format!("/webhooks/{SOURCE}/token-text-0123456789"), body).await;
    post(&router, &path(), body.repeat(20)).await;
    wire.down();
    post(&router, &path(), body).await;

    let logged = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
    assert!(logged.contains(&format!("event_id={id}")), "{logged}");
    assert!(logged.contains("append not known"), "{logged}");
    for secret in [TOKEN, "token-text", "/webhooks/", "query-text", "body-text"] {
        assert!(!logged.contains(secret), "{secret}: {logged}");
    }
}
