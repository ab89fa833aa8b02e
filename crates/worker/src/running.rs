//! The jobs that run in this process, or are about to: the one book that engine and handlers share.
//! Limits follow from what runs, so no counter can leak.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use store::{Consumer, DueJob};
use tokio::task::AbortHandle;
use uuid::Uuid;

use crate::claimed::SUSPECT;
use crate::leases::Leases;

/// A job that runs in this process, or is about to.
#[derive(Debug)]
struct Running {
    slice: i16,
    epoch: i64,
    key: String,
    fair_key: String,
    is_suspect: bool,
    handle: Option<AbortHandle>,
    /// Somebody cancelled it: however it ends, it does not go on.
    is_cancelled: bool,
}

/// The jobs that run in this process, shared with their handlers' tasks.
#[derive(Debug, Clone, Default)]
pub(crate) struct RunningJobs(Arc<Mutex<BTreeMap<Uuid, Running>>>);

impl RunningJobs {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Uuid, Running>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a slice has running jobs.
    pub(crate) fn is_busy(&self, slice: i16) -> bool {
        self.lock().values().any(|running| running.slice == slice)
    }

    /// How many run.
    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    /// Notes the task that runs a job, so that it can be cancelled.
    pub(crate) fn set_handle(&self, id: Uuid, handle: AbortHandle) {
        if let Some(running) = self.lock().get_mut(&id) {
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
        let Some(running) = running.get_mut(&id) else { return false };
        running.is_cancelled = true;
        running.handle.iter().for_each(AbortHandle::abort);
        true
    }

    /// Whether somebody cancelled a job that runs here.
    pub(crate) fn is_cancelled(&self, id: Uuid) -> bool {
        self.lock().get(&id).is_some_and(|running| running.is_cancelled)
    }

    /// Cancels all that run, at their next await.
    pub(crate) fn abort_all(&self) {
        self.lock().values().filter_map(|r| r.handle.as_ref()).for_each(AbortHandle::abort);
    }

    /// Cancels the jobs of slices that are not held any more: another process may run them now.
    pub(crate) fn abort_lost(&self, leases: &Leases) {
        for running in self.lock().values_mut() {
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
            key: job.key().to_owned(),
            fair_key: job.fair_key.clone().unwrap_or_default(),
            is_suspect: job.crashes >= SUSPECT,
            handle: None,
            is_cancelled: false,
        };
        match self.lock().entry(job.id) {
            Entry::Vacant(entry) => _ = entry.insert(running),
            Entry::Occupied(_) => return false,
        }
        true
    }

    pub(crate) fn remove(&self, id: Uuid) {
        self.lock().remove(&id);
    }

    /// What runs.
    pub(crate) fn taken(&self) -> Taken {
        let running = self.lock();
        let mut taken = Taken { ids: running.keys().copied().collect(), ..Taken::default() };
        for job in running.values() {
            taken.has_suspect |= job.is_suspect;
            *taken.keys.entry(job.key.clone()).or_default() += 1;
            *taken.fair_keys.entry(job.fair_key.clone()).or_default() += 1;
        }
        taken
    }
}

/// What runs, counted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Taken {
    /// The jobs.
    pub(crate) ids: HashSet<Uuid>,
    /// How many of each key.
    pub(crate) keys: HashMap<String, usize>,
    /// How many of each fair key; those without one count as one.
    pub(crate) fair_keys: HashMap<String, usize>,
    /// Whether one of them is a suspect.
    pub(crate) has_suspect: bool,
}
