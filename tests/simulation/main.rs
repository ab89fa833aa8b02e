//! Simulation: the real lanes and the real loops of several workers over the in-memory store, in
//! virtual time, with faults from a seed; then everything that a log promises is checked.
//!
//! A *seed* decides everything: the load, the faults, how long each call takes. Time passes only
//! when nobody has anything to do, so an hour of leases and outages takes a second. A run has a few
//! *lives*: each but the last ends by a power cut, in which all processes die at whatever await they
//! stand, and only the database, the spool's files and the platform are left.
//!
//! Why the network is a line to the in-memory store: docs/adr/0014-store-as-traits.md. That this
//! store is as PostgreSQL: `crates/store/tests/it/conformance.rs`.
//!
//! `TALLYLIGHT_SIMULATION_SEED` repeats one run, `TALLYLIGHT_SIMULATION_RUNS` makes more of them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod check;
mod clock;
mod faults;
mod line;
mod load;
mod platform;
mod run;
mod stories;

use rand::RngExt as _;
use store::testing::Flaws;

use run::{Plan, Sabotage};

/// Runs of each test, where nothing else is asked for.
const RUNS: u64 = 6;

/// Runs after which a fault of ours must have been noticed.
const NOTICED: u64 = 40;

/// A setting of these tests.
#[expect(clippy::disallowed_methods, reason = "tests have no configuration file")]
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs many seeds; panics with the first that breaks a promise.
#[expect(clippy::print_stdout, reason = "a run that failed can be repeated by its seed")]
fn run_all() {
    let one = setting("TALLYLIGHT_SIMULATION_SEED");
    let runs = setting("TALLYLIGHT_SIMULATION_RUNS").unwrap_or(RUNS);
    let first = one.unwrap_or_else(|| rand::rng().random());
    let runs = if one.is_some() { 1 } else { runs };
    println!("seeds from {first}, {runs} runs");
    let mut events = 0;
    for seed in (0..runs).map(|n| first.wrapping_add(n)) {
        match run::run(seed, &Plan::default()) {
            Ok(told) => events += told.events,
            Err(broken) => panic!("seed {seed}: {broken}"),
        }
    }
    println!("{events} events");
}

#[test]
fn whatever_fails_nothing_acknowledged_is_lost_doubled_or_out_of_order() {
    run_all();
}

#[test]
fn whatever_fails_nothing_acknowledged_is_lost_doubled_or_out_of_order_from_other_seeds() {
    run_all();
}

#[test]
fn a_seed_says_everything() {
    for seed in 0..3 {
        let runs = [(); 2].map(|()| run::run(seed, &Plan::default()).unwrap());
        assert_eq!(runs[0], runs[1], "seed {seed}");
        assert!(runs[0].events > 50, "seed {seed}: {:?}", runs[0]);
    }
}

/// How many runs it takes until a run without a protection breaks a promise.
#[expect(clippy::print_stdout, reason = "what is noticed is worth reading")]
fn is_noticed(sabotage: &Sabotage) {
    let plan = Plan { sabotage: sabotage.clone() };
    for seed in 0..NOTICED {
        if let Err(broken) = run::run(seed, &plan) {
            println!("seed {seed}: {broken}");
            return;
        }
    }
    panic!("{sabotage:?} was not noticed in {NOTICED} runs");
}

#[test]
fn a_store_without_its_fence_is_noticed() {
    let flaws = Flaws { no_fence: true, ..Flaws::default() };
    is_noticed(&Sabotage { flaws, ..Sabotage::default() });
}

#[test]
fn a_store_without_batch_ids_is_noticed() {
    let flaws = Flaws { no_batch_ids: true, ..Flaws::default() };
    is_noticed(&Sabotage { flaws, ..Sabotage::default() });
}

#[test]
fn lanes_that_overtake_their_spool_are_noticed() {
    is_noticed(&Sabotage { overtakes_spool: true, ..Sabotage::default() });
}
