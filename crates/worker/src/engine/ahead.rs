//! What the engine reads *ahead*: due jobs beyond those that may start now, so that not every run
//! that ends costs a read of the table.
//!
//! They are candidates and no more: what starts is decided by the mark, and a job that was ended,
//! edited or taken meanwhile is not started by it. They are read anew when there is news, when they
//! are too few, and when they are old.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use store::{Error, Lane};
use tokio::time::Instant;

use super::backlog::Backlog;
use super::lanes::Full;
use super::{Due, Engine};
use crate::news::News;

/// Due jobs of a slice and priority that are read at once, at least and at most.
const PAGE: (usize, usize) = (64, 1_024);

/// Times the slots that are read at once.
const READS: usize = 8;

/// How long they stay candidates: who enqueues something of a higher priority need not tell.
const FRESH: Duration = Duration::from_secs(1);

/// Least time between two questions when something becomes due: the answer concerns what comes
/// later, and news come by the hundred.
const ASKS: Duration = Duration::from_millis(20);

/// Due jobs that were read.
#[derive(Debug)]
pub(crate) struct Ahead {
    /// Those that are not started.
    pub(super) backlog: Backlog,
    /// The leases under which they were read.
    leases: HashMap<i16, i64>,
    /// Pages that were full when they were read.
    pub(super) full: Full,
    /// Where there may be others by now.
    pub(super) stale: News,
    /// When all were read.
    read_at: Instant,
    /// When to look again in any case: something becomes due, or it is time to poll.
    pub(super) until: Instant,
    /// Something becomes due then.
    is_due_then: bool,
    /// Slices that were read since it was asked what becomes due in them, and when.
    to_ask: BTreeMap<i16, Instant>,
    asked_at: Option<Instant>,
}

impl Default for Ahead {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            backlog: Backlog::default(),
            leases: HashMap::new(),
            full: Full::default(),
            stale: News::All,
            read_at: now,
            until: now,
            is_due_then: true,
            to_ask: BTreeMap::new(),
            asked_at: None,
        }
    }
}

impl Ahead {
    /// Looks at the clock: what was read may be too old, or something have become due. With a
    /// backlog, whose pages are full, a poll by itself is no reason to read.
    pub(super) fn look(&mut self, news: News, poll: Duration) {
        let now = Instant::now();
        self.stale.add(news);
        let is_late = self.read_at + FRESH <= now;
        let is_polled = self.until <= now && (self.is_due_then || !self.full.any());
        if is_late || is_polled {
            self.stale = News::All;
        }
        if self.until <= now {
            (self.until, self.is_due_then) = (now + poll, false);
        }
    }

    /// When to ask what becomes due next.
    pub(super) fn ask_at(&self) -> Option<Instant> {
        self.to_ask.values().min().map(|read| self.asked_at.map_or(*read, |asked| asked + ASKS))
    }

    /// The slices to ask about, each with when it was read; they are asked about now.
    pub(super) fn asks(&mut self) -> Vec<(i16, Duration)> {
        self.asked_at = Some(Instant::now());
        let slices = std::mem::take(&mut self.to_ask);
        slices.into_iter().map(|(slice, read)| (slice, read.elapsed())).collect()
    }

    /// Something becomes due after this time.
    pub(super) fn wait(&mut self, due: Duration) {
        let at = Instant::now() + due;
        if at <= self.until {
            (self.until, self.is_due_then) = (at, true);
        }
    }

    /// Keeps nothing of slices that are not `ready` any more.
    fn forget_others(&mut self, ready: &HashMap<i16, i64>) {
        if self.leases != *ready {
            self.backlog.retain(|job| ready.contains_key(&job.slice));
            self.leases.clone_from(ready);
        }
    }

    /// Keeps what is behind others of its key for the next claim: what comes later in its order must
    /// not pass it. But nothing of a parked key, of which each claim reads what may start.
    pub(super) fn keep(&mut self, blocked: Vec<Due>, has_parked: bool) {
        self.backlog.put(blocked.into_iter().filter(|job| job.lane != Lane::Parked));
        if has_parked {
            self.backlog.retain(|job| job.lane != Lane::Parked);
        }
    }
}

impl Engine {
    /// Reads due jobs of the ready slices, as many as may start in the next few claims, where there is
    /// reason to; they take the place of what was read of their slices before.
    pub(super) async fn read_due(
        &mut self,
        ready: &HashMap<i16, i64>,
        slots: usize,
    ) -> Result<Vec<Due>, Error> {
        self.ahead.forget_others(ready);
        if self.ahead.backlog.len() < slots && self.ahead.full.any() {
            self.ahead.stale = News::All;
        }
        let of: Option<Vec<i16>> = match &self.ahead.stale {
            News::Of(slices) if slices.is_empty() => return Ok(Vec::new()),
            News::Of(slices) => Some(slices.iter().copied().collect()),
            News::All => None,
        };
        let begun = Instant::now();
        let all = self.ctx.config().concurrency * READS;
        let page = all.div_ceil(ready.len().max(1)).clamp(PAGE.0, PAGE.1);
        let most = i64::try_from(page).unwrap_or(i64::MAX);
        let (store, process) = (self.ctx.store(), self.ctx.process());
        let read = store.due_jobs(process, of.as_deref(), most, &self.lanes.fair_after).await?;
        let due: Vec<Due> = read.into_iter().map(Due::new).collect();
        let is_read = |slice: i16| of.as_ref().is_none_or(|of| of.contains(&slice));
        self.ahead.full.renew(Full::of(&due, page), is_read);
        self.ahead.stale = News::default();
        let read = ready.keys().filter(|slice| is_read(**slice));
        self.ahead.to_ask.extend(read.map(|slice| (*slice, begun)));
        if of.is_none() {
            self.ahead.read_at = begun;
            self.ahead.backlog.clear();
        } else {
            self.ahead.backlog.retain(|job| !is_read(job.slice));
        }
        Ok(due)
    }

    /// Asks when the next job becomes due, of those that were not due when their slice was read: so
    /// none becomes due between the two and is missed.
    pub(super) async fn ask(&mut self) {
        let asks = self.ahead.asks();
        // An error is told by the next claim; polling makes up for it.
        if let Ok(Some(due)) = self.ctx.store().next_due_in(self.ctx.process(), &asks).await {
            self.ahead.wait(due);
        }
    }
}
