//! Calls to other services by the real binary: configured, enqueued in a caller's transaction, made,
//! and told in the log, with no secret anywhere.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use serde_json::json;

use crate::system::{Database, Setup, TestSystem};

const SECRET: &str = "hunter-2-of-the-shop";

/// A service that refuses for want of time once, and then answers with what it was sent.
async fn service() -> (String, Arc<Mutex<Vec<HeaderMap>>>) {
    let seen: Arc<Mutex<Vec<HeaderMap>>> = Arc::default();
    let heads = Arc::clone(&seen);
    let answer = move |request: Request| {
        let heads = Arc::clone(&heads);
        async move {
            let headers = request.headers().clone();
            let quoted = headers["authorization"].to_str().unwrap().to_owned();
            let mut heads = heads.lock().unwrap();
            heads.push(headers);
            if heads.len() == 1 {
                return (StatusCode::SERVICE_UNAVAILABLE, quoted);
            }
            (StatusCode::ACCEPTED, json!({"you_sent": quoted}).to_string())
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hooks/", listener.local_addr().unwrap());
    let router = Router::new().fallback(answer);
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, seen)
}

#[tokio::test]
async fn a_call_is_made_until_it_is_answered_and_its_secret_is_nowhere() {
    let (url, seen) = service().await;
    let http_call = format!(
        r#"
[[http_call.allow]]
url = "{url}"
private = true
secrets = ["shop"]
rate_per_second = 20

[[http_call.secrets]]
name = "shop"
value = "{SECRET}"
"#
    );
    let system =
        TestSystem::start(Setup { http_call, log_level: "debug", ..Setup::default() }).await;
    let args = json!({
        "method": "POST", "url": format!("{url}paid"), "body": {"order": 7},
        "headers": {"Authorization": {"secret": "shop", "prefix": "Bearer "}},
    });
    let mut tx = system.database.begin().await;
    let job = Database::enqueue(&mut tx, "http_call", &args).await;
    tx.commit().await.unwrap();
    let value = system.until_done(job).await;
    let body = json!({"you_sent": "Bearer ***"});
    assert_eq!(value, json!({"status": 202, "body": body, "is_cut": false}));

    let heads = seen.lock().unwrap().clone();
    assert_eq!(heads.len(), 2);
    for headers in &heads {
        assert_eq!(headers["idempotency-key"], job.to_string());
        assert_eq!(headers["authorization"], format!("Bearer {SECRET}"));
    }
    let rows = system.database.everything().await;
    let output = system.output();
    assert!(output.contains("answered 503"), "the first failure was told");
    for text in rows.iter().map(String::as_str).chain(output.lines()) {
        let hexadecimal = SECRET.bytes().fold(String::new(), |hex, b| format!("{hex}{b:02x}"));
        assert!(!text.contains(SECRET) && !text.contains(&hexadecimal), "{text}");
    }
    system.end().await;
}
