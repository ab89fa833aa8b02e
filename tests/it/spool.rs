//! Ingest while PostgreSQL dies and comes back, and while ingest itself is killed meanwhile: what
//! was acknowledged is stored once.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use store::Store;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use crate::system::{Database, Process, http, until};

const TOKEN: &str = "path-0123456789abcdef";

/// A port that stays, in front of a server whose port may change.
async fn gate(to: Arc<Mutex<SocketAddr>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let to = *to.lock().unwrap();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(to).await?;
                copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    address
}

/// Starts the cluster in a directory.
async fn cluster(dir: &Path) -> postgres::Cluster {
    let mut settings = postgres::Settings::for_current_user();
    settings.data_dir = dir.to_owned();
    tokio::task::spawn_blocking(move || postgres::Cluster::start(&settings).unwrap()).await.unwrap()
}

/// Where a cluster listens.
fn address_of(cluster: &postgres::Cluster) -> SocketAddr {
    let url = cluster.url("tallylight");
    let (_, rest) = url.rsplit_once('@').unwrap();
    rest.split('/').next().unwrap().parse().unwrap()
}

/// Ends the server as `pg_ctl stop -m immediate` does.
async fn stop_immediately(cluster: postgres::Cluster) {
    let file = cluster.data_dir().join("postmaster.pid");
    let text = std::fs::read_to_string(&file).unwrap();
    let pid: i32 = text.lines().next().unwrap().parse().unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::QUIT).unwrap();
    // The server is gone already, which is no news to us.
    let _ = tokio::task::spawn_blocking(move || cluster.stop()).await.unwrap();
}

/// Posts webhooks `range` and returns the ids of those that were acknowledged.
async fn posted(address: SocketAddr, range: std::ops::Range<usize>) -> Vec<Uuid> {
    let client = http();
    let mut ids = Vec::new();
    for n in range {
        let body = json!({"type": "stream", "message": {"stream": {"id": n % 40 + 1, "n": n}}});
        let url = format!("http://{address}/webhooks/gcore-main/{TOKEN}");
        let Ok(response) = client.post(url).json(&body).send().await else { continue };
        if response.status() == 200 {
            let answer: Value = response.json().await.unwrap();
            ids.push(answer["event_id"].as_str().unwrap().parse().unwrap());
        }
    }
    ids
}

#[tokio::test]
async fn acknowledged_webhooks_outlive_both_postgres_and_ingest() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("pg");
    let server = cluster(&data).await;
    let direct = store::Config::new(server.url("tallylight"));
    store::create_database(&direct).await.unwrap();
    store::migrate(&direct, None).await.unwrap();
    let target = Arc::new(Mutex::new(address_of(&server)));
    let near = gate(Arc::clone(&target)).await;
    let url = server.url("tallylight").replace(&address_of(&server).to_string(), &near.to_string());
    let config = directory.path().join("tallylight.toml");
    let spool = directory.path().join("spool");
    let text = format!(
        "[database]\nurl = \"{url}\"\n[ingest]\nlisten = \"127.0.0.1:0\"\nspool_dir = \"{}\"\n\
         spool_after = \"200ms\"\n[log]\nformat = \"json\"\n[[sources]]\nname = \"gcore-main\"\n\
         token = \"1_x\"\n[[sources.webhook_tokens]]\ntoken = \"{TOKEN}\"\n",
        spool.display()
    );
    std::fs::write(&config, text).unwrap();

    // Under load the server dies, and the endpoint goes on.
    let mut ingest = Process::spawn(&config, &["ingest"]);
    let address = ingest.address().await;
    let under_load = tokio::spawn(posted(address, 0..300));
    let mut ids = posted(address, 300..330).await;
    stop_immediately(server).await;
    ids.extend(under_load.await.unwrap());
    ids.extend(posted(address, 330..340).await);
    // So does its successor, which never saw the database.
    ingest.kill();
    let ingest = Process::spawn(&config, &["ingest"]);
    let address = ingest.address().await;
    ids.extend(posted(address, 340..380).await);
    assert_eq!(ids.len(), 380, "all are acknowledged: {}", ingest.output());

    let server = cluster(&data).await;
    *target.lock().unwrap() = address_of(&server);
    let database = Database::connect(&server.url("tallylight")).await;
    until("all are stored", async || {
        (database.stored(&ids).await == vec![1; ids.len()]).then_some(())
    })
    .await;
    until("the spool is drained", async || {
        let files = std::fs::read_dir(&spool).unwrap();
        let mut names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        (!names.any(|name| name.ends_with("spool"))).then_some(())
    })
    .await;
    let store = Store::connect(&store::Config::new(server.url("tallylight"))).await.unwrap();
    for slice in store.slices().slices() {
        store.read_after(slice, 0, domain::ids::Timestamp::default(), 10_000).await.unwrap();
    }
    store.close().await;
    tokio::task::spawn_blocking(move || server.stop()).await.unwrap().unwrap();
}
