//! Telling the product by the real binary: an endpoint registered over the API, its messages
//! verified by the examples in Python and Node, the same messages in the feed.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use serde_json::{Map, Value, json};

use crate::system::{Setup, TestSystem, until};

/// A request as it came: what the examples read.
type Heard = Arc<Mutex<Vec<(HeaderMap, String)>>>;

/// A service of the product that takes messages.
async fn service() -> (String, Heard) {
    let heard = Heard::default();
    let kept = Arc::clone(&heard);
    let take = move |headers: HeaderMap, body: Bytes| {
        let kept = Arc::clone(&kept);
        async move {
            let text = String::from_utf8(body.to_vec()).unwrap();
            kept.lock().unwrap().push((headers, text));
            StatusCode::NO_CONTENT
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/tallylight", listener.local_addr().unwrap());
    let router = Router::new().fallback(take);
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, heard)
}

/// What an example reads of a request.
fn request((headers, body): &(HeaderMap, String), secret: &Value) -> Value {
    let pairs = headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), value.to_str().unwrap_or_default().into()));
    json!({"secret": secret, "headers": pairs.collect::<Map<String, Value>>(), "body": body})
}

/// Runs an example on a request: what it tells, where it takes it for genuine. `None`: there is no
/// such interpreter.
fn verify(program: &str, script: &str, request: &Value) -> Option<Result<Value, String>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(script);
    let mut command = Command::new(program);
    command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().ok()?;
    child.stdin.take().unwrap().write_all(request.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    Some(if output.status.success() {
        Ok(serde_json::from_slice(&output.stdout).unwrap())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    })
}

/// Both examples take a request for what it is.
#[expect(clippy::disallowed_methods, reason = "tests have no configuration file")]
fn examples_take(heard: &(HeaderMap, String), secret: &Value) {
    let genuine = request(heard, secret);
    let mut forged = genuine.clone();
    forged["body"] = heard.1.replace("session.ready", "session.ended").into();
    let mut old = genuine.clone();
    old["headers"]["webhook-timestamp"] = "1614265330".into();
    for (program, script) in [("python3", "python/webhook.py"), ("node", "node/webhook.mjs")] {
        let Some(told) = verify(program, script, &genuine) else {
            let is_required = std::env::var("TALLYLIGHT_EXAMPLES").is_ok_and(|v| v == "required");
            assert!(!is_required, "{program} is missing");
            let _ = writeln!(std::io::stderr(), "SKIPPED: {script}, since {program} is missing");
            continue;
        };
        assert_eq!(told.unwrap()["type"], "session.ready");
        for (wrong, why) in [(&forged, "the signature is wrong"), (&old, "too old")] {
            let refused = verify(program, script, wrong).unwrap().unwrap_err();
            assert!(refused.contains(why), "{program}: {refused}");
        }
    }
}

/// The page shows what the examples run.
#[test]
fn the_examples_on_the_page_are_those_that_are_run() {
    let read = |path: &str| {
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path))
    };
    let page = read("docs/webhooks.md").unwrap();
    for (path, begin, end) in [
        ("examples/python/webhook.py", "def verify", "\n\n\n"),
        ("examples/node/webhook.mjs", "export function verify", "\n}\n"),
    ] {
        let example = read(path).unwrap();
        let from = example.find(begin).unwrap();
        let function = example[from..].split(end).next().unwrap();
        assert!(page.contains(function), "{path}: put this into docs/webhooks.md:\n{function}");
    }
}

#[tokio::test]
async fn a_session_is_told_to_an_endpoint_and_the_examples_verify_it() {
    let (url, heard) = service().await;
    let http_call = "\n[webhooks]\nprivate = true\n".to_owned();
    let system = TestSystem::start(Setup { http_call, ..Setup::default() }).await;
    let body = json!({"url": url, "types": ["session.*"]});
    let made = system.api.post("/v1/endpoints", &body, None).await.ok();
    let session = system.request("told", json!({"account": "user-17"})).await;
    system.until_ready(session).await;
    let first = until("a message has come", async || heard.lock().unwrap().first().cloned()).await;
    let message: Value = serde_json::from_str(&first.1).unwrap();
    assert_eq!(message["type"], "session.ready");
    assert_eq!(message["data"]["session"], session.to_string());
    assert_eq!(message["data"]["account"], "user-17");
    let (genuine, secret) = (first.clone(), made["secret"].clone());
    tokio::task::spawn_blocking(move || examples_take(&genuine, &secret)).await.unwrap();

    let page = system.api.get("/v1/events?types=session.ready&wait=20").await.ok();
    assert_eq!(page["events"], json!([message]), "the feed tells the same");
    let path = message["data"]["ingest"].as_str().unwrap();
    assert!(system.api.get(path).await.ok()["push_url"].is_string());

    let id = made["id"].as_str().unwrap();
    let told = system.command(&["endpoints", "list"]).await;
    assert!(told.contains(id) && told.contains("enabled"), "{told}");
    let again = message["id"].as_str().unwrap();
    let told = system.command(&["endpoints", "redeliver", id, "--message", again]).await;
    assert!(told.contains("1 messages are sent again"), "{told}");
    until("the message has come again", async || {
        let heard = heard.lock().unwrap();
        (heard.iter().filter(|(_, body)| *body == first.1).count() == 2).then_some(())
    })
    .await;
    let rows = system.database.everything().await;
    let secret = made["secret"].as_str().unwrap();
    assert!(rows.iter().all(|row| !row.contains(secret)) && !system.output().contains(secret));
    system.tell(session, "end").await;
    system.until_status(session, "ended").await;
    system.end().await;
}
