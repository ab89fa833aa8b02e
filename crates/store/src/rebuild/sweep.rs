//! A *sweep*: the log read once for all slices, in the order in which it lies on the disk.
//!
//! Slices lie mixed in the table, so reading one after the other along its key touches every page
//! once for each. A sweep touches each page once. Events of a slice then come nearly in order: what
//! comes early is *held* until its turn. A sweep need not be complete: whatever it did not see
//! (events moved between partitions meanwhile, sealed ones, a slice too much out of order) is read
//! along the key after it, since positions are dense and a fold knows where it stands.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use domain::ids::Timestamp;
use futures_util::TryStreamExt as _;
use futures_util::future::try_join_all;
use tokio::task::JoinHandle;

use super::copy_binary::{Malformed, Tuples};
use super::fold::Fold;
use super::source::EventRow;
use super::{RebuildProgress, blocking};
use crate::{Error, Store};

/// Pages that are read at once: 16 MB.
const PAGES: i64 = 2048;

/// Ranges that are read ahead of the fold: both cores of a small machine are kept busy.
const AHEAD: usize = 2;

/// Most events of a slice that are held: a few megabytes. Appends of a slice follow each other, so
/// they lie some pages apart at most, unless a session was idle for long between two of them.
const HELD: usize = 50_000;

/// Larger than this in memory, states are folded in several sweeps; beyond [`SWEEPS`] of them
/// slices are read one by one.
const MEMORY: i64 = 1 << 30;

/// States take some four times of what their text takes in the table.
const STATE_FACTOR: i64 = 4;

/// Fewer bytes of states for each event of the log than this cannot be all of them: the table was
/// emptied or lost, which may be why it is rebuilt.
const LEAST_OF_EVENT: i64 = 2;

/// What states take for each event where the table does not tell.
const GUESS_OF_EVENT: i64 = 64;

/// Most sweeps that cost less than reading along the key.
const SWEEPS: i64 = 4;

/// Pages of the partition of a month.
#[derive(Debug, Clone, Copy)]
struct Pages {
    from: Timestamp,
    until: Timestamp,
    first: i64,
}

/// An event that came before its turn.
struct Held {
    recorded_at: Timestamp,
    received_at: Timestamp,
    subject: String,
    event_type: String,
    schema_version: i16,
    payload: Vec<u8>,
}

/// A slice in a sweep.
pub(super) struct Swept {
    pub(super) slice: i16,
    /// The last position to fold.
    pub(super) goal: i64,
    pub(super) fold: Fold,
    /// Positions of it that are not folded.
    pub(super) set_aside: Vec<i64>,
    held: BTreeMap<i64, Held>,
    /// Too much was held: the rest is read along the key.
    is_given_up: bool,
}

/// About how long the texts of all states are, by the table that holds them now and the number of
/// events.
fn bytes_of_states(table: i64, events: i64) -> i64 {
    if table < events.saturating_mul(LEAST_OF_EVENT) {
        events.saturating_mul(GUESS_OF_EVENT)
    } else {
        table
    }
}

impl Store {
    /// How many slices of `due` are best swept together; `None`: none, since their states would
    /// not fit into memory.
    pub(super) async fn slices_of_a_sweep(&self, due: usize) -> Result<Option<usize>, Error> {
        let log = sqlx::query!(
            r#"SELECT pg_table_size('tallylight.subject_state') AS "states!",
                      (SELECT coalesce(sum(position), 0)::bigint FROM tallylight.slice_head) AS "events!""#
        )
        .fetch_one(&self.pool)
        .await?;
        let sweeps =
            (bytes_of_states(log.states, log.events).saturating_mul(STATE_FACTOR) / MEMORY) + 1;
        let sweeps = usize::try_from(sweeps.min(SWEEPS + 1)).unwrap_or(1);
        let fits = i64::try_from(sweeps).is_ok_and(|sweeps| sweeps <= SWEEPS);
        Ok(fits.then(|| due.div_ceil(sweeps).max(1)))
    }

