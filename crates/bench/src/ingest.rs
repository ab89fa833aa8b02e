//! `ingest`: single webhooks over HTTP until durable, beside pgbench's one-row INSERTs.
//!
//! The endpoint is `tallylight ingest` on its defaults, the sender a process of its own. Each turn
//! ends by looking up every acknowledged event, with the number that its body carries.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use domain::slice::SliceCount;
use serde::Serialize;
use sqlx::PgConnection;
use tokio::process::Command;

use crate::floor::Inserts;
use crate::generator::webhooks::{FIRST_NUMBER, Webhooks};
use crate::load::Outcome;
use crate::processes::{Home, Installation, Role, SOURCE, output};
use crate::report::{Table, as_thousandths, as_whole, finish, median, note, rate, ratio, whole};

/// Connections of the sender, each with one request at a time.
const CONNECTIONS: u64 = 128;

/// Turns of each.
const TURNS: usize = 5;

/// Numbers of a turn's webhooks: far more than a turn sends.
const NUMBERS: u64 = 100_000_000;

/// Medians of all turns, but for the counts, which are sums.
#[derive(Debug, Serialize)]
struct Figures {
    #[serde(serialize_with = "as_whole")]
    events_per_s: f64,
    #[serde(serialize_with = "as_whole")]
    floor_per_s: f64,
    #[serde(serialize_with = "as_thousandths")]
    ratio: f64,
    #[serde(serialize_with = "as_thousandths")]
    p50_ms: f64,
    #[serde(serialize_with = "as_thousandths")]
    p99_ms: f64,
    acked: u64,
    stored: u64,
}

/// What one turn measured.
struct Turn {
    floor: f64,
    ours: f64,
    p50_ms: f64,
    p99_ms: f64,
    acked: u64,
    stored: u64,
}

/// Measures.
pub(crate) async fn run(home: &Home) -> Result<()> {
    let time = Duration::from_secs(if home.quick { 3 } else { 10 });
    let installation = home.installation().await?;
    installation.say_header(&format!(
        "ingest: {TURNS} turns of {} s each, {CONNECTIONS} connections in a closed loop, HTTP/1.1, \
         webhooks of {} bytes on 1,024 live streams; floor: pgbench -M prepared -c 64 -j 2",
        time.as_secs(),
        body(FIRST_NUMBER).len(),
    ));
    let floor = Inserts::prepare(&installation.cluster, &body(FIRST_NUMBER)).await?;
    let mut role = installation.start("ingest")?;
    let address = role.address().await?.to_string();
    let table =
        Table::begin(&["floor/s", "ours/s", "ratio", "p50 ms", "p99 ms", "acked", "stored"]);
    let mut turns = Vec::new();
    for n in 1..=TURNS {
        installation.cluster.checkpoint().await?;
        let floor_per_s = floor.turn(&installation.cluster, time).await?;
        installation.cluster.checkpoint().await?;
        let turn = ours(&installation, &mut role, &address, n as u64, time).await?;
        let turn = Turn { floor: floor_per_s, ..turn };
        table.line(n, &turn.cells());
        turns.push(turn);
    }
    role.stop().await?;
    let result = summary(&turns);
    table.line(
        "median",
        &[
            whole(result.floor_per_s),
            whole(result.events_per_s),
            format!("{:.2}", result.ratio),
            format!("{:.2}", result.p50_ms),
            format!("{:.2}", result.p99_ms),
            result.acked.to_string(),
            result.stored.to_string(),
        ],
    );
    finish(&result)
}

impl Turn {
    fn cells(&self) -> [String; 7] {
        [
            whole(self.floor),
            whole(self.ours),
            format!("{:.2}", ratio(self.ours, self.floor)),
            format!("{:.2}", self.p50_ms),
            format!("{:.2}", self.p99_ms),
            self.acked.to_string(),
            self.stored.to_string(),
        ]
    }
}

fn summary(turns: &[Turn]) -> Figures {
    let of = |value: fn(&Turn) -> f64| median(&turns.iter().map(value).collect::<Vec<_>>());
    Figures {
        events_per_s: of(|t| t.ours),
        floor_per_s: of(|t| t.floor),
        ratio: ratio(of(|t| t.ours), of(|t| t.floor)),
        p50_ms: of(|t| t.p50_ms),
        p99_ms: of(|t| t.p99_ms),
        acked: turns.iter().map(|t| t.acked).sum(),
        stored: turns.iter().map(|t| t.stored).sum(),
    }
}

/// Sends webhooks for `time` and looks up what was acknowledged.
async fn ours(
    installation: &Installation<'_>,
    role: &mut Role,
    address: &str,
    number: u64,
    time: Duration,
) -> Result<Turn> {
    let acked = installation.cluster.directory().join("acked");
    let mut command = Command::new(std::env::current_exe().context("find this program")?);
    command
        .args(["load", "--address", address, "--path", &Installation::webhook_path()])
        .args(["--connections", &CONNECTIONS.to_string()])
        .args(["--seconds", &time.as_secs().to_string()])
        .args(["--first", &(FIRST_NUMBER + number * NUMBERS).to_string()])
        .arg("--acked")
        .arg(&acked);
    let outcome = output(&mut command).await;
    role.check_runs()?;
    let outcome: Outcome = serde_json::from_str(&outcome?).context("read the sender's outcome")?;
    let stored = stored(&mut installation.cluster.connect().await?, &acked).await?;
    if stored != outcome.acked {
        bail!("{} webhooks were acknowledged and {stored} of them are stored", outcome.acked);
    }
    Ok(Turn {
        floor: 0.0,
        ours: rate(outcome.acked, outcome.seconds),
        p50_ms: f64::from(outcome.p50_us) / 1000.0,
        p99_ms: f64::from(outcome.p99_us) / 1000.0,
        acked: outcome.acked,
        stored,
    })
}

/// How many acknowledged events are in the log once, with the number of their webhook.
async fn stored(connection: &mut PgConnection, acked: &Path) -> Result<u64> {
    sqlx::raw_sql("CREATE TEMPORARY TABLE acked (event_id uuid NOT NULL, number bigint NOT NULL)")
        .execute(&mut *connection)
        .await
        .context("make a table for what was acknowledged")?;
    let lines = std::fs::read(acked).context("read what was acknowledged")?;
    let mut copy = connection.copy_in_raw("COPY acked FROM STDIN").await?;
    copy.send(lines).await?;
    copy.finish().await?;
    let stored: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM (
           SELECT a.event_id FROM acked a JOIN tallylight.event e USING (event_id)
            GROUP BY a.event_id
           HAVING count(*) = 1
              AND bool_and(position(convert_to('\"client_user_id\":' || a.number || ',', 'UTF8')
                                    IN e.payload) > 0)) AS found",
    )
    .fetch_one(connection)
    .await
    .context("look up what was acknowledged")?;
    note(format!("{stored} acknowledged webhooks found in the log"));
    u64::try_from(stored).context("a count is not negative")
}

fn body(number: u64) -> Vec<u8> {
    let mut body = Vec::new();
    Webhooks::of(SOURCE, SliceCount::DEFAULT).write(number, &mut body);
    body
}
