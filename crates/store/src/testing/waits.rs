//! Durable waits on the in-memory tables: `jobs/waits.rs`, `jobs/ends.rs`, `jobs/relay.rs` and the functions
//! `relay` and `wake_waiting` without SQL.

use std::collections::BTreeSet;
use std::time::Duration;

use domain::effect::{NewJob, RELAY};
use domain::ids::{Subject, Timestamp, derived_id};
use serde_json::{Value, json};
use uuid::Uuid;

use super::jobs::{JobRow, NEVER, check_enqueue, is_held_back, new_row};
use super::tables::{SliceTables, Tables, bounded, check_json, check_text, micros};
use crate::jobs::ends::{cancel_relay, is_over, word};
use crate::{
    Awaits, Begin, Child, Consumer, Ending, EnqueueOptions, Error, EventWait, Finish, OnCancel,
    OnFailure, PlainJob, Relay, Step, Ties, WaitFor, Word,
};

/// A row of `job_step`.
#[derive(Debug, Clone, PartialEq)]
pub struct StepRow {
    /// As it is told; whether its time is over is told by the clock.
    pub step: Step,
    /// Of children.
    pub ties: Option<Ties>,
}

/// A row of `job_child`.
#[derive(Debug, Clone, PartialEq)]
pub struct ChildRow {
    /// As its parent knows it.
    pub child: Child,
    /// Its slice.
    pub slice: i16,
    /// Whether its parent waits for it.
    pub is_open: bool,
    /// Of what was heard of it.
    pub rank: Option<i32>,
}

impl Word {
    /// Whether it is about the event that is waited for, not one of an earlier wait of the name.
    fn fits(&self, awaits: &Awaits) -> bool {
        let position = self.value.as_ref().and_then(|value| value["position"].as_i64());
        position > Some(awaits.after)
            && self.subject.as_ref().is_none_or(|subject| *subject == awaits.subject)
    }
}

/// How far a wait without an end is put off.
fn far() -> Timestamp {
    Timestamp::from_timestamp(253_370_764_800, 0).unwrap_or(Timestamp::MAX_UTC)
}

impl Tables {
    pub(super) fn steps(&mut self, now: Timestamp, slice: i16, job: Uuid) -> Vec<Step> {
        let Some(tables) = self.slice(slice) else { return Vec::new() };
        let own = tables.steps.iter().filter(|((of, _), _)| *of == job);
        own.map(|(_, row)| row.told(now)).collect()
    }

    pub(super) fn begin_step(
        &mut self,
        now: Timestamp,
        (slice, epoch): (i16, i64),
        (job, attempt): (Uuid, i32),
        name: &str,
        begin: &Begin,
    ) -> Result<Option<Step>, Error> {
        let tables = self.fence(Consumer::Jobs, slice, epoch)?;
        let key = (job, name.to_owned());
        let is_new = !tables.steps.contains_key(&key);
        let is_run = |row: &&mut JobRow| match row.run_epoch {
            Some(run) => run == epoch && row.attempt == attempt,
            None => row.attempt == attempt - 1,
        };
        let Some(row) = tables.jobs.get_mut(&job).filter(is_run) else { return Ok(None) };
        check_text(name)?;
        if let Begin::Value(value) = begin {
            check_json(value)?;
        }
        if let (true, Begin::Children { children, .. }) = (is_new, begin) {
            children.iter().try_for_each(check_child)?;
        }
        row.begins(now, name);
        if is_new {
            tables.steps.insert(key.clone(), StepRow::of(now, name, begin));
            if let Begin::Children { children, .. } = begin {
                self.add_children(now, slice, &key, children)?;
            }
        }
        let step = self.slice(slice).and_then(|tables| tables.steps.get(&key));
        Ok(step.map(|row| row.told(now)))
    }

    /// The step of a job that waits for an event before its first start.
    pub(super) fn start_by_event(
        &mut self,
        now: Timestamp,
        slice: i16,
        job: Uuid,
        options: &EnqueueOptions,
    ) -> Result<(), Error> {
        let Some(WaitFor { subject, types, timeout }) = options.wait_for.clone() else {
            return Ok(());
        };
        let subject = Subject::from_stored(subject);
        let after = self.existing(self.count.slice_of(&subject))?.head();
        let awaits = Awaits { subject, types, after };
        let timeout = Duration::from_secs(timeout.unsigned_abs().into());
        let begin = Begin::Event { awaits: awaits.clone(), timeout };
        let tables = self.existing(slice)?;
        let Some(row) = tables.jobs.get_mut(&job) else { return Ok(()) };
        row.begins(now, "start");
        let (step, until) = ("start".to_owned(), row.run_at);
        tables.steps.insert((job, step.clone()), StepRow::of(now, &step, &begin));
        let relay = Relay::Await(EventWait { job_slice: slice, job, step, awaits, until });
        let id = derived_id("relay-await", &[&job.to_string()]);
        tables.add_relay(now, id, Subject::job(job).to_string(), json!(relay));
        Ok(())
    }

