//! The spool: where batches go that the database does not take in time, so that their callers can
//! be answered all the same.
//!
//! A batch in the spool is *durable* (written and synced before its callers are answered) and
//! *frozen* (the same events under the same batch id whenever it is appended). One process has a
//! spool directory, by a lock that ends with it. Files are written in order and never changed; one
//! is deleted only when all its records are committed, and set aside, never deleted, where some of
//! it could not be read.
//!
//! | module | does |
//! |---|---|
//! | [`record`] | a batch as bytes |
//! | [`mod@file`] | a file: its header, and which of its records are whole |
//! | [`writer`] | the one thread that writes, syncs and deletes |
//!
//! Not its job: when to spool and when to drain. Each lane decides that for its slice.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use domain::event::NewEvent;
use domain::slice::SliceCount;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::{Error, Metrics};

mod file;
mod record;
#[cfg(test)]
mod tests;
mod writer;

pub use file::Known;
pub(crate) use file::Place;
pub(crate) use record::Frozen;

use writer::{Held, Task, Writer};

/// Requests to the writer that may wait. Each lane has one at a time, besides what it releases.
const QUEUE: usize = 1024;

/// Where the spool lies and how large it may become.
#[derive(Debug, Clone)]
pub struct Config {
    /// Its directory; made if missing. On a container it needs a volume.
    pub dir: PathBuf,
    /// Most bytes of all files together; then callers are told to come back.
    pub max_bytes: u64,
    /// Length from which on a file gets no more records.
    pub file_bytes: u64,
}

impl Config {
    /// The usual sizes in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        // 1 GiB holds about a million webhooks; a file is deleted as a whole, so smaller ones give
        // room back sooner.
        Self { dir: dir.into(), max_bytes: 1 << 30, file_bytes: 16 << 20 }
    }
}

/// A locked directory, before it is known whose events it may hold.
#[derive(Debug)]
pub struct SpoolDir {
    config: Config,
    lock: File,
}

impl SpoolDir {
    /// Makes the directory and takes its lock, which ends with the process.
    ///
    /// # Errors
    /// [`Error::SpoolTaken`] where another process has it, [`Error::Spool`] where it cannot be made
    /// or written.
    pub fn lock(config: Config) -> Result<Self, Error> {
        let dir = &config.dir;
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(Error::spool("make the spool directory", dir))?;
        let path = dir.join("lock");
        let lock = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
        let lock = lock.map_err(Error::spool("open the lock of the spool", &path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { config, lock }),
            Err(TryLockError::WouldBlock) => Err(Error::SpoolTaken { dir: dir.clone() }),
            Err(TryLockError::Error(source)) => {
                Err(Error::Spool { doing: "lock the spool", path, source })
            }
        }
    }

    /// Whose events this process took last; `None`: it has never reached a database, or the note
    /// cannot be read.
    pub fn known(&self) -> Option<Known> {
        let known: Known = serde_json::from_slice(&fs::read(self.note()).ok()?).ok()?;
        SliceCount::new(known.slices.get()).map(|_| known)
    }

    fn note(&self) -> PathBuf {
        self.config.dir.join("installation.json")
    }

