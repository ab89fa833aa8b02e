//! Deliveries to an endpoint: what waits, what was given up, and what is kept of what has ended, so
//! that an operator finds what was not delivered.
//!
//! A delivery is a job. One that was accepted leaves nothing behind, unless the history of jobs is
//! kept whole (`jobs.history = "all"`).

use domain::ids::Timestamp;
use domain::message::{self, MessageId};
use serde::Serialize;
use uuid::Uuid;

use crate::{Error, Store};

/// A message to an endpoint.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Delivery {
    /// The job that sends it.
    pub job: Uuid,
    /// The message's id; `None`: of a test, or its event is sealed or gone.
    pub message: Option<String>,
    /// The message's topic.
    #[serde(rename = "type")]
    pub topic: Option<String>,
    /// `available`, `scheduled`, `running`, `retryable`; `discarded`, `cancelled`, `quarantined`; or
    /// `completed`.
    pub state: String,
    /// Tries so far.
    pub attempts: i32,
    /// The HTTP status of the last failure, where there was an answer.
    pub last_status: Option<u16>,
    /// The last failure.
    pub last_error: Option<String>,
    /// When it was enqueued.
    pub enqueued_at: Timestamp,
    /// When it is tried next, while it waits.
    pub next_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

impl Store {
    /// The latest deliveries to an endpoint, those that were enqueued last first; `undelivered`: only
    /// what waits after a failure or was given up.
    pub async fn deliveries(
        &self,
        endpoint: Uuid,
        undelivered: bool,
        limit: i64,
    ) -> Result<Vec<Delivery>, Error> {
        let rows = sqlx::query!(
            r#"SELECT d.id AS "id!", d.state AS "state!", d.attempt AS "attempt!", d.last_error,
                      d.enqueued_at AS "enqueued_at!", d.run_at, d.ended_at,
                      e.slice AS "slice?", e.position AS "position?", e.event_id AS "event_id?",
                      e.event_type AS "event_type?", d.args -> 'message' ? 'test' AS is_test
                 FROM (
               SELECT id, tallylight.job_state(run_epoch, cancel_at, errors, run_at) AS state, args, attempt,
                      last_error, enqueued_at, run_at, NULL::timestamptz AS ended_at
                 FROM tallylight.job
                WHERE kind = 'deliver_webhook' AND args ->> 'endpoint' = $1
                UNION ALL
               SELECT id, state, args, attempt, last_error, enqueued_at, NULL, died_at
                 FROM tallylight.job_dead
                WHERE kind = 'deliver_webhook' AND args ->> 'endpoint' = $1
                UNION ALL
               SELECT id, state, args, attempt, last_error, enqueued_at, NULL, ended_at
                 FROM tallylight.job_history
                WHERE kind = 'deliver_webhook' AND args ->> 'endpoint' = $1
                  AND state IN ('completed', 'cancelled')) AS d
                 LEFT JOIN tallylight.event e
                   ON e.slice = (d.args -> 'message' -> 'at' ->> 0)::smallint
                  AND e.position = (d.args -> 'message' -> 'at' ->> 1)::bigint
                WHERE NOT $2 OR d.state IN ('retryable', 'discarded', 'cancelled', 'quarantined')
                ORDER BY d.enqueued_at DESC, d.id DESC LIMIT $3"#,
            endpoint.to_string(),
            undelivered,
            limit,
        )
        .fetch_all(&self.pool)
        .await?;
        let deliveries = rows.into_iter().map(|r| {
            let at = r.slice.zip(r.position).zip(r.event_id);
            let topic = r.event_type.as_deref().and_then(domain::announcement::topic);
            let topic = topic.or((r.is_test == Some(true)).then_some(message::TEST));
            Delivery {
                job: r.id,
                message: at.map(|((slice, at), id)| MessageId::at(slice, at, id).to_string()),
                topic: topic.map(str::to_owned),
                state: r.state,
                attempts: r.attempt,
                last_status: r.last_error.as_deref().and_then(status),
                last_error: r.last_error,
                enqueued_at: r.enqueued_at,
                next_at: r.run_at,
                ended_at: r.ended_at,
            }
        });
        Ok(deliveries.collect())
    }
}

/// The HTTP status that a failure tells of: the first number of three digits from 100 to 599 that
/// stands by itself. A failure without an answer tells none.
fn status(error: &str) -> Option<u16> {
    let words = error.split(|c: char| !c.is_ascii_alphanumeric());
    let mut numbers = words.filter(|word| word.len() == 3).filter_map(|word| word.parse().ok());
    numbers.find(|status| (100..600).contains(status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_tells_its_status_if_it_has_one() {
        assert_eq!(status("send the request: it answered 503 Service Unavailable"), Some(503));
        assert_eq!(status("status 410: gone"), Some(410));
        assert_eq!(status("connect to 10.0.0.1:8443: refused after 12000 ms"), None);
    }
}
