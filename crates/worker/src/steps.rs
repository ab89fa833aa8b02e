//! Durable steps: what a handler has done and what it waits for, kept with its job from start to
//! start.
//!
//! A *step* has a name, which a handler uses once in a run. A finished step gives its stored value
//! and does nothing; one that waits ends the run by [`JobError::Wait`], which a handler passes on
//! with `?`, and the job is started again when it has what it waits for. So a handler is written
//! from top to bottom, and every start of it comes to where the last one was. What it does outside
//! of steps it does at every start. How words reach a waiting job is not its job: `engine/relays`.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::event::RecordedEvent;
use domain::ids::Subject;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use store::{Awaits, Begin, Child, Error, EventWait, PlainJob, Step, StepKind, Ties, Word};
use uuid::Uuid;

use crate::claimed::ClaimedJob;
use crate::context::Context;
use crate::jobs::JobError;

/// Bytes of a step's value as JSON: results and references, not files.
const MAX_VALUE: usize = 64 * 1024;

/// Bytes of a step's name, as the table takes it.
const MAX_NAME: usize = 200;

/// Steps of a job: their names are kept in its row, which every step writes.
const MAX_STEPS: usize = 1_000;

/// Events of a subject looked through at once.
const PAGE: i64 = 500;

/// The steps of a run.
#[derive(Debug, Clone)]
pub struct Steps(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ctx: Context,
    slice: i16,
    epoch: i64,
    job: Uuid,
    attempt: i32,
    /// Whether an earlier start, or who enqueued it, began any.
    has_any: bool,
    /// Those that were begun before this start, once they were read.
    begun: tokio::sync::OnceCell<HashMap<String, Step>>,
    used: Mutex<HashSet<String>>,
}

/// An event to wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitFor {
    subject: Subject,
    types: Vec<String>,
    after: Option<i64>,
    timeout: Duration,
}

impl WaitFor {
    /// Any event of a subject that is appended after the wait has begun, until a time after that.
    pub fn new(subject: Subject, timeout: Duration) -> Self {
        Self { subject, types: Vec::new(), after: None, timeout }
    }

    /// Only events of these types.
    #[must_use]
    pub fn types(mut self, types: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.types = types.into_iter().map(Into::into).collect();
        self
    }

    /// Also one that stands in the log already, after this position of the subject's slice.
    #[must_use]
    pub fn after(mut self, position: i64) -> Self {
        self.after = Some(position);
        self
    }
}

/// What a wait for an event came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Waited {
    /// The first event that was waited for.
    Event(Box<RecordedEvent>),
    /// It did not come in time.
    TimedOut,
}

impl Steps {
    pub(crate) fn of(ctx: &Context, job: &ClaimedJob) -> Self {
        Self(Arc::new(Inner {
            ctx: ctx.clone(),
            slice: job.slice,
            epoch: job.epoch,
            job: job.id,
            attempt: job.attempt,
            has_any: job.waits.as_ref().is_some_and(|waits| waits.get("steps").is_some()),
            begun: tokio::sync::OnceCell::new(),
            used: Mutex::default(),
        }))
    }

    /// Does work once: a later start gets the value that it came to. A start that ends between the
    /// work and its keeping repeats it, so the work is to bear that, as every job's does.
    ///
    /// # Errors
    /// Those of the work, which is done again then; [`JobError::Fail`] where the name was used in
    /// this run or the value has more than 64 KiB; [`JobError::Retry`] where it is not kept.
    pub async fn step<T, F>(&self, name: &str, work: impl FnOnce() -> F) -> Result<T, JobError>
    where
        T: Serialize + DeserializeOwned,
        F: Future<Output = Result<T, JobError>>,
    {
        let unreadable =
            |error| JobError::fail(format!("the value of step \"{name}\" cannot be read: {error}"));
        if let Some(step) = self.begun(name, StepKind::Value).await? {
            return serde_json::from_value(step.value.unwrap_or_default()).map_err(unreadable);
        }
        let value = work().await?;
        let json = serde_json::to_value(&value).map_err(unreadable)?;
        let bytes = json.to_string().len();
        if bytes > MAX_VALUE {
            return Err(JobError::fail(format!(
                "the value of step \"{name}\" has {bytes} bytes, above {MAX_VALUE}: keep it elsewhere \
                 and return where"
            )));
        }
        self.begin(name, Begin::Value(json)).await?;
        Ok(value)
    }

