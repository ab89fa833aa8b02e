//! The life of a worker process: start the loops, watch them, stop in order.

use store::Hint;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::engine::{Engine, Oversight};
use crate::leases::{self, Leases, chain};
use crate::running::RunningJobs;
use crate::{execution, gauges, jobs, react, schedules};

/// A running worker.
#[derive(Debug)]
pub struct Worker {
    ctx: Context,
    stop: CancellationToken,
    task: tokio_util::task::TaskTracker,
}

impl Worker {
    /// Starts a worker on the current runtime.
    pub fn start(ctx: Context) -> Self {
        let stop = CancellationToken::new();
        let task = tokio_util::task::TaskTracker::new();
        task.spawn(run(ctx.clone(), stop.clone()));
        task.close();
        Self { ctx, stop, task }
    }

    /// What its handlers and loops share: its numbers, its health.
    pub fn context(&self) -> &Context {
        &self.ctx
    }

    /// Stops: claims nothing more, lets handlers end within the grace, gives the rest back, and
    /// releases the leases, so that other processes take over at once.
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.task.wait().await;
    }

    /// Waits until the worker ends by itself, which it does only when a loop of it has died.
    pub async fn ended(&self) {
        self.task.wait().await;
    }
}

/// Runs all loops until `stop`.
async fn run(ctx: Context, stop: CancellationToken) {
    let leases = Leases::default();
    let running = RunningJobs::default();
    let (claimed_tx, claimed_rx) = mpsc::channel(ctx.config().concurrency);
    let (ended_tx, ended_rx) = mpsc::unbounded_channel();
    let cut = CancellationToken::new();

    if let Err(error) = jobs::schedule(&ctx).await {
        tracing::warn!(error = %chain(&error), "recurring jobs not scheduled");
    }

    let mut loops = JoinSet::new();
    loops.spawn({
        let (ctx, running) = (ctx.clone(), running.clone());
        async move {
            if let Err(error) = execution::run(ctx, running, claimed_rx, ended_tx).await {
                tracing::error!(error = %chain(&error), "the job handlers ended");
            }
        }
    });
    loops.spawn({
        let (ctx, leases, stop) = (ctx.clone(), leases.clone(), stop.clone());
        async move { react::run(&ctx, &leases, stop).await }
    });
    loops.spawn({
        let engine = Engine {
            ctx: ctx.clone(),
            leases: leases.clone(),
            running: running.clone(),
            jobs: claimed_tx,
            ended: ended_rx,
            owed: Vec::new(),
            doubts: Vec::new(),
            lanes: crate::engine::Lanes::default(),
            oversight: Oversight::default(),
        };
        engine.run(stop.clone(), cut.clone())
    });
    loops.spawn({
        let (ctx, leases, running, stop) =
            (ctx.clone(), leases.clone(), running.clone(), stop.clone());
        async move { leases::keep(&ctx, &leases, |slice| running.is_busy(slice), stop).await }
    });
    loops.spawn({
        let (ctx, leases, stop) = (ctx.clone(), leases.clone(), stop.clone());
        async move { schedules::run(&ctx, &leases, stop).await }
    });
    let listener = tokio::spawn(listen(ctx.clone(), stop.clone()));
    let counting = tokio::spawn(gauges::run(ctx.clone(), leases.clone()));
    let fence = tokio::spawn(self_fence(ctx.clone(), leases.clone(), running.clone()));

    // A loop that ends before it was told to has died: the process must not go on half alive.
    tokio::select! {
        // First: told to stop, the loops end at once.
        biased;
        () = stop.cancelled() => {}
        _ = loops.join_next() => tracing::error!("a loop of the worker died, stopping"),
    }
    stop.cancel();
    drain(&ctx, &leases, &cut, &mut loops).await;
    listener.abort();
    counting.abort();
    fence.abort();
    leases::release_all(&ctx, &leases).await;
}

/// Waits for the loops while leases are still renewed; cuts handlers off after the grace.
async fn drain(ctx: &Context, leases: &Leases, cut: &CancellationToken, loops: &mut JoinSet<()>) {
    let (renew_ctx, renew_leases) = (ctx.clone(), leases.clone());
    let renewing = tokio::spawn(async move { leases::renew_only(&renew_ctx, &renew_leases).await });
    let all = async { while loops.join_next().await.is_some() {} };
    tokio::pin!(all);
    if tokio::time::timeout(ctx.config().grace, &mut all).await.is_err() {
        tracing::warn!("handlers still run after the grace; they are cancelled and given back");
        cut.cancel();
        all.await;
    }
    renewing.abort();
}

/// Cancels handlers whose lease could not be renewed, before it ends in the database. On its own,
/// because the other loops may be waiting for that very database.
async fn self_fence(ctx: Context, leases: Leases, running: RunningJobs) {
    let mut due = tokio::time::interval(ctx.config().lease / 20);
    loop {
        due.tick().await;
        running.abort_lost(&leases);
    }
}

/// Passes hints of other processes on. Without them, polling finds everything a little later.
async fn listen(ctx: Context, stop: CancellationToken) {
    while !stop.is_cancelled() {
        match ctx.store().listen().await {
            Ok(mut wakes) => {
                // What was told before is not heard again.
                ctx.hint(&Hint::Everything);
                while let Ok(hint) = wakes.recv().await {
                    ctx.hint(&hint);
                }
            }
            Err(error) => tracing::debug!(error = %chain(&error), "not listening; polling goes on"),
        }
        tokio::time::sleep(ctx.config().poll).await;
    }
}
