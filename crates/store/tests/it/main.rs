//! The store on a real PostgreSQL: one throwaway cluster for the binary, a database per test.
//!
//! Tests go through the crate's public functions; plain SQL stands only where a test looks at
//! tables, plays another program, or breaks something.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod append;
mod cleanup;
mod conformance;
mod distribute;
mod endpoints;
mod enqueue;
mod enqueue_many;
mod erasure;
mod feed;
mod fencing;
mod finish;
mod history;
mod install;
mod interleavings;
mod job_verbs;
mod jobs;
mod leases;
mod limits;
mod parked;
mod partitions;
mod random_workers;
mod rate;
mod reaction;
mod read;
mod rebuild;
mod replay;
mod roles;
mod schedules;
mod seal;
mod support;
mod together;
mod waits;
mod wake;