    /// Folds what the table has of some slices, as far as it comes in order. Returns them dealt to
    /// so many hands.
    pub(super) async fn sweep(
        &self,
        swept: Vec<Swept>,
        parallel: usize,
        progress: &RebuildProgress,
    ) -> Result<Vec<Vec<Swept>>, Error> {
        let slices: Arc<[i16]> = swept.iter().map(|swept| swept.slice).collect();
        let mut pages = self.pages().await?.into_iter();
        let mut reading: VecDeque<JoinHandle<Result<Vec<u8>, Error>>> = VecDeque::new();
        let read = |pages: Pages, buffer: Vec<u8>| {
            let (store, slices) = (self.clone(), Arc::clone(&slices));
            tokio::spawn(async move { store.read_pages(pages, &slices, buffer).await })
        };
        reading.extend(pages.by_ref().take(AHEAD).map(|pages| read(pages, Vec::new())));
        let mut hands = dealt(swept, parallel);
        // Megabytes that are paid for once: a fresh buffer grows by copying, into fresh memory.
        let mut spare = Vec::new();
        while let Some(next) = reading.pop_front() {
            let bytes = Arc::new(next.await.map_err(|_| Error::Stopped)??);
            reading.extend(pages.next().map(|pages| read(pages, std::mem::take(&mut spare))));
            let before = events(&hands);
            hands = try_join_all(hands.into_iter().map(|hand| {
                let bytes = Arc::clone(&bytes);
                async move { blocking(move || apply(hand, &bytes)).await? }
            }))
            .await?;
            progress.events.fetch_add(events(&hands) - before, Ordering::Relaxed);
            spare = Arc::into_inner(bytes).unwrap_or_default();
        }
        Ok(hands)
    }

    /// All pages of the months, oldest first. The default partition is left out: the little that
    /// lies there is read along the key.
    async fn pages(&self) -> Result<Vec<Pages>, Error> {
        let months = sqlx::query!(
            r#"SELECT to_date(substr(c.relname, 7), 'YYYY_MM')::timestamp AT TIME ZONE 'UTC' AS "from!",
                      (to_date(substr(c.relname, 7), 'YYYY_MM') + interval '1 month') AT TIME ZONE 'UTC' AS "until!",
                      pg_relation_size(c.oid) / current_setting('block_size')::bigint AS "pages!"
                 FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid
                WHERE i.inhparent = 'tallylight.event'::regclass
                  AND c.relname ~ '^event_[0-9]{4}_[0-9]{2}$'
                ORDER BY c.relname"#
        )
        .fetch_all(&self.pool)
        .await?;
        let step = usize::try_from(PAGES).unwrap_or(1);
        let of_month = |month| {
            let (from, until, pages): (Timestamp, Timestamp, i64) = month;
            (0..pages).step_by(step).map(move |first| Pages { from, until, first })
        };
        Ok(months.into_iter().map(|m| (m.from, m.until, m.pages)).flat_map(of_month).collect())
    }

    /// Reads some pages in a short transaction of its own, as binary COPY, into `buffer`.
    async fn read_pages(
        &self,
        pages: Pages,
        slices: &[i16],
        mut buffer: Vec<u8>,
    ) -> Result<Vec<u8>, Error> {
        let time = |at: Timestamp| at.format("%Y-%m-%d %H:%M:%S%.6f+00").to_string();
        let all = slices.len() == self.slices.slices().count();
        let slices: Vec<String> = slices.iter().map(ToString::to_string).collect();
        let only =
            if all { String::new() } else { format!("AND slice IN ({})", slices.join(", ")) };
        // COPY takes no parameters, and the macros do not know it: numbers and times of ours. The
        // times name the partition.
        let statement = format!(
            "COPY (SELECT slice, position, recorded_at, received_at, subject, event_type, schema_version, payload
                     FROM tallylight.event
                    WHERE ctid >= '({},0)' AND ctid < '({},0)'
                      AND recorded_at >= '{}' AND recorded_at < '{}' {only}) TO STDOUT (FORMAT binary)",
            pages.first,
            pages.first + PAGES,
            time(pages.from),
            time(pages.until),
        );
        let mut connection = self.pool.acquire().await?;
        let read = async {
            buffer.clear();
            let mut rows = connection.copy_out_raw(&statement).await?;
            while let Some(row) = rows.try_next().await? {
                buffer.extend_from_slice(&row);
            }
            Ok::<_, Error>(buffer)
        };
        let read = read.await;
        if read.is_err() {
            // It may be in the middle of a COPY.
            connection.close_on_drop();
        }
        read
    }
}

