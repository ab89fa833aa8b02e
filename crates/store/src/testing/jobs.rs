//! Jobs on the in-memory tables: `jobs.rs` and `jobs/*` without SQL, and the refusals of
//! `tallylight.enqueue`. Of what is kept of runs it keeps failures, as is the default.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use domain::call::Call;
use domain::effect::{FORWARD, NewJob, RELAY, TIMER};
use domain::endpoint::{DELIVER, QUEUE};
use domain::event::{Meta, NewEvent};
use domain::ids::{Subject, Timestamp};
use serde_json::Value;
use uuid::Uuid;

use super::tables::{SliceTables, Tables, check_events, check_json, check_text, micros, refused};
use crate::jobs::{elsewhere, ignored};
use crate::{
    Consumer, DueJob, EnqueueOptions, Error, Finish, Finished, KeyStates, Lane, OnConflict,
    Started, StartedAll, Starts, Waited,
};

mod due;
mod ending;
mod verbs;

/// An event for another slice: a forward's id, subject and arguments.
type Forward = (Uuid, String, Value);

/// A row of `job`.
#[derive(Debug, Clone, PartialEq)]
pub struct JobRow {
    /// Which handler runs it.
    pub kind: String,
    /// What it is about.
    pub subject: Subject,
    /// The handler's arguments.
    pub args: Value,
    /// When it is due.
    pub run_at: Timestamp,
    /// 1 (first) to 4.
    pub priority: i16,
    /// Failures after which it is discarded.
    pub max_attempts: i32,
    /// At most one live job of the kind and subject has it.
    pub unique_key: Option<String>,
    /// The event that caused it.
    pub causation_id: Option<Uuid>,
    /// What started the whole chain.
    pub correlation_id: Option<Uuid>,
    /// When it was inserted.
    pub enqueued_at: Timestamp,
    /// Starts so far.
    pub attempt: i32,
    /// Failures so far.
    pub errors: i32,
    /// Starts that ended with their process.
    pub crashes: i32,
    /// The epoch it was started under, while it runs.
    pub run_epoch: Option<i64>,
    /// Its last failure.
    pub last_error: Option<String>,
    /// What it is paused with.
    pub queue: String,
    /// How it is found.
    pub lane: Lane,
    /// Takes the place of the subject as its key.
    pub limit_key: Option<String>,
    /// Jobs of its key that run at once; none: 1.
    pub limit: Option<i16>,
    /// What it is in the order of its key.
    pub order: Order,
    /// Whose it is.
    pub fair_key: Option<String>,
    /// The first start frees its key.
    pub key_until_started: bool,
    /// How often what was read of it may have changed.
    pub edits: i32,
    /// Whether somebody cancelled it.
    pub is_cancelled: bool,
    /// `traceparent` of the trace that it is part of.
    pub trace: Option<String>,
    /// What it has of steps and of a parent.
    pub waits: Option<Value>,
}

/// `run_epoch` of a cancelled job that does not run: no lease ever has it.
pub(super) const NEVER: i64 = i64::MAX;

/// What a job is in the order of its key: its columns `ordered` and `holds`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Nothing.
    None,
    /// It waits for those that hold the key.
    Ordered,
    /// It holds the key.
    Holds,
}

impl Order {
    /// As the columns say.
    pub fn of(ordered: bool, holds: bool) -> Self {
        match (ordered, holds) {
            (false, _) => Self::None,
            (true, false) => Self::Ordered,
            (true, true) => Self::Holds,
        }
    }

    fn asked(ordered: Option<bool>) -> Self {
        Self::of(ordered.unwrap_or_default(), false)
    }

    fn begun(self) -> Self {
        Self::of(self != Self::None, true)
    }

    /// Once the job has ended.
    pub(super) fn ended(self) -> Self {
        Self::of(self != Self::None, false)
    }
}

/// A row of `job_dead`.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadRow {
    /// The job as it was.
    pub job: JobRow,
    /// `discarded` or `quarantined`.
    pub state: &'static str,
}

