//! Jobs on the in-memory tables: `jobs.rs` and `jobs/finish.rs` without SQL, and the refusals of
//! `tallylight.enqueue`.

use std::collections::HashSet;
use std::time::Duration;

use domain::call::Call;
use domain::effect::{FORWARD, NewJob, TIMER};
use domain::event::NewEvent;
use domain::ids::{Subject, Timestamp};
use serde_json::Value;
use uuid::Uuid;

use super::tables::{
    SliceTables, Tables, bounded, check_events, check_json, check_text, micros, refused,
};
use crate::{Consumer, DueJob, Ending, EnqueueOptions, Error, Finish, Started};

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
        }
    }

    fn due(&self, slice: i16, id: Uuid) -> DueJob {
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

/// What `tallylight.check_enqueue` refuses.
fn check_enqueue(kind: &str, args: &Value, options: &EnqueueOptions) -> Result<(), Error> {
    let is_long = |text: &Option<String>, most| {
        text.as_ref().is_some_and(|text| !(1..=most).contains(&text.len()))
    };
    let is_reserved = [TIMER, FORWARD].contains(&kind) || Call::KINDS.contains(&kind);
    let is_refused = !is_kind(kind)
        || is_reserved
        || !args.is_object()
        || check_json(args).is_err()
        || is_long(&options.subject, 1024)
        || is_long(&options.key, 512)
        || options.priority.is_some_and(|priority| !(1..=4).contains(&priority))
        || options.max_attempts.is_some_and(|most| !(1..=999_999).contains(&most))
        || [&options.subject, &options.key].into_iter().flatten().any(|t| t.contains('\0'));
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
        let subject = options.subject.clone().or_else(keyed).unwrap_or_else(|| format!("job/{id}"));
        let subject = Subject::from_stored(subject);
        let slice = self.count.slice_of(&subject);
        let tables = self.existing(slice)?;
        let is_same = |job: &JobRow| {
            job.kind == kind && job.subject == subject && job.unique_key == options.key
        };
        if options.key.is_some()
            && let Some((live, _)) = tables.jobs.iter().find(|(_, job)| is_same(job))
        {
            return Ok(*live);
        }
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
        };
        let row = JobRow { unique_key: options.key.clone(), ..JobRow::of(&new, now) };
        tables.add_job(id, row);
        self.enqueued += 1;
        Ok(id)
    }

    pub(super) fn due_jobs(
        &mut self,
        now: Timestamp,
        process: Uuid,
        per_slice: i64,
    ) -> Vec<DueJob> {
        let most = usize::try_from(per_slice).unwrap_or_default();
        let mut due = Vec::new();
        for (slice, tables) in (0..).zip(&self.slices).filter(|(_, t)| is_held(t, process)) {
            let epoch = tables.jobs_lease.epoch;
            for priority in 1..=4 {
                let is_due = |job: &JobRow| {
                    job.priority == priority
                        && job.run_at <= now
                        && job.run_epoch.is_none_or(|run| run < epoch)
                };
                let mut of: Vec<_> = tables.jobs.iter().filter(|(_, job)| is_due(job)).collect();
                of.sort_by_key(|(id, job)| (job.run_at, **id));
                due.extend(of.into_iter().take(most).map(|(id, job)| (slice, *id, job)));
            }
        }
        due.sort_by_key(|(_, id, job)| (job.priority, job.run_at, *id));
        due.into_iter().map(|(slice, id, job)| job.due(slice, id)).collect()
    }

    pub(super) fn next_due_in(&mut self, now: Timestamp, process: Uuid) -> Option<Duration> {
        let held = self.slices.iter().filter(|tables| is_held(tables, process));
        let later = held.flat_map(|tables| tables.jobs.values().map(|job| job.run_at));
        let next = later.filter(|run_at| *run_at > now).min()?;
        (next - now).to_std().ok()
    }

    pub(super) fn mark_started(
        &mut self,
        slice: i16,
        epoch: i64,
        ids: &[Uuid],
    ) -> Result<Vec<Started>, Error> {
        let tables = self.fence(Consumer::Jobs, slice, epoch)?;
        let mut started = Vec::new();
        for (id, job) in tables.jobs.iter_mut().filter(|(id, _)| ids.contains(id)) {
            if job.run_epoch.is_some_and(|run| run >= epoch) {
                continue;
            }
            job.attempt += 1;
            job.crashes += i32::from(job.run_epoch.is_some());
            job.run_epoch = Some(epoch);
            started.push(Started { id: *id, attempt: job.attempt, crashes: job.crashes });
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
        self.check_slice(slice, finishes.iter().flat_map(|f| &f.events))?;
        let tables = self.fence(Consumer::Jobs, slice, epoch)?;
        let mut seen = HashSet::new();
        let is_first = |f: &&Finish| seen.insert((f.id, f.attempt));
        let runs: Vec<&Finish> = finishes.iter().filter(is_first).collect();
        let is_told = |f: &&Finish| {
            let is_failure = matches!(f.ending, Ending::Retry { .. });
            tables.jobs.get(&f.id).is_some_and(|job| {
                job.attempt == f.attempt && (!is_failure || job.run_epoch.is_some())
            })
        };
        let ending: Vec<&Finish> = runs.into_iter().filter(is_told).collect();
        let events: Vec<NewEvent> = ending.iter().flat_map(|f| f.events.clone()).collect();
        check_events(&events)?;
        for finish in &ending {
            tables.end_run(now, finish);
        }
        tables.store(now, slice, &events);
        Ok(ending.into_iter().map(|finish| finish.id).collect())
    }

    pub(super) fn retry_dead(&mut self, now: Timestamp, id: Uuid) -> Result<(), Error> {
        for tables in &mut self.slices {
            let Some(DeadRow { job, .. }) = tables.dead.remove(&id) else { continue };
            let (errors, crashes) = (0, 0);
            let row = JobRow {
                run_at: now,
                unique_key: None,
                errors,
                crashes,
                run_epoch: None,
                last_error: None,
                ..job
            };
            tables.jobs.entry(id).or_insert(row);
            return Ok(());
        }
        Err(Error::NoSuchJob { id })
    }
}

impl SliceTables {
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
        }
        job.run_epoch = None;
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
                let JobRow { attempt, errors, crashes, last_error, .. } = job;
                job = JobRow { attempt, errors, crashes, last_error, ..died_before.job };
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
