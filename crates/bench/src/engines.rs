//! The engines that are measured, each with its worker and its way to enqueue: ours, and two others in
//! Rust in the fastest settings that they document.
//!
//! Every handler does the same [`Work`]. Not its job: what is measured of them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
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
use tokio::task::JoinHandle;
use uuid::Uuid;
use worker::jobs::{Done, JobError};
use worker::testing::{Run, Script};

/// Connections of a process: each engine has as many.
const CONNECTIONS: u32 = 8;

/// How often peers look for jobs that they were not told of, and how long they collect completions.
const PEERS_LOOK: Duration = Duration::from_millis(5);

/// Jobs that are enqueued in one call.
const CHUNK: u64 = 5_000;

/// The kind of our jobs whose start is marked, as that of most kinds is.
pub(crate) const MARKED: &str = "bench_marked";

/// A kind that is cheap to repeat: its start is not marked.
pub(crate) const UNMARKED: &str = "bench_unmarked";

/// A kind whose jobs leave an outcome event.
pub(crate) const OUTCOME: &str = "bench_outcome";

/// A handler's argument: the number of its job.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Numbered {
    n: u64,
}

/// What every handler does.
#[derive(Clone)]
pub(crate) struct Work {
    /// Told the job's number when its handler starts.
    pub(crate) begun: Arc<dyn Fn(u64) + Send + Sync>,
    /// Waited then.
    pub(crate) wait: Duration,
}

impl Work {
    async fn run(self, n: u64) {
        (self.begun)(n);
        if !self.wait.is_zero() {
            tokio::time::sleep(self.wait).await;
        }
    }
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work").field("wait", &self.wait).finish_non_exhaustive()
    }
}

/// A worker that runs; it ends with [`Engine::stop`], or with its process.
pub(crate) enum Engine {
    /// Ours.
    Ours(worker::Worker),
    /// `graphile_worker`.
    Graphile(Arc<graphile_worker::Worker>, JoinHandle<Result<()>>),
    /// `apalis-postgres`, which has no way to stop and store what it holds.
    Apalis(JoinHandle<()>),
}

impl Engine {
    /// Stops it.
    pub(crate) async fn stop(self) -> Result<()> {
        match self {
            Self::Ours(worker) => worker.shutdown().await,
            Self::Graphile(worker, running) => {
                worker.request_shutdown();
                running.await.context("wait for graphile_worker")??;
            }
            Self::Apalis(running) => running.abort(),
        }
        Ok(())
    }
}

/// A pool of as many connections as every engine has.
pub(crate) async fn pool(url: &str) -> Result<PgPool> {
    let options = PgPoolOptions::new().max_connections(CONNECTIONS);
    options.connect(url).await.context("connect to the cluster")
}

/// Makes what the peers need in the database.
pub(crate) async fn set_up_peers(url: &str) -> Result<()> {
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

/// Starts ours, with `concurrency` jobs at once.
pub(crate) async fn ours(url: &str, concurrency: usize, work: Work) -> Result<Engine> {
    let config = store::Config { max_connections: CONNECTIONS, ..store::Config::new(url) };
    let store = Store::connect(&config).await.context("connect to the cluster")?;
    let config = worker::Config { concurrency, verify_every: None, ..worker::Config::default() };
    let context =
        worker::Context::scripted(store, config, Uuid::now_v7(), Arc::new(Handlers { work }));
    Ok(Engine::Ours(worker::Worker::start(context)))
}

/// How `graphile_worker` gets its jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fetch {
    /// Thousands at once into a queue of its own, completions in batches: most jobs a second.
    Ahead,
    /// One by one, when told of them: the shortest way from a commit to a handler.
    Directly,
}

/// Starts `graphile_worker`, with `concurrency` jobs at once.
pub(crate) async fn graphile(
    pool: &PgPool,
    concurrency: usize,
    fetch: Fetch,
    work: Work,
) -> Result<Engine> {
    let options = WorkerOptions::default()
        .pg_pool(pool.clone())
        .schema("graphile_worker")
        .concurrency(concurrency)
        .poll_interval(PEERS_LOOK)
        .add_extension(work)
        .define_job::<Numbered>();
    let options = match fetch {
        Fetch::Directly => options,
        Fetch::Ahead => options
            .complete_job_batch_delay(PEERS_LOOK)
            .local_queue(LocalQueueConfig::default().with_size(5_000)),
    };
    let worker = Arc::new(options.init().await.context("start graphile_worker")?);
    let running = tokio::spawn({
        let worker = Arc::clone(&worker);
        async move { worker.run().await.context("run graphile_worker") }
    });
    Ok(Engine::Graphile(worker, running))
}

