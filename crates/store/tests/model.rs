//! The protocol of log and leases as a model, searched exhaustively: all states that two appenders,
//! three workers and two slices can come to, crashes and lost answers included.
//!
//! It ensures that the *rules* are enough: positions dense (I2), every event applied once and in
//! order (I3), nothing applied under an old epoch (I4), and from every state a way to where all is
//! applied (I8). That the store's SQL keeps the rules is shown by `tests/it/interleavings.rs`.
//! Each protection is then taken away, and the search must find a state that breaks a rule.
//!
//! | step of the model | in the code |
//! |---|---|
//! | `Lock`, `Store`, `Abort` | `append` in `migrations/*_create_append.sql`: head row locked, events and head committed together, or rolled back |
//! | `Claim` | `Store::claim`: free or run out, epoch + 1 |
//! | `Expire` | `lease_until` passes, whenever: safety trusts no clock |
//! | `Read` | `Store::heads`, `Store::read_after` |
//! | `Fence` | `advance` in `react.rs`: the row's epoch and position are compared, and the row stays locked |
//! | `Commit`, `CommitUnheard` | the end of `Store::commit_reaction`, told to the worker or not |
//! | `Crash` | a process dies: its transaction is rolled back, its memory lost, its lease stays |
//! | `Release` | `Store::release` |
//!
//! Workers, appenders and slices are alike, so states that differ only in names are one (and the
//! names in a trace may change from step to step). Bounds: one event of each
//! appender, three claims of each slice. That makes 318,173 states, searched in 12 s by a build for
//! tests on one busy core; `cargo test -p store --test model -- --nocapture` prints both again, and
//! the shortest trace that breaks a rule without each protection.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed, and a trace is there to be read"
)]

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Write as _;

/// Slices.
const SLICES: usize = 2;

/// Appenders; each appends one event, to a slice that it chooses.
const APPENDERS: usize = 2;

/// Workers.
const WORKERS: usize = 3;

/// The highest epoch of a slice.
const EPOCHS: u8 = 3;

/// Which protections there are.
#[derive(Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is there or not, whatever the others are")]
struct Protections {
    head_lock: bool,
    epoch: bool,
    position: bool,
    row_lock: bool,
}

const ALL: Protections =
    Protections { head_lock: true, epoch: true, position: true, row_lock: true };

/// An appender.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
enum Appender {
    /// Has not begun.
    Idle,
    /// Is in a transaction, and has been given the position.
    Open { slice: u8, position: u8 },
    /// Has ended.
    Done,
}

/// What a worker knows of a slice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
enum Knowledge {
    /// Not its own.
    Nothing,
    /// Holds a lease, as it believes.
    Held { epoch: u8, position: u8 },
    /// Has read up to a position.
    Read { epoch: u8, position: u8, to: u8 },
    /// Is in a transaction that has passed the fence.
    Fenced { epoch: u8, position: u8, to: u8 },
}

/// The log and the checkpoint of a slice.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
struct Slice {
    head: u8,
    /// Positions of stored events, one bit each.
    stored: u8,
    /// How often a position was stored that was there.
    doubled: u8,
    position: u8,
    epoch: u8,
    is_leased: bool,
    has_expired: bool,
    /// How often each position was applied.
    applied: [u8; APPENDERS],
    /// Something was applied out of order.
    is_disordered: bool,
    /// Something was applied under an old epoch.
    is_haunted: bool,
}

/// All of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
struct State {
    slices: [Slice; SLICES],
    appenders: [Appender; APPENDERS],
    workers: [[Knowledge; SLICES]; WORKERS],
}

/// Something that happens.
#[derive(Clone, Copy, Debug)]
#[expect(dead_code, reason = "who and where are printed with a counterexample")]
enum Step {
    Lock { appender: usize, slice: usize },
    Store { appender: usize },
    Abort { appender: usize },
    Claim { worker: usize, slice: usize },
    Expire { slice: usize },
    Read { worker: usize, slice: usize },
    Fence { worker: usize, slice: usize },
    Commit { worker: usize, slice: usize },
    CommitUnheard { worker: usize, slice: usize },
    Release { worker: usize, slice: usize },
    Crash { worker: usize },
}