impl JobRow {
    /// A job that nobody has started.
    pub(super) fn of(job: &NewJob, now: Timestamp) -> Self {
        Self {
            kind: job.kind.clone(),
            subject: job.subject.clone(),
            args: job.args.clone(),
            run_at: micros(job.run_at),
            priority: job.priority,
            max_attempts: job.max_attempts,
            unique_key: None,
            causation_id: job.causation_id,
            correlation_id: job.correlation_id,
            enqueued_at: now,
            attempt: 0,
            errors: 0,
            crashes: 0,
            run_epoch: None,
            last_error: None,
            queue: if job.kind == DELIVER { QUEUE } else { "platform" }.to_owned(),
            lane: Lane::Open,
            limit_key: None,
            limit: None,
            order: Order::None,
            fair_key: None,
            key_until_started: false,
            edits: 0,
            is_cancelled: false,
            trace: job.trace.clone(),
            waits: None,
        }
    }

    /// As it is read at `now`.
    pub(super) fn due(&self, slice: i16, id: Uuid, now: Timestamp) -> DueJob {
        DueJob {
            slice,
            id,
            kind: self.kind.clone(),
            subject: self.subject.clone(),
            args: self.args.clone(),
            run_at: self.run_at,
            attempt: self.attempt,
            errors: self.errors,
            max_attempts: self.max_attempts,
            causation_id: self.causation_id,
            correlation_id: self.correlation_id,
            priority: self.priority,
            queue: self.queue.clone(),
            lane: self.lane,
            limit_key: self.limit_key.clone(),
            limit: self.limit.unwrap_or(1),
            ordered: self.order != Order::None,
            fair_key: self.fair_key.clone(),
            crashes: self.crashes + i32::from(self.run_epoch.is_some()),
            waited: Waited::since(self.run_at.max(self.enqueued_at), now),
            waits: self.waits.clone(),
        }
    }
}

/// A job that the table takes.
pub(super) fn check(job: &NewJob) -> Result<(), Error> {
    check_text(job.subject.as_str())?;
    check_json(&job.args)?;
    let is_kind = (1..=63).contains(&job.kind.len());
    if !is_kind || !(1..=4).contains(&job.priority) || job.max_attempts < 1 {
        return Err(refused("the job breaks a check of its table"));
    }
    Ok(())
}

fn is_kind(kind: &str) -> bool {
    let mut bytes = kind.bytes();
    kind.len() <= 63
        && bytes.next().is_some_and(|first| first.is_ascii_lowercase())
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn is_queue(queue: &str) -> bool {
    let mut bytes = queue.bytes();
    (1..=63).contains(&queue.len())
        && queue != "platform"
        && bytes.next().is_some_and(|first| first.is_ascii_lowercase())
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b))
}

/// Whether a job that waits is changed by another one with its key.
fn changes(options: &EnqueueOptions) -> bool {
    matches!(options.on_conflict, Some(OnConflict::Replace | OnConflict::Debounce))
}

/// Whether only decisions make jobs of the kind.
fn is_reserved(kind: &str) -> bool {
    [TIMER, FORWARD, RELAY].contains(&kind) || Call::KINDS.contains(&kind)
}

/// What `tallylight.check_wait_for` refuses.
fn is_wait_refused(options: &EnqueueOptions) -> bool {
    options.wait_for.as_ref().is_some_and(|wait| {
        !(1..=1024).contains(&wait.subject.len())
            || wait.types.len() > 20
            || !(1..=99_999_999).contains(&wait.timeout)
            || options.run_at.is_some()
            || changes(options)
    })
}

/// Options that no child may have.
pub(super) fn is_held_back(options: &EnqueueOptions) -> bool {
    options.key.is_some() || options.limit_waiting.is_some() || options.wait_for.is_some()
}

/// Bytes of arguments, about, since PostgreSQL measures its own form of them.
const MAX_ARGS: usize = 1 << 20;

