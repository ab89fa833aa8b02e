//! `ingest`: single webhooks over HTTP until durable, beside pgbench's one-row INSERTs.
//!
//! The endpoint is `tallylight ingest` on its defaults, the sender a process of its own. Each turn
//! ends by looking up every acknowledged event, with the number that its body carries.

use std::time::Duration;

use anyhow::Result;
use domain::slice::SliceCount;
use serde::Serialize;

use crate::floor::Inserts;
use crate::generator::webhooks::{FIRST_NUMBER, Webhooks};
use crate::processes::{Home, Installation, SOURCE};
use crate::report::{Table, as_thousandths, as_whole, finish, median, rate, ratio, whole};
use crate::sender::{Endpoint, Outcome, Sending};

/// Connections of the sender, each with one request at a time.
const CONNECTIONS: u64 = 128;

/// Turns of each.
const TURNS: usize = 5;

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
    let mut endpoint = Endpoint::start(&installation).await?;
    let path = Installation::webhook_path();
    let sending = Sending { path: &path, token: None, connections: CONNECTIONS, batch: 1, time };
    let table =
        Table::begin(&["floor/s", "ours/s", "ratio", "p50 ms", "p99 ms", "acked", "stored"]);
    let mut turns = Vec::new();
    for n in 1..=TURNS {
        installation.cluster.checkpoint().await?;
        let floor_per_s = floor.turn(&installation.cluster, time).await?;
        installation.cluster.checkpoint().await?;
        let turn = Turn::of(floor_per_s, endpoint.turn(&sending).await?);
        table.line(n, &turn.cells());
        turns.push(turn);
    }
    endpoint.stop().await?;
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

impl Turn {
    /// What was acknowledged was looked up: it is stored.
    fn of(floor: f64, outcome: Outcome) -> Self {
        Self {
            floor,
            ours: rate(outcome.acked, outcome.seconds),
            p50_ms: f64::from(outcome.p50_us) / 1000.0,
            p99_ms: f64::from(outcome.p99_us) / 1000.0,
            acked: outcome.acked,
            stored: outcome.stored,
        }
    }
}

fn body(number: u64) -> Vec<u8> {
    let mut body = Vec::new();
    Webhooks::of(SOURCE, SliceCount::DEFAULT).write(number, &mut body);
    body
}