    fn add_children(
        &mut self,
        now: Timestamp,
        slice: i16,
        (parent, step): &(Uuid, String),
        children: &[PlainJob],
    ) -> Result<(), Error> {
        let parent_row = self.existing(slice)?.jobs.get(parent).cloned();
        for (n, child) in (1..).zip(children) {
            self.enqueued += 1;
            let id = Uuid::from_u64_pair(u64::MAX, self.enqueued);
            let options = &child.options;
            let given = options.subject.clone().or_else(|| options.limit_key.clone());
            let subject = given.map_or_else(|| Subject::job(id), Subject::from_stored);
            let key =
                options.limit_key.clone().map_or_else(|| subject.clone(), Subject::from_stored);
            let child_slice = self.count.slice_of(&key);
            let mut row = new_row(now, (id, &child.kind, subject), &child.args, options);
            let of = json!({"slice": slice, "job": parent, "step": step, "n": n});
            row.waits = Some(json!({ "parent": of }));
            if let Some(JobRow { trace, causation_id, correlation_id, .. }) = &parent_row {
                row.trace.clone_from(trace);
                (row.causation_id, row.correlation_id) = (*causation_id, *correlation_id);
            }
            self.existing(child_slice)?.add_job(id, row);
            let child = Child { id, state: None, value: None, error: None };
            let row = ChildRow { child, slice: child_slice, is_open: true, rank: None };
            self.existing(slice)?.children.insert((*parent, step.clone(), n), row);
        }
        Ok(())
    }

    pub(super) fn give_up_step(
        &mut self,
        now: Timestamp,
        (slice, epoch): (i16, i64),
        job: Uuid,
        name: &str,
    ) -> Result<Option<Step>, Error> {
        let tables = self.fence(Consumer::Jobs, slice, epoch)?;
        let Some(row) = tables.steps.get_mut(&(job, name.to_owned())) else { return Ok(None) };
        let is_over = row.told(now).is_over;
        row.step.is_closed |= row.step.awaits.is_some() && is_over;
        Ok(Some(row.told(now)))
    }

    pub(super) fn children(&mut self, slice: i16, job: Uuid, step: &str) -> Vec<Child> {
        let Some(tables) = self.slice(slice) else { return Vec::new() };
        let own = tables.children.iter().filter(|((of, at, _), _)| *of == job && at == step);
        own.map(|(_, row)| row.child.clone()).collect()
    }

    pub(super) fn relay(&mut self, now: Timestamp, slice: i16, words: &[Word]) {
        let Some(tables) = self.slice(slice) else { return };
        for word in words {
            tables.hear(word);
        }
        tables.cancel_parents(words);
        let steps: BTreeSet<(Uuid, String)> =
            words.iter().map(|word| (word.job, word.step.clone())).collect();
        for step in &steps {
            tables.wake(now, step);
        }
    }

    pub(super) fn await_event(&mut self, wait: &EventWait) {
        let slice = self.count.slice_of(&wait.awaits.subject);
        let Some(tables) = self.slice(slice) else { return };
        let key = (wait.awaits.subject.clone(), wait.job, wait.step.clone());
        let until = micros(wait.until);
        if tables.event_waits.get(&key).is_none_or(|known| known.until < until) {
            tables.event_waits.insert(key, EventWait { until, ..wait.clone() });
        }
    }

    pub(super) fn cancel_unstarted(&mut self, slice: i16, jobs: &[Uuid]) -> u64 {
        let Some(tables) = self.slice(slice) else { return 0 };
        let epoch = tables.jobs_lease.epoch;
        let mut cancelled = 0;
        for (_, job) in tables.jobs.iter_mut().filter(|(id, _)| jobs.contains(id)) {
            if !job.is_cancelled && job.run_epoch.is_none_or(|run| run < epoch) {
                (job.is_cancelled, job.run_epoch) = (true, Some(NEVER));
                cancelled += 1;
            }
        }
        cancelled
    }
}

