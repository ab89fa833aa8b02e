//! The worker: owns slices, reads the log, folds, decides, runs jobs, appends what came of them.
//!
//! * [`react`](mod@react): events to state, rows, jobs and announcements, in one transaction
//! * `progress`, `metrics`: what it knows of its slices, for health and for numbers
//! * `leases`: which slices this process holds, shared with the other processes without a leader
//! * `engine`: due jobs of the held slices; marks, hands out, finishes
//! * `calls`: breaker, retry budget and rate of every target that jobs call
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
pub mod jobs;
mod leases;
mod metrics;
mod notes;
mod progress;
mod react;
mod run;
mod running;
mod schedules;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use calls::{Rate, Rates};
pub use config::Config;
pub use context::Context;
pub use metrics::Metrics;
pub use progress::{Complaint, Health};
pub use run::Worker;
