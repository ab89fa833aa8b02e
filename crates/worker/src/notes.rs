//! Notes: what a person should see to, though the worker works on. Told with its health, which
//! they do not spoil: another process would be no better off.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a note is about; a later one about the same takes its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum About {
    /// Events lie outside of the months.
    DefaultPartition,
    /// Live rows of this slice are not what the log folds to.
    Differing(i16),
}

/// The notes of a process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notes(Arc<Mutex<BTreeMap<About, String>>>);

impl Notes {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<About, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes something.
    pub(crate) fn set(&self, about: About, text: String) {
        self.lock().insert(about, text);
    }

    /// It is well again.
    pub(crate) fn clear(&self, about: About) {
        self.lock().remove(&about);
    }

    /// The slices that differed when they were verified last.
    pub(crate) fn differing(&self) -> Vec<i16> {
        let slice = |about: &About| match about {
            About::Differing(slice) => Some(*slice),
            About::DefaultPartition => None,
        };
        self.lock().keys().filter_map(slice).collect()
    }

    /// All of them, for people.
    pub(crate) fn texts(&self) -> Vec<String> {
        self.lock().values().cloned().collect()
    }
}
