//! `truth`: whole sessions on a platform that misbehaves, compared with what really happened on it.
//!
//! Real processes: ingest, API, three workers of which one is killed every few seconds, and the
//! simulated platform with encoders that play plans. All time is scaled by one factor, the platform's
//! and that of our waits; what the network takes, and the pauses between tries of a call, are not.
//! Encoders, faults and kills follow from the seed. Not its job: speed.

mod drive;
mod http;
mod judge;
mod report;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use chrono::TimeDelta;
use clap::Args;
use serde_json::{Value, json};
use store::Store;

use self::drive::Drive;
use self::http::Server;
use self::judge::judge;
use self::report::Report;
use crate::generator::dice::draw;
use crate::processes::{Home, Installation, PATH_TOKEN, Role, SOURCE};
use crate::report::{note, say};

/// Worker processes.
const WORKERS: usize = 3;

/// The token of our API.
const API_TOKEN: &str = "truth-0123456789abcdef";

/// The platform's token.
const PLATFORM_TOKEN: &str = "1_truth";

/// Most sessions of a quick run.
const QUICK: usize = 20;

/// How often sessions and encoders are looked at.
const LOOK: Duration = Duration::from_millis(250);

/// How often the progress is told.
const TELL: Duration = Duration::from_secs(20);

/// A session that is not over after so much of the platform's time after its end was commanded is
/// stuck: longer than three polls at their slowest.
const PATIENCE_S: f64 = 45.0 * 60.0;

/// What is left to settle after the last session: videos' last webhooks and polls, in the platform's
/// time.
const SETTLE_S: f64 = 240.0;

/// Seconds for which encoders send, at least and at most, with up to three incidents: short for a
/// show, so that beginnings, drops and ends are much of it.
const LENGTH_S: [u32; 2] = [600, 1800];

/// What to run.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Sessions
    #[arg(long, default_value_t = 1000)]
    sessions: usize,
    /// Seed of encoders, faults and kills
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many times faster than real time
    #[arg(long, default_value_t = 30.0)]
    scale: f64,
    /// Sessions at once
    #[arg(long, default_value_t = 40)]
    at_once: usize,
    /// Share of webhooks that are lost
    #[arg(long, default_value_t = 0.3)]
    lose: f64,
    /// Share of webhooks that are sent twice
    #[arg(long, default_value_t = 0.1)]
    repeat: f64,
    /// Share of webhooks that are overtaken
    #[arg(long, default_value_t = 0.2)]
    reorder: f64,
    /// Share of API calls that fail, half of them after their effect
    #[arg(long, default_value_t = 0.1)]
    fail: f64,
    /// A worker is killed every so many seconds; 0: never
    #[arg(long, default_value_t = 4.0)]
    kill_every: f64,
    /// What platform and people do by themselves, as `tallylight simulator --mishap` takes it
    #[arg(long)]
    mishap: Vec<String>,
}

impl Options {
    /// Real time of some of the platform's.
    fn real(&self, seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds / self.scale)
    }

    /// Slots of the account: a few sessions wait for theirs.
    fn quota(&self) -> usize {
        (self.at_once * 9 / 10).max(1)
    }
}

/// Runs, compares, tells.
pub(crate) async fn run(home: &Home, options: &Options) -> Result<()> {
    let sessions = if home.quick { options.sessions.min(QUICK) } else { options.sessions };
    let options = &Options { sessions, ..options.clone() };
    let port = free_port()?;
    let platform = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let text = |database: &str, spool: &Path| config(options, database, spool, platform);
    let installation = home.installation_of(text).await?;
    installation.say_header(&headline(options));
    let mut system = System::start(&installation, options, platform).await?;
    let mut drive = system.drive(options);
    let begun = Instant::now();
    play(&mut system, &mut drive, options).await?;
    let stuck = drive.stuck();
    note(format!("{} sessions in {:.0} s, settling", drive.over(), begun.elapsed().as_secs_f64()));
    tokio::time::sleep(options.real(SETTLE_S)).await;
    compare(&system, &drive, options, stuck).await
}

/// What is measured.
fn headline(options: &Options) -> String {
    let percent = |share: f64| format!("{:.0} %", share * 100.0);
    format!(
        "truth: {} sessions, {} at once, seed {}, time {} times faster than real; of webhooks {} lost, \
         {} repeated, {} overtaken; {} of calls failing, half of them after their effect; {WORKERS} \
         workers, one killed every {} s",
        options.sessions,
        options.at_once,
        options.seed,
        options.scale,
        percent(options.lose),
        percent(options.repeat),
        percent(options.reorder),
        percent(options.fail),
        options.kill_every,
    )
}