    /// Notes `known` for a start without the database.
    fn remember(&self, known: Known) -> Result<(), Error> {
        if self.known() == Some(known) {
            return Ok(());
        }
        let (path, draft) = (self.note(), self.config.dir.join("installation.tmp"));
        let text = serde_json::to_vec(&known).unwrap_or_default();
        let write = || {
            let mut file = File::create(&draft)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&draft, &path)?;
            sync_dir(&self.config.dir)
        };
        write().map_err(Error::spool("note the installation", &path))
    }

    /// Opens the spool for the events of `known`: cuts off what is torn, reports what is damaged,
    /// and finds what is left to drain.
    ///
    /// # Errors
    /// [`Error::SpoolOfAnother`] where files of another installation are left, [`Error::Spool`]
    /// where a file cannot be read.
    pub fn open(self, known: Known, metrics: Arc<Metrics>) -> Result<Spool, Error> {
        let dir = self.config.dir.clone();
        self.open_on(known, metrics, |writer, queue, lock| {
            let thread = std::thread::Builder::new().name("spool".to_owned()).spawn(move || {
                writer.run(queue);
                drop(lock);
            });
            thread.map_err(Error::spool("start the thread that writes the spool", &dir))?;
            Ok(())
        })
    }

    /// As [`open`](Self::open), with all work on the files done on the runtime's own thread: for
    /// simulations, where what waits for a disk must not let time pass.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    #[cfg(feature = "testing")]
    pub fn open_inline(self, known: Known, metrics: Arc<Metrics>) -> Result<Spool, Error> {
        let mut spool = self.open_on(known, metrics, |writer, queue, lock| {
            tokio::spawn(async move {
                writer.run_inline(queue).await;
                drop(lock);
            });
            Ok(())
        })?;
        if let Some(inner) = Arc::get_mut(&mut spool.inner) {
            inner.is_inline = true;
        }
        Ok(spool)
    }

    /// Opens the spool, and has `start` run its writer until that has nothing more to do.
    fn open_on(
        self,
        known: Known,
        metrics: Arc<Metrics>,
        start: impl FnOnce(Writer, mpsc::Receiver<Task>, File) -> Result<(), Error>,
    ) -> Result<Spool, Error> {
        let mut files = BTreeMap::new();
        let mut left: HashMap<i16, VecDeque<Place>> = HashMap::new();
        for (number, path) in numbered(&self.config.dir)? {
            let held = look(number, &path, known, &mut left)?;
            files.extend(held.map(|held| (number, held)));
        }
        self.remember(known)?;
        let records: u64 = files.values().map(|held| held.open).sum();
        let bytes: u64 = files.values().map(|held| held.bytes).sum();
        if records > 0 {
            tracing::warn!(records, bytes, "the spool of an earlier process is drained first");
        }
        let (tasks, queue) = mpsc::channel(QUEUE);
        let failing = Arc::new(AtomicBool::new(false));
        let dir = self.config.dir.clone();
        let writer = Writer::new(self.config, known, files, Arc::clone(&failing), metrics);
        start(writer, queue, self.lock)?;
        let left = Mutex::new(left);
        let inner = Inner {
            dir,
            tasks,
            failing,
            left,
            #[cfg(feature = "testing")]
            is_inline: false,
        };
        Ok(Spool { inner: Arc::new(inner) })
    }
}

/// The spool of this process. Clones share it; the lock ends with the last.
#[derive(Debug, Clone)]
pub struct Spool {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    tasks: mpsc::Sender<Task>,
    /// The last write failed.
    failing: Arc<AtomicBool>,
    /// What an earlier process left, until its lane takes it.
    left: Mutex<HashMap<i16, VecDeque<Place>>>,
    /// Files are read on the runtime's own thread.
    #[cfg(feature = "testing")]
    is_inline: bool,
}

/// Why a batch was not spooled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotSpooled {
    /// The limit is reached.
    #[error("spool a batch: the spool has reached its limit (ingest.spool_limit)")]
    Full,
    /// The disk is full or fails.
    #[error("spool a batch")]
    Disk(#[source] std::io::Error),
    /// The process ends.
    #[error("spool a batch: the spool is closed")]
    Closed,
}

impl Spool {
    /// Writes a batch and returns once it is durable.
    ///
    /// # Errors
    /// [`NotSpooled`]: the batch is not kept, though parts of it may be on the disk.
    pub(crate) async fn write<E: Borrow<NewEvent>>(
        &self,
        slice: i16,
        id: Uuid,
        events: &[E],
    ) -> Result<Place, NotSpooled> {
        let (reply, written) = oneshot::channel();
        let task = Task::Write { slice, body: record::body(slice, id, events), reply };
        self.inner.tasks.send(task).await.map_err(|_| NotSpooled::Closed)?;
        written.await.unwrap_or(Err(NotSpooled::Closed))
    }

