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

/// The numbers that a text names, without what a counter or a histogram adds.
fn named(text: &str) -> BTreeSet<&str> {
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let names = text.match_indices("tallylight_").map(|(at, _)| {
        let rest = &text[at..];
        &rest[..rest.find(|c| !is_name(c)).unwrap_or(rest.len())]
    });
    names.map(|name| name.trim_end_matches("_bucket").trim_end_matches("_total")).collect()
}

#[test]
fn rules_and_dashboard_name_only_numbers_that_the_page_describes() {
    let page = include_str!("../../docs/metrics.md");
    for (file, least) in [
        (include_str!("../../docs/alerts.yml"), 10),
        (include_str!("../../docs/dashboard.json"), 10),
    ] {
        let unknown: Vec<&str> = named(file)
            .into_iter()
            .filter(|name| !page.contains(&format!("| `{name}` |")))
            .collect();
        assert!(unknown.is_empty(), "{unknown:?}");
        assert!(named(file).len() >= least);
    }
    let dashboard: serde_json::Value =
        serde_json::from_str(include_str!("../../docs/dashboard.json")).unwrap();
    assert!(dashboard["panels"].as_array().unwrap().len() > 10);
}

#[test]
fn the_page_describes_no_number_twice() {
    let page = include_str!("../../docs/metrics.md");
    let rows = page.lines().filter_map(|line| Some(line.strip_prefix("| `")?.split_once("` |")?.0));
    let mut seen = BTreeSet::new();
    let twice: Vec<&str> = rows.filter(|name| !seen.insert(*name)).collect();
    assert!(twice.is_empty(), "{twice:?}");
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
