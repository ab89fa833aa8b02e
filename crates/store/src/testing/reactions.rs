//! The transaction of a reaction on the in-memory tables, and what is set aside: `react.rs`,
//! `projection.rs` and `parked.rs` without SQL.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use domain::effect::{NewJob, TIMER};
use domain::ids::{Subject, Timestamp, VideoId};
use domain::state::State;
use domain::view::Row;
use serde_json::Value;
use uuid::Uuid;

use super::tables::{
    SliceTables, Tables, bounded, check_events, check_json, check_text, counted, micros, positions,
    refused,
};
use crate::{
    AfterSession, AwaitedSession, Committed, EndedSession, Error, Lease, Mended, Next, ParkedEvent,
    PendingRequest, Reaction, Request,
};

/// A row of `parked`.
#[derive(Debug, Clone, PartialEq)]
pub struct ParkedRow {
    /// The event's subject.
    pub subject: Subject,
    /// What went wrong; `None`: it only waits.
    pub error: Option<String>,
    /// How often it was tried.
    pub attempts: i32,
    /// What somebody wants done.
    pub request: Option<Request>,
    /// Who asked for it.
    pub requested_by: Option<String>,
    /// When they did.
    pub requested_at: Option<Timestamp>,
    /// It waits for a build that knows its version.
    pub awaits_build: bool,
    /// It was passed over for good.
    pub is_skipped: bool,
}

/// A reaction that has forgotten to wait.
fn without_timers((lease, mut reaction): (Lease, Reaction)) -> (Lease, Reaction) {
    reaction.jobs.retain(|job| job.kind != TIMER);
    (lease, reaction)
}

/// A subject's state as JSON, with the position it follows from.
type StateRow = (Subject, (Value, i64));

/// A reaction that was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reacted {
    /// The lease's epoch.
    pub epoch: i64,
    /// The position before it.
    pub from: i64,
    /// The position after it.
    pub to: i64,
}

impl Tables {
    /// The sessions of `source` that are not over.
    pub(super) fn awaited_sessions(&self, source: &str) -> Vec<AwaitedSession> {
        let rows = self.slices.iter().zip(0_i16..).flat_map(|(tables, slice)| {
            let rows = tables.rows.values();
            rows.filter_map(
                move |(row, _)| if let Row::Session(row) = row { Some((slice, row)) } else { None },
            )
        });
        let open = rows.filter(|(_, row)| row.source == source && row.status != "ended");
        let mut sessions: Vec<_> = open
            .map(|(slice, row)| AwaitedSession {
                slice,
                live_stream: row.live_stream,
                status: row.status.clone(),
                since: row.status_at,
            })
            .collect();
        sessions.sort_by(|a, b| {
            let key = |s: &AwaitedSession| (s.live_stream, s.since, s.status.clone(), s.slice);
            key(a).cmp(&key(b))
        });
        sessions
    }

    /// The sessions of `source` that are over, behind `after`.
    pub(super) fn ended_sessions(
        &self,
        source: &str,
        after: AfterSession,
        limit: i64,
    ) -> Vec<EndedSession> {
        let rows = self.slices.iter().flat_map(|tables| tables.rows.values());
        let rows =
            rows.filter_map(|(row, _)| if let Row::Session(row) = row { Some(row) } else { None });
        let ended = rows.filter(|row| row.source == source && row.status == "ended");
        let mut sessions: Vec<_> = ended
            .map(|row| EndedSession::of((row.session, row.live_stream), row.status_at, &row.detail))
            .filter(|session| (session.ended_at, session.session) > after)
            .collect();
        sessions.sort_by_key(|session| (session.ended_at, session.session));
        sessions.truncate(usize::try_from(limit).unwrap_or_default());
        sessions
    }

    /// How far videos of `source` are.
    pub(super) fn video_statuses(
        &self,
        source: &str,
        videos: &[VideoId],
    ) -> BTreeMap<VideoId, String> {
        let status = |id: &VideoId| {
            let slice = self.count.slice_of(&Subject::video(source, *id));
            let tables = self.slices.get(usize::from(slice.unsigned_abs()))?;
            tables.rows.values().find_map(|(row, _)| {
                let Row::Video(row) = row else { return None };
                (row.source == source && row.id == *id).then(|| (*id, row.status.clone()))
            })
        };
        videos.iter().filter_map(status).collect()
    }

    pub(super) fn load_states(
        &mut self,
        slice: i16,
        subjects: &[Subject],
    ) -> Result<HashMap<Subject, State>, Error> {
        let Some(tables) = self.slice(slice) else { return Ok(HashMap::new()) };
        let mut states = HashMap::new();
        for subject in subjects {
            let Some((state, _)) = tables.states.get(subject) else { continue };
            let state = serde_json::from_value(state.clone()).map_err(|source| {
                Error::Inconsistent { table: "subject_state", row: subject.to_string(), source }
            })?;
            states.insert(subject.clone(), state);
        }
        Ok(states)
    }

