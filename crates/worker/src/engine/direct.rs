//! Jobs without a handler: timers append to their own subject, forwards to a subject of another
//! slice, relays tell other jobs, unknown kinds wait.
//!
//! Forwards of a slice are performed one after another, in the order of their events: what one
//! subject tells another arrives in order.

use std::time::Duration;

use domain::effect::{FORWARD, ForwardArgs, RELAY, TIMER};
use domain::event::{Event, NewEvent, TimerElapsed};
use domain::ids::derived_id;
use store::{Consumer, DueJob, Ending, Error, Finish};

use super::{Due, outcome, relays};
use crate::context::Context;
use crate::leases::{Leases, chain};
use crate::notes::About;

/// A kind that this build does not know waits this long for a process that does.
const UNKNOWN_WAIT: Duration = Duration::from_mins(1);

/// Performs due jobs of one slice. A failure leaves them as they are, to be tried again.
pub(super) async fn perform(
    ctx: &Context,
    leases: &Leases,
    slice: i16,
    epoch: i64,
    jobs: Vec<Due>,
) {
    let (words, jobs): (Vec<Due>, _) = jobs.into_iter().partition(|job| job.kind == RELAY);
    let mut finishes = Vec::with_capacity(jobs.len());
    let mut runs = Vec::with_capacity(jobs.len());
    let mut waiting = relays::perform(ctx, leases, words).await;
    for job in jobs {
        match job.kind.as_str() {
            TIMER => {
                finishes.push(timer(ctx, &job));
                runs.push((TIMER, job.waited));
            }
            FORWARD => match forward(ctx, &job).await {
                Ok(finish) => {
                    finishes.push(finish);
                    runs.push((FORWARD, job.waited));
                }
                Err(error) => {
                    tracing::warn!(slice, error = %chain(&error), "not forwarded, trying again");
                    // Those behind it must not overtake it.
                    break;
                }
            },
            kind => {
                tracing::error!(job = %job.id, kind, "this build does not know this kind of job; it waits");
                let text = format!(
                    "jobs of kind \"{kind}\" wait for a build that knows it; start one, or see \
                     `tallylight jobs list --kind {kind}` and cancel them"
                );
                ctx.notes().set_for(About::UnknownKind, text, UNKNOWN_WAIT * 2);
                let ending = Ending::Snooze { after: UNKNOWN_WAIT };
                waiting.push(done(&job, ending, Vec::new()));
            }
        }
    }
    finishes.extend(waiting);
    if finishes.is_empty() {
        return;
    }
    match ctx.store().finish(slice, epoch, &finishes).await {
        Ok(_) => {
            for ((kind, waited), finish) in runs.into_iter().zip(&finishes) {
                ctx.metrics().jobs.started(kind, waited.so_far());
                ctx.metrics().jobs.ended(kind, outcome::name(&finish.ending));
            }
            ctx.events_appended(slice);
        }
        Err(Error::Fenced { .. }) => leases.forget(Consumer::Jobs, slice, epoch),
        Err(error) => {
            tracing::warn!(slice, error = %chain(&error), "timers not appended, trying again");
        }
    }
}

/// A timer's effect: its event, in the transaction that removes it. Its key outlives the timer: one
/// that is set again, by a history that was copied with its events and without its jobs, does not
/// elapse twice.
fn timer(ctx: &Context, job: &DueJob) -> Finish {
    let key = derived_id("timer-elapsed", &[&job.id.to_string()]);
    let Ok(elapsed) = serde_json::from_value::<TimerElapsed>(job.args.clone()) else {
        return undecodable(job);
    };
    let event = Event::TimerElapsed(elapsed);
    let event = NewEvent::new(job.subject.clone(), &event, ctx.now(), key).with_key(key);
    done(job, Ending::Completed, vec![caused(event, job)])
}

/// A forward's effect: its event on the other slice, stored once for its key; then it is removed.
/// Dying between the two repeats the append, which stores nothing.
async fn forward(ctx: &Context, job: &DueJob) -> Result<Finish, Error> {
    let Ok(args) = serde_json::from_value::<ForwardArgs>(job.args.clone()) else {
        return Ok(undecodable(job));
    };
    let event = args.event();
    let slice = ctx.store().slice_of(&event.subject);
    ctx.store().append_one(event).await?;
    ctx.events_appended(slice);
    Ok(done(job, Ending::Completed, Vec::new()))
}

fn undecodable(job: &DueJob) -> Finish {
    tracing::error!(job = %job.id, kind = job.kind, "arguments cannot be read");
    let error = "its arguments cannot be read".to_owned();
    done(job, Ending::Discarded { error }, Vec::new())
}

fn done(job: &DueJob, ending: Ending, events: Vec<NewEvent>) -> Finish {
    Finish { id: job.id, attempt: job.attempt, ending, events }
}

fn caused(mut event: NewEvent, job: &DueJob) -> NewEvent {
    event.causation_id = job.causation_id;
    event.correlation_id = job.correlation_id;
    event
}
