//! Why the managed PostgreSQL could not be found, made, started, joined or stopped.
//!
//! Every message says what to do next. Passwords never appear here.

use std::{io, path::PathBuf};

/// A failure of the managed PostgreSQL.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No usable PostgreSQL is on this machine.
    #[error(
        "no PostgreSQL {oldest} or later found; install it with `{packages}`, \
         or without a package manager with `tallylight db install`",
        oldest = crate::OLDEST_MAJOR
    )]
    NoBinaries {
        /// The exact command of this system's package manager, or where to look instead.
        packages: String,
    },
    /// A client program for a server is not on this machine.
    #[error(
        "no {program} of PostgreSQL {major} or later found, as the server needs; \
         install that version's client programs (`{packages}`), or set database.pg_bin to their directory"
    )]
    NoClientProgram {
        /// The program, such as `pg_dump`.
        program: String,
        /// The server's major version.
        major: u32,
        /// The exact command of this system's package manager, or where to look instead.
        packages: String,
    },
    /// The directory named in the settings holds no PostgreSQL that we can run.
    #[error("no usable PostgreSQL in {}: {reason}", path.display())]
    UnusableBinaries {
        /// The directory that was tried.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The cluster was made by a major version that is not among the PostgreSQL found.
    #[error(
        "the data in {} belongs to PostgreSQL {data_major}, but only {found} was found; \
         install PostgreSQL {data_major}, or dump and restore into a new directory",
        data.display()
    )]
    VersionMismatch {
        /// The cluster's data directory, left untouched.
        data: PathBuf,
        /// The major version in its `PG_VERSION`.
        data_major: u32,
        /// The versions found, for a reader.
        found: String,
    },
    /// Something that is not a PostgreSQL cluster sits where the cluster belongs.
    #[error(
        "{} exists but is not a PostgreSQL cluster (no readable PG_VERSION); \
         move it away or choose another data directory",
        data.display()
    )]
    NotACluster {
        /// The directory, left untouched.
        data: PathBuf,
    },
    /// The cluster is there, its password is not.
    #[error(
        "the password file {} is missing; restore it, or put into it the password of the role tallylight",
        path.display()
    )]
    PasswordMissing {
        /// Where the password file belongs.
        path: PathBuf,
    },
    /// We are root, and there is nobody else to run the server as.
    #[error(
        "PostgreSQL refuses to run as root, and neither a user postgres nor nobody exists; \
         start as another user"
    )]
    NoUnprivilegedUser,
    /// We are root and so is the owner of the data.
    #[error("{} belongs to root, and PostgreSQL refuses to run as root; chown it to another user", data.display())]
    DataOwnedByRoot {
        /// The cluster's data directory.
        data: PathBuf,
    },
    /// The user that the server runs as may not enter a directory above its data or programs.
    #[error(
        "PostgreSQL runs as uid {uid}, which may not enter {}; open that directory with chmod a+x, \
         or choose a place outside it",
        path.display()
    )]
    Unreachable {
        /// The directory that is closed.
        path: PathBuf,
        /// The user id of the server.
        uid: u32,
    },
    /// No directory short enough for a Unix socket could be used.
    #[error(
        "the socket directory {} is longer than {limit} bytes; choose a shorter data directory",
        path.display()
    )]
    SocketPathTooLong {
        /// The last directory that was considered.
        path: PathBuf,
        /// The longest usable length in bytes.
        limit: usize,
    },
    /// A directory that should be private belongs to somebody else.
    #[error("{} is not a directory of our own; remove it or choose another data directory", path.display())]
    ForeignDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// `initdb` failed.
    #[error("initdb could not make the cluster: {output}")]
    Initdb {
        /// What `initdb` said.
        output: String,
    },
    /// The server ended before it took connections.
    #[error("the PostgreSQL server ended at its start; its log in {} says: {tail}", log.display())]
    Startup {
        /// The directory of the log files.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },
    /// The server is alive but does not take connections.
    #[error("the PostgreSQL server took no connections for {seconds} s; see its log in {}", log.display())]
    NotReady {
        /// The directory of the log files.
        log: PathBuf,
        /// How long we waited, in seconds.
        seconds: u64,
    },
    /// Another process holds the directory but never offered a server to attach to.
    #[error(
        "another process holds {} but its server took no connections for {seconds} s; \
         end that process or wait for it",
        lock.display()
    )]
    OwnerNotReady {
        /// The lock file that is held.
        lock: PathBuf,
        /// How long we waited, in seconds.
        seconds: u64,
    },
    /// Server processes of an earlier run do not go away.
    #[error("PostgreSQL processes still use {} (for example pid {pid}); stop them first", data.display())]
    Occupied {
        /// The cluster's data directory.
        data: PathBuf,
        /// One of the processes.
        pid: i32,
    },
    /// The server ignored both the clean and the immediate stop.
    #[error("the PostgreSQL server (pid {pid}) did not stop; it is left alone")]
    NotStopped {
        /// The process id of the server.
        pid: i32,
    },
    /// The operating system refused an operation.
    #[error("could not {action} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file or program.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The package manager's command failed.
    #[error("`{command}` failed with {status}; run it by hand, or use `tallylight db install`")]
    Packages {
        /// The command as shown to the user.
        command: String,
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// An address without a checksum would run whatever the other side sends.
    #[error("an archive from an address needs its checksum; add --sha256 HEX")]
    ChecksumRequired,
    /// The archive is not the one that was asked for.
    #[error("the archive has SHA-256 {actual}, expected {expected}; nothing was installed")]
    ChecksumMismatch {
        /// The digest asked for, in hex.
        expected: String,
        /// The digest of what arrived, in hex.
        actual: String,
    },
    /// The archive holds no PostgreSQL.
    #[error("{} holds no bin/postgres and bin/initdb; nothing was installed", path.display())]
    NotAnArchive {
        /// Where it was unpacked.
        path: PathBuf,
    },
    /// The archive could not be fetched.
    #[error("could not download {from}; fetch it by hand and pass --archive FILE")]
    Download {
        /// The address.
        from: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// Wraps a system error with what was tried on which path; for `map_err`.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io { action, path, source }
    }
}

impl Error {
    /// Whether there is no PostgreSQL to run, so that installing it would help.
    pub fn is_not_installed(&self) -> bool {
        matches!(self, Self::NoBinaries { .. })
    }
}
