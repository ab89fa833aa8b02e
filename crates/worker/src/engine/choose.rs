//! Which of the jobs that wait start: plain values in, plain values out.
//!
//! A job *fits* if and only if fewer jobs of its key run than its limit, no
//! earlier job of its key waits, and it is no suspect or no other suspect runs. To an *ordered* job
//! those that hold its key count as running; one that holds it itself is earlier than all that do
//! not. Of those that fit, priorities share the slots 8:4:2:1, and within a priority fair keys take
//! turns: first the one of which the fewest run, then the one whose last
//! turn is longest ago. So nothing starves that fits, and jobs of a key start in their order.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use store::{DueJob, Lane};
use uuid::Uuid;

use super::Due;
use super::backlog::{Backlog, Waiting};
use super::lanes::Key;
use crate::claimed::SUSPECT;
use crate::running::Taken;

/// Starts of each priority, while all have jobs that fit.
const WEIGHTS: [i32; 4] = [8, 4, 2, 1];

/// What a choice depends on besides the jobs.
pub(super) struct Offer<'a> {
    /// What runs.
    pub(super) taken: Taken,
    /// Jobs that may start.
    pub(super) slots: usize,
    /// Keys with parked jobs: those go first.
    pub(super) parked: &'a BTreeMap<Key, Option<i16>>,
    /// Ordered jobs that have started, have not ended and do not run.
    pub(super) holders: Holders,
}

/// Jobs that hold keys, by these.
pub(super) type Holders = BTreeMap<Key, BTreeSet<Uuid>>;

/// What becomes of due jobs.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    /// To be started, in this order.
    pub(super) start: Vec<Due>,
    /// Behind jobs of their key.
    pub(super) blocked: Vec<Due>,
}

/// Whose turn it is. Kept from choice to choice.
#[derive(Debug, Default)]
pub(super) struct Shares {
    credits: [i32; 4],
    turn: u64,
    last_turns: HashMap<String, u64>,
}

impl Shares {
    /// The priority whose turn it is, of those that have jobs: the smooth weighted round robin, in
    /// which each is served as often as its weight says and as evenly as can be.
    fn next(&mut self, has: [bool; 4]) -> Option<usize> {
        let mut total = 0;
        for (priority, credit) in self.credits.iter_mut().enumerate() {
            // Who has nothing saves nothing up.
            *credit = if has[priority] { *credit + WEIGHTS[priority] } else { 0 };
            total += if has[priority] { WEIGHTS[priority] } else { 0 };
        }
        let best =
            (0..4).filter(|p| has[*p]).max_by_key(|p| (self.credits[*p], -(*p).cast_signed()))?;
        self.credits[best] -= total;
        Some(best)
    }

    fn took(&mut self, whose: &str) {
        self.turn += 1;
        self.last_turns.insert(whose.to_owned(), self.turn);
    }
}

/// Chooses among the jobs that wait; those that do not start stay there, but for the blocked ones.
pub(super) fn choose(backlog: &mut Backlog, offer: Offer<'_>, shares: &mut Shares) -> Chosen {
    let Offer { mut taken, mut slots, parked, mut holders } = offer;
    let mut chosen = Chosen::default();
    let waiting = &mut backlog.priorities;
    let owners: HashSet<String> = waiting.iter().flat_map(|w| w.0.keys().cloned()).collect();
    shares.last_turns.retain(|whose, _| owners.contains(whose));
    let mut closed: BTreeSet<String> = BTreeSet::new();
    while slots > 0 {
        let has = std::array::from_fn(|nth| {
            pass_blocked(&mut waiting[nth], &taken, &mut closed, (parked, &holders), &mut chosen)
        });
        let Some(nth) = shares.next(has) else { break };
        let last = |whose: &str| shares.last_turns.get(whose).copied().unwrap_or_default();
        let Some(whose) = waiting[nth].owner(&taken, last) else { break };
        let Some(job) = waiting[nth].pop(&whose) else { break };
        slots -= 1;
        shares.took(&whose);
        // It runs now: not to be counted twice.
        if job.ordered
            && let Some(holding) = holders.get_mut(&key_of(&job))
        {
            holding.remove(&job.id);
        }
        *taken.keys.entry(job.key().into()).or_default() += 1;
        *taken.fair_keys.entry(whose.into()).or_default() += 1;
        taken.suspects += usize::from(job.crashes >= SUSPECT);
        chosen.start.push(job);
    }
    chosen
}

fn key_of(job: &DueJob) -> Key {
    (job.slice, job.key().to_owned())
}

/// Takes out the jobs at the front that do not fit. Returns whether one is left.
fn pass_blocked(
    waiting: &mut Waiting,
    taken: &Taken,
    closed: &mut BTreeSet<String>,
    (parked, holders): (&BTreeMap<Key, Option<i16>>, &Holders),
    chosen: &mut Chosen,
) -> bool {
    waiting.0.retain(|_, jobs| {
        while let Some(job) = jobs.front() {
            let holding = job.ordered.then(|| holders.get(&key_of(job))).flatten();
            let holds = holding.is_some_and(|ids| ids.contains(&job.id));
            let others = holding.filter(|_| !holds).map_or(0, BTreeSet::len);
            let runs = taken.keys.get(job.key()).copied().unwrap_or_default();
            let is_behind = !parked.is_empty()
                && !holds
                && job.lane != Lane::Parked
                && parked.contains_key(&key_of(job));
            let is_full = runs + others >= usize::from(job.limit.unsigned_abs())
                || taken.suspects > 0 && job.crashes >= SUSPECT
                || closed.contains(job.key()) && !holds;
            if !is_behind && !is_full {
                break;
            }
            if is_full {
                // What comes later in its order must not pass it, whatever its own limit.
                closed.insert(job.key().to_owned());
            }
            chosen.blocked.extend(jobs.pop_front());
        }
        !jobs.is_empty()
    });
    !waiting.0.is_empty()
}

#[cfg(test)]
#[path = "choose/tests.rs"]
mod tests;
