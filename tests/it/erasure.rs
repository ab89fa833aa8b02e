//! A person's values: on the platform and in answers, in the open nowhere here, and gone with their
//! key while everything else goes on.

use reqwest::Method;
use serde_json::{Value, json};

use crate::system::{Setup, TestSystem, http};

const ACCOUNT: &str = "ann-42@example.org";
const VALUES: [&str; 4] = [ACCOUNT, "Ann of Cleves", "the parlour", "8765432109"];

/// Fails if a row or a line holds one of the values, as text or as bytes in hexadecimal.
async fn assert_nowhere_in_the_open(system: &TestSystem) {
    let rows = system.database.everything().await;
    assert!(rows.iter().any(|row| row.starts_with("tallylight.event_")), "the log was searched");
    let output = system.output();
    for value in VALUES {
        let hexadecimal = value.bytes().fold(String::new(), |hex, b| format!("{hex}{b:02x}"));
        for text in rows.iter().map(String::as_str).chain(output.lines()) {
            assert!(!text.contains(value) && !text.contains(&hexadecimal), "{value}: {text}");
        }
    }
}

async fn erase(system: &TestSystem) -> (u16, Value) {
    let url = format!("http://{}/v1/accounts/{ACCOUNT}/data", system.api.address());
    let request = http().request(Method::DELETE, url).bearer_auth(&system.secrets().admin);
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test]
async fn an_account_is_forgotten_and_its_sessions_stay_what_they_were() {
    let system = TestSystem::start(Setup { log_level: "debug", ..Setup::default() }).await;
    let body = json!({"account": ACCOUNT, "name": VALUES[1], "client_user_id": 8_765_432_109_i64,
        "data": {"room": VALUES[2]}});
    let session = system.request("ann", body.clone()).await;
    let stream = system.until_ready(session).await;
    let on_air = system.show(session, stream).await;
    let (status, problem) = erase(&system).await;
    assert_eq!(status, 409, "on air: {problem}");
    system.finish(on_air.session).await;
    system.until_nothing_is_due().await;

    // The platform has them, and echoes them in every webhook.
    let object = system.stream(stream).to_string();
    let webhooks: Vec<String> =
        system.simulator.webhooks().iter().map(|webhook| webhook.body.to_string()).collect();
    assert!(object.contains(VALUES[1]) && object.contains(VALUES[2]), "{object}");
    assert!(webhooks.iter().any(|body| body.contains(VALUES[2]) && body.contains(VALUES[3])));
    assert!(webhooks.iter().any(|body| body.contains(VALUES[1])), "in the recording's name");
    assert_nowhere_in_the_open(&system).await;

    let before = system.session(session).await;
    assert_eq!((&before["account"], &before["name"]), (&body["account"], &body["name"]));
    assert_eq!(before["options"]["data"], body["data"]);
    let held = system.command(&["accounts", "erase", ACCOUNT, "--dry-run"]).await;
    assert!(held.contains("pseudonym") && held.contains("sessions   1"), "{held}");

    let (status, told) = erase(&system).await;
    assert_eq!((status, &told["erased"]), (200, &json!(true)), "{told}");
    system.until_nothing_is_due().await;
    let after = system.session(session).await;
    assert_eq!((&after["account"], &after["name"]), (&json!("[erased]"), &json!("[erased]")));
    assert_eq!(after["options"]["data"], "[erased]");
    for same in ["status", "moments", "parts", "gaps", "live_stream_id", "went_live_at"] {
        assert_eq!(after[same], before[same], "{same}");
    }
    let shown = system.command(&["session", "show", &session.to_string()]).await;
    assert!(shown.contains("[erased]") && !shown.contains("Ann"), "{shown}");
    system.command(&["projections", "verify"]).await;
    system.command(&["projections", "rebuild"]).await;
    assert_eq!(system.session(session).await["name"], "[erased]");
    let again = system.command(&["accounts", "erase", ACCOUNT]).await;
    assert!(again.contains("nothing of this account is held"), "{again}");
    assert_nowhere_in_the_open(&system).await;
    system.end().await;
}
