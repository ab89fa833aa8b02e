//! Runs `postgres` as our own child, and stops it.
//!
//! The server is spawned and reaped by a thread that lives as long as it does. The kernel sends the
//! child SIGINT (a clean, fast shutdown) when that thread ends, so the server also stops cleanly within
//! about a second when we are killed with SIGKILL. This is the one unsafe place of the project.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        process::CommandExt,
    },
    path::Path,
    process::{Child, Command, ExitStatus},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitId, WaitIdOptions, getpid, getppid, kill_process, waitid},
};

use crate::{Error, layout::Layout};

/// A clean stop writes a checkpoint, which can take a while on a slow disk.
const CLEAN_STOP: Duration = Duration::from_mins(1);
/// An immediate stop writes nothing; the next start recovers from the WAL.
const IMMEDIATE_STOP: Duration = Duration::from_secs(10);

/// What a cluster is for, which decides what a power failure may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Data that must survive.
    Durable,
    /// A test's cluster. Without fsync a crash of the machine may damage it, and then it is of no use
    /// anyway; a crash of any process loses nothing, because written pages stay with the kernel.
    Throwaway,
}

impl Kind {
    /// Settings that no edited file may change, beside the addresses.
    fn fixed(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Kind::Durable => &[
                ("fsync", "on"),
                ("full_page_writes", "on"),
                // One file a weekday, emptied when its day comes again: a week of log, no more.
                ("logging_collector", "on"),
                ("log_filename", "postgresql-%a.log"),
                ("log_truncate_on_rotation", "on"),
                ("log_rotation_age", "1d"),
                ("log_rotation_size", "0"),
            ],
            Kind::Throwaway => &[
                ("fsync", "off"),
                ("full_page_writes", "off"),
                // It would look into hundreds of databases, each for a test of some seconds.
                ("autovacuum", "off"),
            ],
        }
    }

    /// Settings written once into `postgresql.conf`.
    pub(crate) fn tunables(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Kind::Durable => {
                &[("max_connections", "100"), ("shared_buffers", "128MB"), ("wal_level", "replica")]
            }
            // Many tests at once, each with a small database, and all of it perhaps in memory.
            Kind::Throwaway => &[
                ("max_connections", "250"),
                ("shared_buffers", "32MB"),
                ("wal_level", "replica"),
                ("max_wal_size", "128MB"),
            ],
        }
    }

    /// Arguments of `initdb` that say how clients show that they know the password.
    pub(crate) fn authentication(self) -> [&'static str; 2] {
        match self {
            Kind::Durable => ["--auth-local=scram-sha-256", "--auth-host=scram-sha-256"],
            // As it is, over loopback alone: a client without optimizations takes a tenth of a second
            // for its part of SCRAM, and tests make thousands of connections.
            Kind::Throwaway => ["--auth-local=password", "--auth-host=password"],
        }
    }

    /// Arguments of `initdb` beside the common ones.
    pub(crate) fn initdb_arguments(self) -> &'static [&'static str] {
        match self {
            Kind::Durable => &[],
            Kind::Throwaway => &["--no-sync"],
        }
    }
}

/// Adds the arguments that make `postgres` serve the cluster of `layout`.
pub(crate) fn add_arguments(
    command: &mut Command,
    layout: &Layout,
    kind: Kind,
    port: u16,
    socket_dir: &Path,
) {
    let mut set = |name: &str, value: &OsStr| {
        let mut setting = OsString::from(format!("{name}="));
        setting.push(value);
        command.arg("-c").arg(setting);
    };
    for (name, value) in kind.fixed() {
        set(name, value.as_ref());
    }
    set("log_directory", layout.log().as_os_str());
    set("listen_addresses", "127.0.0.1".as_ref());
    set("unix_socket_permissions", "0700".as_ref());
    set("unix_socket_directories", &quoted(socket_dir));
    command.arg("-p").arg(port.to_string()).arg("-D").arg(layout.data());
}

/// A path as one element of a list setting: quotes keep a comma or blank from dividing it.
fn quoted(path: &Path) -> OsString {
    let mut bytes = vec![b'"'];
    for &byte in path.as_os_str().as_bytes() {
        bytes.extend_from_slice(if byte == b'"' { b"\"\"" } else { std::slice::from_ref(&byte) });
    }
    bytes.push(b'"');
    OsString::from_vec(bytes)
}

/// A server that is our child, with the thread that spawned it and waits for it.
#[derive(Debug)]
pub(crate) struct Server {
    /// The process id of the server.
    pid: Pid,
    /// How the child ended, as the thread saw it.
    end: Arc<End>,
    /// The supervisor; it ends with the server.
    supervisor: Option<JoinHandle<()>>,
}

