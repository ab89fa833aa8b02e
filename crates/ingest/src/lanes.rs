//! Lanes: appends in batches, one lane per slice, without a timer.
//!
//! A *lane* takes what is queued and appends it in one call; the next batch forms meanwhile. At
//! low load an append waits for one commit, under load batches grow by themselves. A batch whose
//! outcome is unknown is repeated unchanged under its id, so that it is stored once. Events of
//! one lane are stored in the order they were queued.
//!
//! Knows nothing of HTTP and never looks into an event.

use std::sync::Arc;
use std::time::Duration;

use domain::event::NewEvent;
use store::{Notifier, Store};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::{Counters, Rejected};

mod batch;
mod lane;
#[cfg(test)]
mod tests;

use lane::{Lane, Pulse};

/// What an event takes in memory beside its payload, roughly.
const EVENT_OVERHEAD: usize = 512;

/// Sizes and patience.
#[derive(Debug, Clone)]
pub struct Config {
    /// Most events queued per lane; further callers wait.
    pub queue: usize,
    /// Most bytes queued in all lanes together; further callers wait.
    pub queued_bytes: usize,
    /// Most events of a batch.
    pub batch_events: usize,
    /// Most payload bytes of a batch; one larger event goes alone.
    pub batch_bytes: usize,
    /// Longest wait of a caller for the commit of its event.
    pub deadline: Duration,
    /// Longest wait for one call of the database before it is repeated.
    pub attempt: Duration,
    /// Longest wait of [`Lanes::drain`].
    pub grace: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            queue: 1024,
            queued_bytes: 64 << 20,
            batch_events: 1000,
            batch_bytes: 1 << 20,
            // Longer than a failover of a managed PostgreSQL usually takes.
            deadline: Duration::from_secs(20),
            // Above the 5 s for a connection and the 2 s for a lock.
            attempt: Duration::from_secs(8),
            grace: Duration::from_secs(10),
        }
    }
}

/// All lanes of this process. Clones share them.
#[derive(Debug, Clone)]
pub struct Lanes {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    /// By slice.
    queues: Vec<mpsc::Sender<Queued>>,
    /// By slice.
    pulses: Vec<Arc<Pulse>>,
    /// One permit per byte.
    room: Arc<Semaphore>,
    /// All of its permits.
    rooms: usize,
    tasks: TaskTracker,
}

/// What the lanes have in common.
#[derive(Debug)]
struct Shared {
    store: Store,
    notifier: Notifier,
    config: Config,
    counters: Arc<Counters>,
    /// Cancelled: the queues close.
    closing: CancellationToken,
}

/// An event on its way.
#[derive(Debug)]
struct Queued {
    event: NewEvent,
    since: Instant,
    /// Gone where the caller has stopped waiting; the event is stored all the same.
    reply: oneshot::Sender<Result<Uuid, Rejected>>,
    /// Held until the reply.
    room: OwnedSemaphorePermit,
}

impl Lanes {
    /// Starts one task per slice. They end with [`Lanes::drain`], or with the last clone once
    /// everything queued is stored.
    pub fn start(store: Store, notifier: Notifier, config: Config) -> Self {
        let rooms = config.queued_bytes.clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        let (counters, closing) = (Arc::new(Counters::default()), CancellationToken::new());
        let shared = Arc::new(Shared { store, notifier, config, counters, closing });
        let tasks = TaskTracker::new();
        let (mut queues, mut pulses) = (Vec::new(), Vec::new());
        for slice in shared.store.slices().slices() {
            let (sender, queue) = mpsc::channel(shared.config.queue.max(1));
            let pulse = Arc::new(Pulse::default());
            queues.push(sender);
            pulses.push(Arc::clone(&pulse));
            tasks.spawn(Lane { slice, shared: Arc::clone(&shared), queue, pulse }.run());
        }
        tasks.close();
        let room = Arc::new(Semaphore::new(rooms));
        Self { inner: Arc::new(Inner { shared, queues, pulses, room, rooms, tasks }) }
    }

    /// Appends an event and returns its id after commit; an event that was stored before by its
    /// key counts as stored.
    ///
    /// Once queued, an event is stored even if the caller stops waiting.
    ///
    /// # Errors
    /// [`Rejected`]; after [`Rejected::Unavailable`] the event may still be stored.
    pub async fn append(&self, event: NewEvent) -> Result<Uuid, Rejected> {
        let deadline = Instant::now() + self.inner.shared.config.deadline;
        let stored = timeout_at(deadline, self.inner.append(event)).await;
        stored.unwrap_or(Err(Rejected::Unavailable))
    }

    /// How long the event that waits longest for its commit has waited.
    pub fn oldest(&self) -> Duration {
        self.inner.pulses.iter().map(|pulse| pulse.age()).max().unwrap_or_default()
    }

    /// What the lanes did; the endpoint counts here too.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.inner.shared.counters
    }

    /// Takes no more events, stores what is queued and returns whether all of it was decided
    /// within the grace. Call it when no caller is left.
    pub async fn drain(&self) -> bool {
        self.inner.shared.closing.cancel();
        let drained =
            timeout(self.inner.shared.config.grace, self.inner.tasks.wait()).await.is_ok();
        if !drained {
            let bytes = self.inner.rooms - self.inner.room.available_permits();
            tracing::error!(bytes, "queued events left behind: the database did not take them");
        }
        drained
    }
}

impl Inner {
    /// Waits for room, queues the event and waits for its commit.
    async fn append(&self, event: NewEvent) -> Result<Uuid, Rejected> {
        if self.shared.closing.is_cancelled() {
            return Err(Rejected::Draining);
        }
        let slice = self.shared.store.slice_of(&event.subject);
        let queue = usize::try_from(slice).ok().and_then(|slice| self.queues.get(slice));
        let queue = queue.ok_or(Rejected::Unavailable)?;
        let bytes = (event.payload.len() + EVENT_OVERHEAD).min(self.rooms);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(bytes).await;
        let room = room.map_err(|_| Rejected::Unavailable)?;
        let (reply, stored) = oneshot::channel();
        let queued = Queued { event, since: Instant::now(), reply, room };
        queue.send(queued).await.map_err(|_| Rejected::Draining)?;
        // A lane that ended without an answer has panicked.
        stored.await.unwrap_or(Err(Rejected::Unavailable))
    }
}
