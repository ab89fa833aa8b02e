//! A PostgreSQL server of a test's own, which may die.

use std::path::PathBuf;

use rustix::process::{Pid, Signal, kill_process};
use sqlx::{Connection as _, PgConnection};
use tokio::task::spawn_blocking;
use uuid::Uuid;

use super::wait::until;

/// A server with one migrated database.
pub(crate) struct Cluster {
    running: Option<postgres::Cluster>,
    data_dir: PathBuf,
    /// The address of its database, which outlives the server.
    pub(crate) url: String,
}

impl Cluster {
    /// Starts a new one.
    pub(crate) async fn new() -> Self {
        // Not in a directory of ours alone: the server may have to run as another user.
        let data_dir = std::env::temp_dir().join(format!("tallylight-mortal-{}", Uuid::now_v7()));
        let running = start(data_dir.clone()).await;
        let url = running.url("mortal");
        let database = store::Config::new(url.as_str());
        store::create_database(&database).await.unwrap();
        store::migrate(&database, None).await.unwrap();
        Self { running: Some(running), data_dir, url }
    }

    /// Stops the server as `pg_ctl stop -m immediate` does: at once, and nothing is written back.
    pub(crate) async fn stop_immediately(&mut self) {
        let cluster = self.running.take().unwrap();
        let file = self.data_dir.join("data/postmaster.pid");
        let pid = std::fs::read_to_string(file).unwrap().lines().next().unwrap().parse().unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::QUIT).unwrap();
        // Finds its server gone.
        let _ = spawn_blocking(|| cluster.stop()).await.unwrap();
    }

    /// Starts it again, at the same address; it recovers by itself.
    pub(crate) async fn start(&mut self) {
        let running = start(self.data_dir.clone()).await;
        assert_eq!(running.url("mortal"), self.url, "another port");
        self.running = Some(running);
    }

    /// Connects, as soon as the server lets us.
    pub(crate) async fn connection(&self) -> PgConnection {
        let url = self.url.as_str();
        until("the server takes connections", async || PgConnection::connect(url).await.ok()).await
    }

    /// Stops it and deletes its data.
    pub(crate) async fn end(&mut self) {
        let cluster = self.running.take().unwrap();
        spawn_blocking(|| cluster.stop()).await.unwrap().unwrap();
        std::fs::remove_dir_all(&self.data_dir).unwrap();
    }
}

async fn start(data_dir: PathBuf) -> postgres::Cluster {
    let settings = postgres::Settings { data_dir, pg_bin: None };
    spawn_blocking(move || postgres::Cluster::start(&settings)).await.unwrap().unwrap()
}
