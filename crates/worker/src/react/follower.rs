//! A follower: applies the events of one slice, batch by batch, under one lease.
//!
//! One transaction per batch: all of it or nothing. A batch that the database refuses is halved
//! until the refused event stands alone and is set aside; nothing else stops a slice but a *hole*,
//! a position that is missing though the head has passed it, which is damage and is cried out.

use std::collections::HashMap;
use std::time::Duration;

use domain::announcement::topic;
use domain::event::{NewEvent, RecordedEvent};
use domain::ids::Subject;
use domain::limit::LimitExceeded;
use domain::state::State;
use store::{Consumer, Error, Hearing, Lease, ParkedEvent, Reaction};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::batch::{Batch, Folded};
use super::cache::StateCache;
use super::commits::{self, Commits};
use super::pace::Pace;
use crate::context::Context;
use crate::leases::{Leases, chain};
use crate::metrics::Metrics;

/// How often a slice that has a hole looks again, and says so.
const HOLE_ALARM: Duration = Duration::from_mins(1);

/// Longest wait after an error.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// Applies the events of one slice.
pub(super) struct Follower {
    pub(super) ctx: Context,
    leases: Leases,
    pub(super) lease: Lease,
    pub(super) cache: StateCache,
    pace: Pace,
    /// How many events of each parked subject wait. Only this process changes them.
    pub(super) parked: HashMap<Subject, i64>,
    /// When to look for requests about them.
    requests_due: Instant,
    /// What was read while the batch before was committed.
    ahead: Option<Chunk>,
    commits: Commits,
    /// Room to fold, while a round needs it.
    room: Option<OwnedSemaphorePermit>,
}

/// Events read at once.
pub(super) struct Chunk {
    events: Vec<RecordedEvent>,
    /// Whether there may be more after them.
    is_full: bool,
}

/// What a round came to.
enum Round {
    /// There may be more at once.
    More,
    /// Nothing more until somebody says so.
    Idle,
    /// The slice is not ours to work on any more.
    Over,
}

impl Follower {
    /// A follower that begins where the lease stands.
    pub(super) fn new(ctx: Context, leases: Leases, commits: Commits, lease: Lease) -> Self {
        let cache = StateCache::new(ctx.config().cached_states);
        let pace = Pace::new(ctx.config().batch);
        let requests_due = Instant::now();
        let parked = HashMap::new();
        let (ahead, room) = (None, None);
        Self { ctx, leases, lease, cache, pace, parked, requests_due, ahead, commits, room }
    }

    /// Follows until `stop`, or until the slice should be somebody else's.
    pub(super) async fn run(&mut self, stop: &CancellationToken) {
        let mut pause = Duration::ZERO;
        let mut opened = false;
        while !stop.is_cancelled() && self.is_ours() {
            let done = if opened { self.round().await } else { self.open().await };
            let round = match done {
                Ok(round) => {
                    opened = true;
                    pause = Duration::ZERO;
                    round
                }
                Err(error) => {
                    opened = false;
                    pause = (pause * 2).clamp(self.ctx.config().poll, MAX_PAUSE);
                    self.failed(&error, pause, stop).await
                }
            };
            match round {
                Round::More => {}
                Round::Idle => self.wait(stop).await,
                Round::Over => return,
            }
        }
    }

    /// Whether the slice is held, and not to be given away.
    fn is_ours(&self) -> bool {
        self.leases.may_work(Consumer::React, self.lease.slice, self.lease.epoch)
    }

