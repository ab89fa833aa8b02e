//! Faults that a kit commits: on its way to the database, in a process, in a handler.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use store::testing::{Fate, Line, Memory};
use tokio::sync::Notify;
use uuid::Uuid;

use super::{Run, Script};
use crate::jobs::{Done, JobError};
use crate::steps::Steps;

/// Calls that store what became of jobs.
const COMMITS: [&str; 3] = ["mark_all", "finish", "finish_all"];

/// Kinds of the worker's own upkeep, which a kit leaves out.
const UPKEEP: [&str; 2] = ["maintain", "verify"];

/// What befalls the next run of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It panics in the place of its handler.
    Panic,
    /// Its handler begins that much later.
    Slow(Duration),
    /// Its process dies before its handler has done anything.
    CrashBefore,
    /// Its process dies when its handler has done everything, and nobody hears of it.
    CrashAfter,
    /// The lease on its slice passes to another process as it begins.
    LoseLease,
}

/// Faults to come, and what has run: shared by a kit, its line and its handlers.
#[derive(Debug, Clone, Default)]
pub(super) struct Faults(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Told of every death.
    death: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// For the next runs of each kind, in order.
    runs: BTreeMap<String, VecDeque<Fault>>,
    /// For the next commits, in order.
    commits: VecDeque<Fate>,
    /// Starts that are still allowed; `None`: all.
    starts: Option<u32>,
    has_crashed: bool,
    /// Runs that began.
    begun: Vec<Run>,
}

impl Faults {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, kind: &str, fault: Fault) {
        self.state().runs.entry(kind.to_owned()).or_default().push_back(fault);
    }

    pub(super) fn add_commits(&self, count: usize, fate: Fate) {
        self.state().commits.extend(std::iter::repeat_n(fate, count));
    }

    /// Allows so many more starts.
    pub(super) fn allow_starts(&self, starts: Option<u32>) {
        self.state().starts = starts;
    }

    /// Whether a process died; asked once.
    pub(super) fn take_crash(&self) -> bool {
        std::mem::take(&mut self.state().has_crashed)
    }

    pub(super) fn has_crashed(&self) -> bool {
        self.state().has_crashed
    }

    pub(super) fn crash(&self) {
        self.state().has_crashed = true;
        self.0.death.notify_waiters();
    }

    /// Waits until a process dies.
    pub(super) async fn death(&self) {
        let death = self.0.death.notified();
        if !self.has_crashed() {
            death.await;
        }
    }

    /// Runs that began, from the one of that number on.
    pub(super) fn begun(&self, from: usize) -> Vec<Run> {
        self.state().begun.get(from..).unwrap_or_default().to_vec()
    }

    /// A run begins.
    fn begin(&self, run: &Run) -> Option<Fault> {
        let mut state = self.state();
        state.begun.push(run.clone());
        state.starts = state.starts.map(|left| left.saturating_sub(1));
        state.runs.get_mut(&run.kind)?.pop_front()
    }
}

/// What starts jobs, and what gives back a start that was refused.
const OF_STARTS: [&str; 4] = ["due_jobs", "parked_jobs", "mark_all", "finish"];

impl Line for Faults {
    fn fate(&self, call: &'static str) -> Fate {
        let mut state = self.state();
        if state.has_crashed {
            return Fate::Refused;
        }
        if state.starts == Some(0) && OF_STARTS.contains(&call) {
            return Fate::Refused;
        }
        let fate = COMMITS.contains(&call).then(|| state.commits.pop_front()).flatten();
        fate.unwrap_or(Fate::AT_ONCE)
    }
}

/// The handlers of a kit's processes, who suffer its faults.
pub(super) struct Suffering {
    pub(super) handlers: Arc<dyn Script>,
    pub(super) faults: Faults,
    pub(super) memory: Memory,
}

impl fmt::Debug for Suffering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.handlers.fmt(f)
    }
}

impl Script for Suffering {
    fn knows(&self, kind: &str) -> bool {
        UPKEEP.contains(&kind) || self.handlers.knows(kind)
    }

    fn is_marked(&self, kind: &str) -> bool {
        self.handlers.is_marked(kind)
    }

    fn time_limit(&self, kind: &str) -> Option<Duration> {
        self.handlers.time_limit(kind)
    }

    fn run(&self, run: Run) -> BoxFuture<'static, Result<Done, JobError>> {
        self.handlers.run(run)
    }

    fn run_with(&self, run: Run, steps: Steps) -> BoxFuture<'static, Result<Done, JobError>> {
        if UPKEEP.contains(&run.kind.as_str()) && !self.handlers.knows(&run.kind) {
            let after = Duration::from_hours(24);
            return Box::pin(std::future::ready(Ok(Done::Again { after })));
        }
        let (faults, slice) = (self.faults.clone(), run.slice);
        let fault = faults.begin(&run);
        if fault == Some(Fault::LoseLease) {
            self.memory.meddle(|tables| pass_lease(tables, slice));
        }
        let handlers = Arc::clone(&self.handlers);
        Box::pin(async move {
            match fault {
                Some(Fault::Panic) => panic!("a fault of the kit"),
                Some(Fault::Slow(time)) => tokio::time::sleep(time).await,
                Some(Fault::CrashBefore) => die(&faults).await,
                Some(Fault::CrashAfter | Fault::LoseLease) | None => {}
            }
            let ended = handlers.run_with(run, steps).await;
            if fault == Some(Fault::CrashAfter) {
                die(&faults).await;
            }
            ended
        })
    }
}

/// The process dies here: it does nothing more, and the kit drops it.
async fn die(faults: &Faults) {
    faults.crash();
    std::future::pending::<()>().await;
}

/// Another process takes the slice over, and holds it for no time at all.
fn pass_lease(tables: &mut store::testing::Tables, slice: i16) {
    let slice = usize::try_from(slice).ok().and_then(|slice| tables.slices.get_mut(slice));
    if let Some(slice) = slice {
        let lease = &mut slice.jobs_lease;
        lease.owner = Some(Uuid::nil());
        lease.epoch += 1;
        lease.lease_until = domain::ids::Timestamp::default();
    }
}
