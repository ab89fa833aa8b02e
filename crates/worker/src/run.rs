//! The life of a worker process: start the loops, watch them, stop in order.

use store::Hint;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::engine::{Ahead, Doubts, Engine, Finisher, Marks, Oversight, Starter};
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
    let cut = CancellationToken::new();
    if let Err(error) = jobs::schedule(&ctx).await {
        tracing::warn!(error = %chain(&error), "recurring jobs not scheduled");
    }

    let mut loops = JoinSet::new();
    loops.spawn({
        let (ctx, leases, stop) = (ctx.clone(), leases.clone(), stop.clone());
        async move { react::run(&ctx, &leases, stop).await }
    });
    let parts = (ctx.clone(), leases.clone(), running.clone());
    spawn_engine(&mut loops, parts, stop.clone(), cut.clone());
    let drained = CancellationToken::new();
    let keeper = Keeper { ctx, leases, running, stop, drained };
    let Keeper { ctx, leases, stop, drained, .. } = keeper.clone();
    let mut keeper = tokio::spawn(keeper.run_beside());
    loops.spawn({
        let (ctx, leases, stop) = (ctx.clone(), leases.clone(), stop.clone());
        async move { schedules::run(&ctx, &leases, stop).await }
    });
    let listener = tokio::spawn(listen(ctx.clone(), stop.clone()));
    let counting = tokio::spawn(gauges::run(ctx.clone(), leases.clone()));

    // A loop that ends before it was told to has died: the process must not go on half alive.
    tokio::select! {
        // First: told to stop, the loops end at once.
        biased;
        () = stop.cancelled() => {}
        _ = loops.join_next() => tracing::error!("a loop of the worker died, stopping"),
        _ = &mut keeper => tracing::error!("the keeper of the leases died, stopping"),
    }
    stop.cancel();
    drain(&ctx, &cut, &mut loops).await;
    listener.abort();
    counting.abort();
    drained.cancel();
    if !keeper.is_finished() {
        let _ = keeper.await;
    }
}

/// Spawns what chooses jobs, what starts them, what runs their handlers, and what stores their ends.
fn spawn_engine(
    loops: &mut JoinSet<()>,
    (ctx, leases, running): (Context, Leases, RunningJobs),
    stop: CancellationToken,
    cut: CancellationToken,
) {
    let (claimed_tx, claimed_rx) = mpsc::channel(ctx.config().concurrency);
    let (ended_tx, ended_rx) = mpsc::unbounded_channel();
    let (freed_tx, freed_rx) = mpsc::unbounded_channel();
    let (to_mark, chosen) = mpsc::unbounded_channel();
    let (doubts, marks) = (Doubts::default(), Marks::default());
    let started = CancellationToken::new();
    loops.spawn({
        let (ctx, running) = (ctx.clone(), running.clone());
        async move {
            if let Err(error) = execution::run(ctx, running, claimed_rx, ended_tx).await {
                tracing::error!(error = %chain(&error), "the job handlers ended");
            }
        }
    });
    let engine = Engine {
        ctx: ctx.clone(),
        leases: leases.clone(),
        running: running.clone(),
        jobs: claimed_tx.clone(),
        to_mark,
        freed: freed_rx,
        doubts: doubts.clone(),
        marks: marks.clone(),
        lanes: crate::engine::Lanes::default(),
        ahead: Ahead::default(),
        oversight: Oversight::default(),
    };
    let starts = Starter {
        ctx: ctx.clone(),
        leases: leases.clone(),
        running: running.clone(),
        chosen,
        jobs: claimed_tx,
        doubts,
        marks,
        freed: freed_tx.clone(),
    };
    // With the engine ends what it chose, and with the starter, however that comes, all starts.
    loops.spawn(engine.run(stop.clone()));
    let nothing_more = started.clone().drop_guard();
    loops.spawn(async move {
        let _nothing_more = nothing_more;
        starts.run(stop).await;
    });
    let finisher =
        Finisher { ctx, leases, running, ended: ended_rx, freed: freed_tx, owed: Vec::new() };
    loops.spawn(finisher.run(started, cut));
}

/// Keeps the leases, cancels the handlers whose lease could not be kept, and releases what is left.
///
/// On a thread of its own: a handler that blocks its thread instead of waiting takes one of the
/// runtime's few, and some of them would take all, and every slice from a process that lives.
#[derive(Clone)]
struct Keeper {
    ctx: Context,
    leases: Leases,
    running: RunningJobs,
    stop: CancellationToken,
    /// Nothing runs any more that needs a lease.
    drained: CancellationToken,
}

impl Keeper {
    /// Keeps them beside the present runtime; in it where that has one thread only, whose time may
    /// be a test's.
    async fn run_beside(self) {
        if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
            return self.run().await;
        }
        let (mut ended, end) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("leases".to_owned()).spawn(move || {
            let keeping = async {
                tokio::select! {
                    () = self.run() => {}
                    // Those it keeps them for have gone without a word.
                    () = ended.closed() => {}
                }
            };
            match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime.block_on(keeping),
                Err(error) => tracing::error!(%error, "no runtime for the leases"),
            }
        });
        if let Err(error) = thread {
            tracing::error!(%error, "no thread for the leases");
        }
        // Never sent: it ends with the thread.
        let _ = end.await;
    }

    async fn run(self) {
        let Self { ctx, leases, running, stop, drained } = self;
        let keeping = async {
            leases::keep(&ctx, &leases, |slice| running.is_busy(slice), stop).await;
            // Handlers may still run, within the grace.
            leases::renew_only(&ctx, &leases).await;
        };
        tokio::select! {
            // In this order, so that a simulation can be repeated.
            biased;
            () = drained.cancelled() => {}
            () = keeping => {}
            () = self_fence(&ctx, &leases, &running) => {}
        }
        leases::release_all(&ctx, &leases).await;
    }
}

/// Waits for the loops while leases are still renewed; cuts handlers off after the grace.
async fn drain(ctx: &Context, cut: &CancellationToken, loops: &mut JoinSet<()>) {
    let all = async { while loops.join_next().await.is_some() {} };
    tokio::pin!(all);
    if tokio::time::timeout(ctx.config().grace, &mut all).await.is_err() {
        tracing::warn!("handlers still run after the grace; they are cancelled and given back");
        cut.cancel();
        all.await;
    }
}

/// Cancels handlers whose lease could not be renewed, before it ends in the database. On its own,
/// because the other loops may be waiting for that very database.
async fn self_fence(ctx: &Context, leases: &Leases, running: &RunningJobs) {
    let mut due = tokio::time::interval(ctx.config().lease / 20);
    loop {
        due.tick().await;
        running.abort_lost(leases);
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
