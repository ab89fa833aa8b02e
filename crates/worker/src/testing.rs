//! A worker in a test: jobs run by handlers of the test, also in the place of those that call the
//! platform, and the process has the id that the test gives it. The store may be
//! `store::testing::Memory`, and the clock of `Config` the test's own:
//! docs/adr/0014-store-as-traits.md.
//!
//! [`Kit`] puts all of that together for tests of handlers: docs/testing.md.

mod clock;
mod faults;
mod kit;
mod report;

pub use faults::Fault;
pub use kit::{Kit, Settings};
pub use report::Report;

pub use crate::handlers::{Handlers, Run, Script};

/// Faults of ours that a test plants in what handlers decide, to see that they are noticed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flaws {
    /// No handler looks before it acts, whatever an earlier start may have done.
    pub never_looks: bool,
}

#[cfg(test)]
mod tests;
