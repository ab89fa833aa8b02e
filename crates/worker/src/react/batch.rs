//! The fold of a batch: events of one slice, in order, to what one transaction writes.
//!
//! Each subject's rows are made once, from its last state. An event that cannot be folded is set
//! aside with the later ones of its subject. Not its job: reading, committing.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use domain::decide::decide;
use domain::effect::Effect;
use domain::endpoint::delivery;
use domain::event::{Event, NewerVersion, RecordedEvent, readable};
use domain::ids::Subject;
use domain::state::{State, evolve};
use domain::timer::Policy;
use domain::view::{Row, RowKey, leaving, rows};
use store::{Hearing, ParkedEvent, Reaction};

use crate::execution::panic_text;

/// Why an event cannot be folded.
struct Failure {
    error: String,
    /// Its version is newer than this build.
    awaits_build: bool,
}

/// Whether this build knows the version of an event.
pub(super) fn readable_here(stored: &RecordedEvent) -> Result<(), NewerVersion> {
    #[cfg(test)]
    if super::tests::is_mended(stored) {
        return Ok(());
    }
    readable(stored.stored())
}

/// A subject in a batch.
struct Slot {
    state: Option<State>,
    /// The last event that was folded into it here.
    touched: Option<i64>,
}

/// The fold of a batch.
pub(super) struct Batch<'a> {
    policy: &'a Policy,
    /// Endpoints that announcements of the batch are told to.
    hearing: &'a [Hearing],
    slots: HashMap<Subject, Slot>,
    rows: HashMap<RowKey, (Row, i64)>,
    /// Subjects set aside in this batch.
    parked: HashSet<Subject>,
    reaction: Reaction,
    /// Events that this build does not know: without effect, but somebody may wonder.
    unrecognized: u64,
}

/// What a batch comes to.
pub(super) struct Folded {
    /// What to commit.
    pub(super) reaction: Reaction,
    /// States that were looked at and did not change.
    pub(super) untouched: Vec<(Subject, Option<State>)>,
    /// Events without a meaning to this build.
    pub(super) unrecognized: u64,
}

impl<'a> Batch<'a> {
    /// Begins with the states of all subjects that its events have.
    pub(super) fn new(
        policy: &'a Policy,
        hearing: &'a [Hearing],
        states: impl IntoIterator<Item = (Subject, Option<State>)>,
    ) -> Self {
        let slot = |(subject, state)| (subject, Slot { state, touched: None });
        Self {
            policy,
            hearing,
            slots: states.into_iter().map(slot).collect(),
            rows: HashMap::new(),
            parked: HashSet::new(),
            reaction: Reaction::default(),
            unrecognized: 0,
        }
    }

    /// Applies one event: its state, its effects. One of a subject that is set aside waits.
    pub(super) fn apply(&mut self, stored: &RecordedEvent, is_parked: bool) {
        if is_parked || self.parked.contains(&stored.subject) {
            self.set_aside(stored, None, false);
        } else if let Err(Failure { error, awaits_build }) = self.fold(stored) {
            tracing::error!(
                slice = stored.slice, position = stored.position, subject = %stored.subject, error,
                "event set aside, with the later ones of its subject"
            );
            self.parked.insert(stored.subject.clone());
            self.set_aside(stored, Some(error), awaits_build);
        }
    }

    fn set_aside(&mut self, stored: &RecordedEvent, error: Option<String>, awaits_build: bool) {
        let (position, subject) = (stored.position, stored.subject.clone());
        self.reaction.parked.push(ParkedEvent { position, subject, error, awaits_build });
    }

    /// Folds one event and keeps its effects. On an error nothing of it is kept.
    fn fold(&mut self, stored: &RecordedEvent) -> Result<(), Failure> {
        readable_here(stored)
            .map_err(|newer| Failure { error: newer.to_string(), awaits_build: true })?;
        let mut fresh = Slot { state: None, touched: None };
        let slot = self.slots.get_mut(&stored.subject).unwrap_or(&mut fresh);
        let before = slot.state.take();
        let policy = self.policy;
        // `evolve` and `decide` are total; should one panic all the same, only its subject stops.
        let folded = catch_unwind(AssertUnwindSafe(|| {
            let event = Event::decode(stored);
            let after = evolve(before.clone(), stored, &event);
            let effects = decide(policy, before.as_ref(), stored, &event, after.as_ref());
            #[cfg(test)]
            let effects = super::tests::poisoned(stored, effects);
            (after, effects, event)
        }));
        let (after, effects, event) = match folded {
            Ok(folded) => folded,
            Err(panic) => {
                slot.state = before;
                let error = format!("the fold panicked: {}", panic_text(panic.as_ref()));
                return Err(Failure { error, awaits_build: false });
            }
        };
        self.unrecognized += u64::from(matches!(event, Event::Unrecognized));
        self.tell(stored, &event);
        self.evolved(&stored.subject, stored.position, before, after);
        for effect in effects {
            match effect {
                Effect::Enqueue(job) => self.reaction.jobs.push(job),
                Effect::Append(event) => self.reaction.events.push(event),
                Effect::Cancel(intent) => self.reaction.cancels.push(intent),
            }
        }
        Ok(())
    }

    /// A job for each endpoint that hears an announcement: in this transaction, so that each hears it
    /// once however often the batch is tried, and those that nobody hears cost nothing.
    fn tell(&mut self, stored: &RecordedEvent, event: &Event) {
        let Event::Announced(announcement) = event else { return };
        let source = stored.subject.source();
        let hears = |hearing: &&Hearing| hearing.filter.hears(source, announcement);
        let hearing = self.hearing.iter().filter(hears);
        self.reaction.jobs.extend(hearing.map(|hearing| delivery(hearing.id, stored)));
    }

    /// Keeps a subject's next state, and the rows that leave with the one before.
    fn evolved(
        &mut self,
        subject: &Subject,
        position: i64,
        before: Option<State>,
        after: Option<State>,
    ) {
        let slot = match self.slots.get_mut(subject) {
            Some(slot) => slot,
            None => {
                self.slots.entry(subject.clone()).or_insert(Slot { state: None, touched: None })
            }
        };
        if let (Some(before), Some(written)) = (&before, slot.touched) {
            for row in leaving(subject, before) {
                self.rows.insert(row.key(), (row, written));
            }
        }
        if after.is_some() {
            slot.touched = Some(position);
        }
        slot.state = after.or(before);
    }

    /// The batch as a whole, after its last event.
    pub(super) fn finish(mut self, last: &RecordedEvent) -> Folded {
        let mut untouched = Vec::new();
        for (subject, slot) in self.slots {
            let (Some(state), Some(position)) = (&slot.state, slot.touched) else {
                untouched.push((subject, slot.state));
                continue;
            };
            for row in rows(&subject, state) {
                match self.rows.entry(row.key()) {
                    // Each key is written once: the later row.
                    Entry::Occupied(mut entry) if entry.get().1 <= position => {
                        entry.insert((row, position));
                    }
                    Entry::Occupied(_) => {}
                    Entry::Vacant(entry) => {
                        entry.insert((row, position));
                    }
                }
            }
            if let Some(state) = slot.state {
                self.reaction.states.push((subject, state, position));
            }
        }
        self.reaction.rows = self.rows.into_values().collect();
        self.reaction.to = last.position;
        self.reaction.recorded_at = last.recorded_at;
        Folded { reaction: self.reaction, untouched, unrecognized: self.unrecognized }
    }
}
