//! Leases: which slices this process holds, for both consumers.
//!
//! No leader: every process ranks the living ones for each slice by the same hash and takes what
//! is its share, at most ⌈S/N⌉. Holding is known by this process's own monotonic clock, counted
//! from before the claim was sent; the epoch protects the tables whatever the clocks say.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};
use store::{Consumer, Error, Lease};
use tokio::sync::{RwLock, RwLockWriteGuard};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::context::Context;

/// A lease that this process holds.
#[derive(Debug, Clone, Copy)]
struct Held {
    lease: Lease,
    until: Instant,
    /// Another process should have it: no new work, released when idle.
    leaving: bool,
}

/// The leases of this process, shared by its loops.
#[derive(Debug, Clone, Default)]
pub(crate) struct Leases {
    held: Arc<Mutex<BTreeMap<(Consumer, i16), Held>>>,
    /// Transactions on jobs are readers, renewals of their leases writers.
    gate: Arc<RwLock<()>>,
}

impl Leases {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<(Consumer, i16), Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a transaction on jobs pass. Several go on at once, and each shares the locks on its
    /// checkpoints; without a gap between them no renewal would ever get one.
    pub(crate) async fn working<T>(&self, transaction: impl Future<Output = T>) -> T {
        let _pass = self.gate.read().await;
        transaction.await
    }

    /// Makes a gap between transactions on jobs. Not waited for longer than is safe: one that hangs
    /// must not hold up the renewal of the others.
    async fn gap(&self, patience: Duration) -> Option<RwLockWriteGuard<'_, ()>> {
        tokio::time::timeout(patience, self.gate.write()).await.ok()
    }

    /// The slices to take new work from.
    pub(crate) fn held(&self, consumer: Consumer) -> Vec<Lease> {
        let now = Instant::now();
        let held = self.lock();
        let valid = held.iter().filter(|((c, _), h)| *c == consumer && h.until > now && !h.leaving);
        let mut leases: Vec<Lease> = valid.map(|(_, h)| h.lease).collect();
        leases.sort_by_key(|lease| lease.slice);
        leases
    }

    /// Whether the slice is still held at this epoch.
    pub(crate) fn holds(&self, consumer: Consumer, slice: i16, epoch: i64) -> bool {
        let now = Instant::now();
        let held = self.lock();
        held.get(&(consumer, slice)).is_some_and(|h| h.lease.epoch == epoch && h.until > now)
    }

    /// Whether the slice is still held at this epoch, and not to be given away.
    pub(crate) fn may_work(&self, consumer: Consumer, slice: i16, epoch: i64) -> bool {
        let now = Instant::now();
        let held = self.lock();
        let held = held.get(&(consumer, slice));
        held.is_some_and(|h| h.lease.epoch == epoch && h.until > now && !h.leaving)
    }

    /// Whether there is a lease on the slice, perhaps past its time.
    pub(crate) fn has(&self, consumer: Consumer, slice: i16) -> bool {
        self.lock().contains_key(&(consumer, slice))
    }

    /// Notes how far a slice was applied.
    pub(crate) fn advanced(&self, consumer: Consumer, lease: Lease) {
        if let Some(held) = self.lock().get_mut(&(consumer, lease.slice))
            && held.lease.epoch == lease.epoch
        {
            held.lease = lease;
        }
    }

    /// Forgets a slice: its lease has passed on, or ended.
    pub(crate) fn forget(&self, consumer: Consumer, slice: i16, epoch: i64) {
        let mut held = self.lock();
        if held.get(&(consumer, slice)).is_some_and(|h| h.lease.epoch == epoch) {
            held.remove(&(consumer, slice));
        }
    }

    /// Notes a lease that was claimed, trusted until then.
    pub(crate) fn insert(&self, consumer: Consumer, lease: Lease, until: Instant) {
        self.lock().insert((consumer, lease.slice), Held { lease, until, leaving: false });
    }

    fn all(&self, consumer: Consumer) -> Vec<(i16, i64)> {
        let held = self.lock();
        let mine = held.iter().filter(|((c, _), _)| *c == consumer);
        mine.map(|((_, slice), h)| (*slice, h.lease.epoch)).collect()
    }

    /// Notes which of the leases that were `asked` for are renewed, and forgets the others of them.
    /// What was claimed meanwhile was not asked for, and stays.
    fn renewed(&self, consumer: Consumer, asked: &[(i16, i64)], renewed: &[i16], until: Instant) {
        let mut held = self.lock();
        for (slice, epoch) in asked {
            let Entry::Occupied(mut entry) = held.entry((consumer, *slice)) else { continue };
            if entry.get().lease.epoch != *epoch {
                continue;
            }
            if renewed.contains(slice) {
                entry.get_mut().until = until;
            } else {
                entry.remove();
            }
        }
    }

    fn set_leaving(&self, share: &BTreeSet<i16>) {
        for ((_, slice), held) in self.lock().iter_mut() {
            held.leaving = !share.contains(slice);
        }
    }

    fn leaving(&self, consumer: Consumer) -> Vec<(i16, i64)> {
        let held = self.lock();
        let leaving = held.iter().filter(|((c, _), h)| *c == consumer && h.leaving);
        leaving.map(|((_, slice), h)| (*slice, h.lease.epoch)).collect()
    }
}

