//! How runs of jobs end: in groups, one statement per kind of ending, and their outcomes appended
//! in the same transaction, in the trace that the job is part of.
//!
//! A run is told by (job, attempt). Where that is not what the table says, somebody else has ended
//! it, and its outcome is dropped. A run that was not marked is the start after those that were.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use domain::event::{Meta, NewEvent};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::elsewhere;
use super::ends::{self, Waiting};
use super::history::{self, JobHistory};
use crate::consumer::{Consumer, fence_all, micros};
use crate::together::append_within;
use crate::{Error, Store};

/// How a run of a job ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Finish {
    /// The job.
    pub id: Uuid,
    /// The start that ended.
    pub attempt: i32,
    /// How.
    pub ending: Ending,
    /// Events to append with it; those of another slice are forwarded to it.
    pub events: Vec<NewEvent>,
}

/// Ended runs of jobs of one slice.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Finishes<'a> {
    /// The slice.
    pub slice: i16,
    /// The epoch of its lease.
    pub epoch: i64,
    /// The runs.
    pub runs: &'a [Finish],
}

/// What the ends of runs of several slices came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Finished {
    /// The jobs that were ended; a missing one was ended by somebody else.
    pub ended: HashSet<Uuid>,
    /// The leases that have passed on, by slice and epoch: nothing under them happened.
    pub fenced: Vec<(i16, i64)>,
}

/// What becomes of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// Done.
    Completed,
    /// Failed: again after a delay.
    Retry {
        /// Why.
        error: String,
        /// From now, by the database's clock.
        after: Duration,
    },
    /// Not now: again after a delay, without counting a failure.
    Snooze {
        /// From now, by the database's clock.
        after: Duration,
    },
    /// Done, and again after a delay, with fresh budgets: what failed before is over.
    Again {
        /// From now, by the database's clock.
        after: Duration,
    },
    /// Given up.
    Discarded {
        /// Why.
        error: String,
    },
    /// Given up, because its process died with it again and again.
    Quarantined {
        /// Why.
        error: String,
    },
    /// Somebody wanted it no more, or the handler found that nobody does.
    Cancelled {
        /// Why.
        reason: String,
    },
    /// Waits for a step of its own: again when that is closed or its time has come, without
    /// counting anything.
    Wait {
        /// The step.
        step: String,
    },
    /// Interrupted by a clean stop: at once again, without counting anything.
    Released,
}

/// A run: a job and the number of its start.
pub(super) type Run = (Uuid, i32);

/// Runs that were ended, each with the trace that its job is part of, and its column `waits` where
/// the job has left the living.
pub(super) type EndedRuns = HashMap<Run, (Option<String>, Option<Value>)>;

impl Store {
    /// Ends runs of jobs of one slice and appends their outcomes, in one transaction. Returns the
    /// ids that were ended; a missing one was ended by somebody else, and its events are dropped.
    ///
    /// # Errors
    /// [`Error::Fenced`] where the lease has passed on, [`Error::Data`] where the database refuses
    /// a value: nothing happened.
    pub async fn finish(
        &self,
        slice: i16,
        epoch: i64,
        finishes: &[Finish],
    ) -> Result<HashSet<Uuid>, Error> {
        let done = self.end(&[Finishes { slice, epoch, runs: finishes }]).await?;
        if done.fenced.is_empty() { Ok(done.ended) } else { Err(Error::Fenced { slice }) }
    }

