//! Batches of plain jobs: the SQL function `enqueue_many`, which other services call too.

use serde_json::{Value, json};

use crate::jobs::refusal;
use crate::{EnqueueOptions, Enqueued, Error, Store};

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
        let jobs: Vec<Value> = jobs
            .iter()
            .map(|job| json!({"kind": job.kind, "args": job.args, "opts": job.options}))
            .collect();
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
}
