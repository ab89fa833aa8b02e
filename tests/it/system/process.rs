//! The binary as a child process: started without our environment, heard, killed, ended.

use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::wait::until;

/// A child process. Dropping it kills it.
pub(crate) struct Process {
    name: String,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Process {
    /// Starts `tallylight --config config arguments..`.
    pub(crate) fn spawn(config: &Path, arguments: &[&str]) -> Self {
        Self::spawn_program(env!("CARGO_BIN_EXE_tallylight").as_ref(), config, arguments)
    }

    /// Starts another program that has the same commands.
    pub(crate) fn spawn_program(program: &Path, config: &Path, arguments: &[&str]) -> Self {
        Self::of(Command::new(program), config, arguments)
    }

    /// The same, with files of at most `blocks` of 512 bytes or, by another shell, of 1 KiB: what
    /// goes beyond is an error, as on a full disk.
    pub(crate) fn spawn_with_small_files(config: &Path, arguments: &[&str], blocks: u32) -> Self {
        let mut shell = Command::new("/bin/sh");
        // 25 is SIGXFSZ, which would end the process. What is ignored stays so.
        let script = format!("trap '' 25; ulimit -f {blocks}; exec \"$0\" \"$@\"");
        shell.arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_tallylight"));
        Self::of(shell, config, arguments)
    }

    fn of(mut command: Command, config: &Path, arguments: &[&str]) -> Self {
        let mut child = command
            .arg("--config")
            .arg(config)
            .args(arguments)
            // What the caller of the tests has set must not change what is tested.
            .env_clear()
            .current_dir(config.parent().unwrap())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        collect(child.stdout.take().unwrap(), &lines);
        collect(child.stderr.take().unwrap(), &lines);
        Self { name: arguments.join(" "), child, lines }
    }

    /// The address that it listens on, from its log.
    pub(crate) async fn address(&self) -> SocketAddr {
        until("the role logs its address", async || self.known_address()).await
    }

    /// The address that it listens on, if it has logged it.
    pub(crate) fn known_address(&self) -> Option<SocketAddr> {
        self.logged("address")
    }

    /// Where it tells its numbers, from its log.
    pub(crate) async fn admin_address(&self) -> SocketAddr {
        until("the role logs its admin address", async || self.logged("admin")).await
    }

    fn logged(&self, field: &str) -> Option<SocketAddr> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().find_map(|line| {
            let line: Value = serde_json::from_str(line).ok()?;
            line[field].as_str()?.parse().ok()
        })
    }

    /// Whether it has ended.
    pub(crate) fn has_exited(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Sends it a signal. One that has ended gets none.
    pub(crate) fn signal(&mut self, signal: Signal) {
        if !self.has_exited() {
            kill_process(Pid::from_child(&self.child), signal).unwrap();
        }
    }

    /// Lets it do nothing for a while, as a machine that is suspended. The length is the fault
    /// itself: nothing is waited for.
    pub(crate) async fn pause(&mut self, length: Duration) {
        self.signal(Signal::STOP);
        tokio::time::sleep(length).await;
        self.signal(Signal::CONT);
    }

    /// Kills it, as hard as a machine can die.
    pub(crate) fn kill(&mut self) {
        // It may have ended already, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Stops it in the middle of whatever it does, until it is woken.
    pub(crate) fn freeze(&self) {
        kill_process(Pid::from_child(&self.child), Signal::STOP).unwrap();
    }

    /// Lets it go on as if no time had passed.
    pub(crate) fn thaw(&self) {
        kill_process(Pid::from_child(&self.child), Signal::CONT).unwrap();
    }

    /// Asks it to stop.
    pub(crate) fn terminate(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
    }

    /// Waits until it has ended, and until everything it said was read.
    pub(crate) async fn exited(&mut self) -> ExitStatus {
        let status = until("the process ends", async || self.child.try_wait().unwrap()).await;
        // The readers drop their share at the end of the pipes.
        let lines = &self.lines;
        until("its last words are read", async || (Arc::strong_count(lines) == 1).then_some(()))
            .await;
        status
    }

    /// What it has said so far, on both channels.
    pub(crate) fn output(&self) -> String {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let speaker = format!("[{} {}] ", self.name, self.child.id());
        lines.iter().flat_map(|line| [&speaker, line.as_str(), "\n"]).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Collects the lines of a pipe until its end.
fn collect(pipe: impl Read + Send + 'static, lines: &Arc<Mutex<Vec<String>>>) {
    let lines = lines.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    });
}
