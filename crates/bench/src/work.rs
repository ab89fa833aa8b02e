//! A worker of a system in a process of its own, until it is told to stop. It says when it works, and
//! of every handler's start, if it is asked to, when that was.
//!
//! The time is that of the machine's monotonic clock, which all processes share.

use std::io::Write as _;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::engines::{self, Fetch, Work};
use crate::jobs::System;

/// Longest wait for a process, and for a line of it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Options of the process.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Whose worker it is
    #[arg(long, value_enum)]
    system: System,
    /// How many handlers run at once
    #[arg(long)]
    concurrency: usize,
    /// How long each handler waits, in milliseconds
    #[arg(long)]
    wait_ms: u64,
    /// Tell of every start
    #[arg(long)]
    tell: bool,
    /// The database
    #[arg(long, env = "BENCH_DATABASE_URL", hide_env_values = true)]
    database_url: String,
}

/// A line of the process.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Started {
    /// The job's number; the first line has 0 and means that the worker is up.
    pub(crate) n: u64,
    /// When, by [`now`].
    pub(crate) at: u64,
}

/// Nanoseconds of the machine's monotonic clock.
pub(crate) fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or_default()
}

/// Works until its standard input ends: then whoever started it has ended or wants it to.
pub(crate) fn run(options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).context("hear SIGINT")?;
        let engine = start(options).await?;
        say(Started { n: 0, at: now() });
        tokio::select! {
            () = end_of_input() => {}
            _ = interrupt.recv() => {}
        }
        engine.stop().await
    })
}

async fn start(options: &Options) -> Result<engines::Engine> {
    let tell = options.tell;
    let begun = Arc::new(move |n| {
        if tell {
            say(Started { n, at: now() });
        }
    });
    let work = Work { begun, wait: Duration::from_millis(options.wait_ms) };
    let (url, concurrency) = (&options.database_url, options.concurrency);
    match options.system {
        System::Ours | System::Unmarked | System::Outcomes => {
            engines::ours(url, concurrency, work).await
        }
        System::Graphile => {
            let pool = engines::pool(url).await?;
            engines::graphile(&pool, concurrency, Fetch::Directly, work).await
        }
        System::ApalisPostgres => {
            Ok(engines::apalis(&engines::pool(url).await?, concurrency, work))
        }
    }
}

/// Ends with the standard input. On a thread of its own, which ends with the process.
async fn end_of_input() {
    let (ended, hears) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        // An error is an end too.
        let _ = std::io::stdin().read_line(&mut String::new());
        drop(ended);
    });
    let _ = hears.await;
}

/// Writes a line at once.
fn say(started: Started) {
    let Ok(mut line) = serde_json::to_string(&started) else { return };
    line.push('\n');
    let mut out = std::io::stdout().lock();
    // Nobody to tell: the process is about to end.
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
}

/// A process of this kind, as whoever started it has it. Killed when dropped.
pub(crate) struct Process {
    child: Child,
    input: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts one, and waits until its worker is up.
    pub(crate) async fn start(
        url: &str,
        system: System,
        (concurrency, wait): (usize, Duration),
        tell: bool,
    ) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe().context("find this program")?);
        command
            .args(["work", "--system", system.name()])
            .args(["--concurrency", &concurrency.to_string()])
            .args(["--wait-ms", &wait.as_millis().to_string()])
            .args(tell.then_some("--tell"))
            // Not among the arguments, where every user of the machine sees it.
            .env("BENCH_DATABASE_URL", url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().context("start a worker")?;
        let output = child.stdout.take().context("hear a worker")?;
        let input = child.stdin.take();
        let mut process = Self { child, input, lines: BufReader::new(output).lines() };
        process.next().await?;
        Ok(process)
    }

    /// Waits for its next line.
    pub(crate) async fn next(&mut self) -> Result<Started> {
        match timeout(PATIENCE, self.lines.next_line()).await {
            Ok(Ok(Some(line))) => serde_json::from_str(&line).context("read a worker's line"),
            Ok(_) => bail!("a worker ended by itself"),
            Err(_) => bail!("a worker says nothing for {} s", PATIENCE.as_secs()),
        }
    }

    /// Stops it, and waits until it has.
    pub(crate) async fn stop(mut self) -> Result<()> {
        drop(self.input.take());
        let ended = timeout(PATIENCE, self.child.wait()).await.context("a worker does not stop")?;
        let status = ended.context("wait for a worker")?;
        if !status.success() {
            bail!("a worker ended with {status}");
        }
        Ok(())
    }
}
