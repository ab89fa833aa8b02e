//! The jobs that run in this process, or are about to: the one book that engine and handlers share.
//! Limits follow from what runs: what is counted is changed with the book and nowhere else.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use store::{Consumer, DueJob};
use tokio::task::AbortHandle;
use uuid::Uuid;

use crate::claimed::SUSPECT;
use crate::leases::Leases;

/// Hashes an id by its last bytes, which differ in all kinds of ids: jobs are looked up many times in
/// their lives.
#[derive(Debug, Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        let last = bytes.last_chunk().copied().unwrap_or_default();
        // An odd factor carries what differs into the high bits, which tables look at too.
        self.0 = u64::from_be_bytes(last).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    /// How long an id is says nothing.
    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Ids of jobs.
pub(crate) type Ids = HashSet<Uuid, BuildHasherDefault<IdHasher>>;

/// A job that runs in this process, or is about to.
#[derive(Debug)]
struct Running {
    slice: i16,
    epoch: i64,
    key: Arc<str>,
    fair_key: Arc<str>,
    is_suspect: bool,
    handle: Option<AbortHandle>,
    /// Somebody cancelled it: however it ends, it does not go on.
    is_cancelled: bool,
}

/// The jobs that run, and what follows from them.
#[derive(Debug, Default)]
struct Book {
    jobs: HashMap<Uuid, Running, BuildHasherDefault<IdHasher>>,
    taken: Taken,
}

/// The jobs that run in this process, shared with their handlers' tasks.
#[derive(Debug, Clone, Default)]
pub(crate) struct RunningJobs(Arc<Mutex<Book>>);

impl RunningJobs {
    fn lock(&self) -> std::sync::MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a slice has running jobs.
    pub(crate) fn is_busy(&self, slice: i16) -> bool {
        self.lock().jobs.values().any(|running| running.slice == slice)
    }

    /// How many run.
    pub(crate) fn count(&self) -> usize {
        self.lock().jobs.len()
    }

    /// Notes the task that runs a job, so that it can be cancelled.
    pub(crate) fn set_handle(&self, id: Uuid, handle: AbortHandle) {
        if let Some(running) = self.lock().jobs.get_mut(&id) {
            // It was cancelled before it had a task.
            if running.is_cancelled {
                handle.abort();
            }
            running.handle = Some(handle);
        }
    }

    /// Cancels a job, at its next await. Returns whether it runs here.
    pub(crate) fn cancel(&self, id: Uuid) -> bool {
        let mut running = self.lock();
        let Some(running) = running.jobs.get_mut(&id) else { return false };
        running.is_cancelled = true;
        running.handle.iter().for_each(AbortHandle::abort);
        true
    }

    /// Whether somebody cancelled a job that runs here.
    pub(crate) fn is_cancelled(&self, id: Uuid) -> bool {
        self.lock().jobs.get(&id).is_some_and(|running| running.is_cancelled)
    }

    /// Cancels all that run, at their next await.
    pub(crate) fn abort_all(&self) {
        self.lock().jobs.values().filter_map(|r| r.handle.as_ref()).for_each(AbortHandle::abort);
    }

    /// Cancels the jobs of slices that are not held any more: another process may run them now.
    pub(crate) fn abort_lost(&self, leases: &Leases) {
        for running in self.lock().jobs.values_mut() {
            if !leases.holds(Consumer::Jobs, running.slice, running.epoch)
                // Once: what has ended may have to wait for its end to be stored.
                && let Some(handle) = running.handle.take()
            {
                tracing::warn!(slice = running.slice, "lease lost, its jobs are cancelled");
                handle.abort();
            }
        }
    }

    /// Notes a job that is about to be started under `epoch`. Returns whether it is not there yet.
    pub(crate) fn add(&self, job: &DueJob, epoch: i64) -> bool {
        let running = Running {
            slice: job.slice,
            epoch,
            key: job.key().into(),
            fair_key: job.fair_key.as_deref().unwrap_or_default().into(),
            is_suspect: job.crashes >= SUSPECT,
            handle: None,
            is_cancelled: false,
        };
        let Book { jobs, taken } = &mut *self.lock();
        match jobs.entry(job.id) {
            Entry::Vacant(entry) => taken.add(job.id, entry.insert(running)),
            Entry::Occupied(_) => return false,
        }
        true
    }

    pub(crate) fn remove(&self, id: Uuid) {
        let Book { jobs, taken } = &mut *self.lock();
        if let Some(running) = jobs.remove(&id) {
            taken.remove(id, &running);
        }
    }

    /// What runs.
    pub(crate) fn taken(&self) -> Taken {
        self.lock().taken.clone()
    }
}

/// What runs, counted; cheap to copy.
#[derive(Debug, Clone, Default)]
pub(crate) struct Taken {
    /// The jobs.
    pub(crate) ids: Ids,
    /// How many of each key.
    pub(crate) keys: HashMap<Arc<str>, usize>,
    /// How many of each fair key; those without one count as one.
    pub(crate) fair_keys: HashMap<Arc<str>, usize>,
    /// How many of them are suspects.
    pub(crate) suspects: usize,
}

impl Taken {
    fn add(&mut self, id: Uuid, job: &Running) {
        self.ids.insert(id);
        *self.keys.entry(Arc::clone(&job.key)).or_default() += 1;
        *self.fair_keys.entry(Arc::clone(&job.fair_key)).or_default() += 1;
        self.suspects += usize::from(job.is_suspect);
    }

    fn remove(&mut self, id: Uuid, job: &Running) {
        self.ids.remove(&id);
        take_one(&mut self.keys, &job.key);
        take_one(&mut self.fair_keys, &job.fair_key);
        self.suspects -= usize::from(job.is_suspect);
    }
}

fn take_one(counts: &mut HashMap<Arc<str>, usize>, key: &str) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
