//! Personal values: sealed in the log, in the open in answers, and nowhere once they are erased.

use axum::body::Body;
use axum::http::Method;
use domain::event::{Event, SessionRef};
use domain::ids::{Subject, Timestamp};
use domain::personal::{ERASED, in_the_open};
use serde_json::{Value, json};

use super::support::{Answer, App, SOURCE, config, request};
use crate::{Config, Scope};

const ACCOUNT: &str = "ann@example.org";

fn body() -> Value {
    json!({
        "name": "Ann at home", "account": ACCOUNT, "client_user_id": 17, "data": { "of": "Ann" },
    })
}

async fn erase(app: &App, account: &str) -> Answer {
    let path = format!("/v1/accounts/{account}/data");
    let request = request(Method::DELETE, &path, Scope::AccountsErase).body(Body::empty());
    app.send(request.unwrap()).await
}

/// Everything that the API tells of sessions and live streams.
async fn told(app: &App, session: uuid::Uuid) -> String {
    let mut all = String::new();
    for path in [
        "/v1/sessions".to_owned(),
        format!("/v1/sessions/{session}"),
        format!("/v1/sessions/{session}?as_of=2999-01-01T00:00:00Z"),
        format!("/v1/sessions/{session}/timeline"),
        "/v1/live-streams".to_owned(),
        format!("/v1/live-streams/320423?source={SOURCE}"),
    ] {
        all += &app.get(&path).await.ok(200).to_string();
    }
    all
}

#[tokio::test]
async fn the_log_holds_no_personal_value_in_the_open() {
    let app = App::start().await;
    let session = app.session("key", &body()).await;
    app.post(&format!("/v1/accounts/{ACCOUNT}/deleted"), &json!({})).await.ok(202);
    let mut events = Vec::new();
    for slice in app.store.slices().slices() {
        events.extend(app.store.read_after(slice, 0, Timestamp::default(), 100).await.unwrap());
    }
    assert_eq!(events.len(), 2);
    for event in events {
        assert_eq!(in_the_open(&event.event_type, &event.payload), [""; 0]);
        let text = format!("{}{}", event.subject, String::from_utf8_lossy(&event.payload));
        assert!(!text.contains("Ann") && !text.contains("ann@"), "{text}");
    }
    let shown = app.get(&format!("/v1/sessions/{session}")).await;
    assert_eq!(
        (&shown.ok(200)["account"], &shown.json["name"]),
        (&json!(ACCOUNT), &body()["name"])
    );
    assert_eq!(shown.json["options"]["client_user_id"], 17);
    assert_eq!(shown.json["options"]["data"], body()["data"]);
    app.project().await;
    let listed = app.get(&format!("/v1/sessions?account={ACCOUNT}")).await;
    assert_eq!(listed.ok(200)["sessions"][0]["account"], ACCOUNT);
}

#[tokio::test]
async fn an_erased_account_is_told_of_nowhere() {
    let app = App::start().await;
    let session = app.session("key", &body()).await;
    app.project().await;
    let refused = erase(&app, ACCOUNT).await;
    refused.problem(409, "sessions-run");
    assert!(refused.json["detail"].as_str().unwrap().contains(&session.to_string()));

    let live_stream = app.bind(session, 320_423).await;
    // A live stream that nobody activated: its session is over with its end.
    app.append(&live_stream, &Event::EndRequested(SessionRef { session })).await;
    app.project().await;
    let before = told(&app, session).await;
    assert!(before.contains("Ann at home") && before.contains(ACCOUNT));

    assert_eq!(erase(&app, ACCOUNT).await.ok(200), &json!({"account": ACCOUNT, "erased": true}));
    let after = told(&app, session).await;
    assert!(!after.contains("Ann") && !after.contains("ann@") && after.contains(ERASED), "{after}");
    app.project().await;
    assert_eq!(told(&app, session).await, after);
    for account in [ACCOUNT, "nobody"] {
        assert_eq!(erase(&app, account).await.ok(200)["erased"], false);
    }
    assert_eq!(
        app.get(&format!("/v1/sessions?account={ACCOUNT}")).await.ok(200)["sessions"],
        json!([])
    );
}

#[tokio::test]
async fn a_request_that_is_repeated_after_the_erasure_finds_its_session_and_makes_no_key() {
    let app = App::start().await;
    let session = app.session("key", &body()).await;
    app.command(&format!("/v1/sessions/{session}/end"), None).await.ok(202);
    app.project().await;
    erase(&app, ACCOUNT).await.ok(200);
    let again = app.start_session("key", &body()).await;
    assert_eq!((&again.ok(200)["id"], &again.json["name"]), (&json!(session), &json!(ERASED)));
    assert_eq!(app.store.pseudonym_of(ACCOUNT).await.unwrap(), None);
    let mut other = body();
    other["record"] = json!(false);
    app.start_session("key", &other).await.problem(422, "idempotency-key-reused");
}

#[tokio::test]
async fn without_a_sealing_key_nothing_is_kept_of_accounts() {
    let app = App::with(Config { sealing_key: None, ..config() }).await;
    app.start_session("key", &body()).await.problem(501, "not-set-up");
    app.post("/v1/accounts/a/deleted", &json!({})).await.problem(501, "not-set-up");
    app.session("other", &json!({ "name": "of nobody" })).await;
    assert_eq!(erase(&app, ACCOUNT).await.ok(200)["erased"], false);
}

#[tokio::test]
async fn what_looks_like_ours_is_refused() {
    let app = App::start().await;
    let pseudonym = "~6f0c2a90b1d94a5e8f3e5a4c7d2b1e09";
    let sealed = format!("sealed:{}:{}:name:AAAA", &pseudonym[1..], &pseudonym[1..]);
    let answer = app.start_session("key", &json!({ "name": sealed, "account": pseudonym })).await;
    assert_eq!(answer.wrong_fields(), ["account", "name"]);
    assert_eq!(erase(&app, pseudonym).await.wrong_fields(), ["id"]);
    // In the product's own data it is nothing special.
    let data = json!({ "text": pseudonym });
    let session = app.session("key", &json!({ "name": "n", "account": "a", "data": data })).await;
    let shown = app.get(&format!("/v1/sessions/{session}")).await;
    assert_eq!(shown.ok(200)["options"]["data"], data);
    assert!(app.events(&Subject::request(SOURCE, session)).await.len() == 1);
}
