//! Durable waits: the named steps of a job, and its children.
//!
//! A *step* is a row with the name that a handler gave it: work that is done and its value, or a
//! wait, for a time, an event or the ends of children. It is *closed* when it has its value. Steps
//! lie in the slice of their job, go with it to the dead letters and back, and end with it.
//! What the end of a run means to them is not its job: `ends`; nor is how words of other jobs get
//! here: `relay`.

use std::time::Duration;

use domain::ids::{Subject, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::consumer::{Consumer, fence, micros};
use crate::jobs::refusal;
use crate::{Error, PlainJob, Store};

/// A step of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The name that its handler gave it.
    pub name: String,
    /// What it is.
    pub kind: StepKind,
    /// What its work came to; of an event, where it stands in the log.
    pub value: Option<Value>,
    /// Of an event, which one.
    pub awaits: Option<Awaits>,
    /// Of a sleep its end, of an event the moment from which it is not waited for.
    pub until: Option<Timestamp>,
    /// Whether it has what it waited for, or has given up.
    pub is_closed: bool,
    /// Whether `until` has passed.
    pub is_over: bool,
}

/// What a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    /// Work that is done.
    Value,
    /// A wait for a time.
    Sleep,
    /// A wait for an event, or a time.
    Event,
    /// A wait for the ends of children.
    Children,
}

impl StepKind {
    /// Its name in the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Value => "value",
            Self::Sleep => "sleep",
            Self::Event => "event",
            Self::Children => "children",
        }
    }

    fn of(name: &str) -> Self {
        match name {
            "sleep" => Self::Sleep,
            "event" => Self::Event,
            "children" => Self::Children,
            _ => Self::Value,
        }
    }
}

/// An event that is waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Awaits {
    /// Its subject.
    pub subject: Subject,
    /// Its types; none: any.
    pub types: Vec<String>,
    /// The position after which it is to stand in the slice of the subject.
    pub after: i64,
}

impl Awaits {
    /// Whether it is an event of this type at this position of the subject.
    pub fn is_met_by(&self, event_type: &str, position: i64) -> bool {
        let is_type = self.types.is_empty() || self.types.iter().any(|one| one == event_type);
        is_type && position > self.after
    }
}

/// How a step begins.
#[derive(Debug, Clone, PartialEq)]
pub enum Begin {
    /// Done, with its value.
    Value(Value),
    /// Until a time from now, by the database's clock.
    Sleep(Duration),
    /// Until an event, or a time from now.
    Event {
        /// The event.
        awaits: Awaits,
        /// From now, by the database's clock.
        timeout: Duration,
    },
    /// With children, until they have ended.
    Children {
        /// The children, 1 to 10,000.
        children: Vec<PlainJob>,
        /// What their ends and the parent's mean to each other.
        ties: Ties,
    },
}

impl Begin {
    pub(crate) fn kind(&self) -> StepKind {
        match self {
            Self::Value(_) => StepKind::Value,
            Self::Sleep(_) => StepKind::Sleep,
            Self::Event { .. } => StepKind::Event,
            Self::Children { .. } => StepKind::Children,
        }
    }
}

/// What the ends of children and of their parent mean to each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ties {
    /// What a child that fails comes to.
    pub on_failure: OnFailure,
    /// What becomes of children when their parent is cancelled.
    pub on_cancel: OnCancel,
}

/// What a child comes to that is given up or cancelled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// It has ended; its parent sees how.
    #[default]
    Run,
    /// Its parent is cancelled.
    Cancel,
    /// Its parent waits until it was retried from the dead letters and succeeds, or is thrown away.
    Wait,
}

impl OnFailure {
    /// Its name in the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Cancel => "cancel",
            Self::Wait => "wait",
        }
    }
}

/// What becomes of children that were not started when their parent is cancelled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnCancel {
    /// They are cancelled too.
    #[default]
    Cancel,
    /// They run as if nothing had happened.
    Keep,
}

