//! Schedules: kept by people and programs, fired by the holder of their slice.
//!
//! A *fire* is performed in one fenced transaction: the row must be as it was read, its next fire
//! moves on, and each fire enqueues its job, once for (schedule, time). What an expression means
//! is computed by `domain::schedule`; when to look is the worker's business.

use std::time::{Duration, Instant};

use domain::ids::{Subject, Timestamp};
use domain::schedule::{Missed, Timing, is_name};
use serde_json::Value;
use uuid::Uuid;

use crate::consumer::{Consumer, micros};
use crate::jobs::refusal;
use crate::{Error, Store};

mod fire;

#[cfg(feature = "testing")]
pub(crate) use fire::with_subject;
pub use fire::{DueSchedule, Fire};

/// Fires removed in one transaction.
const PAGE: i64 = 10_000;

/// A schedule as somebody wants it.
#[derive(Debug, Clone, PartialEq)]
pub struct NewSchedule {
    /// Its name: 1 to 63 of `a-z`, `0-9`, `-`, `_`, `.`
    pub name: String,
    /// Its cron expression.
    pub cron: String,
    /// The IANA time zone that it is read in.
    pub time_zone: String,
    /// The kind of its jobs.
    pub kind: String,
    /// The arguments of its jobs, a JSON object.
    pub args: Value,
    /// Options of enqueue for its jobs, a JSON object without `run_at`.
    pub options: Value,
    /// What becomes of missed fires.
    pub missed: Missed,
    /// Whether it fires; `None`: as it is, and a new one does.
    pub paused: Option<bool>,
}

/// A schedule as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// Its name.
    pub name: String,
    /// Its cron expression.
    pub cron: String,
    /// The IANA time zone that it is read in.
    pub time_zone: String,
    /// The kind of its jobs.
    pub kind: String,
    /// The arguments of its jobs.
    pub args: Value,
    /// Options of enqueue for its jobs.
    pub options: Value,
    /// What becomes of missed fires.
    pub missed: Missed,
    /// It does not fire.
    pub paused: bool,
    /// Its next fire; `None`: its expression names no more.
    pub next_fire_at: Option<Timestamp>,
    /// The last moment that it fired for.
    pub last_fire_at: Option<Timestamp>,
    /// Why the last fire enqueued no job.
    pub last_error: Option<String>,
    /// When it was made.
    pub made_at: Timestamp,
    /// When somebody changed it last.
    pub changed_at: Timestamp,
}

/// A fire that was performed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fired {
    /// The moment that the expression names; by hand: when somebody asked.
    pub fire_at: Timestamp,
    /// When it was performed.
    pub fired_at: Timestamp,
    /// Its job.
    pub job: Option<Uuid>,
    /// Somebody asked for it.
    pub by_hand: bool,
}

/// What keeping a schedule came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It is new.
    Added,
    /// It was changed.
    Changed,
    /// It was like that already.
    Same,
}

/// A row of `schedule`.
struct Row {
    name: String,
    cron: String,
    time_zone: String,
    kind: String,
    args: Value,
    opts: Value,
    missed: String,
    catch_up: i16,
    paused: bool,
    next_fire_at: Option<Timestamp>,
    last_fire_at: Option<Timestamp>,
    last_error: Option<String>,
    made_at: Timestamp,
    changed_at: Timestamp,
}

impl Schedule {
    /// Its next `count` fires; none while it is paused.
    pub fn upcoming(&self, count: usize) -> Vec<Timestamp> {
        let Some(next) = self.next_fire_at.filter(|_| !self.paused) else { return Vec::new() };
        let later = Timing::parse(&self.cron, &self.time_zone)
            .map_or_else(|_| Vec::new(), |timing| timing.upcoming(next, count));
        std::iter::once(next).chain(later).take(count).collect()
    }
}

impl From<Row> for Schedule {
    fn from(row: Row) -> Self {
        Self {
            name: row.name,
            cron: row.cron,
            time_zone: row.time_zone,
            kind: row.kind,
            args: row.args,
            options: row.opts,
            missed: missed(&row.missed, row.catch_up),
            paused: row.paused,
            next_fire_at: row.next_fire_at,
            last_fire_at: row.last_fire_at,
            last_error: row.last_error,
            made_at: row.made_at,
            changed_at: row.changed_at,
        }
    }
}

/// What the table says; its checks let nothing else in.
fn missed(name: &str, catch_up: i16) -> Missed {
    Missed::of(name, catch_up.unsigned_abs()).unwrap_or(Missed::Coalesce)
}

/// How many `catch_up` enqueues at most, as a column.
fn catch_up(missed: Missed) -> i16 {
    match missed {
        Missed::CatchUp(limit) => i16::try_from(limit).unwrap_or(i16::MAX),
        Missed::Skip | Missed::Coalesce => 1,
    }
}

