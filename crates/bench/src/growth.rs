//! `growth`: the same work on a large log and on a small one, in turns: does age cost speed?
//!
//! Two clusters, filled with whole sessions that a worker has applied. Rebuilds come first, since
//! each backlog and each webhook makes both logs longer by the same, and so more alike.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use crate::log::Log;
use crate::processes::{Home, Installation};
use crate::report::{Table, as_thousandths, finish, median, note, rate, ratio, whole};
use crate::sender::{Endpoint, Sending};

/// How many times larger the large log is.
const TIMES: u64 = 10;

/// Rates at the large size over rates at the small one.
#[derive(Debug, Serialize)]
struct Figures {
    events: u64,
    #[serde(serialize_with = "as_thousandths")]
    ingest_ratio: f64,
    #[serde(serialize_with = "as_thousandths")]
    consume_ratio: f64,
    #[serde(serialize_with = "as_thousandths")]
    rebuild_ratio: f64,
}

/// How much is measured.
struct Plan {
    small: u64,
    turns: usize,
    backlog: u64,
    time: Duration,
}

/// A log of one of the two sizes.
struct Side<'a> {
    installation: &'a Installation<'a>,
    log: Log,
    ingest: Vec<f64>,
    consume: Vec<f64>,
    rebuild: Vec<f64>,
}

/// Measures.
pub(crate) async fn run(home: &Home) -> Result<()> {
    let plan = if home.quick {
        Plan { small: 100_000, turns: 3, backlog: 10_000, time: Duration::from_secs(1) }
    } else {
        Plan { small: 1_000_000, turns: 5, backlog: 100_000, time: Duration::from_secs(5) }
    };
    let (small, large) = (home.installation().await?, home.installation().await?);
    large.say_header(&format!(
        "growth: {} turns on about {} events and on {TIMES} times as many: rebuild of all \
         projections, a backlog of about {} events, webhooks on 128 connections for {} s",
        plan.turns,
        whole(rate(plan.small, 1.0)),
        whole(rate(plan.backlog, 1.0)),
        plan.time.as_secs(),
    ));
    let mut small = Side::prepare(&small, plan.small).await?;
    let mut large = Side::prepare(&large, plan.small * TIMES).await?;
    let events = u64::try_from(large.log.total().await?)?;
    let table = Table::begin(&["what", "small/s", "large/s", "ratio"]);
    for n in 1..=plan.turns {
        small.rebuild().await?;
        large.rebuild().await?;
        line(&table, n, "rebuild", &small.rebuild, &large.rebuild);
    }
    for n in 1..=plan.turns {
        small.consume(plan.backlog).await?;
        large.consume(plan.backlog).await?;
        line(&table, n, "consume", &small.consume, &large.consume);
    }
    for n in 1..=plan.turns {
        small.ingest(plan.time).await?;
        large.ingest(plan.time).await?;
        line(&table, n, "ingest", &small.ingest, &large.ingest);
    }
    let of = |large: &[f64], small: &[f64]| ratio(median(large), median(small));
    finish(&Figures {
        events,
        ingest_ratio: of(&large.ingest, &small.ingest),
        consume_ratio: of(&large.consume, &small.consume),
        rebuild_ratio: of(&large.rebuild, &small.rebuild),
    })
}

/// A line for the last turn of each side.
fn line(table: &Table, turn: usize, what: &str, small: &[f64], large: &[f64]) {
    let last = |rates: &[f64]| rates.last().copied().unwrap_or_default();
    let (small, large) = (last(small), last(large));
    let cells =
        [what.to_owned(), whole(small), whole(large), format!("{:.3}", ratio(large, small))];
    table.line(turn, &cells);
}

impl<'a> Side<'a> {
    /// Fills the log, lets a worker apply it.
    async fn prepare(installation: &'a Installation<'a>, events: u64) -> Result<Self> {
        let mut log = Log::connect(installation).await?;
        log.fill(events).await?;
        let (ingest, consume, rebuild) = (Vec::new(), Vec::new(), Vec::new());
        let mut side = Self { installation, log, ingest, consume, rebuild };
        let drained = side.drain().await?;
        note(format!("applied by a worker, {}/s", whole(drained)));
        side.log.vacuum().await?;
        Ok(side)
    }

    async fn drain(&mut self) -> Result<f64> {
        let mut worker = self.installation.start("worker")?;
        let drained = self.log.drain(&mut worker).await?;
        worker.stop().await?;
        self.log.forget_jobs().await?;
        Ok(drained.rate())
    }

    async fn rebuild(&mut self) -> Result<()> {
        let events = u64::try_from(self.log.total().await?)?;
        self.installation.cluster.checkpoint().await?;
        let begun = Instant::now();
        self.installation.command(&["projections", "rebuild"]).await?;
        self.rebuild.push(rate(events, begun.elapsed().as_secs_f64()));
        Ok(())
    }

    async fn consume(&mut self, backlog: u64) -> Result<()> {
        self.log.fill(backlog).await?;
        self.installation.cluster.checkpoint().await?;
        let drained = self.drain().await?;
        self.consume.push(drained);
        Ok(())
    }

    async fn ingest(&mut self, time: Duration) -> Result<()> {
        self.installation.cluster.checkpoint().await?;
        let mut endpoint = Endpoint::start(self.installation).await?;
        let path = Installation::webhook_path();
        let sending = Sending { path: &path, token: None, connections: 128, batch: 1, time };
        let sent = endpoint.turn(&sending).await?;
        endpoint.stop().await?;
        self.ingest.push(rate(sent.acked, sent.seconds));
        Ok(())
    }
}
