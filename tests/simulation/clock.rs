//! The clocks of a simulation: of the database, and of the processes. Both go with the runtime's
//! paused time, over several runtimes, and may jump.

use std::cell::Cell;
use std::time::Duration;

use domain::ids::Timestamp;
use tokio::time::Instant;

/// Where the clocks of this thread's run stand.
#[derive(Clone, Copy)]
struct Clocks {
    /// Time that passed in earlier lives.
    before: Duration,
    /// When the present life began; `None` between lives.
    begun: Option<Instant>,
    /// How far the database's clock is off, in milliseconds.
    database_off: i64,
    /// How far the processes' clock is off, in milliseconds.
    process_off: i64,
}

thread_local! {
    static CLOCKS: Cell<Clocks> = const {
        Cell::new(Clocks { before: Duration::ZERO, begun: None, database_off: 0, process_off: 0 })
    };
}

fn change(by: impl FnOnce(&mut Clocks)) {
    let mut clocks = CLOCKS.get();
    by(&mut clocks);
    CLOCKS.set(clocks);
}

/// Begins a run.
pub(crate) fn reset() {
    change(|c| {
        *c = Clocks { before: Duration::ZERO, begun: None, database_off: 0, process_off: 0 }
    });
}

/// Begins a life, within its runtime.
pub(crate) fn begin() {
    change(|clocks| clocks.begun = Some(Instant::now()));
}

/// Ends a life, within its runtime.
pub(crate) fn end() {
    change(|clocks| {
        clocks.before += clocks.begun.take().map(|begun| begun.elapsed()).unwrap_or_default();
    });
}

/// Time that has passed in this run.
pub(crate) fn passed() -> Duration {
    let clocks = CLOCKS.get();
    clocks.before + clocks.begun.map(|begun| begun.elapsed()).unwrap_or_default()
}

fn at(off: i64) -> Timestamp {
    let passed = i64::try_from(passed().as_micros()).unwrap();
    Timestamp::from_timestamp_micros(1_700_000_000_000_000 + passed + off * 1_000).unwrap()
}

/// The database's present.
pub(crate) fn database() -> Timestamp {
    at(CLOCKS.get().database_off)
}

/// The processes' present.
pub(crate) fn process() -> Timestamp {
    at(CLOCKS.get().process_off)
}

/// Moves the database's clock.
pub(crate) fn jump_database(millis: i64) {
    change(|clocks| clocks.database_off += millis);
}

/// Moves the processes' clock.
pub(crate) fn jump_process(millis: i64) {
    change(|clocks| clocks.process_off += millis);
}
