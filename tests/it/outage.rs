//! The database or the disk is away, under load and between real processes.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use reqwest::StatusCode;
use serde_json::json;
use simulator::Simulator;
use store::Store;
use tokio::task::JoinSet;

use crate::system::{
    Cluster, Load, Process, SOURCE, Secrets, Setup, config_text, http, load, until, write_config,
};

/// Senders, each with a subject of its own.
const SENDERS: i64 = 20;

/// A database of its own, and how processes find it.
struct Site {
    cluster: Cluster,
    config_file: PathBuf,
    secrets: Secrets,
    _simulator: Simulator,
    _directory: tempfile::TempDir,
}

impl Site {
    async fn new() -> Self {
        let cluster = Cluster::new().await;
        let (setup, secrets) = (Setup::default(), Secrets::new());
        let platform = Some(secrets.platform.clone());
        let simulator = simulator::Config { token: platform, ..setup.simulator.clone() };
        let simulator = Simulator::start(simulator).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let config_file = directory.path().join("tallylight.toml");
        let spool = directory.path().join("spool");
        let text = config_text(&setup, &cluster.url, &simulator.base_url(), &secrets, &spool);
        let beside =
            format!("[database]\ndata_dir = \"{}\"\n", directory.path().join("pg").display());
        let text = text.replace("[database]\n", &beside);
        write_config(&config_file, &text);
        Self { cluster, config_file, secrets, _simulator: simulator, _directory: directory }
    }

    async fn store(&self) -> Store {
        Store::connect(&store::Config::new(self.cluster.url.as_str())).await.unwrap()
    }

    /// Files of the spool that are not drained.
    fn spooled(&self) -> usize {
        let dir = self.config_file.with_file_name("spool");
        let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|file| file.extension().is_some_and(|end| end == "spool")).count()
    }
}

