//! Gauges of jobs: how many there are by kind, queue and state, and how long the oldest that may
//! start has waited; and of the quotas of the sources, which are looked at beside.
//!
//! They come from *samples*: each process looks at the slices it holds, one after another, so that
//! the processes together see each slice once and nobody leads. A sample costs what it reads, so
//! after each the loop rests for [`REST`] times as long: sampling takes no more than a fiftieth of
//! one connection, whatever the backlog. A scrape reads what the last samples found.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use store::{Consumer, Error, JobGroup, JobSample, TableRows};
use tokio::time::Instant;

use crate::context::Context;
use crate::leases::{Leases, chain};
use crate::metrics::QuotaGauges;

/// Rest after a sample, in its own time.
const REST: u32 = 49;

/// Most pairs of kind and queue with numbers of their own: producers choose queues, and a program
/// that makes one up for each job must not make a number of each. The others count as `other`.
const MOST_PAIRS: usize = 200;

/// The slice whose holder tells of what is not of a slice, so that one process does.
const FIRST: i16 = 0;

/// What the last samples found.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gauges(Arc<Mutex<Seen>>, QuotaGauges);

#[derive(Debug, Default)]
struct Seen {
    slices: BTreeMap<i16, (Instant, JobSample)>,
    tables: Vec<TableRows>,
}

/// Jobs that are alike.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct JobLabels {
    kind: String,
    queue: String,
    state: String,
}

/// Jobs that wait.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReadyLabels {
    kind: String,
    queue: String,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TableLabels {
    table: String,
}

/// Takes samples, for ever.
pub(crate) async fn run(ctx: Context, leases: Leases) {
    let Some(every) = ctx.config().sample_every else { return };
    let mut due = tokio::time::interval(every);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        if let Err(error) = look(&ctx, &leases).await {
            // The numbers stay, and their age tells.
            tracing::debug!(error = %chain(&error), "jobs not counted, trying again");
        }
    }
}

/// Looks at each held slice once.
async fn look(ctx: &Context, leases: &Leases) -> Result<(), Error> {
    let gauges = &ctx.metrics().gauges;
    let held: Vec<i16> = leases.held(Consumer::Jobs).iter().map(|lease| lease.slice).collect();
    gauges.lock().hold(&held);
    let tables = if held.contains(&FIRST) { ctx.store().job_tables().await? } else { Vec::new() };
    gauges.lock().tables = tables;
    gauges.1.look(ctx, &held).await?;
    for slice in held {
        let begun = Instant::now();
        let sample = ctx.store().sample_jobs(slice).await?;
        gauges.lock().slices.insert(slice, (begun, sample));
        tokio::time::sleep(begun.elapsed() * REST).await;
    }
    Ok(())
}

impl Gauges {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    /// Forgets the slices that are not held. One that is new is as old as its first turn, should
    /// that come to nothing.
    fn hold(&mut self, held: &[i16]) {
        self.slices.retain(|slice, _| held.contains(slice));
        for slice in held {
            self.slices.entry(*slice).or_insert_with(|| (Instant::now(), JobSample::default()));
        }
    }

    /// All groups, those of rare pairs of kind and queue as `other`.
    fn groups(&self) -> impl Iterator<Item = (ReadyLabels, &JobGroup)> {
        let mut jobs_of: BTreeMap<(&str, &str), i64> = BTreeMap::new();
        let all = || self.slices.values().flat_map(|(_, sample)| &sample.groups);
        for group in all() {
            *jobs_of.entry((&group.kind, &group.queue)).or_default() += group.jobs;
        }
        let mut pairs: Vec<_> = jobs_of.into_iter().collect();
        pairs.sort_by_key(|(_, jobs)| std::cmp::Reverse(*jobs));
        let rare: BTreeSet<(&str, &str)> =
            pairs.into_iter().skip(MOST_PAIRS).map(|(pair, _)| pair).collect();
        all().map(move |group| {
            let is_rare = rare.contains(&(group.kind.as_str(), group.queue.as_str()));
            let name = |name: &str| if is_rare { "other".to_owned() } else { name.to_owned() };
            (ReadyLabels { kind: name(&group.kind), queue: name(&group.queue) }, group)
        })
    }
}

/// A family of gauges, made for one scrape.
type Told<L> = Family<L, Gauge<f64, AtomicU64>>;

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let seen = self.lock();
        let (jobs, oldest): (Told<JobLabels>, Told<ReadyLabels>) = Default::default();
        for (of, group) in seen.groups() {
            if let Some(waited) = group.oldest {
                let gauge = oldest.get_or_create(&of);
                gauge.set(gauge.get().max(waited.as_secs_f64()));
            }
            let ReadyLabels { kind, queue } = of;
            let labels = JobLabels { kind, queue, state: group.state.clone() };
            jobs.get_or_create(&labels).inc_by(count(group.jobs));
        }
        let (live, dead): (Told<TableLabels>, Told<TableLabels>) = Default::default();
        for TableRows { table, live: visible, dead: gone } in &seen.tables {
            let labels = TableLabels { table: table.clone() };
            live.get_or_create(&labels).set(count(*visible));
            dead.get_or_create(&labels).set(count(*gone));
        }
        let ages = seen.slices.values().map(|(at, _)| at.elapsed().as_secs_f64());
        let age: Gauge<f64, AtomicU64> = Gauge::default();
        age.set(ages.fold(0.0, f64::max));
        let capped: Gauge = Gauge::default();
        for _ in seen.slices.values().filter(|(_, sample)| sample.is_capped) {
            capped.inc();
        }
        drop(seen);
        let mut tell = |name, help, metric: &dyn Tell| metric.tell(&mut encoder, name, help);
        tell(
            "jobs",
            "Jobs of the held slices, by kind, queue and state, when last counted",
            &jobs,
        )?;
        tell(
            "jobs_oldest_ready_seconds",
            "How long the oldest job that may start has waited",
            &oldest,
        )?;
        tell("jobs_sample_age_seconds", "Age of the oldest of the samples behind these", &age)?;
        tell("jobs_sample_capped", "Slices with more jobs than were counted", &capped)?;
        tell("table_live_rows", "Rows of a table, as PostgreSQL estimates them", &live)?;
        tell("table_dead_rows", "Rows of a table that vacuum has not removed yet", &dead)?;
        self.1.encode(&mut encoder)
    }
}

/// A number that is told at a scrape.
trait Tell {
    fn tell(&self, encoder: &mut DescriptorEncoder, name: &str, help: &str) -> std::fmt::Result;
}

impl<M: EncodeMetric> Tell for M {
    fn tell(&self, encoder: &mut DescriptorEncoder, name: &str, help: &str) -> std::fmt::Result {
        self.encode(encoder.encode_descriptor(name, help, None, self.metric_type())?)
    }
}

/// A count as a gauge has it.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn count(n: i64) -> f64 {
    n as f64
}

#[cfg(test)]
#[path = "gauges/tests.rs"]
mod tests;
