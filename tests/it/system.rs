//! A whole installation for one test: its own database, simulated platform, and the real binary as
//! ingest, API and any number of workers.
//!
//! A test ends with [`TestSystem::end`], which checks that nothing is left over; on failure the log
//! and the processes' last words are printed. Processes end with the system, whatever happens.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use domain::event::RecordedEvent;
use domain::ids::Subject;
use domain::timer::Policy;
use serde_json::Value;
use simulator::{Behaviour, Faults, RequestLogEntry, Rule, Simulator};
use store::{Consumer, Store};
use tempfile::TempDir;
use tokio::sync::{Semaphore, SemaphorePermit};
use uuid::Uuid;

mod client;
mod cluster;
mod config;
mod database;
mod dump;
pub(crate) mod load;
mod process;
mod run;
mod wait;

pub(crate) use client::{Client, http};
pub(crate) use cluster::Cluster;
pub(crate) use config::{ENCODER, READER, Secrets, text as config_text, write as write_config};
pub(crate) use database::Database;
pub(crate) use load::Load;
pub(crate) use process::Process;
pub(crate) use run::End;
pub(crate) use wait::{PATIENCE, until, until_within};

/// The one source of every system.
pub(crate) const SOURCE: &str = "gcore-main";

/// How many times faster than the real platform.
pub(crate) const TIME_SCALE: f64 = 40.0;

/// Systems at a time: each is five processes and more, on as few as two cores.
static ROOM: Semaphore = Semaphore::const_new(4);

/// What a test wants of its system.
pub(crate) struct Setup {
    /// Worker processes.
    pub(crate) workers: usize,
    /// The platform.
    pub(crate) simulator: simulator::Config,
    /// How long sessions wait for what.
    pub(crate) policy: Policy,
    /// How long a lease lasts without renewal.
    pub(crate) lease: Duration,
    /// Creates are sent as `{"stream": ..}`.
    pub(crate) wrap_create: bool,
    /// Most bytes of the spool.
    pub(crate) spool_limit: u64,
    /// Most connections of the webhook endpoint.
    pub(crate) connections: usize,
    /// Sections about calls to other services, as TOML that begins with a new line.
    pub(crate) http_call: String,
    /// Filter of the processes' logs.
    pub(crate) log_level: &'static str,
}

impl Default for Setup {
    /// One worker, and everything 40 times faster than real, the platform and the waits alike.
    fn default() -> Self {
        Self {
            workers: 1,
            simulator: simulator::Config {
                time_scale: TIME_SCALE,
                behaviour: behaviour(),
                ..simulator::Config::default()
            },
            policy: Policy::default().scaled(TIME_SCALE),
            lease: Duration::from_secs(1),
            wrap_create: false,
            spool_limit: 1 << 30,
            connections: 1024,
            http_call: String::new(),
            log_level: "info,api=warn",
        }
    }
}

/// The platform's answers to open questions, except that the shortest fragment becomes a video:
/// a test need not wait for one to be long enough.
pub(crate) fn behaviour() -> Behaviour {
    Behaviour { minimum_fragment_s: 0, ..Behaviour::default() }
}

/// A worker process and the id under which it holds leases.
struct Worker {
    process: Process,
    id: Uuid,
}

/// A whole installation.
pub(crate) struct TestSystem {
    /// The platform.
    pub(crate) simulator: Simulator,
    /// The database, as our own processes see it.
    pub(crate) store: Store,
    /// The database, as somebody else sees it.
    pub(crate) database: Database,
    /// The API, with a token that may do everything.
    pub(crate) api: Client,
    /// The webhook endpoint.
    pub(crate) ingest: Process,
    /// Where webhooks go, with the secret in the path.
    pub(crate) webhook_url: String,
    secrets: Secrets,
    api_process: Process,
    workers: Vec<Worker>,
    config_file: PathBuf,
    url: String,
    /// What ended processes had said.
    past_output: String,
    ended: bool,
    _directory: TempDir,
    _room: SemaphorePermit<'static>,
}

