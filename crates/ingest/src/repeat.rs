//! Marks a body that equals one stored less than two seconds before, from the same source.
//!
//! A *repeat* is only marked: on, off, on is three events with two bodies, and whether a repeat
//! means anything is decided by the fold. Known to this process only, and best effort.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::ids::Timestamp;
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// How near is near.
const WINDOW: Duration = Duration::from_secs(2);

/// Most bodies remembered; at a higher rate the window is shorter.
const REMEMBERED: usize = 8192;

/// A source's body, by its digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Print([u8; 32]);

impl Print {
    /// The print of `body` as `source` sent it.
    pub(crate) fn of(source: &str, body: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update((source.len() as u64).to_be_bytes());
        hash.update(source.as_bytes());
        hash.update(body);
        Self(hash.finalize().into())
    }
}

/// Bodies stored lately.
#[derive(Debug, Default)]
pub(crate) struct Repeats {
    memory: Mutex<Memory>,
}

/// The last event of each print, and all of them by age.
#[derive(Debug, Default)]
struct Memory {
    last: HashMap<Print, (Timestamp, Uuid)>,
    by_age: VecDeque<(Timestamp, Uuid, Print)>,
}

impl Repeats {
    /// The event with the same print that was stored less than two seconds before `now`.
    pub(crate) fn find(&self, print: Print, now: Timestamp) -> Option<Uuid> {
        let memory = self.memory();
        let (at, event) = memory.last.get(&print)?;
        (*at + WINDOW > now).then_some(*event)
    }

    /// Remembers a stored event.
    pub(crate) fn remember(&self, print: Print, at: Timestamp, event: Uuid) {
        let mut memory = self.memory();
        while let Some((oldest, id, old_print)) = memory.by_age.front().copied() {
            if memory.by_age.len() < REMEMBERED && oldest + WINDOW > at {
                break;
            }
            memory.by_age.pop_front();
            // A younger event of the same print stays.
            if memory.last.get(&old_print).is_some_and(|(_, last)| *last == id) {
                memory.last.remove(&old_print);
            }
        }
        memory.last.insert(print, (at, event));
        memory.by_age.push_back((at, event, print));
    }

    /// A mark may be wrong after a panic elsewhere, never unsafe.
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::default() + Duration::from_millis(millis)
    }

    #[test]
    fn only_the_same_body_of_the_same_source_within_the_window_is_a_repeat() {
        let (repeats, event) = (Repeats::default(), Uuid::now_v7());
        let print = Print::of("a", b"on");
        assert_eq!(repeats.find(print, at(0)), None);
        repeats.remember(print, at(0), event);
        assert_eq!(repeats.find(print, at(1999)), Some(event));
        assert_eq!(repeats.find(print, at(2000)), None);
        assert_eq!(repeats.find(Print::of("b", b"on"), at(1)), None);
        assert_eq!(repeats.find(Print::of("a", b"off"), at(1)), None);
        assert_ne!(Print::of("a", b"bc"), Print::of("ab", b"c"));
    }

    #[test]
    fn memory_is_bounded_and_keeps_the_youngest() {
        let repeats = Repeats::default();
        let last = Uuid::now_v7();
        let print = |n: usize| Print::of("a", n.to_string().as_bytes());
        for n in 0..3 * REMEMBERED {
            repeats.remember(print(n), at(0), last);
        }
        assert_eq!(repeats.memory().by_age.len(), REMEMBERED);
        assert_eq!(repeats.memory().last.len(), REMEMBERED);
        assert_eq!(repeats.find(print(3 * REMEMBERED - 1), at(0)), Some(last));
        repeats.remember(print(0), at(5000), last);
        assert_eq!(repeats.memory().last.len(), 1);
    }
}