/// Starts `apalis-postgres`, with `concurrency` jobs at once.
pub(crate) fn apalis(pool: &PgPool, concurrency: usize, work: Work) -> Engine {
    let worker = WorkerBuilder::new(format!("bench-{}", Uuid::now_v7()))
        .backend(apalis_storage(pool))
        .data(work)
        .concurrency(concurrency)
        .build(|job: Numbered, work: Data<Work>| async move {
            (*work).clone().run(job.n).await;
            Ok::<(), BoxDynError>(())
        });
    // Boxed, so that its errors' lifetime is named.
    let run: BoxFuture<'static, Result<(), _>> = Box::pin(worker.run());
    Engine::Apalis(tokio::spawn(async move {
        // It ends by an error of the database; then no job is done any more, which is seen.
        let _ = run.await;
    }))
}

/// Enqueues ours by SQL, as another service would do it for many jobs.
pub(crate) async fn enqueue_ours(pool: &PgPool, kind: &str, jobs: u64) -> Result<()> {
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

/// Enqueues in `graphile_worker`.
pub(crate) async fn enqueue_graphile(pool: &PgPool, jobs: u64) -> Result<()> {
    for chunk in chunks(jobs) {
        let specs: Vec<RawJobSpec> = chunk.map(spec).collect();
        utils(pool).add_raw_jobs(&specs).await.context("add jobs")?;
    }
    Ok(())
}

/// Enqueues in `apalis-postgres`.
pub(crate) async fn enqueue_apalis(pool: &PgPool, jobs: u64) -> Result<()> {
    let mut storage = apalis_storage(pool);
    for chunk in chunks(jobs) {
        let tasks = chunk.map(|n| Numbered { n }).collect();
        storage.push_bulk(tasks).await.context("push tasks")?;
    }
    Ok(())
}

fn chunks(jobs: u64) -> impl Iterator<Item = std::ops::Range<u64>> {
    (0..jobs).step_by(usize::try_from(CHUNK).unwrap_or(1)).map(move |at| at..(at + CHUNK).min(jobs))
}

fn spec(n: u64) -> RawJobSpec {
    RawJobSpec {
        identifier: Numbered::IDENTIFIER.to_owned(),
        payload: serde_json::json!({ "n": n }),
        spec: JobSpec::default(),
    }
}

fn utils(pool: &PgPool) -> WorkerUtils {
    WorkerUtils::new(pool.clone(), "graphile_worker")
}

fn apalis_storage(pool: &PgPool) -> PostgresStorage<Numbered> {
    let config = apalis_postgres::Config::default().queue("bench").batch_size(2_000);
    PostgresStorage::new(pool).with_config(config)
}

impl TaskHandler for Numbered {
    const IDENTIFIER: &'static str = "bench_nothing";

    async fn run(self, ctx: WorkerContext) -> impl IntoTaskHandlerResult {
        if let Some(work) = ctx.get_ext::<Work>() {
            work.clone().run(self.n).await;
        }
        Ok::<(), String>(())
    }
}

/// Handlers of our kinds.
#[derive(Debug)]
struct Handlers {
    work: Work,
}

impl Script for Handlers {
    fn knows(&self, kind: &str) -> bool {
        [MARKED, UNMARKED, OUTCOME].contains(&kind)
    }

    fn is_marked(&self, kind: &str) -> bool {
        kind != UNMARKED
    }

    fn run(&self, run: Run) -> BoxFuture<'static, Result<Done, JobError>> {
        let work = self.work.clone();
        let is_told = run.kind == OUTCOME;
        Box::pin(async move {
            let Ok(Numbered { n }) = serde_json::from_value(run.args) else {
                return Err(JobError::Fail { reason: "no number".to_owned() });
            };
            work.run(n).await;
            Ok(if is_told { Done::Value(n.into()) } else { Done::Quiet })
        })
    }
}
