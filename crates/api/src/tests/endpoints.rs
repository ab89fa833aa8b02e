//! Endpoints: registered, changed, tried, and what is told of their secrets.

use axum::body::Body;
use axum::http::{Method, header};
use domain::announcement::{Announcement, SessionNews};
use domain::endpoint::Secret;
use domain::event::Event;
use domain::ids::{LiveStreamId, Subject};
use serde_json::{Value, json};
use uuid::Uuid;

use super::support::{Answer, App, config, request};
use crate::{Config, Scope};

impl App {
    async fn endpoint(&self, body: &Value) -> Value {
        self.post("/v1/endpoints", body).await.ok(201).clone()
    }

    async fn of_endpoint(&self, method: Method, path: &str, body: &Value) -> Answer {
        let request = request(method, path, Scope::EndpointsWrite)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_string()));
        self.send(request.unwrap()).await
    }

    /// Announces something of a session.
    pub(crate) async fn announce(
        &self,
        live_stream: i64,
        announce: fn(SessionNews) -> Announcement,
    ) {
        let news = SessionNews {
            session: Uuid::nil(),
            live_stream: Some(LiveStreamId(live_stream)),
            account: None,
            note: None,
            derived: None,
        };
        let subject = Subject::live_stream(super::support::SOURCE, LiveStreamId(live_stream));
        self.append(&subject, &Event::Announced(announce(news))).await;
    }
}

fn path(endpoint: &Value) -> String {
    format!("/v1/endpoints/{}", endpoint["id"].as_str().unwrap())
}

#[tokio::test]
async fn an_endpoint_is_registered_and_its_secret_told_once() {
    let app = App::start().await;
    let body = json!({
        "url": "https://shop.example/hooks", "description": "the shop",
        "types": ["session.*"], "accounts": ["user-17"], "sources": ["gcore-main"],
    });
    let made = app.endpoint(&body).await;
    let secret = made["secret"].as_str().unwrap();
    assert!(secret.starts_with("whsec_"), "{secret}");
    assert_eq!((&made["enabled"], &made["failing_since"]), (&json!(true), &Value::Null));
    let shown = app.get(&path(&made)).await.ok(200).clone();
    for field in ["url", "description", "types", "accounts", "sources"] {
        assert_eq!(shown[field], body[field], "{field}");
    }
    let listed = app.get("/v1/endpoints").await;
    assert_eq!(listed.ok(200)["endpoints"], json!([shown]));
    assert!(!listed.text.contains("whsec") && shown["secret"].is_null());
    // Not even the table knows who the account is.
    let stored = app.store.endpoints().await.unwrap().remove(0);
    assert_ne!(stored.filter.accounts, ["user-17"]);
}

#[tokio::test]
async fn a_rotation_tells_the_new_secret_and_until_when_the_old_one_signs() {
    let app = App::start().await;
    let made = app.endpoint(&json!({"url": "https://shop.example/"})).await;
    let rotated = app.post(&format!("{}/rotate", path(&made)), &json!({})).await.ok(200).clone();
    assert_ne!(rotated["secret"], made["secret"]);
    assert!(rotated["old_secret_until"].is_string());
    let id: Uuid = made["id"].as_str().unwrap().parse().unwrap();
    let key = app.api.config().sealing_key.clone().unwrap();
    let receiver = app.store.receiver(&key, id).await.unwrap().unwrap();
    let texts: Vec<String> = receiver.secrets.iter().map(Secret::text).collect();
    assert_eq!(json!(texts), json!([rotated["secret"], made["secret"]]));
}

#[tokio::test]
async fn a_patch_changes_what_it_names_and_a_disabled_endpoint_says_why() {
    let app = App::start().await;
    let made = app.endpoint(&json!({"url": "https://a.example/", "types": ["session.*"]})).await;
    let change = json!({"enabled": false, "types": ["recording.ready"], "accounts": ["a"]});
    let changed = app.of_endpoint(Method::PATCH, &path(&made), &change).await;
    let changed = changed.ok(200);
    assert_eq!((&changed["url"], &changed["enabled"]), (&made["url"], &json!(false)));
    assert_eq!(changed["disabled_reason"], "by hand");
    assert_eq!((&changed["types"], &changed["accounts"]), (&change["types"], &change["accounts"]));
    let on = app.of_endpoint(Method::PATCH, &path(&made), &json!({"enabled": true})).await;
    assert_eq!(on.ok(200)["disabled_at"], Value::Null);
    let gone = app.of_endpoint(Method::DELETE, &path(&made), &json!({})).await;
    gone.ok(204);
    app.get(&path(&made)).await.problem(404, "not-found");
    app.get("/v1/endpoints/else").await.problem(404, "not-found");
}

#[tokio::test]
async fn odd_endpoints_are_refused_field_by_field() {
    let app = App::start().await;
    for (body, fields) in [
        (json!({}), &["url"][..]),
        (json!({"url": "http://a.example/"}), &["url"]),
        (json!({"url": "https://a.example/", "types": "session.*"}), &["types"]),
        (json!({"url": "https://a.example/", "types": [""]}), &["types"]),
        (json!({"url": "https://a.example/", "accounts": ["a/b"]}), &["accounts"]),
        (json!({"url": "https://a.example/", "secret": "mine"}), &["secret"]),
        (json!({"url": "https://a.example/", "types": ["session.gone"]}), &["endpoint"]),
        (json!({"url": "https://me@a.example/"}), &["endpoint"]),
    ] {
        let answer = app.post("/v1/endpoints", &body).await;
        assert_eq!(answer.wrong_fields(), fields, "{body}");
    }
    let plain = App::with(Config { plain_endpoints: true, ..config() }).await;
    plain.endpoint(&json!({"url": "http://127.0.0.1:9/"})).await;
    let locked = App::with(Config { sealing_key: None, ..config() }).await;
    let body = json!({"url": "https://a.example/"});
    locked.post("/v1/endpoints", &body).await.problem(501, "not-set-up");
}

