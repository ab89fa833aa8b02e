//! Notes: what a person should see to, though the worker works on. Told with its health, which
//! they do not spoil: another process would be no better off.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// What a note is about; a later one about the same takes its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum About {
    /// Events lie outside of the months.
    DefaultPartition,
    /// Jobs of a kind wait that this process does not know.
    UnknownKind,
    /// Live rows of this slice are not what the log folds to.
    Differing(i16),
}

/// The notes of a process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notes(Arc<Mutex<BTreeMap<About, Note>>>);

/// A note, and until when it stands where nobody clears it.
#[derive(Debug)]
struct Note {
    text: String,
    until: Option<Instant>,
}

impl Notes {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<About, Note>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes something.
    pub(crate) fn set(&self, about: About, text: String) {
        self.lock().insert(about, Note { text, until: None });
    }

    /// Notes something that is well again unless it is noted again within a time.
    pub(crate) fn set_for(&self, about: About, text: String, stands: Duration) {
        self.lock().insert(about, Note { text, until: Some(Instant::now() + stands) });
    }

    /// It is well again.
    pub(crate) fn clear(&self, about: About) {
        self.lock().remove(&about);
    }

    /// The slices that differed when they were verified last.
    pub(crate) fn differing(&self) -> Vec<i16> {
        let slice = |about: &About| match about {
            About::Differing(slice) => Some(*slice),
            About::DefaultPartition | About::UnknownKind => None,
        };
        self.lock().keys().filter_map(slice).collect()
    }

    /// All of them, for people.
    pub(crate) fn texts(&self) -> Vec<String> {
        let now = Instant::now();
        let stands = |note: &&Note| note.until.is_none_or(|until| until > now);
        self.lock().values().filter(stands).map(|note| note.text.clone()).collect()
    }
}
