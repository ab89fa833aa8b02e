//! Lanes: appends in batches, without a timer.
//!
//! A *lane* takes what is queued for its slices and appends it in one call; the next batch forms
//! meanwhile. At low load an append waits for one commit, under load batches grow by themselves. A batch whose
//! outcome is unknown is repeated unchanged under its id, so that it is stored once. What the
//! database does not take in time goes to the spool, and everything newer of that lane behind it,
//! until the spool is drained: events of one lane are stored in the order they were queued.
//!
//! Knows nothing of HTTP, and looks into an event only where the database refused it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use domain::event::NewEvent;
use domain::ids::Timestamp;
use store::{Log, Notifier};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::{Metrics, Rejected, Spool};

mod append;
mod backlog;
mod batch;
mod lane;
mod pulse;
#[cfg(test)]
mod tests;

pub(crate) use pulse::Pulse;

use backlog::Backlog;
use lane::Lane;

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
    /// Slices of a lane. A call costs much the same for one event as for ten, so fewer lanes are
    /// faster; a slice that cannot be written to holds up its lane.
    pub slices_per_lane: u16,
    /// How long an event may wait for its commit before its batch is spooled.
    pub spool_after: Duration,
    /// Longest wait of a caller where the spool takes nothing either.
    pub deadline: Duration,
    /// Longest wait for one call of the database before it is repeated.
    pub attempt: Duration,
    /// Longest wait of [`Lanes::drain`].
    pub grace: Duration,
    /// The clock that dates what the lanes themselves append.
    pub clock: fn() -> Timestamp,
    /// Newer batches overtake what is in the spool: a fault, to show that it would be noticed.
    #[cfg(feature = "testing")]
    pub overtakes_spool: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            queue: 1024,
            queued_bytes: 64 << 20,
            batch_events: 1000,
            batch_bytes: 1 << 20,
            slices_per_lane: 16,
            // Senders wait for 5 s at least, and a commit takes milliseconds.
            spool_after: Duration::from_secs(1),
            deadline: Duration::from_secs(20),
            // Above the 5 s for a connection and the 2 s for a lock.
            attempt: Duration::from_secs(8),
            grace: Duration::from_secs(10),
            clock: || SystemTime::now().into(),
            #[cfg(feature = "testing")]
            overtakes_spool: false,
        }
    }
}

/// How an event was kept. Each of them outlives a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Committed.
    Appended,
    /// It was there before, by its key.
    Known,
    /// In the spool; committed once the database is back.
    Spooled,
    /// Committed in a form that the database does not refuse.
    Unrecognized,
}

/// How an append ended.
pub type Ended = Result<Kept, Rejected>;

/// All lanes of this process. Clones share them.
#[derive(Debug, Clone)]
pub struct Lanes {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    /// By lane; a slice's lane is its remainder by their number.
    queues: Vec<mpsc::Sender<Queued>>,
    /// By lane: since when its oldest event waits, and its oldest spooled batch.
    pulses: Vec<(Arc<Pulse>, Arc<Pulse>)>,
    /// One permit per byte.
    room: Arc<Semaphore>,
    /// All of its permits.
    rooms: usize,
    tasks: TaskTracker,
}

/// What the lanes have in common.
#[derive(Debug)]
struct Shared {
    store: Box<dyn Log>,
    notifier: Notifier,
    spool: Spool,
    metrics: Arc<Metrics>,
    config: Config,
    /// Cancelled: the queues close.
    closing: CancellationToken,
}

/// Events of one lane that are queued together, and who waits for them.
#[derive(Debug)]
enum Piece {
    /// A webhook. One that the database refuses is kept all the same.
    One(NewEvent, oneshot::Sender<Ended>),
    /// A part of a request, answered together. What is refused is told.
    Many(Vec<NewEvent>, oneshot::Sender<Vec<Ended>>),
}

/// A piece on its way.
#[derive(Debug)]
struct Queued {
    piece: Piece,
    since: Instant,
    /// Held until the reply.
    room: OwnedSemaphorePermit,
}