impl NewSchedule {
    /// Reads its expression, and refuses what no database has to see.
    fn timing(&self) -> Result<Timing, Error> {
        let refuse = |reason: String| Error::Invalid { reason };
        if !is_name(&self.name) {
            let reason =
                "a schedule's name is 1 to 63 of a-z, 0-9, -, _ and ., first a letter or digit";
            return Err(refuse(reason.to_owned()));
        }
        if self.options.get("run_at").is_some() {
            let reason = "leave out the option \"run_at\": the schedule decides when";
            return Err(refuse(reason.to_owned()));
        }
        Timing::parse(&self.cron, &self.time_zone).map_err(|error| refuse(error.to_string()))
    }

    fn is_as(&self, old: &Schedule) -> bool {
        let Schedule { name, cron, time_zone, kind, args, options, missed, paused, .. } = old;
        let wanted = (&self.name, &self.cron, &self.time_zone, &self.kind, &self.args);
        wanted == (name, cron, time_zone, kind, args)
            && (&self.options, &self.missed) == (options, missed)
            && self.paused.is_none_or(|wanted| wanted == *paused)
    }

    /// Its next fire, `now` that it takes the place of `old`: another expression or a pause that
    /// ends begins anew, and everything else changes no fire that is due already.
    fn next(&self, timing: &Timing, old: Option<&Schedule>, now: Timestamp) -> Option<Timestamp> {
        let goes_on = |old: &&Schedule| {
            (&old.cron, &old.time_zone) == (&self.cron, &self.time_zone)
                && (!old.paused || self.paused != Some(false))
        };
        match old.filter(goes_on) {
            Some(old) => old.next_fire_at,
            None => timing.next_after(now),
        }
    }
}

impl Store {
    /// Adds a schedule, or changes the one of that name. A change of its expression or time zone
    /// counts from now; other changes leave its next fire as it is.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the reason where something of it is refused.
    pub async fn put_schedule(&self, new: &NewSchedule) -> Result<Kept, Error> {
        let timing = new.timing()?;
        sqlx::query!(
            "SELECT tallylight.check_enqueue($1, $2, $3)",
            new.kind,
            new.args,
            new.options
        )
        .fetch_one(&self.pool)
        .await
        .map_err(Error::from)
        .map_err(refusal)?;
        let slice = self.slice_of(&Subject::schedule(&new.name));
        let mut tx = self.pool.begin().await?;
        let old = find(&mut tx, slice, &new.name).await?;
        if old.as_ref().is_some_and(|old| new.is_as(old)) {
            return Ok(Kept::Same);
        }
        let next = new.next(&timing, old.as_ref(), now(&mut tx).await?);
        if next.is_none() {
            let reason = format!("\"{}\" names no moment to come", new.cron);
            return Err(Error::Invalid { reason });
        }
        upsert(&mut tx, slice, new, next).await?;
        tx.commit().await?;
        self.schedules_changed().await;
        Ok(if old.is_some() { Kept::Changed } else { Kept::Added })
    }

    /// All schedules, by name.
    pub async fn schedules(&self) -> Result<Vec<Schedule>, Error> {
        let rows = sqlx::query_as!(
            Row,
            "SELECT name, cron, time_zone, kind, args, opts, missed, catch_up, paused, next_fire_at,
                    last_fire_at, last_error, made_at, changed_at
               FROM tallylight.schedule ORDER BY name",
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(Schedule::from).collect())
    }

    /// A schedule by its name.
    pub async fn schedule(&self, name: &str) -> Result<Option<Schedule>, Error> {
        let row = sqlx::query_as!(
            Row,
            "SELECT name, cron, time_zone, kind, args, opts, missed, catch_up, paused, next_fire_at,
                    last_fire_at, last_error, made_at, changed_at
               FROM tallylight.schedule WHERE slice = $1 AND name = $2",
            self.slice_of(&Subject::schedule(name)),
            name,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(Schedule::from))
    }