/// What `tallylight.add_children` refuses.
fn check_child(child: &PlainJob) -> Result<(), Error> {
    check_enqueue(&child.kind, &child.args, &child.options)?;
    if is_held_back(&child.options) {
        return Err(Error::Invalid { reason: "a child is a new job of its parent".to_owned() });
    }
    Ok(())
}

impl StepRow {
    pub(super) fn of(now: Timestamp, name: &str, begin: &Begin) -> Self {
        let (mut value, mut awaits, mut until, mut ties) = (None, None, None, None);
        match begin {
            Begin::Value(done) => value = Some(done.clone()),
            Begin::Sleep(time) => until = Some(micros(now + bounded(*time))),
            Begin::Event { awaits: event, timeout } => {
                (awaits, until) = (Some(event.clone()), Some(micros(now + bounded(*timeout))));
            }
            Begin::Children { ties: with, .. } => ties = Some(*with),
        }
        let is_closed = matches!(begin, Begin::Value(_));
        let (name, kind) = (name.to_owned(), begin.kind());
        let step = Step { name, kind, value, awaits, until, is_closed, is_over: false };
        Self { step, ties }
    }

    fn told(&self, now: Timestamp) -> Step {
        let is_over = self.step.until.is_some_and(|until| until <= now);
        Step { is_over, ..self.step.clone() }
    }
}

impl JobRow {
    /// Notes a step that begins.
    pub(super) fn begins(&mut self, now: Timestamp, name: &str) {
        let waits = self.waits.get_or_insert_with(|| json!({}));
        waits["for"] = json!(name);
        if waits["steps"].get(name).is_none() {
            waits["steps"][name] = json!(now);
        }
    }
}

impl SliceTables {
    /// Ends a run that waits for a step.
    pub(super) fn wait(&mut self, now: Timestamp, (id, attempt): (Uuid, i32), step: &str) {
        let open = self.steps.get(&(id, step.to_owned())).filter(|row| !row.step.is_closed);
        let until = open.map(|row| row.step.until.unwrap_or_else(far));
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.attempt = attempt;
        job.run_at = until.unwrap_or_else(|| micros(now));
        job.lane = job.home();
        job.run_epoch = job.is_cancelled.then_some(NEVER);
        job.waits.get_or_insert_with(|| json!({}))["for"] = json!(step);
    }

    /// What follows from the end of a job with steps or a parent, before it goes.
    pub(super) fn end_waits(&mut self, now: Timestamp, finish: &Finish) {
        let Some(waits) = self.jobs.get(&finish.id).and_then(|job| job.waits.clone()) else {
            return;
        };
        if matches!(finish.ending, Ending::Again { .. }) {
            self.begin_anew(finish.id);
        }
        let told = word(finish, &waits);
        if let Some((id, subject, relay)) = told {
            self.add_relay(now, id, subject, json!(relay));
        }
        if waits.get("steps").is_none() || !is_over(&finish.ending) {
            return;
        }
        if matches!(finish.ending, Ending::Cancelled { .. }) {
            self.cancel_children(now, finish.id);
        }
        self.steps.retain(|(job, _), _| *job != finish.id);
        self.children.retain(|(job, _, _), _| *job != finish.id);
    }