/// A port that nobody listens on.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
    Ok(listener.local_addr().context("find a free port")?.port())
}

/// The processes.
struct System<'a> {
    installation: &'a Installation<'a>,
    _ingest: Role,
    _api: Role,
    _simulator: Role,
    workers: Vec<Role>,
    api: Server,
    platform: Server,
    kills: u32,
    seed: u64,
}

impl<'a> System<'a> {
    async fn start(
        installation: &'a Installation<'a>,
        options: &Options,
        platform: SocketAddr,
    ) -> Result<Self> {
        let mut ingest = installation.start("ingest")?;
        let mut api = installation.start("api")?;
        let hook = format!("http://{}/webhooks/{SOURCE}/{PATH_TOKEN}", ingest.address().await?);
        let arguments = simulator_arguments(options, platform, &hook);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut simulator = installation.start_with("simulator", &arguments)?;
        let platform = Server::platform(simulator.address().await?);
        configure(&platform).await?;
        let api_server = Server::api(api.address().await?, API_TOKEN);
        let mut workers = Vec::new();
        for _ in 0..WORKERS {
            workers.push(installation.start("worker")?);
        }
        Ok(Self {
            installation,
            _ingest: ingest,
            _api: api,
            _simulator: simulator,
            workers,
            api: api_server,
            platform,
            kills: 0,
            seed: options.seed,
        })
    }

    fn drive(&self, options: &Options) -> Drive {
        let patience = options.real(PATIENCE_S).max(Duration::from_mins(1));
        let counts = (options.sessions, options.at_once);
        Drive::new(self.api.clone(), self.platform.clone(), counts, patience)
    }

    /// Kills a worker, as hard as a machine can die, and starts another.
    async fn kill_one(&mut self) -> Result<()> {
        let n = self.seed.wrapping_mul(1_000_003).wrapping_add(u64::from(self.kills));
        let at = usize::try_from(draw("kill", n, 0..self.workers.len() as u64)).unwrap_or_default();
        let next = self.installation.start("worker")?;
        std::mem::replace(&mut self.workers[at], next).kill().await?;
        self.kills += 1;
        Ok(())
    }
}

/// How the platform is started.
fn simulator_arguments(options: &Options, listen: SocketAddr, hook: &str) -> Vec<String> {
    let mut arguments: Vec<String> = [
        ("--listen", listen.to_string()),
        ("--webhook-url", hook.to_owned()),
        ("--token", PLATFORM_TOKEN.to_owned()),
        ("--seed", options.seed.to_string()),
        ("--time-scale", options.scale.to_string()),
        ("--active-quota", options.quota().to_string()),
        ("--fail-calls", options.fail.to_string()),
        ("--lose-webhooks", options.lose.to_string()),
        ("--repeat-webhooks", options.repeat.to_string()),
        ("--reorder-webhooks", options.reorder.to_string()),
    ]
    .into_iter()
    .flat_map(|(name, value)| [name.to_owned(), value])
    .collect();
    for mishap in &options.mishap {
        arguments.extend(["--mishap".to_owned(), mishap.clone()]);
    }
    arguments
}

/// What has no option: videos that fail now and then, and how long encoders send.
async fn configure(platform: &Server) -> Result<()> {
    for (path, body) in [
        ("/_control/behaviour", json!({"encoding": "varied"})),
        ("/_control/encoders", json!({"length_s": LENGTH_S})),
    ] {
        let (status, told) = platform.change("PUT", path, &body, None).await?;
        anyhow::ensure!(status == 204, "the platform refuses {path} with {status}: {told}");
    }
    Ok(())
}

/// The section of how long sessions wait for what.
fn waits(policy: &domain::timer::Policy) -> String {
    let limits = &policy.limits;
    let mut session = String::new();
    for (name, wait) in [
        ("grace", policy.grace),
        ("settle", policy.settle),
        ("slot", policy.slot),
        ("slot_sweep", policy.slot_sweep),
        ("sweep", policy.sweep),
        ("watch", policy.watch),
        ("videos", policy.videos),
        ("recordings", policy.recordings),
        ("recordings_within", policy.recordings_within),
        ("steady", policy.steady),
        ("loop_window", limits.loop_window),
        ("max_slot", limits.slot),
        ("max_encoder", limits.encoder),
        ("max_testing", limits.testing),
        ("max_interrupted", limits.interrupted),
        ("max_failed", limits.failed),
        ("max_videos", limits.videos),
    ] {
        let _ = writeln!(session, "{name} = \"{}ms\"", wait.as_millis());
    }
    session
}