impl TestSystem {
    /// Starts everything.
    pub(crate) async fn start(setup: Setup) -> Self {
        let room = ROOM.acquire().await.unwrap();
        let url = store::testing::database().await;
        let store = Store::connect(&store::Config::new(url.clone())).await.unwrap();
        let secrets = Secrets::new();
        let mut platform = setup.simulator.clone();
        platform.token = Some(secrets.platform.clone());
        let simulator = Simulator::start(platform).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let config_file = directory.path().join("tallylight.toml");
        let spool = directory.path().join("spool");
        let text = config::text(&setup, &url, &simulator.base_url(), &secrets, &spool);
        config::write(&config_file, &text);

        let ingest = Process::spawn(&config_file, &["ingest"]);
        let api_process = Process::spawn(&config_file, &["api"]);
        let webhook_url = webhook_url(ingest.address().await, &secrets);
        simulator.set_webhook_url(Some(webhook_url.clone()));
        let api = Client::new(api_process.address().await, &secrets.admin);
        let mut system = Self {
            simulator,
            store,
            database: Database::connect(&url).await,
            api,
            ingest,
            webhook_url,
            secrets,
            api_process,
            workers: Vec::new(),
            config_file,
            url,
            past_output: String::new(),
            ended: false,
            _directory: directory,
            _room: room,
        };
        for _ in 0..setup.workers {
            system.start_worker().await;
        }
        system
    }

    /// Starts one more worker and waits until it has told that it lives.
    pub(crate) async fn start_worker(&mut self) {
        let known = self.database.processes().await;
        let process = Process::spawn(&self.config_file, &["worker"]);
        let database = &self.database;
        let id = until("the worker tells that it lives", async || {
            database.processes().await.into_iter().find(|id| !known.contains(id))
        })
        .await;
        self.workers.push(Worker { process, id });
    }

    /// Where each role tells its numbers.
    pub(crate) async fn admin_addresses(&self) -> Vec<SocketAddr> {
        let mut addresses =
            vec![self.ingest.admin_address().await, self.api_process.admin_address().await];
        for worker in &self.workers {
            addresses.push(worker.process.admin_address().await);
        }
        addresses
    }

    /// Starts the webhook endpoint again, at another address.
    pub(crate) async fn restart_ingest(&mut self) {
        let ended =
            std::mem::replace(&mut self.ingest, Process::spawn(&self.config_file, &["ingest"]));
        self.past_output.push_str(&ended.output());
        let address = self.ingest.address().await;
        self.webhook_url = webhook_url(address, &self.secrets);
        self.simulator.set_webhook_url(Some(self.webhook_url.clone()));
    }

    /// Takes the worker that holds `subject`'s slice out of the system, still running.
    pub(crate) async fn take_holder(&mut self, consumer: Consumer, subject: &Subject) -> Process {
        let slice = self.store.slice_of(subject);
        let (database, workers) = (&self.database, &self.workers);
        let at = until("a worker holds the slice", async || {
            let holder = database.holder(consumer, slice).await?;
            workers.iter().position(|worker| worker.id == holder)
        })
        .await;
        self.workers.remove(at).process
    }

    /// Kills, as hard as a machine can die, the worker that holds `subject`'s slice.
    pub(crate) async fn kill_holder(&mut self, consumer: Consumer, subject: &Subject) {
        let mut worker = self.take_holder(consumer, subject).await;
        worker.kill();
        self.keep_output(&worker);
    }

    /// Remembers what a process has said that is no longer part of the system.
    pub(crate) fn keep_output(&mut self, process: &Process) {
        self.past_output.push_str(&process.output());
    }

    /// Ids of the workers that run.
    pub(crate) fn worker_ids(&self) -> Vec<Uuid> {
        self.workers.iter().map(|worker| worker.id).collect()
    }

    /// Runs another command of the binary to its end and returns what it printed.
    pub(crate) async fn command(&self, arguments: &[&str]) -> String {
        let mut process = Process::spawn(&self.config_file, arguments);
        let status = process.exited().await;
        let output = process.output();
        assert!(status.success(), "{arguments:?} ended with {status}: {output}");
        output
    }

    /// Runs another command of the binary that must fail, and returns what it printed.
    pub(crate) async fn failing_command(&self, arguments: &[&str]) -> String {
        let mut process = Process::spawn(&self.config_file, arguments);
        let status = process.exited().await;
        let output = process.output();
        assert!(!status.success(), "{arguments:?} did not fail: {output}");
        output
    }

