//! How many connections there may be, and which one goes when another comes.
//!
//! A connection *waits* unless one of its requests is being answered, and its caller is *known*
//! once something was answered with success that is not answered to everybody. When all slots are
//! taken, the connection goes that has waited longest, those of unknown callers first: so whoever
//! holds connections without a secret cannot keep out those who have one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How soon to look again for a connection that waits, where all were being answered.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// That connections are closed for others is told this often.
const TELL_EVERY: Duration = Duration::from_mins(1);

/// A request is being answered.
const BUSY: u64 = u64::MAX;

/// It goes.
const CLOSED: u64 = u64::MAX - 1;

/// All slots of a listener.
#[derive(Debug)]
pub(super) struct Slots {
    free: Arc<Semaphore>,
    taken: Mutex<Taken>,
    begun: Instant,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    seats: HashMap<u64, Arc<Seat>>,
    told: Option<Instant>,
}

/// What is known of a connection.
#[derive(Debug)]
pub(super) struct Seat {
    begun: Instant,
    /// Since when it waits, in microseconds after `begun`; or [`BUSY`], or [`CLOSED`].
    state: AtomicU64,
    is_known: AtomicBool,
    /// Cancelled: it goes.
    pub(super) closed: CancellationToken,
}

/// A connection's slot, free again once this is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    number: u64,
    slots: Arc<Slots>,
    pub(super) seat: Arc<Seat>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.taken().seats.remove(&self.number);
    }
}

impl Slots {
    /// That many, all free.
    pub(super) fn new(count: usize) -> Arc<Self> {
        let free = Arc::new(Semaphore::new(count.clamp(1, Semaphore::MAX_PERMITS)));
        Arc::new(Self { free, taken: Mutex::default(), begun: Instant::now() })
    }

    /// Takes a slot for a new connection; where none is free, that of a connection which waits.
    pub(super) async fn take(self: &Arc<Self>) -> Slot {
        let mut free = Arc::clone(&self.free).try_acquire_owned().ok();
        loop {
            if let Some(permit) = free {
                return self.seat(permit);
            }
            self.close_one();
            // Its task gives the slot back when it has ended.
            let permit = timeout(LOOK_AGAIN, Arc::clone(&self.free).acquire_owned()).await;
            free = permit.ok().and_then(Result::ok);
        }
    }

    fn seat(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Slot {
        let seat = Seat {
            begun: self.begun,
            state: AtomicU64::new(micros(self.begun)),
            is_known: AtomicBool::new(false),
            closed: CancellationToken::new(),
        };
        let seat = Arc::new(seat);
        let mut taken = self.taken();
        let number = taken.next;
        taken.next += 1;
        taken.seats.insert(number, Arc::clone(&seat));
        drop(taken);
        Slot { number, slots: Arc::clone(self), seat, _permit: permit }
    }

    /// Closes the connection that is worth least, if one waits.
    fn close_one(&self) {
        let mut taken = self.taken();
        let seats = taken.seats.values();
        let waiting = seats.filter_map(|seat| Some((seat.worth()?, seat)));
        let Some(((_, since), seat)) = waiting.min_by_key(|(worth, _)| *worth) else { return };
        // A request may have begun since: then it stays, and the next look finds another.
        let closing =
            seat.state.compare_exchange(since, CLOSED, Ordering::AcqRel, Ordering::Relaxed);
        if closing.is_err() {
            return;
        }
        seat.closed.cancel();
        if taken.told.is_none_or(|told| told.elapsed() > TELL_EVERY) {
            taken.told = Some(Instant::now());
            tracing::warn!(
                connections = taken.seats.len(),
                "all connections are taken: for each new one the one that has waited longest is closed"
            );
        }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// A request begins. Returns whether it may: not on a connection that goes.
    pub(super) fn begin(&self) -> bool {
        let busy = |state| (state != CLOSED).then_some(BUSY);
        self.state.fetch_update(Ordering::AcqRel, Ordering::Relaxed, busy).is_ok()
    }

    /// A request was answered.
    pub(super) fn end(&self, is_known: bool) {
        if is_known {
            self.is_known.store(true, Ordering::Relaxed);
        }
        self.state.store(micros(self.begun), Ordering::Release);
    }

    /// Whether its caller is known, and since when it waits; the least goes first. `None`: it stays.
    fn worth(&self) -> Option<(bool, u64)> {
        let since = self.state.load(Ordering::Acquire);
        (since < CLOSED).then(|| (self.is_known.load(Ordering::Relaxed), since))
    }
}

/// Microseconds since `begun`.
fn micros(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_micros()).unwrap_or(CLOSED - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a slot, which must be free at once or become so by closing another.
    async fn take(slots: &Arc<Slots>) -> Slot {
        timeout(Duration::from_secs(10), slots.take()).await.expect("a slot becomes free")
    }

    /// Takes a slot while that of a closed connection is given back.
    async fn replace(slots: &Arc<Slots>, seats: &mut Vec<Slot>) {
        let ended = async {
            let at = loop {
                match seats.iter().position(|slot| slot.seat.closed.is_cancelled()) {
                    Some(at) => break at,
                    None => tokio::task::yield_now().await,
                }
            };
            seats.remove(at);
        };
        let (taken, ()) = tokio::join!(take(slots), ended);
        seats.push(taken);
    }

    fn numbers(seats: &[Slot]) -> Vec<u64> {
        seats.iter().map(|slot| slot.number).collect()
    }

    #[tokio::test]
    async fn unknown_callers_go_first_and_of_them_who_has_waited_longest() {
        let slots = Slots::new(4);
        let mut seats = Vec::new();
        for _ in 0..4 {
            seats.push(take(&slots).await);
            let now = micros(slots.begun);
            // The next one waits for less long.
            while micros(slots.begun) == now {}
        }
        // The first is known, the second is being answered, the third has just been answered.
        for (n, is_known) in [(0, true), (2, false)] {
            assert!(seats[n].seat.begin());
            seats[n].seat.end(is_known);
        }
        assert!(seats[1].seat.begin());
        replace(&slots, &mut seats).await;
        assert_eq!(numbers(&seats), [0, 1, 2, 4]);
        replace(&slots, &mut seats).await;
        assert_eq!(numbers(&seats), [0, 1, 4, 5]);
        assert!(seats[2..].iter().all(|slot| slot.seat.begin()));
        // Only the known one waits.
        replace(&slots, &mut seats).await;
        assert_eq!(numbers(&seats), [1, 4, 5, 6]);
    }

    #[tokio::test]
    async fn a_slot_comes_free_when_nobody_waits() {
        let slots = Slots::new(1);
        let only = take(&slots).await;
        assert!(only.seat.begin());
        let waits = tokio::spawn({
            let slots = Arc::clone(&slots);
            async move { take(&slots).await.number }
        });
        assert!(timeout(LOOK_AGAIN * 3, only.seat.closed.cancelled()).await.is_err());
        only.seat.end(true);
        only.seat.closed.cancelled().await;
        assert!(!only.seat.begin(), "nothing begins on a connection that goes");
        drop(only);
        assert_eq!(waits.await.unwrap(), 1);
    }
}