    /// Waits for a hint, or until the slice is not ours any more.
    async fn wait(&mut self, stop: &CancellationToken) {
        while self.is_ours() {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.ctx.slice_wake(self.lease.slice) => break,
                () = tokio::time::sleep(self.ctx.config().poll) => {}
            }
        }
        self.requests_due = Instant::now();
    }

    /// Reads how far the slice is and what is parked: at the beginning, and on any doubt, such as
    /// a commit of which nobody knows whether it happened.
    async fn open(&mut self) -> Result<Round, Error> {
        let (store, slice) = (self.ctx.store(), self.lease.slice);
        self.ahead = None;
        self.cache.clear();
        let Some(lease) = store.lease(Consumer::React, slice, self.lease.epoch).await? else {
            return Err(Error::Fenced { slice });
        };
        self.lease = lease;
        self.parked = store.parked_counts(slice).await?.into_iter().collect();
        if !self.parked.is_empty() {
            self.retry_readable().await?;
        }
        self.ctx.progress().opened(&lease, self.waiting());
        Ok(Round::More)
    }

    /// Events that wait, of all parked subjects.
    fn waiting(&self) -> i64 {
        self.parked.values().sum()
    }

    /// What to do about an error. On any error, everything in memory is doubted.
    async fn failed(&mut self, error: &Error, pause: Duration, stop: &CancellationToken) -> Round {
        let slice = self.lease.slice;
        if let Error::Fenced { .. } = error {
            tracing::info!(slice, "another process has the slice now");
            self.ctx.metrics().fenced(Consumer::React);
            self.leases.forget(Consumer::React, slice, self.lease.epoch);
            return Round::Over;
        }
        if let Error::Hole { .. } = error {
            if self.ctx.progress().has_hole(slice, true) {
                self.ctx.metrics().holes.inc();
            }
            tracing::error!(slice, error = %chain(error), "a position of the log is missing");
            self.pause(HOLE_ALARM, stop).await;
        } else {
            if error.is_transient() {
                tracing::warn!(slice, error = %chain(error), "slice not applied, trying again");
            } else {
                tracing::error!(slice, error = %chain(error), "slice not applied, trying again");
            }
            self.pause(pause, stop).await;
        }
        Round::More
    }

    /// Waits for that long, or until the slice is not ours any more.
    async fn pause(&self, time: Duration, stop: &CancellationToken) {
        let until = Instant::now() + time;
        while Instant::now() < until && self.is_ours() {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(self.ctx.config().poll.min(time)) => {}
            }
        }
    }

    /// One round, in the room that it needs.
    async fn round(&mut self) -> Result<Round, Error> {
        self.room = self.ctx.fold_slot().await;
        let done = self.advance().await;
        self.room = None;
        done
    }

    /// Performs requests about what is parked, then applies a batch.
    async fn advance(&mut self) -> Result<Round, Error> {
        if !self.parked.is_empty() && Instant::now() >= self.requests_due {
            self.requests_due = Instant::now() + self.ctx.config().poll;
            self.perform_requests().await?;
        }
        let begun = Instant::now();
        let Chunk { events, is_full } = match self.ahead.take() {
            Some(chunk) => chunk,
            None => self.read(&self.lease, self.pace.size()).await?,
        };
        let Some(last) = events.last() else {
            self.ctx.progress().idle(&self.lease);
            return Ok(Round::Idle);
        };
        self.ctx.progress().applying(&events[0]);
        match self.apply(&events, is_full).await {
            Ok(()) => {}
            Err(error) if concerns_data(&error) => self.refused(&events, &error).await?,
            Err(error) => return Err(error),
        }
        self.pace.took(events.len(), begun.elapsed());
        self.ctx.metrics().batch(events.len(), begun.elapsed());
        let is_behind = self.lease.position < last.position;
        Ok(if is_full || is_behind { Round::More } else { Round::Idle })
    }

    /// Reads the next events after `from`. Nothing where the head says that there is something is
    /// a hole as well.
    async fn read(&self, from: &Lease, limit: usize) -> Result<Chunk, Error> {
        let slice = from.slice;
        let head = self.ctx.progress().head(slice);
        let limit_sql = i64::try_from(limit).unwrap_or(i64::MAX);
        let read =
            |limit| self.ctx.store().read_after(slice, from.position, from.recorded_at, limit);
        let events = match read(limit_sql).await {
            // What stands before the hole is sound.
            Err(Error::Hole { after, .. }) if after > from.position => {
                let events = read(after - from.position).await?;
                return Ok(Chunk { events, is_full: true });
            }
            other => other?,
        };
        let last = events.last().map_or(from.position, |event| event.position);
        let ends_early = events.len() < limit && last < head;
        if ends_early && events.is_empty() {
            return Err(Error::Hole { slice, after: last, found: head });
        }
        self.ctx.progress().has_hole(slice, false);
        // What stands before a hole at the end is applied; the next read cries it out.
        let is_full = ends_early || events.len() >= limit;
        Ok(Chunk { events, is_full })
    }

    /// Folds, decides and commits a batch; reads the next one meanwhile if there is more.
    async fn apply(&mut self, events: &[RecordedEvent], is_full: bool) -> Result<(), Error> {
        let Some(last) = events.last() else { return Ok(()) };
        let states = self.states(events).await?;
        let hearing = self.hearing(events).await?;
        let ctx = self.ctx.clone();
        let mut batch = Batch::new(&ctx.config().policy, &hearing, states);
        for event in events {
            batch.apply(event, self.parked.contains_key(&event.subject));
        }
        let folded = batch.finish(last);
        let (position, recorded_at) = (last.position, last.recorded_at);
        let next = is_full.then_some(Lease { position, recorded_at, ..self.lease });
        let parked = folded.reaction.parked.iter().map(|p| p.subject.clone()).collect::<Vec<_>>();
        self.ahead = self.commit(folded, next).await?;
        for subject in parked {
            *self.parked.entry(subject).or_default() += 1;
        }
        self.ctx.progress().applied(&self.lease, self.waiting());
        self.ctx.metrics().events_applied.inc_by(events.len() as u64);
        Ok(())
    }

    /// The states of the subjects of `events`, from memory or from the table.
    pub(super) async fn states(
        &mut self,
        events: &[RecordedEvent],
    ) -> Result<Vec<(Subject, Option<State>)>, Error> {
        let mut states: HashMap<&Subject, Option<State>> = HashMap::with_capacity(events.len());
        let mut missing = Vec::new();
        for event in events {
            if states.contains_key(&event.subject) {
                continue;
            }
            let known = self.cache.take(&event.subject);
            if known.is_none() {
                missing.push(event.subject.clone());
            }
            states.insert(&event.subject, known.and_then(|(_, state)| state));
        }
        if !missing.is_empty() {
            let loaded = self.ctx.store().load_states(self.lease.slice, &missing).await?;
            for (subject, state) in loaded {
                if let Some(slot) = states.get_mut(&subject) {
                    *slot = Some(state);
                }
            }
        }
        Ok(states.into_iter().map(|(subject, state)| (subject.clone(), state)).collect())
    }

    /// The endpoints that announcements among `events` are told to, as they are now: one that was
    /// added before an announcement was appended hears it. Without announcements nobody is asked.
    pub(super) async fn hearing(&self, events: &[RecordedEvent]) -> Result<Vec<Hearing>, Error> {
        if events.iter().any(|event| topic(&event.event_type).is_some()) {
            return self.ctx.store().hearing().await;
        }
        Ok(Vec::new())
    }

    /// Commits what was folded, keeps the states, and tells whom it concerns. Reads on from `next`
    /// meanwhile: what is in the log stays, whatever becomes of this commit.
    pub(super) async fn commit(
        &mut self,
        folded: Folded,
        next: Option<Lease>,
    ) -> Result<Option<Chunk>, Error> {
        let Folded { reaction, untouched, unrecognized } = folded;
        let (ctx, commits) = (self.ctx.clone(), self.commits.clone());
        if !commits::is_large(&self.lease, &reaction) {
            // Others may fold meanwhile, and be committed with it.
            self.room = None;
        }
        let committing = commits.commit(&ctx, self.lease, reaction);
        let reading = async {
            match &next {
                // An error shows again when the read is made in turn.
                Some(next) => self.read(next, self.pace.size()).await.ok(),
                None => None,
            }
        };
        let ((reaction, committed), ahead) = tokio::join!(committing, reading);
        let committed = committed?;
        self.lease = committed.lease;
        self.leases.advanced(Consumer::React, committed.lease);
        for (subject, state, _) in reaction.states {
            self.cache.put(subject, Some(state));
        }
        for (subject, state) in untouched {
            self.cache.put(subject, state);
        }
        ctx.metrics().events_unrecognized.inc_by(unrecognized);
        if committed.jobs > 0 {
            let slice = committed.lease.slice;
            ctx.jobs_enqueued(slice, self.leases.has(Consumer::Jobs, slice));
        }
        if committed.events > 0 {
            ctx.events_appended(committed.lease.slice);
            count_limits(ctx.metrics(), &reaction.events);
        }
        Ok(ahead)
    }

    /// A batch was refused: half of it is next; an event that stands alone is set aside.
    async fn refused(&mut self, events: &[RecordedEvent], error: &Error) -> Result<(), Error> {
        self.cache.clear();
        self.ahead = None;
        let [event] = events else {
            tracing::warn!(
                slice = self.lease.slice, events = events.len(), error = %chain(error),
                "batch refused, looking for the event"
            );
            self.pace.refused(events.len());
            return Ok(());
        };
        let error = chain(error);
        tracing::error!(
            slice = event.slice, position = event.position, subject = %event.subject, error,
            "event set aside, with the later ones of its subject"
        );
        let parked = ParkedEvent {
            position: event.position,
            subject: event.subject.clone(),
            error: Some(error),
            awaits_build: false,
        };
        let reaction = Reaction {
            to: event.position,
            recorded_at: event.recorded_at,
            parked: vec![parked],
            ..Reaction::default()
        };
        self.commit(Folded { reaction, untouched: Vec::new(), unrecognized: 0 }, None).await?;
        *self.parked.entry(event.subject.clone()).or_default() += 1;
        self.pace.found();
        self.ctx.progress().applied(&self.lease, self.waiting());
        Ok(())
    }
}