impl Lanes {
    /// Starts a task per lane, each of which drains first what an earlier process left in
    /// `spool`. They end with [`Lanes::drain`], or with the last clone once everything queued is
    /// kept.
    pub fn start(
        store: impl Log + 'static,
        notifier: Notifier,
        spool: Spool,
        metrics: Arc<Metrics>,
        config: Config,
    ) -> Self {
        let rooms = config.queued_bytes.clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        let closing = CancellationToken::new();
        let store = Box::new(store);
        let shared = Shared { store, notifier, spool, metrics, config, closing };
        let shared = Arc::new(shared);
        let tasks = TaskTracker::new();
        let (mut queues, mut pulses) = (Vec::new(), Vec::new());
        for slices in shared.slices_of_lanes() {
            let (sender, queue) = mpsc::channel(shared.config.queue.max(1));
            let pulse = Arc::new(Pulse::default());
            let backlog = Backlog::new(shared.spool.take_left(&slices));
            shared.metrics.watch(Arc::clone(&pulse), backlog.pulse());
            queues.push(sender);
            pulses.push((Arc::clone(&pulse), backlog.pulse()));
            tasks.spawn(Lane::new(slices, Arc::clone(&shared), queue, pulse, backlog).run());
        }
        tasks.close();
        let room = Arc::new(Semaphore::new(rooms));
        Self { inner: Arc::new(Inner { shared, queues, pulses, room, rooms, tasks }) }
    }

    /// Appends an event and returns once it is kept. Once polled, the event is kept even if the
    /// caller stops waiting.
    ///
    /// # Errors
    /// [`Rejected`]; after [`Rejected::Unavailable`] the event may still be stored.
    pub async fn append(&self, event: NewEvent) -> Ended {
        let (reply, ended) = oneshot::channel();
        let lane = self.inner.lane_of(&event);
        self.inner.queue(lane, Piece::One(event, reply)).await?;
        // A lane that ended without an answer has panicked.
        ended.await.unwrap_or(Err(Rejected::Unavailable))
    }

    /// Appends events of one request and returns how each ended, in their order. Those of one lane
    /// are queued as one piece.
    pub async fn append_all(&self, events: Vec<NewEvent>) -> Vec<Ended> {
        let mut ended: Vec<Ended> = events.iter().map(|_| Err(Rejected::Unavailable)).collect();
        let mut pieces: Vec<(Vec<usize>, Vec<NewEvent>)> = Vec::new();
        pieces.resize_with(self.inner.queues.len(), Default::default);
        for (n, event) in events.into_iter().enumerate() {
            let Some((places, piece)) = pieces.get_mut(self.inner.lane_of(&event)) else {
                continue;
            };
            places.push(n);
            piece.push(event);
        }
        let mut waiting = Vec::new();
        for (lane, (places, events)) in pieces.into_iter().enumerate() {
            if events.is_empty() {
                continue;
            }
            let (reply, answers) = oneshot::channel();
            match self.inner.queue(lane, Piece::Many(events, reply)).await {
                Ok(()) => waiting.push((places, answers)),
                Err(rejected) => places.iter().for_each(|n| ended[*n] = Err(rejected.clone())),
            }
        }
        for (places, answers) in waiting {
            for (n, answer) in places.into_iter().zip(answers.await.unwrap_or_default()) {
                ended[n] = answer;
            }
        }
        ended
    }

    /// How long the event that waits longest for being kept has waited.
    pub fn oldest(&self) -> Duration {
        self.inner.pulses.iter().map(|(waiting, _)| waiting.age()).max().unwrap_or_default()
    }

    /// Whether a lane has spooled batches that are not drained.
    pub fn is_spooling(&self) -> bool {
        self.inner.pulses.iter().any(|(_, spooled)| spooled.age() > Duration::ZERO)
    }

    /// Whether the spool took nothing the last time it was needed: what the database does not take
    /// either is refused.
    pub fn is_spool_failing(&self) -> bool {
        self.inner.shared.spool.is_failing()
    }

