//! The binary as its users run it: built in release mode, configured by a file, a process per role.
//!
//! Processes end when their value is dropped, whatever happened.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::cluster::Cluster;
use crate::machine;
use crate::report::{note, say};

/// The one source of the installation.
pub(crate) const SOURCE: &str = "bench";

/// Slices of the installation: what one gets that asks for nothing else.
const SLICES: &str = "16";

/// Nothing listens where the platform should be, and no history of ours leads there.
const NO_PLATFORM: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9);

/// The secret part of the webhook's path. The installation lives as long as the measurement.
pub(crate) const PATH_TOKEN: &str = "bench-0123456789abcdef";

/// The token of batches.
pub(crate) const BATCH_TOKEN: &str = "batch-0123456789abcdef";

/// A role binds its port within a second; a machine under load needs longer.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// A role hands over what it holds within its own grace of 10 s.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// Starts of the variables by which cargo tells a program of its own package.
const OF_OUR_PACKAGE: [&str; 3] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"];

/// Where the binary is, and where measurements keep their clusters.
pub(crate) struct Home {
    /// Fewer events and shorter turns.
    pub(crate) quick: bool,
    binary: PathBuf,
    directory: PathBuf,
}

impl Home {
    /// Builds the binary as it is deployed, if it is not up to date.
    pub(crate) async fn prepare(quick: bool) -> Result<Self> {
        Self::prepare_as("dist", quick).await
    }

    /// The same, but built as quickly as this program was where that is for development: correctness is
    /// measured and not speed.
    pub(crate) async fn prepare_alike(quick: bool) -> Result<Self> {
        let profile = if cfg!(debug_assertions) { "dev" } else { "dist" };
        Self::prepare_as(profile, quick).await
    }

    async fn prepare_as(profile: &str, quick: bool) -> Result<Self> {
        note(format!("building tallylight, profile {profile}"));
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command
            .args(["build", "--profile", profile, "--locked", "--bin", "tallylight"])
            .args(["--message-format", "json-render-diagnostics"])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
            .stderr(Stdio::inherit())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        // `cargo run` tells us what package we are. Build scripts that look at it would run again, and
        // with them half of the build, each time this build and one by hand take turns.
        for (name, _) in std::env::vars_os() {
            let name_text = name.to_string_lossy();
            if OF_OUR_PACKAGE.iter().any(|start| name_text.starts_with(start)) {
                command.env_remove(&name);
            }
        }
        let output = command.output().await.context("run cargo")?;
        if !output.status.success() {
            bail!("build tallylight: cargo ended with {}", output.status);
        }
        let binary = built(&String::from_utf8_lossy(&output.stdout))
            .context("find the binary that cargo built")?;
        let target = binary.ancestors().nth(2).context("find the target directory")?;
        Ok(Self { quick, directory: target.join("bench"), binary })
    }

    /// Makes a cluster with a migrated installation.
    pub(crate) async fn installation(&self) -> Result<Installation<'_>> {
        self.installation_of(|url, spool| config_text(url, spool, NO_PLATFORM)).await
    }

    /// The same, configured by what `text` makes of the database's address and the spool's place.
    pub(crate) async fn installation_of(
        &self,
        text: impl FnOnce(&str, &Path) -> String,
    ) -> Result<Installation<'_>> {
        let cluster = Cluster::start(&self.directory).await?;
        let config = cluster.directory().join("tallylight.toml");
        let spool = cluster.directory().join("spool");
        write_private(&config, &text(&cluster.url(), &spool))?;
        let installation = Installation { home: self, cluster, config };
        installation.command(&["migrate", "--slices", SLICES]).await?;
        Ok(installation)
    }
}

/// The executable in cargo's messages.
fn built(messages: &str) -> Option<PathBuf> {
    messages.lines().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_ours = message["target"]["name"] == "tallylight";
        is_ours.then(|| message["executable"].as_str().map(PathBuf::from)).flatten()
    })
}

/// Writes a file that only we can read: it holds the database's password.
fn write_private(path: &Path, text: &str) -> Result<()> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    let mut file = file.with_context(|| format!("write {}", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("write {}", path.display()))
}

/// The configuration: defaults throughout, but for addresses and secrets.
fn config_text(database: &str, spool: &Path, platform: SocketAddr) -> String {
    let key = "5a".repeat(32);
    let spool = spool.display();
    format!(
        r#"
[database]
url = "{database}"

[ingest]
listen = "127.0.0.1:0"
spool_dir = "{spool}"

[sealing]
key = "{key}"

[log]
format = "json"

[[sources]]
name = "{SOURCE}"
base_url = "http://{platform}"
token = "1_bench"

[[sources.webhook_tokens]]
token = "{PATH_TOKEN}"
"#
    )
}

/// A migrated installation on a cluster of its own. Deleted when dropped.
pub(crate) struct Installation<'a> {
    home: &'a Home,
    /// Its cluster.
    pub(crate) cluster: Cluster,
    config: PathBuf,
}

