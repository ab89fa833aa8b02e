//! The store in memory: the same answers as PostgreSQL gives, on a clock and over a line that a test
//! rules.
//!
//! A *line* stands between one process and the tables, as the network and the driver do between a
//! process and PostgreSQL: a call may be refused, be slow on the way there or back, or break with
//! its outcome unknown. What was sent is executed even if the caller has stopped waiting, and even
//! after the caller has sent it a second time. A call is one transaction and happens in one moment,
//! since that is what the locks of the SQL come to; how the statements of concurrent transactions
//! meet is shown on PostgreSQL itself, by `tests/it/interleavings.rs`.
//!
//! Not its job: history in segments, rebuilds, verification, the keys of accounts, what the API
//! reads.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use domain::event::NewEvent;
use domain::ids::Timestamp;
use domain::slice::SliceCount;
use tokio::sync::broadcast;
use uuid::Uuid;

use super::tables::{Flaws, Tables};
use crate::{Answer, Appended, AppendedAll, Cancelled, Error, Hint, Log, NewSchedule};

mod follow;
mod line;
mod queue;
mod upkeep;

use line::Perfect;
pub use line::{Fate, Line};

/// Hints that a slow listener may have before it; then it hears that it missed some.
const HINTS: usize = 256;

/// An installation in memory. Clones share its tables.
#[derive(Clone)]
pub struct Memory {
    shared: Arc<Shared>,
    line: Arc<dyn Line>,
}

struct Shared {
    tables: Mutex<Tables>,
    slices: SliceCount,
    clock: Box<dyn Fn() -> Timestamp + Send + Sync>,
    hints: broadcast::Sender<Hint>,
    /// Looks at the tables after every transaction.
    watch: Mutex<Option<Watch>>,
}

/// What looks at the tables after every transaction, while nobody else can change them.
type Watch = Box<dyn FnMut(&Tables) + Send>;

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("line", &self.line).finish_non_exhaustive()
    }
}

impl Memory {
    /// An empty installation, whose database has this clock.
    pub fn new(slices: SliceCount, clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self::flawed(slices, clock, Flaws::default())
    }

    /// An installation without some of its protections.
    pub fn flawed(
        slices: SliceCount,
        clock: impl Fn() -> Timestamp + Send + Sync + 'static,
        flaws: Flaws,
    ) -> Self {
        let tables = Mutex::new(Tables::new(slices, flaws));
        let (hints, _) = broadcast::channel(HINTS);
        let watch = Mutex::default();
        let shared = Shared { tables, slices, clock: Box::new(clock), hints, watch };
        Self { shared: Arc::new(shared), line: Arc::new(Perfect) }
    }

    /// The same tables, as a process sees them over a line of its own.
    #[must_use]
    pub fn over(&self, line: Arc<dyn Line>) -> Self {
        Self { shared: Arc::clone(&self.shared), line }
    }

    /// Lets `watch` look at the tables after every transaction from now on.
    pub fn watch(&self, watch: impl FnMut(&Tables) + Send + 'static) {
        let mut place = self.shared.watch.lock().unwrap_or_else(PoisonError::into_inner);
        *place = Some(Box::new(watch));
    }

    /// Looks at the tables.
    pub fn look<T>(&self, at: impl FnOnce(&Tables) -> T) -> T {
        at(&self.tables())
    }

    /// Changes the tables in ways that no call does.
    pub fn meddle<T>(&self, with: impl FnOnce(&mut Tables) -> T) -> T {
        with(&mut self.tables())
    }

    /// As `Store::retry_dead`.
    ///
    /// # Errors
    /// [`Error::NoSuchJob`].
    pub fn retry_dead(&self, id: Uuid) -> Result<(), Error> {
        self.tables().retry_dead((self.shared.clock)(), id)
    }

    /// As `Store::cancel_job`.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    pub fn cancel_job(&self, id: Uuid, force: bool) -> Result<Option<Cancelled>, Error> {
        self.tables().cancel_job(id, force)
    }

    /// As `Store::put_schedule`, for a schedule that nothing is wrong with.
    pub fn put_schedule(&self, new: &NewSchedule) {
        self.tables().put_schedule((self.shared.clock)(), new);
        self.tell(Hint::Schedules);
    }

    fn tables(&self) -> std::sync::MutexGuard<'_, Tables> {
        self.shared.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells all who listen; nobody may.
    fn tell(&self, hint: Hint) {
        let _ = self.shared.hints.send(hint);
    }
}

impl Log for Memory {
    fn slices(&self) -> SliceCount {
        self.shared.slices
    }

    fn append<'a>(
        &'a self,
        slice: i16,
        batch: Option<Uuid>,
        events: &'a [NewEvent],
    ) -> Answer<'a, Appended> {
        let events = events.to_vec();
        self.call("append", move |tables, now| tables.append(now, slice, batch, &events))
    }

    fn append_all<'a>(&'a self, batch: Uuid, events: &'a [NewEvent]) -> Answer<'a, AppendedAll> {
        let events = events.to_vec();
        self.call("append_all", move |tables, now| tables.append_all(now, batch, &events))
    }
}
