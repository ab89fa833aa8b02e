//! The one thread that writes the spool. What waits when it comes round is written together and
//! synced once; nobody is answered before.
//!
//! A failed write leaves nothing behind that a later record could follow: the file is cut back to
//! its last whole record, or gets no more. After a failed sync nothing is known of the pages, so
//! the file gets no more either; it goes at once where nobody relies on it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::disk::{self, Disk};
use super::file::{HEADER, Known, Place, State, header};
use super::record::{self, Marker};
use super::{Config, NotSpooled, dir};
use crate::Metrics;

/// Most bytes that are written before a sync, so that the first caller of a group need not wait
/// for all the others.
const GROUP_BYTES: usize = 8 << 20;

/// What the thread is asked for.
pub(super) enum Task {
    /// Keep a batch.
    Write {
        slice: i16,
        body: Vec<u8>,
        /// Answered once it is durable.
        reply: oneshot::Sender<Result<Place, NotSpooled>>,
    },
    /// Records of a file are committed.
    Release { file: u64, records: u64 },
    /// A record of a file cannot be read.
    Spoil { file: u64 },
}

/// A file that holds records.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub(super) bytes: u64,
    /// Records that are not known to be committed.
    pub(super) open: u64,
    /// Whether it is deleted in the end, or set aside.
    pub(super) state: State,
}

/// The file that gets new records.
struct Active {
    number: u64,
    marker: Marker,
    file: File,
    length: u64,
}

/// A record to be written, and who waits for it.
struct Waiting {
    slice: i16,
    body: Vec<u8>,
    reply: oneshot::Sender<Result<Place, NotSpooled>>,
}

/// State of the thread.
pub(super) struct Writer {
    disk: Box<dyn Disk>,
    config: Config,
    known: Known,
    files: BTreeMap<u64, Held>,
    next: u64,
    active: Option<Active>,
    failing: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
}

impl Writer {
    /// Goes on after `files`, with the file `next`.
    pub(super) fn new(
        config: Config,
        known: Known,
        (files, next): (BTreeMap<u64, Held>, u64),
        failing: Arc<AtomicBool>,
        metrics: Arc<Metrics>,
    ) -> Self {
        // A file without records that can be read has nobody to release it.
        let spoilt: Vec<u64> = files.iter().filter(|(_, h)| h.open == 0).map(|(n, _)| *n).collect();
        let disk = disk::of(&config);
        let mut writer = Self { disk, config, known, files, next, active: None, failing, metrics };
        for number in spoilt {
            writer.release(number, 0);
        }
        writer.measure();
        writer
    }