/// Keeps the leases until `stop`, then returns: they are released by [`release_all`] when the
/// loops are done with them. `busy` tells whether a slice has running jobs.
pub(crate) async fn keep(
    ctx: &Context,
    leases: &Leases,
    busy: impl Fn(i16) -> bool,
    stop: CancellationToken,
) {
    let mut due = tokio::time::interval(ctx.config().lease / 4);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut sight = Sight::default();
    loop {
        tokio::select! {
            // In this order, so that a simulation can be repeated.
            biased;
            () = stop.cancelled() => return,
            _ = due.tick() => {}
            () = ctx.lease_wake() => {}
        }
        if let Err(error) = round(ctx, leases, &busy, &mut sight).await {
            tracing::warn!(error = %chain(&error), "leases not renewed, trying again");
        }
    }
}

/// How well this process sees who lives. One that could not tell that it lives itself, for
/// whatever reason, takes nobody for dead before the others have had a lease's time to tell.
#[derive(Debug, Default)]
struct Sight {
    /// When it last told that it lives.
    told: Option<Instant>,
    /// Since when it could not, and until when it judges mildly.
    blind: Option<(Instant, Instant)>,
}

impl Sight {
    /// The silence after which another process is taken for dead.
    fn silence(&mut self, now: Instant, ttl: Duration) -> Duration {
        if let Some(told) = self.told
            && now.duration_since(told) > ttl * 3 / 4
        {
            self.blind = Some((told, now + ttl));
        }
        match self.blind {
            Some((since, until)) if now < until => ttl + now.duration_since(since),
            _ => ttl,
        }
    }

    /// It has told that it lives.
    fn told(&mut self, now: Instant) {
        self.told = Some(now);
    }
}

/// Renews what is held, for as long as handlers drain after the loops stopped claiming.
pub(crate) async fn renew_only(ctx: &Context, leases: &Leases) {
    let mut due = tokio::time::interval(ctx.config().lease / 4);
    loop {
        due.tick().await;
        for consumer in Consumer::ALL {
            if let Err(error) = renew(ctx, leases, consumer).await {
                tracing::warn!(error = %chain(&error), "leases not renewed, trying again");
            }
        }
    }
}

/// One round: renew, tell that we live, give away, claim.
async fn round(
    ctx: &Context,
    leases: &Leases,
    busy: &impl Fn(i16) -> bool,
    sight: &mut Sight,
) -> Result<(), Error> {
    let (store, ttl) = (ctx.store(), ctx.config().lease);
    for consumer in Consumer::ALL {
        renew(ctx, leases, consumer).await?;
    }
    let silence = sight.silence(Instant::now(), ttl);
    let version = env!("CARGO_PKG_VERSION");
    let living = store.heartbeat(ctx.process(), &host(), version, silence).await?;
    sight.told(Instant::now());
    let share = share(store.slices().get(), ctx.process(), &living);
    leases.set_leaving(&share);
    for consumer in Consumer::ALL {
        give_away(ctx, leases, consumer, busy).await?;
        claim(ctx, leases, consumer, &share).await?;
    }
    Ok(())
}

/// Releases what another process should have, as soon as it is idle here, and says so.
async fn give_away(
    ctx: &Context,
    leases: &Leases,
    consumer: Consumer,
    busy: &impl Fn(i16) -> bool,
) -> Result<(), Error> {
    let mut is_given = false;
    for (slice, epoch) in leases.leaving(consumer) {
        if consumer == Consumer::Jobs && busy(slice) {
            continue;
        }
        leases.forget(consumer, slice, epoch);
        ctx.store().release(consumer, slice, epoch).await?;
        ctx.metrics().rebalanced(consumer);
        is_given = true;
    }
    if is_given { ctx.store().leases_given_back().await } else { Ok(()) }
}