/// The end of the child, shared by the supervisor and those who wait for it.
#[derive(Debug, Default)]
struct End {
    /// `Some` once the child is reaped: from then on its pid may be another process's.
    status: Mutex<Option<ExitStatus>>,
    /// Tells that `status` is set.
    reaped: Condvar,
    /// Set while an end would be news: from readiness until we stop the server.
    reported: AtomicBool,
}

impl End {
    /// The status, whatever a panicking thread did: it is one plain value.
    fn status(&self) -> MutexGuard<'_, Option<ExitStatus>> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    /// Spawns `command` from a new supervisor thread.
    pub(crate) fn spawn(mut command: Command) -> Result<Server, Error> {
        let program = command.get_program().to_owned();
        die_with_parent(&mut command);
        let end = Arc::new(End::default());
        let (send_pid, receive_pid) = mpsc::channel();
        let supervisor = thread::Builder::new()
            .name("postgres".to_owned())
            .spawn({
                let end = Arc::clone(&end);
                move || match command.spawn() {
                    Ok(child) => {
                        let _ = send_pid.send(Ok(Pid::from_child(&child)));
                        supervise(child, &end);
                    }
                    Err(error) => {
                        let _ = send_pid.send(Err(error));
                    }
                }
            })
            .map_err(Error::io("start a thread for", &program))?;
        let pid = receive_pid
            .recv()
            .unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))
            .map_err(Error::io("run", &program))?;
        Ok(Server { pid, end, supervisor: Some(supervisor) })
    }

    /// The process id of the server.
    #[cfg(test)]
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// From now on an end that we did not ask for is logged; a failed start is an error instead.
    pub(crate) fn report_end(&self) {
        self.end.reported.store(true, Ordering::Relaxed);
    }

    /// Waits until the server has ended, at most `patience`; `None` if it lives on.
    pub(crate) fn wait(&self, patience: Duration) -> Option<ExitStatus> {
        let status = self.end.status();
        let (status, _) = self
            .end
            .reaped
            .wait_timeout_while(status, patience, |status| status.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        *status
    }

    /// Stops the server: clean if `kind` has data to keep, and in any case never with SIGKILL.
    pub(crate) fn stop(&mut self, kind: Kind) -> Result<(), Error> {
        self.end.reported.store(false, Ordering::Relaxed);
        let stopped = kind == Kind::Durable && self.signal_and_wait(Signal::INT, CLEAN_STOP);
        if !stopped && !self.signal_and_wait(Signal::QUIT, IMMEDIATE_STOP) {
            return Err(Error::NotStopped { pid: self.pid.as_raw_nonzero().get() });
        }
        if let Some(supervisor) = self.supervisor.take() {
            let _ = supervisor.join();
        }
        Ok(())
    }

    /// Sends a signal unless the server has ended; whether it has ended within `patience`.
    fn signal_and_wait(&self, signal: Signal, patience: Duration) -> bool {
        {
            // Under the lock the child is not reaped, so the pid is still its own.
            let status = self.end.status();
            if status.is_none() {
                let _ = kill_process(self.pid, signal);
            }
        }
        self.wait(patience).is_some()
    }
}

/// Waits for the child, then reaps it under the lock that guards its pid.
fn supervise(mut child: Child, end: &End) {
    let id = WaitId::Pid(Pid::from_child(&child));
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    while waitid(id.clone(), options).is_err_and(|error| error == Errno::INTR) {}
    let mut status = end.status();
    *status = Some(child.wait().unwrap_or_default());
    if end.reported.load(Ordering::Relaxed) {
        tracing::error!(status = ?*status, "the managed PostgreSQL server ended by itself");
    }
    end.reaped.notify_all();
}

/// Makes the child stop cleanly when the spawning thread ends, and keeps the terminal's Ctrl-C from it.
#[expect(unsafe_code, reason = "pre_exec is unsafe: its closure runs between fork and exec")]
fn die_with_parent(command: &mut Command) {
    command.process_group(0);
    let parent = getpid();
    // std runs the closure after it changed the user id, which would clear the death signal.
    // SAFETY: both calls are plain system calls, and an `Errno` allocates nothing.
    unsafe {
        command.pre_exec(move || {
            #[cfg(target_os = "linux")]
            rustix::process::set_parent_process_death_signal(Some(Signal::INT))?;
            // The parent may have died before the request above.
            if getppid() == Some(parent) { Ok(()) } else { Err(Errno::SRCH.into()) }
        });
    }
}
