//! Several plain jobs at once, a batch or a parent with its children: the SQL functions
//! `enqueue_many` and `enqueue_parent`, which other services call too.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::jobs::refusal;
use crate::{EnqueueOptions, Enqueued, Error, Store, Ties};

/// A plain job to enqueue.
#[derive(Debug, Clone, PartialEq)]
pub struct PlainJob {
    /// Which handler runs it.
    pub kind: String,
    /// The handler's arguments, a JSON object.
    pub args: Value,
    /// Its options.
    pub options: EnqueueOptions,
}

impl PlainJob {
    /// As the SQL functions read it.
    pub(crate) fn json(&self) -> Value {
        json!({"kind": self.kind, "args": self.args, "opts": self.options})
    }
}

impl Store {
    /// Enqueues plain jobs in one transaction, all or none, as part of the trace that `trace` names.
    /// Returns what became of each, in order.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the number of the first job that is refused, from 1, and the reason;
    /// [`Error::TooMany`] as [`Store::enqueue_job`].
    pub async fn enqueue_many(
        &self,
        jobs: &[PlainJob],
        trace: Option<&str>,
    ) -> Result<Vec<Enqueued>, Error> {
        let jobs: Vec<Value> = jobs.iter().map(PlainJob::json).collect();
        let rows = sqlx::query_as!(
            Enqueued,
            r#"SELECT e.id, e.is_new AS "is_new!"
                 FROM (SELECT set_config('tallylight.traceparent', coalesce($2, ''), true) AS trace) AS t
                CROSS JOIN LATERAL tallylight.enqueue_many(
                      CASE WHEN t.trace IS NOT NULL THEN $1::jsonb END, false) AS e
                ORDER BY e.n"#,
            Value::Array(jobs),
            trace,
        )
        .fetch_all(&self.pool)
        .await
        .map_err(Error::from)
        .map_err(refusal)?;
        Ok(rows)
    }

    /// Enqueues a job that is due when its children have ended, and the children, in one
    /// transaction, all or none, as part of the trace that `trace` names. Returns what became of the parent, and the ids of the children in
    /// order: none where the parent's key was taken.
    ///
    /// # Errors
    /// As [`Store::enqueue_many`].
    pub async fn enqueue_parent(
        &self,
        parent: &PlainJob,
        children: &[PlainJob],
        ties: Ties,
        trace: Option<&str>,
    ) -> Result<(Enqueued, Vec<Uuid>), Error> {
        let mut parent = parent.json();
        parent["on_child_failure"] = ties.on_failure.name().into();
        parent["on_cancel"] = ties.on_cancel.name().into();
        let children = children.iter().map(PlainJob::json).collect();
        let rows = sqlx::query!(
            r#"SELECT e.n AS "n!", e.id, e.is_new AS "is_new!"
                 FROM (SELECT set_config('tallylight.traceparent', coalesce($3, ''), true) AS trace) AS t
                CROSS JOIN LATERAL tallylight.enqueue_parent(
                      CASE WHEN t.trace IS NOT NULL THEN $1::jsonb END, $2, false) AS e
                ORDER BY e.n"#,
            parent,
            Value::Array(children),
            trace,
        )
        .fetch_all(&self.pool)
        .await
        .map_err(Error::from)
        .map_err(refusal)?;
        let parent = rows.iter().find(|row| row.n == 0);
        let parent = parent.map(|row| Enqueued { id: row.id, is_new: row.is_new });
        let children = rows.iter().filter(|row| row.n > 0).filter_map(|row| row.id).collect();
        Ok((parent.unwrap_or(Enqueued { id: None, is_new: false }), children))
    }
}
