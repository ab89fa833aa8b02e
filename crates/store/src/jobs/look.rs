//! Looking at jobs: lists, one job wherever it is, and what keeps one from running.
//!
//! For people and their programs: nothing here is on the way of a job.

use domain::ids::{Subject, Timestamp};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::consumer::Consumer;
use crate::{Error, Store};

/// A job, live, dead or of the kept history.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JobView {
    /// Its id.
    pub id: Uuid,
    /// `available`, `scheduled`, `running`, `retryable`, `completed`, `discarded`, `cancelled` or
    /// `quarantined`.
    pub state: String,
    /// Which handler runs it.
    pub kind: String,
    /// Its slice.
    pub slice: i16,
    /// What it is about.
    pub subject: Subject,
    /// The handler's arguments.
    pub args: Value,
    /// 1 (first) to 4.
    pub priority: i16,
    /// When a live one is due.
    pub run_at: Option<Timestamp>,
    /// Starts so far.
    pub attempt: i32,
    /// Failures so far.
    pub errors: i32,
    /// Failures after which it is discarded.
    pub max_attempts: i32,
    /// Starts that ended with their process.
    pub crashes: i32,
    /// Its last error.
    pub last_error: Option<String>,
    /// When it was enqueued.
    pub enqueued_at: Timestamp,
    /// When its present run was started.
    pub started_at: Option<Timestamp>,
    /// When it was cancelled, if it is still live.
    pub cancel_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// The event that caused it.
    pub causation_id: Option<Uuid>,
    /// What started the whole chain.
    pub correlation_id: Option<Uuid>,
    /// `traceparent` of the trace that it is part of.
    pub trace: Option<String>,
    /// Tells which arguments are the same.
    pub args_digest: String,
    /// Of a quarantined one: the processes that ended while it ran, a JSON array.
    pub killed: Option<Value>,
}

/// Which live jobs: those that meet every condition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// In this state.
    pub state: Option<String>,
    /// Of this kind.
    pub kind: Option<String>,
    /// About this.
    pub subject: Option<String>,
}

/// What a live job may be waiting for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Standing {
    /// Who holds the jobs of its slice; none: nobody.
    pub holder: Option<Uuid>,
    /// Whether the holder's lease is still good.
    pub is_held: bool,
    /// Its key: what limits how many of such jobs run at once.
    pub key: String,
    /// A job of its key that runs, or has begun and keeps its order, where there are as many as may.
    pub key_busy_with: Option<Uuid>,
    /// What is paused of it: `queue NAME`, `kind NAME` or `key NAME`.
    pub paused: Vec<String>,
    /// Jobs of its slice that are due and come before it.
    pub before_it: i64,
}

