//! Jobs on the in-memory tables: `jobs.rs` and `jobs/*` without SQL, and the refusals of
//! `tallylight.enqueue`. Of what is kept of runs it keeps failures, as is the default.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use domain::call::Call;
use domain::effect::{FORWARD, NewJob, TIMER};
use domain::event::{Meta, NewEvent};
use domain::ids::{Subject, Timestamp};
use serde_json::Value;
use uuid::Uuid;

use super::tables::{
    SliceTables, Tables, bounded, check_events, check_json, check_text, micros, refused,
};
use crate::jobs::{PER_FAIR_KEY, elsewhere, ignored};
use crate::{
    Cancellation, Cancelled, Consumer, DueJob, Ending, EnqueueOptions, Error, FAIR_KEYS, Finish,
    KeyStates, Lane, OnConflict, Started,
};

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
}

/// `run_epoch` of a cancelled job that does not run: no lease ever has it.
const NEVER: i64 = i64::MAX;

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
            queue: "platform".to_owned(),
            lane: Lane::Open,
            limit_key: None,
            limit: None,
            fair_key: None,
            key_until_started: false,
            edits: 0,
            is_cancelled: false,
            trace: job.trace.clone(),
        }
    }

    pub(super) fn due(&self, slice: i16, id: Uuid) -> DueJob {
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
            fair_key: self.fair_key.clone(),
        }
    }
}

