//! Runs the sender of webhooks against the endpoint, and looks up what was acknowledged: every
//! event id, with the number that the webhook's body carries.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use sqlx::PgConnection;
use tokio::process::Command;

use crate::generator::webhooks::FIRST_NUMBER;
use crate::load::Sent;
use crate::processes::{Installation, Role, output};

/// Numbers of a turn's webhooks: far more than a turn sends.
const NUMBERS: u64 = 100_000_000;

/// Longest time until what was acknowledged is in the log: ingest may have put it on its own disk
/// first.
const PATIENCE: Duration = Duration::from_mins(1);

/// How to send.
pub(crate) struct Sending<'a> {
    /// Where to.
    pub(crate) path: &'a str,
    /// Who sends; webhooks need no token.
    pub(crate) token: Option<&'a str>,
    /// Connections, each with one request at a time.
    pub(crate) connections: u64,
    /// Webhooks of a request.
    pub(crate) batch: u64,
    /// How long requests are begun.
    pub(crate) time: Duration,
}

/// What a turn came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    /// Webhooks acknowledged.
    pub(crate) acked: u64,
    /// Of those, found in the log once each.
    pub(crate) stored: u64,
    /// From the first request to the last answer.
    pub(crate) seconds: f64,
    /// Half of the answers came within this time.
    pub(crate) p50_us: u32,
    /// 99 of 100 answers came within this time.
    pub(crate) p99_us: u32,
}

/// An endpoint that takes webhooks, in turns.
pub(crate) struct Endpoint<'a> {
    installation: &'a Installation<'a>,
    role: Role,
    address: SocketAddr,
    turns: u64,
}

impl<'a> Endpoint<'a> {
    /// Starts `tallylight ingest`.
    pub(crate) async fn start(installation: &'a Installation<'a>) -> Result<Self> {
        let mut role = installation.start("ingest")?;
        let address = role.address().await?;
        Ok(Self { installation, role, address, turns: 0 })
    }

    /// Sends for a turn. Everything acknowledged is stored, or this fails.
    pub(crate) async fn turn(&mut self, sending: &Sending<'_>) -> Result<Outcome> {
        self.turns += 1;
        let file = self.installation.cluster.directory().join("acked");
        let mut command = Command::new(std::env::current_exe().context("find this program")?);
        command
            .args(["load", "--address", &self.address.to_string(), "--path", sending.path])
            .args(["--connections", &sending.connections.to_string()])
            .args(["--batch", &sending.batch.to_string()])
            .args(["--seconds", &sending.time.as_secs_f64().to_string()])
            .args(["--first", &(FIRST_NUMBER + self.turns * NUMBERS).to_string()])
            .args(sending.token.into_iter().flat_map(|token| ["--token", token]))
            .arg("--acked")
            .arg(&file);
        let outcome = output(&mut command).await;
        self.role.check_runs()?;
        let Sent { acked, seconds, p50_us, p99_us } =
            serde_json::from_str(&outcome?).context("read the sender's outcome")?;
        let mut connection = self.installation.cluster.connect().await?;
        let stored = look_up(&mut connection, &file, acked).await?;
        Ok(Outcome { acked, stored, seconds, p50_us, p99_us })
    }

    /// Stops it.
    pub(crate) async fn stop(self) -> Result<()> {
        self.role.stop().await
    }
}

/// Waits until all acknowledged events are in the log, and counts them.
async fn look_up(connection: &mut PgConnection, acked: &Path, expected: u64) -> Result<u64> {
    sqlx::raw_sql("CREATE TEMPORARY TABLE acked (event_id uuid NOT NULL, number bigint NOT NULL)")
        .execute(&mut *connection)
        .await
        .context("make a table for what was acknowledged")?;
    let lines = std::fs::read(acked).context("read what was acknowledged")?;
    let mut copy = connection.copy_in_raw("COPY acked FROM STDIN").await?;
    copy.send(lines).await?;
    copy.finish().await?;
    let begun = Instant::now();
    loop {
        let stored = stored(connection).await?;
        if stored == expected {
            return Ok(stored);
        }
        if begun.elapsed() > PATIENCE {
            bail!("{expected} webhooks were acknowledged and {stored} of them are stored");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// How many acknowledged events are in the log once, with the number of their webhook.
async fn stored(connection: &mut PgConnection) -> Result<u64> {
    let stored: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM (
           SELECT a.event_id FROM acked a JOIN tallylight.event e USING (event_id)
            GROUP BY a.event_id
           HAVING count(*) = 1
              AND bool_and(position(convert_to('-8000-' || a.number, 'UTF8')
                                    IN e.payload) > 0)) AS found",
    )
    .fetch_one(connection)
    .await
    .context("look up what was acknowledged")?;
    u64::try_from(stored).context("a count is not negative")
}
