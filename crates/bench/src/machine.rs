//! The machine and the versions that a result was measured on: no figure is told without them.

use std::fs;
use std::process::Command;

/// Describes the machine in one line.
pub(crate) fn describe() -> String {
    let model = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown CPU".to_owned());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = field("/proc/meminfo", "MemTotal").as_deref().and_then(gigabytes);
    let memory = memory.map_or_else(String::new, |gb| format!(", {gb} GB"));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} cores of {model}{memory}, Linux {}", kernel.trim())
}

/// The load before the run: above 0.1 or so, somebody else was working too.
pub(crate) fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or_default().to_owned()
}

/// Our version: of the package, and the commit where the tree is a checkout.
pub(crate) fn version() -> String {
    let version = env!("CARGO_PKG_VERSION");
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short", "HEAD"]) else { return version.to_owned() };
    let changed = git(&["status", "--porcelain"]).is_some_and(|changed| !changed.is_empty());
    format!("{version} ({commit}{})", if changed { ", changed" } else { "" })
}

/// A field of a file of lines `name : value`.
fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(value.trim_start_matches(['\t', ' ', ':']).trim().to_owned())
}

/// Gigabytes of `12345 kB`.
fn gigabytes(text: &str) -> Option<u64> {
    let kilobytes: u64 = text.split(' ').next()?.parse().ok()?;
    Some(kilobytes >> 20)
}