/// A job that the table takes.
pub(super) fn check(job: &NewJob) -> Result<(), Error> {
    check_text(job.subject.as_str())?;
    check_json(&job.args)?;
    if !is_kind(&job.kind) || !(1..=4).contains(&job.priority) || job.max_attempts < 1 {
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
    [TIMER, FORWARD].contains(&kind) || Call::KINDS.contains(&kind)
}

/// What `tallylight.check_enqueue` refuses.
fn check_enqueue(kind: &str, args: &Value, options: &EnqueueOptions) -> Result<(), Error> {
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
        Ok(id)
    }

    pub(super) fn due_jobs(
        &mut self,
        now: Timestamp,
        process: Uuid,
        per_slice: i64,
        fair_after: &str,
    ) -> Vec<DueJob> {
        let mut due = Vec::new();
        for (slice, tables) in (0..).zip(&self.slices).filter(|(_, t)| is_held(t, process)) {
            let epoch = tables.jobs_lease.epoch;
            let shared = tables.jobs.values().filter(|job| job.lane == Lane::Shared);
            let owners = shared.filter_map(|job| job.fair_key.as_deref());
            let owners: BTreeSet<&str> = owners.filter(|key| *key > fair_after).collect();
            let owners = owners.into_iter().take(usize::try_from(FAIR_KEYS).unwrap_or_default());
            let pages = owners.map(|owner| (Lane::Shared, Some(owner), PER_FAIR_KEY));
            for (lane, owner, most) in pages.chain([(Lane::Open, None, per_slice)]) {
                let most = usize::try_from(most).unwrap_or_default();
                for priority in 1..=4 {
                    let is_due = |job: &JobRow| {
                        job.priority == priority
                            && job.lane == lane
                            && (lane == Lane::Open || job.fair_key.as_deref() == owner)
                            && job.may_start(now, epoch)
                    };
                    let mut of: Vec<_> =
                        tables.jobs.iter().filter(|(_, job)| is_due(job)).collect();
                    of.sort_by_key(|(id, job)| (job.run_at, **id));
                    due.extend(of.into_iter().take(most).map(|(id, job)| (slice, *id, job)));
                }
            }
        }
        due.sort_by_key(|(_, id, job)| (job.priority, job.run_at, *id));
        due.into_iter().map(|(slice, id, job)| job.due(slice, id)).collect()
    }

    pub(super) fn next_due_in(&mut self, now: Timestamp, process: Uuid) -> Option<Duration> {
        let held = self.slices.iter().filter(|tables| is_held(tables, process));
        let jobs = held.flat_map(|tables| tables.jobs.values());
        let later = jobs.filter(|job| matches!(job.lane, Lane::Open | Lane::Shared));
        let next = later.map(|job| job.run_at).filter(|run_at| *run_at > now).min()?;
        (next - now).to_std().ok()
    }

    pub(super) fn mark_started(
        &mut self,
        now: Timestamp,
        slice: i16,
        epoch: i64,
        ids: &[Uuid],
    ) -> Result<Vec<Started>, Error> {
        let tables = self.fence(Consumer::Jobs, slice, epoch)?;
        let mut started = Vec::new();
        for (id, job) in tables.jobs.iter_mut().filter(|(id, _)| ids.contains(id)) {
            let is_pushed_back = job.edits > 0 && job.run_at > now;
            if is_pushed_back || job.run_epoch.is_some_and(|run| run >= epoch) {
                continue;
            }
            job.attempt += 1;
            job.crashes += i32::from(job.run_epoch.is_some());
            job.run_epoch = Some(epoch);
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
        let count = self.count;
        let is_own = |event: &NewEvent| count.slice_of(&event.subject) == slice;
        for event in finishes.iter().flat_map(|f| &f.events).filter(|event| !is_own(event)) {
            elsewhere::forward(event)?;
        }
        let tables = self.fence(Consumer::Jobs, slice, epoch)?;
        let mut seen = HashSet::new();
        let is_first = |f: &&Finish| seen.insert((f.id, f.attempt));
        let runs: Vec<&Finish> = finishes.iter().filter(is_first).collect();
        let is_told = |f: &&Finish| {
            let is_failure = matches!(f.ending, Ending::Retry { .. });
            tables.jobs.get(&f.id).is_some_and(|job| {
                let runs = job.run_epoch.is_some_and(|run| run != NEVER);
                job.attempt == f.attempt && (!is_failure || runs)
            })
        };
        let ending: Vec<&Finish> = runs.into_iter().filter(is_told).collect();
        let in_trace = |f: &&Finish| {
            let trace = tables.jobs.get(&f.id).and_then(|job| job.trace.as_deref());
            let meta = trace.and_then(Meta::of_trace);
            let traced = |event: &NewEvent| NewEvent {
                meta: event.meta.clone().or_else(|| meta.clone()),
                ..event.clone()
            };
            f.events.iter().map(traced).collect::<Vec<_>>()
        };
        let (events, others): (Vec<NewEvent>, Vec<NewEvent>) =
            ending.iter().flat_map(in_trace).partition(is_own);
        check_events(&events)?;
        let forwards = others.iter().map(elsewhere::forward).collect::<Result<Vec<_>, _>>()?;
        for (_, subject, args) in &forwards {
            check_text(subject)?;
            check_json(args)?;
        }
        for finish in &ending {
            tables.note_run(epoch, finish);
            tables.end_run(now, finish);
        }
        for (id, subject, args) in forwards {
            tables.forward(now, id, subject, args);
        }
        tables.store(now, slice, &events);
        Ok(ending.into_iter().map(|finish| finish.id).collect())
    }

    pub(super) fn acquit(&mut self, slice: i16, epoch: i64, runs: &[(Uuid, i32)]) -> u64 {
        let Some(tables) = self.slice(slice) else { return 0 };
        let mut acquitted = 0;
        for (id, attempt) in runs {
            let Some(job) = tables.jobs.get_mut(id) else { continue };
            if job.attempt > *attempt && job.crashes > 0 {
                job.crashes -= 1;
                acquitted += 1;
            } else if job.attempt == *attempt && job.run_epoch == Some(epoch) {
                job.run_epoch = None;
                acquitted += 1;
            }
        }
        acquitted
    }

    pub(super) fn retry_dead(&mut self, now: Timestamp, id: Uuid) -> Result<(), Error> {
        for tables in &mut self.slices {
            let Some(DeadRow { job, .. }) = tables.dead.remove(&id) else { continue };
            let (errors, crashes) = (0, 0);
            let row = JobRow {
                run_at: now,
                lane: job.home(),
                key_until_started: false,
                edits: 0,
                unique_key: None,
                errors,
                crashes,
                run_epoch: None,
                last_error: None,
                is_cancelled: false,
                ..job
            };
            tables.jobs.entry(id).or_insert(row);
            return Ok(());
        }
        Err(Error::NoSuchJob { id })
    }

    pub(super) fn cancel_job(&mut self, id: Uuid, force: bool) -> Result<Option<Cancelled>, Error> {
        for (slice, tables) in (0..).zip(&mut self.slices) {
            let Some(job) = tables.jobs.get(&id) else { continue };
            if is_reserved(&job.kind) && !force {
                let reason = format!("a session waits for job {id}");
                return Err(Error::Invalid { reason });
            }
            tables.mark_cancelled(id);
            let Some(job) = tables.jobs.get(&id) else { continue };
            let is_running = job.run_epoch != Some(NEVER);
            let state = if is_running { "running" } else { "cancelled" }.to_owned();
            return Ok(Some(Cancelled { slice, state }));
        }
        Ok(None)
    }

    pub(super) fn cancellations(&mut self, process: Uuid) -> Vec<Cancellation> {
        let mut found = Vec::new();
        for (slice, tables) in (0..).zip(&self.slices).filter(|(_, t)| is_held(t, process)) {
            let cancelled = tables.jobs.iter().filter(|(_, job)| job.is_cancelled);
            found.extend(cancelled.map(|(id, job)| Cancellation {
                job: job.due(slice, *id),
                is_running: job.run_epoch == Some(tables.jobs_lease.epoch),
            }));
        }
        found
    }

    pub(super) fn note_crashes(&mut self, slice: i16, epoch: i64) -> Result<u64, Error> {
        let tables = self.fence(Consumer::Jobs, slice, epoch)?;
        let mut noted = 0;
        for (id, job) in &tables.jobs {
            let is_crashed = job.run_epoch.is_some_and(|run| run < epoch);
            let run = (*id, job.attempt);
            if is_crashed && !tables.attempts.iter().any(|(of, _)| *of == run) {
                tables.attempts.push((run, "crashed"));
                noted += 1;
            }
        }
        Ok(noted)
    }
}

/// The row of a job from outside.
fn new_row(
    now: Timestamp,
    (id, kind, subject): (Uuid, &str, Subject),
    args: &Value,
    options: &EnqueueOptions,
) -> JobRow {
    let new = NewJob {
        id,
        kind: kind.to_owned(),
        subject,
        args: args.clone(),
        run_at: options.run_at.unwrap_or(now),
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

    /// Notes a run under this lease that failed or was cancelled.
    fn note_run(&mut self, epoch: i64, finish: &Finish) {
        let outcome = match finish.ending {
            Ending::Retry { .. } => "failed",
            Ending::Discarded { .. } => "discarded",
            Ending::Cancelled { .. } => "cancelled",
            Ending::Completed
            | Ending::Snooze { .. }
            | Ending::Again { .. }
            | Ending::Quarantined { .. }
            | Ending::Released => return,
        };
        let runs = |job: &JobRow| job.run_epoch == Some(epoch);
        if self.jobs.get(&finish.id).is_some_and(runs) {
            self.attempts.push(((finish.id, finish.attempt), outcome));
        }
    }

    /// What becomes of a job whose run has ended.
    fn end_run(&mut self, now: Timestamp, finish: &Finish) {
        let storable = |text: &String| text.replace('\0', "\u{fffd}");
        let how = match &finish.ending {
            Ending::Completed => {
                self.jobs.remove(&finish.id);
                "completed"
            }
            Ending::Retry { error, after } => {
                self.again(now, finish.id, *after, Some(storable(error)));
                "failed"
            }
            Ending::Snooze { after } => {
                self.again(now, finish.id, *after, None);
                "snoozed"
            }
            Ending::Again { after } => {
                self.again(now, finish.id, *after, None);
                self.forget_failures(finish.id);
                "again"
            }
            Ending::Released => {
                self.again(now, finish.id, Duration::ZERO, None);
                "released"
            }
            Ending::Cancelled { .. } => {
                self.jobs.remove(&finish.id);
                "cancelled"
            }
            Ending::Discarded { error } => self.bury(finish.id, "discarded", storable(error)),
            Ending::Quarantined { error } => self.bury(finish.id, "quarantined", storable(error)),
        };
        self.ended.push((finish.id, finish.attempt, how));
    }

    fn again(&mut self, now: Timestamp, id: Uuid, after: Duration, error: Option<String>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let delay = bounded(after);
        if !delay.is_zero() {
            job.run_at = micros(now + delay);
            job.lane = job.home();
        }
        job.run_epoch = job.is_cancelled.then_some(NEVER);
        job.errors += i32::from(error.is_some());
        job.last_error = error.or_else(|| job.last_error.take());
    }

    /// What failed before is over.
    fn forget_failures(&mut self, id: Uuid) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        (job.errors, job.crashes) = (0, 0);
        job.last_error = None;
    }

    fn bury(&mut self, id: Uuid, state: &'static str, error: String) -> &'static str {
        if let Some(mut job) = self.jobs.remove(&id) {
            job.errors += 1;
            job.last_error = Some(error);
            if let Some(died_before) = self.dead.remove(&id) {
                let JobRow { args, attempt, errors, crashes, last_error, .. } = job;
                job = JobRow { args, attempt, errors, crashes, last_error, ..died_before.job };
            }
            self.dead.insert(id, DeadRow { job, state });
        }
        state
    }
}

/// Whether the process holds the jobs of a slice, by the table.
pub(super) fn is_held(tables: &SliceTables, process: Uuid) -> bool {
    tables.jobs_lease.owner == Some(process)
}
