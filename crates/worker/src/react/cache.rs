//! Folded states kept from one batch to the next.
//!
//! True for as long as the lease's epoch is ours, since nobody else may write them: dropped whole
//! on any doubt. Bounded: two generations of subjects, of which the older goes when the younger is
//! full, so that what is used again stays.

use std::collections::HashMap;

use domain::ids::Subject;
use domain::state::State;

/// The states of a slice's subjects, the lately used ones. `None`: the subject has no state.
#[derive(Debug)]
pub(super) struct StateCache {
    young: HashMap<Subject, Option<State>>,
    old: HashMap<Subject, Option<State>>,
    most: usize,
}

impl StateCache {
    /// Keeps at most `most` subjects.
    pub(super) fn new(most: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), most }
    }

    /// Takes a subject's state out; it is put back when it is committed.
    pub(super) fn take(&mut self, subject: &Subject) -> Option<(Subject, Option<State>)> {
        self.young.remove_entry(subject).or_else(|| self.old.remove_entry(subject))
    }

    /// Keeps a state that is committed.
    pub(super) fn put(&mut self, subject: Subject, state: Option<State>) {
        if self.young.len() >= self.most.div_ceil(2) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(subject, state);
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(n: usize) -> Subject {
        Subject::from_stored(format!("a/stream/{n}"))
    }

    #[test]
    fn it_holds_no_more_than_it_may() {
        let mut cache = StateCache::new(10);
        for n in 0..1_000 {
            cache.put(subject(n), None);
            assert!(cache.young.len() + cache.old.len() <= 10);
        }
        assert!(cache.take(&subject(999)).is_some());
        assert!(cache.take(&subject(0)).is_none());
    }

    #[test]
    fn what_is_used_again_and_again_stays() {
        let mut cache = StateCache::new(10);
        for n in 0..1_000 {
            let (used, state) = cache.take(&subject(0)).unwrap_or((subject(0), None));
            cache.put(used, state);
            cache.put(subject(n + 1), None);
        }
        assert!(cache.take(&subject(0)).is_some());
    }

    #[test]
    fn a_state_is_taken_once() {
        let mut cache = StateCache::new(10);
        cache.put(subject(1), None);
        assert!(cache.take(&subject(1)).is_some());
        assert!(cache.take(&subject(1)).is_none());
        cache.put(subject(1), None);
        cache.clear();
        assert!(cache.take(&subject(1)).is_none());
    }
}