/// What `tallylight.check_enqueue` refuses.
pub(super) fn check_enqueue(
    kind: &str,
    args: &Value,
    options: &EnqueueOptions,
) -> Result<(), Error> {
    let is_long = |text: &Option<String>, most| {
        text.as_ref().is_some_and(|text| !(1..=most).contains(&text.len()))
    };
    let texts = [&options.subject, &options.key, &options.limit_key, &options.fair_key];
    let changes = changes(options);
    let is_without_its_key = (options.key.is_none()
        && (options.on_conflict.is_some()
            || options.key_states.is_some()
            || options.key_period.is_some()))
        || (options.limit_key.is_none()
            && (options.limit.is_some() || options.limit_waiting.is_some()));
    let is_refused = !is_kind(kind)
        || is_reserved(kind)
        || !args.is_object()
        || args.to_string().len() > MAX_ARGS
        || check_json(args).is_err()
        || is_long(&options.subject, 1024)
        || is_long(&options.key, 512)
        || is_long(&options.limit_key, 1024)
        || is_long(&options.fair_key, 512)
        || options.queue.as_deref().is_some_and(|queue| !is_queue(queue))
        || options.priority.is_some_and(|priority| !(1..=4).contains(&priority))
        || options.max_attempts.is_some_and(|most| !(1..=999_999).contains(&most))
        || options.limit.is_some_and(|limit| !(1..=1000).contains(&limit))
        || options.limit_waiting.is_some_and(|most| !(1..=10_000).contains(&most))
        || options.key_period.is_some_and(|period| !(1..=99_999_999).contains(&period))
        || is_without_its_key
        || options.ordered == Some(true)
            && options.limit_key.is_none()
            && options.subject.is_none()
        || is_wait_refused(options)
        || changes && options.key_states == Some(KeyStates::Live)
        || changes && options.key_period.is_some()
        || texts.into_iter().flatten().any(|t| t.contains('\0'));
    if is_refused {
        let reason = format!("the job \"{kind}\" or an option of it is refused");
        return Err(Error::Invalid { reason });
    }
    Ok(())
}

impl Tables {
    pub(super) fn enqueue(
        &mut self,
        now: Timestamp,
        kind: &str,
        args: &Value,
        options: &EnqueueOptions,
    ) -> Result<Uuid, Error> {
        check_enqueue(kind, args, options)?;
        // Ids of their own, the same in every run.
        let id = Uuid::from_u64_pair(u64::MAX, self.enqueued + 1);
        let keyed = || options.key.as_ref().map(|key| format!("job/{kind}/{key}"));
        let given = options.subject.clone().or_else(|| options.limit_key.clone());
        let subject = given.or_else(keyed).unwrap_or_else(|| format!("job/{id}"));
        let subject = Subject::from_stored(subject);
        let key = options.limit_key.clone().map_or_else(|| subject.clone(), Subject::from_stored);
        let slice = self.count.slice_of(&key);
        let tables = self.existing(slice)?;
        let new = new_row(now, (id, kind, subject), args, options);
        if let Some(taken) = tables.taken(now, &new, options) {
            tables.change(taken, &new, options);
            let is_ignored = options.on_conflict == Some(OnConflict::Ignore);
            return if is_ignored { Err(ignored()) } else { Ok(taken) };
        }
        let of_limit = tables.jobs.values().filter(|job| job.limit_key == new.limit_key).count();
        if let (Some(key), Some(most)) = (&options.limit_key, options.limit_waiting)
            && of_limit >= usize::try_from(most).unwrap_or_default()
        {
            return Err(Error::TooMany { reason: format!("limit_key \"{key}\" is full") });
        }
        if let Some(period) = options.key_period {
            let until = micros(now + Duration::from_secs(period.unsigned_abs().into()));
            tables.job_keys.insert(new.unique(), (id, until));
        }
        tables.add_job(id, new);
        self.enqueued += 1;
        self.start_by_event(now, slice, id, options)?;
        Ok(id)
    }

    pub(super) fn mark_started(
        &mut self,
        now: Timestamp,
        slice: i16,
        epoch: i64,
        ids: &[Uuid],
    ) -> Result<Vec<Started>, Error> {
        self.mark(now, slice, epoch, &ids.iter().map(|id| (*id, None)).collect())
    }

    fn mark(
        &mut self,
        now: Timestamp,
        slice: i16,
        epoch: i64,
        known: &HashMap<Uuid, Option<i32>>,
    ) -> Result<Vec<Started>, Error> {
        let tables = self.fence(Consumer::Jobs, slice, epoch)?;
        let mut started = Vec::new();
        for (id, job) in &mut tables.jobs {
            let Some(known) = known.get(id) else { continue };
            if known.is_some_and(|attempt| attempt != job.attempt) {
                continue;
            }
            let is_pushed_back = job.edits > 0 && job.run_at > now;
            if is_pushed_back || job.run_epoch.is_some_and(|run| run >= epoch) {
                continue;
            }
            job.attempt += 1;
            job.crashes += i32::from(job.run_epoch.is_some());
            job.run_epoch = Some(epoch);
            job.order = job.order.begun();
            if job.key_until_started {
                job.unique_key = None;
            }
            let (attempt, crashes) = (job.attempt, job.crashes);
            let args = (job.edits > 0).then(|| job.args.clone());
            started.push(Started { id: *id, attempt, crashes, args });
        }
        tables.started.extend(started.iter().map(|start| (start.id, start.attempt, epoch)));
        Ok(started)
    }

