//! `pickup`: an idle queue, one job at a time, enqueued by SQL from another process: the time from the
//! sending of the enqueuer's COMMIT to the start of the handler; ours beside `graphile_worker`.
//!
//! The floor is what no queue that listens can do without: a commit with a NOTIFY, its arrival, and
//! one indexed read of the row.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use sqlx::postgres::PgListener;
use sqlx::{Connection as _, PgConnection};

use crate::engines;
use crate::jobs::System;
use crate::processes::{Home, Installation};
use crate::report::{Table, as_thousandths, finish, median, p50_and_p99};
use crate::work::{Process, now};

/// Turns.
const TURNS: usize = 5;

/// Handlers that a worker may run at once: what its users leave it at.
const CONCURRENCY: usize = 64;

/// Jobs of a turn that are not counted: caches fill, plans are made.
const WARM_UP: u64 = 50;

/// Between two jobs the queue is idle; not a divisor of anybody's polling.
const PAUSE: Duration = Duration::from_millis(13);

/// Longest wait for a notification.
const PATIENCE: Duration = Duration::from_secs(10);

/// Medians of all turns.
#[derive(Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "each says its unit to whoever reads the line")]
struct Figures {
    #[serde(serialize_with = "as_thousandths")]
    p50_ms: f64,
    #[serde(serialize_with = "as_thousandths")]
    p99_ms: f64,
    #[serde(serialize_with = "as_thousandths")]
    floor_p50_ms: f64,
    #[serde(serialize_with = "as_thousandths")]
    floor_p99_ms: f64,
    #[serde(serialize_with = "as_thousandths")]
    graphile_p50_ms: f64,
    #[serde(serialize_with = "as_thousandths")]
    graphile_p99_ms: f64,
}

/// Measures.
pub(crate) async fn run(home: &Home) -> Result<()> {
    let jobs = if home.quick { 150 } else { 1_000 };
    let installation = home.installation().await?;
    installation.say_header(&format!(
        "pickup: {TURNS} turns of {jobs} jobs each, one at a time to an idle queue, enqueued by SQL \
         with a wake-up from another process; COMMIT sent to handler started; floor: COMMIT with \
         NOTIFY, heard, and one indexed read",
    ));
    engines::set_up_peers(&installation.cluster.url()).await?;
    let mut floor = Floor::prepare(&installation).await?;
    let table = Table::begin(&["floor p50", "p99", "ours p50", "p99", "graphile p50", "p99"]);
    let mut all: [Vec<f64>; 6] = Default::default();
    for n in 1..=TURNS {
        let [floor50, floor99] = p50_and_p99(floor.turn(jobs).await?);
        let [ours50, ours99] = p50_and_p99(turn(&installation, System::Ours, jobs).await?);
        let [peer50, peer99] = p50_and_p99(turn(&installation, System::Graphile, jobs).await?);
        let cells = [floor50, floor99, ours50, ours99, peer50, peer99];
        table.line(n, &cells.map(|ms| format!("{ms:.2}")));
        for (all, one) in all.iter_mut().zip(cells) {
            all.push(one);
        }
    }
    let medians = all.each_ref().map(|turns| median(turns));
    table.line("median", &medians.map(|ms| format!("{ms:.2}")));
    let [floor_p50_ms, floor_p99_ms, p50_ms, p99_ms, graphile_p50_ms, graphile_p99_ms] = medians;
    finish(&Figures {
        p50_ms,
        p99_ms,
        floor_p50_ms,
        floor_p99_ms,
        graphile_p50_ms,
        graphile_p99_ms,
    })
}

fn micros(from: u64, to: u64) -> u32 {
    u32::try_from(to.saturating_sub(from) / 1_000).unwrap_or(u32::MAX)
}

/// Microseconds of each counted job of a turn.
async fn turn(installation: &Installation<'_>, system: System, jobs: u64) -> Result<Vec<u32>> {
    let url = installation.cluster.url();
    let mut process = Process::start(&url, system, (CONCURRENCY, Duration::ZERO), true).await?;
    let mut connection = installation.cluster.connect().await?;
    let mut took = Vec::new();
    for n in 1..=WARM_UP + jobs {
        let sent = enqueue(&mut connection, system, n).await?;
        let started = process.next().await?;
        if started.n != n {
            bail!("job {n} was enqueued and job {} started", started.n);
        }
        if n > WARM_UP {
            took.push(micros(sent, started.at));
        }
        tokio::time::sleep(PAUSE).await;
    }
    process.stop().await?;
    Ok(took)
}

/// Enqueues a job as a service would in a transaction of its own; when the COMMIT was sent.
async fn enqueue(connection: &mut PgConnection, system: System, n: u64) -> Result<u64> {
    let statement = match system {
        System::Graphile => {
            "SELECT graphile_worker.add_job('bench_nothing', json_build_object('n', $1::bigint))"
        }
        System::Ours | System::Unmarked | System::Outcomes | System::ApalisPostgres => {
            "SELECT tallylight.enqueue_many(jsonb_build_array(jsonb_build_object(
                      'kind', 'bench_marked', 'args', jsonb_build_object('n', $1::bigint))),
                    wake => true)"
        }
    };
    let mut transaction = connection.begin().await.context("begin")?;
    sqlx::query(statement)
        .bind(i64::try_from(n)?)
        .execute(&mut *transaction)
        .await
        .context("enqueue a job")?;
    let sent = now();
    transaction.commit().await.context("commit a job")?;
    Ok(sent)
}

/// What no queue that listens can do without.
struct Floor {
    writer: PgConnection,
    reader: PgConnection,
    listener: PgListener,
    last: i64,
}

impl Floor {
    async fn prepare(installation: &Installation<'_>) -> Result<Self> {
        let (mut writer, reader) =
            (installation.cluster.connect().await?, installation.cluster.connect().await?);
        sqlx::raw_sql("CREATE TABLE pickup_floor (n bigint PRIMARY KEY, args jsonb NOT NULL)")
            .execute(&mut writer)
            .await
            .context("make the floor's table")?;
        let url = installation.cluster.url();
        let mut listener = PgListener::connect(&url).await.context("connect the floor")?;
        listener.listen("pickup_floor").await.context("listen")?;
        Ok(Self { writer, reader, listener, last: 0 })
    }

    async fn turn(&mut self, jobs: u64) -> Result<Vec<u32>> {
        let mut took = Vec::new();
        for n in 1..=WARM_UP + jobs {
            let one = self.one().await?;
            if n > WARM_UP {
                took.push(one);
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(took)
    }

    /// The commit and its arrival run beside each other, as in two processes.
    async fn one(&mut self) -> Result<u32> {
        self.last += 1;
        let mut transaction = self.writer.begin().await.context("begin")?;
        sqlx::query(
            "WITH row AS (INSERT INTO pickup_floor VALUES ($1, jsonb_build_object('n', $1)))
             SELECT pg_notify('pickup_floor', '')",
        )
        .bind(self.last)
        .execute(&mut *transaction)
        .await
        .context("insert a row")?;
        let sent = now();
        let (committed, heard) = tokio::join!(transaction.commit(), async {
            tokio::time::timeout(PATIENCE, self.listener.recv())
                .await
                .context("hear of a row in time")?
                .context("hear of a row")?;
            sqlx::query("SELECT args FROM pickup_floor WHERE n = $1")
                .bind(self.last)
                .fetch_one(&mut self.reader)
                .await
                .context("read a row")?;
            anyhow::Ok(now())
        });
        committed.context("commit a row")?;
        Ok(micros(sent, heard?))
    }
}
