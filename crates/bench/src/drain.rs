//! The processes that drain a backlog, one per system: each does the same nothing for every job, and
//! ends when the last completion is durable.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use apalis::prelude::*;
use apalis_postgres::PostgresStorage;
use futures_util::future::BoxFuture;
use graphile_worker::{
    IntoTaskHandlerResult, JobSpec, LocalQueueConfig, RawJobSpec, TaskHandler, WorkerContext,
    WorkerOptions, WorkerUtils,
};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use store::Store;
use uuid::Uuid;
use worker::jobs::{Done, JobError};
use worker::testing::{Run, Script};

use crate::jobs::{Drained, System};
use crate::report::finish;

/// Connections of a draining process: each system has as many.
const CONNECTIONS: u32 = 8;

/// How often is looked whether all are done: the resolution of a turn of many seconds.
const LOOK: Duration = Duration::from_millis(5);

/// Longest wait without any job done.
const PATIENCE: Duration = Duration::from_mins(1);

/// Jobs that are enqueued in one call.
const CHUNK: u64 = 5_000;

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

/// The handlers' one argument.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Nothing {
    n: u64,
}

/// Jobs that were run.
#[derive(Debug, Clone, Default)]
struct Count(Arc<AtomicU64>);

impl Count {
    fn one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn so_far(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl TaskHandler for Nothing {
    const IDENTIFIER: &'static str = "bench_nothing";

    async fn run(self, ctx: WorkerContext) -> impl IntoTaskHandlerResult {
        if let Some(count) = ctx.get_ext::<Count>() {
            count.one();
        }
        Ok::<(), String>(())
    }
}

/// Makes what the peers need in the database.
pub(crate) async fn set_up(url: &str) -> Result<()> {
    let pool = pool(url).await?;
    sqlx::raw_sql("CREATE EXTENSION IF NOT EXISTS hstore")
        .execute(&pool)
        .await
        .context("make the extension hstore, which apalis-postgres needs")?;
    PostgresStorage::<()>::setup(&pool).await.context("set apalis-postgres up")?;
    utils(&pool).migrate().await.context("set graphile_worker up")?;
    pool.close().await;
    Ok(())
}

/// Enqueues jobs, in the fastest way that each system documents.
pub(crate) async fn enqueue(url: &str, system: System, jobs: u64) -> Result<()> {
    let pool = pool(url).await?;
    match system {
        System::Ours => enqueue_ours(&pool, "bench_marked", jobs).await?,
        System::Unmarked => enqueue_ours(&pool, "bench_unmarked", jobs).await?,
        System::Outcomes => enqueue_ours(&pool, "bench_outcome", jobs).await?,
        System::Graphile => {
            for chunk in chunks(jobs) {
                let specs: Vec<RawJobSpec> = chunk.map(spec).collect();
                utils(&pool).add_raw_jobs(&specs).await.context("add jobs")?;
            }
        }
        System::ApalisPostgres => {
            let mut storage = apalis_storage(&pool);
            for chunk in chunks(jobs) {
                let tasks = chunk.map(|n| Nothing { n }).collect();
                storage.push_bulk(tasks).await.context("push tasks")?;
            }
        }
    }
    pool.close().await;
    Ok(())
}

/// Ours are enqueued by SQL, as another service would do it for many jobs.
async fn enqueue_ours(pool: &PgPool, kind: &str, jobs: u64) -> Result<()> {
    for chunk in chunks(jobs) {
        sqlx::query(
            "SELECT tallylight.enqueue_many(jsonb_agg(jsonb_build_object(
                      'kind', $1::text, 'args', jsonb_build_object('n', n))))
               FROM generate_series($2::bigint, $3::bigint) AS n",
        )
        .bind(kind)
        .bind(i64::try_from(chunk.start)?)
        .bind(i64::try_from(chunk.end)? - 1)
        .execute(pool)
        .await
        .context("enqueue jobs")?;
    }
    Ok(())
}

fn chunks(jobs: u64) -> impl Iterator<Item = std::ops::Range<u64>> {
    (0..jobs).step_by(usize::try_from(CHUNK).unwrap_or(1)).map(move |at| at..(at + CHUNK).min(jobs))
}

fn spec(n: u64) -> RawJobSpec {
    RawJobSpec {
        identifier: Nothing::IDENTIFIER.to_owned(),
        payload: serde_json::json!({ "n": n }),
        spec: JobSpec::default(),
    }
}

fn utils(pool: &PgPool) -> WorkerUtils {
    WorkerUtils::new(pool.clone(), "graphile_worker")
}

fn apalis_storage(pool: &PgPool) -> PostgresStorage<Nothing> {
    let config = apalis_postgres::Config::default().queue("bench").batch_size(2_000);
    PostgresStorage::new(pool).with_config(config)
}

