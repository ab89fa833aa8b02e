//! The due jobs that wait to be chosen, by priority and by whose they are, each in their order. Kept
//! from choice to choice, so that a choice costs what it starts and not what waits.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use domain::ids::Timestamp;
use store::DueJob;
use uuid::Uuid;

use super::Due;
use crate::running::Taken;

/// Where a job stands among those of its priority.
fn place(job: &DueJob) -> (Timestamp, Uuid) {
    (job.run_at, job.id)
}

/// Jobs of one priority, by whose they are, each in their order; none of them empty.
#[derive(Debug, Default)]
pub(super) struct Waiting(pub(super) BTreeMap<String, VecDeque<Due>>);

impl Waiting {
    /// The owner whose turn it is: of whom the fewest run, then whose last turn is longest ago.
    pub(super) fn owner(&self, taken: &Taken, last: impl Fn(&str) -> u64) -> Option<String> {
        let runs = |whose: &String| taken.fair_keys.get(whose.as_str()).copied();
        let turn = |whose: &&String| (runs(whose).unwrap_or_default(), last(whose));
        self.0.keys().min_by_key(turn).cloned()
    }

    /// The next job of an owner.
    pub(super) fn pop(&mut self, whose: &str) -> Option<Due> {
        let jobs = self.0.get_mut(whose)?;
        let job = jobs.pop_front();
        if jobs.is_empty() {
            self.0.remove(whose);
        }
        job
    }
}

/// Jobs of all priorities.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    pub(super) priorities: [Waiting; 4],
    /// Whether any that was put in since it was empty is ordered.
    pub(super) has_ordered: bool,
}

impl Backlog {
    /// Adds jobs, each at its place.
    pub(super) fn put(&mut self, jobs: impl IntoIterator<Item = Due>) {
        let mut unsorted = BTreeSet::new();
        for job in jobs {
            let nth = usize::try_from(job.priority - 1).unwrap_or_default().min(3);
            let whose = job.fair_key.as_deref().unwrap_or_default();
            let waiting = &mut self.priorities[nth].0;
            if !waiting.contains_key(whose) {
                waiting.insert(whose.to_owned(), VecDeque::new());
            }
            let Some(queue) = waiting.get_mut(whose) else { continue };
            if queue.back().is_some_and(|last| place(last) > place(&job)) {
                unsorted.insert((nth, whose.to_owned()));
            }
            self.has_ordered |= job.ordered;
            queue.push_back(job);
        }
        for (nth, whose) in unsorted {
            if let Some(queue) = self.priorities[nth].0.get_mut(&whose) {
                queue.make_contiguous().sort_by_key(|job| place(job));
            }
        }
    }

    /// Keeps only some.
    pub(super) fn retain(&mut self, is_kept: impl Fn(&DueJob) -> bool) {
        for waiting in &mut self.priorities {
            waiting.0.retain(|_, jobs| {
                jobs.retain(|job| is_kept(job));
                !jobs.is_empty()
            });
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Due> {
        self.priorities.iter().flat_map(|waiting| waiting.0.values().flatten())
    }

    pub(super) fn len(&self) -> usize {
        self.priorities.iter().flat_map(|waiting| waiting.0.values()).map(VecDeque::len).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.priorities.iter().all(|waiting| waiting.0.is_empty())
    }
}
