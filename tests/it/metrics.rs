//! Numbers and signs of life: what each role tells the operator, and that the page on it is whole.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::system::{Setup, TestSystem, http};

async fn ask(address: SocketAddr, path: &str) -> (u16, String) {
    let answer = http().get(format!("http://{address}{path}")).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// The names of the numbers, from their types.
fn names(text: &str) -> BTreeSet<String> {
    let of = |line: &str| Some(line.strip_prefix("# TYPE ")?.split_once(' ')?.0.to_owned());
    text.lines().filter_map(of).collect()
}

/// The value of the number whose line begins like this.
fn value(text: &str, start: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(start)?.trim().parse().ok())
}

#[tokio::test]
async fn every_number_is_told_and_described_and_counts_what_happened() {
    let system = TestSystem::start(Setup::default()).await;
    let on_air = system.on_air("counted").await;
    system.finish(on_air.session).await;
    system.until_nothing_is_due().await;

    let page = include_str!("../../docs/metrics.md");
    let mut told = BTreeSet::new();
    let mut texts = Vec::new();
    for address in system.admin_addresses().await {
        let (status, text) = ask(address, "/metrics").await;
        assert_eq!(status, 200);
        assert!(text.ends_with("# EOF\n"), "{text}");
        assert!(!text.contains(&system.secrets().path), "a secret is told");
        told.extend(names(&text));
        texts.push(text);
    }
    let described = |name: &&String| page.contains(&format!("`{name}`"));
    let silent: Vec<&String> = told.iter().filter(|name| !described(name)).collect();
    assert!(silent.is_empty(), "docs/metrics.md says nothing of {silent:?}");
    assert!(told.len() > 25, "{told:?}");

    let appended = value(&texts[0], "tallylight_events_appended_total").unwrap();
    assert!(appended >= 5.0, "webhooks of a session: {appended}");
    let applied =
        |text: &String| value(text, "tallylight_events_applied_total").unwrap_or_default();
    assert!(texts[2..].iter().map(applied).sum::<f64>() > appended, "applied by the workers");
    system.end().await;
}