async fn pool(url: &str) -> Result<PgPool> {
    let options = PgPoolOptions::new().max_connections(CONNECTIONS);
    options.connect(url).await.context("connect to the cluster")
}

/// Drains a backlog, and tells how long it took.
pub(crate) fn run(options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let seconds = runtime.block_on(async {
        match options.system {
            System::Ours | System::Unmarked | System::Outcomes => ours(options).await,
            System::Graphile => graphile(options).await,
            System::ApalisPostgres => apalis(options).await,
        }
    })?;
    finish(&Drained { seconds })
}

/// Waits until all jobs have run, then until no row is left open.
async fn drained(pool: &PgPool, options: &Options, count: &Count) -> Result<f64> {
    let begun = Instant::now();
    let (mut last, mut moved) = (0, Instant::now());
    while count.so_far() < options.jobs {
        tokio::time::sleep(LOOK).await;
        if count.so_far() > last {
            (last, moved) = (count.so_far(), Instant::now());
        } else if moved.elapsed() > PATIENCE {
            bail!("{last} of {} jobs ran, and no more", options.jobs);
        }
    }
    loop {
        let open: i64 = sqlx::query_scalar(options.system.open()).fetch_one(pool).await?;
        if open == 0 {
            return Ok(begun.elapsed().as_secs_f64());
        }
        if moved.elapsed() > PATIENCE {
            bail!("{open} jobs ran and are not completed");
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn graphile(options: &Options) -> Result<f64> {
    let (pool, count) = (pool(&options.database_url).await?, Count::default());
    let worker = WorkerOptions::default()
        .pg_pool(pool.clone())
        .schema("graphile_worker")
        .concurrency(500)
        .poll_interval(LOOK)
        .complete_job_batch_delay(LOOK)
        .local_queue(LocalQueueConfig::default().with_size(5_000))
        .add_extension(count.clone())
        .define_job::<Nothing>()
        .init()
        .await
        .context("start graphile_worker")?;
    let worker = Arc::new(worker);
    let running = tokio::spawn({
        let worker = Arc::clone(&worker);
        async move { worker.run().await }
    });
    let seconds = drained(&pool, options, &count).await?;
    worker.request_shutdown();
    running.await.context("wait for graphile_worker")?.context("run graphile_worker")?;
    Ok(seconds)
}

async fn apalis(options: &Options) -> Result<f64> {
    let (pool, count) = (pool(&options.database_url).await?, Count::default());
    let worker = WorkerBuilder::new(format!("bench-{}", Uuid::now_v7()))
        .backend(apalis_storage(&pool))
        .data(count.clone())
        .concurrency(1_000)
        .build(|_: Nothing, count: Data<Count>| async move {
            count.one();
            Ok::<(), BoxDynError>(())
        });
    // Boxed, so that its errors' lifetime is named.
    let run: BoxFuture<'static, Result<(), _>> = Box::pin(worker.run());
    let running = tokio::spawn(run);
    let seconds = drained(&pool, options, &count).await?;
    running.abort();
    Ok(seconds)
}

async fn ours(options: &Options) -> Result<f64> {
    let config = store::Config {
        max_connections: CONNECTIONS,
        ..store::Config::new(&*options.database_url)
    };
    let store = Store::connect(&config).await.context("connect to the cluster")?;
    let count = Count::default();
    let script = Arc::new(Handlers { count: count.clone() });
    let config =
        worker::Config { concurrency: 4_000, verify_every: None, ..worker::Config::default() };
    let context = worker::Context::scripted(store, config, Uuid::now_v7(), script);
    let pool = pool(&options.database_url).await?;
    let worker = worker::Worker::start(context);
    let seconds = drained(&pool, options, &count).await?;
    worker.shutdown().await;
    Ok(seconds)
}

/// Handlers of our kinds.
struct Handlers {
    count: Count,
}

impl fmt::Debug for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handlers")
    }
}

impl Script for Handlers {
    fn knows(&self, kind: &str) -> bool {
        kind.starts_with("bench_")
    }

    fn is_marked(&self, kind: &str) -> bool {
        kind != "bench_unmarked"
    }

    fn run(&self, run: Run) -> BoxFuture<'static, Result<Done, JobError>> {
        self.count.one();
        let is_told = run.kind == "bench_outcome";
        Box::pin(async move {
            let Ok(Nothing { n }) = serde_json::from_value(run.args) else {
                return Err(JobError::Fail { reason: "no number".to_owned() });
            };
            Ok(if is_told { Done::Value(n.into()) } else { Done::Quiet })
        })
    }
}