    pub(super) fn commit_reactions(
        &mut self,
        now: Timestamp,
        all: &[(Lease, Reaction)],
        ttl: Duration,
    ) -> Result<Vec<Option<Committed>>, Error> {
        let forgetful: Vec<(Lease, Reaction)>;
        let all = if self.flaws.no_timers {
            forgetful = all.iter().cloned().map(without_timers).collect();
            &forgetful
        } else {
            all
        };
        for (lease, reaction) in all {
            self.check_slice(lease.slice, &reaction.events)?;
        }
        let held: Vec<bool> = all.iter().map(|(lease, _)| self.is_at(lease)).collect();
        // Together or not at all: a refusal comes before the first change, and of several refusals
        // the one that the database meets first is told.
        let mut states = Vec::with_capacity(all.len());
        for ((_, reaction), held) in all.iter().zip(&held) {
            states.push(if *held { Some(state_rows(reaction)?) } else { None });
        }
        let told = |_: &mut SliceTables, _, reaction: &Reaction| check_events(&reaction.events);
        for check in [SliceTables::check_parked, SliceTables::check_new_jobs, told] {
            for ((lease, reaction), held) in all.iter().zip(&held) {
                if let Some(tables) = self.slice(lease.slice).filter(|_| *held) {
                    check(tables, lease.slice, reaction)?;
                }
            }
        }
        let commit = |((lease, reaction), states): (&(Lease, Reaction), Option<Vec<StateRow>>)| {
            Some(self.slice(lease.slice)?.commit(now, lease, reaction, states?, ttl))
        };
        Ok(all.iter().zip(states).map(commit).collect())
    }

    /// Whether a lease is the present one and its position that of the slice.
    fn is_at(&mut self, lease: &Lease) -> bool {
        let no_fence = self.flaws.no_fence;
        self.slice(lease.slice).is_some_and(|tables| {
            (tables.react.epoch, tables.react.position) == (lease.epoch, lease.position) || no_fence
        })
    }

    pub(super) fn parked_counts(&mut self, slice: i16) -> Vec<(Subject, i64)> {
        let Some(tables) = self.slice(slice) else { return Vec::new() };
        counted(tables.waiting().map(|(_, row)| &row.subject))
    }

    pub(super) fn awaiting_build(&mut self, slice: i16) -> Vec<(Subject, i64)> {
        let Some(tables) = self.slice(slice) else { return Vec::new() };
        let waiting = tables.waiting().filter(|(_, row)| row.awaits_build && row.request.is_none());
        waiting.map(|(position, row)| (row.subject.clone(), position)).collect()
    }

    pub(super) fn parked_requests(&mut self, slice: i16) -> Vec<PendingRequest> {
        let Some(tables) = self.slice(slice) else { return Vec::new() };
        let pending = tables.waiting().filter_map(|(position, row)| {
            let (subject, request) = (row.subject.clone(), row.request?);
            let requested_at = row.requested_at?;
            Some(PendingRequest { subject, position, request, requested_at })
        });
        pending.collect()
    }

    pub(super) fn parked_positions(
        &mut self,
        slice: i16,
        subject: &Subject,
        limit: i64,
    ) -> Vec<i64> {
        let Some(tables) = self.slice(slice) else { return Vec::new() };
        let own = tables.waiting().filter(|(_, row)| row.subject == *subject);
        own.map(|(position, _)| position).take(usize::try_from(limit).unwrap_or_default()).collect()
    }

    pub(super) fn request_parked(
        &mut self,
        now: Timestamp,
        subject: &Subject,
        position: i64,
        request: Request,
        by: &str,
    ) -> Result<(), Error> {
        let slice = self.count.slice_of(subject);
        let gone = || Error::NotParked { subject: subject.to_string(), slice, position };
        let tables = self.slice(slice).ok_or_else(gone)?;
        let first = tables.waiting().find(|(_, row)| row.subject == *subject);
        if first.is_none_or(|(first, _)| first != position) {
            return Err(gone());
        }
        let row = tables.parked.get_mut(&position).ok_or_else(gone)?;
        row.request = Some(request);
        row.requested_by = Some(by.to_owned());
        row.requested_at = Some(micros(now));
        Ok(())
    }
}

/// The states of a reaction as JSON, where PostgreSQL would take them.
fn state_rows(reaction: &Reaction) -> Result<Vec<StateRow>, Error> {
    let mut states = Vec::with_capacity(reaction.states.len());
    for (subject, state, position) in &reaction.states {
        check_text(subject.as_str())?;
        let json = serde_json::to_value(state).map_err(|source| Error::Inconsistent {
            table: "subject_state",
            row: subject.to_string(),
            source,
        })?;
        check_json(&json)?;
        states.push((subject.clone(), (json, *position)));
    }
    Ok(states)
}

