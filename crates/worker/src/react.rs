//! The consumer `react`: events of the held slices, in order, to state, rows, jobs and
//! announcements. The one place that performs effects.
//!
//! One transaction per batch and slice: all of it or nothing. An event that cannot be applied is
//! set aside with the later events of its subject; nothing stops a slice but a hole in the log.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use domain::decide::decide;
use domain::effect::Effect;
use domain::event::{Event, RecordedEvent};
use domain::ids::Subject;
use domain::state::{State, evolve};
use domain::view::{Row, RowKey, rows};
use futures_util::stream::{FuturesUnordered, StreamExt};
use store::{Consumer, Error, Lease, ParkedEvent, Reaction};
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::leases::{Leases, chain};

/// Applies events until `stop`.
pub(crate) async fn run(ctx: &Context, leases: &Leases, stop: CancellationToken) {
    loop {
        let moved = match round(ctx, leases).await {
            Ok(moved) => moved,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "events not applied, trying again");
                false
            }
        };
        if moved && !stop.is_cancelled() {
            continue;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = ctx.event_wake() => {}
            () = tokio::time::sleep(ctx.config().poll) => {}
        }
    }
}

/// Applies a batch of every held slice whose head has moved; returns whether there was one.
async fn round(ctx: &Context, leases: &Leases) -> Result<bool, Error> {
    let held = leases.held(Consumer::React);
    let slices: Vec<i16> = held.iter().map(|lease| lease.slice).collect();
    let heads: HashMap<i16, i64> = ctx.store().heads(&slices).await?.into_iter().collect();
    let behind = |lease: &&Lease| heads.get(&lease.slice).is_some_and(|h| *h > lease.position);
    let mut work: FuturesUnordered<_> =
        held.iter().filter(behind).map(|lease| apply_slice(ctx, leases, *lease)).collect();
    let mut moved = false;
    while let Some(applied) = work.next().await {
        moved |= applied;
    }
    Ok(moved)
}

/// Applies a batch of one slice; its failure concerns this slice alone.
async fn apply_slice(ctx: &Context, leases: &Leases, lease: Lease) -> bool {
    match apply(ctx, lease).await {
        Ok(lease) => {
            leases.advanced(Consumer::React, lease);
            true
        }
        Err(Error::Fenced { slice }) => {
            tracing::info!(slice, "another process has the slice now");
            leases.forget(Consumer::React, slice, lease.epoch);
            false
        }
        Err(error) => {
            tracing::error!(slice = lease.slice, error = %chain(&error), "slice not applied");
            false
        }
    }
}

/// Reads and applies a batch. A batch that the database refuses is applied event by event, so
/// that only the refused one is set aside.
async fn apply(ctx: &Context, lease: Lease) -> Result<Lease, Error> {
    let store = ctx.store();
    let (slice, batch) = (lease.slice, ctx.config().batch);
    let events = store.read_after(slice, lease.position, lease.recorded_at, batch).await?;
    let parked: HashSet<Subject> = store.parked_subjects(slice).await?.into_iter().collect();
    match commit(ctx, lease, &events, &parked).await {
        Err(error) if concerns_data(&error) => one_by_one(ctx, lease, &events, parked).await,
        other => other,
    }
}

/// Whether an error is in the data: trying again will not help, and neighbours are not concerned.
fn concerns_data(error: &Error) -> bool {
    matches!(error, Error::Data { .. } | Error::Inconsistent { .. })
}

async fn one_by_one(
    ctx: &Context,
    mut lease: Lease,
    events: &[RecordedEvent],
    mut parked: HashSet<Subject>,
) -> Result<Lease, Error> {
    for event in events {
        lease = match commit(ctx, lease, std::slice::from_ref(event), &parked).await {
            Err(error) if concerns_data(&error) => {
                parked.insert(event.subject.clone());
                let reaction = set_aside(event, Some(chain(&error)));
                tracing::error!(
                    slice = event.slice,
                    position = event.position,
                    subject = %event.subject,
                    error = %chain(&error),
                    "event set aside, with the later ones of its subject"
                );
                ctx.store().commit_reaction(&lease, &reaction, ctx.config().lease).await?.lease
            }
            other => other?,
        };
    }
    Ok(lease)
}