impl Store {
    /// A page of live jobs, in the order in which they are due; `after`: those that come after this
    /// one. The order is that of time alone, whatever their priorities.
    pub async fn live_jobs(
        &self,
        filter: &JobFilter,
        after: Option<(Timestamp, Uuid)>,
        limit: i64,
    ) -> Result<Vec<JobView>, Error> {
        let (at, id) = after.unzip();
        let jobs = sqlx::query_as!(
            JobView,
            r#"SELECT id, tallylight.job_state(run_epoch, cancel_at, errors, run_at) AS "state!", kind, slice,
                      subject AS "subject: SubjectText", args, priority, run_at AS "run_at?", attempt, errors,
                      max_attempts, crashes, last_error, enqueued_at, started_at, cancel_at,
                      NULL::timestamptz AS ended_at, causation_id, correlation_id, trace,
                      tallylight.args_digest(args) AS "args_digest!", NULL::jsonb AS killed
                 FROM tallylight.job
                WHERE ($1::text IS NULL OR tallylight.job_state(run_epoch, cancel_at, errors, run_at) = $1)
                  AND ($2::text IS NULL OR kind = $2) AND ($3::text IS NULL OR subject = $3)
                  AND ($4::timestamptz IS NULL OR (run_at, id) > ($4, $5::uuid))
                ORDER BY run_at, id LIMIT $6"#,
            filter.state,
            filter.kind,
            filter.subject,
            at,
            id,
            limit,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(jobs)
    }

    /// A job wherever it is: live, dead, else its latest end in the kept history.
    pub async fn find_job(&self, id: Uuid) -> Result<Option<JobView>, Error> {
        let slices: Vec<i16> = self.slices.slices().collect();
        let job = sqlx::query_as!(
            JobView,
            r#"SELECT id AS "id!", state AS "state!", kind AS "kind!", slice AS "slice!",
                      subject AS "subject!: SubjectText", args AS "args!", priority AS "priority!", run_at,
                      attempt AS "attempt!", errors AS "errors!", max_attempts AS "max_attempts!",
                      crashes AS "crashes!", last_error, enqueued_at AS "enqueued_at!", started_at, cancel_at,
                      ended_at, causation_id, correlation_id, trace,
                      tallylight.args_digest(args) AS "args_digest!", killed
                 FROM (
               SELECT 1 AS place, id, tallylight.job_state(run_epoch, cancel_at, errors, run_at) AS state, kind,
                      slice, subject, args, priority, run_at, attempt, errors, max_attempts, crashes, last_error,
                      enqueued_at, started_at, cancel_at, NULL::timestamptz AS ended_at, causation_id,
                      correlation_id, trace, NULL::jsonb AS killed
                 FROM tallylight.job WHERE slice = ANY ($2) AND id = $1
                UNION ALL
               SELECT 2, id, state, kind, slice, subject, args, priority, NULL, attempt, errors, max_attempts,
                      crashes, last_error, enqueued_at, NULL, NULL, died_at, causation_id, correlation_id, trace, killed
                 FROM tallylight.job_dead WHERE slice = ANY ($2) AND id = $1
                UNION ALL
               SELECT 3, id, state, kind, slice, subject, args, priority, NULL, attempt, errors, max_attempts,
                      crashes, last_error, enqueued_at, NULL, NULL, ended_at, causation_id, correlation_id, trace, NULL
                 FROM tallylight.job_history WHERE slice = ANY ($2) AND id = $1) AS found
                ORDER BY place, ended_at DESC LIMIT 1"#,
            id,
            &slices,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(job)
    }

    /// What a live job may be waiting for, besides its time; `None`: it is not live any more.
    pub async fn standing(&self, job: &JobView) -> Result<Option<Standing>, Error> {
        let row = sqlx::query!(
            r#"SELECT c.owner, (c.owner IS NOT NULL AND c.lease_until > now()) AS "is_held!",
                      coalesce(j.limit_key, j.subject) AS "key!",
                      (SELECT max(b.id::text)::uuid FROM tallylight.job b
                        WHERE b.slice = $2 AND coalesce(b.limit_key, b.subject) = coalesce(j.limit_key, j.subject)
                          AND b.id <> $3
                          AND (b.run_epoch = c.epoch OR j.ordered AND j.holds IS NULL AND b.holds)
                       HAVING count(*) >= coalesce(j.max_running, 1)) AS busy,
                      (SELECT coalesce(array_agg(p.scope || ' ' || p.name ORDER BY p.scope), '{}')
                         FROM tallylight.job_pause p
                        WHERE (p.scope, p.name) IN (('queue', j.queue), ('kind', j.kind),
                                                    ('key', coalesce(j.limit_key, j.subject)))) AS "paused!",
                      (SELECT count(*) FROM tallylight.job b
                        WHERE b.slice = $2 AND b.run_epoch IS NULL AND b.run_at <= now()
                          AND (b.priority, b.run_at, b.id) < (j.priority, j.run_at, j.id)) AS "before!"
                 FROM tallylight.checkpoint c
                 JOIN tallylight.job j ON j.slice = $2 AND j.id = $3
                WHERE c.consumer = $1 AND c.slice = $2"#,
            Consumer::Jobs.name(),
            job.slice,
            job.id,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(|row| Standing {
            holder: row.owner,
            is_held: row.is_held,
            key: row.key,
            key_busy_with: row.busy,
            paused: row.paused,
            before_it: row.before,
        }))
    }
}

/// A subject as it stands in a column.
#[derive(Debug, sqlx::Type)]
#[sqlx(transparent)]
struct SubjectText(String);

impl From<SubjectText> for Subject {
    fn from(text: SubjectText) -> Self {
        Self::from_stored(text.0)
    }
}
