//! What the engine reads *ahead*: due jobs beyond those that may start now, so that not every run
//! that ends costs a read of the table.
//!
//! They are candidates and no more: what starts is decided by the mark, and a job that was ended,
//! edited or taken meanwhile is not started by it. They are read anew when there is news, when they
//! are too few, and when they are old.

use std::time::Duration;

use store::{DueJob, Error};
use tokio::time::Instant;

use super::Engine;
use super::choose::Chosen;
use super::lanes::Full;

/// Due jobs of a slice and priority that are read at once, at least and at most.
const PAGE: (usize, usize) = (64, 512);

/// Times the slots that are read at once.
const READS: usize = 8;

/// How long they stay candidates: who enqueues something of a higher priority need not tell.
const FRESH: Duration = Duration::from_secs(1);

/// Due jobs that were read.
#[derive(Debug)]
pub(crate) struct Ahead {
    /// Those that are not started, in their order.
    jobs: Vec<DueJob>,
    /// Pages that were full when they were read.
    pub(super) full: Full,
    /// There may be others by now.
    pub(super) is_stale: bool,
    read_at: Instant,
    /// When to look again in any case: something becomes due, or it is time to poll.
    pub(super) until: Instant,
    /// Something becomes due then.
    is_due_then: bool,
}

impl Default for Ahead {
    fn default() -> Self {
        let now = Instant::now();
        let (jobs, full) = (Vec::new(), Full::default());
        Self { jobs, full, is_stale: true, read_at: now, until: now, is_due_then: true }
    }
}

impl Ahead {
    /// Looks at the clock: what was read may be too old, or something have become due. With a
    /// backlog, whose pages are full, a poll by itself is no reason to read.
    pub(super) fn look(&mut self, is_news: bool) {
        let now = Instant::now();
        let is_late = self.read_at + FRESH <= now;
        let is_polled = self.until <= now && (self.is_due_then || !self.full.any());
        self.is_stale |= is_news || is_late || is_polled;
    }

    /// Something becomes due after this time, if it does; else it is time to poll.
    pub(super) fn wait(&mut self, due: Option<Duration>, poll: Duration) {
        self.is_due_then = due.is_some_and(|due| due <= poll);
        self.until = Instant::now() + due.map_or(poll, |due| due.min(poll));
    }

    /// Keeps what was not started, for the next claim. Also what is behind others of its key: what
    /// comes later in its order must not pass it.
    pub(super) fn keep(&mut self, chosen: Chosen) {
        self.jobs = chosen.left;
        self.jobs.extend(chosen.blocked);
        self.jobs.sort_by_key(|job| (job.priority, job.run_at, job.id));
    }
}

impl Engine {
    /// The due jobs to choose from, in their order: those that were read ahead, or as many as may
    /// start in the next few claims.
    pub(super) async fn due(&mut self, slices: usize, slots: usize) -> Result<Vec<DueJob>, Error> {
        let is_enough = self.ahead.jobs.len() >= slots || !self.ahead.full.any();
        if !self.ahead.is_stale && is_enough {
            return Ok(std::mem::take(&mut self.ahead.jobs));
        }
        let all = self.ctx.config().concurrency * READS;
        let page = all.div_ceil(slices.max(1)).clamp(PAGE.0, PAGE.1);
        let most = i64::try_from(page).unwrap_or(i64::MAX);
        let store = self.ctx.store();
        let due = store.due_jobs(self.ctx.process(), most, &self.lanes.fair_after).await?;
        self.ahead.full = Full::of(&due, page);
        (self.ahead.is_stale, self.ahead.read_at) = (false, Instant::now());
        Ok(due)
    }
}
