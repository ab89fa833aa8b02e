//! `consume`: a backlog of whole sessions drained by one worker, then the time from an append to the
//! checkpoint behind it at a moderate rate.
//!
//! The rate is that of checkpoints: rows, jobs and announcements of an event are committed with them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use chrono::{SubsecRound as _, Utc};
use domain::event::NewEvent;
use domain::slice::SliceCount;
use domain::webhook;
use serde::Serialize;
use sqlx::PgConnection;
use store::Store;
use uuid::Uuid;

use crate::generator::webhooks::{FIRST_NUMBER, Webhooks};
use crate::log::Log;
use crate::processes::{Home, Installation, SOURCE};
use crate::report::{Table, as_thousandths, as_whole, finish, median, percentile, rate, whole};

/// Turns.
const TURNS: usize = 5;

/// Appends per second while latency is measured: far below what a worker drains.
const PACE: u32 = 200;

/// How often checkpoints are looked at while latency is measured: its resolution.
const LOOK: Duration = Duration::from_micros(500);

/// Longest wait for the last event.
const PATIENCE: Duration = Duration::from_secs(30);

/// Medians of all turns.
#[derive(Debug, Serialize)]
struct Figures {
    #[serde(serialize_with = "as_whole")]
    events_per_s: f64,
    #[serde(serialize_with = "as_thousandths")]
    p50_ms: f64,
    #[serde(serialize_with = "as_thousandths")]
    p99_ms: f64,
}

/// Measures.
pub(crate) async fn run(home: &Home) -> Result<()> {
    let (backlog, time) = if home.quick { (20_000, 2) } else { (200_000, 10) };
    let time = Duration::from_secs(time);
    let installation = home.installation().await?;
    installation.say_header(&format!(
        "consume: {TURNS} turns, each a backlog of about {} events of whole sessions drained by one \
         `tallylight worker` from its first commit on, then {PACE} webhooks/s appended one by one \
         for {} s",
        whole(rate(backlog, 1.0)),
        time.as_secs(),
    ));
    let mut log = Log::connect(&installation).await?;
    let table = Table::begin(&["events", "events/s", "p50 ms", "p99 ms"]);
    let (mut rates, mut p50s, mut p99s) = (Vec::new(), Vec::new(), Vec::new());
    for n in 1..=TURNS {
        let events = log.fill(backlog).await?;
        installation.cluster.checkpoint().await?;
        let mut worker = installation.start("worker")?;
        let drained = log.drain(&mut worker).await?;
        worker.stop().await?;
        log.forget_jobs().await?;
        let mut worker = installation.start("worker")?;
        log.claimed(&mut worker).await?;
        let first = FIRST_NUMBER + n as u64 * 1_000_000;
        let (p50, p99) = latency(&installation, &log.store, first, time).await?;
        worker.check_runs()?;
        worker.stop().await?;
        let cells = [
            whole(rate(events, 1.0)),
            whole(drained.rate()),
            format!("{p50:.2}"),
            format!("{p99:.2}"),
        ];
        table.line(n, &cells);
        rates.push(drained.rate());
        p50s.push(p50);
        p99s.push(p99);
    }
    let figures =
        Figures { events_per_s: median(&rates), p50_ms: median(&p50s), p99_ms: median(&p99s) };
    let cells = [
        String::new(),
        whole(figures.events_per_s),
        format!("{:.2}", figures.p50_ms),
        format!("{:.2}", figures.p99_ms),
    ];
    table.line("median", &cells);
    finish(&figures)
}

/// Events that are committed and not yet seen applied: slice, position, time of the commit.
type Waiting = Arc<Mutex<VecDeque<(i16, i64, Instant)>>>;

/// Milliseconds from an append's return to the checkpoint behind the event: median and p99.
async fn latency(
    installation: &Installation<'_>,
    store: &Store,
    first: u64,
    time: Duration,
) -> Result<(f64, f64)> {
    let waiting = Waiting::default();
    let sending = tokio::spawn(send(store.clone(), waiting.clone(), first, time));
    let mut connection = installation.cluster.connect().await?;
    let mut latencies = Vec::new();
    let mut moved = Instant::now();
    loop {
        let is_sent = sending.is_finished();
        let applied = applied(&mut connection).await?;
        let (seen, left) = settle(&waiting, &applied);
        if !seen.is_empty() {
            moved = Instant::now();
            latencies.extend(seen);
        }
        if is_sent && left == 0 {
            break;
        }
        if moved.elapsed() > PATIENCE {
            bail!("{left} events wait for the worker in vain");
        }
        tokio::time::sleep(LOOK).await;
    }
    sending.await.context("append webhooks")??;
    latencies.sort_unstable();
    let ms = |part| f64::from(percentile(&latencies, part)) / 1000.0;
    Ok((ms(0.5), ms(0.99)))
}

/// Takes out what is applied now, as microseconds since its commit, and counts what is left.
fn settle(waiting: &Waiting, applied: &[(i16, i64)]) -> (Vec<u32>, usize) {
    let now = Instant::now();
    let mut seen = Vec::new();
    let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
    waiting.retain(|(slice, position, at)| {
        let is_applied = applied.iter().any(|(s, to)| s == slice && to >= position);
        if is_applied {
            let took = now.saturating_duration_since(*at).as_micros();
            seen.push(u32::try_from(took).unwrap_or(u32::MAX));
        }
        !is_applied
    });
    (seen, waiting.len())
}

/// Appends webhooks at an even pace, and wakes workers after each commit, as ingest does.
async fn send(store: Store, waiting: Waiting, first: u64, time: Duration) -> Result<()> {
    let webhooks = Webhooks::of(SOURCE, SliceCount::DEFAULT);
    let notifier = store.notifier();
    let mut due = tokio::time::interval(Duration::from_secs(1) / PACE);
    let begun = Instant::now();
    let mut number = first;
    while begun.elapsed() < time {
        due.tick().await;
        let event = event(&webhooks, number);
        let slice = store.slice_of(&event.subject);
        let stored = store.append_one(event).await?.context("a webhook was stored before")?;
        let committed = (slice, stored.position, Instant::now());
        waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back(committed);
        notifier.moved(slice);
        number += 1;
    }
    Ok(())
}

/// The event of a webhook, as ingest makes it.
pub(crate) fn event(webhooks: &Webhooks, number: u64) -> NewEvent {
    let mut payload = Vec::new();
    webhooks.write(number, &mut payload);
    NewEvent {
        event_id: Uuid::now_v7(),
        subject: webhook::subject(SOURCE, &payload),
        event_type: "WebhookReceived".to_owned(),
        schema_version: 1,
        key: None,
        received_at: Utc::now().trunc_subsecs(6),
        causation_id: None,
        correlation_id: None,
        meta: None,
        payload,
    }
}

/// How far each slice is applied.
async fn applied(connection: &mut PgConnection) -> Result<Vec<(i16, i64)>> {
    sqlx::query_as("SELECT slice, position FROM tallylight.checkpoint WHERE consumer = 'react'")
        .fetch_all(connection)
        .await
        .context("look how far the log is applied")
}
