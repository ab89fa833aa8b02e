//! `jobs`: a backlog of jobs that do nothing, drained by one process to durable completion; ours
//! beside two other engines in Rust, each in its fastest documented setting.
//!
//! A *system* is an engine with a kind of job. Every turn enqueues and drains the backlog of each
//! system once, in a process of its own, so that they share the machine's moods.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use tokio::process::Command;

use crate::drain;
use crate::engines;
use crate::processes::{Home, Installation, output};
use crate::report::{Table, as_thousandths, as_whole, finish, median, note, rate, ratio, whole};

/// Turns.
const TURNS: usize = 5;

/// What is drained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum System {
    /// Ours, a kind as most are: its start is marked, so that crashes are counted. 4,000 at once.
    Ours,
    /// Ours, a kind that is cheap to repeat: its start is not marked.
    Unmarked,
    /// Ours, with an outcome event for each job.
    Outcomes,
    /// `graphile_worker`: local queue of 5,000, 500 at once, completions in batches.
    Graphile,
    /// `apalis-postgres`: batches of 2,000, 1,000 at once.
    ApalisPostgres,
}

impl System {
    const ALL: [Self; 5] =
        [Self::Ours, Self::Unmarked, Self::Outcomes, Self::Graphile, Self::ApalisPostgres];

    /// As it is called on the command line and in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Unmarked => "unmarked",
            Self::Outcomes => "outcomes",
            Self::Graphile => "graphile",
            Self::ApalisPostgres => "apalis-postgres",
        }
    }

    /// Its table of live jobs.
    fn table(self) -> &'static str {
        match self {
            Self::Ours | Self::Unmarked | Self::Outcomes => "tallylight.job",
            Self::Graphile => "graphile_worker._private_jobs",
            Self::ApalisPostgres => "apalis.jobs",
        }
    }

    /// How many of its jobs are not done.
    pub(crate) fn open(self) -> &'static str {
        match self {
            Self::Ours | Self::Unmarked | Self::Outcomes => {
                "SELECT count(*) FROM tallylight.job WHERE kind LIKE 'bench%'"
            }
            Self::Graphile => "SELECT count(*) FROM graphile_worker._private_jobs",
            // It keeps what is done.
            Self::ApalisPostgres => "SELECT count(*) FROM apalis.jobs WHERE status <> 'Done'",
        }
    }
}

/// What a draining process tells in its one line.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Drained {
    /// From the start of its worker to the last durable completion.
    pub(crate) seconds: f64,
}

/// Medians of all turns.
#[derive(Debug, Serialize)]
struct Figures {
    jobs: u64,
    #[serde(serialize_with = "as_whole")]
    jobs_per_s: f64,
    #[serde(serialize_with = "as_whole")]
    unmarked_per_s: f64,
    #[serde(serialize_with = "as_whole")]
    with_outcomes_per_s: f64,
    #[serde(serialize_with = "as_whole")]
    graphile_per_s: f64,
    #[serde(serialize_with = "as_whole")]
    apalis_postgres_per_s: f64,
    #[serde(serialize_with = "as_thousandths")]
    ratio: f64,
    #[serde(serialize_with = "as_thousandths")]
    unmarked_ratio: f64,
    #[serde(serialize_with = "as_whole")]
    wal_bytes_per_job: f64,
    #[serde(serialize_with = "as_whole")]
    dead_tuples: f64,
}

/// What one turn of one system showed.
struct Turn {
    per_s: f64,
    wal_bytes_per_job: f64,
    dead_tuples: f64,
}