#[tokio::test]
async fn a_test_and_a_redelivery_are_jobs() {
    let app = App::start().await;
    let made =
        app.endpoint(&json!({"url": "https://a.example/", "types": ["session.ready"]})).await;
    let post =
        async |verb: &str, body: Value| app.post(&format!("{}/{verb}", path(&made)), &body).await;
    let job = post("test", json!({})).await.ok(202)["job"].clone();
    let job = app.get(&format!("/v1/jobs/{}", job.as_str().unwrap())).await;
    assert_eq!(job.ok(200)["kind"], "deliver_webhook");

    app.announce(1, Announcement::SessionReady).await;
    app.announce(2, Announcement::SessionReady).await;
    app.announce(2, Announcement::SessionEnded).await;
    let since = json!({"since": "2020-01-01T00:00:00Z", "dry_run": true});
    assert_eq!(post("redeliver", since).await.ok(202)["messages"], 2);
    let told = app.get("/v1/events").await.ok(200)["events"].clone();
    let one = json!({"message": told[2]["id"]});
    assert_eq!(post("redeliver", one.clone()).await.ok(202)["messages"], 1);
    assert_eq!(app.store.job_counts().await.unwrap().available, 2);
    for (body, field) in [
        (json!({}), "message"),
        (json!({"message": "evt_1"}), "message"),
        (json!({"message": "evt_1_2_00000003", "since": "2020-01-01T00:00:00Z"}), "message"),
        (json!({"since": "yesterday"}), "since"),
    ] {
        assert!(
            post("redeliver", body.clone()).await.wrong_fields().contains(&field.to_owned()),
            "{body}"
        );
    }
    let unknown = json!({"message": "evt_1_999_00000003"});
    post("redeliver", unknown).await.problem(404, "not-found");
    app.of_endpoint(Method::PATCH, &path(&made), &json!({"enabled": false})).await.ok(200);
    post("redeliver", one).await.problem(409, "endpoint-disabled");
}

#[tokio::test]
async fn one_idempotency_key_is_one_endpoint() {
    let app = App::start().await;
    let add = async |body: &Value| {
        let request = request(Method::POST, "/v1/endpoints", Scope::EndpointsWrite)
            .header(header::CONTENT_TYPE, "application/json")
            .header("Idempotency-Key", "shop-1")
            .body(Body::from(body.to_string()));
        app.send(request.unwrap()).await
    };
    let body = json!({"url": "https://shop.example/", "types": ["session.*"]});
    let first = add(&body).await.ok(201).clone();
    assert_eq!(*add(&body).await.ok(200), first, "the same secret: the answer may have been lost");
    let other = json!({"url": "https://shop.example/", "types": ["recording.*"]});
    add(&other).await.problem(422, "idempotency-key-reused");
    // What became of it since is no other request.
    app.of_endpoint(Method::PATCH, &path(&first), &json!({"types": ["cleanup.*"]})).await.ok(200);
    assert_eq!(add(&body).await.ok(200)["types"], json!(["cleanup.*"]));
    assert_eq!(app.store.endpoints().await.unwrap().len(), 1);
}

#[tokio::test]
async fn deliveries_are_listed_with_how_they_stand() {
    let app = App::start().await;
    let made = app.endpoint(&json!({"url": "https://a.example/"})).await;
    let other = app.endpoint(&json!({"url": "https://b.example/"})).await;
    app.announce(1, Announcement::SessionReady).await;
    let told = app.get("/v1/events").await.ok(200)["events"][0].clone();
    let again = json!({"message": told["id"]});
    app.post(&format!("{}/redeliver", path(&made)), &again).await.ok(202);
    app.post(&format!("{}/test", path(&made)), &json!({})).await.ok(202);
    let listed = app.get(&format!("{}/deliveries", path(&made))).await.ok(200).clone();
    let listed = listed["deliveries"].as_array().unwrap();
    let of = |topic: &str| listed.iter().find(|d| d["type"] == topic).unwrap().clone();
    assert_eq!(listed.len(), 2, "{listed:?}");
    assert_eq!(of("session.ready")["message"], told["id"]);
    assert_eq!(
        (&of("session.ready")["attempts"], &of("endpoint.test")["message"]),
        (&json!(0), &Value::Null)
    );
    let none = async |path: String| app.get(&path).await.ok(200)["deliveries"].clone();
    assert_eq!(none(format!("{}/deliveries", path(&other))).await, json!([]));
    assert_eq!(none(format!("{}/deliveries?undelivered=true", path(&made))).await, json!([]));
    let odd = app.get(&format!("{}/deliveries?undelivered=maybe", path(&made))).await;
    assert_eq!(odd.wrong_fields(), ["undelivered"]);
    app.get(&format!("/v1/endpoints/{}/deliveries", Uuid::nil())).await.problem(404, "not-found");
}
