//! What the log and its consumers promise, checked on the tables and on the history of what was
//! done. The numbers are those of the promises in docs/adr/0014-store-as-traits.md.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use domain::decide::decide;
use domain::effect::Effect;
use domain::event::{Event, RecordedEvent};
use domain::ids::{Subject, Timestamp};
use domain::state::{State, evolve};
use domain::view::{Row, RowKey, leaving, rows};
use serde_json::Value;
use store::testing::{Reacted, SliceTables, Tables};
use uuid::Uuid;

use crate::faults;
use crate::load::Book;

/// A promise that was broken.
type Broken = String;

/// Fails with a promise where it does not hold.
macro_rules! promise {
    ($holds:expr, $($told:tt)+) => {
        if !$holds {
            return Err(format!($($told)+));
        }
    };
}

/// What somebody still has to do; `None`: everything is applied, and no job is due or runs.
pub(crate) fn works(tables: &Tables, now: Timestamp) -> Option<String> {
    (0_i16..).zip(&tables.slices).find_map(|(slice, of)| {
        let lag = of.head() - of.react.position;
        if lag > 0 {
            return Some(format!("slice {slice} is {lag} behind"));
        }
        let due = of.jobs.iter().find(|(_, job)| {
            // Plain jobs that failed are waited for, timers are not.
            job.run_epoch.is_some() || job.run_at <= now || job.kind.starts_with("sim_")
        });
        due.map(|(id, job)| format!("job {id} of {slice}: {job:?}"))
    })
}

/// What holds at any time.
pub(crate) fn always(tables: &Tables) -> Result<(), Broken> {
    (0_i16..).zip(&tables.slices).try_for_each(|(slice, of)| {
        dense(slice, of)?;
        applied_in_order(slice, of)?;
        started_once(slice, of)
    })
}

/// What holds when the faults are over and everything is done.
pub(crate) fn at_the_end(tables: &Tables, book: &Book) -> Result<(), Broken> {
    always(tables)?;
    stored_once(tables, book)?;
    jobs_ended_once(tables, book)?;
    for (slice, of) in (0_i16..).zip(&tables.slices) {
        promise!(of.react.position == of.head(), "I8: slice {slice} is behind");
        promise!(of.parked.is_empty(), "I8: set aside in {slice}: {:?}", of.parked);
        let expected = Expected::of(&of.events);
        expected.is_folded(slice, of)?;
        expected.is_performed(slice, of)?;
    }
    Ok(())
}

/// I2: positions are dense, and no time of a commit falls.
fn dense(slice: i16, of: &SliceTables) -> Result<(), Broken> {
    let positions = of.events.iter().map(|event| event.position);
    promise!(positions.eq(1..=of.head()), "I2: positions of {slice} are not dense");
    let is_sorted = of.events.is_sorted_by_key(|event| event.recorded_at);
    promise!(is_sorted, "I2: a time of a commit of {slice} falls");
    Ok(())
}

/// I3 and I4: each position is applied once, in order, under epochs that do not fall.
fn applied_in_order(slice: i16, of: &SliceTables) -> Result<(), Broken> {
    let mut last = Reacted { epoch: 0, from: 0, to: 0 };
    for now in &of.reacted {
        promise!(now.from == last.to && now.to >= now.from, "I3: {slice}: {now:?} after {last:?}");
        promise!(now.epoch >= last.epoch, "I4: {slice}: {now:?} after {last:?}");
        last = *now;
    }
    promise!(last.to == of.react.position, "I3: {slice} stands elsewhere than {last:?}");
    Ok(())
}

/// I4, of jobs: no start has two owners, none comes from an old epoch, and none fails twice.
fn started_once(slice: i16, of: &SliceTables) -> Result<(), Broken> {
    let (mut started, mut failed) = (HashSet::new(), HashSet::new());
    for (id, attempt, _) in &of.started {
        promise!(started.insert((id, attempt)), "I4: {slice}: start {attempt} of {id} twice");
    }
    let is_sorted = of.started.is_sorted_by_key(|(.., epoch)| *epoch);
    promise!(is_sorted, "I4: a start in {slice} under an old epoch");
    for (id, attempt, how) in &of.ended {
        let is_first = *how != "failed" || failed.insert((id, attempt));
        promise!(is_first, "I4: {slice}: run {attempt} of {id} has failed twice");
    }
    Ok(())
}