impl OnCancel {
    /// Its name in the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Keep => "keep",
        }
    }
}

/// A child as its parent knows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Child {
    /// The job.
    pub id: Uuid,
    /// `completed`, `discarded`, `quarantined` or `cancelled`; none: it has not ended.
    pub state: Option<String>,
    /// Its value, where it completed with one.
    pub value: Option<Value>,
    /// Why it did not complete.
    pub error: Option<String>,
}

/// Of which job another one is a child.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// The slice of the parent.
    pub slice: i16,
    /// The parent.
    pub job: Uuid,
    /// Its step that waits.
    pub step: String,
    /// The number of the child, from 1.
    pub n: i32,
}

impl Parent {
    /// The parent of a job, by its column `waits`.
    pub fn of(waits: &Value) -> Option<Self> {
        serde_json::from_value(waits.get("parent")?.clone()).ok()
    }
}

impl Store {
    /// The steps of a live or dead job, by name.
    pub async fn steps(&self, slice: i16, job: Uuid) -> Result<Vec<Step>, Error> {
        let rows = sqlx::query_as!(
            StepRow,
            r#"SELECT name, kind, value, awaits, until, closed_at IS NOT NULL AS "is_closed!",
                      coalesce(until <= now(), false) AS "is_over!"
                 FROM tallylight.job_step WHERE slice = $1 AND job = $2 ORDER BY name"#,
            slice,
            job,
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter().map(|row| row.step(job)).collect()
    }

    /// Begins a step of a run, with its children if it has some, and returns it; one that was begun
    /// before stays as it is. `None`: the run is not the present one of its job. A run whose start was
    /// not marked is the present one while none is marked.
    ///
    /// # Errors
    /// [`Error::Fenced`] where the lease has passed on, [`Error::Invalid`] where a child is refused.
    pub async fn begin_step(
        &self,
        slice: i16,
        epoch: i64,
        (job, attempt): (Uuid, i32),
        name: &str,
        begin: &Begin,
    ) -> Result<Option<Step>, Error> {
        let mut tx = self.pool.begin().await?;
        fence(&mut tx, Consumer::Jobs, slice, epoch).await?;
        let marked = sqlx::query!(
            "UPDATE tallylight.job
                SET waits = coalesce(waits, '{}') || jsonb_build_object('for', $5::text,
                      'steps', jsonb_build_object($5::text, now()) || coalesce(waits -> 'steps', '{}'))
              WHERE slice = $1 AND id = $2
                AND (attempt = $3 AND run_epoch = $4 OR attempt = $3 - 1 AND run_epoch IS NULL)",
            slice,
            job,
            attempt,
            epoch,
            name,
        )
        .execute(&mut *tx)
        .await?;
        if marked.rows_affected() == 0 {
            return Ok(None);
        }
        let is_new = insert_step(&mut tx, slice, job, name, begin).await?;
        if let (true, Begin::Children { children, .. }) = (is_new, begin) {
            add_children(&mut tx, slice, job, name, children).await?;
        }
        let step = one_step(&mut tx, slice, job, name).await?;
        tx.commit().await?;
        Ok(step)
    }

    /// Gives a wait for an event up, if its time has passed, and returns it as it is then. `None`:
    /// there is no such step.
    ///
    /// # Errors
    /// [`Error::Fenced`] where the lease has passed on.
    pub async fn give_up_step(
        &self,
        slice: i16,
        epoch: i64,
        job: Uuid,
        name: &str,
    ) -> Result<Option<Step>, Error> {
        let mut tx = self.pool.begin().await?;
        fence(&mut tx, Consumer::Jobs, slice, epoch).await?;
        sqlx::query!(
            "UPDATE tallylight.job_step SET closed_at = now()
              WHERE slice = $1 AND job = $2 AND name = $3 AND kind = 'event'
                AND closed_at IS NULL AND until <= now()",
            slice,
            job,
            name,
        )
        .execute(&mut *tx)
        .await?;
        let step = one_step(&mut tx, slice, job, name).await?;
        tx.commit().await?;
        Ok(step)
    }

    /// The children of a step, in their order.
    pub async fn children(&self, slice: i16, job: Uuid, step: &str) -> Result<Vec<Child>, Error> {
        let children = sqlx::query_as!(
            Child,
            "SELECT child AS id, state, value, error FROM tallylight.job_child
              WHERE slice = $1 AND parent = $2 AND step = $3 ORDER BY n",
            slice,
            job,
            step,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(children)
    }
}

/// A step as the table has it.
struct StepRow {
    name: String,
    kind: String,
    value: Option<Value>,
    awaits: Option<Value>,
    until: Option<Timestamp>,
    is_closed: bool,
    is_over: bool,
}

impl StepRow {
    fn step(self, job: Uuid) -> Result<Step, Error> {
        let unreadable = |source| Error::Inconsistent {
            table: "job_step",
            row: format!("{job} {}", self.name),
            source,
        };
        let awaits = self.awaits.map(serde_json::from_value).transpose().map_err(unreadable)?;
        Ok(Step {
            kind: StepKind::of(&self.kind),
            name: self.name,
            value: self.value,
            awaits,
            until: self.until,
            is_closed: self.is_closed,
            is_over: self.is_over,
        })
    }
}

async fn one_step(
    connection: &mut PgConnection,
    slice: i16,
    job: Uuid,
    name: &str,
) -> Result<Option<Step>, Error> {
    let row = sqlx::query_as!(
        StepRow,
        r#"SELECT name, kind, value, awaits, until, closed_at IS NOT NULL AS "is_closed!",
                  coalesce(until <= now(), false) AS "is_over!"
             FROM tallylight.job_step WHERE slice = $1 AND job = $2 AND name = $3"#,
        slice,
        job,
        name,
    )
    .fetch_optional(connection)
    .await?;
    row.map(|row| row.step(job)).transpose()
}

/// Inserts a step. Returns whether it is new.
async fn insert_step(
    connection: &mut PgConnection,
    slice: i16,
    job: Uuid,
    name: &str,
    begin: &Begin,
) -> Result<bool, Error> {
    let (mut value, mut awaits, mut delay, mut ties) = (None, None, None, None);
    match begin {
        Begin::Value(done) => value = Some(done),
        Begin::Sleep(time) => delay = Some(*time),
        Begin::Event { awaits: event, timeout } => {
            (awaits, delay) = (serde_json::to_value(event).ok(), Some(*timeout));
        }
        Begin::Children { ties: with, .. } => ties = Some(with),
    }
    let inserted = sqlx::query!(
        "INSERT INTO tallylight.job_step (slice, job, name, kind, value, awaits, until, on_failure,
                                          on_cancel, closed_at)
         VALUES ($1, $2, $3, $4, $5, $6, now() + $7::bigint * interval '1 microsecond', $8, $9,
                 CASE WHEN $4 = 'value' THEN now() END)
         ON CONFLICT DO NOTHING",
        slice,
        job,
        name,
        begin.kind().name(),
        value,
        awaits,
        delay.map(micros),
        ties.map(|ties| ties.on_failure.name()),
        ties.map(|ties| ties.on_cancel.name()),
    )
    .execute(connection)
    .await?;
    Ok(inserted.rows_affected() > 0)
}

async fn add_children(
    connection: &mut PgConnection,
    slice: i16,
    job: Uuid,
    step: &str,
    children: &[PlainJob],
) -> Result<(), Error> {
    let children: Vec<Value> = children.iter().map(PlainJob::json).collect();
    sqlx::query!(
        "SELECT tallylight.add_children($1, $2, $3, $4)",
        slice,
        job,
        step,
        Value::Array(children),
    )
    .fetch_one(connection)
    .await
    .map_err(Error::from)
    .map_err(refusal)?;
    Ok(())
}
