//! Cancelling: a mark on the job, and what the holder of its slice finds marked.
//!
//! From the mark's commit on a job that waits is never started. The holder ends it, with its event:
//! docs/adr/0017-cancelling-is-a-mark.md.

use sqlx::PgConnection;
use uuid::Uuid;

use super::{DueJob, DueRow, refusal};
use crate::consumer::Consumer;
use crate::{Error, Store};

/// What cancelling came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cancelled {
    /// The job's slice, whose holder is to be woken.
    pub slice: i16,
    /// `cancelled`; `running` until its holder has stopped it.
    pub state: String,
}

/// A job that somebody cancelled.
#[derive(Debug, Clone, PartialEq)]
pub struct Cancellation {
    /// The job.
    pub job: DueJob,
    /// Whether it runs under the present lease of its slice.
    pub is_running: bool,
}

impl Store {
    /// Cancels a live job; again changes nothing. `None`: it is not live. `force`: also one that a
    /// session waits for.
    ///
    /// # Errors
    /// [`Error::Invalid`] where a session waits for it and `force` is not given.
    pub async fn cancel_job(&self, id: Uuid, force: bool) -> Result<Option<Cancelled>, Error> {
        let row = sqlx::query!(
            r#"SELECT slice AS "slice!", state AS "state!" FROM tallylight.cancel_job($1, $2)"#,
            id,
            force,
        )
        .fetch_optional(&self.pool)
        .await
        .map_err(Error::from)
        .map_err(refusal)?;
        Ok(row.map(|r| Cancelled { slice: r.slice, state: r.state }))
    }

    /// The cancelled jobs of all slices that `process` holds, which it is to end.
    pub async fn cancellations(&self, process: Uuid) -> Result<Vec<Cancellation>, Error> {
        let rows = sqlx::query!(
            r#"SELECT j.slice, j.id, j.kind, j.subject, j.args, j.run_at, j.attempt, j.errors,
                      j.max_attempts, j.causation_id, j.correlation_id, j.priority, j.queue, j.lane,
                      j.limit_key, j.max_running, j.ordered, j.fair_key, j.waits,
                      j.crashes + (j.run_epoch IS NOT NULL)::int AS "crashes!",
                      j.enqueued_at, now() AS "read_at!",
                      (j.run_epoch IS NOT DISTINCT FROM c.epoch) AS "is_running!"
                 FROM tallylight.checkpoint c
                 JOIN tallylight.job j ON j.slice = c.slice AND j.cancel_at IS NOT NULL
                WHERE c.consumer = $1 AND c.owner = $2
                ORDER BY j.slice, j.id"#,
            Consumer::Jobs.name(),
            process,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|r| Cancellation {
                job: DueJob::from(DueRow {
                    slice: r.slice,
                    id: r.id,
                    kind: r.kind,
                    subject: r.subject,
                    args: r.args,
                    run_at: r.run_at,
                    attempt: r.attempt,
                    errors: r.errors,
                    max_attempts: r.max_attempts,
                    causation_id: r.causation_id,
                    correlation_id: r.correlation_id,
                    priority: r.priority,
                    queue: r.queue,
                    lane: r.lane,
                    limit_key: r.limit_key,
                    max_running: r.max_running,
                    ordered: r.ordered,
                    fair_key: r.fair_key,
                    crashes: r.crashes,
                    enqueued_at: r.enqueued_at,
                    read_at: r.read_at,
                    waits: r.waits,
                }),
                is_running: r.is_running,
            })
            .collect())
    }
}

/// Marks jobs of one slice as cancelled, as the function `cancel_job` does one; those that are not
/// live are left out. Before the append: rows of jobs are locked before the head of a slice.
pub(crate) async fn mark_cancelled(
    connection: &mut PgConnection,
    slice: i16,
    ids: &[Uuid],
) -> Result<(), Error> {
    if ids.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "UPDATE tallylight.job j
            SET cancel_at = coalesce(j.cancel_at, now()),
                run_epoch = CASE WHEN j.run_epoch >= c.epoch THEN j.run_epoch
                                 ELSE 9223372036854775807 END
           FROM tallylight.checkpoint c
          WHERE c.consumer = $1 AND c.slice = $2 AND j.slice = $2 AND j.id = ANY ($3)",
        Consumer::Jobs.name(),
        slice,
        ids,
    )
    .execute(connection)
    .await?;
    Ok(())
}