/// I1: what was acknowledged is stored exactly once, what was not at most once; the webhooks of a
/// sender are in the order in which they were acknowledged.
fn stored_once(tables: &Tables, book: &Book) -> Result<(), Broken> {
    let mut places: HashMap<Uuid, (usize, i64)> = HashMap::new();
    for (slice, of) in tables.slices.iter().enumerate() {
        for event in &of.events {
            let before = places.insert(event.event_id, (slice, event.position));
            promise!(before.is_none(), "I1: stored twice: {before:?} and {event:?}");
        }
    }
    for id in book.keyed.iter().chain(&book.commands) {
        promise!(places.contains_key(id), "I1: event {id} was acknowledged and is lost");
    }
    let mut last: BTreeMap<u64, (i64, u64)> = BTreeMap::new();
    for (id, sender, n) in &book.webhooks {
        let place = places.get(id).copied();
        promise!(place.is_some(), "I1: webhook {n} of {sender} was acknowledged and is lost");
        let position = place.map_or(0, |(_, position)| position);
        if let Some((before, m)) = last.insert(*sender, (position, *n)) {
            promise!(
                before < position,
                "I1: of {sender}, {n} is at {position} and {m} at {before}"
            );
        }
    }
    Ok(())
}

/// Each acknowledged job has one outcome, and there is no other outcome twice.
fn jobs_ended_once(tables: &Tables, book: &Book) -> Result<(), Broken> {
    let mut outcomes: HashMap<Uuid, usize> = HashMap::new();
    let events = tables.slices.iter().flat_map(|of| &of.events);
    for event in events.filter(|event| event.event_type.starts_with("Job")) {
        let payload: Value = serde_json::from_slice(&event.payload).unwrap();
        let job = payload["job"].as_str().and_then(|id| id.parse().ok()).unwrap();
        *outcomes.entry(job).or_default() += 1;
    }
    for (job, count) in &outcomes {
        promise!(*count == 1, "I6: job {job} has {count} outcomes");
    }
    for job in &book.jobs {
        promise!(outcomes.contains_key(job), "I6: job {job} was acknowledged and has no outcome");
    }
    Ok(())
}

/// What follows from the log of a slice.
#[derive(Default)]
struct Expected {
    states: BTreeMap<Subject, (State, i64)>,
    rows: BTreeMap<RowKey, (Row, i64)>,
    jobs: BTreeSet<Uuid>,
    appended: BTreeSet<Uuid>,
}

impl Expected {
    fn of(events: &[RecordedEvent]) -> Self {
        let mut expected = Self::default();
        for event in events {
            expected.apply(event);
        }
        let states: Vec<_> =
            expected.states.iter().map(|(s, (state, n))| (rows(s, state), *n)).collect();
        for (rows, position) in states {
            for row in rows {
                expected.keep(row, position);
            }
        }
        expected
    }

    fn apply(&mut self, stored: &RecordedEvent) {
        let event = Event::decode(stored);
        let before = self.states.remove(&stored.subject);
        if let Some((state, position)) = &before {
            for row in leaving(&stored.subject, state) {
                self.keep(row, *position);
            }
        }
        let before = before.map(|(state, _)| state);
        let after = evolve(before.clone(), stored, &event);
        let policy = faults::config().policy;
        for effect in decide(&policy, before.as_ref(), stored, &event, after.as_ref()) {
            match effect {
                Effect::Enqueue(job) => self.jobs.insert(job.id),
                Effect::Append(event) => self.appended.insert(event.event_id),
                Effect::Cancel(_) => true,
            };
        }
        if let Some(state) = after {
            self.states.insert(stored.subject.clone(), (state, stored.position));
        }
    }

    /// Keeps the latest row of a key.
    fn keep(&mut self, row: Row, position: i64) {
        let key = row.key();
        if self.rows.get(&key).is_none_or(|(_, since)| *since <= position) {
            self.rows.insert(key, (row, position));
        }
    }

    /// I5: states and rows are the fold of the log.
    fn is_folded(&self, slice: i16, of: &SliceTables) -> Result<(), Broken> {
        let states: BTreeMap<_, _> = self
            .states
            .iter()
            .map(|(subject, (state, position))| {
                (subject.clone(), (serde_json::to_value(state).unwrap(), *position))
            })
            .collect();
        promise!(states == of.states, "I5: the states of {slice} are not the fold of its log");
        for (key, row) in &of.rows {
            let folded = self.rows.get(key);
            promise!(folded == Some(row), "I5: {slice}: {row:?} and not {folded:?}");
        }
        promise!(self.rows.len() == of.rows.len(), "I5: rows of {slice} are missing");
        Ok(())
    }

    /// I6: the jobs are those that were decided, and so are the announcements.
    fn is_performed(&self, slice: i16, of: &SliceTables) -> Result<(), Broken> {
        let outside = |id: &&Uuid| id.as_u64_pair().0 == u64::MAX;
        let decided: Vec<Uuid> = of.enqueued.iter().filter(|id| !outside(id)).copied().collect();
        let distinct: BTreeSet<Uuid> = decided.iter().copied().collect();
        promise!(distinct == self.jobs, "I6: jobs of {slice} are not those that were decided");
        promise!(decided.len() == distinct.len(), "I6: a job of {slice} was enqueued twice");
        let stored: HashSet<Uuid> = of.events.iter().map(|event| event.event_id).collect();
        let missing = self.appended.iter().find(|id| !stored.contains(*id));
        promise!(missing.is_none(), "I6: {slice}: the announcement {missing:?} is missing");
        Ok(())
    }
}