/// Claims what this process should have and nobody holds.
async fn claim(
    ctx: &Context,
    leases: &Leases,
    consumer: Consumer,
    share: &BTreeSet<i16>,
) -> Result<(), Error> {
    let ttl = ctx.config().lease;
    let held: HashSet<i16> = leases.all(consumer).into_iter().map(|(slice, _)| slice).collect();
    for slice in share.iter().filter(|slice| !held.contains(slice)) {
        let until = Instant::now() + margin(ttl);
        if let Some(lease) = ctx.store().claim(consumer, *slice, ctx.process(), ttl).await? {
            tracing::debug!(consumer = consumer.name(), slice, epoch = lease.epoch, "claimed");
            leases.insert(consumer, lease, until);
            ctx.metrics().rebalanced(consumer);
            ctx.claimed();
        }
    }
    Ok(())
}

async fn renew(ctx: &Context, leases: &Leases, consumer: Consumer) -> Result<(), Error> {
    let held = leases.all(consumer);
    if held.is_empty() {
        return Ok(());
    }
    let ttl = ctx.config().lease;
    let _gap = match consumer {
        Consumer::Jobs => leases.gap(ttl / 10).await,
        Consumer::React => None,
    };
    let until = Instant::now() + margin(ttl);
    let renewed = ctx.store().renew(consumer, &held, ttl).await?;
    leases.renewed(consumer, &held, &renewed, until);
    Ok(())
}

/// Releases everything and leaves the list of processes, so that others take over at once.
pub(crate) async fn release_all(ctx: &Context, leases: &Leases) {
    for consumer in Consumer::ALL {
        for (slice, epoch) in leases.all(consumer) {
            leases.forget(consumer, slice, epoch);
            if let Err(error) = ctx.store().release(consumer, slice, epoch).await {
                tracing::warn!(slice, error = %chain(&error), "lease not released, it will end");
            }
        }
    }
    if let Err(error) = ctx.store().leave(ctx.process()).await {
        tracing::warn!(error = %chain(&error), "still on the list of processes, for a while");
    }
    if let Err(error) = ctx.store().leases_given_back().await {
        tracing::warn!(error = %chain(&error), "not told, others find the slices a little later");
    }
}

/// How long a lease is trusted: less than it lasts, for what a clock or a pause may cost.
fn margin(ttl: Duration) -> Duration {
    ttl.mul_f32(0.8)
}

/// The slices of `process` among `living`: rendezvous hashing with bounded load.
///
/// Each slice goes to the process that ranks highest for it and has room, slices in order, so all
/// processes with one view of who lives compute the same. A process that is not on the list yet
/// counts itself in.
fn share(slices: i16, process: Uuid, living: &[Uuid]) -> BTreeSet<i16> {
    let mut processes: Vec<Uuid> = living.to_vec();
    if !processes.contains(&process) {
        processes.push(process);
    }
    let most = usize::from(slices.unsigned_abs()).div_ceil(processes.len());
    let mut load: HashMap<Uuid, usize> = HashMap::new();
    let mut mine = BTreeSet::new();
    for slice in 0..slices {
        let with_room = processes.iter().filter(|p| load.get(p).copied().unwrap_or(0) < most);
        let Some(owner) = with_room.max_by_key(|p| rank(slice, **p)).copied() else { continue };
        *load.entry(owner).or_default() += 1;
        if owner == process {
            mine.insert(slice);
        }
    }
    mine
}

/// The rank of a process for a slice.
fn rank(slice: i16, process: Uuid) -> [u8; 32] {
    Sha256::new()
        .chain_update(slice.to_be_bytes())
        .chain_update(process.as_bytes())
        .finalize()
        .into()
}

/// This machine's name, for people.
fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "unknown".to_owned(), |name| name.trim().to_owned())
}