/// Folds, decides and commits one batch.
async fn commit(
    ctx: &Context,
    lease: Lease,
    events: &[RecordedEvent],
    parked: &HashSet<Subject>,
) -> Result<Lease, Error> {
    let Some(last) = events.last() else { return Ok(lease) };
    let subjects: HashSet<&Subject> = events.iter().map(|event| &event.subject).collect();
    let subjects: Vec<Subject> = subjects.into_iter().cloned().collect();
    let states = ctx.store().load_states(lease.slice, &subjects).await?;
    let mut batch = Batch::new(states, parked.clone());
    for event in events {
        batch.apply(ctx, event);
    }
    let reaction = batch.into_reaction(last);
    let committed = ctx.store().commit_reaction(&lease, &reaction, ctx.config().lease).await?;
    if committed.jobs > 0 {
        ctx.jobs_enqueued();
    }
    if committed.events > 0 {
        ctx.events_appended(lease.slice);
    }
    Ok(committed.lease)
}

/// The fold of a batch.
struct Batch {
    states: HashMap<Subject, State>,
    touched: HashMap<Subject, i64>,
    rows: HashMap<RowKey, (Row, i64)>,
    parked: HashSet<Subject>,
    reaction: Reaction,
}

impl Batch {
    fn new(states: HashMap<Subject, State>, parked: HashSet<Subject>) -> Self {
        Self {
            states,
            touched: HashMap::new(),
            rows: HashMap::new(),
            parked,
            reaction: Reaction::default(),
        }
    }

    /// Applies one event: its state, its rows, its effects.
    fn apply(&mut self, ctx: &Context, stored: &RecordedEvent) {
        if self.parked.contains(&stored.subject) {
            self.reaction.parked.extend(set_aside(stored, None).parked);
            return;
        }
        let before = self.states.get(&stored.subject).cloned();
        let policy = &ctx.config().policy;
        // `evolve` and `decide` are total; should one panic all the same, only its subject stops.
        let folded = catch_unwind(AssertUnwindSafe(|| {
            let event = Event::decode(stored);
            #[cfg(test)]
            self.reaction.events.extend(tests::poison(stored));
            let after = evolve(before.clone(), stored, &event);
            let effects = decide(policy, before.as_ref(), stored, &event, after.as_ref());
            (after, effects)
        }));
        let Ok((after, effects)) = folded else {
            tracing::error!(subject = %stored.subject, position = stored.position, "fold panicked");
            self.parked.insert(stored.subject.clone());
            let error = Some("the fold panicked".to_owned());
            self.reaction.parked.extend(set_aside(stored, error).parked);
            return;
        };
        if let Some(state) = after {
            for row in rows(&stored.subject, &state) {
                // Later rows of a key replace earlier ones: each is written once.
                self.rows.insert(row.key(), (row, stored.position));
            }
            self.touched.insert(stored.subject.clone(), stored.position);
            self.states.insert(stored.subject.clone(), state);
        }
        for effect in effects {
            match effect {
                Effect::Enqueue(job) => self.reaction.jobs.push(job),
                Effect::Append(event) => self.reaction.events.push(event),
            }
        }
    }

    fn into_reaction(mut self, last: &RecordedEvent) -> Reaction {
        for (subject, position) in self.touched {
            if let Some(state) = self.states.remove(&subject) {
                self.reaction.states.push((subject, state, position));
            }
        }
        self.reaction.rows = self.rows.into_values().collect();
        self.reaction.to = last.position;
        self.reaction.recorded_at = last.recorded_at;
        self.reaction
    }
}

/// A reaction that only sets `event` aside.
fn set_aside(event: &RecordedEvent, error: Option<String>) -> Reaction {
    let (position, subject) = (event.position, event.subject.clone());
    Reaction {
        to: position,
        recorded_at: event.recorded_at,
        parked: vec![ParkedEvent { position, subject, error }],
        ..Reaction::default()
    }
}

#[cfg(test)]
mod tests;
