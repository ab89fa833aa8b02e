//! What the engine knows of lanes and pauses, and keeps in order: jobs that may not start are moved
//! out of the way of those that may, and come back when they may.
//!
//! A key is *parked* if jobs of it lie in the parked lane. The holder of a slice is the one who
//! parks, so it reads the slice's parked keys once, with a new lease, and knows them from then on;
//! a parked key is forgotten only when the database says that nothing of it is parked. So whatever
//! the last holder parked is found by the next. What the lanes mean stands in `store`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use store::{DueJob, Error, Holder, Lane, Pauses};
use tokio::time::Instant;
use uuid::Uuid;

use super::choose::{Holders, Shares};
use super::{Due, Engine};
use crate::news::News;
use crate::running::Taken;

/// Parked keys that are looked at in one look: each is an index range for each priority.
const PROBES: usize = 64;

/// Jobs of a parked key that are read at once.
const PER_KEY: usize = 64;

/// Due jobs of a fair key and priority in one look; as many as the store gives.
const PER_FAIR_KEY: usize = 8;

/// How often to look whether there are more fair keys than one look sees.
const FAIR_PAGE: Duration = Duration::from_secs(1);

/// A key in its slice.
pub(super) type Key = (i16, String);

/// Lanes and pauses, as the engine knows them.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    pub(super) pauses: Pauses,
    /// When they were read, and how often they had changed.
    read_at: Option<Instant>,
    changes: u64,
    /// Leases whose lanes are in order, by the pauses as they were after so many changes.
    in_order: HashMap<(i16, i64), u64>,
    /// Leases whose parked keys are known.
    known: BTreeSet<(i16, i64)>,
    /// Parked keys, and the limit of their first job, where one was seen.
    pub(super) parked: BTreeMap<Key, Option<i16>>,
    /// Where the last look at parked keys ended.
    looked_at: Option<Key>,
    /// Behind which fair key to look.
    pub(super) fair_after: String,
    paged_at: Option<Instant>,
    pub(super) shares: Shares,
}

impl Lanes {
    /// Parked keys that may have a job to start, the next in turn.
    fn probes(&mut self, slices: &HashMap<i16, i64>, taken: &Taken) -> Vec<Key> {
        let may_start = |(key, limit): &(&Key, &Option<i16>)| {
            let runs = taken.keys.get(key.1.as_str()).copied().unwrap_or_default();
            slices.contains_key(&key.0)
                && limit.is_none_or(|limit| runs < usize::from(limit.unsigned_abs()))
                && !self.pauses.keys.contains(&key.1)
        };
        let open: Vec<&Key> = self.parked.iter().filter(may_start).map(|(key, _)| key).collect();
        let from =
            self.looked_at.as_ref().map_or(0, |last| open.partition_point(|key| *key <= last));
        let next = open[from..].iter().chain(&open[..from]).take(PROBES);
        let next: Vec<Key> = next.map(|key| (*key).clone()).collect();
        self.looked_at = next.last().cloned();
        next
    }
}

impl Engine {
    /// Reads the pauses, unless that was a moment ago; brings the lanes of held slices in order.
    /// Returns the slices to claim from, and whether there is more to bring in order.
    pub(super) async fn keep_lanes(
        &mut self,
        held: &HashMap<i16, i64>,
    ) -> Result<(HashMap<i16, i64>, bool), Error> {
        self.read_pauses().await?;
        let is_held = |lease: &(i16, i64)| held.get(&lease.0) == Some(&lease.1);
        self.lanes.in_order.retain(|lease, _| is_held(lease));
        self.lanes.known.retain(is_held);
        let new: Vec<i16> = held
            .iter()
            .filter(|(s, e)| !self.lanes.known.contains(&(**s, **e)))
            .map(|(s, _)| *s)
            .collect();
        if !new.is_empty() {
            let parked = self.ctx.store().parked_keys(&new).await?;
            self.lanes
                .parked
                .retain(|(slice, _), _| held.contains_key(slice) && !new.contains(slice));
            self.lanes.parked.extend(parked.into_iter().map(|key| (key, None)));
            self.lanes.known.extend(new.iter().map(|slice| (*slice, held[slice])));
        }
        let mut ready = HashMap::new();
        let mut is_more = false;
        for (slice, epoch) in held {
            let lease = (*slice, *epoch);
            if self.lanes.in_order.get(&lease) != Some(&self.lanes.changes) {
                let _marks = self.marks.lock().await;
                // Only whole: a later job of a key must not pass one that is still to come back.
                if !self.ctx.store().take_back(*slice, *epoch, &self.lanes.pauses).await? {
                    is_more = true;
                    continue;
                }
                self.lanes.in_order.insert(lease, self.lanes.changes);
            }
            ready.insert(*slice, *epoch);
        }
        Ok((ready, is_more))
    }