impl State {
    fn first() -> Self {
        Self {
            slices: [Slice::default(); SLICES],
            appenders: [Appender::Idle; APPENDERS],
            workers: [[Knowledge::Nothing; SLICES]; WORKERS],
        }
    }

    /// Which of the states that differ only in names stands for them.
    fn canonical(self) -> Self {
        self.sorted().min(self.mirrored().sorted())
    }

    fn sorted(mut self) -> Self {
        self.workers.sort_unstable();
        self.appenders.sort_unstable();
        self
    }

    /// With the slices exchanged.
    fn mirrored(mut self) -> Self {
        self.slices.reverse();
        self.workers.iter_mut().for_each(|worker| worker.reverse());
        for appender in &mut self.appenders {
            if let Appender::Open { slice, .. } = appender {
                *slice = 1 - *slice;
            }
        }
        self
    }

    /// Which rule is broken.
    fn broken(&self) -> Option<&'static str> {
        for slice in &self.slices {
            let dense = (1_u8 << slice.head) - 1;
            if slice.stored != dense || slice.doubled > 0 {
                return Some("I2: the positions are not those from 1 to the head");
            }
            let is_prefix =
                (0_u8..).zip(slice.applied).all(|(n, times)| times == u8::from(n < slice.position));
            if !is_prefix || slice.is_disordered {
                return Some("I3: an event was not applied once and in order");
            }
            if slice.is_haunted {
                return Some("I4: something was applied under an old epoch");
            }
        }
        None
    }

    /// Whether everything is appended or given up, and applied.
    fn is_done(&self) -> bool {
        self.appenders.iter().all(|appender| *appender == Appender::Done)
            && self.slices.iter().all(|slice| slice.position == slice.head)
    }

    /// Whether a transaction has the head of a slice locked.
    fn is_head_locked(&self, slice: usize) -> bool {
        self.appenders.iter().any(
            |appender| matches!(appender, Appender::Open { slice: at, .. } if usize::from(*at) == slice),
        )
    }

    /// Whether a transaction has the checkpoint of a slice locked.
    fn is_row_locked(&self, slice: usize) -> bool {
        self.workers.iter().any(|worker| matches!(worker[slice], Knowledge::Fenced { .. }))
    }

    /// All that can happen next.
    fn next(&self, with: Protections, mut found: impl FnMut(Step, State)) {
        for appender in 0..APPENDERS {
            self.append(appender, with, &mut found);
        }
        for slice in 0..SLICES {
            let mut expired = *self;
            expired.slices[slice].has_expired = true;
            if self.slices[slice].is_leased && !self.slices[slice].has_expired {
                found(Step::Expire { slice }, expired);
            }
            for worker in 0..WORKERS {
                self.claim(worker, slice, with, &mut found);
                self.work(worker, slice, with, &mut found);
            }
        }
        for worker in 0..WORKERS {
            let mut crashed = *self;
            crashed.workers[worker] = [Knowledge::Nothing; SLICES];
            if crashed != *self {
                found(Step::Crash { worker }, crashed);
            }
        }
    }

    fn append(&self, appender: usize, with: Protections, found: &mut impl FnMut(Step, State)) {
        match self.appenders[appender] {
            Appender::Idle => {
                for slice in 0..SLICES {
                    if with.head_lock && self.is_head_locked(slice) {
                        continue;
                    }
                    let mut next = *self;
                    let position = self.slices[slice].head + 1;
                    let at = u8::try_from(slice).unwrap();
                    next.appenders[appender] = Appender::Open { slice: at, position };
                    found(Step::Lock { appender, slice }, next);
                }
            }
            Appender::Open { slice, position } => {
                let mut aborted = *self;
                aborted.appenders[appender] = Appender::Done;
                found(Step::Abort { appender }, aborted);
                let mut stored = aborted;
                let slice = &mut stored.slices[usize::from(slice)];
                let bit = 1 << (position - 1);
                slice.doubled += u8::from(slice.stored & bit != 0);
                slice.stored |= bit;
                slice.head = position;
                found(Step::Store { appender }, stored);
            }
            Appender::Done => {}
        }
    }

    fn claim(
        &self,
        worker: usize,
        slice: usize,
        with: Protections,
        found: &mut impl FnMut(Step, State),
    ) {
        let row = &self.slices[slice];
        let is_free = !row.is_leased || row.has_expired;
        let waits = with.row_lock && self.is_row_locked(slice);
        // A worker that believes that it holds the slice does not claim it.
        let is_missing = self.workers[worker][slice] == Knowledge::Nothing;
        if !is_free || waits || !is_missing || row.epoch == EPOCHS {
            return;
        }
        let mut next = *self;
        let row = &mut next.slices[slice];
        (row.epoch, row.is_leased, row.has_expired) = (row.epoch + 1, true, false);
        let held = Knowledge::Held { epoch: row.epoch, position: row.position };
        next.workers[worker][slice] = held;
        found(Step::Claim { worker, slice }, next);
    }

    /// What a worker does with a slice that it believes to hold.
    fn work(
        &self,
        worker: usize,
        slice: usize,
        with: Protections,
        found: &mut impl FnMut(Step, State),
    ) {
        let row = &self.slices[slice];
        let mut tell = |step, row: Slice, knowledge| {
            let mut next = *self;
            next.slices[slice] = row;
            next.workers[worker][slice] = knowledge;
            found(step, next);
        };
        match self.workers[worker][slice] {
            Knowledge::Nothing => {}
            Knowledge::Held { epoch, position } => {
                if row.head > position {
                    // A batch is any number of the events that are there.
                    for to in position + 1..=row.head {
                        let read = Knowledge::Read { epoch, position, to };
                        tell(Step::Read { worker, slice }, *row, read);
                    }
                }
                let is_own = row.epoch == epoch && !self.is_row_locked(slice);
                let released = Slice { is_leased: false, has_expired: false, ..*row };
                let left = if is_own { released } else { *row };
                tell(Step::Release { worker, slice }, left, Knowledge::Nothing);
            }
            Knowledge::Read { epoch, position, to } => {
                if with.row_lock && self.is_row_locked(slice) {
                    return;
                }
                let passes = (!with.epoch || row.epoch == epoch)
                    && (!with.position || row.position == position);
                let fenced = Knowledge::Fenced { epoch, position, to };
                let after = if passes { fenced } else { Knowledge::Nothing };
                tell(Step::Fence { worker, slice }, *row, after);
            }
            Knowledge::Fenced { epoch, position, to } => {
                let row = row.applied(epoch, position, to);
                let told = Knowledge::Held { epoch, position: to };
                tell(Step::Commit { worker, slice }, row, told);
                // It will try the same batch again.
                let unheard = Knowledge::Read { epoch, position, to };
                tell(Step::CommitUnheard { worker, slice }, row, unheard);
            }
        }
    }
}