/// Measures.
pub(crate) async fn run(home: &Home) -> Result<()> {
    let jobs: u64 = if home.quick { 50_000 } else { 500_000 };
    let installation = home.installation().await?;
    installation.say_header(&format!(
        "jobs: {TURNS} turns, each {} jobs that do nothing enqueued, then drained by one process to \
         durable completion, for each system",
        whole(rate(jobs, 1.0)),
    ));
    engines::set_up_peers(&installation.cluster.url()).await?;
    let table = Table::begin(&["ours/s", "unmarked/s", "outcomes/s", "graphile/s", "apalis-pg/s"]);
    let mut turns: [Vec<Turn>; 5] = Default::default();
    for n in 1..=TURNS {
        for (system, turns) in System::ALL.into_iter().zip(&mut turns) {
            turns.push(turn(&installation, system, jobs).await?);
        }
        let cells = turns.each_ref().map(|t| t.last().map_or_else(String::new, |t| whole(t.per_s)));
        table.line(n, &cells);
    }
    let of =
        |n: usize, get: fn(&Turn) -> f64| median(&turns[n].iter().map(get).collect::<Vec<_>>());
    let [ours, unmarked, outcomes, graphile, apalis] =
        std::array::from_fn(|n| of(n, |turn| turn.per_s));
    table.line("median", &[ours, unmarked, outcomes, graphile, apalis].map(whole));
    let best = graphile.max(apalis);
    finish(&Figures {
        jobs,
        jobs_per_s: ours,
        unmarked_per_s: unmarked,
        with_outcomes_per_s: outcomes,
        graphile_per_s: graphile,
        apalis_postgres_per_s: apalis,
        ratio: ratio(ours, best),
        unmarked_ratio: ratio(unmarked, best),
        wal_bytes_per_job: of(0, |turn| turn.wal_bytes_per_job),
        dead_tuples: of(0, |turn| turn.dead_tuples),
    })
}

/// Enqueues a backlog and has it drained.
async fn turn(installation: &Installation<'_>, system: System, jobs: u64) -> Result<Turn> {
    let url = installation.cluster.url();
    let mut connection = installation.cluster.connect().await?;
    drain::enqueue(&url, system, jobs)
        .await
        .with_context(|| format!("enqueue {}", system.name()))?;
    let count = |open: i64| u64::try_from(open).unwrap_or_default();
    if count(open(&mut connection, system).await?) != jobs {
        bail!("{}: not all jobs are enqueued", system.name());
    }
    // Statistics as autovacuum would have made them, and nothing dirty from the enqueueing.
    let table = system.table();
    execute(&mut connection, &format!("VACUUM ANALYZE {table}")).await?;
    installation.cluster.checkpoint().await?;
    let before = wal(&mut connection).await?;
    let own = std::env::current_exe().context("find this program")?;
    let drained = output(
        Command::new(own)
            .args(["drain", "--system", system.name(), "--jobs", &jobs.to_string()])
            // Not among the arguments, where every user of the machine sees it.
            .env("BENCH_DATABASE_URL", &url),
    )
    .await?;
    let drained: Drained = serde_json::from_str(drained.trim()).context("read what was drained")?;
    let bytes = wal(&mut connection).await? - before;
    let left = open(&mut connection, system).await?;
    if left != 0 {
        bail!("{}: {left} jobs are not done", system.name());
    }
    let dead_tuples = dead_tuples(&mut connection, table).await?;
    // Each turn begins with an empty table of the same size.
    execute(&mut connection, &format!("TRUNCATE {table} CASCADE")).await?;
    note(format!("{} {:.1} s", system.name(), drained.seconds));
    #[expect(clippy::cast_precision_loss, reason = "bytes and rows of a measurement")]
    let (bytes, dead_tuples, all) = (bytes as f64, dead_tuples as f64, jobs as f64);
    let per_s = rate(jobs, drained.seconds);
    Ok(Turn { per_s, wal_bytes_per_job: bytes / all, dead_tuples })
}

async fn execute(connection: &mut PgConnection, statement: &str) -> Result<()> {
    let statement = sqlx::AssertSqlSafe(statement.to_owned());
    sqlx::raw_sql(statement).execute(connection).await.context("prepare a turn")?;
    Ok(())
}

async fn open(connection: &mut PgConnection, system: System) -> Result<i64> {
    sqlx::query_scalar(system.open()).fetch_one(connection).await.context("count open jobs")
}

/// Bytes of WAL written so far.
async fn wal(connection: &mut PgConnection) -> Result<i64> {
    sqlx::query_scalar("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint")
        .fetch_one(connection)
        .await
        .context("ask for the WAL's position")
}

/// Dead row versions of a table, once the processes that made them have told.
async fn dead_tuples(connection: &mut PgConnection, table: &str) -> Result<i64> {
    // A process that ends tells its numbers before it goes.
    tokio::time::sleep(Duration::from_millis(100)).await;
    sqlx::query_scalar("SELECT n_dead_tup FROM pg_stat_user_tables WHERE relid = $1::regclass")
        .bind(table)
        .fetch_one(connection)
        .await
        .context("count dead row versions")
}