    /// Works until the last sender has gone.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Task>) {
        while let Some(first) = queue.blocking_recv() {
            self.work(first, &mut queue);
        }
    }

    /// As [`run`](Self::run), on the runtime's own thread: the order of what happens is the same
    /// in every run.
    #[cfg(feature = "testing")]
    pub(super) async fn run_inline(mut self, mut queue: mpsc::Receiver<Task>) {
        while let Some(first) = queue.recv().await {
            self.work(first, &mut queue);
        }
    }

    /// Does what is asked first, and what waits behind it.
    fn work(&mut self, first: Task, queue: &mut mpsc::Receiver<Task>) {
        let mut group = Vec::new();
        let (mut bytes, mut next) = (0, Some(first));
        while let Some(task) = next.take() {
            match task {
                Task::Write { slice, body, reply } => {
                    bytes += body.len();
                    group.push(Waiting { slice, body, reply });
                }
                Task::Release { file, records } => self.release(file, records),
                Task::Spoil { file } => self.spoil(file),
            }
            if bytes < GROUP_BYTES {
                next = queue.try_recv().ok();
            }
        }
        if !group.is_empty() {
            self.write(group);
        }
        self.measure();
    }

    /// Writes a group, syncs once and answers.
    fn write(&mut self, mut group: Vec<Waiting>) {
        let refused = group.split_off(self.fitting(&group));
        let ended = self.store(&group);
        self.failing.store(!refused.is_empty() || ended.is_err(), Ordering::Relaxed);
        for waiting in refused {
            let _ = waiting.reply.send(Err(NotSpooled::Full));
        }
        match ended {
            Ok(places) => {
                for (waiting, place) in group.into_iter().zip(places) {
                    let _ = waiting.reply.send(Ok(place));
                }
            }
            Err(error) => {
                tracing::error!(
                    dir = %self.config.dir.display(), %error,
                    "the spool cannot be written: free its disk or mend it"
                );
                for waiting in group {
                    // An error is no value that can be copied; its kind and number are what counts.
                    let copy = error.raw_os_error().map_or_else(
                        || io::Error::from(error.kind()),
                        io::Error::from_raw_os_error,
                    );
                    let _ = waiting.reply.send(Err(NotSpooled::Disk(copy)));
                }
            }
        }
    }

    /// How many of a group fit below the limit, in order: a later one must not overtake.
    fn fitting(&self, group: &[Waiting]) -> usize {
        let mut total = self.bytes() + HEADER as u64;
        let fits = |waiting: &&Waiting| {
            total += record::size(&waiting.body);
            total <= self.config.max_bytes
        };
        group.iter().take_while(fits).count()
    }

    /// Makes a group durable.
    fn store(&mut self, group: &[Waiting]) -> io::Result<Vec<Place>> {
        if group.is_empty() {
            return Ok(Vec::new());
        }
        let mut active = match self.active.take() {
            Some(active) => active,
            None => self.create()?,
        };
        let (mut bytes, mut places) = (Vec::new(), Vec::new());
        for waiting in group {
            let offset = active.length + bytes.len() as u64;
            let start = bytes.len();
            record::put(&mut bytes, active.marker, &waiting.body);
            let (length, slice) = (bytes.len() - start, waiting.slice);
            places.push(Place {
                file: active.number,
                marker: active.marker,
                offset,
                length,
                slice,
            });
        }
        let number = active.number;
        let held = self.files.entry(number).or_insert(Held {
            bytes: HEADER as u64,
            open: 0,
            state: State::Whole,
        });
        if let Err(error) = self.disk.write(&mut active.file, &bytes) {
            // Cut back, it can go on; else its end is found torn at the next start.
            if self.disk.cut(&active.file, active.length).is_ok() {
                self.active = Some(active);
            } else {
                self.abandon(number);
            }
            return Err(error);
        }
        active.length += bytes.len() as u64;
        held.bytes = active.length;
        if let Err(error) = self.disk.sync(&active.file) {
            self.abandon(number);
            return Err(error);
        }
        held.open += group.len() as u64;
        if active.length < self.config.file_bytes {
            self.active = Some(active);
        }
        Ok(places)
    }

    /// Makes the next file, durable under its name before a record goes into it.
    fn create(&mut self) -> io::Result<Active> {
        let number = self.next;
        let path = dir::path(&self.config.dir, number);
        let mut marker = Marker::default();
        // The second half of an id of version 7 is random.
        marker.copy_from_slice(&Uuid::now_v7().as_bytes()[8..]);
        let header = header(self.known, marker);
        let mut options = OpenOptions::new();
        let mut file = options.append(true).create_new(true).mode(0o600).open(&path)?;
        self.next += 1;
        let written = file.write_all(&header).and_then(|()| file.sync_all());
        if let Err(error) = written.and_then(|()| dir::sync(&self.config.dir)) {
            // Nothing but a header is in it.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        Ok(Active { number, marker, file, length: HEADER as u64 })
    }

    /// Gives up a file that gets no more records. Nobody would release one without any.
    fn abandon(&mut self, number: u64) {
        self.release(number, 0);
    }

    /// Counts records as committed; a file without open ones goes.
    fn release(&mut self, number: u64, records: u64) {
        let Some(held) = self.files.get_mut(&number) else { return };
        held.open = held.open.saturating_sub(records);
        if held.open > 0 {
            return;
        }
        let state = held.state;
        self.active.take_if(|active| active.number == number);
        self.files.remove(&number);
        self.failing.store(false, Ordering::Relaxed);
        let path = dir::path(&self.config.dir, number);
        if let Err(error) = dir::retire(&path, state) {
            // Draining it again at the next start is harmless.
            tracing::warn!(file = %path.display(), %error, "a drained spool file stays");
        }
    }

    fn spoil(&mut self, number: u64) {
        if let Some(held) = self.files.get_mut(&number) {
            held.state = State::Damaged;
        }
    }

    fn bytes(&self) -> u64 {
        self.files.values().map(|held| held.bytes).sum()
    }

    fn measure(&self) {
        let records = self.files.values().map(|held| held.open).sum();
        self.metrics.spooled(self.bytes(), records);
    }
}