impl Slice {
    /// The slice after a reaction that was read at `position` has committed.
    fn applied(mut self, epoch: u8, position: u8, to: u8) -> Self {
        self.is_haunted |= self.epoch != epoch;
        for at in position..to {
            let at = usize::from(at);
            self.applied[at] = (self.applied[at] + 1).min(2);
            self.is_disordered |= self.applied[..at].contains(&0);
        }
        self.position = to;
        self.has_expired = false;
        self
    }
}

/// What a search came to.
struct Searched {
    /// States, each with the step and the state before it.
    states: Vec<(State, Option<(Step, usize)>)>,
    /// For each state, those that follow it.
    edges: Vec<Vec<usize>>,
    /// The first state that breaks a rule, which is also one that the fewest steps lead to.
    broken: Option<(usize, &'static str)>,
}

/// Searches in breadth, until a rule is broken or all is seen.
fn search(with: Protections) -> Searched {
    let mut known = HashMap::from([(State::first(), 0)]);
    let mut searched =
        Searched { states: vec![(State::first(), None)], edges: vec![], broken: None };
    let mut at = 0;
    while at < searched.states.len() {
        let state = searched.states[at].0;
        if let Some(rule) = state.broken() {
            searched.broken = Some((at, rule));
            return searched;
        }
        let mut edges = Vec::new();
        state.next(with, |step, next| {
            let next = next.canonical();
            let count = searched.states.len();
            match known.entry(next) {
                Entry::Occupied(known) => edges.push(*known.get()),
                Entry::Vacant(new) => {
                    new.insert(count);
                    searched.states.push((next, Some((step, at))));
                    edges.push(count);
                }
            }
        });
        searched.edges.push(edges);
        at += 1;
    }
    searched
}

impl Searched {
    /// The steps that lead to a state.
    fn trace(&self, to: usize) -> String {
        let mut steps = Vec::new();
        let mut at = to;
        while let Some((step, before)) = self.states[at].1 {
            steps.push(step);
            at = before;
        }
        steps.reverse();
        let mut trace = String::new();
        for step in steps {
            writeln!(trace, "  {step:?}").unwrap();
        }
        trace
    }

