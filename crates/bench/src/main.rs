//! `bench`: the real binary beside a floor, in one run, on a cluster that the run makes for itself.
//!
//! A *floor* is what plain PostgreSQL does for the same bytes on the same cluster: a number from one
//! machine says little, its ratio to the floor says what our design costs or gains. Floor and ours
//! take turns, and medians of the turns are told. Every turn ends by checking what was stored. Not
//! its job: deciding whether a figure is good; nothing here fails because it was slow.

mod backlog;
mod cluster;
mod consume;
mod drain;
mod engines;
mod floor;
mod generator;
mod growth;
mod ingest;
mod ingest_batch;
mod jobs;
mod load;
mod log;
mod machine;
mod pickup;
mod processes;
mod reaction;
mod replay;
mod report;
mod scaling;
mod sender;
mod truth;
mod work;

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::processes::Home;

/// Measures the event log beside what plain PostgreSQL does.
#[derive(Debug, Parser)]
#[command(name = "bench", version)]
struct Cli {
    /// What to measure
    #[command(subcommand)]
    command: Command,
    /// Fewer events and shorter turns, to look while tuning
    #[arg(long, global = true)]
    quick: bool,
}

/// What can be measured.
#[derive(Debug, Subcommand)]
enum Command {
    /// Webhooks over HTTP until durable, beside one-row INSERTs of pgbench
    Ingest,
    /// Batches of webhooks over HTTP until durable, beside plain calls of `append`
    IngestBatch,
    /// A rebuild of all projections, beside COPY to a client
    Replay,
    /// A backlog drained by one worker, then the time from append to checkpoint
    Consume,
    /// Ingest, consume and rebuild on a large log, beside a small one
    Growth,
    /// A backlog of jobs that do nothing, drained by one process, beside other engines
    Jobs,
    /// One job at a time to an idle queue, from its commit to its handler, beside another engine
    Pickup,
    /// Jobs that wait, in one process and in four
    Scaling,
    /// Jobs a second while a million wait, beside a thousand that wait
    Backlog,
    /// From a webhook sent to the platform call that follows from it
    Reaction,
    /// Whole sessions on a platform that misbehaves, beside what really happened on it
    Truth(truth::Options),
    /// All of speed, one after the other
    All,
    /// Sends webhooks; a process of its own for `ingest`
    #[command(hide = true)]
    Load(load::Options),
    /// Drains a backlog of jobs; a process of its own for `jobs`
    #[command(hide = true)]
    Drain(drain::Options),
    /// Works until it is told to stop; a process of its own for `pickup` and `scaling`
    #[command(hide = true)]
    Work(work::Options),
    /// Works while a backlog keeps its length; a process of its own for `backlog`
    #[command(hide = true)]
    Hold(backlog::Options),
}

/// As the product has it; all that is compared in this process has it too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        // The generator shares the machine with what it measures: one thread, nothing else.
        Command::Load(options) => load::run(&options),
        Command::Drain(options) => drain::run(&options),
        Command::Work(options) => work::run(&options),
        Command::Hold(options) => backlog::hold(&options),
        command @ (Command::Ingest
        | Command::IngestBatch
        | Command::Replay
        | Command::Consume
        | Command::Growth
        | Command::Jobs
        | Command::Pickup
        | Command::Scaling
        | Command::Backlog
        | Command::Reaction
        | Command::Truth(_)
        | Command::All) => measure(&command, cli.quick),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// Runs a measurement until its end or until somebody stops it. Either way all that it has started
/// ends and what it wrote is deleted: both hang on values that are dropped.
fn measure(command: &Command, quick: bool) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).context("hear SIGINT")?;
        let mut terminate = signal(SignalKind::terminate()).context("hear SIGTERM")?;
        tokio::select! {
            done = run(command, quick) => done,
            _ = interrupt.recv() => bail!("interrupted"),
            _ = terminate.recv() => bail!("terminated"),
        }
    })
}

async fn run(command: &Command, quick: bool) -> Result<()> {
    if let Command::Truth(options) = command {
        let home = Home::prepare_alike(quick).await?;
        return truth::run(&home, options).await;
    }
    let home = Home::prepare(quick).await?;
    match command {
        Command::Ingest => ingest::run(&home).await,
        Command::IngestBatch => ingest_batch::run(&home).await,
        Command::Replay => replay::run(&home).await,
        Command::Consume => consume::run(&home).await,
        Command::Growth => growth::run(&home).await,
        Command::Jobs => jobs::run(&home).await,
        Command::Pickup => pickup::run(&home).await,
        Command::Scaling => scaling::run(&home).await,
        Command::Backlog => backlog::run(&home).await,
        Command::Reaction => reaction::run(&home).await,
        Command::All => {
            ingest::run(&home).await?;
            ingest_batch::run(&home).await?;
            replay::run(&home).await?;
            consume::run(&home).await?;
            growth::run(&home).await?;
            jobs::run(&home).await?;
            pickup::run(&home).await?;
            scaling::run(&home).await?;
            backlog::run(&home).await?;
            reaction::run(&home).await
        }
        Command::Truth(_)
        | Command::Load(_)
        | Command::Drain(_)
        | Command::Work(_)
        | Command::Hold(_) => bail!("a process of its own"),
    }
}
