//! Conformance: the in-memory store answers as PostgreSQL does. Random calls are made to both, and
//! every answer and, again and again, all tables are compared.
//!
//! So what is shown on the in-memory store (`tests/simulation`) says something about the real one.
//! Both are called through the traits that ingest and the worker use. Time is moved in whole hours
//! and in PostgreSQL by moving what its rows say, so that no answer depends on how fast a machine
//! is. Not its job: transactions that run at once, which `interleavings` steps through.
//!
//! `TALLYLIGHT_CONFORMANCE_SEED` repeats a run, `TALLYLIGHT_CONFORMANCE_CALLS` makes runs longer, and
//! `TALLYLIGHT_CONFORMANCE_DUMP_EVERY=1` finds the call after which tables differ.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use store::testing::{Flaws, Memory};

mod call;
mod dice;
mod dump;
mod schedules;
mod side;

use call::Call;
use side::{Ahead, Side};

use crate::support::db;

/// Calls of a run.
const CALLS: u64 = 350;

/// Calls after which all tables are compared.
const DUMP_EVERY: u64 = 50;

/// A setting of this test.
#[expect(clippy::disallowed_methods, reason = "tests have no configuration file")]
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The stores that are compared.
struct Pair {
    postgres: Side,
    memory: Side,
    tables: Memory,
}

impl Pair {
    async fn new(flaws: Flaws) -> Self {
        let db = db().await;
        let ahead = Ahead::default();
        let clock = ahead.clone();
        let tables = Memory::flawed(db.store.slices(), move || clock.now(), flaws);
        let memory = Side::memory(tables.clone(), ahead);
        Self { postgres: Side::postgres(db), memory, tables }
    }

    /// Makes random calls to both; returns the first difference.
    async fn compare(&mut self, seed: u64, calls: u64) -> Result<(), String> {
        let mut rng = StdRng::seed_from_u64(seed);
        let dump_every = setting("TALLYLIGHT_CONFORMANCE_DUMP_EVERY").unwrap_or(DUMP_EVERY);
        for n in 1..=calls {
            let call = self.tables.look(|tables| Call::any(&mut rng, tables));
            let expected = self.postgres.make(&call).await;
            let found = self.memory.make(&call).await;
            if expected != found {
                // Where the tables differ too, an earlier call may have made it.
                let tables = self.compare_tables().await.err().unwrap_or_default();
                return Err(format!(
                    "seed {seed}, call {n}: {call:?}\nPostgreSQL: {expected}\n    memory: {found}\n\
                     {tables}"
                ));
            }
            if n % dump_every == 0 || n == calls {
                self.compare_tables()
                    .await
                    .map_err(|difference| format!("seed {seed}, after call {n}: {difference}"))?;
            }
        }
        Ok(())
    }

    async fn compare_tables(&self) -> Result<(), String> {
        dump::differ(&self.postgres.dump().await, &self.memory.dump().await)
    }
}

#[expect(clippy::print_stdout, reason = "a run that failed can be repeated by its seed")]
async fn run() {
    let seed = setting("TALLYLIGHT_CONFORMANCE_SEED").unwrap_or_else(|| rand::rng().random());
    let calls = setting("TALLYLIGHT_CONFORMANCE_CALLS").unwrap_or(CALLS);
    println!("seed {seed}, {calls} calls");
    let mut pair = Pair::new(Flaws::default()).await;
    if let Err(difference) = pair.compare(seed, calls).await {
        panic!("{difference}");
    }
}

#[tokio::test]
async fn memory_answers_as_postgresql_does() {
    run().await;
}

#[tokio::test]
async fn memory_answers_as_postgresql_does_to_other_calls() {
    run().await;
}

#[tokio::test]
async fn memory_answers_as_postgresql_does_to_yet_others() {
    run().await;
}

/// The comparison would find a store without its protections.
#[tokio::test]
async fn a_memory_without_its_fence_or_its_batch_ids_is_found_out() {
    for flaws in [
        Flaws { no_fence: true, ..Flaws::default() },
        Flaws { no_batch_ids: true, ..Flaws::default() },
    ] {
        let mut pair = Pair::new(flaws).await;
        let difference = pair.compare(7, 300).await;
        assert!(difference.is_err(), "{flaws:?} was not noticed");
    }
}