    /// Reads a batch; `None` where it is damaged, or cut off, and will never be read.
    ///
    /// # Errors
    /// What the system says where the file cannot be read now: no descriptor, no memory, a disk
    /// that fails. Another try may succeed.
    pub(crate) async fn read(&self, place: Place) -> std::io::Result<Option<Frozen>> {
        let path = path(&self.inner.dir, place.file);
        #[cfg(feature = "testing")]
        if self.inner.is_inline {
            return read(&path, place);
        }
        let read = move || read(&path, place);
        tokio::task::spawn_blocking(read).await.map_err(std::io::Error::other)?
    }

    /// Tells that `records` of a file need not be kept: they are committed.
    pub(crate) async fn release(&self, file: u64, records: u64) {
        // A writer that has gone leaves the file; draining it again is harmless.
        let _ = self.inner.tasks.send(Task::Release { file, records }).await;
    }

    /// Tells that a record of a file cannot be read: the file is set aside and not deleted.
    pub(crate) async fn spoil(&self, file: u64) {
        let _ = self.inner.tasks.send(Task::Spoil { file }).await;
    }

    /// What an earlier process left for a slice, in order.
    pub(crate) fn take_left(&self, slice: i16) -> VecDeque<Place> {
        let mut left = self.inner.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.remove(&slice).unwrap_or_default()
    }

    /// Whether the last batch that was to be spooled was not: the spool is full or its disk fails.
    pub fn is_failing(&self) -> bool {
        self.inner.failing.load(Ordering::Relaxed)
    }
}

/// Reads a batch, as [`Spool::read`] does.
fn read(path: &Path, place: Place) -> std::io::Result<Option<Frozen>> {
    let mut bytes = vec![0; place.length];
    match File::open(path)?.read_exact_at(&mut bytes, place.offset) {
        Ok(()) => Ok(record::read(&bytes, place.marker)),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// The path of a file.
fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:012}.spool"))
}

/// Makes new names durable.
fn sync_dir(dir: &Path) -> std::io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The files of a directory by number. Files set aside are told about and left alone.
fn numbered(dir: &Path) -> Result<BTreeMap<u64, PathBuf>, Error> {
    let entries = fs::read_dir(dir).map_err(Error::spool("list the spool", dir))?;
    let mut found = BTreeMap::new();
    for entry in entries {
        let path = entry.map_err(Error::spool("list the spool", dir))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let number = name.strip_suffix(".spool").and_then(|digits| digits.parse().ok());
        if let Some(number) = number {
            found.insert(number, path);
        } else if name.ends_with(".damaged") {
            tracing::warn!(
                file = %path.display(),
                "a damaged spool file is set aside: keep it until its events were recovered, then delete it"
            );
        }
    }
    Ok(found)
}

/// Reads one file and adds its records to `left`. Returns `None` for a file that holds nothing and
/// was deleted.
fn look(
    number: u64,
    path: &Path,
    known: Known,
    left: &mut HashMap<i16, VecDeque<Place>>,
) -> Result<Option<Held>, Error> {
    let bytes = fs::read(path).map_err(Error::spool("read a spool file", path))?;
    let scan = file::scan(number, &bytes, known)?;
    if let Some(at) = scan.torn_at {
        cut(path, at).map_err(Error::spool("cut a torn record off a spool file", path))?;
        let cut = bytes.len() - at;
        tracing::warn!(
            file = %path.display(),
            cut,
            "the last record of the spool was incomplete and is cut off: its callers were never answered"
        );
    }
    if scan.damaged > 0 {
        tracing::error!(
            file = %path.display(),
            damaged = scan.damaged,
            readable = scan.records.len(),
            "a spool file is damaged: what can be read is stored, then the file is renamed to end \
             in .damaged and kept. Check the disk, and recover what is missing from that file"
        );
    }
    if scan.records.is_empty() && scan.damaged == 0 {
        fs::remove_file(path).map_err(Error::spool("delete an empty spool file", path))?;
        return Ok(None);
    }
    let open = scan.records.len() as u64;
    for place in scan.records {
        left.entry(place.slice).or_default().push_back(place);
    }
    let bytes = scan.torn_at.unwrap_or(bytes.len()) as u64;
    Ok(Some(Held { bytes, open, is_damaged: scan.damaged > 0 }))
}

/// Cuts a file to a length, durably.
fn cut(path: &Path, length: usize) -> std::io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(length as u64)?;
    file.sync_all()
}
