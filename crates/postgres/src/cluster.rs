//! A managed cluster as its users see it: start or join it, connect to it, stop it.

use std::{
    fmt, fs,
    fs::{File, OpenOptions},
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Pid;

use crate::{
    Error, Settings,
    account::Account,
    find::{Binaries, Places, find},
    handshake::{self, Answer},
    init::{existing_major, initialise},
    layout::{Layout, NO_FOLLOW, Password, USER, tail},
    lock::DirLock,
    recover,
    run::{Kind, Server, add_arguments},
};

/// Recovery after a crash replays the WAL; a minute of it is much, five are a fault.
const START_PATIENCE: Duration = Duration::from_mins(5);
/// An owner that is just making its cluster needs some seconds; one that recovers, more.
const ATTACH_PATIENCE: Duration = Duration::from_mins(2);
/// How often we ask a starting server; it needs 60 to 80 ms on an idle machine.
const POLL: Duration = Duration::from_millis(10);
/// Ports below the range that Linux gives to outgoing connections, so a saved port is rarely taken.
const PORTS: std::ops::Range<u16> = 20_000..32_768;
/// Another program may take a port between our look and the server's bind; not often in a row.
const PORT_ATTEMPTS: u32 = 5;
/// How much of the log an error quotes, in bytes per file.
const LOG_TAIL: u64 = 1_500;

/// A managed cluster whose server takes connections.
///
/// The owner's handle stops the server when it is stopped or dropped; an attached one does nothing. If
/// the owner ends while others are attached, the server stops under them: their connections fail, and
/// their next [`Cluster::start`] makes one of them the owner.
pub struct Cluster {
    /// The files of the cluster.
    layout: Layout,
    /// The superuser's password.
    password: Password,
    /// The server's TCP port on the loopback address.
    port: u16,
    /// What only the owner has.
    owned: Option<Owned>,
}

/// The owner's part: the server, and the lock that makes it the owner.
struct Owned {
    /// How to stop the server.
    server: Running,
    /// Whether data must survive.
    kind: Kind,
    /// Held to the end.
    _lock: DirLock,
}

/// A server that the owner stops.
enum Running {
    /// Our child.
    Child(Server),
    /// An orphan of an earlier owner.
    Adopted(Pid),
}

impl Cluster {
    /// Starts the cluster in `settings.data_dir`, made first if needed; or adopts its live server whose
    /// owner is gone; or attaches to the one that another process runs. Blocks until connections work.
    ///
    /// # Errors
    /// No suitable PostgreSQL, a foreign or newer cluster, no permission, or the server does not start.
    /// An existing data directory is never changed by a failure.
    pub fn start(settings: &Settings) -> Result<Cluster, Error> {
        Cluster::start_with(&settings.data_dir, &Places::of_system(settings.pg_bin.clone()))
    }

    /// Starts a durable cluster with the programs found in `places`.
    fn start_with(root: &Path, places: &Places) -> Result<Cluster, Error> {
        let layout = Layout::create(root)?;
        let begin = Instant::now();
        loop {
            if let Some(lock) = DirLock::try_acquire(&layout.lock())? {
                return Cluster::own(layout, Kind::Durable, places, lock);
            }
            if let Some(attached) = Cluster::attach(&layout)? {
                return Ok(attached);
            }
            if begin.elapsed() > ATTACH_PATIENCE {
                return Err(Error::OwnerNotReady {
                    lock: layout.lock(),
                    seconds: ATTACH_PATIENCE.as_secs(),
                });
            }
            thread::sleep(POLL);
        }
    }

    /// Joins the server of another owner; `None` while it does not take connections.
    fn attach(layout: &Layout) -> Result<Option<Cluster>, Error> {
        let Some(port) = layout.connection().map(|connection| connection.port) else {
            return Ok(None);
        };
        // The saved port may be of an earlier run and by now another program's.
        let live = recover::live_server(&real_data(layout));
        let matches = live.is_some_and(|file| file.port == Some(port));
        if !matches || handshake::ask(port, USER) != Answer::Ready {
            return Ok(None);
        }
        let password = layout.password()?;
        tracing::debug!(port, "attached to the PostgreSQL of another process");
        Ok(Some(Cluster { layout: layout.clone(), password, port, owned: None }))
    }

    /// Starts or adopts the server as the holder of the lock.
    pub(crate) fn own(
        layout: Layout,
        kind: Kind,
        places: &Places,
        lock: DirLock,
    ) -> Result<Cluster, Error> {
        let data = layout.data();
        let major = existing_major(&data)?;
        let account = Account::for_data(&data)?;
        if let Some(orphan) = recover::settle(&real_data(&layout))?
            && let Some(port) = orphan.port
        {
            tracing::info!(pid = %orphan.pid, port, "adopted a PostgreSQL server left by an earlier run");
            layout.save_connection(port)?;
            let password = layout.password()?;
            let owned = Owned { server: Running::Adopted(orphan.pid), kind, _lock: lock };
            return Ok(Cluster { layout, password, port, owned: Some(owned) });
        }
        let binaries = find(places, account, major.map(|major| (data.as_path(), major)))?;
        let password = match major {
            Some(_) => layout.password()?,
            None => initialise(&layout, kind, account, &binaries)?,
        };
        let (server, port) = start_server(&layout, kind, account, &binaries)?;
        let owned = Owned { server: Running::Child(server), kind, _lock: lock };
        let cluster = Cluster { layout, password, port, owned: Some(owned) };
        cluster.layout.save_connection(port)?;
        tracing::info!(port, version = binaries.version, "PostgreSQL is up");
        Ok(cluster)
    }

    /// `postgres://user:password@127.0.0.1:port/database` for the cluster's superuser `tallylight`.
    /// Holds the password: do not log it. A new cluster has the database `postgres` only.
    pub fn url(&self, database: &str) -> String {
        let password = &self.password.0;
        let database = percent_encoded(database);
        format!(
            "postgres://{USER}:{}@127.0.0.1:{}/{database}",
            percent_encoded(password),
            self.port
        )
    }

    /// Whether this handle stops the server.
    pub fn is_owner(&self) -> bool {
        self.owned.is_some()
    }

    /// The directory of the cluster, as in the settings but absolute and without links.
    pub fn data_dir(&self) -> &Path {
        self.layout.root()
    }

    /// Stops the server and waits for its end if this handle is the owner; else does nothing.
    /// A throwaway cluster is then deleted.
    ///
    /// # Errors
    /// The server does not end even after an immediate shutdown; it is left alone.
    pub fn stop(mut self) -> Result<(), Error> {
        self.shut_down()
    }

    /// Stops the server once; the lock is released last.
    fn shut_down(&mut self) -> Result<(), Error> {
        let Some(mut owned) = self.owned.take() else {
            return Ok(());
        };
        match &mut owned.server {
            Running::Child(server) => server.stop(owned.kind)?,
            Running::Adopted(pid) => recover::stop_adopted(&real_data(&self.layout), *pid)?,
        }
        self.layout.remove_outside_socket_dir();
        match owned.kind {
            Kind::Durable => Ok(()),
            Kind::Throwaway => self.layout.delete_marked(),
        }
    }

    /// The process id of the server, if this handle is its owner.
    #[cfg(test)]
    fn server_pid(&self) -> Option<Pid> {
        self.owned.as_ref().map(|owned| match &owned.server {
            Running::Child(server) => server.pid(),
            Running::Adopted(pid) => *pid,
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = self.shut_down() {
            tracing::error!(%error, "the managed PostgreSQL was not stopped cleanly");
        }
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("data_dir", &self.layout.root())
            .field("port", &self.port)
            .field("is_owner", &self.is_owner())
            .finish_non_exhaustive()
    }
}

/// The data directory without links: so it appears in `/proc`.
fn real_data(layout: &Layout) -> PathBuf {
    let data = layout.data();
    data.canonicalize().unwrap_or(data)
}

/// Starts the server on the saved port, or on another one if that is taken.
fn start_server(
    layout: &Layout,
    kind: Kind,
    account: Account,
    binaries: &Binaries,
) -> Result<(Server, u16), Error> {
    account.check_reaches(layout.root())?;
    let socket_dir = layout.create_server_dirs(account)?;
    let saved = layout.connection().map(|connection| connection.port);
    let mut port = saved.filter(|&port| is_free(port)).unwrap_or_else(choose_port);
    for _ in 1..PORT_ATTEMPTS {
        match start_on(layout, kind, account, binaries, port, &socket_dir) {
            Err(Error::Startup { .. }) if !is_free(port) => port = choose_port(),
            result => return result.map(|server| (server, port)),
        }
    }
    start_on(layout, kind, account, binaries, port, &socket_dir).map(|server| (server, port))
}

/// Starts the server on one port and waits until it takes connections.
fn start_on(
    layout: &Layout,
    kind: Kind,
    account: Account,
    binaries: &Binaries,
    port: u16,
    socket_dir: &Path,
) -> Result<Server, Error> {
    let mut command = account.command(&binaries.bin.join("postgres"));
    add_arguments(&mut command, layout, kind, port, socket_dir);
    let log = open_startup_log(layout)?;
    let copy = log.try_clone().map_err(Error::io("open", layout.startup_log()))?;
    command.stdout(copy).stderr(log);
    let mut server = Server::spawn(command)?;
    let begin = Instant::now();
    while handshake::ask(port, USER) != Answer::Ready {
        if server.wait(POLL).is_some() {
            return Err(Error::Startup { log: layout.log(), tail: log_tail(layout) });
        }
        if begin.elapsed() > START_PATIENCE {
            server.stop(kind)?;
            return Err(Error::NotReady { log: layout.log(), seconds: START_PATIENCE.as_secs() });
        }
    }
    server.report_end();
    Ok(server)
}

/// Opens the file for what the server says before its own log opens, emptied.
fn open_startup_log(layout: &Layout) -> Result<File, Error> {
    let path = layout.startup_log();
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(NO_FOLLOW)
        .open(&path)
        .map_err(Error::io("open", path))
}

/// The end of what the server said last: before its log opened, and in the newest log file.
fn log_tail(layout: &Layout) -> String {
    let newest = fs::read_dir(layout.log())
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            Some((entry.metadata().ok()?.modified().ok()?, entry.path()))
        })
        .max();
    let early = tail(&layout.startup_log(), LOG_TAIL);
    let late = newest.map(|(_, path)| tail(&path, LOG_TAIL)).unwrap_or_default();
    [early, late].join("\n").trim().to_owned()
}

/// Whether nobody listens on the port.
fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// A free port, outside the range of outgoing connections if possible.
fn choose_port() -> u16 {
    let tries = (0..100).map(|_| rand::random_range(PORTS));
    tries.into_iter().find(|&port| is_free(port)).unwrap_or_else(|| {
        // So many taken ports are no chance; let the system look, or the server say why none works.
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.local_addr())
            .map_or(PORTS.start, |address| address.port())
    })
}

/// Text as one part of a URL.
fn percent_encoded(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(byte);
    text.bytes()
        .map(
            |byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") },
        )
        .collect()
}

#[cfg(test)]
mod tests;
