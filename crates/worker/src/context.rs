//! What handlers and loops share, built once per process.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use domain::ids::Timestamp;
use platform::Client;
use store::{Hint, Notifier, SealingKey, Work};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

use crate::calls::Calls;
use crate::config::Config;
use crate::deliveries::Deliveries;
use crate::handlers::Script;
use crate::metrics::Metrics;
use crate::news::{JobNews, News};
use crate::notes::Notes;
use crate::progress::{Health, Progress};
use crate::sweeps::Sweeps;
#[cfg(any(test, feature = "testing"))]
use crate::testing::Flaws;

/// What handlers and loops share.
#[derive(Debug, Clone)]
pub struct Context(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Box<dyn Work>,
    notifier: Notifier,
    platforms: HashMap<String, Client>,
    sealing_key: SealingKey,
    config: Config,
    process: Uuid,
    metrics: Metrics,
    calls: Calls,
    deliveries: Deliveries,
    progress: Progress,
    notes: Notes,
    sweeps: Sweeps,
    /// One for each slice: it may have new events.
    slices: Vec<Notify>,
    /// Slices folded at once.
    folds: Arc<Semaphore>,
    /// Slices that may have new due jobs.
    jobs: JobNews,
    /// Leases to be taken.
    lease: Notify,
    /// Leases that were taken.
    claim: Notify,
    /// Schedules that were changed.
    schedule: Notify,
    /// Handlers of one's own; of a test also in the place of the real ones.
    handlers: Arc<dyn Script>,
    /// Faults of ours, to see them noticed.
    #[cfg(any(test, feature = "testing"))]
    flaws: Flaws,
}

impl Context {
    /// The context of a process. `platforms` holds a client for each source. The process id is
    /// new at every start: a reused one would hide a crash.
    pub fn new(
        store: impl Work + 'static,
        platforms: HashMap<String, Client>,
        sealing_key: SealingKey,
        config: Config,
    ) -> Self {
        Self(Arc::new(Inner::new(Box::new(store), platforms, sealing_key, config)))
    }

    /// The context of a process that a test rules: its id, and its handlers.
    #[cfg(any(test, feature = "testing"))]
    pub fn scripted(
        store: impl Work + 'static,
        config: Config,
        process: Uuid,
        handlers: Arc<dyn Script>,
    ) -> Self {
        let key = SealingKey::new([7; 32]);
        let inner = Inner::new(Box::new(store), HashMap::new(), key, config);
        Self(Arc::new(Inner { process, handlers, ..inner }))
    }

    /// The context of a process that a test rules, with the real handlers.
    #[cfg(any(test, feature = "testing"))]
    pub fn ruled(
        store: impl Work + 'static,
        platforms: HashMap<String, Client>,
        config: Config,
        process: Uuid,
        flaws: Flaws,
    ) -> Self {
        let key = SealingKey::new([7; 32]);
        let inner = Inner::new(Box::new(store), platforms, key, config);
        Self(Arc::new(Inner { process, flaws, ..inner }))
    }

