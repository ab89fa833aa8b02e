//! What all tasks of one simulator share, and the only place where the world meets the clock.
//!
//! Whoever touches the world takes its webhooks to the delivery queue before letting go of it, so
//! webhooks queue in the order in which they were decided.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use chrono::{DateTime, Utc};
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::faults::FaultBook;
use crate::log::{Log, RequestLogEntry};
use crate::webhooks::DeliveryQueue;
use crate::world::World;
use crate::{Config, Faults};

/// Everything that outlives one request.
pub(crate) struct Shared {
    world: Mutex<World>,
    /// Something new may be due earlier than expected.
    planned: Notify,
    pub(crate) faults: FaultBook,
    pub(crate) requests: Log<RequestLogEntry>,
    pub(crate) deliveries: DeliveryQueue,
    pub(crate) shutdown: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl Shared {
    /// Makes the shared state of a new simulator.
    pub(crate) fn new(config: &Config) -> Self {
        let shared = Self {
            world: Mutex::new(World::new(config)),
            planned: Notify::new(),
            faults: FaultBook::new(config.seed),
            requests: Log::new(),
            deliveries: DeliveryQueue::new(config.webhook_url.clone()),
            shutdown: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        shared.set_faults(config.faults.clone());
        shared
    }

    /// Replaces all faults, those of the world among them.
    pub(crate) fn set_faults(&self, faults: Faults) {
        self.with_world(|world, now| world.set_mishaps(now, &faults.mishaps));
        self.faults.set(faults);
    }

    /// Does something with the world now. Returns what came of it, and one receiver for each webhook
    /// that has to be delivered before the cause is answered.
    pub(crate) fn with_world<T>(
        &self,
        act: impl FnOnce(&mut World, DateTime<Utc>) -> T,
    ) -> (T, Vec<oneshot::Receiver<()>>) {
        let mut world = lock(&self.world);
        let outcome = act(&mut world, now());
        let awaited = self.queue_webhooks(&mut world);
        drop(world);
        self.planned.notify_one();
        (outcome, awaited)
    }

    /// Does what is due in the world, whenever it is due, until the simulator is shut down.
    pub(crate) async fn keep_time(&self) {
        loop {
            let next_due = {
                let mut world = lock(&self.world);
                world.advance(now());
                self.queue_webhooks(&mut world);
                world.next_due()
            };
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                () = self.planned.notified() => {}
                () = sleep_until(next_due) => {}
            }
        }
    }

    /// Takes the world's webhooks to the delivery queue, under the world's lock.
    fn queue_webhooks(&self, world: &mut World) -> Vec<oneshot::Receiver<()>> {
        let decided = world.take_webhooks().into_iter();
        decided
            .filter_map(|webhook| {
                let fate = self.faults.fate_of(webhook.kind, webhook.about);
                self.deliveries.enqueue(&webhook, &fate)
            })
            .collect()
    }
}

/// Sleeps until a moment, or for ever if there is none.
pub(crate) async fn sleep_until(moment: Option<DateTime<Utc>>) {
    match moment {
        Some(moment) => {
            // A moment in the past is now.
            tokio::time::sleep((moment - now()).to_std().unwrap_or_default()).await;
        }
        None => std::future::pending().await,
    }
}

/// Locks a mutex whether or not another thread has panicked: every change under these locks is
/// complete before anything can panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads the clock.
pub(crate) fn now() -> DateTime<Utc> {
    SystemTime::now().into()
}
