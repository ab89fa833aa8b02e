//! The processes that drain a backlog, one per system: each does the same nothing for every job, and
//! ends when the last completion is durable.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use sqlx::PgPool;

use crate::engines::{self, Engine, Fetch, MARKED, OUTCOME, UNMARKED, Work};
use crate::jobs::{Drained, System};
use crate::report::finish;

/// How often is looked whether all are done: the resolution of a turn of many seconds.
const LOOK: Duration = Duration::from_millis(5);

/// Longest wait without any job done.
const PATIENCE: Duration = Duration::from_mins(1);

/// Options of the process.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// What to drain
    #[arg(long, value_enum)]
    system: System,
    /// How many jobs there are
    #[arg(long)]
    jobs: u64,
    /// The database
    #[arg(long, env = "BENCH_DATABASE_URL", hide_env_values = true)]
    database_url: String,
}

/// Enqueues jobs, in the fastest way that each system documents.
pub(crate) async fn enqueue(url: &str, system: System, jobs: u64) -> Result<()> {
    let pool = engines::pool(url).await?;
    match system {
        System::Ours => engines::enqueue_ours(&pool, MARKED, jobs).await?,
        System::Unmarked => engines::enqueue_ours(&pool, UNMARKED, jobs).await?,
        System::Outcomes => engines::enqueue_ours(&pool, OUTCOME, jobs).await?,
        System::Graphile => engines::enqueue_graphile(&pool, jobs).await?,
        System::ApalisPostgres => engines::enqueue_apalis(&pool, jobs).await?,
    }
    pool.close().await;
    Ok(())
}

/// Drains a backlog, and tells how long it took.
pub(crate) fn run(options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let seconds = runtime.block_on(async {
        let pool = engines::pool(&options.database_url).await?;
        let count = Arc::new(AtomicU64::new(0));
        let begun = Instant::now();
        let engine = start(&pool, options, &count).await?;
        drained(&pool, options, &count).await?;
        let seconds = begun.elapsed().as_secs_f64();
        engine.stop().await?;
        anyhow::Ok(seconds)
    })?;
    finish(&Drained { seconds })
}

async fn start(pool: &PgPool, options: &Options, count: &Arc<AtomicU64>) -> Result<Engine> {
    let count = Arc::clone(count);
    let begun = Arc::new(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
    });
    let work = Work { begun, wait: Duration::ZERO };
    match options.system {
        System::Ours | System::Unmarked | System::Outcomes => {
            engines::ours(&options.database_url, 4_000, work).await
        }
        System::Graphile => engines::graphile(pool, 500, Fetch::Ahead, work).await,
        System::ApalisPostgres => Ok(engines::apalis(pool, 1_000, work)),
    }
}

/// Waits until all jobs have run, then until no row is left open.
async fn drained(pool: &PgPool, options: &Options, count: &AtomicU64) -> Result<()> {
    let so_far = || count.load(Ordering::Relaxed);
    let (mut last, mut moved) = (0, Instant::now());
    while so_far() < options.jobs {
        tokio::time::sleep(LOOK).await;
        if so_far() > last {
            (last, moved) = (so_far(), Instant::now());
        } else if moved.elapsed() > PATIENCE {
            bail!("{last} of {} jobs ran, and no more", options.jobs);
        }
    }
    loop {
        let open: i64 = sqlx::query_scalar(options.system.open()).fetch_one(pool).await?;
        if open == 0 {
            return Ok(());
        }
        if moved.elapsed() > PATIENCE {
            bail!("{open} jobs ran and are not completed");
        }
        tokio::time::sleep(LOOK).await;
    }
}
