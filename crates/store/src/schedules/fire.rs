//! Firing: which schedules of the held slices are due, and one fire with its jobs.

use std::time::Duration;

use domain::ids::{Subject, Timestamp};
use domain::schedule::Missed;
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{FIRED_BY, missed};
use crate::consumer::fence;
use crate::{Error, Store};

/// A schedule whose next fire is due.
#[derive(Debug, Clone, PartialEq)]
pub struct DueSchedule {
    /// Its slice.
    pub slice: i16,
    /// Its name.
    pub name: String,
    /// Which of its versions this is.
    pub version: i64,
    /// Its cron expression.
    pub cron: String,
    /// The IANA time zone that it is read in.
    pub time_zone: String,
    /// What becomes of missed fires.
    pub missed: Missed,
    /// The fire that is due.
    pub due: Timestamp,
    /// The database's present.
    pub now: Timestamp,
}

/// What a due schedule does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fire {
    /// Its name.
    pub name: String,
    /// The version that this follows from.
    pub version: i64,
    /// The fire that was due.
    pub due: Timestamp,
    /// The moments that it fires for, each with a job of its own.
    pub fires: Vec<Timestamp>,
    /// Its next fire; `None`: no more.
    pub next: Option<Timestamp>,
    /// Why it does not fire, where it should.
    pub error: Option<String>,
}

impl Store {
    /// The schedules of all slices that `process` holds whose next fire is due: up to `limit`, the
    /// longest due first. A read without locks.
    pub async fn due_schedules(
        &self,
        process: Uuid,
        limit: i64,
    ) -> Result<Vec<DueSchedule>, Error> {
        let rows = sqlx::query!(
            r#"SELECT s.slice, s.name, s.version, s.cron, s.time_zone, s.missed, s.catch_up,
                      s.next_fire_at AS "due!", now() AS "now!"
                 FROM tallylight.checkpoint c
                 JOIN tallylight.schedule s ON s.slice = c.slice
                WHERE c.consumer = $1 AND c.owner = $2
                  AND NOT s.paused AND s.next_fire_at <= now()
                ORDER BY s.next_fire_at, s.name LIMIT $3"#,
            FIRED_BY.name(),
            process,
            limit,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|r| DueSchedule {
                slice: r.slice,
                name: r.name,
                version: r.version,
                cron: r.cron,
                time_zone: r.time_zone,
                missed: missed(&r.missed, r.catch_up),
                due: r.due,
                now: r.now,
            })
            .collect())
    }

    /// How long until the next fire of the slices that `process` holds: zero where one is due;
    /// `None`: there is none.
    pub async fn next_fire_in(&self, process: Uuid) -> Result<Option<Duration>, Error> {
        let next = sqlx::query_scalar!(
            r#"SELECT (extract(epoch FROM min(s.next_fire_at) - now()) * 1000000)::bigint
                 FROM tallylight.checkpoint c
                 JOIN tallylight.schedule s ON s.slice = c.slice
                WHERE c.consumer = $1 AND c.owner = $2 AND NOT s.paused"#,
            FIRED_BY.name(),
            process,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(next.map(|micros| Duration::from_micros(u64::try_from(micros).unwrap_or_default())))
    }

    /// Fires a schedule: its next fire moves on, and each moment enqueues its job, in one
    /// transaction. Returns the new jobs; `None`: somebody changed or fired it since it was read,
    /// and nothing happened. A moment that was fired for before enqueues nothing.
    ///
    /// # Errors
    /// [`Error::Fenced`] where the lease has passed on, [`Error::Data`] where a job is refused:
    /// nothing happened.
    pub async fn fire_schedule(
        &self,
        slice: i16,
        epoch: i64,
        fire: &Fire,
    ) -> Result<Option<Vec<Uuid>>, Error> {
        let mut tx = self.pool.begin().await?;
        fence(&mut tx, FIRED_BY, slice, epoch).await?;
        let row = sqlx::query!(
            "UPDATE tallylight.schedule
                SET next_fire_at = $5, last_error = $7, last_fire_at = coalesce($6, last_fire_at)
              WHERE slice = $1 AND name = $2 AND version = $3 AND next_fire_at = $4 AND NOT paused
          RETURNING kind, args, opts",
            slice,
            fire.name,
            fire.version,
            fire.due,
            fire.next,
            fire.fires.last(),
            fire.error,
        )
        .fetch_optional(&mut *tx)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let mut jobs = Vec::with_capacity(fire.fires.len());
        for at in &fire.fires {
            if claim_fire(&mut tx, slice, &fire.name, *at).await? {
                let job = enqueue(&mut tx, &fire.name, &row.kind, &row.args, row.opts.clone());
                let job = job.await?;
                note_job(&mut tx, slice, &fire.name, *at, job).await?;
                jobs.push(job);
            }
        }
        tx.commit().await?;
        Ok(Some(jobs))
    }

    /// Tells workers that schedules have changed, so that they look when the next one is due. They
    /// would find out by themselves in a while, so a failure is no error.
    pub(super) async fn schedules_changed(&self) {
        if let Err(error) = self.tell_schedules().await {
            tracing::debug!(%error, "workers were not told of a schedule; they find it by polling");
        }
    }
}

/// Takes a moment of a schedule. Returns whether nobody had.
async fn claim_fire(
    connection: &mut PgConnection,
    slice: i16,
    name: &str,
    at: Timestamp,
) -> Result<bool, Error> {
    let taken = sqlx::query!(
        "INSERT INTO tallylight.schedule_fire (slice, name, fire_at) VALUES ($1, $2, $3)
         ON CONFLICT DO NOTHING",
        slice,
        name,
        at,
    )
    .execute(connection)
    .await?;
    Ok(taken.rows_affected() == 1)
}

async fn note_job(
    connection: &mut PgConnection,
    slice: i16,
    name: &str,
    at: Timestamp,
    job: Uuid,
) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE tallylight.schedule_fire SET job = $4
          WHERE slice = $1 AND name = $2 AND fire_at = $3",
        slice,
        name,
        at,
        job,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Enqueues a job of a schedule. One that names no subject has the schedule's own, so that it lies
/// in its slice, and its jobs run one at a time.
pub(super) async fn enqueue(
    connection: &mut PgConnection,
    name: &str,
    kind: &str,
    args: &Value,
    options: Value,
) -> Result<Uuid, Error> {
    let options = with_subject(name, options);
    let id = sqlx::query_scalar!(
        r#"SELECT tallylight.enqueue($1, $2, $3) AS "id!""#,
        kind,
        args,
        options
    )
    .fetch_one(connection)
    .await?;
    Ok(id)
}

/// The options of a schedule's job.
pub(crate) fn with_subject(name: &str, mut options: Value) -> Value {
    if let Some(options) = options.as_object_mut() {
        options.entry("subject").or_insert_with(|| json!(Subject::schedule(name).as_str()));
    }
    options
}