    /// A state from which none is reached in which everything is applied. Those where the bound of
    /// the claims has run out are none of the protocol's.
    fn stuck(&self) -> Option<usize> {
        let mut before = vec![Vec::new(); self.states.len()];
        for (at, edges) in self.edges.iter().enumerate() {
            for next in edges {
                before[*next].push(at);
            }
        }
        let ends = |(at, (state, _)): (usize, &(State, _))| state.is_done().then_some(at);
        let mut open: Vec<usize> = self.states.iter().enumerate().filter_map(ends).collect();
        let mut reaches = vec![false; self.states.len()];
        for at in &open {
            reaches[*at] = true;
        }
        while let Some(at) = open.pop() {
            for &from in &before[at] {
                if !std::mem::replace(&mut reaches[from], true) {
                    open.push(from);
                }
            }
        }
        let is_bounded = |state: &State| state.slices.iter().any(|slice| slice.epoch == EPOCHS);
        (0..self.states.len()).find(|at| !reaches[*at] && !is_bounded(&self.states[*at].0))
    }
}

/// The counterexample that must be found without a protection.
#[track_caller]
fn breaks(with: Protections, rule: &str) {
    let searched = search(with);
    let (at, broken) = searched.broken.expect("a protection that protects from nothing");
    println!("{broken}, after {} states:\n{}", searched.states.len(), searched.trace(at));
    assert!(broken.starts_with(rule), "{broken}:\n{}", searched.trace(at));
}

#[test]
fn no_state_breaks_a_rule_and_from_each_everything_can_be_applied() {
    let begun = std::time::Instant::now();
    let searched = search(ALL);
    println!("{} states in {:?}", searched.states.len(), begun.elapsed());
    if let Some((at, rule)) = searched.broken {
        panic!("{rule}:\n{}", searched.trace(at));
    }
    if let Some(at) = searched.stuck() {
        panic!(
            "I8: nothing leads on from here:\n{}{:?}",
            searched.trace(at),
            searched.states[at].0
        );
    }
    assert!(searched.states.iter().any(|(state, _)| state.is_done()));
}

#[test]
fn without_the_lock_of_the_head_a_position_is_given_twice_or_left_out() {
    breaks(Protections { head_lock: false, ..ALL }, "I2");
}

#[test]
fn without_the_epoch_a_worker_applies_events_of_a_slice_that_has_passed_on() {
    breaks(Protections { epoch: false, ..ALL }, "I4");
}

#[test]
fn without_the_position_a_batch_whose_commit_was_not_heard_is_applied_again() {
    breaks(Protections { position: false, ..ALL }, "I3");
}

#[test]
fn without_a_lock_that_lasts_to_the_commit_a_takeover_comes_between_fence_and_effect() {
    breaks(Protections { row_lock: false, ..ALL }, "I4");
}
