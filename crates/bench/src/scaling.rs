//! `scaling`: jobs that wait, worked on by one process and by four, in their steady state: what more
//! processes bring, and what is lost where the same handlers are split among them.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use sqlx::PgConnection;

use crate::engines::{self, MARKED};
use crate::jobs::System;
use crate::processes::{Home, Installation};
use crate::report::{Table, as_thousandths, as_whole, finish, median, rate, ratio, whole};
use crate::work::Process;

/// Turns.
const TURNS: usize = 5;

/// How long each handler waits.
const WAIT: Duration = Duration::from_millis(50);

/// Handlers at once in a process.
const HANDLERS: usize = 64;

/// Slices of the installation: each of the processes holds its share of them.
const SLICES: i64 = 16;

/// Longest wait until every process has its slices.
const PATIENCE: Duration = Duration::from_mins(1);

/// A shape: processes, and handlers at once in each.
#[derive(Debug, Clone, Copy)]
struct Shape {
    processes: usize,
    handlers: usize,
}

/// The least and the most, and what both have at once in two ways.
const SHAPES: [Shape; 3] = [
    Shape { processes: 1, handlers: HANDLERS },
    Shape { processes: 4, handlers: HANDLERS },
    Shape { processes: 4, handlers: HANDLERS / 4 },
];

/// Medians of all turns.
#[derive(Debug, Serialize)]
struct Figures {
    #[serde(serialize_with = "as_whole")]
    per_s_1: f64,
    #[serde(serialize_with = "as_whole")]
    per_s_4: f64,
    #[serde(serialize_with = "as_thousandths")]
    speedup: f64,
    #[serde(serialize_with = "as_whole")]
    split_1x64: f64,
    #[serde(serialize_with = "as_whole")]
    split_4x16: f64,
}

/// Measures.
pub(crate) async fn run(home: &Home) -> Result<()> {
    let time = Duration::from_secs(if home.quick { 3 } else { 10 });
    let turns = if home.quick { 1 } else { TURNS };
    let installation = home.installation().await?;
    installation.say_header(&format!(
        "scaling: {turns} turns, each {} s of jobs that wait {} ms, completed durably by 1 process \
         with {HANDLERS} handlers, by 4 with {HANDLERS} each, and by 4 with {} each",
        time.as_secs(),
        WAIT.as_millis(),
        HANDLERS / 4,
    ));
    let table = Table::begin(&["1 x 64 /s", "4 x 64 /s", "4 x 16 /s"]);
    let mut all: [Vec<f64>; 3] = Default::default();
    for n in 1..=turns {
        let mut cells = Vec::new();
        for (shape, all) in SHAPES.into_iter().zip(&mut all) {
            let per_s = turn(&installation, shape, time).await?;
            cells.push(whole(per_s));
            all.push(per_s);
        }
        table.line(n, &cells);
    }
    let medians = all.each_ref().map(|turns| median(turns));
    table.line("median", &medians.map(whole));
    let [per_s_1, per_s_4, split_4x16] = medians;
    finish(&Figures {
        per_s_1,
        per_s_4,
        speedup: ratio(per_s_4, per_s_1),
        split_1x64: per_s_1,
        split_4x16,
    })
}

/// Completions a second in the steady state of a shape.
async fn turn(installation: &Installation<'_>, shape: Shape, time: Duration) -> Result<f64> {
    let url = installation.cluster.url();
    let mut connection = installation.cluster.connect().await?;
    // Enough that none runs dry, whatever the shares of the slices are; started before the slices
    // are shared out, too.
    let at_once = (shape.processes * shape.handlers) as u64;
    let seconds = time.as_secs() + 2 * PATIENCE.as_secs() / 10;
    let backlog = at_once * seconds * 1_000 / u64::try_from(WAIT.as_millis())?;
    let pool = engines::pool(&url).await?;
    engines::enqueue_ours(&pool, MARKED, backlog).await?;
    pool.close().await;
    execute(&mut connection, "VACUUM ANALYZE tallylight.job").await?;
    installation.cluster.checkpoint().await?;
    let mut processes = Vec::new();
    for _ in 0..shape.processes {
        let settings = (shape.handlers, WAIT);
        processes.push(Process::start(&url, System::Ours, settings, false).await?);
    }
    shared_out(&mut connection, shape.processes).await?;
    let (before, begun) = (open(&mut connection).await?, Instant::now());
    tokio::time::sleep(time).await;
    let (after, took) = (open(&mut connection).await?, begun.elapsed());
    if after == 0 {
        bail!("the backlog ran dry: nothing was measured");
    }
    for process in processes {
        process.stop().await?;
    }
    execute(&mut connection, "TRUNCATE tallylight.job CASCADE").await?;
    Ok(rate(u64::try_from(before - after)?, took.as_secs_f64()))
}

/// Waits until as many processes share the slices evenly, and each of them has completed some.
async fn shared_out(connection: &mut PgConnection, processes: usize) -> Result<()> {
    let begun = Instant::now();
    let share = SLICES / i64::try_from(processes)?;
    while begun.elapsed() < PATIENCE {
        let shares: Vec<i64> = sqlx::query_scalar(
            "SELECT count(*) FROM tallylight.checkpoint
              WHERE consumer = 'jobs' AND lease_until > clock_timestamp() GROUP BY owner",
        )
        .fetch_all(&mut *connection)
        .await
        .context("look who holds the slices")?;
        if shares.len() == processes && shares.iter().all(|n| *n == share) {
            // The handlers' first round is over, and starts are spread.
            tokio::time::sleep(20 * WAIT).await;
            return Ok(());
        }
        tokio::time::sleep(WAIT).await;
    }
    bail!("{processes} processes do not share the slices evenly")
}

async fn execute(connection: &mut PgConnection, statement: &'static str) -> Result<()> {
    sqlx::raw_sql(statement).execute(connection).await.context("prepare a turn")?;
    Ok(())
}

async fn open(connection: &mut PgConnection) -> Result<i64> {
    sqlx::query_scalar("SELECT count(*) FROM tallylight.job WHERE kind = 'bench_marked'")
        .fetch_one(connection)
        .await
        .context("count open jobs")
}
