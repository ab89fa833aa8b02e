//! What other services tell and enqueue: deleted accounts, plain jobs.

use axum::body::Body;
use axum::http::Method;
use domain::event::Event;
use serde_json::{Value, json};

use super::support::{App, SOURCE, config, request};
use crate::{Config, Scope};

#[tokio::test]
async fn a_deleted_account_is_noted_once_however_often_it_is_told() {
    let app = App::start().await;
    for _ in 0..3 {
        let path = "/v1/accounts/user-17@example.org/deleted";
        let request = request(Method::POST, path, Scope::AccountsWrite).body(Body::empty());
        let answer = app.send(request.unwrap()).await;
        assert_eq!(answer.ok(202)["sources"], json!([SOURCE]));
    }
    let events = app.events(&app.account(SOURCE, "user-17@example.org").await).await;
    let [Event::AccountDeleted(deleted)] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(deleted.account, "user-17@example.org");
}

#[tokio::test]
async fn a_deleted_account_is_noted_on_every_source_or_on_the_named_one() {
    let sources = vec![SOURCE.to_owned(), "gcore-eu".to_owned()];
    let app = App::with(Config { sources, ..config() }).await;
    app.post("/v1/accounts/a/deleted", &json!({ "source": "gcore-eu" })).await.ok(202);
    assert!(app.events(&app.account(SOURCE, "a").await).await.is_empty());
    app.post("/v1/accounts/a/deleted", &json!({})).await.ok(202);
    assert_eq!(app.events(&app.account(SOURCE, "a").await).await.len(), 1);
    assert_eq!(app.events(&app.account("gcore-eu", "a").await).await.len(), 1);
}

#[tokio::test]
async fn odd_accounts_are_refused() {
    let app = App::start().await;
    for id in ["a%2Fb", "a%20b", "%C3%BC", "a%25b", &"x".repeat(201)] {
        let path = format!("/v1/accounts/{id}/deleted");
        assert_eq!(app.post(&path, &json!({})).await.wrong_fields(), ["id"], "{id}");
    }
    let elsewhere = json!({ "source": "elsewhere" });
    assert_eq!(app.post("/v1/accounts/a/deleted", &elsewhere).await.wrong_fields(), ["source"]);
}

/// A trace of the caller's, and one of its header.
const TRACES: [&str; 2] = [
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
];

#[tokio::test]
async fn a_job_is_part_of_the_trace_of_its_body_else_of_the_header() {
    let app = App::start().await;
    let send = async |path: &str, body: &Value| {
        let request = request(Method::POST, path, Scope::JobsWrite)
            .header("traceparent", TRACES[1])
            .header("content-type", "application/json")
            .body(Body::from(body.to_string()));
        app.send(request.unwrap()).await
    };
    let trace_of = async |id: &Value| {
        let job = app.store.find_job(id.as_str().unwrap().parse().unwrap()).await.unwrap();
        job.unwrap().trace
    };
    let job = json!({ "kind": "send_mail" });
    let answer = send("/v1/jobs", &job).await;
    assert_eq!(trace_of(&answer.ok(201)["id"]).await.as_deref(), Some(TRACES[1]));
    let named = json!({ "kind": "send_mail", "traceparent": TRACES[0] });
    let answer = send("/v1/jobs", &named).await;
    assert_eq!(trace_of(&answer.ok(201)["id"]).await.as_deref(), Some(TRACES[0]));
    let answer = send("/v1/jobs:batch", &json!({ "jobs": [job, job] })).await;
    for job in answer.ok(201)["jobs"].as_array().unwrap() {
        assert_eq!(trace_of(&job["id"]).await.as_deref(), Some(TRACES[1]));
    }
    let mut parent = job.clone();
    parent["children"] = json!([job]);
    let answer = send("/v1/jobs:parent", &parent).await;
    for id in [&answer.ok(201)["id"], &answer.json["children"][0]] {
        assert_eq!(trace_of(id).await.as_deref(), Some(TRACES[1]));
    }
    // The connection that carried a trace carries it no further.
    let answer = app.post("/v1/jobs", &job).await;
    assert_eq!(trace_of(&answer.ok(201)["id"]).await, None);
    let odd = json!({ "kind": "send_mail", "traceparent": "00-1-2-01" });
    assert_eq!(send("/v1/jobs", &odd).await.wrong_fields(), ["traceparent"]);
}

#[tokio::test]
async fn jobs_are_enqueued_with_all_their_options() {
    let app = App::start().await;
    let body = json!({
        "kind": "http_call", "args": { "url": "https://a.example" }, "subject": "order/17",
        "run_at": "2099-01-01T12:00:00+02:00", "key": "k", "priority": 1, "max_attempts": 3,
    });
    let first = app.post("/v1/jobs", &body).await;
    let id = first.ok(201)["id"].clone();
    assert_eq!(app.post("/v1/jobs", &body).await.ok(201)["id"], id, "a key is one live job");
    app.post("/v1/jobs", &json!({ "kind": "send_mail" })).await.ok(201);
    let counts = app.store.job_counts().await.unwrap();
    assert_eq!((counts.scheduled, counts.available), (1, 1));
}

