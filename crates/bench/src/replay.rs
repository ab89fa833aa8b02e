//! `replay`: rebuilding all projections, beside a COPY of the same columns to a client.
//!
//! The rows that a worker made are digested first; each rebuild must come to the same ones.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde::Serialize;

use crate::cluster::Cluster;
use crate::floor::postgres_client;
use crate::log::Log;
use crate::processes::{Home, output};
use crate::report::{Table, as_thousandths, as_whole, finish, median, note, rate, ratio, whole};

/// Turns of each.
const TURNS: usize = 5;

/// What a rebuild reads of the log: all that a fold needs.
const COLUMNS: &str =
    "position, recorded_at, received_at, subject, event_type, schema_version, payload";

/// Medians of all turns.
#[derive(Debug, Serialize)]
struct Figures {
    events: u64,
    #[serde(serialize_with = "as_whole")]
    rebuild_per_s: f64,
    #[serde(serialize_with = "as_whole")]
    copy_per_s: f64,
    #[serde(serialize_with = "as_thousandths")]
    ratio: f64,
    identical: bool,
}

/// Measures.
pub(crate) async fn run(home: &Home) -> Result<()> {
    let planned: u64 = if home.quick { 200_000 } else { 2_000_000 };
    let installation = home.installation().await?;
    installation.say_header(&format!(
        "replay: {TURNS} turns over about {} events of whole sessions, `tallylight projections \
         rebuild` from the start of the process to its end; floor: psql COPY ({COLUMNS}) TO STDOUT \
         (FORMAT binary) on one connection, discarded",
        whole(rate(planned, 1.0)),
    ));
    let mut log = Log::connect(&installation).await?;
    let events = log.fill(planned).await?;
    let mut worker = installation.start("worker")?;
    let drained = log.drain(&mut worker).await?;
    note(format!("applied by a worker, {}/s", whole(drained.rate())));
    worker.stop().await?;
    log.vacuum().await?;
    let live = log.store.digest().await?;
    note(format!("{} rows of the projections, SHA-256 {}", live.rows, live.sha256));

    let table = Table::begin(&["floor/s", "ours/s", "ratio", "identical"]);
    let (mut floors, mut ours, mut identical) = (Vec::new(), Vec::new(), true);
    for n in 1..=TURNS {
        installation.cluster.checkpoint().await?;
        let floor = rate(events, copy(&installation.cluster).await?.as_secs_f64());
        installation.cluster.checkpoint().await?;
        let begun = Instant::now();
        installation.command(&["projections", "rebuild"]).await?;
        let rebuilt = rate(events, begun.elapsed().as_secs_f64());
        let is_same = log.store.digest().await? == live;
        identical &= is_same;
        let cells = [
            whole(floor),
            whole(rebuilt),
            format!("{:.3}", ratio(rebuilt, floor)),
            is_same.to_string(),
        ];
        table.line(n, &cells);
        floors.push(floor);
        ours.push(rebuilt);
    }
    let (copy_per_s, rebuild_per_s) = (median(&floors), median(&ours));
    let ratio = ratio(rebuild_per_s, copy_per_s);
    let cells =
        [whole(copy_per_s), whole(rebuild_per_s), format!("{ratio:.3}"), identical.to_string()];
    table.line("median", &cells);
    finish(&Figures { events, rebuild_per_s, copy_per_s, ratio, identical })?;
    if !identical {
        bail!("a rebuild came to other rows than the worker");
    }
    Ok(())
}

/// Time that psql takes to receive the log.
async fn copy(cluster: &Cluster) -> Result<Duration> {
    let statement =
        format!("COPY (SELECT {COLUMNS} FROM tallylight.event) TO STDOUT (FORMAT binary)");
    let mut command = postgres_client(cluster, "psql")?;
    command.args(["--no-psqlrc", "--quiet", "--output", "/dev/null", "--command", &statement]);
    command.stdout(Stdio::null());
    let begun = Instant::now();
    output(&mut command).await?;
    Ok(begun.elapsed())
}
