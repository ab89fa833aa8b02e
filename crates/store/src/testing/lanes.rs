//! Lanes and pauses on the in-memory tables: `jobs/lanes.rs` and `jobs/pauses.rs` without SQL.

use std::collections::{BTreeSet, HashSet};

use domain::effect::{FORWARD, RELAY, TIMER};
use domain::ids::Timestamp;
use uuid::Uuid;

use super::jobs::{JobRow, Order};
use super::tables::{SliceTables, Tables};
use crate::jobs::MOVE;
use crate::{Consumer, DueJob, Error, FAIR_KEYS, Holder, Lane, Pauses};

/// A parked key of a slice.
type Key = (i16, String);

impl JobRow {
    /// What is limited.
    pub fn key(&self) -> &str {
        self.limit_key.as_deref().unwrap_or(self.subject.as_str())
    }

    /// The lane in which it is found by time, or by whose it is.
    pub(super) fn home(&self) -> Lane {
        if self.fair_key.is_none() { Lane::Open } else { Lane::Shared }
    }

    pub(super) fn may_start(&self, now: Timestamp, epoch: i64) -> bool {
        self.run_at <= now && self.run_epoch.is_none_or(|run| run < epoch)
    }
}

impl SliceTables {
    /// The first jobs of each priority for which `is` holds, by time.
    fn first(&self, most: i64, is: impl Fn(&JobRow) -> bool) -> Vec<Uuid> {
        let most = usize::try_from(most).unwrap_or_default();
        let mut first = Vec::new();
        for priority in 1..=4 {
            let mut of: Vec<_> =
                self.jobs.iter().filter(|(_, job)| job.priority == priority && is(job)).collect();
            of.sort_by_key(|(id, job)| (job.run_at, **id));
            first.extend(of.into_iter().take(most).map(|(id, _)| *id));
        }
        first
    }

    /// The due jobs that stand in the way.
    fn front(&self, now: Timestamp, fair_keys: &[String]) -> Vec<Uuid> {
        let is_due = |job: &JobRow, lane: Lane| job.lane == lane && job.run_at <= now;
        let mut front = self.first(MOVE, |job| is_due(job, Lane::Open));
        for fair_key in fair_keys {
            let is_own = |job: &JobRow| job.fair_key.as_ref() == Some(fair_key);
            front.extend(self.first(MOVE, |job| is_due(job, Lane::Shared) && is_own(job)));
        }
        front
    }

    fn move_to(&mut self, lane: Lane, ids: &[Uuid], is: impl Fn(&JobRow) -> bool) -> u64 {
        let ids: HashSet<&Uuid> = ids.iter().collect();
        let mut moved = 0;
        for (_, job) in self.jobs.iter_mut().filter(|(id, job)| ids.contains(id) && is(job)) {
            job.lane = lane;
            moved += 1;
        }
        moved
    }
}

impl Tables {
    pub(super) fn fair_page_end(&self, process: Uuid, after: &str) -> Option<String> {
        let end = |tables: &SliceTables| {
            let shared = tables.jobs.values().filter(|job| job.lane == Lane::Shared);
            let owners = shared.filter_map(|job| job.fair_key.clone());
            let owners: BTreeSet<String> = owners.filter(|key| key.as_str() > after).collect();
            owners.into_iter().nth(usize::try_from(FAIR_KEYS - 1).unwrap_or_default())
        };
        let held = self.slices.iter().filter(|t| t.jobs_lease.owner == Some(process));
        held.filter_map(end).min()
    }

    fn parked_in(&self, slice: i16) -> BTreeSet<Key> {
        let index = usize::try_from(slice).unwrap_or(usize::MAX);
        let jobs = self.slices.get(index).into_iter().flat_map(|tables| tables.jobs.values());
        let parked = jobs.filter(|job| job.lane == Lane::Parked);
        parked.map(|job| (slice, job.key().to_owned())).collect()
    }

    pub(super) fn parked_keys(&self, slices: &[i16]) -> Vec<Key> {
        slices.iter().flat_map(|slice| self.parked_in(*slice)).collect()
    }

    pub(super) fn still_parked(&self, keys: &[Key]) -> Vec<Key> {
        let is_parked = |key: &&Key| self.parked_in(key.0).contains(key);
        keys.iter().filter(is_parked).cloned().collect()
    }

    pub(super) fn holders(&self, keys: &[Key]) -> Vec<Holder> {
        let of = |(slice, key): &Key| {
            let index = usize::try_from(*slice).unwrap_or(usize::MAX);
            let jobs = self.slices.get(index).into_iter().flat_map(|tables| &tables.jobs);
            let holds = jobs.filter(|(_, job)| job.order == Order::Holds && job.key() == key);
            let holder = |(id, _): (&Uuid, _)| Holder { slice: *slice, key: key.clone(), id: *id };
            holds.map(holder).collect::<Vec<_>>()
        };
        keys.iter().flat_map(of).collect()
    }

    pub(super) fn parked_jobs(
        &self,
        now: Timestamp,
        process: Uuid,
        keys: &[Key],
        per_key: i64,
    ) -> Vec<DueJob> {
        let mut due = Vec::new();
        for (slice, key) in keys {
            let index = usize::try_from(*slice).unwrap_or(usize::MAX);
            let held = |tables: &&SliceTables| tables.jobs_lease.owner == Some(process);
            let Some(tables) = self.slices.get(index).filter(held) else { continue };
            let epoch = tables.jobs_lease.epoch;
            let ids = tables.first(per_key, |job| {
                job.lane == Lane::Parked && job.key() == key && job.may_start(now, epoch)
            });
            due.extend(ids.into_iter().map(|id| tables.jobs[&id].due(*slice, id, now)));
        }
        due.sort_by_key(|job| (job.priority, job.run_at, job.id));
        due
    }

    pub(super) fn park(
        &mut self,
        now: Timestamp,
        (slice, epoch): (i16, i64),
        keys: &[String],
        fair_keys: &[String],
    ) -> Result<u64, Error> {
        let tables = self.fence(Consumer::Jobs, slice, epoch)?;
        let front = tables.front(now, fair_keys);
        Ok(tables.move_to(Lane::Parked, &front, |job| {
            keys.iter().any(|key| key == job.key())
                && ![TIMER, FORWARD, RELAY].contains(&job.kind.as_str())
        }))
    }

    pub(super) fn set_aside(
        &mut self,
        now: Timestamp,
        (slice, epoch): (i16, i64),
        pauses: &Pauses,
        fair_keys: &[String],
        ids: &[Uuid],
    ) -> Result<u64, Error> {
        let tables = self.fence(Consumer::Jobs, slice, epoch)?;
        let mut front = tables.front(now, fair_keys);
        front.extend(ids);
        Ok(tables.move_to(Lane::Aside, &front, |job| {
            pauses.hold_one(&job.kind, &job.queue, job.key())
                && job.run_epoch.is_none_or(|run| run < epoch)
        }))
    }

    pub(super) fn take_back(
        &mut self,
        slice: i16,
        epoch: i64,
        pauses: &Pauses,
    ) -> Result<bool, Error> {
        let is_any = |tables: &SliceTables| tables.jobs.values().any(|j| j.lane == Lane::Aside);
        if !self.slice(slice).is_some_and(|tables| is_any(tables)) {
            return Ok(true);
        }
        let tables = self.fence(Consumer::Jobs, slice, epoch)?;
        for job in tables.jobs.values_mut().filter(|job| job.lane == Lane::Aside) {
            if !pauses.hold_one(&job.kind, &job.queue, job.key()) {
                job.lane = job.home();
            }
        }
        Ok(true)
    }
}