    /// Waits for a time, from the first start that comes here, by the database's clock.
    ///
    /// # Errors
    /// [`JobError::Wait`] until it is over; else as [`Steps::step`].
    pub async fn sleep(&self, name: &str, time: Duration) -> Result<(), JobError> {
        let step = match self.begun(name, StepKind::Sleep).await? {
            Some(step) => step,
            None => self.begin(name, Begin::Sleep(time)).await?,
        };
        if step.is_over { Ok(()) } else { Err(waits(name)) }
    }

    /// Waits for an event, until its time is over. Exactly one of the two is the outcome, however
    /// close they come.
    ///
    /// # Errors
    /// [`JobError::Wait`] until then; else as [`Steps::step`].
    pub async fn wait_for(&self, name: &str, event: WaitFor) -> Result<Waited, JobError> {
        let step = match self.begun(name, StepKind::Event).await? {
            Some(step) => step,
            None => self.begin(name, self.event(event).await?).await?,
        };
        self.outcome(step).await
    }

    /// What started a job that was enqueued with the option `wait_for` (the step `start`). `None`:
    /// it was enqueued without.
    ///
    /// # Errors
    /// As [`Steps::wait_for`].
    pub async fn started_by(&self) -> Result<Option<Waited>, JobError> {
        match self.begun("start", StepKind::Event).await? {
            Some(step) => self.outcome(step).await.map(Some),
            None => Ok(None),
        }
    }

    /// What a wait for an event came to, if it is over.
    async fn outcome(&self, mut step: Step) -> Result<Waited, JobError> {
        let inner = &self.0;
        let name = &step.name.clone();
        let gone = || JobError::retry(format!("step \"{name}\" is gone"));
        if !step.is_closed && step.is_over {
            let store = inner.ctx.store();
            let given_up = store.give_up_step(inner.slice, inner.epoch, inner.job, name).await?;
            step = given_up.ok_or_else(gone)?;
        }
        if !step.is_closed
            && let Some(met) = look(&inner.ctx, &self.event_wait(&step)?).await?
        {
            inner.ctx.store().relay(inner.slice, &[met]).await?;
            let steps = inner.ctx.store().steps(inner.slice, inner.job).await?;
            step = steps.into_iter().find(|step| step.name == *name).ok_or_else(gone)?;
        }
        if step.is_closed { self.waited(step).await } else { Err(waits(name)) }
    }

    /// Enqueues children, once, and waits for their ends. Of a later start, and of a job that was
    /// enqueued with children (the step `children`), those are left aside that `children` gives.
    ///
    /// # Errors
    /// [`JobError::Wait`] until all have ended; [`JobError::Fail`] where one is refused; else as
    /// [`Steps::step`].
    pub async fn children(
        &self,
        name: &str,
        children: impl FnOnce() -> Vec<PlainJob>,
        ties: Ties,
    ) -> Result<Vec<Child>, JobError> {
        let inner = &self.0;
        let store = inner.ctx.store();
        let step = if let Some(step) = self.begun(name, StepKind::Children).await? {
            step
        } else {
            let children = children();
            if children.is_empty() {
                return Ok(Vec::new());
            }
            let keys = children.iter().map(|child| {
                let options = &child.options;
                options.limit_key.clone().or_else(|| options.subject.clone())
            });
            let keys: Vec<Option<String>> = keys.collect();
            let step = self.begin(name, Begin::Children { children, ties }).await?;
            self.tell(name, &keys).await?;
            step
        };
        if !step.is_closed {
            return Err(waits(name));
        }
        Ok(store.children(inner.slice, inner.job, name).await?)
    }

    /// Says which slices have new jobs, by the keys that decide where they are.
    async fn tell(&self, name: &str, keys: &[Option<String>]) -> Result<(), JobError> {
        let inner = &self.0;
        let children = inner.ctx.store().children(inner.slice, inner.job, name).await?;
        let place = |(child, key): (&Child, &Option<String>)| {
            let own = || Subject::job(child.id);
            inner.ctx.store().slice_of(&key.clone().map_or_else(own, Subject::from_stored))
        };
        let slices: BTreeSet<i16> = children.iter().zip(keys).map(place).collect();
        for slice in slices {
            // Whoever holds it.
            inner.ctx.jobs_enqueued(slice, true);
            inner.ctx.jobs_enqueued(slice, false);
        }
        Ok(())
    }

