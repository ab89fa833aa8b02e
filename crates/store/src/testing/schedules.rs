//! Schedules on the in-memory tables: `schedules.rs` without SQL.

use std::time::Duration;

use domain::ids::{Subject, Timestamp};
use domain::schedule::{Missed, Timing};
use serde_json::Value;
use uuid::Uuid;

use super::jobs::is_held;
use super::tables::{Tables, refused};
use crate::schedules::with_subject;
use crate::{Consumer, DueSchedule, Error, Fire, NewSchedule};

/// A row of `schedule`.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleRow {
    /// Its cron expression.
    pub cron: String,
    /// The time zone that it is read in.
    pub time_zone: String,
    /// The kind of its jobs.
    pub kind: String,
    /// Their arguments.
    pub args: Value,
    /// Their options.
    pub options: Value,
    /// What becomes of missed fires.
    pub missed: Missed,
    /// It does not fire.
    pub paused: bool,
    /// Its next fire.
    pub next_fire_at: Option<Timestamp>,
    /// Raised by every change.
    pub version: i64,
    /// The last moment that it fired for.
    pub last_fire_at: Option<Timestamp>,
    /// Why the last fire enqueued no job.
    pub last_error: Option<String>,
}

impl Tables {
    pub(super) fn put_schedule(&mut self, now: Timestamp, new: &NewSchedule) {
        let slice = self.count.slice_of(&Subject::schedule(&new.name));
        let Some(tables) = self.slice(slice) else { return };
        let old = tables.schedules.get(&new.name);
        let is_same = |old: &ScheduleRow| {
            (&old.cron, &old.time_zone, old.missed) == (&new.cron, &new.time_zone, new.missed)
                && (&old.kind, &old.args, &old.options) == (&new.kind, &new.args, &new.options)
                && new.paused.is_none_or(|paused| paused == old.paused)
        };
        if old.is_some_and(is_same) {
            return;
        }
        let goes_on = |old: &&ScheduleRow| {
            (&old.cron, &old.time_zone) == (&new.cron, &new.time_zone)
                && (!old.paused || new.paused != Some(false))
        };
        let anew = || Timing::parse(&new.cron, &new.time_zone).ok()?.next_after(now);
        let next_fire_at = old.filter(goes_on).map_or_else(anew, |old| old.next_fire_at);
        let row = ScheduleRow {
            cron: new.cron.clone(),
            time_zone: new.time_zone.clone(),
            kind: new.kind.clone(),
            args: new.args.clone(),
            options: new.options.clone(),
            missed: new.missed,
            paused: new.paused.or(old.map(|old| old.paused)).unwrap_or_default(),
            next_fire_at,
            version: old.map_or(1, |old| old.version + 1),
            last_fire_at: old.and_then(|old| old.last_fire_at),
            last_error: old.and_then(|old| old.last_error.clone()),
        };
        tables.schedules.insert(new.name.clone(), row);
    }

    pub(super) fn due_schedules(
        &mut self,
        now: Timestamp,
        process: Uuid,
        limit: i64,
    ) -> Vec<DueSchedule> {
        let mut due = Vec::new();
        for (slice, tables) in (0..).zip(&self.slices).filter(|(_, t)| is_held(t, process)) {
            for (name, row) in tables.schedules.iter().filter(|(_, row)| !row.paused) {
                let Some(at) = row.next_fire_at.filter(|at| *at <= now) else { continue };
                due.push(DueSchedule {
                    slice,
                    name: name.clone(),
                    version: row.version,
                    cron: row.cron.clone(),
                    time_zone: row.time_zone.clone(),
                    missed: row.missed,
                    due: at,
                    now,
                });
            }
        }
        due.sort_by(|a, b| (a.due, &a.name).cmp(&(b.due, &b.name)));
        due.truncate(usize::try_from(limit).unwrap_or_default());
        due
    }

    pub(super) fn next_fire_in(&mut self, now: Timestamp, process: Uuid) -> Option<Duration> {
        let held = self.slices.iter().filter(|tables| is_held(tables, process));
        let rows = held.flat_map(|tables| tables.schedules.values()).filter(|row| !row.paused);
        let next = rows.filter_map(|row| row.next_fire_at).min()?;
        Some((next - now).to_std().unwrap_or_default())
    }

    pub(super) fn fire_schedule(
        &mut self,
        now: Timestamp,
        slice: i16,
        epoch: i64,
        fire: &Fire,
    ) -> Result<Option<Vec<Uuid>>, Error> {
        let tables = self.fence(Consumer::Jobs, slice, epoch)?;
        let is_as_read = |row: &&mut ScheduleRow| {
            !row.paused && row.version == fire.version && row.next_fire_at == Some(fire.due)
        };
        let row = tables.schedules.get_mut(&fire.name).filter(is_as_read);
        let Some(before) = row.as_deref().cloned() else { return Ok(None) };
        let options = with_subject(&fire.name, before.options.clone());
        let options = serde_json::from_value(options).map_err(|e| refused(&e.to_string()))?;
        let mut jobs = Vec::new();
        for at in &fire.fires {
            let fired = (fire.name.clone(), *at);
            if self.existing(slice)?.fires.contains_key(&fired) {
                continue;
            }
            let job = self.enqueue(now, &before.kind, &before.args, &options)?;
            self.existing(slice)?.fires.insert(fired, job);
            jobs.push(job);
        }
        let after = ScheduleRow {
            next_fire_at: fire.next,
            last_fire_at: fire.fires.last().copied().or(before.last_fire_at),
            last_error: fire.error.clone(),
            ..before
        };
        self.existing(slice)?.schedules.insert(fire.name.clone(), after);
        Ok(Some(jobs))
    }
}