#[tokio::test]
async fn unknown_kinds_are_refused_with_those_that_are_known() {
    let app = App::start().await;
    for kind in ["timer", "delete_live_stream", "http_cal"] {
        let answer = app.post("/v1/jobs", &json!({ "kind": kind })).await;
        assert_eq!(answer.wrong_fields(), ["kind"]);
        assert!(answer.text.contains("known: http_call, send_mail"), "{}", answer.text);
    }
    let app = App::with(Config { known_kinds: Vec::new(), ..config() }).await;
    let answer = app.post("/v1/jobs", &json!({ "kind": "http_call" })).await;
    assert!(answer.text.contains("runs no plain jobs"), "{}", answer.text);
}

#[tokio::test]
async fn all_wrong_options_are_named() {
    let app = App::start().await;
    let cases: [(Value, &str); 9] = [
        (json!({ "kind": "http_call", "args": [] }), "args"),
        (json!({ "kind": "http_call", "args": { "a": "\0" } }), "args"),
        (json!({ "kind": "http_call", "run_at": "tomorrow" }), "run_at"),
        (json!({ "kind": "http_call", "run_at": 1 }), "run_at"),
        (json!({ "kind": "http_call", "key": "" }), "key"),
        (json!({ "kind": "http_call", "subject": "a\nb" }), "subject"),
        (json!({ "kind": "http_call", "priority": 5 }), "priority"),
        (json!({ "kind": "http_call", "max_attempts": 0 }), "max_attempts"),
        (json!({ "kind": "http_call", "colour": "red" }), "colour"),
    ];
    for (body, field) in cases {
        assert_eq!(app.post("/v1/jobs", &body).await.wrong_fields(), [field], "{body}");
    }
    assert_eq!(app.post("/v1/jobs", &json!({})).await.wrong_fields(), ["kind"]);
    assert_eq!(app.store.job_counts().await.unwrap().available, 0);
}

#[tokio::test]
async fn a_job_that_keeps_its_order_says_by_what() {
    let app = App::start().await;
    let without = json!({ "kind": "send_mail", "ordered": true });
    let told = app.post("/v1/jobs", &without).await.problem(422, "invalid");
    assert!(told.contains("\"ordered\" needs \"limit_key\" or \"subject\""), "{told}");
    let odd = json!({ "kind": "send_mail", "ordered": "yes", "subject": "order/17" });
    assert_eq!(app.post("/v1/jobs", &odd).await.wrong_fields(), ["ordered"]);
    let ordered = json!({ "kind": "send_mail", "ordered": true, "subject": "order/17" });
    app.post("/v1/jobs", &ordered).await.ok(201);
}

#[tokio::test]
async fn a_limit_key_that_is_full_is_a_429_that_says_so() {
    let app = App::start().await;
    let body = json!({ "kind": "send_mail", "limit_key": "account/7", "limit": 2,
        "limit_waiting": 1, "fair_key": "7", "queue": "mails" });
    app.post("/v1/jobs", &body).await.ok(201);
    let answer = app.post("/v1/jobs", &body).await;
    assert_eq!(answer.status.as_u16(), 429, "{}", answer.text);
    assert!(answer.text.contains("too-many-jobs") && answer.text.contains("account/7"));
}

#[tokio::test]
async fn a_key_that_is_taken_comes_to_what_was_asked_for() {
    let app = App::start().await;
    let with = |mode: &str| json!({ "kind": "send_mail", "key": "k", "on_conflict": mode });
    let first = app.post("/v1/jobs", &with("replace")).await.ok(201).clone();
    assert_eq!(first["is_new"], json!(true));
    let second = app.post("/v1/jobs", &with("replace")).await.ok(201).clone();
    assert_eq!((&second["id"], &second["is_new"]), (&first["id"], &json!(false)));
    assert_eq!(app.post("/v1/jobs", &with("ignore")).await.ok(201)["id"], Value::Null);
    assert_eq!(app.post("/v1/jobs", &with("panic")).await.wrong_fields(), ["on_conflict"]);
}

#[tokio::test]
async fn a_pause_is_told_until_it_is_ended() {
    let app = App::start().await;
    let queue = json!({ "queue": "mails" });
    let because = json!({ "queue": "mails", "reason": "the mail server is down" });
    assert_eq!(app.post("/v1/jobs:pause", &because).await.ok(200)["changed"], json!(true));
    assert_eq!(app.post("/v1/jobs:pause", &queue).await.ok(200)["changed"], json!(false));
    let paused = app.get("/v1/jobs:paused").await.ok(200)["items"].clone();
    assert_eq!((&paused[0]["scope"], &paused[0]["name"]), (&json!("queue"), &json!("mails")));
    assert_eq!(paused[0]["reason"], json!("the mail server is down"));
    assert_eq!(app.post("/v1/jobs:resume", &queue).await.ok(200)["changed"], json!(true));
    assert_eq!(app.get("/v1/jobs:paused").await.ok(200)["items"], json!([]));
    for body in [json!({}), json!({ "queue": "a", "kind": "b" })] {
        assert_eq!(app.post("/v1/jobs:pause", &body).await.wrong_fields(), ["queue"]);
    }
    let timers = app.post("/v1/jobs:pause", &json!({ "kind": "timer" })).await;
    assert_eq!(timers.wrong_fields(), ["kind"]);
}
