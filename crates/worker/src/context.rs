//! What handlers and loops share, built once per process.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use domain::ids::Timestamp;
use platform::Client;
use store::{Notifier, SealingKey, Store};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::config::Config;

/// What handlers and loops share.
#[derive(Debug, Clone)]
pub struct Context(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    notifier: Notifier,
    platforms: HashMap<String, Client>,
    sealing_key: SealingKey,
    config: Config,
    process: Uuid,
    reaction: Notify,
    job: Notify,
}

impl Context {
    /// The context of a process. `platforms` holds a client for each source. The process id is
    /// new at every start: a reused one would hide a crash.
    pub fn new(
        store: Store,
        platforms: HashMap<String, Client>,
        sealing_key: SealingKey,
        config: Config,
    ) -> Self {
        let notifier = store.notifier();
        Self(Arc::new(Inner {
            store,
            notifier,
            platforms,
            sealing_key,
            config,
            process: Uuid::now_v7(),
            reaction: Notify::new(),
            job: Notify::new(),
        }))
    }

    /// The database.
    pub(crate) fn store(&self) -> &Store {
        &self.0.store
    }

    /// The client of a source; `None`: this process does not know it.
    pub(crate) fn platform(&self, source: &str) -> Option<&Client> {
        self.0.platforms.get(source)
    }

    /// The names of the sources.
    pub(crate) fn sources(&self) -> impl Iterator<Item = &String> {
        self.0.platforms.keys()
    }

    /// The key that seals push addresses.
    pub(crate) fn sealing_key(&self) -> &SealingKey {
        &self.0.sealing_key
    }

    /// The settings.
    pub(crate) fn config(&self) -> &Config {
        &self.0.config
    }

    /// This process.
    pub(crate) fn process(&self) -> Uuid {
        self.0.process
    }

    /// Says that `slice` has new events, here and to other processes.
    pub(crate) fn events_appended(&self, slice: i16) {
        self.0.reaction.notify_one();
        self.0.notifier.moved(slice);
    }

    /// Says that there may be new jobs for this process.
    pub(crate) fn jobs_enqueued(&self) {
        self.0.job.notify_one();
    }

    /// Wakes both loops: something happened elsewhere.
    pub(crate) fn wake_all(&self) {
        self.0.reaction.notify_one();
        self.0.job.notify_one();
    }

    /// Waits for new events.
    pub(crate) async fn event_wake(&self) {
        self.0.reaction.notified().await;
    }

    /// Waits for new jobs.
    pub(crate) async fn job_wake(&self) {
        self.0.job.notified().await;
    }
}

/// The present, by this machine's clock: `received_at` of what this process observes.
pub(crate) fn now() -> Timestamp {
    Timestamp::from(SystemTime::now())
}
