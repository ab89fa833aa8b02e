//! A job that waits for other jobs: the typed form of `tallylight.enqueue_parent`.

use serde_json::json;
use sqlx::PgExecutor;
use uuid::Uuid;

use crate::{Enqueued, Error, Item, Job};

/// A job that is due when its children have ended; its handler is told how they did.
#[derive(Debug, Clone, PartialEq)]
#[must_use = "a parent is enqueued by `enqueue`"]
pub struct Parent {
    pub(crate) job: Job,
    pub(crate) children: Vec<Job>,
    pub(crate) on_failure: OnChildFailure,
    pub(crate) on_cancel: OnCancel,
}

/// What a child comes to that is given up or cancelled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnChildFailure {
    /// It has ended, as the others do.
    #[default]
    Run,
    /// The parent is cancelled, and with it what was not started.
    Cancel,
    /// The parent waits until the child was retried and succeeds, or is thrown away.
    Wait,
}

/// What becomes of children that were not started when their parent is cancelled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnCancel {
    /// They are cancelled too.
    #[default]
    Cancel,
    /// They run.
    Keep,
}

/// A parent and its children, once the transaction is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Family {
    /// The parent.
    pub parent: Enqueued,
    /// The ids of the children, in their order; none where the parent's key was taken.
    pub children: Vec<Uuid>,
}

impl Parent {
    /// What a child that fails comes to; where nothing is said, it has ended.
    pub fn on_child_failure(mut self, on_failure: OnChildFailure) -> Self {
        self.on_failure = on_failure;
        self
    }

    /// What becomes of the children when this is cancelled; where nothing is said, those that were
    /// not started are cancelled too.
    pub fn on_cancel(mut self, on_cancel: OnCancel) -> Self {
        self.on_cancel = on_cancel;
        self
    }

    /// Enqueues parent and children, all or none, as [`Job::enqueue`]: 1 to 10,000 children, which
    /// have no keys. What is due after a time counts from this call.
    ///
    /// # Errors
    /// As [`Job::enqueue`]; of a child it begins with its number, from 1. Parent and children are of
    /// one trace, which the parent names.
    pub async fn enqueue(&self, executor: impl PgExecutor<'_>) -> Result<Family, Error> {
        let trace = self.job.traceparent.as_deref();
        let is_other = |job: &Job| job.traceparent.is_some() && job.traceparent.as_deref() != trace;
        if self.children.iter().any(is_other) {
            let reason = "its children name other traces: they are part of their parent's";
            let kind = self.job.kind.clone();
            return Err(Error::Refused { kind, reason: reason.to_owned() });
        }
        let ties = json!({
            "on_child_failure": match self.on_failure {
                OnChildFailure::Run => "run",
                OnChildFailure::Cancel => "cancel",
                OnChildFailure::Wait => "wait",
            },
            "on_cancel": match self.on_cancel {
                OnCancel::Cancel => "cancel",
                OnCancel::Keep => "keep",
            },
        });
        let items: Vec<Item<'_>> =
            std::iter::once(&self.job).chain(&self.children).map(Item::of).collect();
        let rows: Vec<(Option<Uuid>, bool, String)> = sqlx::query_as(ENQUEUE_PARENT)
            .bind(sqlx::types::Json(items))
            .bind(ties)
            .bind(trace)
            .fetch_all(executor)
            .await
            .map_err(|source| Error::of(&self.job.kind, source))?;
        let ids =
            |rows: &[(Option<Uuid>, bool, String)]| rows.iter().filter_map(|row| row.0).collect();
        match rows.as_slice() {
            [(id, is_new, _), children @ ..] => Ok(Family {
                parent: Enqueued { id: *id, is_new: *is_new },
                children: ids(children),
            }),
            [] => Err(Error::of(&self.job.kind, sqlx::Error::RowNotFound)),
        }
    }
}

/// The call: the jobs as [`crate::Item`] has them, the parent first, what its children's ends mean to
/// it, and their trace, told and put back as by [`crate::ENQUEUE`].
const ENQUEUE_PARENT: &str = "\
    SELECT e.id, e.is_new, set_config('tallylight.traceparent', w.trace, true)
      FROM (SELECT coalesce(current_setting('tallylight.traceparent', true), '') AS trace OFFSET 0) AS w
     CROSS JOIN LATERAL
           (SELECT set_config('tallylight.traceparent', coalesce($3, w.trace), true) AS trace OFFSET 0) AS t
     CROSS JOIN LATERAL (
      SELECT jsonb_agg(jsonb_build_object('kind', j.job -> 'kind', 'args', j.job -> 'args',
        'opts', (j.job -> 'opts') || jsonb_strip_nulls(jsonb_build_object('run_at', coalesce(
          timestamptz '1970-01-01T00:00:00Z' + (j.job ->> 'at')::bigint * interval '1 microsecond',
          clock_timestamp() + (j.job ->> 'delay')::bigint * interval '1 microsecond'))))
        ORDER BY j.n) AS jobs
      FROM jsonb_array_elements($1) WITH ORDINALITY AS j (job, n) WHERE t.trace IS NOT NULL OFFSET 0) AS given
    CROSS JOIN LATERAL tallylight.enqueue_parent((given.jobs -> 0) || $2, given.jobs - 0) AS e
    ORDER BY e.n";
