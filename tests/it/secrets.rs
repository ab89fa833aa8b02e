//! Secrets: push tokens, our own tokens, the path of the webhook, the sealing key. They stand in no
//! event, no row, no line that a process writes.

use crate::system::{ENCODER, Setup, TestSystem};

#[tokio::test]
async fn no_secret_is_stored_or_logged() {
    let system = TestSystem::start(Setup { log_level: "debug", ..Setup::default() }).await;
    let on_air = system.on_air("discreet").await;
    let path = format!("/v1/sessions/{}/ingest", on_air.session);
    let told = system.api_with(ENCODER).get(&path).await.ok();
    let push_token = told["token"].as_str().unwrap();
    // The platform itself tells it in every webhook, or this test would prove nothing.
    let webhooks = system.simulator.webhooks();
    assert!(webhooks.iter().any(|webhook| webhook.body.to_string().contains(push_token)));
    system.drop_encoder(on_air).await;
    system.return_encoder(on_air).await;
    system.finish(on_air.session).await;
    system.until_nothing_is_due().await;

    let rows = system.database.everything().await;
    assert!(rows.iter().any(|row| row.starts_with("tallylight.event_")), "the log was searched");
    let output = system.output();
    for role in ["[ingest ", "[api ", "[worker "] {
        let is_verbose = |line: &str| line.starts_with(role) && line.contains("\"DEBUG\"");
        assert!(output.lines().any(is_verbose), "{role} told its details");
    }
    let ours = system.secrets();
    let mut secrets = vec![push_token, ENCODER, &ours.admin, &ours.path, &ours.platform];
    secrets.push(&ours.sealing_key);
    secrets.extend(told["srt_passphrase"].as_str());
    for secret in secrets {
        // Bytes are written in hexadecimal.
        let hexadecimal = secret.bytes().fold(String::new(), |hex, b| format!("{hex}{b:02x}"));
        for text in rows.iter().map(String::as_str).chain(output.lines()) {
            assert!(!text.contains(secret) && !text.contains(&hexadecimal), "{text}");
        }
    }
    system.end().await;
}
