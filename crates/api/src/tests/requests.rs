//! Requests that cannot be read: each is a problem document that says what to change.

use axum::body::{Body, Bytes};
use axum::http::{Method, header};
use futures_util::stream;
use serde_json::json;

use super::support::{App, named, request};
use crate::Scope;

const NO_SESSION: &str = "00000000-0000-8000-8000-000000000000";

async fn post(app: &App, content_type: Option<&str>, body: Body) -> super::support::Answer {
    let mut request =
        request(Method::POST, "/v1/sessions", Scope::Admin).header("idempotency-key", "key");
    if let Some(content_type) = content_type {
        request = request.header(header::CONTENT_TYPE, content_type);
    }
    app.send(request.body(body).unwrap()).await
}

#[tokio::test]
async fn broken_json_is_refused_with_its_position() {
    let app = App::start().await;
    let body = "{\"name\":\n  \"show\",,}";
    let detail = post(&app, Some("application/json"), body.into()).await.problem(400, "malformed");
    assert!(detail.contains("line 2 column 10"), "{detail}");
    let deep = "[".repeat(5000);
    for body in ["", "{", "nul", "\u{feff}{}", "{\"name\":\"\\ud800\"}", "{} {}", &deep] {
        let body = body.to_owned();
        post(&app, Some("application/json"), body.into()).await.problem(400, "malformed");
    }
    let not_utf8 = Body::from(&b"{\"name\":\"\xff\"}"[..]);
    post(&app, Some("application/json"), not_utf8).await.problem(400, "malformed");
}

#[tokio::test]
async fn json_that_is_no_object_is_invalid() {
    let app = App::start().await;
    for body in ["[]", "null", "\"name\"", "1"] {
        assert_eq!(
            post(&app, Some("application/json"), body.into()).await.wrong_fields(),
            ["body"]
        );
    }
}

#[tokio::test]
async fn other_content_types_are_refused() {
    let app = App::start().await;
    let body = || Body::from(named("show").to_string());
    for content_type in [None, Some("text/plain"), Some("application/jsonp"), Some("+json")] {
        post(&app, content_type, body()).await.problem(415, "unsupported-media-type");
    }
    for content_type in
        ["application/json; charset=utf-8", "Application/JSON", "application/x+json"]
    {
        let status = post(&app, Some(content_type), body()).await.status;
        assert!(status.is_success(), "{content_type}");
    }
}

#[tokio::test]
async fn oversized_bodies_are_refused_announced_or_not() {
    let app = App::start().await;
    let long = json!({ "name": "show", "data": "x".repeat(9000) }).to_string();
    let detail =
        post(&app, Some("application/json"), long.clone().into()).await.problem(413, "too-large");
    assert!(detail.contains("8192"), "{detail}");
    let pieces = (0..9).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 1000])));
    let unannounced = Body::from_stream(stream::iter(pieces));
    post(&app, Some("application/json"), unannounced).await.problem(413, "too-large");
    // An announcement is enough: nothing is read.
    let announced = request(Method::POST, "/v1/jobs", Scope::Admin)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONTENT_LENGTH, "100000")
        .body(Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>()));
    app.send(announced.unwrap()).await.problem(413, "too-large");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_malformed() {
    let app = App::start().await;
    let pieces = [Ok(Bytes::from("{\"name\":")), Err(std::io::Error::other("gone"))];
    let body = Body::from_stream(stream::iter(pieces));
    post(&app, Some("application/json"), body).await.problem(400, "malformed");
}

#[tokio::test]
async fn unknown_routes_methods_and_ids_are_told_apart() {
    let app = App::start().await;
    for path in ["/", "/v1", "/v1/sessions/", "/v1/nowhere", "/%6civez", "/v1/sessions/%ff"] {
        app.get(path).await.problem(404, "not-found");
    }
    let answer = app.command("/v1/live-streams", None).await;
    answer.problem(405, "method-not-allowed");
    assert!(answer.header(header::ALLOW).contains("GET"), "{:?}", answer.headers);
    for id in [NO_SESSION, "1", "x%20y", "%00"] {
        app.get(&format!("/v1/sessions/{id}")).await.problem(404, "not-found");
        app.get(&format!("/v1/sessions/{id}/timeline")).await.problem(404, "not-found");
        app.get(&format!("/v1/sessions/{id}/ingest")).await.problem(404, "not-found");
        for command in ["go-live", "end", "retry"] {
            let path = format!("/v1/sessions/{id}/{command}");
            app.command(&path, None).await.problem(404, "not-found");
        }
    }
}

#[tokio::test]
async fn queries_are_checked_like_bodies() {
    let app = App::start().await;
    let cases = [
        ("/v1/sessions?limit=501", vec!["limit"]),
        ("/v1/sessions?limit=0&status=dead&colour=red", vec!["status", "limit", "colour"]),
        ("/v1/sessions?source=elsewhere", vec!["source"]),
        ("/v1/sessions?before=yesterday", vec!["before"]),
        ("/v1/sessions?limit=1&limit=2", vec!["limit"]),
        ("/v1/live-streams?after=-1&limit=x", vec!["limit", "after"]),
    ];
    for (path, fields) in cases {
        assert_eq!(app.get(path).await.wrong_fields(), fields, "{path}");
    }
}

#[tokio::test]
async fn commands_take_an_empty_body_or_an_empty_object() {
    let app = App::start().await;
    let id = app.session("key", &named("show")).await;
    let path = format!("/v1/sessions/{id}/go-live");
    app.command(&path, None).await.ok(202);
    app.post(&path, &json!({})).await.ok(202);
    assert_eq!(app.post(&path, &json!({ "now": true })).await.wrong_fields(), ["now"]);
}