    async fn read_pauses(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        let is_old = |at: Option<Instant>, age| at.is_none_or(|at| now.duration_since(at) >= age);
        if is_old(self.lanes.read_at, self.ctx.config().poll) {
            let pauses = self.ctx.store().pauses().await?;
            if pauses != self.lanes.pauses {
                self.lanes.pauses = pauses;
                self.lanes.changes += 1;
                self.ahead.stale = News::All;
            }
            self.lanes.read_at = Some(now);
        }
        if is_old(self.lanes.paged_at, FAIR_PAGE) {
            let after = &self.lanes.fair_after;
            let end = self.ctx.store().fair_page_end(self.ctx.process(), after).await?;
            self.lanes.fair_after = end.unwrap_or_default();
            self.lanes.paged_at = Some(now);
        }
        Ok(())
    }

    /// The first jobs of parked keys that may have one to start.
    pub(super) async fn parked(
        &mut self,
        slices: &HashMap<i16, i64>,
        taken: &Taken,
        slots: usize,
    ) -> Result<Vec<Due>, Error> {
        if slots == 0 || self.lanes.parked.is_empty() {
            return Ok(Vec::new());
        }
        let probes = self.lanes.probes(slices, taken);
        if probes.is_empty() {
            return Ok(Vec::new());
        }
        let most = i64::try_from(slots.min(PER_KEY)).unwrap_or(i64::MAX);
        let jobs = self.ctx.store().parked_jobs(self.ctx.process(), &probes, most).await?;
        let mut limits: HashMap<Key, i16> = HashMap::new();
        for job in &jobs {
            limits.entry((job.slice, job.key().to_owned())).or_insert(job.limit);
        }
        for (key, limit) in &limits {
            self.lanes.parked.insert(key.clone(), Some(*limit));
        }
        let empty: Vec<Key> = probes.into_iter().filter(|key| !limits.contains_key(key)).collect();
        if !empty.is_empty() {
            let left: BTreeSet<Key> =
                self.ctx.store().still_parked(&empty).await?.into_iter().collect();
            self.lanes.parked.retain(|key, _| !empty.contains(key) || left.contains(key));
        }
        Ok(jobs.into_iter().map(Due::new).collect())
    }

    /// The jobs that hold keys of ordered ones in the backlog and do not run: they wait for their
    /// next try. Read after what runs was noted, so that one whose run ends meanwhile is counted
    /// once.
    pub(super) async fn holders(&self, taken: &Taken) -> Result<Holders, Error> {
        if !self.ahead.backlog.has_ordered {
            return Ok(Holders::new());
        }
        let ordered = self.ahead.backlog.iter().filter(|job| job.ordered);
        let keys: BTreeSet<Key> = ordered.map(|job| (job.slice, job.key().to_owned())).collect();
        if keys.is_empty() {
            return Ok(Holders::new());
        }
        let keys: Vec<Key> = keys.into_iter().collect();
        let mut holders = Holders::new();
        for Holder { slice, key, id } in self.ctx.store().holders(&keys).await? {
            if !taken.ids.contains(&id) {
                holders.entry((slice, key)).or_default().insert(id);
            }
        }
        Ok(holders)
    }