    /// A job that recurs begins with no steps again.
    fn begin_anew(&mut self, id: Uuid) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let Some(Value::Object(waits)) = &mut job.waits else { return };
        if waits.remove("steps").is_none() {
            return;
        }
        waits.remove("for");
        if waits.is_empty() {
            job.waits = None;
        }
        self.steps.retain(|(job, _), _| *job != id);
        self.children.retain(|(job, _, _), _| *job != id);
    }

    fn cancel_children(&mut self, now: Timestamp, parent: Uuid) {
        let is_unneeded = |((of, step, _), row): &(&(Uuid, String, i32), &ChildRow)| {
            let ties = self.steps.get(&(parent, step.clone())).and_then(|row| row.ties);
            *of == parent && row.is_open && ties.is_some_and(|t| t.on_cancel == OnCancel::Cancel)
        };
        let unneeded: Vec<(i16, Uuid)> = self
            .children
            .iter()
            .filter(is_unneeded)
            .map(|(_, row)| (row.slice, row.child.id))
            .collect();
        let slices: BTreeSet<i16> = unneeded.iter().map(|(slice, _)| *slice).collect();
        for to in slices {
            let jobs = unneeded.iter().filter(|(slice, _)| *slice == to).map(|(_, id)| *id);
            let (id, subject, args) = cancel_relay(parent, to, jobs.collect());
            self.add_relay(now, id, subject, args);
        }
    }

    /// Inserts a relay, due at once.
    fn add_relay(&mut self, now: Timestamp, id: Uuid, subject: String, args: Value) -> bool {
        let job = NewJob {
            id,
            kind: RELAY.to_owned(),
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
        let is_new = !self.jobs.contains_key(&id);
        if is_new {
            self.add_job(id, JobRow::of(&job, now));
        }
        is_new
    }

    /// Keeps what a step is told.
    fn hear(&mut self, word: &Word) {
        let Some(row) = self.steps.get_mut(&(word.job, word.step.clone())) else { return };
        let Some(n) = word.n else {
            let fits = row.step.awaits.as_ref().is_some_and(|awaits| word.fits(awaits));
            if fits && !row.step.is_closed {
                row.step.is_closed = true;
                row.step.value.clone_from(&word.value);
            }
            return;
        };
        let waits = row.ties.is_some_and(|ties| ties.on_failure == OnFailure::Wait);
        let key = (word.job, word.step.clone(), n);
        let Some(child) = self.children.get_mut(&key).filter(|c| c.rank < word.rank) else {
            return;
        };
        child.rank = word.rank;
        let state = word.state.as_deref();
        child.is_open = waits && matches!(state, Some("discarded" | "quarantined"));
        child.child.state.clone_from(&word.state);
        child.child.value.clone_from(&word.value);
        child.child.error.clone_from(&word.error);
    }

    /// Marks parents as cancelled whose child has failed, where that was asked for.
    fn cancel_parents(&mut self, words: &[Word]) {
        let epoch = self.jobs_lease.epoch;
        for word in words {
            let key = (word.job, word.step.clone(), word.n.unwrap_or_default());
            let Some(child) = self.children.get(&key).map(|row| row.child.clone()) else {
                continue;
            };
            let row = self.steps.get(&(word.job, word.step.clone()));
            let cancels = row.is_some_and(|row| {
                !row.step.is_closed && row.ties.is_some_and(|t| t.on_failure == OnFailure::Cancel)
            });
            let state = child.state.unwrap_or_default();
            if !cancels || state.is_empty() || state == "completed" {
                continue;
            }
            let Some(job) = self.jobs.get_mut(&word.job) else { continue };
            let error = child.error.unwrap_or_default();
            job.last_error = Some(format!("child {} was {state}: {error}", child.id));
            job.is_cancelled = true;
            job.run_epoch = job.run_epoch.filter(|run| *run >= epoch).or(Some(NEVER));
        }
    }

    /// Closes a step whose children have all ended; a job that waits for a closed step is due.
    fn wake(&mut self, now: Timestamp, key: &(Uuid, String)) {
        let is_open = |((of, step, _), row): (&(Uuid, String, i32), &ChildRow)| {
            *of == key.0 && *step == key.1 && row.is_open
        };
        let waits = self.children.iter().any(is_open);
        let Some(row) = self.steps.get_mut(key) else { return };
        row.step.is_closed |= row.ties.is_some() && !waits;
        if !row.step.is_closed {
            return;
        }
        let Some(job) = self.jobs.get_mut(&key.0).filter(|job| job.run_epoch.is_none()) else {
            return;
        };
        if job.waits.as_ref().is_some_and(|waits| waits["for"] == json!(key.1)) {
            job.run_at = job.run_at.min(micros(now));
        }
    }

    /// In a reaction to the events after `from` up to `to`: sends relays to those who wait.
    pub(super) fn wake_waiting(&mut self, now: Timestamp, slice: i16, from: i64, to: i64) -> u64 {
        let mut woken = 0;
        for ((subject, job, step), wait) in self.event_waits.clone() {
            let is_met = |event: &&domain::event::RecordedEvent| {
                event.subject == subject
                    && event.position > from
                    && event.position <= to
                    && wait.awaits.is_met_by(&event.event_type, event.position)
            };
            let Some(position) = self.events.iter().find(is_met).map(|event| event.position) else {
                continue;
            };
            let parts = [job.to_string(), step.clone(), position.to_string()];
            let id = derived_id("relay-event", &parts.each_ref().map(String::as_str));
            let relay = Relay::Tell { to: wait.job_slice, word: wait.met(slice, position) };
            woken += u64::from(self.add_relay(now, id, subject.to_string(), json!(relay)));
            self.event_waits.remove(&(subject, job, step));
        }
        let latest = now - Duration::from_mins(1);
        self.event_waits.retain(|_, wait| wait.until >= latest);
        woken
    }
}