/// The configuration: waits divided by the scale, leases as short as they may be.
fn config(options: &Options, database: &str, spool: &Path, platform: SocketAddr) -> String {
    let (key, spool) = ("5a".repeat(32), spool.display());
    let session = waits(&domain::timer::Policy::default().scaled(options.scale));
    let lease = options.real(10.0).max(Duration::from_secs(1)).as_millis();
    format!(
        r#"
[database]
url = "{database}"
max_connections = 10

[ingest]
listen = "127.0.0.1:0"
spool_dir = "{spool}"

[api]
listen = "127.0.0.1:0"

[admin]
listen = "127.0.0.1:0"

[[api.tokens]]
name = "bench"
token = "{API_TOKEN}"
scopes = ["admin"]

[sealing]
key = "{key}"

[session]
{session}
[worker]
lease = "{lease}ms"
poll = "50ms"
grace = "1s"

[log]
format = "json"
level = "info,sqlx=error,worker=error,store=error,platform=error"

[[sources]]
name = "{SOURCE}"
base_url = "http://{platform}"
token = "{PLATFORM_TOKEN}"

[[sources.webhook_tokens]]
token = "{PATH_TOKEN}"
"#
    )
}

/// Plays until all sessions are over, or stuck.
async fn play(system: &mut System<'_>, drive: &mut Drive, options: &Options) -> Result<()> {
    let kills = options.kill_every > 0.0;
    let every = Duration::from_secs_f64(options.kill_every.max(0.1));
    let (mut killed, mut told) = (Instant::now(), Instant::now());
    loop {
        if drive.step().await? {
            return Ok(());
        }
        if kills && killed.elapsed() >= every {
            system.kill_one().await?;
            killed = Instant::now();
        }
        if told.elapsed() >= TELL {
            let (over, asked) = (drive.over(), drive.asked.len());
            note(format!("{over} over of {asked} asked for, {} workers killed", system.kills));
            told = Instant::now();
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Live streams that hold a slot although no session runs: those of ours that are active, whoever
/// else may have active ones in the account, and those to which our own queue grants one.
async fn leaked_slots(installation: &Installation<'_>, truths: &[Value]) -> Result<usize> {
    let is_held = |truth: &&Value| truth["tag"]["owner"] == "tallylight" && truth["active"] == true;
    let active = truths.iter().filter(is_held).filter_map(|truth| truth["id"].as_i64());
    let config = store::Config::new(installation.cluster.url());
    let store = Store::connect(&config).await.context("connect to the cluster")?;
    let quota = store.quota(SOURCE).await?;
    let grants = quota.map(|quota| quota.grants).unwrap_or_default();
    let granted = grants.iter().map(|grant| grant.claim.live_stream.0);
    Ok(active.chain(granted).collect::<BTreeSet<i64>>().len())
}

/// Compares every session with the truth and tells what came of it.
async fn compare(
    system: &System<'_>,
    drive: &Drive,
    options: &Options,
    stuck: usize,
) -> Result<()> {
    let text = system.platform.text("/_truth").await?;
    let lines: Result<Vec<Value>, _> = text.lines().map(serde_json::from_str).collect();
    let lines = lines.context("read the truth")?;
    let (run, truths) = lines.split_first().context("the truth begins with the run")?;
    // A second of the platform's time, as it goes here; what it reports is in milliseconds.
    let tolerance = TimeDelta::from_std(options.real(1.0)).context("a second")?;
    let leaked = leaked_slots(system.installation, truths).await?;
    let mut report = Report::new(run, (stuck, leaked), options.scale);
    for one in &drive.asked {
        let told = drive.whole(one).await?;
        let is_of_it = |truth: &&Value| truth["tag"]["data"]["bench"] == one.name.as_str();
        let of_it: Vec<&Value> = truths.iter().filter(is_of_it).collect();
        let verdict = judge(&told, &of_it, tolerance);
        if !verdict.wrong.is_empty() && report.wants_story() {
            report.story(&one.name, &verdict, (&told, &of_it), &drive.course(one).await?);
        }
        report.add(&verdict);
    }
    say(format!("workers   {} killed", system.kills));
    report.finish()
}