impl Swept {
    /// A slice that is to be folded up to `goal`.
    pub(super) fn new(slice: i16, goal: i64, fold: Fold, set_aside: Vec<i64>) -> Self {
        Self { slice, goal, fold, set_aside, held: BTreeMap::new(), is_given_up: false }
    }

    /// Applies what is due, and holds what is not yet.
    fn apply(&mut self, mut rows: Vec<EventRow<'_>>) -> Result<(), Error> {
        rows.sort_unstable_by_key(|row| row.position);
        let mut rows = rows.iter().peekable();
        loop {
            let goal = self.goal;
            let mut next = self.fold.position;
            // Behind the fold: read twice, since it was moved, or folded before the sweep.
            while rows.next_if(|row| row.position <= next).is_some() {}
            let due = std::iter::from_fn(|| {
                let row = rows.next_if(|row| row.position == next + 1 && row.position <= goal)?;
                next = row.position;
                Some(*row)
            });
            self.fold.apply_rows(due)?;
            if !self.apply_held()? {
                break;
            }
        }
        for row in rows.filter(|row| row.position <= self.goal) {
            self.held.insert(row.position, Held::of(row));
        }
        if self.held.len() > HELD {
            self.is_given_up = true;
            self.held = BTreeMap::new();
        }
        Ok(())
    }

    /// Applies what was held and is due now; whether there was any.
    fn apply_held(&mut self) -> Result<bool, Error> {
        let begun_at = self.fold.position;
        while let Some(entry) = self.held.first_entry() {
            let position = *entry.key();
            if position > self.fold.position + 1 {
                break;
            }
            let held = entry.remove();
            if position == self.fold.position + 1 {
                self.fold.apply_one(&held.row(position))?;
            }
        }
        Ok(self.fold.position > begun_at)
    }
}

impl Held {
    fn of(row: &EventRow<'_>) -> Self {
        Self {
            recorded_at: row.recorded_at,
            received_at: row.received_at,
            subject: row.subject.to_owned(),
            event_type: row.event_type.to_owned(),
            schema_version: row.schema_version,
            payload: row.payload.to_vec(),
        }
    }

    fn row(&self, position: i64) -> EventRow<'_> {
        EventRow {
            position,
            recorded_at: self.recorded_at,
            received_at: self.received_at,
            subject: &self.subject,
            event_type: &self.event_type,
            schema_version: self.schema_version,
            payload: &self.payload,
        }
    }
}

/// Deals slices to so many hands: each folds its own of every range.
fn dealt(swept: Vec<Swept>, hands: usize) -> Vec<Vec<Swept>> {
    let mut dealt: Vec<Vec<Swept>> = Vec::new();
    dealt.resize_with(hands.clamp(1, swept.len().max(1)), Vec::new);
    let count = dealt.len();
    for (n, swept) in swept.into_iter().enumerate() {
        dealt[n % count].push(swept);
    }
    dealt
}

fn events(hands: &[Vec<Swept>]) -> u64 {
    hands.iter().flatten().map(|swept| swept.fold.events).sum()
}