    /// The last fires of a schedule, the latest first; they are kept for a week.
    pub async fn schedule_fires(&self, name: &str, limit: i64) -> Result<Vec<Fired>, Error> {
        let fires = sqlx::query_as!(
            Fired,
            "SELECT fire_at, fired_at, job, by_hand FROM tallylight.schedule_fire
              WHERE slice = $1 AND name = $2 ORDER BY fire_at DESC LIMIT $3",
            self.slice_of(&Subject::schedule(name)),
            name,
            limit,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(fires)
    }

    /// Lets a schedule fire no more until it is resumed. Returns whether there is such a one.
    pub async fn pause_schedule(&self, name: &str) -> Result<bool, Error> {
        let paused = sqlx::query!(
            "UPDATE tallylight.schedule
                SET paused = true, version = version + 1,
                    changed_at = CASE WHEN paused THEN changed_at ELSE now() END
              WHERE slice = $1 AND name = $2",
            self.slice_of(&Subject::schedule(name)),
            name,
        )
        .execute(&self.pool)
        .await?;
        Ok(paused.rows_affected() > 0)
    }

    /// Lets a schedule fire again, from now on: what fell into the pause was not missed. Returns
    /// whether there is such a one.
    pub async fn resume_schedule(&self, name: &str) -> Result<bool, Error> {
        let slice = self.slice_of(&Subject::schedule(name));
        let mut tx = self.pool.begin().await?;
        let Some(old) = find(&mut tx, slice, name).await? else { return Ok(false) };
        if !old.paused {
            return Ok(true);
        }
        let timing = Timing::parse(&old.cron, &old.time_zone)
            .map_err(|error| Error::Invalid { reason: error.to_string() })?;
        sqlx::query!(
            "UPDATE tallylight.schedule
                SET paused = false, next_fire_at = $3, version = version + 1, changed_at = now()
              WHERE slice = $1 AND name = $2",
            slice,
            name,
            timing.next_after(now(&mut tx).await?),
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        self.schedules_changed().await;
        Ok(true)
    }

    /// Removes a schedule and what is remembered of its fires; jobs that it enqueued stay. Returns
    /// whether there was such a one.
    pub async fn remove_schedule(&self, name: &str) -> Result<bool, Error> {
        let slice = self.slice_of(&Subject::schedule(name));
        let mut tx = self.pool.begin().await?;
        let removed = sqlx::query!(
            "DELETE FROM tallylight.schedule WHERE slice = $1 AND name = $2",
            slice,
            name,
        )
        .execute(&mut *tx)
        .await?;
        sqlx::query!(
            "DELETE FROM tallylight.schedule_fire WHERE slice = $1 AND name = $2",
            slice,
            name,
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(removed.rows_affected() > 0)
    }

    /// Fires a schedule now, whether it is paused or not; its next fire stays as it is. Returns
    /// the job; `None`: there is no such schedule.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the reason where its job is refused.
    pub async fn run_schedule(&self, name: &str) -> Result<Option<Uuid>, Error> {
        let slice = self.slice_of(&Subject::schedule(name));
        let mut tx = self.pool.begin().await?;
        let Some(schedule) = find(&mut tx, slice, name).await? else { return Ok(None) };
        let Schedule { kind, args, options, .. } = schedule;
        let job = fire::enqueue(&mut tx, name, &kind, &args, options).await.map_err(refusal)?;
        sqlx::query!(
            "INSERT INTO tallylight.schedule_fire (slice, name, fire_at, job, by_hand)
             VALUES ($1, $2, clock_timestamp(), $3, true)",
            slice,
            name,
            job,
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(Some(job))
    }

    /// Forgets fires that are older than `age`, slice by slice, until `deadline`. Returns how many.
    pub async fn forget_fires(&self, age: Duration, deadline: Instant) -> Result<u64, Error> {
        let mut forgotten = 0;
        for slice in self.slices.slices() {
            loop {
                if Instant::now() >= deadline {
                    return Ok(forgotten);
                }
                let page = sqlx::query!(
                    "DELETE FROM tallylight.schedule_fire
                      WHERE slice = $1 AND (name, fire_at) IN (
                            SELECT name, fire_at FROM tallylight.schedule_fire
                             WHERE slice = $1 AND fire_at < now() - $2::bigint * interval '1 microsecond'
                             LIMIT $3)",
                    slice,
                    micros(age),
                    PAGE,
                )
                .execute(&self.pool)
                .await?;
                forgotten += page.rows_affected();
                if page.rows_affected() < PAGE.unsigned_abs() {
                    break;
                }
            }
        }
        Ok(forgotten)
    }
}

/// A schedule, locked until the end of the transaction.
async fn find(
    connection: &mut sqlx::PgConnection,
    slice: i16,
    name: &str,
) -> Result<Option<Schedule>, Error> {
    let row = sqlx::query_as!(
        Row,
        "SELECT name, cron, time_zone, kind, args, opts, missed, catch_up, paused, next_fire_at,
                last_fire_at, last_error, made_at, changed_at
           FROM tallylight.schedule WHERE slice = $1 AND name = $2 FOR UPDATE",
        slice,
        name,
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(Schedule::from))
}

/// The database's present.
async fn now(connection: &mut sqlx::PgConnection) -> Result<Timestamp, Error> {
    Ok(sqlx::query_scalar!(r#"SELECT clock_timestamp() AS "now!""#).fetch_one(connection).await?)
}

async fn upsert(
    connection: &mut sqlx::PgConnection,
    slice: i16,
    new: &NewSchedule,
    next: Option<Timestamp>,
) -> Result<(), Error> {
    sqlx::query!(
        "INSERT INTO tallylight.schedule AS s
                (slice, name, cron, time_zone, kind, args, opts, missed, catch_up, paused, next_fire_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, coalesce($10, false), $11)
         ON CONFLICT (slice, name) DO UPDATE
            SET cron = excluded.cron, time_zone = excluded.time_zone, kind = excluded.kind,
                args = excluded.args, opts = excluded.opts, missed = excluded.missed,
                catch_up = excluded.catch_up, paused = coalesce($10, s.paused),
                next_fire_at = excluded.next_fire_at, version = s.version + 1, changed_at = now()",
        slice,
        new.name,
        new.cron,
        new.time_zone,
        new.kind,
        new.args,
        new.options,
        new.missed.name(),
        catch_up(new.missed),
        new.paused,
        next,
    )
    .execute(connection)
    .await
    .map_err(Error::from)
    .map_err(refusal)?;
    Ok(())
}

/// The lease that fires.
const FIRED_BY: Consumer = Consumer::Jobs;
