//! Relays: words from job to job, over slices. A transaction touches one slice, so a word is a job
//! of the kind `relay` in the slice where it is spoken, and its effect one transaction where it is
//! heard. Dying between the two repeats it, and a word that is heard again changes nothing.
//!
//! Which words there are, and what follows from the end of a job, stands in `waits`.

use domain::ids::{Subject, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use super::waits::Awaits;
use crate::consumer::Consumer;
use crate::{Error, Store};

/// What a relay carries: its job's arguments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Relay {
    /// To a job that waits.
    Tell {
        /// The slice of that job.
        to: i16,
        /// What it is told.
        word: Word,
    },
    /// To jobs that are not needed any more: those that were not started are cancelled.
    Cancel {
        /// Their slice.
        to: i16,
        /// The jobs.
        jobs: Vec<Uuid>,
    },
    /// To the slice of a subject: somebody waits for an event of it.
    Await(EventWait),
}

impl Relay {
    pub(crate) fn json(&self) -> Value {
        json!(self)
    }
}

/// What a job that waits is told: how a child of it ended, or where an event stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Word {
    /// The job.
    pub job: Uuid,
    /// Its step that waits.
    pub step: String,
    /// Of an event, its subject; words of earlier builds have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<Subject>,
    /// Of a child, its number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n: Option<i32>,
    /// Of a child, the place of this among the words about it: a later one has a greater rank.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank: Option<i32>,
    /// Of a child, how it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Of a child its value, of an event where it stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// Of a child, why it did not complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A step that waits for an event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventWait {
    /// The slice of the job.
    pub job_slice: i16,
    /// The job.
    pub job: Uuid,
    /// Its step.
    pub step: String,
    /// For what.
    pub awaits: Awaits,
    /// From then on nobody waits any more.
    pub until: Timestamp,
}

impl EventWait {
    /// The word that the event stands at a position.
    pub fn met(&self, slice: i16, position: i64) -> Word {
        Word {
            job: self.job,
            step: self.step.clone(),
            subject: Some(self.awaits.subject.clone()),
            n: None,
            rank: None,
            state: None,
            value: Some(json!({"slice": slice, "position": position})),
            error: None,
        }
    }
}

/// A relay to be: its id, its subject and its arguments.
pub(crate) type NewRelay = (Uuid, String, Value);

impl Store {
    /// Tells jobs of one slice what they wait for. Those that have all of it are due.
    pub async fn relay(&self, slice: i16, words: &[Word]) -> Result<(), Error> {
        sqlx::query!("SELECT tallylight.relay($1, $2)", slice, json!(words))
            .fetch_one(&self.pool)
            .await?;
        Ok(())
    }

    /// Notes that a step waits for an event. The reactions from now on tell it; whether the event
    /// stands in the log already, the caller is to look after this. Waits for a reaction of the
    /// subject's slice that is under way. Of two waits under one name, the one that ends later stays:
    /// a job that recurs may have left one of its last time.
    pub async fn await_event(&self, wait: &EventWait) -> Result<(), Error> {
        let EventWait { job_slice, job, step, awaits, until } = wait;
        let slice = self.slice_of(&awaits.subject);
        let mut tx = self.pool.begin().await?;
        // First: a reaction that clears the flag, or has passed the events, is over by then.
        sqlx::query!(
            "UPDATE tallylight.checkpoint SET has_waits = true WHERE consumer = $1 AND slice = $2",
            Consumer::React.name(),
            slice,
        )
        .execute(&mut *tx)
        .await?;
        sqlx::query!(
            "INSERT INTO tallylight.event_wait (slice, subject, job, step, job_slice, types, after, until)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
             ON CONFLICT (slice, subject, job, step) DO UPDATE
                SET job_slice = excluded.job_slice, types = excluded.types, after = excluded.after,
                    until = excluded.until
              WHERE tallylight.event_wait.until < excluded.until",
            slice,
            awaits.subject.as_str(),
            job,
            step,
            job_slice,
            &awaits.types,
            awaits.after,
            until,
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(())
    }

    /// Cancels jobs of a slice that were not started, by a mark. Returns how many.
    pub async fn cancel_unstarted(&self, slice: i16, jobs: &[Uuid]) -> Result<u64, Error> {
        let cancelled = sqlx::query!(
            "UPDATE tallylight.job j SET cancel_at = now(), run_epoch = 9223372036854775807
               FROM tallylight.checkpoint c
              WHERE c.consumer = 'jobs' AND c.slice = $1 AND j.slice = $1 AND j.id = ANY ($2)
                AND j.cancel_at IS NULL AND (j.run_epoch IS NULL OR j.run_epoch < c.epoch)",
            slice,
            jobs,
        )
        .execute(&self.pool)
        .await?;
        Ok(cancelled.rows_affected())
    }
}

/// Inserts relays into the slice where they are spoken, due at once.
pub(super) async fn insert(
    connection: &mut PgConnection,
    slice: i16,
    relays: Vec<NewRelay>,
) -> Result<(), Error> {
    if relays.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = relays.iter().map(|(id, _, _)| *id).collect();
    let subjects: Vec<String> = relays.iter().map(|(_, subject, _)| subject.clone()).collect();
    let args: Vec<Value> = relays.into_iter().map(|(_, _, args)| args).collect();
    sqlx::query!(
        "INSERT INTO tallylight.job (slice, id, subject, args, kind, queue, max_attempts)
         SELECT $1, u.*, 'relay', 'platform', 2147483647
           FROM unnest($2::uuid[], $3::text[], $4::jsonb[]) AS u ON CONFLICT DO NOTHING",
        slice,
        &ids,
        &subjects,
        &args,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// In a reaction to the events after `from` up to `to`: sends a relay to each job that waits for one
/// of them. Returns how many.
pub(crate) async fn wake_waiting(
    connection: &mut PgConnection,
    slice: i16,
    from: i64,
    since: Timestamp,
    to: i64,
) -> Result<u64, Error> {
    let woken = sqlx::query_scalar!(
        r#"SELECT tallylight.wake_waiting($1, $2, $3, $4) AS "woken!""#,
        slice,
        from,
        since,
        to,
    )
    .fetch_one(connection)
    .await?;
    Ok(woken.unsigned_abs())
}
