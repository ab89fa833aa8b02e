//! The fold of a slice in memory: states where they lie, rows from last states alone. Evolve only:
//! no effect is ever derived here.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use domain::event::{Event, StoredEvent, readable};
use domain::ids::{Subject, Timestamp};
use domain::state::{State, evolve_in_place};
use domain::view::{Row, RowKey, leaving, rows};

use super::source::{Chunk, EventRow};
use crate::Error;

/// A subject's state and its last event.
struct Folded {
    subject: Subject,
    state: Option<State>,
    position: i64,
}

/// The fold of a slice so far.
pub(crate) struct Fold {
    slice: i16,
    pub(crate) position: i64,
    pub(crate) recorded_at: Timestamp,
    pub(crate) events: u64,
    /// Positions that are not folded.
    set_aside: HashSet<i64>,
    subjects: HashMap<Subject, usize>,
    folded: Vec<Folded>,
    /// Rows that have left their state.
    kept: HashMap<RowKey, (Row, i64)>,
}

/// What a fold comes to.
pub(crate) struct Outcome {
    /// States with the position of their last event.
    pub(crate) states: Vec<(Subject, State, i64)>,
    /// Rows with the position of the event they follow from.
    pub(crate) rows: Vec<(Row, i64)>,
}

impl Fold {
    /// Begins behind `position`, which was recorded at `recorded_at`.
    pub(crate) fn new(
        slice: i16,
        (position, recorded_at): (i64, Timestamp),
        set_aside: &[i64],
    ) -> Self {
        Self {
            slice,
            position,
            recorded_at,
            events: 0,
            set_aside: set_aside.iter().copied().collect(),
            subjects: HashMap::new(),
            folded: Vec::new(),
            kept: HashMap::new(),
        }
    }

    /// Goes on from the stored state of a subject.
    pub(crate) fn seed(&mut self, subject: &str, state: State, position: i64) {
        let at = self.entry(subject);
        self.folded[at].state = Some(state);
        self.folded[at].position = position;
    }

    /// Applies all events of a chunk.
    ///
    /// # Errors
    /// [`Error::Hole`] where one is missing, [`Error::Unfoldable`] where one cannot be folded.
    pub(crate) fn apply_chunk(&mut self, chunk: &Chunk) -> Result<(), Error> {
        // `evolve` is total; should it panic all the same, the event is named.
        let applied = catch_unwind(AssertUnwindSafe(|| chunk.for_each(|row| self.apply(row))));
        applied.unwrap_or_else(|_| Err(self.panicked(self.position + 1)))
    }

    fn panicked(&self, position: i64) -> Error {
        let reason = "the fold panicked".to_owned();
        Error::Unfoldable { slice: self.slice, position, reason }
    }

    /// Applies events that follow each other, as [`apply_chunk`](Self::apply_chunk) does.
    pub(crate) fn apply_rows<'a>(
        &mut self,
        rows: impl Iterator<Item = EventRow<'a>>,
    ) -> Result<(), Error> {
        let mut rows = rows;
        let applied = catch_unwind(AssertUnwindSafe(|| rows.try_for_each(|row| self.apply(&row))));
        applied.unwrap_or_else(|_| Err(self.panicked(self.position + 1)))
    }

    /// Applies one event, as [`apply_chunk`](Self::apply_chunk) does.
    pub(crate) fn apply_one(&mut self, row: &EventRow<'_>) -> Result<(), Error> {
        let applied = catch_unwind(AssertUnwindSafe(|| self.apply(row)));
        applied.unwrap_or_else(|_| Err(self.panicked(row.position)))
    }

    fn apply(&mut self, row: &EventRow<'_>) -> Result<(), Error> {
        if self.set_aside.is_empty() || !self.set_aside.contains(&row.position) {
            self.evolve(row)?;
        }
        self.position = row.position;
        self.recorded_at = row.recorded_at;
        self.events += 1;
        Ok(())
    }

    fn evolve(&mut self, row: &EventRow<'_>) -> Result<(), Error> {
        let slice = self.slice;
        let at = self.entry(row.subject);
        let Folded { subject, state, position } = &mut self.folded[at];
        let stored = StoredEvent {
            received_at: row.received_at,
            subject,
            event_type: row.event_type,
            schema_version: row.schema_version,
            payload: row.payload,
        };
        readable(stored).map_err(|newer| Error::Unfoldable {
            slice,
            position: row.position,
            reason: newer.to_string(),
        })?;
        if let Some(state) = state {
            for row in leaving(subject, state) {
                keep(&mut self.kept, row, *position);
            }
        }
        evolve_in_place(state, stored, &Event::decode_for_fold(stored));
        *position = row.position;
        Ok(())
    }

    /// Where a subject's state lies; its name is stored once.
    fn entry(&mut self, subject: &str) -> usize {
        if let Some(at) = self.subjects.get(subject) {
            return *at;
        }
        let at = self.folded.len();
        let subject = Subject::from_stored(subject.to_owned());
        self.subjects.insert(subject.clone(), at);
        self.folded.push(Folded { subject, state: None, position: 0 });
        at
    }

    /// The states so far, with the position of their last event.
    pub(crate) fn states(&self) -> impl Iterator<Item = (&Subject, &State, i64)> {
        self.folded.iter().filter_map(|f| Some((&f.subject, f.state.as_ref()?, f.position)))
    }

    /// The rows so far, as [`finish`](Self::finish) would tell them.
    pub(crate) fn rows(&self) -> Vec<(Row, i64)> {
        let mut kept = self.kept.clone();
        for (subject, state, position) in self.states() {
            for row in rows(subject, state) {
                keep(&mut kept, row, position);
            }
        }
        kept.into_values().collect()
    }

    /// What it has come to: subjects without a state are left out.
    pub(crate) fn finish(self) -> Outcome {
        let mut kept = self.kept;
        let mut states = Vec::with_capacity(self.folded.len());
        for Folded { subject, state, position } in self.folded {
            let Some(state) = state else { continue };
            for row in rows(&subject, &state) {
                keep(&mut kept, row, position);
            }
            states.push((subject, state, position));
        }
        Outcome { states, rows: kept.into_values().collect() }
    }
}

/// Keeps the latest row of a key, as if each were written when its event is applied.
fn keep(kept: &mut HashMap<RowKey, (Row, i64)>, row: Row, position: i64) {
    let key = row.key();
    if kept.get(&key).is_none_or(|(_, since)| *since <= position) {
        kept.insert(key, (row, position));
    }
}