    /// The database's address.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Starts another program that has the same commands, with the same configuration.
    pub(crate) fn spawn_program(&self, program: &Path, arguments: &[&str]) -> Process {
        Process::spawn_program(program, &self.config_file, arguments)
    }

    /// Starts the binary with the same configuration but for the database.
    pub(crate) fn spawn_on(&self, url: &str, arguments: &[&str]) -> Process {
        let text = std::fs::read_to_string(&self.config_file).unwrap();
        let file = self.config_file.with_file_name(format!("{}.toml", Uuid::now_v7()));
        config::write(&file, &text.replace(&self.url, url));
        Process::spawn(&file, arguments)
    }

    /// Runs a command on another database to its end. Returns whether it did it and what it said.
    pub(crate) async fn command_on(&self, url: &str, arguments: &[&str]) -> (bool, String) {
        let mut process = self.spawn_on(url, arguments);
        let status = process.exited().await;
        (status.success(), process.output())
    }

    /// What the processes were configured with and must keep to themselves.
    pub(crate) fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// The API, for the holder of another token: [`READER`] or [`ENCODER`].
    pub(crate) fn api_with(&self, token: &str) -> Client {
        Client::new(self.api.address(), token)
    }

    /// The API of another process.
    pub(crate) fn api_at(&self, address: SocketAddr) -> Client {
        Client::new(address, &self.secrets.admin)
    }

    /// Sets the platform's faults.
    pub(crate) fn faults(&self, rules: impl IntoIterator<Item = Rule>) {
        self.simulator.faults(Faults { rules: rules.into_iter().collect(), ..Faults::default() });
    }

    /// A stream as the platform knows it; null if there is none.
    pub(crate) fn stream(&self, id: i64) -> Value {
        let state = self.simulator.state();
        let mut streams = state["streams"].as_array().unwrap().iter();
        streams.find(|stream| stream["id"] == id).cloned().unwrap_or_default()
    }

    /// Requests that reached the platform and were to change something, in order.
    pub(crate) fn changes(&self) -> Vec<RequestLogEntry> {
        self.simulator.requests().into_iter().filter(|request| request.method != "GET").collect()
    }

    /// Of those, the ones whose `METHOD /path` begins with `start`.
    pub(crate) fn changes_like(&self, start: &str) -> Vec<RequestLogEntry> {
        let is_like = |r: &RequestLogEntry| format!("{} {}", r.method, r.path).starts_with(start);
        self.changes().into_iter().filter(is_like).collect()
    }

    /// All events of the log, in the order of their commit.
    pub(crate) async fn events(&self) -> Vec<RecordedEvent> {
        dump::events(&self.store).await
    }

    /// Everything that all processes have said, ended ones included.
    pub(crate) fn output(&self) -> String {
        let mut output = self.past_output.clone();
        let workers = self.workers.iter().map(|worker| &worker.process);
        for process in [&self.ingest, &self.api_process].into_iter().chain(workers) {
            output.push_str(&process.output());
        }
        output
    }

    /// Checks that nothing is left over: no event unapplied or set aside, no job waiting or given
    /// up, no error logged.
    pub(crate) async fn end(mut self) {
        self.check_leftovers().await;
        assert!(!self.output().contains("\"level\":\"ERROR\""), "a process logged an error");
        self.ended = true;
    }

    /// The same, where errors were to be logged.
    pub(crate) async fn end_after_errors(mut self) {
        self.check_leftovers().await;
        self.ended = true;
    }

    async fn check_leftovers(&self) {
        if !self.workers.is_empty() {
            self.until_nothing_is_due().await;
        }
        let status = self.store.slice_status().await.unwrap();
        assert_eq!(status.iter().map(|s| s.parked).sum::<i64>(), 0, "events were set aside");
        assert_eq!(self.store.dead_jobs(10).await.unwrap(), [], "dead letters");
    }
}

/// Where webhooks go.
fn webhook_url(ingest: SocketAddr, secrets: &Secrets) -> String {
    format!("http://{ingest}/webhooks/{SOURCE}/{}", secrets.path)
}

impl Drop for TestSystem {
    fn drop(&mut self) {
        if std::thread::panicking() {
            dump::print(self);
        } else {
            assert!(self.ended, "a test ends with TestSystem::end, which checks what is left");
        }
    }
}
