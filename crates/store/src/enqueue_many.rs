//! Batches of plain jobs: the SQL function `enqueue_many`, which other services call too.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::jobs::refusal;
use crate::{EnqueueOptions, Error, Store};

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

/// A job that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enqueued {
    /// Its id.
    pub id: Uuid,
    /// Whether it was added now; else a live job has its key, and this is the id of that one.
    pub is_new: bool,
}

impl Store {
    /// Enqueues plain jobs in one transaction, all or none. Returns what became of each, in order.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the number of the first job that is refused, from 1, and the reason.
    pub async fn enqueue_many(&self, jobs: &[PlainJob]) -> Result<Vec<Enqueued>, Error> {
        let jobs: Vec<Value> = jobs
            .iter()
            .map(|job| json!({"kind": job.kind, "args": job.args, "opts": job.options}))
            .collect();
        let rows = sqlx::query_as!(
            Enqueued,
            r#"SELECT id AS "id!", is_new AS "is_new!"
                 FROM tallylight.enqueue_many($1, false) ORDER BY n"#,
            Value::Array(jobs),
        )
        .fetch_all(&self.pool)
        .await
        .map_err(Error::from)
        .map_err(refusal)?;
        Ok(rows)
    }
}
