//! How far the slices of this process are, as its loops know it: for health and for numbers.
//!
//! A slice is *behind* while its head is past what is applied. A slice that is behind and does not
//! move is ill, and so is one with a hole. Nothing here asks the database.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::event::RecordedEvent;
use domain::ids::Timestamp;
use store::{Consumer, Lease};
use tokio::time::Instant;

use crate::context::now;

/// What is known of a slice.
#[derive(Debug, Clone)]
pub(crate) struct SliceProgress {
    /// The last position, as last seen.
    pub(crate) head: i64,
    /// The last applied position.
    pub(crate) position: i64,
    /// When the oldest event that is not applied was recorded, as far as is known.
    behind_since: Option<Timestamp>,
    /// When it last moved, or last had nothing to do.
    moved: Instant,
    /// Events set aside that wait.
    pub(crate) parked: i64,
    has_hole: bool,
}

impl SliceProgress {
    /// Events that are not applied.
    pub(crate) fn lag(&self) -> i64 {
        (self.head - self.position).max(0)
    }

    /// Age of the oldest of them, in seconds.
    pub(crate) fn lag_seconds(&self) -> f64 {
        let Some(since) = self.behind_since.filter(|_| self.lag() > 0) else { return 0.0 };
        (now() - since).to_std().unwrap_or_default().as_secs_f64()
    }

    /// Notes a position, and that it was reached now.
    fn reach(&mut self, position: i64) {
        self.position = position;
        self.head = self.head.max(position);
        self.moved = Instant::now();
    }
}

/// The slices of this process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress(Arc<Mutex<BTreeMap<i16, SliceProgress>>>);

impl Progress {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<i16, SliceProgress>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A slice was opened where its lease stands.
    pub(crate) fn opened(&self, lease: &Lease, parked: i64) {
        let mut slices = self.lock();
        let slice = slices.entry(lease.slice).or_insert_with(|| SliceProgress {
            head: lease.position,
            position: lease.position,
            behind_since: None,
            moved: Instant::now(),
            parked,
            has_hole: false,
        });
        slice.position = lease.position;
        slice.head = slice.head.max(lease.position);
        slice.parked = parked;
    }

    /// A head was seen. Whether the follower of the slice has something to do.
    pub(crate) fn saw_head(&self, slice: i16, head: i64) -> bool {
        let mut slices = self.lock();
        let Some(slice) = slices.get_mut(&slice) else { return false };
        if slice.lag() == 0 {
            slice.moved = Instant::now();
        }
        slice.head = slice.head.max(head);
        if slice.lag() > 0 && slice.behind_since.is_none() {
            slice.behind_since = Some(now());
        }
        slice.lag() > 0 || slice.parked > 0
    }

    /// The head of a slice, as last seen.
    pub(crate) fn head(&self, slice: i16) -> i64 {
        self.lock().get(&slice).map_or(0, |slice| slice.head)
    }

    /// A batch that begins with `first` is being applied.
    pub(crate) fn applying(&self, first: &RecordedEvent) {
        if let Some(slice) = self.lock().get_mut(&first.slice) {
            slice.head = slice.head.max(first.position);
            slice.behind_since = Some(first.recorded_at);
        }
    }

    /// Events up to the lease's position are applied.
    pub(crate) fn applied(&self, lease: &Lease, parked: i64) {
        if let Some(slice) = self.lock().get_mut(&lease.slice) {
            slice.reach(lease.position);
            slice.parked = parked;
            // The next event, if there is one already, is at least this old or younger.
            slice.behind_since = Some(lease.recorded_at).filter(|_| slice.lag() > 0);
        }
    }

    /// Nothing is left to apply.
    pub(crate) fn idle(&self, lease: &Lease) {
        if let Some(slice) = self.lock().get_mut(&lease.slice) {
            slice.reach(lease.position);
            slice.behind_since = None;
        }
    }

    /// Notes whether a slice has a hole; returns whether that is news.
    pub(crate) fn has_hole(&self, slice: i16, has_hole: bool) -> bool {
        let mut slices = self.lock();
        let Some(slice) = slices.get_mut(&slice) else { return has_hole };
        std::mem::replace(&mut slice.has_hole, has_hole) != has_hole
    }