    pub(super) fn finish(
        &mut self,
        now: Timestamp,
        slice: i16,
        epoch: i64,
        finishes: &[Finish],
    ) -> Result<HashSet<Uuid>, Error> {
        let (events, forwards) = self.told(slice, epoch, finishes)?;
        let tables = self.fence(Consumer::Jobs, slice, epoch)?;
        let ending = tables.ending(finishes);
        for finish in &ending {
            tables.note_run(epoch, finish);
            tables.end_run(now, epoch, finish);
        }
        for (id, subject, args) in forwards {
            tables.forward(now, id, subject, args);
        }
        tables.store(now, slice, &events);
        Ok(ending.into_iter().map(|finish| finish.id).collect())
    }

    /// What finishes would append and forward; refused where the database would refuse it.
    fn told(
        &mut self,
        slice: i16,
        epoch: i64,
        finishes: &[Finish],
    ) -> Result<(Vec<NewEvent>, Vec<Forward>), Error> {
        let count = self.count;
        let is_own = |event: &NewEvent| count.slice_of(&event.subject) == slice;
        for event in finishes.iter().flat_map(|f| &f.events).filter(|event| !is_own(event)) {
            elsewhere::forward(event)?;
        }
        let tables = self.fence(Consumer::Jobs, slice, epoch)?;
        let in_trace = |f: &Finish| {
            let trace = tables.jobs.get(&f.id).and_then(|job| job.trace.as_deref());
            let meta = trace.and_then(Meta::of_trace);
            let traced = |event: &NewEvent| NewEvent {
                meta: event.meta.clone().or_else(|| meta.clone()),
                ..event.clone()
            };
            f.events.iter().map(traced).collect::<Vec<_>>()
        };
        let (events, others): (Vec<NewEvent>, Vec<NewEvent>) =
            tables.ending(finishes).into_iter().flat_map(in_trace).partition(is_own);
        check_events(&events)?;
        let forwards = others.iter().map(elsewhere::forward).collect::<Result<Vec<_>, _>>()?;
        for (_, subject, args) in &forwards {
            check_text(subject)?;
            check_json(args)?;
        }
        Ok((events, forwards))
    }

