//! Fires the schedules of the held slices.
//!
//! Nobody leads: whoever holds a slice's `jobs` lease fires its schedules, behind its fence. The
//! loop sleeps until the next fire that it knows of; a changed schedule and a new lease wake it. A
//! look that finds nothing due is two reads, and without news there is one in [`AT_LEAST`].
//! When an expression fires is `domain::schedule`'s business, what the tables say `store`'s.

use std::time::Duration;

use domain::ids::Timestamp;
use domain::schedule::{Missed, Owed, Timing};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use store::{Consumer, DueSchedule, Error, Fire};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::leases::{Leases, chain};

/// Longest time between two looks. News may get lost, and the clocks of database and process drift
/// apart: by some milliseconds in this time.
const AT_LEAST: Duration = Duration::from_secs(30);

/// Wait after a look that failed, or that found what this process may not fire.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Wait for a build that can read an expression which this one cannot.
const UNREADABLE_WAIT: Duration = Duration::from_mins(1);

/// Due schedules read at once.
const PAGE: u8 = 100;

/// Fires what is due, until `stop`.
pub(crate) async fn run(ctx: &Context, leases: &Leases, stop: CancellationToken) {
    let mut next = Instant::now();
    loop {
        tokio::select! {
            // In this order, so that a simulation can be repeated.
            biased;
            () = stop.cancelled() => return,
            () = ctx.schedule_wake() => {}
            () = tokio::time::sleep_until(next) => {}
        }
        let wait = look(ctx, leases).await.unwrap_or_else(|error| {
            tracing::warn!(error = %chain(&error), "no schedules fired, trying again");
            AFTER_FAILURE
        });
        next = Instant::now() + wait;
    }
}

/// Fires what is due. Returns when to look again.
async fn look(ctx: &Context, leases: &Leases) -> Result<Duration, Error> {
    let mut all_fired = true;
    loop {
        let due = ctx.store().due_schedules(ctx.process(), i64::from(PAGE)).await?;
        let is_last = due.len() < usize::from(PAGE);
        for schedule in due {
            all_fired &= fire(ctx, leases, schedule).await;
        }
        if is_last || !all_fired {
            break;
        }
    }
    // What became due meanwhile counts as well, so it is asked for afterwards.
    let next = ctx.store().next_fire_in(ctx.process()).await?;
    let next = next.unwrap_or(AT_LEAST).min(AT_LEAST);
    Ok(if all_fired { next } else { next.max(AFTER_FAILURE) })
}

/// Fires one schedule. Returns whether it is due no more.
async fn fire(ctx: &Context, leases: &Leases, schedule: DueSchedule) -> bool {
    let slice = schedule.slice;
    let held = leases.held(Consumer::Jobs).into_iter().find(|lease| lease.slice == slice);
    let Some(lease) = held else { return false };
    let mut fire = fire_of(&schedule);
    if let Some(error) = &fire.error {
        tracing::error!(schedule = schedule.name, error, "schedule not fired");
    }
    let mut fired = ctx.store().fire_schedule(slice, lease.epoch, &fire).await;
    if let Err(error) = &fired
        && !error.is_transient()
        && !matches!(error, Error::Fenced { .. })
    {
        // Refused now, refused for ever: the schedule goes on, and says why it did not fire.
        tracing::error!(schedule = schedule.name, error = %chain(error), "its job is refused");
        (fire.fires, fire.error) = (Vec::new(), Some(chain(error)));
        fired = ctx.store().fire_schedule(slice, lease.epoch, &fire).await;
    }
    match fired {
        Ok(Some(jobs)) => {
            ctx.metrics().schedules.fired(jobs.len(), &fire.fires, schedule.now);
            if !jobs.is_empty() {
                ctx.jobs_enqueued(slice, true);
                // An option may have sent them to another slice.
                ctx.jobs_enqueued(slice, false);
            }
            true
        }
        // Somebody changed it: it is due no more, or is read again as it is now.
        Ok(None) => true,
        Err(Error::Fenced { .. }) => {
            ctx.metrics().fenced(Consumer::Jobs);
            leases.forget(Consumer::Jobs, slice, lease.epoch);
            false
        }
        Err(error) => {
            tracing::warn!(schedule = schedule.name, error = %chain(&error), "not fired, trying again");
            false
        }
    }
}

/// What a due schedule does.
fn fire_of(schedule: &DueSchedule) -> Fire {
    let fire = |fires, next, error| Fire {
        name: schedule.name.clone(),
        version: schedule.version,
        due: schedule.due,
        fires,
        next,
        error,
    };
    match Timing::parse(&schedule.cron, &schedule.time_zone) {
        Ok(timing) => {
            let Owed { fires, next } = timing.owed(schedule.missed, schedule.due, schedule.now);
            if schedule.missed == Missed::Skip && fires.is_empty() {
                tracing::warn!(schedule = schedule.name, due = %schedule.due, "missed and skipped");
            }
            fire(fires, next, None)
        }
        // Another build took it, and will again.
        Err(error) => {
            fire(Vec::new(), Some(schedule.now + UNREADABLE_WAIT), Some(error.to_string()))
        }
    }
}

/// The numbers of schedules.
#[derive(Debug, Clone)]
pub(crate) struct Numbers {
    jobs: Counter,
    late_seconds: Histogram,
}

impl Numbers {
    /// All at zero.
    pub(crate) fn new() -> Self {
        // 1 ms to 2 minutes.
        let late_seconds = Histogram::new(exponential_buckets(0.001, 2.0, 18));
        Self { jobs: Counter::default(), late_seconds }
    }

    /// Puts them under a registry.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register("schedule_jobs", "Jobs enqueued by schedules", self.jobs.clone());
        registry.register(
            "schedule_late_seconds",
            "Seconds from a fire of a schedule to the look that found it due",
            self.late_seconds.clone(),
        );
    }

    /// A schedule fired, as it was found at `now`.
    fn fired(&self, jobs: usize, fires: &[Timestamp], now: Timestamp) {
        self.jobs.inc_by(u64::try_from(jobs).unwrap_or_default());
        for fire in fires {
            self.late_seconds.observe((now - *fire).as_seconds_f64());
        }
    }
}

#[cfg(test)]
mod tests;