/// Applies what a range has of some slices.
fn apply(mut hand: Vec<Swept>, bytes: &[u8]) -> Result<Vec<Swept>, Error> {
    let mut rows: Vec<Vec<EventRow<'_>>> = Vec::new();
    rows.resize_with(hand.len(), Vec::new);
    let malformed = |Malformed(what)| Error::Invalid {
        reason: format!("a row of the log cannot be read ({what})"),
    };
    let mut tuples = Tuples::new(bytes).map_err(malformed)?;
    while let Some(mut fields) = tuples.next_tuple().map_err(malformed)? {
        let slice = fields.smallint().map_err(malformed)?;
        let Some(nth) = hand.iter().position(|swept| swept.slice == slice) else { continue };
        if !hand[nth].is_given_up {
            rows[nth].push(EventRow::read(fields).map_err(malformed)?);
        }
    }
    for (swept, rows) in hand.iter_mut().zip(rows) {
        swept.apply(rows)?;
    }
    Ok(hand)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TO: i64 = 100;

    fn swept() -> Swept {
        Swept::new(3, TO, Fold::new(3, Default::default(), &[]), Vec::new())
    }

    fn row(position: i64) -> EventRow<'static> {
        EventRow {
            position,
            recorded_at: Timestamp::default(),
            received_at: Timestamp::default(),
            subject: "test/x/1",
            event_type: "Tested",
            schema_version: 1,
            payload: b"{}",
        }
    }

    fn apply(swept: &mut Swept, ranges: &[&[i64]]) {
        for range in ranges {
            swept.apply(range.iter().map(|position| row(*position)).collect()).unwrap();
        }
    }

    #[test]
    fn a_table_of_states_that_was_emptied_does_not_tell_how_large_they_are() {
        assert_eq!(bytes_of_states(0, 0), 0);
        assert_eq!(bytes_of_states(8192, 100_000_000), 6_400_000_000);
        assert_eq!(bytes_of_states(1 << 30, 100_000_000), 1 << 30);
    }

    #[test]
    fn each_event_up_to_the_goal_is_folded_once_in_whatever_order_it_lies() {
        let all: Vec<i64> = (1..=TO + 5).collect();
        let backwards: Vec<i64> = all.iter().rev().copied().collect();
        let (odd, even): (Vec<i64>, Vec<i64>) = all.iter().partition(|n| *n % 2 == 1);
        let orders: [&[&[i64]]; 5] = [
            &[&all],
            &[&backwards],
            &[&even, &odd],
            &[&all[50..], &all[20..60], &all[..25]],
            &[&all[..50], &all, &backwards],
        ];
        for ranges in orders {
            let mut swept = swept();
            apply(&mut swept, ranges);
            assert_eq!((swept.fold.position, swept.fold.events), (TO, TO.unsigned_abs()));
            assert!(swept.held.is_empty());
        }
    }

    #[test]
    fn what_is_missing_stops_the_fold_before_it() {
        let mut swept = swept();
        apply(&mut swept, &[&[1, 2, 4, 5], &[7, 6]]);
        assert_eq!((swept.fold.position, swept.held.len()), (2, 4));
        apply(&mut swept, &[&[3]]);
        assert_eq!((swept.fold.position, swept.held.len()), (7, 0));
    }

    #[test]
    fn a_slice_out_of_order_is_given_up_and_stays_where_it_is() {
        let mut swept = Swept::new(3, 1 << 40, Fold::new(3, Default::default(), &[]), Vec::new());
        let many: Vec<i64> = (3..).take(HELD + 1).collect();
        apply(&mut swept, &[&[1], &many]);
        assert!(swept.is_given_up && swept.held.is_empty());
        assert_eq!(swept.fold.position, 1);
    }

    #[test]
    fn slices_are_dealt_to_no_more_hands_than_there_are() {
        for (slices, hands, expected) in [(5, 2, 2), (1, 4, 1), (0, 3, 1), (4, 0, 1)] {
            let dealt = dealt((0..slices).map(|_| swept()).collect(), hands);
            assert_eq!(dealt.len(), expected);
            assert_eq!(dealt.iter().map(Vec::len).sum::<usize>(), slices);
        }
    }
}