    pub(super) fn mark_all(
        &mut self,
        now: Timestamp,
        starts: &[Starts],
    ) -> Result<StartedAll, Error> {
        let mut all = StartedAll::default();
        for Starts { slice, epoch, ids, attempts } in starts {
            let known = ids.iter().copied().zip(attempts.iter().copied()).collect();
            match self.mark(now, *slice, *epoch, &known) {
                Ok(started) => all.started.extend(started),
                Err(Error::Fenced { slice }) => all.fenced.push((slice, *epoch)),
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    pub(super) fn finish_all(
        &mut self,
        now: Timestamp,
        all: &[(i16, i64, Vec<Finish>)],
    ) -> Result<Finished, Error> {
        let mut finished = Finished::default();
        // Together or not at all: a refusal comes before the first change.
        for (slice, epoch, finishes) in all {
            match self.told(*slice, *epoch, finishes) {
                Err(Error::Fenced { slice }) => finished.fenced.push((slice, *epoch)),
                told => {
                    told?;
                }
            }
        }
        for (slice, epoch, finishes) in all {
            if !finished.fenced.contains(&(*slice, *epoch)) {
                finished.ended.extend(self.finish(now, *slice, *epoch, finishes)?);
            }
        }
        Ok(finished)
    }
}

/// The row of a job from outside.
pub(super) fn new_row(
    now: Timestamp,
    (id, kind, subject): (Uuid, &str, Subject),
    args: &Value,
    options: &EnqueueOptions,
) -> JobRow {
    let timeout = options.wait_for.as_ref().map(|wait| wait.timeout.unsigned_abs());
    let timeout = Duration::from_secs(timeout.unwrap_or_default().into());
    let new = NewJob {
        id,
        kind: kind.to_owned(),
        subject,
        args: args.clone(),
        run_at: options.run_at.unwrap_or(now + timeout),
        priority: options.priority.unwrap_or(2),
        max_attempts: options.max_attempts.unwrap_or(14),
        once_for: None,
        causation_id: None,
        correlation_id: None,
        trace: None,
    };
    let mut row = JobRow {
        unique_key: options.key.clone(),
        queue: options.queue.clone().unwrap_or_else(|| "default".to_owned()),
        limit_key: options.limit_key.clone(),
        limit: options.limit,
        order: Order::asked(options.ordered),
        fair_key: options.fair_key.clone(),
        key_until_started: changes(options) || options.key_states == Some(KeyStates::UntilStarted),
        ..JobRow::of(&new, now)
    };
    row.lane = row.home();
    row
}

impl JobRow {
    /// What no two jobs may have in common, where there is a key.
    fn unique(&self) -> (String, Subject, Option<String>) {
        (self.kind.clone(), self.subject.clone(), self.unique_key.clone())
    }
}

impl SliceTables {
    /// Marks a job as cancelled, if it is live.
    pub(super) fn mark_cancelled(&mut self, id: Uuid) {
        let epoch = self.jobs_lease.epoch;
        if let Some(job) = self.jobs.get_mut(&id) {
            job.is_cancelled = true;
            job.run_epoch = job.run_epoch.filter(|run| *run >= epoch).or(Some(NEVER));
        }
    }

    /// The job that has the key of a new one.
    fn taken(&self, now: Timestamp, new: &JobRow, options: &EnqueueOptions) -> Option<Uuid> {
        new.unique_key.as_ref()?;
        let of_period = options.key_period.and_then(|_| self.job_keys.get(&new.unique()));
        let is_same = |job: &JobRow| job.unique() == new.unique();
        let live = || self.jobs.iter().find(|(_, job)| is_same(job)).map(|(id, _)| *id);
        of_period.filter(|(_, until)| *until > now).map(|(id, _)| *id).or_else(live)
    }

    /// Changes a job that waits, where that was asked for.
    fn change(&mut self, id: Uuid, new: &JobRow, options: &EnqueueOptions) {
        let Some(job) = self.jobs.get_mut(&id).filter(|job| job.run_epoch.is_none()) else {
            return self.note_period(id, new, options);
        };
        match options.on_conflict {
            Some(OnConflict::Replace) => {
                job.args = new.args.clone();
                job.priority = options.priority.unwrap_or(job.priority);
                if options.run_at.is_some() {
                    (job.run_at, job.lane) = (new.run_at, job.home());
                }
                job.edits += 1;
            }
            Some(OnConflict::Debounce) => {
                (job.run_at, job.lane) = (job.run_at.max(new.run_at), job.home());
                job.edits += 1;
            }
            Some(OnConflict::Existing | OnConflict::Ignore) | None => {}
        }
        self.note_period(id, new, options);
    }

    /// A period begins also where a live job has the key.
    fn note_period(&mut self, id: Uuid, new: &JobRow, options: &EnqueueOptions) {
        let now = new.enqueued_at;
        let Some(period) = options.key_period else { return };
        let is_over = self.job_keys.get(&new.unique()).is_none_or(|(_, until)| *until <= now);
        if is_over {
            let until = micros(now + Duration::from_secs(period.unsigned_abs().into()));
            self.job_keys.insert(new.unique(), (id, until));
        }
    }

    /// Inserts a forward, due at once.
    fn forward(&mut self, now: Timestamp, id: Uuid, subject: String, args: Value) {
        let job = NewJob {
            id,
            kind: FORWARD.to_owned(),
            subject: Subject::from_stored(subject),
            args,
            run_at: now,
            priority: 2,
            max_attempts: i32::MAX,
            once_for: None,
            causation_id: None,
            correlation_id: None,
            trace: None,
        };
        if !self.jobs.contains_key(&id) {
            self.add_job(id, JobRow::of(&job, now));
        }
    }
}

/// Whether the process holds the jobs of a slice, by the table.
pub(super) fn is_held(tables: &SliceTables, process: Uuid) -> bool {
    tables.jobs_lease.owner == Some(process)
}
