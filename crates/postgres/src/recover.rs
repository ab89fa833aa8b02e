//! What an earlier run left behind: `postmaster.pid`, and processes that still use the data.
//!
//! An *orphan* is a live server whose owner is gone. PostgreSQL itself copes with a pid file whose
//! process is dead. It refuses for ever when the pid exists but is not its server: a zombie under a
//! pid 1 that does not reap, or a stranger that got the number after a reboot. Then we write our own pid
//! into the file, for PostgreSQL takes its parent's pid as stale; its shared-memory check still guards
//! against a second server. The file is never deleted.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process, thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::{
    Error,
    handshake::{self, Answer},
    layout::{USER, write_atomically},
};

/// An orphan was told by the kernel to stop. One that still takes connections after this will stay.
const ORPHAN_STAYS: Duration = Duration::from_secs(1);
/// How long a shutdown in progress may take: as long as a stop of our own.
const ORPHAN_STOPS: Duration = Duration::from_mins(1);
/// Children of a killed server notice within moments.
const CHILDREN_END: Duration = Duration::from_secs(10);
/// How often we look.
const POLL: Duration = Duration::from_millis(20);

/// The readable part of `postmaster.pid`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PidFile {
    /// Line 1: the server.
    pub(crate) pid: Pid,
    /// Line 4: its TCP port.
    pub(crate) port: Option<u16>,
    /// Line 5: the directory of its socket.
    socket_dir: Option<PathBuf>,
}

impl PidFile {
    /// Reads the pid file in `data`; `None` if there is none or it is empty.
    pub(crate) fn read(data: &Path) -> Option<PidFile> {
        PidFile::parse(&fs::read_to_string(data.join("postmaster.pid")).ok()?)
    }

    /// Reads the lines; a single-user server writes its pid negative.
    fn parse(text: &str) -> Option<PidFile> {
        let mut lines = text.lines();
        let pid = lines.next()?.trim().parse::<i32>().ok()?.checked_abs()?;
        Some(PidFile {
            pid: Pid::from_raw(pid)?,
            port: lines.nth(2).and_then(|line| line.trim().parse().ok()),
            socket_dir: lines.next().filter(|line| !line.is_empty()).map(PathBuf::from),
        })
    }
}

/// The live server on `data`, if there is one.
pub(crate) fn live_server(data: &Path) -> Option<PidFile> {
    PidFile::read(data).filter(|file| is_server_on(file, data))
}

/// Clears the way for a start: returns an orphan to adopt, or nothing once no process uses `data`.
pub(crate) fn settle(data: &Path) -> Result<Option<PidFile>, Error> {
    let begin = Instant::now();
    while let Some(file) = live_server(data) {
        let answer = file.port.map_or(Answer::Nobody, |port| handshake::ask(port, USER));
        if answer == Answer::Ready && begin.elapsed() > ORPHAN_STAYS {
            return Ok(Some(file));
        }
        if begin.elapsed() > ORPHAN_STOPS {
            return Err(occupied(data, file.pid));
        }
        thread::sleep(POLL);
    }
    let begin = Instant::now();
    while let Some(&pid) = processes_on(data).first() {
        if begin.elapsed() > CHILDREN_END {
            return Err(occupied(data, pid));
        }
        thread::sleep(POLL);
    }
    replace_foreign_pid(data)?;
    Ok(None)
}

/// Stops an adopted server like one of our own.
pub(crate) fn stop_adopted(data: &Path, pid: Pid) -> Result<(), Error> {
    let gone = |patience: Duration| {
        let begin = Instant::now();
        while live_server(data).is_some_and(|file| file.pid == pid) {
            if begin.elapsed() > patience {
                return false;
            }
            thread::sleep(POLL);
        }
        true
    };
    for (signal, patience) in [(Signal::INT, ORPHAN_STOPS), (Signal::QUIT, CHILDREN_END)] {
        if live_server(data).is_some_and(|file| file.pid == pid) {
            let _ = kill_process(pid, signal);
        }
        if gone(patience) {
            return Ok(());
        }
    }
    Err(Error::NotStopped { pid: pid.as_raw_nonzero().get() })
}

/// The error for processes that do not go away.
fn occupied(data: &Path, pid: Pid) -> Error {
    Error::Occupied { data: data.to_owned(), pid: pid.as_raw_nonzero().get() }
}