/// Whether an error is in the data: trying again will not help, and neighbours are not concerned.
pub(super) fn concerns_data(error: &Error) -> bool {
    matches!(error, Error::Data { .. } | Error::Inconsistent { .. })
}

/// Counts the limits that were found to be exceeded.
fn count_limits(metrics: &Metrics, events: &[NewEvent]) {
    for event in events.iter().filter(|event| event.event_type == "LimitExceeded") {
        if let Ok(exceeded) = serde_json::from_slice::<LimitExceeded>(&event.payload) {
            metrics.limit_exceeded(exceeded.limit);
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::event::Event;
    use domain::ids::{LiveStreamId, Subject, Timestamp};
    use domain::limit::Limit;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;
    use uuid::Uuid;

    use super::*;
    use crate::progress::Progress;

    #[test]
    fn exceeded_limits_are_counted_and_those_that_hold_are_told_as_zero() {
        let metrics = Metrics::new(Progress::default());
        let exceeded = LimitExceeded {
            session: Uuid::nil(),
            limit: Limit::Videos,
            since: Timestamp::UNIX_EPOCH,
            videos: Vec::new(),
        };
        let subject = Subject::live_stream("a", LiveStreamId(1));
        let event =
            |event| NewEvent::new(subject.clone(), &event, Timestamp::UNIX_EPOCH, Uuid::nil());
        let events = [event(Event::LimitExceeded(exceeded)), event(Event::Unrecognized)];
        count_limits(&metrics, &events);
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for (limit, count) in [("videos", 1), ("encoder", 0)] {
            let line = format!("limits_exceeded_total{{limit=\"{limit}\"}} {count}");
            assert!(text.contains(&line), "{text}");
        }
    }
}