/// An error with its causes, for the log.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processes(n: u128) -> Vec<Uuid> {
        (1..=n).map(Uuid::from_u128).collect()
    }

    proptest::proptest! {
        #[test]
        fn every_slice_has_one_owner_and_no_process_more_than_its_share(
            slices in 1i16..300, n in 1u128..12,
        ) {
            let living = processes(n);
            let shares: Vec<_> = living.iter().map(|p| share(slices, *p, &living)).collect();
            let total: usize = shares.iter().map(BTreeSet::len).sum();
            let all: HashSet<i16> = shares.iter().flatten().copied().collect();
            let most = usize::from(slices.unsigned_abs()).div_ceil(living.len());
            proptest::prop_assert_eq!(total, all.len());
            proptest::prop_assert_eq!(all.len(), usize::from(slices.unsigned_abs()));
            proptest::prop_assert!(shares.iter().all(|s| s.len() <= most));
        }
    }

    #[test]
    fn a_process_that_is_not_listed_yet_counts_itself_in() {
        assert_eq!(share(16, Uuid::from_u128(9), &[]).len(), 16);
        assert_eq!(share(16, Uuid::from_u128(9), &processes(1)).len(), 8);
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(48))]

        /// A process that joins takes its share; what moves besides is no more than that again.
        #[test]
        fn joining_and_leaving_move_few_slices(
            slices in 1i16..100, seeds in proptest::collection::hash_set(proptest::num::u128::ANY, 2..10),
        ) {
            let more: Vec<Uuid> = seeds.into_iter().map(Uuid::from_u128).collect();
            let fewer = &more[1..];
            let owner = |living: &[Uuid]| -> HashMap<i16, Uuid> {
                let owned = |p: &Uuid| share(slices, *p, living).into_iter().map(|s| (s, *p)).collect::<Vec<_>>();
                living.iter().flat_map(owned).collect()
            };
            let (with, without) = (owner(&more), owner(fewer));
            let moved = with.iter().filter(|(slice, p)| without[*slice] != **p).count();
            let share = usize::from(slices.unsigned_abs()).div_ceil(more.len());
            proptest::prop_assert!(moved <= 3 * share + 4, "{moved} of {slices} moved, a share is {share}");
        }
    }

    #[test]
    fn a_process_that_could_not_tell_that_it_lives_takes_nobody_for_dead_at_once() {
        let ttl = Duration::from_secs(10);
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut sight = Sight::default();
        assert_eq!(sight.silence(at(0), ttl), ttl);
        sight.told(at(0));
        assert_eq!(sight.silence(at(3), ttl), ttl);
        sight.told(at(3));
        // The database was away for a minute. All are silent for as long.
        assert_eq!(sight.silence(at(63), ttl), ttl + Duration::from_mins(1));
        sight.told(at(63));
        assert_eq!(sight.silence(at(66), ttl), ttl + Duration::from_secs(63), "not yet");
        sight.told(at(66));
        sight.told(at(72));
        assert_eq!(sight.silence(at(74), ttl), ttl);
    }

    fn lease(slice: i16, epoch: i64) -> Lease {
        let recorded_at = domain::ids::Timestamp::default();
        Lease { slice, epoch, position: 0, recorded_at }
    }

    #[test]
    fn a_renewal_forgets_what_was_lost_and_not_what_was_claimed_meanwhile() {
        let leases = Leases::default();
        let later = Instant::now() + Duration::from_mins(1);
        for slice in [1, 2, 3] {
            leases.insert(Consumer::Jobs, lease(slice, 1), later);
        }
        let asked = leases.all(Consumer::Jobs);
        // While the database answers: one is new, one was lost and claimed again.
        leases.insert(Consumer::Jobs, lease(4, 1), later);
        leases.insert(Consumer::Jobs, lease(3, 2), later);
        leases.renewed(Consumer::Jobs, &asked, &[1], later);
        let held: Vec<(i16, i64)> =
            leases.held(Consumer::Jobs).iter().map(|lease| (lease.slice, lease.epoch)).collect();
        assert_eq!(held, [(1, 1), (3, 2), (4, 1)]);
    }

    #[test]
    fn a_lease_past_its_time_is_not_held() {
        let leases = Leases::default();
        let lease = lease(3, 7);
        leases.insert(Consumer::Jobs, lease, Instant::now() + Duration::from_mins(1));
        assert!(leases.holds(Consumer::Jobs, 3, 7));
        assert!(!leases.holds(Consumer::Jobs, 3, 6));
        leases.insert(Consumer::Jobs, lease, Instant::now());
        assert!(!leases.holds(Consumer::Jobs, 3, 7));
        assert!(leases.held(Consumer::Jobs).is_empty());
    }
}