/// Writes our pid over one that is alive, or a zombie, but no server; no process uses `data` now.
fn replace_foreign_pid(data: &Path) -> Result<(), Error> {
    let Some(file) = PidFile::read(data) else {
        return Ok(());
    };
    // Somebody else's process (EPERM) and no process (ESRCH) are stale for PostgreSQL too.
    if cfg!(not(target_os = "linux")) || test_kill_process(file.pid).is_err() {
        return Ok(());
    }
    tracing::warn!(pid = %file.pid, "postmaster.pid names a process that is not its server");
    replace_first_line(&data.join("postmaster.pid"))?;
    if let (Some(dir), Some(port)) = (file.socket_dir, file.port) {
        let socket_lock = dir.join(format!(".s.PGSQL.{port}.lock"));
        if socket_lock.exists() {
            replace_first_line(&socket_lock)?;
        }
    }
    Ok(())
}

/// Puts our pid on the first line of a lock file of PostgreSQL, and keeps its owner.
fn replace_first_line(path: &Path) -> Result<(), Error> {
    let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
    let metadata = fs::symlink_metadata(path).map_err(Error::io("look at", path))?;
    let rest = text.split_once('\n').map_or("", |(_, rest)| rest);
    let replaced = format!("{}\n{rest}", process::id());
    write_atomically(path, replaced.as_bytes(), Some((metadata.uid(), metadata.gid())))
}

/// Whether the process of `file` is a server that works in `data`.
#[cfg(target_os = "linux")]
fn is_server_on(file: &PidFile, data: &Path) -> bool {
    works_in(&PathBuf::from(format!("/proc/{}", file.pid)), data)
}

/// Without `/proc` the best evidence is a live pid and a server on the port beside it.
#[cfg(not(target_os = "linux"))]
fn is_server_on(file: &PidFile, _data: &Path) -> bool {
    let answers = |port| handshake::ask(port, USER) != Answer::Nobody;
    test_kill_process(file.pid).is_ok() && file.port.is_some_and(answers)
}

/// Every process of PostgreSQL, server or backend, that works in `data`.
#[cfg(target_os = "linux")]
pub(crate) fn processes_on(data: &Path) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw)?;
            works_in(&entry.path(), data).then_some(pid)
        })
        .collect()
}

/// Without `/proc` we leave it to PostgreSQL's own checks.
#[cfg(not(target_os = "linux"))]
pub(crate) fn processes_on(_data: &Path) -> Vec<Pid> {
    Vec::new()
}

/// Whether the process with this `/proc` entry runs `postgres` in `data`; a zombie has neither link.
#[cfg(target_os = "linux")]
fn works_in(process: &Path, data: &Path) -> bool {
    let in_data = fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd == data);
    in_data
        && fs::read_link(process.join("exe")).is_ok_and(|exe| {
            // After an upgrade of the package the name ends in " (deleted)".
            exe.file_name().and_then(|name| name.to_str()).is_some_and(|name| {
                name.trim_end_matches(" (deleted)") == "postgres" || name == "postmaster"
            })
        })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn pid_file_is_read_by_line() {
        let text = "4711\n/data\n1790000000\n20001\n/run/x\n127.0.0.1\n  1 2\nready   \n";
        let file = PidFile::parse(text).unwrap();
        assert_eq!(file.pid.as_raw_nonzero().get(), 4711);
        assert_eq!((file.port, file.socket_dir), (Some(20_001), Some(PathBuf::from("/run/x"))));
    }

    #[test]
    fn short_and_broken_pid_files_are_no_surprise() {
        assert_eq!(PidFile::parse("-12\n").unwrap().pid.as_raw_nonzero().get(), 12);
        assert_eq!(PidFile::parse(""), None);
        assert_eq!(PidFile::parse("0\n"), None);
        assert_eq!(PidFile::parse("-2147483648\n"), None);
    }

    #[test]
    fn stranger_with_the_recorded_pid_is_not_taken_for_the_server() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().canonicalize().unwrap();
        let mut stranger = Command::new("sleep").arg("60").current_dir(&data).spawn().unwrap();
        let pid_file = data.join("postmaster.pid");
        fs::write(&pid_file, format!("{}\n{}\n0\n1\n/nowhere\n", stranger.id(), data.display()))
            .unwrap();
        let adopted = settle(&data);
        stranger.kill().unwrap();
        stranger.wait().unwrap();
        assert_eq!(adopted.unwrap(), None);
        let text = fs::read_to_string(pid_file).unwrap();
        assert_eq!(text, format!("{}\n{}\n0\n1\n/nowhere\n", process::id(), data.display()));
    }
}