    /// Forgets the slices that are not `kept`.
    pub(crate) fn retain(&self, kept: impl Fn(i16) -> bool) {
        self.lock().retain(|slice, _| kept(*slice));
    }

    /// All slices.
    pub(crate) fn all(&self) -> BTreeMap<i16, SliceProgress> {
        self.lock().clone()
    }

    /// Whether all slices are well. One that is behind may stand still for `stall`.
    pub(crate) fn health(&self, stall: Duration) -> Health {
        let complaint = |(slice, p): (i16, SliceProgress)| {
            let what = if p.has_hole {
                format!("position {} is missing, the slice stands still", p.position + 1)
            } else if p.lag() > 0 && p.moved.elapsed() > stall {
                let seconds = p.moved.elapsed().as_secs();
                format!("stands at {} while the head is {}, for {seconds} s", p.position, p.head)
            } else {
                return None;
            };
            Some(Complaint { consumer: Consumer::React.name(), slice, what })
        };
        let complaints = self.all().into_iter().filter_map(complaint).collect();
        Health { complaints, notes: Vec::new() }
    }
}

/// Whether a worker is well: it is if nothing is complained of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// What is wrong.
    pub complaints: Vec<Complaint>,
    /// What a person should see to, though the worker works on: none of its slices is ill for it.
    pub notes: Vec<String>,
}

impl Health {
    /// Whether nothing is wrong.
    pub fn is_well(&self) -> bool {
        self.complaints.is_empty()
    }
}

/// Something wrong with a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// Whose progress it is.
    pub consumer: &'static str,
    /// The slice.
    pub slice: i16,
    /// What is wrong, for people.
    pub what: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of slice {}: {}", self.consumer, self.slice, self.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(position: i64) -> Lease {
        Lease { slice: 3, epoch: 1, position, recorded_at: now() }
    }

    fn is_well(progress: &Progress) -> bool {
        progress.health(Duration::ZERO).is_well()
    }

    #[test]
    fn a_slice_is_ill_while_its_head_moves_and_its_position_does_not() {
        let progress = Progress::default();
        progress.opened(&lease(7), 0);
        assert!(is_well(&progress));
        assert!(progress.saw_head(3, 9), "there is something to do");
        std::thread::yield_now();
        let health = progress.health(Duration::ZERO);
        assert_eq!((health.complaints[0].consumer, health.complaints[0].slice), ("react", 3));
        assert!(health.complaints[0].to_string().contains("stands at 7 while the head is 9"));
        assert!(progress.health(Duration::from_mins(1)).is_well(), "it has not stood for long");
        progress.applied(&lease(9), 0);
        assert!(is_well(&progress));
    }

    #[test]
    fn a_hole_is_ill_at_once_and_news_once() {
        let progress = Progress::default();
        progress.opened(&lease(7), 0);
        assert!(progress.has_hole(3, true));
        assert!(!progress.has_hole(3, true));
        let health = progress.health(Duration::from_mins(1));
        assert!(health.complaints[0].what.contains("position 8 is missing"));
        progress.has_hole(3, false);
        assert!(is_well(&progress));
    }

    #[test]
    fn lag_is_told_in_events_and_seconds_and_is_none_when_level() {
        let progress = Progress::default();
        progress.opened(&lease(7), 2);
        progress.saw_head(3, 9);
        let slice = &progress.all()[&3];
        assert_eq!((slice.lag(), slice.parked), (2, 2));
        assert!(slice.lag_seconds() >= 0.0);
        progress.applied(&lease(9), 0);
        let slice = &progress.all()[&3];
        assert_eq!((slice.lag(), slice.parked), (0, 0));
        assert!(slice.lag_seconds() == 0.0);
    }

    #[test]
    fn a_slice_that_was_given_away_is_forgotten() {
        let progress = Progress::default();
        progress.opened(&lease(7), 0);
        progress.saw_head(3, 9);
        progress.retain(|slice| slice != 3);
        assert!(is_well(&progress) && progress.all().is_empty());
    }
}