    /// The step of a name that is used now for the first time in this run, where an earlier start
    /// began it.
    async fn begun(&self, name: &str, kind: StepKind) -> Result<Option<Step>, JobError> {
        let inner = &self.0;
        let count = {
            let mut used = inner.used.lock().unwrap_or_else(PoisonError::into_inner);
            if !used.insert(name.to_owned()) {
                return Err(JobError::fail(format!("step \"{name}\" was used twice in one run")));
            }
            used.len()
        };
        if count > MAX_STEPS || !(1..=MAX_NAME).contains(&name.len()) {
            return Err(JobError::fail(format!(
                "step \"{name}\": at most {MAX_STEPS} steps, with names of 1 to {MAX_NAME} bytes"
            )));
        }
        let read = || async {
            if !inner.has_any {
                return Ok(HashMap::new());
            }
            let steps = inner.ctx.store().steps(inner.slice, inner.job).await?;
            Ok::<_, Error>(steps.into_iter().map(|step| (step.name.clone(), step)).collect())
        };
        let begun = inner.begun.get_or_try_init(read).await?;
        match begun.get(name) {
            Some(step) if step.kind != kind => Err(JobError::fail(format!(
                "step \"{name}\" was begun as another kind, {:?}",
                step.kind
            ))),
            step => Ok(step.cloned()),
        }
    }

    async fn begin(&self, name: &str, begin: Begin) -> Result<Step, JobError> {
        let Inner { ctx, slice, epoch, job, attempt, .. } = &*self.0;
        let run = (*job, *attempt);
        match ctx.store().begin_step(*slice, *epoch, run, name, &begin).await {
            Ok(Some(step)) => Ok(step),
            // Its outcome will be dropped.
            Ok(None) => Err(JobError::retry("the run is not the job's present one any more")),
            Err(Error::Invalid { reason }) => Err(JobError::fail(reason)),
            Err(error @ Error::Data { .. }) => {
                let reason = crate::leases::chain(&error);
                Err(JobError::fail(format!("step \"{name}\" was refused: {reason}")))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn event(&self, event: WaitFor) -> Result<Begin, JobError> {
        let WaitFor { subject, types, after, timeout } = event;
        let store = self.0.ctx.store();
        let after = if let Some(after) = after {
            after
        } else {
            let heads = store.heads(&[store.slice_of(&subject)]).await?;
            heads.first().map_or(0, |(_, head)| *head)
        };
        Ok(Begin::Event { awaits: Awaits { subject, types, after }, timeout })
    }

    fn event_wait(&self, step: &Step) -> Result<EventWait, JobError> {
        let (Some(awaits), Some(until)) = (step.awaits.clone(), step.until) else {
            return Err(JobError::fail(format!("step \"{}\" waits for no event", step.name)));
        };
        let Inner { slice, job, .. } = *self.0;
        Ok(EventWait { job_slice: slice, job, step: step.name.clone(), awaits, until })
    }

    async fn waited(&self, step: Step) -> Result<Waited, JobError> {
        let Some(value) = step.value else { return Ok(Waited::TimedOut) };
        let number = |name: &str| value.get(name).and_then(Value::as_i64);
        let slice = number("slice").and_then(|slice| slice.try_into().ok());
        let place = slice.zip(number("position"));
        let (slice, position) = place.ok_or_else(|| JobError::fail("the event's place is lost"))?;
        let event = self.0.ctx.store().read_event(slice, position).await?;
        let event = event
            .ok_or_else(|| JobError::fail(format!("no event stands at {slice}:{position}")))?;
        Ok(Waited::Event(Box::new(event)))
    }
}

fn waits(name: &str) -> JobError {
    JobError::Wait { step: name.to_owned() }
}

/// Notes that somebody waits for an event, and then looks whether it stands in the log: so one that
/// comes in between is found by the one or the other. Returns the word about it.
pub(crate) async fn look(ctx: &Context, wait: &EventWait) -> Result<Option<Word>, Error> {
    let (store, awaits) = (ctx.store(), &wait.awaits);
    store.await_event(wait).await?;
    let mut after = awaits.after;
    loop {
        let events = store.read_subject(&awaits.subject, after, PAGE).await?;
        let Some(last) = events.last() else { return Ok(None) };
        after = last.position;
        if let Some(met) = events.iter().find(|e| awaits.is_met_by(&e.event_type, e.position)) {
            return Ok(Some(wait.met(met.slice, met.position)));
        }
    }
}
