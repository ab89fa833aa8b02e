//! End-to-end tests: the real processes, a real database, the simulated platform, one system for
//! each test.
//!
//! A test waits for conditions and never for time: encoders are switched, the platform's own holds
//! are switches of the simulator, and the periods of a session are configured for the case at hand.
//! What one crate can show alone is tested there; here are the flows that need all of them.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test whose premise does not hold has failed"
)]

mod system;

mod api;
mod architecture;
mod backup;
mod cleanup;
mod erasure;
mod faults;
mod handlers;
mod http_call;
mod ingest;
mod interruption;
mod jobs;
mod kill_loop;
mod ledger;
mod metrics;
mod outage;
mod parked;
mod placement;
mod platforms;
mod quota;
mod rebuild;
mod reconcile;
mod reuse;
mod scenarios;
mod secrets;
mod sources;
mod takeover;
mod tutorial;
mod webhooks;