/// A process that must not have died, nor logged an error of its own: the driver's pool calls it one
/// when the server goes between a connection's making and its first use, and makes another.
fn check_well(process: &mut Process) {
    assert!(!process.has_exited(), "{}", process.output());
    let is_error = |line: &&str| {
        line.contains("\"level\":\"ERROR\"") && !line.contains("\"target\":\"sqlx_core::pool")
    };
    let output = process.output();
    assert_eq!(output.lines().find(is_error), None, "{output}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_stopped_immediately_under_load_costs_no_answer_and_no_event() {
    let mut site = Site::new().await;
    let mut ingest = Process::spawn(&site.config_file, &["ingest"]);
    let mut worker = Process::spawn(&site.config_file, &["worker"]);
    let traffic = Arc::new(Load::of(1));
    *traffic.endpoints[0].lock().unwrap() = Some(ingest.address().await);
    let mut senders = JoinSet::new();
    for sender in 0..SENDERS {
        let (traffic, secret) = (Arc::clone(&traffic), site.secrets.path.clone());
        senders.spawn(async move { traffic.send(&secret, sender).await });
    }
    let more = async |what: &str| {
        let before = traffic.least(SENDERS);
        until(what, async || (traffic.least(SENDERS) >= before + 3).then_some(())).await;
    };
    more("every sender is answered").await;
    site.cluster.stop_immediately().await;
    more("every sender is answered while the server is away").await;
    assert!(site.spooled() > 0);
    site.cluster.start().await;
    more("every sender is answered afterwards").await;
    traffic.has_ended.store(true, Ordering::Relaxed);
    senders.join_all().await;
    until("the spool is drained", async || (site.spooled() == 0).then_some(())).await;

    assert_eq!(traffic.refused.load(Ordering::Relaxed), 0, "answered otherwise than 200");
    let store = site.store().await;
    let acknowledged = std::mem::take(&mut *traffic.acknowledged.lock().unwrap());
    let events = load::log(&store).await;
    load::check(&events, &acknowledged);
    let stored = events.iter().filter(|event| event.event_type == "WebhookReceived").count();
    assert_eq!(stored, acknowledged.len());
    for sender in 0..SENDERS {
        let subject = format!("{SOURCE}/stream/{}", sender + 1);
        let mut of = events.iter().filter(|event| event.subject.as_str() == subject);
        assert!(of.any(|event| event.event_type == "ReconcileRequested"), "{subject}");
    }
    until("everything is applied", async || {
        let status = store.slice_status().await.unwrap();
        status.iter().all(|slice| slice.position == slice.head).then_some(())
    })
    .await;
    check_well(&mut ingest);
    check_well(&mut worker);
    drop((ingest, worker));
    store.close().await;
    site.cluster.end().await;
}

#[tokio::test]
async fn a_full_disk_is_answered_with_when_to_come_back_and_loses_nothing() {
    let mut site = Site::new().await;
    let mut ingest = Process::spawn_with_small_files(&site.config_file, &["ingest"], 8);
    let address = ingest.address().await;
    let url = format!("http://{address}/webhooks/{SOURCE}/{}", site.secrets.path);
    let client = http();
    let post = async |n: usize| {
        let message = json!({"stream": {"id": 1}});
        let body = json!({"type": "stream", "message": message, "n": n, "x": "x".repeat(500)});
        client.post(&url).json(&body).send().await.unwrap()
    };
    site.cluster.stop_immediately().await;
    let (mut sent, mut acknowledged) = (0, Vec::new());
    let refused = until("the disk is full", async || {
        sent += 1;
        let answer = post(sent).await;
        if answer.status() == StatusCode::OK {
            acknowledged.push(sent);
            return None;
        }
        Some(answer)
    })
    .await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key("retry-after"));
    assert!(!acknowledged.is_empty());
    assert!(!ingest.has_exited());
    // What it says is read beside its answers.
    until("it says why", async || {
        ingest.output().contains("the spool cannot be written").then_some(())
    })
    .await;
    site.cluster.start().await;
    until("it takes webhooks again", async || {
        sent += 1;
        (post(sent).await.status() == StatusCode::OK).then(|| acknowledged.push(sent))
    })
    .await;
    until("the spool is drained", async || (site.spooled() == 0).then_some(())).await;
    let store = site.store().await;
    let events = load::log(&store).await;
    let webhooks = events.iter().filter(|event| event.event_type == "WebhookReceived");
    let mut stored: Vec<usize> = webhooks
        .map(|event| {
            let body: serde_json::Value = serde_json::from_slice(&event.payload).unwrap();
            usize::try_from(body["n"].as_u64().unwrap()).unwrap()
        })
        .collect();
    // What was refused may be stored all the same.
    stored.retain(|n| acknowledged.contains(n));
    assert_eq!(stored, acknowledged, "each once, in their order");
    drop(ingest);
    store.close().await;
    site.cluster.end().await;
}

#[tokio::test]
async fn everything_in_one_process_takes_webhooks_before_its_database_is_there() {
    let mut site = Site::new().await;
    let up = Process::spawn(&site.config_file, &["up"]);
    let is_up = async |up: &Process| {
        until("it is up", async || up.output().contains("Tallylight is up.").then_some(())).await;
    };
    is_up(&up).await;
    drop(up);
    site.cluster.stop_immediately().await;
    let mut up = Process::spawn(&site.config_file, &["up"]);
    let url = format!("http://{}/webhooks/{SOURCE}/{}", up.address().await, site.secrets.path);
    let body = json!({"type": "stream", "message": {"stream": {"id": 1, "live": true}}});
    let answer = http().post(&url).json(&body).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(!up.output().contains("Tallylight is up."));
    site.cluster.start().await;
    is_up(&up).await;
    let store = site.store().await;
    until("it is stored and applied", async || {
        let status = store.slice_status().await.unwrap();
        let is_applied = status.iter().all(|slice| slice.position == slice.head);
        let is_stored = load::log(&store).await.iter().any(|e| e.event_type == "WebhookReceived");
        (is_applied && is_stored).then_some(())
    })
    .await;
    up.terminate();
    assert!(up.exited().await.success(), "{}", up.output());
    store.close().await;
    site.cluster.end().await;
}
