//! A PostgreSQL cluster for one measurement: durable as in production, and deleted when it is dropped.
//!
//! It is started as the managed cluster of a user is, with fsync, not as the clusters of tests are;
//! what the server says about itself is checked, and printed with the result.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, bail};
use rustix::fs::statfs;
use rustix::process::{Pid, test_kill_process};
use sqlx::{Connection as _, PgConnection};

/// The database of the installation.
const DATABASE: &str = "tallylight";

/// What a kernel calls a file system that lives in memory: its fsync costs nothing.
const TMPFS: i64 = 0x0102_1994;

/// Start of the name of a directory of ours, before the process id.
const PREFIX: &str = "run-";

/// Settings that must be so, or the figures mean nothing.
const DURABLE: [&str; 3] = ["fsync", "synchronous_commit", "full_page_writes"];

/// Settings that are told with the result.
const TOLD: [&str; 8] = [
    "shared_buffers",
    "max_wal_size",
    "checkpoint_timeout",
    "wal_level",
    "wal_sync_method",
    "data_checksums",
    "commit_delay",
    "autovacuum",
];

/// A directory that is deleted with what is in it.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        // What cannot be deleted is swept by the next run.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A running cluster. Fields are dropped in order: the server stops before its files go.
pub(crate) struct Cluster {
    server: postgres::Cluster,
    directory: Directory,
    bin: PathBuf,
    settings: String,
}

impl Cluster {
    /// Makes a cluster below `parent`, with an empty database.
    ///
    /// # Errors
    /// Where PostgreSQL is not found, the file system is one in memory, or the server is not durable.
    pub(crate) async fn start(parent: &Path) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        sweep(parent);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("{PREFIX}{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        let directory = Directory(path.clone());
        check_disk(&path)?;
        let settings = postgres::Settings { data_dir: path.join("pg"), pg_bin: None };
        let server = tokio::task::spawn_blocking(move || postgres::Cluster::start(&settings))
            .await
            .context("start PostgreSQL")?
            .context("start PostgreSQL")?;
        let mut connection = connect(&server.url("postgres")).await?;
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE DATABASE {DATABASE}")))
            .execute(&mut connection)
            .await
            .context("make the database")?;
        let bin = show_bin(&mut connection).await?;
        let settings = told(&mut connection).await?;
        connection.close().await.context("disconnect")?;
        Ok(Self { server, directory, bin, settings })
    }

    /// The address of the installation's database, with its password.
    pub(crate) fn url(&self) -> String {
        self.server.url(DATABASE)
    }

    /// A place for files of the measurement, deleted with the cluster.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory.0
    }

    /// A program of the server's own version, such as `pgbench`.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// What the server says about itself.
    pub(crate) fn settings(&self) -> &str {
        &self.settings
    }

    /// A connection of the measurement's own.
    pub(crate) async fn connect(&self) -> Result<PgConnection> {
        connect(&self.url()).await
    }

    /// Writes all dirty pages, so that no turn pays for those of the one before.
    pub(crate) async fn checkpoint(&self) -> Result<()> {
        let mut connection = self.connect().await?;
        sqlx::raw_sql("CHECKPOINT").execute(&mut connection).await.context("write a checkpoint")?;
        connection.close().await.context("disconnect")
    }
}

async fn connect(url: &str) -> Result<PgConnection> {
    PgConnection::connect(url).await.context("connect to the cluster")
}

/// Refuses a file system in memory.
fn check_disk(path: &Path) -> Result<()> {
    let found = statfs(path).with_context(|| format!("look at {}", path.display()))?;
    if found.f_type == TMPFS {
        bail!("{} lies in memory: durable commits are measured on a real disk", path.display());
    }
    Ok(())
}

/// Where the server's own programs are.
async fn show_bin(connection: &mut PgConnection) -> Result<PathBuf> {
    let bin: String = sqlx::query_scalar("SELECT setting FROM pg_config WHERE name = 'BINDIR'")
        .fetch_one(connection)
        .await
        .context("ask where PostgreSQL's programs are")?;
    Ok(PathBuf::from(bin))
}

/// Version and settings, after a check that commits are durable.
async fn told(connection: &mut PgConnection) -> Result<String> {
    let mut told = format!("PostgreSQL {}", show(connection, "server_version").await?);
    for name in DURABLE {
        let value = show(connection, name).await?;
        if value != "on" {
            bail!("{name} is {value}: only durable commits are measured");
        }
        let _ = write!(told, ", {name} {value}");
    }
    for name in TOLD {
        let _ = write!(told, ", {name} {}", show(connection, name).await?);
    }
    Ok(told)
}

async fn show(connection: &mut PgConnection, name: &str) -> Result<String> {
    sqlx::query_scalar("SELECT current_setting($1)")
        .bind(name)
        .fetch_one(connection)
        .await
        .with_context(|| format!("ask for {name}"))
}

/// Deletes what killed runs left: directories of ours whose process is gone.
fn sweep(parent: &Path) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(owner);
        if pid.is_some_and(|pid| test_kill_process(pid).is_err()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// The process that a directory's name tells.
fn owner(name: &str) -> Option<Pid> {
    let (pid, _) = name.strip_prefix(PREFIX)?.split_once('-')?;
    Pid::from_raw(pid.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_directories_of_dead_runs_are_swept() {
        assert_eq!(owner("run-4711-2"), Pid::from_raw(4711));
        for name in ["run-x-1", "run-", "run-12", "other-4711-2", "precious"] {
            assert_eq!(owner(name), None, "{name}");
        }
    }
}