impl SliceTables {
    /// Performs a reaction whose fence holds.
    fn commit(
        &mut self,
        now: Timestamp,
        lease: &Lease,
        reaction: &Reaction,
        states: Vec<StateRow>,
        ttl: Duration,
    ) -> Committed {
        let (slice, from) = (lease.slice, lease.position);
        let held = &mut self.react;
        held.position = reaction.to;
        held.recorded_at = micros(reaction.recorded_at);
        held.lease_until = now + bounded(ttl);
        self.reacted.push(Reacted { epoch: lease.epoch, from, to: reaction.to });
        self.states.extend(states);
        for (row, position) in &reaction.rows {
            self.rows.insert(row.key(), (row.clone(), *position));
        }
        self.park(&reaction.parked);
        if let Some(mended) = &reaction.mended {
            self.mend(mended);
        }
        let new: Vec<&NewJob> = self.new_jobs(reaction).collect();
        let mut jobs = new.into_iter().map(|job| u64::from(self.insert_job(now, job))).sum();
        jobs += self.wake_waiting(now, slice, from, reaction.to);
        reaction.cancels.iter().for_each(|id| self.mark_cancelled(*id));
        let appended = self.store(now, slice, &reaction.events);
        let events = positions(&appended, &reaction.events).len();
        let lease = Lease { position: reaction.to, recorded_at: reaction.recorded_at, ..*lease };
        Committed { lease, jobs, events }
    }

    /// Whether PostgreSQL would take what is set aside, and what became of what was.
    fn check_parked(&mut self, slice: i16, reaction: &Reaction) -> Result<(), Error> {
        for parked in &reaction.parked {
            check_text(parked.subject.as_str())?;
            if self.parked.contains_key(&parked.position) {
                return Err(refused("the event is set aside already"));
            }
        }
        if let Some(Mended { requested, requested_at, .. }) = &reaction.mended {
            let present = self.parked.get(requested).and_then(|row| row.requested_at);
            if present != Some(*requested_at) {
                return Err(Error::RequestReplaced { slice, position: *requested });
            }
        }
        Ok(())
    }

    /// Whether it would take the jobs.
    fn check_new_jobs(&mut self, _: i16, reaction: &Reaction) -> Result<(), Error> {
        self.new_jobs(reaction).try_for_each(super::jobs::check)
    }

    /// The jobs that were not enqueued before, as their keys tell.
    fn new_jobs<'a>(&self, reaction: &'a Reaction) -> impl Iterator<Item = &'a NewJob> {
        let is_new = |job: &&NewJob| job.once_for.is_none_or(|key| !self.keys.contains(&key));
        reaction.jobs.iter().filter(is_new)
    }

    /// What is set aside and waits, in order.
    fn waiting(&self) -> impl Iterator<Item = (i64, &ParkedRow)> {
        let waiting = self.parked.iter().filter(|(_, row)| !row.is_skipped);
        waiting.map(|(position, row)| (*position, row))
    }

    fn park(&mut self, parked: &[ParkedEvent]) {
        for event in parked {
            let row = ParkedRow {
                subject: event.subject.clone(),
                error: event.error.clone(),
                attempts: i32::from(event.error.is_some()),
                request: None,
                requested_by: None,
                requested_at: None,
                awaits_build: event.awaits_build,
                is_skipped: false,
            };
            self.parked.insert(event.position, row);
        }
    }

    fn mend(&mut self, mended: &Mended) {
        match &mended.next {
            Some(Next::Failed { position, error, awaits_build }) => {
                self.fail(mended.requested, *position, error, *awaits_build);
            }
            Some(Next::GoesOn { position }) => {
                let row = self.parked.get(&mended.requested);
                let asked = row.map(|row| (row.requested_by.clone(), row.requested_at));
                if let (Some((by, at)), Some(next)) = (asked, self.parked.get_mut(position)) {
                    next.request = Some(Request::Retry);
                    next.requested_by = by;
                    next.requested_at = at;
                }
            }
            None => {}
        }
        if let Some(row) = mended.skipped.and_then(|position| self.parked.get_mut(&position)) {
            row.is_skipped = true;
        }
        for position in &mended.applied {
            self.parked.remove(position);
        }
    }

    fn fail(&mut self, requested: i64, position: i64, error: &str, awaits_build: bool) {
        for at in [requested, position] {
            let Some(row) = self.parked.get_mut(&at) else { continue };
            row.request = None;
            row.requested_by = None;
            row.requested_at = None;
        }
        if let Some(row) = self.parked.get_mut(&position) {
            row.error = Some(error.replace('\0', "\u{fffd}"));
            row.awaits_build = awaits_build;
            row.attempts += 1;
        }
    }

    /// Whether a job is new; it is inserted then.
    fn insert_job(&mut self, now: Timestamp, job: &NewJob) -> bool {
        if self.jobs.contains_key(&job.id) {
            return false;
        }
        self.add_job(job.id, super::jobs::JobRow::of(job, now));
        true
    }

    /// Adds a job, and notes it.
    pub(super) fn add_job(&mut self, id: Uuid, row: super::jobs::JobRow) {
        self.enqueued.push(id);
        self.jobs.insert(id, row);
    }
}
