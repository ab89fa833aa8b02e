//! The worker: owns slices, reads the log, folds, decides, runs jobs, appends what came of them.
//!
//! * [`react`](mod@react): events to state, rows, jobs and announcements, in one transaction
//! * `progress`, `metrics`: what it knows of its slices, for health and for numbers
//! * `leases`: which slices this process holds, shared with the other processes without a leader
//! * `engine`: due jobs of the held slices; marks, hands out, finishes
//! * `gauges`: how many jobs wait, and for how long, as samples of the held slices tell
//! * `calls`: breaker, retry budget and rate of every target that jobs call
//! * [`Handlers`]: kinds of one's own beside them
//! * [`Steps`]: what a handler has done and waits for, kept from start to start
//! * `sweeps`: when this process looked at what no webhook told
//! * `schedules`: enqueues the jobs of schedules that are due
//! * `execution`: the only place that names apalis; runs handlers and judges how they end
//! * `jobs`: one file per job; [`jobs::KINDS`] lists them
//!
//! Nothing here knows SQL or HTTP. Dying at any point loses nothing: the next holder of the slice
//! reads the same state.

mod calls;
mod claimed;
mod config;
mod context;
mod deliveries;
mod engine;
mod execution;
mod gauges;
mod handlers;
pub mod jobs;
mod leases;
mod metrics;
mod news;
mod notes;
mod progress;
mod react;
mod run;
mod running;
mod schedules;
mod steps;
mod sweeps;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use calls::{Rate, Rates};
pub use claimed::SUSPECT;
pub use config::Config;
pub use context::Context;
pub use handlers::{Handlers, KindError, Run, Script};
pub use metrics::Metrics;
pub use progress::{Complaint, Health};
pub use run::Worker;
pub use steps::{Steps, WaitFor, Waited};