    /// As [`finish`](Self::finish), for runs of several slices in one transaction. Give the slices
    /// in ascending order.
    ///
    /// # Errors
    /// [`Error::Data`] where the database refuses a value: nothing happened. [`Error::OneByOne`]
    /// where it takes one slice at a time.
    pub async fn finish_all(&self, all: &[Finishes<'_>]) -> Result<Finished, Error> {
        self.together(all.len(), self.end(all)).await
    }

    async fn end(&self, all: &[Finishes<'_>]) -> Result<Finished, Error> {
        for Finishes { slice, runs, .. } in all {
            let is_own = |event: &NewEvent| self.slice_of(&event.subject) == *slice;
            for event in runs.iter().flat_map(|f| &f.events).filter(|event| !is_own(event)) {
                elsewhere::forward(event)?;
            }
        }
        let leases: Vec<(i16, i64)> = all.iter().map(|of| (of.slice, of.epoch)).collect();
        let mut tx = self.begin_by_key().await?;
        let fenced = fence_all(&mut tx, Consumer::Jobs, &leases).await?;
        let kept = self.job_history;
        let held: Vec<(&Finishes<'_>, Sorted)> = all
            .iter()
            .filter(|of| !fenced.contains(&(of.slice, of.epoch)))
            .map(|of| (of, Sorted::of(of.runs)))
            .collect();
        for (of, sorted) in &held {
            // While the rows still say when and under which epoch they were started.
            history::note_runs(&mut tx, of.slice, of.epoch, &sorted.noted(kept)).await?;
        }
        let mut ended = EndedRuns::new();
        complete(&mut tx, &held, kept, &mut ended).await?;
        for (Finishes { slice, epoch, runs }, sorted) in &held {
            reschedule(&mut tx, (*slice, *epoch), &sorted.again, &mut ended).await?;
            bury(&mut tx, *slice, &sorted.dead, kept, &mut ended).await?;
            cancel(&mut tx, *slice, &sorted.cancelled, kept, &mut ended).await?;
            ends::wait(&mut tx, *slice, &sorted.waiting, &mut ended).await?;
            ends::ended(&mut tx, *slice, runs, &ended).await?;
        }
        let ids = ended.keys().map(|(id, _)| *id).collect();
        let mut told = Vec::with_capacity(held.len());
        for (of, _) in &held {
            told.push((of.slice, self.tell(&mut tx, of, &mut ended).await?));
        }
        if told.iter().any(|(_, events)| !events.is_empty()) {
            let told: Vec<(i16, Vec<&NewEvent>)> =
                told.iter().map(|(slice, events)| (*slice, events.iter().collect())).collect();
            append_within(&mut tx, &told).await?;
        }
        tx.commit().await?;
        Ok(Finished { ended: ids, fenced })
    }

    /// The outcomes of a slice's runs, to be appended; those of another slice are forwarded to it.
    async fn tell(
        &self,
        connection: &mut PgConnection,
        of: &Finishes<'_>,
        ended: &mut EndedRuns,
    ) -> Result<Vec<NewEvent>, Error> {
        let is_own = |event: &NewEvent| self.slice_of(&event.subject) == of.slice;
        // Taken out, so that a run that is told twice appends once.
        let told = of.runs.iter().filter(|f| !f.events.is_empty());
        let told = told.filter_map(|f| Some((f, ended.remove(&(f.id, f.attempt))?.0)));
        let (events, others): (Vec<NewEvent>, Vec<NewEvent>) =
            told.flat_map(|(f, trace)| traced(f, trace)).partition(is_own);
        let forwards = others.iter().map(elsewhere::forward).collect::<Result<Vec<_>, _>>()?;
        elsewhere::insert(connection, of.slice, forwards).await?;
        Ok(events)
    }
}

/// The events of a run, in its trace.
fn traced(finish: &Finish, trace: Option<String>) -> Vec<NewEvent> {
    let meta = trace.and_then(|trace| Meta::of_trace(&trace));
    let in_trace = |event: &NewEvent| NewEvent {
        meta: event.meta.clone().or_else(|| meta.clone()),
        ..event.clone()
    };
    finish.events.iter().map(in_trace).collect()
}

/// A run that goes on later.
struct Again {
    run: Run,
    after: Duration,
    /// Counts a failure.
    error: Option<String>,
    /// Forgets earlier failures and crashes.
    is_fresh: bool,
}

/// A run whose job is given up.
struct Dead {
    run: Run,
    state: &'static str,
    error: String,
}

/// A run whose job was cancelled.
struct Cancelled {
    run: Run,
    reason: String,
}

/// Runs by what becomes of their jobs.
#[derive(Default)]
struct Sorted {
    completed: Vec<Run>,
    again: Vec<Again>,
    dead: Vec<Dead>,
    cancelled: Vec<Cancelled>,
    waiting: Vec<Waiting>,
}

impl Sorted {
    /// The runs that are kept, each with its outcome and error.
    fn noted(&self, kept: JobHistory) -> Vec<history::Noted<'_>> {
        let mut noted = Vec::new();
        if kept.keeps_failures() {
            let failed = self.again.iter().filter_map(|a| Some((a.run, a.error.as_deref()?)));
            noted.extend(failed.map(|(run, error)| (run, "failed", Some(error))));
            // The runs that a quarantine follows from are noted when they are found.
            let dead = self.dead.iter().filter(|dead| dead.state != "quarantined");
            noted.extend(dead.map(|dead| (dead.run, dead.state, Some(dead.error.as_str()))));
            let cancelled = self.cancelled.iter();
            noted.extend(cancelled.map(|c| (c.run, "cancelled", Some(c.reason.as_str()))));
        }
        if kept == JobHistory::All {
            noted.extend(self.completed.iter().map(|run| (*run, "completed", None)));
        }
        noted
    }

    fn of(finishes: &[Finish]) -> Self {
        let mut sorted = Self::default();
        let mut seen = HashSet::new();
        for finish in finishes {
            let run = (finish.id, finish.attempt);
            if seen.insert(run) {
                sorted.add(run, &finish.ending);
            }
        }
        sorted
    }

    fn add(&mut self, run: Run, ending: &Ending) {
        let again = |after, error| Again { run, after, error, is_fresh: false };
        let dead = |state, error: &String| Dead { run, state, error: storable(error) };
        match ending {
            Ending::Completed => self.completed.push(run),
            Ending::Retry { error, after } => self.again.push(again(*after, Some(storable(error)))),
            Ending::Snooze { after } => self.again.push(again(*after, None)),
            Ending::Again { after } => {
                self.again.push(Again { run, after: *after, error: None, is_fresh: true });
            }
            Ending::Wait { step } => self.waiting.push((run, step.clone())),
            Ending::Released => self.again.push(again(Duration::ZERO, None)),
            Ending::Discarded { error } => self.dead.push(dead("discarded", error)),
            Ending::Quarantined { error } => self.dead.push(dead("quarantined", error)),
            Ending::Cancelled { reason } => {
                self.cancelled.push(Cancelled { run, reason: storable(reason) });
            }
        }
    }
}

/// A text as PostgreSQL takes it.
fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// Deletes the completed jobs of all slices; keeps them as history where all are kept.
async fn complete(
    connection: &mut PgConnection,
    held: &[(&Finishes<'_>, Sorted)],
    kept: JobHistory,
    ended: &mut EndedRuns,
) -> Result<(), Error> {
    let runs = held.iter().flat_map(|(of, s)| s.completed.iter().map(|run| (of.slice, *run)));
    let (of, runs): (Vec<i16>, Vec<Run>) = runs.unzip();
    if runs.is_empty() {
        return Ok(());
    }
    let slices: Vec<i16> = held.iter().map(|(of, _)| of.slice).collect();
    let (ids, attempts): (Vec<Uuid>, Vec<i32>) = runs.into_iter().unzip();
    if kept == JobHistory::All {
        let deleted = sqlx::query!(
            r#"WITH done AS (
               DELETE FROM tallylight.job j
                USING unnest($2::smallint[], $3::uuid[], $4::int[]) AS run (slice, id, attempt)
                WHERE j.slice = ANY ($1) AND j.slice = run.slice AND j.id = run.id
                  AND tallylight.is_run(run.attempt, j.attempt, j.run_epoch)
            RETURNING j.*, run.attempt AS run),
             kept AS (
               INSERT INTO tallylight.job_history
               SELECT (jsonb_populate_record(NULL::tallylight.job_history, to_jsonb(done)
                       || jsonb_build_object('attempt', run, 'state', 'completed', 'ended_at', now()))).* FROM done)
             SELECT id, run AS "attempt!", trace, waits FROM done"#,
            &slices,
            &of,
            &ids,
            &attempts,
        )
        .fetch_all(connection)
        .await?;
        ended.extend(deleted.into_iter().map(|r| ((r.id, r.attempt), (r.trace, r.waits))));
        return Ok(());
    }
    let deleted = sqlx::query!(
        r#"DELETE FROM tallylight.job j
          USING unnest($2::smallint[], $3::uuid[], $4::int[]) AS run (slice, id, attempt)
          WHERE j.slice = ANY ($1) AND j.slice = run.slice AND j.id = run.id
            AND tallylight.is_run(run.attempt, j.attempt, j.run_epoch)
      RETURNING j.id, run.attempt AS "attempt!", j.trace, j.waits"#,
        &slices,
        &of,
        &ids,
        &attempts,
    )
    .fetch_all(connection)
    .await?;
    ended.extend(deleted.into_iter().map(|r| ((r.id, r.attempt), (r.trace, r.waits))));
    Ok(())
}

/// Makes jobs due again after their delays; none leaves `run_at` as it was, and counts the start
/// whether it was marked or not: a mark that is still on its way finds that it came too late. A failure that was
/// stored before, with the answer lost, counts once: its run does not run any more. A job that was
/// cancelled meanwhile is not started again: it waits for its end. One that is put off unstarted, as
/// it has no handler here, may have died with a former holder: that crash is counted now.
async fn reschedule(
    connection: &mut PgConnection,
    (slice, epoch): (i16, i64),
    again: &[Again],
    ended: &mut EndedRuns,
) -> Result<(), Error> {
    if again.is_empty() {
        return Ok(());
    }
    let (ids, attempts): (Vec<Uuid>, Vec<i32>) = again.iter().map(|a| a.run).unzip();
    let delays: Vec<i64> = again.iter().map(|a| micros(a.after)).collect();
    let errors: Vec<Option<&str>> = again.iter().map(|a| a.error.as_deref()).collect();
    let fresh: Vec<bool> = again.iter().map(|a| a.is_fresh).collect();
    let updated = sqlx::query!(
        "UPDATE tallylight.job j
            SET attempt = CASE WHEN run.error IS NULL AND run.delay > 0 THEN j.attempt ELSE run.attempt END,
                run_at = CASE WHEN run.delay = 0 THEN j.run_at
                              ELSE now() + run.delay * interval '1 microsecond' END,
                lane = CASE WHEN run.delay = 0 THEN j.lane WHEN j.fair_key IS NULL THEN 0 ELSE 3 END,
                run_epoch = CASE WHEN j.cancel_at IS NOT NULL THEN 9223372036854775807 END,
                started_at = NULL,
                errors = CASE WHEN run.is_fresh THEN 0
                              ELSE j.errors + (run.error IS NOT NULL)::int END,
                crashes = CASE WHEN run.is_fresh THEN 0
                               ELSE j.crashes + (coalesce(j.run_epoch, $7) < $7)::int END,
                last_error = CASE WHEN run.is_fresh THEN NULL
                                  ELSE coalesce(run.error, j.last_error) END,
                holds = CASE WHEN NOT run.is_fresh THEN j.holds END
           FROM unnest($2::uuid[], $3::int[], $4::bigint[], $5::text[], $6::bool[])
                AS run (id, attempt, delay, error, is_fresh)
          WHERE j.slice = $1 AND j.id = run.id
            AND tallylight.is_run(run.attempt, j.attempt, j.run_epoch)
            AND (run.error IS NULL OR j.attempt < run.attempt OR j.run_epoch < 9223372036854775807)
      RETURNING j.id, run.attempt AS \"attempt!\", j.trace",
        slice,
        &ids,
        &attempts,
        &delays,
        &errors as &[Option<&str>],
        &fresh,
        epoch,
    )
    .fetch_all(connection)
    .await?;
    ended.extend(updated.into_iter().map(|r| ((r.id, r.attempt), (r.trace, None))));
    Ok(())
}

/// Moves jobs to the dead letters, and keeps them as history beside, since a dead letter may come
/// back to life. Columns that both tables have go along by name.
async fn bury(
    connection: &mut PgConnection,
    slice: i16,
    dead: &[Dead],
    kept: JobHistory,
    ended: &mut EndedRuns,
) -> Result<(), Error> {
    if dead.is_empty() {
        return Ok(());
    }
    let (ids, attempts): (Vec<Uuid>, Vec<i32>) = dead.iter().map(|d| d.run).unzip();
    let states: Vec<&str> = dead.iter().map(|d| d.state).collect();
    let errors: Vec<&str> = dead.iter().map(|d| d.error.as_str()).collect();
    let buried = sqlx::query!(
        "WITH gone AS (
           DELETE FROM tallylight.job j
            USING unnest($2::uuid[], $3::int[], $4::text[], $5::text[])
                  AS run (id, attempt, state, error)
            WHERE j.slice = $1 AND j.id = run.id
              AND tallylight.is_run(run.attempt, j.attempt, j.run_epoch)
        RETURNING j.*, run.attempt AS run, run.state, run.error),
         dead AS (
           SELECT to_jsonb(gone) || jsonb_build_object(
                    'attempt', run, 'state', state, 'last_error', error, 'errors', errors + 1, 'died_at', now(), 'ended_at', now(),
                    'killed', CASE WHEN state = 'quarantined' THEN (
                      SELECT jsonb_agg(jsonb_build_object('attempt', a.attempt, 'process', a.process, 'host', a.host,
                                       'version', a.version, 'started_at', a.started_at,
                                       'args_digest', a.args_digest) ORDER BY a.attempt)
                        FROM tallylight.job_attempt a
                       WHERE a.slice = $1 AND a.job = gone.id AND a.outcome = 'crashed') END) AS job
             FROM gone),
         kept AS (
           INSERT INTO tallylight.job_history
           SELECT (jsonb_populate_record(NULL::tallylight.job_history, job)).* FROM dead WHERE $6)
         INSERT INTO tallylight.job_dead
         SELECT (jsonb_populate_record(NULL::tallylight.job_dead, job)).* FROM dead
         ON CONFLICT (slice, id) DO UPDATE
            SET attempt = excluded.attempt, errors = excluded.errors, crashes = excluded.crashes,
                last_error = excluded.last_error, state = excluded.state, died_at = now(),
                args = excluded.args, killed = excluded.killed
      RETURNING id, attempt, trace, waits",
        slice,
        &ids,
        &attempts,
        &states as &[&str],
        &errors as &[&str],
        kept.keeps_failures(),
    )
    .fetch_all(connection)
    .await?;
    ended.extend(buried.into_iter().map(|r| ((r.id, r.attempt), (r.trace, r.waits))));
    Ok(())
}

/// Ends cancelled jobs, whether they run or not.
async fn cancel(
    connection: &mut PgConnection,
    slice: i16,
    cancelled: &[Cancelled],
    kept: JobHistory,
    ended: &mut EndedRuns,
) -> Result<(), Error> {
    if cancelled.is_empty() {
        return Ok(());
    }
    let (ids, attempts): (Vec<Uuid>, Vec<i32>) = cancelled.iter().map(|c| c.run).unzip();
    let reasons: Vec<&str> = cancelled.iter().map(|c| c.reason.as_str()).collect();
    let deleted = sqlx::query!(
        "WITH gone AS (
           DELETE FROM tallylight.job j
            USING unnest($2::uuid[], $3::int[], $4::text[]) AS run (id, attempt, reason)
            WHERE j.slice = $1 AND j.id = run.id
              AND tallylight.is_run(run.attempt, j.attempt, j.run_epoch)
        RETURNING j.*, run.attempt AS run, run.reason),
         kept AS (
           INSERT INTO tallylight.job_history
           SELECT (jsonb_populate_record(NULL::tallylight.job_history, to_jsonb(gone) || jsonb_build_object(
                   'attempt', run, 'state', 'cancelled', 'last_error', reason, 'ended_at', now()))).* FROM gone WHERE $5)
         SELECT id, run AS \"attempt!\", trace, waits FROM gone",
        slice,
        &ids,
        &attempts,
        &reasons as &[&str],
        kept.keeps_failures(),
    )
    .fetch_all(connection)
    .await?;
    ended.extend(deleted.into_iter().map(|r| ((r.id, r.attempt), (r.trace, r.waits))));
    Ok(())
}