    /// Moves what stands in the way of other jobs out of it. Returns whether anything was moved, so
    /// that there is more to see.
    pub(super) async fn clear_way(
        &mut self,
        slices: &HashMap<i16, i64>,
        blocked: &[Due],
        paused: &[Due],
    ) -> Result<bool, Error> {
        let mut moved = 0;
        let full = &self.ahead.full;
        for (slice, in_way) in in_way(blocked, |job| full.has(job)) {
            let keys: Vec<String> = in_way.keys.into_iter().collect();
            // Before it is sent: an answer that is lost may have parked them.
            self.lanes.parked.extend(keys.iter().map(|key| ((slice, key.clone()), None)));
            let fair_keys: Vec<String> = in_way.fair_keys.into_iter().collect();
            let _marks = self.marks.lock().await;
            moved += self.ctx.store().park(slice, slices[&slice], &keys, &fair_keys).await?;
        }
        // At the front of a parked key it would hide what is not paused.
        let hides = |job: &DueJob| full.has(job) || job.lane == Lane::Parked;
        for (slice, in_way) in in_way(paused, hides) {
            let fair_keys: Vec<String> = in_way.fair_keys.into_iter().collect();
            let (store, by) = (self.ctx.store(), &self.lanes.pauses);
            let _marks = self.marks.lock().await;
            moved += store.set_aside(slice, slices[&slice], by, &fair_keys, &in_way.ids).await?;
        }
        Ok(moved > 0)
    }
}

/// Pages of due jobs that were full, so that there may be others behind them.
#[derive(Debug, Default)]
pub(super) struct Full {
    by_time: BTreeMap<(i16, i16), usize>,
    by_owner: BTreeMap<(i16, i16, String), usize>,
}

impl Full {
    /// Of what was read, so many of each slice and priority at most.
    pub(super) fn of(due: &[Due], page: usize) -> Self {
        let mut full = Self::default();
        for job in due {
            match (&job.fair_key, job.lane) {
                (Some(whose), Lane::Shared) => {
                    let page = (job.slice, job.priority, whose.clone());
                    *full.by_owner.entry(page).or_default() += 1;
                }
                _ => *full.by_time.entry((job.slice, job.priority)).or_default() += 1,
            }
        }
        full.by_time.retain(|_, count| *count >= page);
        full.by_owner.retain(|_, count| *count >= PER_FAIR_KEY);
        full
    }

    /// What was read anew takes the place of what was known of its slices.
    pub(super) fn renew(&mut self, read: Self, is_read: impl Fn(i16) -> bool) {
        self.by_time.retain(|(slice, _), _| !is_read(*slice));
        self.by_owner.retain(|(slice, _, _), _| !is_read(*slice));
        self.by_time.extend(read.by_time);
        self.by_owner.extend(read.by_owner);
    }

    /// Whether a job stands in the way of others.
    fn has(&self, job: &DueJob) -> bool {
        match (job.lane, &job.fair_key) {
            (Lane::Open, _) => self.by_time.contains_key(&(job.slice, job.priority)),
            (Lane::Shared, Some(whose)) => {
                self.by_owner.contains_key(&(job.slice, job.priority, whose.clone()))
            }
            (Lane::Shared, None) | (Lane::Parked | Lane::Aside, _) => false,
        }
    }

    /// Whether any was.
    pub(super) fn any(&self) -> bool {
        !self.by_time.is_empty() || !self.by_owner.is_empty()
    }
}

/// What stands in the way, of one slice.
#[derive(Debug, Default)]
struct InWay {
    ids: Vec<Uuid>,
    keys: BTreeSet<String>,
    fair_keys: BTreeSet<String>,
}

fn in_way(jobs: &[Due], is: impl Fn(&DueJob) -> bool) -> BTreeMap<i16, InWay> {
    let mut slices: BTreeMap<i16, InWay> = BTreeMap::new();
    for job in jobs.iter().filter(|job| is(job)) {
        let in_way = slices.entry(job.slice).or_default();
        in_way.ids.push(job.id);
        in_way.keys.insert(job.key().to_owned());
        in_way.fair_keys.extend(job.fair_key.clone());
    }
    slices
}