    /// What the lanes did; the endpoint counts here too.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.inner.shared.metrics
    }

    /// Takes no more events, keeps what is queued and drains the spool, and returns whether all of
    /// that was done within the grace. Call it when no caller is left.
    pub async fn drain(&self) -> bool {
        self.inner.shared.closing.cancel();
        let drained =
            timeout(self.inner.shared.config.grace, self.inner.tasks.wait()).await.is_ok();
        if !drained {
            let bytes = self.inner.rooms - self.inner.room.available_permits();
            let spooled = self.inner.shared.metrics.spool_records();
            tracing::warn!(
                bytes,
                spooled,
                "the database did not take everything: spooled batches wait for the next start"
            );
        }
        drained
    }
}

impl Shared {
    /// The slices of each lane.
    fn slices_of_lanes(&self) -> Vec<Vec<i16>> {
        let slices: Vec<i16> = self.store.slices().slices().collect();
        let lanes = slices.len().div_ceil(usize::from(self.config.slices_per_lane.max(1)));
        let of = |lane| slices.iter().copied().skip(lane).step_by(lanes).collect();
        (0..lanes).map(of).collect()
    }
}

impl Inner {
    /// The lane of an event's slice.
    fn lane_of(&self, event: &NewEvent) -> usize {
        let slice = self.shared.store.slice_of(&event.subject);
        usize::from(slice.unsigned_abs()) % self.queues.len()
    }

    /// Queues a piece. Where it must wait for room it does so in a task of its own: a caller who
    /// has waited enough takes nothing back.
    async fn queue(self: &Arc<Self>, lane: usize, piece: Piece) -> Result<(), Rejected> {
        let Err((piece, reason)) = self.try_queue(lane, piece) else { return Ok(()) };
        if let NotQueued::Draining = reason {
            return Err(Rejected::Draining);
        }
        let inner = Arc::clone(self);
        let deadline = self.shared.config.deadline;
        let waits = async move { timeout(deadline, inner.wait_and_queue(lane, *piece)).await };
        let queued = tokio::spawn(waits).await;
        queued.ok().and_then(Result::ok).unwrap_or(Err(Rejected::Unavailable))
    }

    /// Queues a piece if there is room at once.
    fn try_queue(&self, lane: usize, piece: Piece) -> Result<(), (Box<Piece>, NotQueued)> {
        if self.shared.closing.is_cancelled() {
            return Err((Box::new(piece), NotQueued::Draining));
        }
        let Some(queue) = self.queues.get(lane) else {
            return Err((Box::new(piece), NotQueued::Draining));
        };
        let room = match Arc::clone(&self.room).try_acquire_many_owned(self.bytes(&piece)) {
            Ok(room) => room,
            Err(TryAcquireError::NoPermits) => return Err((Box::new(piece), NotQueued::Full)),
            Err(TryAcquireError::Closed) => return Err((Box::new(piece), NotQueued::Draining)),
        };
        queue.try_send(Queued { piece, since: Instant::now(), room }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(queued) => (Box::new(queued.piece), NotQueued::Full),
            mpsc::error::TrySendError::Closed(queued) => {
                (Box::new(queued.piece), NotQueued::Draining)
            }
        })
    }

    /// Waits for room and queues a piece.
    async fn wait_and_queue(&self, lane: usize, piece: Piece) -> Result<(), Rejected> {
        let since = Instant::now();
        let queue = self.queues.get(lane).ok_or(Rejected::Unavailable)?;
        let room = Arc::clone(&self.room).acquire_many_owned(self.bytes(&piece)).await;
        let room = room.map_err(|_| Rejected::Unavailable)?;
        queue.send(Queued { piece, since, room }).await.map_err(|_| Rejected::Draining)
    }

    /// The room that a piece takes; all of it for one that is larger.
    fn bytes(&self, piece: &Piece) -> u32 {
        let of = |event: &NewEvent| event.payload.len() + EVENT_OVERHEAD;
        let bytes = match piece {
            Piece::One(event, _) => of(event),
            Piece::Many(events, _) => events.iter().map(of).sum(),
        };
        u32::try_from(bytes.min(self.rooms)).unwrap_or(u32::MAX)
    }
}

/// Why a piece was not queued at once.
enum NotQueued {
    /// There is no room.
    Full,
    /// Nothing more is taken.
    Draining,
}
