//! Two platform accounts in one installation: what happens to one is nothing to the other.

use serde_json::{Value, json};
use simulator::{Effect, ErrorShape, Faults, Refusal, Rule, Simulator};
use tempfile::TempDir;
use uuid::Uuid;

use crate::system::{SOURCE, Setup, TestSystem, http, until};

/// The second account.
const TRIAL: &str = "gcore-trial";

/// The secrets of its webhook's path, the old one and the new one.
const OLD: &str = "trial-old-0123456789abcdef";
const NEW: &str = "trial-new-0123456789abcdef";

/// A system with two accounts, and a file that holds the token of the second one.
struct Two {
    system: TestSystem,
    trial: Simulator,
    _directory: TempDir,
}

impl Two {
    async fn start() -> Self {
        let token = format!("2_{}", Uuid::now_v7().simple());
        let setup = Setup::default();
        let platform = simulator::Config {
            token: Some(token.clone()),
            active_quota: 1,
            ..setup.simulator.clone()
        };
        let trial = Simulator::start(platform).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        std::fs::write(&file, token).unwrap();
        let source = format!(
            "\nname = \"only\"\n\n[[sources]]\nname = \"{TRIAL}\"\nbase_url = \"{}\"\n\
             token_file = \"{}\"\nrate_per_second = 100\n\
             [[sources.webhook_tokens]]\nname = \"old\"\ntoken = \"{OLD}\"\n\
             [[sources.webhook_tokens]]\nname = \"new\"\ntoken = \"{NEW}\"\n\
             [sources.regions]\ndefault = \"ed1\"\ncountries = {{ US = \"ny1\" }}\n",
            trial.base_url(),
            file.display(),
        );
        let system = TestSystem::start(Setup { http_call: source, ..setup }).await;
        trial.set_webhook_url(Some(webhook_url(&system, TRIAL, OLD)));
        Self { system, trial, _directory: directory }
    }

    /// Somebody revokes the token of the second account.
    fn revoke(&self) {
        let refusal = Refusal::new(401, ErrorShape::E, "Bad permanent token");
        let rules = vec![Rule::always("* /**", Effect::Status(refusal))];
        self.trial.faults(Faults { rules, ..Faults::default() });
    }

    /// Starts a cleanup run that looks through one account; returns its job and its path.
    async fn look_through(&self, source: &str) -> (Uuid, String) {
        let body = json!({"policy": "orphans", "source": source});
        let started = self.system.api.post("/v1/cleanup/runs", &body, None).await.ok();
        assert_eq!(started["runs"].as_array().unwrap().len(), 1, "{started}");
        let run = started["runs"][0]["run"].as_str().unwrap();
        (started["job"].as_str().unwrap().parse().unwrap(), format!("/v1/cleanup/runs/{run}"))
    }
}

fn webhook_url(system: &TestSystem, source: &str, secret: &str) -> String {
    let (start, _) = system.webhook_url.split_once("/webhooks/").unwrap();
    format!("{start}/webhooks/{source}/{secret}")
}

#[tokio::test]
async fn what_happens_to_one_account_is_nothing_to_the_other() {
    let two = Two::start().await;
    let Two { system, trial, .. } = &two;
    // Each runs on its own platform, with its own token, in the region of its user.
    let fields = json!({"source": TRIAL, "country": "us", "record": false});
    let abroad = system.request("abroad", fields).await;
    system.until_ready(abroad).await;
    let created = trial.requests();
    let created = created.iter().find(|request| request.method == "POST").unwrap();
    assert_eq!(created.body.as_ref().unwrap()["transcoding_region"], "ny1");
    // The one slot of the quota there is taken, and none here.
    let main = system.request("main", json!({})).await;
    let stream = system.until_ready(main).await;
    system.finish(abroad).await;

    // The token of one account is revoked: what calls there waits, and nothing else does.
    two.revoke();
    let (job, _) = two.look_through(TRIAL).await;
    until("the platform refuses the token", async || {
        trial.requests().iter().any(|request| request.status == 401).then_some(())
    })
    .await;
    system.show(main, stream).await;
    system.finish(main).await;
    let (_, path) = two.look_through(SOURCE).await;
    let report: Value = until("the run is over", async || {
        let answer = system.api.get(&path).await;
        (answer.status == 200).then(|| answer.ok()).filter(|told| told["status"] == "finished")
    })
    .await;
    assert_eq!(
        (&report["source"], &report["looked_at"]),
        (&json!(SOURCE), &json!(0)),
        "all has sessions"
    );
    let standing = system.api.get(&format!("/v1/jobs/{job}")).await.ok();
    assert!(standing["ended_at"].is_null(), "it waits: {standing}");
    let cancel = format!("/v1/jobs/{job}/cancel");
    system.api.post(&cancel, &json!({}), None).await.ok();
    two.system.end_after_errors().await;
    two.trial.shutdown().await;
}

#[tokio::test]
async fn the_quota_of_one_account_holds_up_nobody_of_the_other() {
    let two = Two::start().await;
    let system = &two.system;
    let abroad = json!({"source": TRIAL, "record": false});
    let first = system.request("first", abroad.clone()).await;
    system.until_ready(first).await;
    let second = system.request("second", abroad).await;
    until("it waits for the only slot", async || {
        (system.session(second).await["slot_place"] == 1).then_some(())
    })
    .await;
    for n in 0..2 {
        let here = system.request(&format!("here-{n}"), json!({"record": false})).await;
        system.until_ready(here).await;
        system.finish(here).await;
    }
    assert_eq!(system.session(second).await["status"], "preparing");
    system.finish(first).await;
    system.until_ready(second).await;
    system.finish(second).await;
    two.system.end().await;
    two.trial.shutdown().await;
}

#[tokio::test]
async fn a_secret_opens_its_own_source_and_its_uses_are_counted_by_name() {
    let two = Two::start().await;
    let Two { system, .. } = &two;
    for (source, secret, status) in
        [(TRIAL, NEW, 200), (TRIAL, NEW, 200), (SOURCE, NEW, 404), (TRIAL, "x", 404)]
    {
        let url = webhook_url(system, source, secret);
        let answer = http().post(url).body("{}").send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{source}");
    }
    let address = system.admin_addresses().await[0];
    let told = http().get(format!("http://{address}/metrics")).send().await.unwrap();
    let told = told.text().await.unwrap();
    for (secret, uses) in [("new", 2), ("old", 0)] {
        let labels = format!("source=\"{TRIAL}\",secret=\"{secret}\"");
        let line = format!("tallylight_webhook_secret_uses_total{{{labels}}} {uses}\n");
        assert!(told.contains(&line), "{line}{told}");
    }
    two.system.end().await;
    two.trial.shutdown().await;
}