impl Installation<'_> {
    /// The path that webhooks are posted to.
    pub(crate) fn webhook_path() -> String {
        format!("/webhooks/{SOURCE}/{PATH_TOKEN}")
    }

    /// Lets the endpoint, once it is started, take batches that carry [`BATCH_TOKEN`].
    pub(crate) fn take_batches(&self) -> Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options.append(true).open(&self.config).context("open the configuration")?;
        write!(
            file,
            "\n[[ingest.tokens]]\nname = \"bench\"\ntoken = \"{BATCH_TOKEN}\"\nsources = [\"{SOURCE}\"]\n"
        )
        .context("write the configuration")
    }

    /// Prints what was measured on what.
    pub(crate) fn say_header(&self, what: &str) {
        say(what);
        say(format!("machine   {}, load {}", machine::describe(), machine::load()));
        say(format!("version   tallylight {}, {SLICES} slices", machine::version()));
        say(format!("settings  {}", self.cluster.settings()));
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// Where it fails; the message holds what it said.
    pub(crate) async fn command(&self, arguments: &[&str]) -> Result<()> {
        let output = self.tallylight(arguments).output().await.context("run tallylight")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("tallylight {}: {}\n{said}", arguments.join(" "), output.status);
        }
        Ok(())
    }

    /// Starts the simulated platform, which sends no webhooks of its own, and has its installation
    /// call there from now on. At most `active` live streams are active at once.
    pub(crate) async fn start_simulator(&self, active: u64) -> Result<(Role, SocketAddr)> {
        let active = active.to_string();
        let mut command = self.tallylight(&["simulator", "--listen", "127.0.0.1:0"]);
        let child = command.args(["--active-quota", &active]).spawn();
        let mut child = child.context("start the simulator")?;
        let mut lines = BufReader::new(child.stdout.take().context("hear the simulator")?).lines();
        let line = timeout(START_PATIENCE, lines.next_line()).await;
        let line = line.context("wait for the simulator")?.context("hear the simulator")?;
        let address = line.as_deref().and_then(|line| line.rsplit("http://").next()?.parse().ok());
        let address: SocketAddr = address.context("the simulator does not say where it listens")?;
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let text = config_text(&self.cluster.url(), &self.spool(), address);
        std::fs::write(&self.config, text).context("write the configuration")?;
        Ok((Role { name: "simulator", child, address: None }, address))
    }

    fn spool(&self) -> PathBuf {
        self.cluster.directory().join("spool")
    }

    /// Starts a role.
    pub(crate) fn start(&self, role: &'static str) -> Result<Role> {
        self.start_with(role, &[])
    }

    /// Starts a role with options.
    pub(crate) fn start_with(&self, role: &'static str, options: &[&str]) -> Result<Role> {
        let arguments: Vec<&str> = std::iter::once(role).chain(options.iter().copied()).collect();
        let mut child = self.tallylight(&arguments).spawn().context("start tallylight")?;
        let stderr = child.stderr.take().context("hear tallylight")?;
        let (said, address) = oneshot::channel();
        tokio::spawn(listen(role, BufReader::new(stderr), said));
        Ok(Role { name: role, child, address: Some(address) })
    }

    fn tallylight(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.home.binary);
        command
            .arg("--config")
            .arg(&self.config)
            .args(arguments)
            // What the caller has set must not change what is measured.
            .env_clear()
            .current_dir(self.cluster.directory())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }
}

/// Hears a role's log to its end: tells the address it listens on, passes warnings on.
async fn listen(
    role: &'static str,
    log: BufReader<tokio::process::ChildStderr>,
    address: oneshot::Sender<SocketAddr>,
) {
    let mut address = Some(address);
    let mut lines = log.lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let entry: Value = serde_json::from_str(&line).unwrap_or_default();
        let found = entry["address"].as_str().and_then(|text| text.parse().ok());
        if let Some((found, told)) = found.zip(address.take_if(|_| found.is_some())) {
            // Who started it may have gone.
            let _ = told.send(found);
        }
        if entry["level"] != "INFO" {
            note(format!("{role}: {line}"));
        }
    }
}

/// A role's process. Killed when dropped.
pub(crate) struct Role {
    name: &'static str,
    child: Child,
    address: Option<oneshot::Receiver<SocketAddr>>,
}

impl Role {
    /// The address that it listens on. Asked once.
    pub(crate) async fn address(&mut self) -> Result<SocketAddr> {
        let told = self.address.take().context("its address was asked for before")?;
        match timeout(START_PATIENCE, told).await {
            Ok(Ok(address)) => Ok(address),
            _ => bail!("{} does not say where it listens", self.name),
        }
    }

    /// Asks it to stop and waits until it has.
    pub(crate) async fn stop(mut self) -> Result<()> {
        if let Some(pid) = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)) {
            kill_process(pid, Signal::TERM).with_context(|| format!("stop {}", self.name))?;
        }
        let status = timeout(STOP_PATIENCE, self.child.wait()).await;
        check(self.name, status.context("it does not stop")?.context("wait for it")?)
    }

    /// Kills it, as hard as a machine can die, and waits until it is gone.
    pub(crate) async fn kill(mut self) -> Result<()> {
        self.child.kill().await.with_context(|| format!("kill {}", self.name))
    }

    /// Fails if it has ended by itself.
    pub(crate) fn check_runs(&mut self) -> Result<()> {
        match self.child.try_wait().context("look for a process")? {
            None => Ok(()),
            Some(status) => bail!("{} ended by itself: {status}", self.name),
        }
    }
}

fn check(name: &str, status: ExitStatus) -> Result<()> {
    if status.success() { Ok(()) } else { bail!("{name} ended with {status}") }
}

/// Runs a program to its end and returns what it printed.
pub(crate) async fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    let output = output.with_context(|| format!("run {name}"))?;
    if !output.status.success() {
        let mut message = format!("{name} ended with {}", output.status);
        let _ = write!(message, ": {}", String::from_utf8_lossy(&output.stderr).trim());
        bail!("{message}");
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binary_is_found_among_what_cargo_says() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"domain"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"tallylight"},"executable":"/t/release/tallylight"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(built(messages), Some(PathBuf::from("/t/release/tallylight")));
        assert_eq!(built("not json"), None);
    }
}
