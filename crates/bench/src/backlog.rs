//! `backlog`: jobs a second of one worker while a million jobs wait, beside a thousand that wait: what
//! a long queue costs those that come first.
//!
//! Either backlog keeps its length: the process that works enqueues as many as it starts, on both
//! sides. Both have a cluster of their own, made once; turns alternate.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use tokio::process::Command;

use crate::engines::{self, MARKED, Work};
use crate::processes::{Home, Installation, output};
use crate::report::{Table, as_thousandths, as_whole, finish, median, rate, ratio, whole};

/// Turns.
const TURNS: usize = 5;

/// The short backlog.
const FEW: u64 = 1_000;

/// Handlers at once: what users leave it at.
const CONCURRENCY: usize = 64;

/// Jobs enqueued at once, as soon as as many were started.
const CHUNK: u64 = 250;

/// What is not counted, while slices are taken and caches fill.
const WARM_UP: Duration = Duration::from_secs(1);

/// How often is looked whether to enqueue.
const LOOK: Duration = Duration::from_millis(1);

/// Options of the process that works.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How long to count, in seconds
    #[arg(long)]
    seconds: f64,
    /// The database
    #[arg(long, env = "BENCH_DATABASE_URL", hide_env_values = true)]
    database_url: String,
}

/// What it tells in its one line.
#[derive(Debug, Serialize, Deserialize)]
struct Held {
    per_s: f64,
}

/// Medians of all turns.
#[derive(Debug, Serialize)]
struct Figures {
    waiting: u64,
    #[serde(serialize_with = "as_whole")]
    few_per_s: f64,
    #[serde(serialize_with = "as_whole")]
    many_per_s: f64,
    #[serde(serialize_with = "as_thousandths")]
    claim_ratio: f64,
}

/// Measures.
pub(crate) async fn run(home: &Home) -> Result<()> {
    let (many, time) = if home.quick { (100_000, 2) } else { (1_000_000, 8) };
    let (with_few, with_many) = (home.installation().await?, home.installation().await?);
    with_few.say_header(&format!(
        "backlog: {TURNS} turns of {time} s each; jobs a second of one worker with {CONCURRENCY} \
         handlers while {} jobs wait, and while {} wait",
        whole(rate(FEW, 1.0)),
        whole(rate(many, 1.0)),
    ));
    for (installation, jobs) in [(&with_few, FEW), (&with_many, many)] {
        let pool = engines::pool(&installation.cluster.url()).await?;
        engines::enqueue_ours(&pool, MARKED, jobs).await?;
        sqlx::raw_sql("VACUUM ANALYZE tallylight.job").execute(&pool).await.context("analyze")?;
        pool.close().await;
        installation.cluster.checkpoint().await?;
    }
    let table = Table::begin(&["few/s", "many/s", "ratio"]);
    let (mut few, mut much) = (Vec::new(), Vec::new());
    for n in 1..=TURNS {
        let few_per_s = turn(&with_few, time).await?;
        let many_per_s = turn(&with_many, time).await?;
        let ratio = ratio(many_per_s, few_per_s);
        table.line(n, &[whole(few_per_s), whole(many_per_s), format!("{ratio:.2}")]);
        few.push(few_per_s);
        much.push(many_per_s);
    }
    let (few_per_s, many_per_s) = (median(&few), median(&much));
    let claim_ratio = ratio(many_per_s, few_per_s);
    table.line("median", &[whole(few_per_s), whole(many_per_s), format!("{claim_ratio:.2}")]);
    finish(&Figures { waiting: many, few_per_s, many_per_s, claim_ratio })
}

async fn turn(installation: &Installation<'_>, seconds: u64) -> Result<f64> {
    let own = std::env::current_exe().context("find this program")?;
    let told = output(
        Command::new(own)
            .args(["hold", "--seconds", &seconds.to_string()])
            // Not among the arguments, where every user of the machine sees it.
            .env("BENCH_DATABASE_URL", installation.cluster.url()),
    )
    .await?;
    let held: Held = serde_json::from_str(told.trim()).context("read what was worked off")?;
    Ok(held.per_s)
}

/// Works and enqueues as much, and tells how many jobs were started a second.
pub(crate) fn hold(options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let per_s = runtime.block_on(async {
        let pool = engines::pool(&options.database_url).await?;
        let count = Arc::new(AtomicU64::new(0));
        let begun = Arc::new({
            let count = Arc::clone(&count);
            move |_| {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        let work = Work { begun, wait: Duration::ZERO };
        let engine = engines::ours(&options.database_url, CONCURRENCY, work).await?;
        let mut enqueued = 0;
        refill_for(WARM_UP, &pool, &count, &mut enqueued).await?;
        let (before, begun) = (count.load(Ordering::Relaxed), Instant::now());
        let time = Duration::from_secs_f64(options.seconds);
        refill_for(time, &pool, &count, &mut enqueued).await?;
        let per_s = rate(count.load(Ordering::Relaxed) - before, begun.elapsed().as_secs_f64());
        engine.stop().await?;
        // What was started since.
        let rest = count.load(Ordering::Relaxed).saturating_sub(enqueued);
        engines::enqueue_ours(&pool, MARKED, rest).await?;
        anyhow::Ok(per_s)
    })?;
    finish(&Held { per_s })
}

/// Enqueues as many jobs as are started, for `time`.
async fn refill_for(
    time: Duration,
    pool: &PgPool,
    count: &AtomicU64,
    enqueued: &mut u64,
) -> Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < time {
        if count.load(Ordering::Relaxed) >= *enqueued + CHUNK {
            engines::enqueue_ours(pool, MARKED, CHUNK).await?;
            *enqueued += CHUNK;
        } else {
            tokio::time::sleep(LOOK).await;
        }
    }
    Ok(())
}
