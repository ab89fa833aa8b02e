//! The simulator as a client and a webhook receiver see it: over HTTP, in scaled time.
//!
//! Rules of the world itself are tested in virtual time beside the world; here is what only a
//! network can show.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

#[path = "surface/receiver.rs"]
mod receiver;
#[path = "surface/stage.rs"]
mod stage;

#[path = "surface/control.rs"]
mod control;
#[path = "surface/delivery.rs"]
mod delivery;
#[path = "surface/faults.rs"]
mod faults;
#[path = "surface/published.rs"]
mod published;
#[path = "surface/tutorial.rs"]
mod tutorial;
