//! `ingest-batch`: webhooks in batches of 100 over HTTP until durable, beside plain calls of `append`.
//!
//! The floor appends the same events grouped by slice, as many at a time, from this process: what the
//! endpoint costs is HTTP, JSON, redaction, routing and the batching of its lanes.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use domain::event::NewEvent;
use domain::slice::SliceCount;
use serde::Serialize;
use store::Store;
use tokio::task::JoinSet;

use crate::consume::event;
use crate::generator::webhooks::{FIRST_NUMBER, Webhooks};
use crate::log::Log;
use crate::processes::{BATCH_TOKEN, Home, SOURCE};
use crate::report::{Table, as_thousandths, as_whole, finish, median, rate, ratio, whole};
use crate::sender::{Endpoint, Sending};

/// Batches under way at a time, and calls of `append`: one of each slice.
const AT_A_TIME: u64 = 16;

/// Events of a batch, and of a call.
const BATCH: usize = 100;

/// Turns of each.
const TURNS: usize = 5;

/// Numbers of the floor's webhooks of a turn, apart from those that are sent.
const NUMBERS: u64 = 10_000_000;

/// Medians of all turns.
#[derive(Debug, Serialize)]
struct Figures {
    #[serde(serialize_with = "as_whole")]
    events_per_s: f64,
    #[serde(serialize_with = "as_whole")]
    append_per_s: f64,
    #[serde(serialize_with = "as_thousandths")]
    ratio: f64,
}

/// Measures.
pub(crate) async fn run(home: &Home) -> Result<()> {
    let time = Duration::from_secs(if home.quick { 3 } else { 10 });
    let installation = home.installation().await?;
    installation.say_header(&format!(
        "ingest-batch: {TURNS} turns of {} s each, {AT_A_TIME} batches of {BATCH} webhooks at a time \
         at POST /v1/events:batch; floor: {AT_A_TIME} calls of append at a time, one of each slice, \
         {BATCH} events each",
        time.as_secs(),
    ));
    installation.take_batches()?;
    let mut log = Log::connect(&installation).await?;
    let mut endpoint = Endpoint::start(&installation).await?;
    let sending = Sending {
        path: "/v1/events:batch",
        token: Some(BATCH_TOKEN),
        connections: AT_A_TIME,
        batch: BATCH as u64,
        time,
    };
    let table = Table::begin(&["floor/s", "ours/s", "ratio", "acked", "stored"]);
    let (mut floors, mut ours) = (Vec::new(), Vec::new());
    for n in 1..=TURNS {
        installation.cluster.checkpoint().await?;
        let floor = append(&mut log, FIRST_NUMBER + n as u64 * NUMBERS, time).await?;
        installation.cluster.checkpoint().await?;
        let sent = endpoint.turn(&sending).await?;
        let sent_per_s = rate(sent.acked, sent.seconds);
        table.line(
            n,
            &[
                whole(floor),
                whole(sent_per_s),
                format!("{:.2}", ratio(sent_per_s, floor)),
                sent.acked.to_string(),
                sent.stored.to_string(),
            ],
        );
        floors.push(floor);
        ours.push(sent_per_s);
    }
    endpoint.stop().await?;
    let (events_per_s, append_per_s) = (median(&ours), median(&floors));
    let ratio = ratio(events_per_s, append_per_s);
    let none = String::new();
    let cells =
        [whole(append_per_s), whole(events_per_s), format!("{ratio:.2}"), none.clone(), none];
    table.line("median", &cells);
    finish(&Figures { events_per_s, append_per_s, ratio })
}

/// Appends for `time`, each slice's events in a task of its own; returns events per second, after
/// a check that all of them are there.
async fn append(log: &mut Log, first: u64, time: Duration) -> Result<f64> {
    let before = log.total().await?;
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for slice in log.store.slices().slices() {
        tasks.spawn(append_slice(log.store.clone(), slice, first, begun + time));
    }
    let mut appended = 0;
    while let Some(done) = tasks.join_next().await {
        appended += done.context("append")??;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let found = u64::try_from(log.total().await? - before)?;
    if found != appended {
        bail!("{appended} events were appended and {found} are stored");
    }
    Ok(rate(appended, seconds))
}

async fn append_slice(store: Store, slice: i16, first: u64, until: Instant) -> Result<u64> {
    let webhooks = Webhooks::of(SOURCE, SliceCount::DEFAULT);
    let (mut number, mut appended) = (first, 0);
    while Instant::now() < until {
        let events = batch(&webhooks, &store, slice, &mut number);
        store.append(slice, None, &events).await.context("append")?;
        appended += events.len() as u64;
    }
    Ok(appended)
}

/// The next webhooks that lie in a slice.
fn batch(webhooks: &Webhooks, store: &Store, slice: i16, number: &mut u64) -> Vec<NewEvent> {
    let mut events = Vec::with_capacity(BATCH);
    while events.len() < BATCH {
        *number += 1;
        let subject = domain::ids::Subject::live_stream(
            SOURCE,
            domain::ids::LiveStreamId(webhooks.stream(*number)),
        );
        if store.slice_of(&subject) == slice {
            events.push(event(webhooks, *number));
        }
    }
    events
}
