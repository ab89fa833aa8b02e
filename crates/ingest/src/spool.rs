//! The spool: where batches go that the database does not take in time, so that their callers can
//! be answered all the same.
//!
//! A batch in the spool is *durable* (written and synced before its callers are answered) and
//! *frozen* (the same events under the same batch id whenever it is appended). One process has a
//! spool directory, by a lock that ends with it. Files are written in order and never changed
//! afterwards, and no number is given to a second one. A file is deleted only when all its records
//! are committed, and *set aside* under another name where some of it could not be read: for good
//! where it is damaged, for a while where its last record is only incomplete.
//!
//! | module | does |
//! |---|---|
//! | [`mod@disk`] | what it asks of the disk |
//! | [`mod@dir`] | the directory: its names, and what makes them durable |
//! | [`record`] | a batch as bytes |
//! | [`mod@file`] | a file: its header, and which of its records are whole |
//! | [`writer`] | the one thread that writes, syncs and deletes |
//!
//! Not its job: when to spool and when to drain. Each lane decides that for its slice.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use domain::event::NewEvent;
use domain::slice::SliceCount;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::{Error, Metrics};

mod dir;
mod disk;
mod file;
mod record;
#[cfg(test)]
mod tests;
mod writer;

#[cfg(test)]
pub(crate) use disk::Fault;
pub use file::Known;
pub(crate) use file::Place;
pub(crate) use record::Frozen;

use dir::Listed;
use file::State;
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
    /// What the disk is to fail at.
    #[cfg(test)]
    pub(crate) faults: disk::Faults,
}

impl Config {
    /// The usual sizes in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        // 1 GiB holds about a million webhooks; a file is deleted as a whole, so smaller ones give
        // room back sooner.
        Self {
            dir: dir.into(),
            max_bytes: 1 << 30,
            file_bytes: 16 << 20,
            #[cfg(test)]
            faults: disk::Faults::default(),
        }
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
        dir::make(dir).map_err(Error::spool("make the spool directory", dir))?;
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
            dir::sync(&self.config.dir)
        };
        write().map_err(Error::spool("note the installation", &path))
    }

    /// Opens the spool for the events of `known`: reports what is damaged, and finds what is left
    /// to drain.
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
        let Listed { files: listed, next } = dir::list(&self.config.dir)?;
        let mut files = BTreeMap::new();
        let mut left: HashMap<i16, VecDeque<Place>> = HashMap::new();
        for (number, path) in listed {
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
        let writer = Writer::new(self.config, known, (files, next), Arc::clone(&failing), metrics);
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
        let path = dir::path(&self.inner.dir, place.file);
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

    /// What an earlier process left for some slices, as it was written: the records of one batch, each
    /// of another slice, stand together.
    pub(crate) fn take_left(&self, slices: &[i16]) -> VecDeque<Place> {
        let mut left = self.inner.left.lock().unwrap_or_else(PoisonError::into_inner);
        let of = slices.iter().filter_map(|slice| left.remove(slice));
        let mut places: Vec<Place> = of.flatten().collect();
        places.sort_by_key(|place| (place.file, place.offset));
        places.into()
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

/// Reads one file and adds its records to `left`. Returns `None` for a file that holds nothing and
/// was deleted.
fn look(
    number: u64,
    path: &Path,
    known: Known,
    left: &mut HashMap<i16, VecDeque<Place>>,
) -> Result<Option<Held>, Error> {
    let bytes = fs::read(path).map_err(Error::spool("read a spool file", path))?;
    if bytes.len() < file::HEADER {
        // It was given up while it was made.
        fs::remove_file(path).map_err(Error::spool("delete an empty spool file", path))?;
        return Ok(None);
    }
    let scan = file::scan(number, &bytes, known)?;
    tell(path, &scan, bytes.len());
    if scan.records.is_empty() && scan.state() == State::Whole {
        fs::remove_file(path).map_err(Error::spool("delete an empty spool file", path))?;
        return Ok(None);
    }
    let (open, state) = (scan.records.len() as u64, scan.state());
    for place in scan.records {
        left.entry(place.slice).or_default().push_back(place);
    }
    Ok(Some(Held { bytes: bytes.len() as u64, open, state }))
}

/// Tells what is wrong with a file of `length` bytes, if anything is.
fn tell(path: &Path, scan: &file::Scan, length: usize) {
    let (file, readable) = (path.display(), scan.records.len());
    if let Some(at) = scan.torn_at {
        let bytes = length - at;
        tracing::warn!(
            %file, bytes,
            "the last record of the spool is incomplete and passed over, since its callers were \
             never answered; the file is renamed to end in .torn and kept for a while"
        );
    }
    if scan.damaged > 0 {
        tracing::error!(
            %file, damaged = scan.damaged, readable,
            "a spool file is damaged: what can be read is stored, then the file is renamed to end \
             in .damaged and kept. Check the disk, and recover what is missing from that file"
        );
    }
}