    /// The faults of ours.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn flaws(&self) -> Flaws {
        self.0.flaws
    }

    /// What runs jobs of `kind` that are not ours.
    pub(crate) fn own(&self, kind: &str) -> Option<&dyn Script> {
        Some(self.0.handlers.as_ref()).filter(|handlers| handlers.knows(kind))
    }

    /// The database.
    pub(crate) fn store(&self) -> &dyn Work {
        self.0.store.as_ref()
    }

    /// The present, by the clock of this process: `received_at` of what it observes.
    pub(crate) fn now(&self) -> Timestamp {
        (self.0.config.clock)()
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

    /// What it knows of the targets of calls.
    pub(crate) fn calls(&self) -> &Calls {
        &self.0.calls
    }

    /// The messages that are being sent to endpoints.
    pub(crate) fn deliveries(&self) -> &Deliveries {
        &self.0.deliveries
    }

    /// The numbers of this process, to be put under a registry.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Whether its slices are well. Knows what the loops know, so it asks nobody and costs nothing.
    pub fn health(&self) -> Health {
        let notes = self.notes().texts();
        Health { notes, ..self.progress().health(self.config().stall) }
    }

    /// How far the slices of this process are.
    pub(crate) fn progress(&self) -> &Progress {
        &self.0.progress
    }

    /// What it remembers of its sweeps.
    pub(crate) fn sweeps(&self) -> &Sweeps {
        &self.0.sweeps
    }

    /// What a person should see to.
    pub(crate) fn notes(&self) -> &Notes {
        &self.0.notes
    }

    /// Says that `slice` has new events, here and to other processes.
    pub(crate) fn events_appended(&self, slice: i16) {
        self.wake_slice(slice);
        self.0.notifier.moved(slice);
    }

    /// Says that `slice` has new jobs: to this process where it runs them, else to the others.
    pub(crate) fn jobs_enqueued(&self, slice: i16, is_ours: bool) {
        if is_ours {
            self.0.jobs.tell(News::of(slice));
        } else {
            self.0.notifier.enqueued(slice);
        }
    }

    /// Says that a lease was claimed: its slice wants a follower and may have jobs and schedules.
    pub(crate) fn claimed(&self) {
        self.0.claim.notify_one();
        self.0.jobs.tell(News::All);
        self.0.schedule.notify_one();
    }

    /// Wakes the follower of a slice, if this process has one.
    pub(crate) fn wake_slice(&self, slice: i16) {
        if let Some(wake) = usize::try_from(slice).ok().and_then(|n| self.0.slices.get(n)) {
            wake.notify_one();
        }
    }

    /// Wakes whom a hint concerns.
    pub(crate) fn hint(&self, hint: &Hint) {
        match hint {
            Hint::Slices { events, jobs } => {
                for slice in events {
                    self.wake_slice(*slice);
                }
                if !jobs.is_empty() {
                    self.0.jobs.tell(News::Of(jobs.clone()));
                }
            }
            Hint::Leases => self.0.lease.notify_one(),
            Hint::Schedules => self.0.schedule.notify_one(),
            Hint::Everything => {
                self.0.schedule.notify_one();
                self.0.slices.iter().for_each(Notify::notify_one);
                self.0.jobs.tell(News::All);
                self.0.lease.notify_one();
            }
        }
    }

    /// Waits for news of a slice.
    pub(crate) async fn slice_wake(&self, slice: i16) {
        match usize::try_from(slice).ok().and_then(|n| self.0.slices.get(n)) {
            Some(wake) => wake.notified().await,
            None => std::future::pending().await,
        }
    }

    /// Waits for a lease that was claimed.
    pub(crate) async fn claim_wake(&self) {
        self.0.claim.notified().await;
    }

    /// Waits for leases that somebody gave back.
    pub(crate) async fn lease_wake(&self) {
        self.0.lease.notified().await;
    }

    /// Waits for room to fold: transactions that run at once only wait for each other.
    pub(crate) async fn fold_slot(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        self.0.folds.clone().acquire_owned().await.ok()
    }

    /// Waits for schedules that somebody changed, or whose slice is ours now.
    pub(crate) async fn schedule_wake(&self) {
        self.0.schedule.notified().await;
    }

    /// Waits for new jobs.
    pub(crate) async fn job_wake(&self) -> News {
        self.0.jobs.heard().await
    }
}

impl Inner {
    fn new(
        store: Box<dyn Work>,
        platforms: HashMap<String, Client>,
        sealing_key: SealingKey,
        config: Config,
    ) -> Self {
        let notifier = store.notifier();
        let progress = Progress::default();
        let handlers = Arc::new(config.handlers.clone());
        let slices = usize::from(store.slices().get().unsigned_abs());
        Self {
            metrics: Metrics::new(progress.clone()),
            calls: Calls::default(),
            deliveries: Deliveries::default(),
            progress,
            notes: Notes::default(),
            sweeps: Sweeps::default(),
            slices: (0..slices).map(|_| Notify::new()).collect(),
            folds: Arc::new(Semaphore::new(config.folds.max(1))),
            store,
            notifier,
            platforms,
            sealing_key,
            config,
            process: Uuid::now_v7(),
            jobs: JobNews::default(),
            lease: Notify::new(),
            claim: Notify::new(),
            schedule: Notify::new(),
            handlers,
            #[cfg(any(test, feature = "testing"))]
            flaws: Flaws::default(),
        }
    }
}

/// The present, by this machine's clock.
pub(crate) fn now() -> Timestamp {
    Timestamp::from(SystemTime::now())
}
