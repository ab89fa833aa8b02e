//! One policy for all calls that leave this process: of platform jobs and of `http_call`.
//!
//! A *target* is what a call goes to: a source, or the host of another service. Each has a breaker, a
//! retry budget and a pace, which every process keeps for itself; where a rate is configured, tokens
//! of it are shared by all processes. A call that may not be made now is put off until it may, which
//! burns no attempt. Not its job: what a failed call means for its job.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use platform::{Gate, Sign};
use tokio::time::Instant;
use uuid::Uuid;

use crate::claimed::ClaimedJob;
use crate::context::Context;
use crate::jobs::JobError;

mod breaker;
mod budget;
mod metrics;
mod pace;
mod rate;

use breaker::{Breaker, Ticket};
use budget::Budget;
pub(crate) use metrics::CallMetrics;
use pace::Pace;
pub use rate::Rate;
use rate::{Leased, Turn};

/// Wait when the database has no token to give because it does not answer.
const NO_ANSWER_WAIT: Duration = Duration::from_secs(1);

/// Those who wait for credit come again spread over this time.
const SPREAD: Duration = Duration::from_secs(5);

/// Those who wait for a probe come again one after another, so far apart: many waiting jobs cost
/// few starts while a target is down, and do not fall upon it when it is up again.
const APART: Duration = Duration::from_millis(50);

/// Longest wait for a turn.
const LONGEST_WAIT: Duration = Duration::from_mins(5);

/// The rates of targets.
#[derive(Debug, Clone, Default)]
pub struct Rates {
    /// Of sources, by name.
    pub sources: HashMap<String, Rate>,
    /// Of places on the allow-list, by [`platform::outbound::Allow::url`].
    pub places: HashMap<String, Rate>,
}

/// What this process knows of its targets.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    targets: Mutex<HashMap<String, Target>>,
    rates: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Leased>>>>,
}

#[derive(Debug)]
struct Target {
    breaker: Breaker,
    budget: Budget,
    pace: Pace,
    /// Turns after a pause are given out up to here.
    next_turn: Instant,
}

impl Target {
    fn new(now: Instant) -> Self {
        Self {
            breaker: Breaker::default(),
            budget: Budget::new(now),
            pace: Pace::new(now),
            next_turn: now,
        }
    }

    /// When whoever is turned away now may come again, not before `at`.
    fn turn(&mut self, at: Instant, now: Instant) -> Duration {
        let turn = self.next_turn.max(at).min(now + LONGEST_WAIT);
        self.next_turn = turn + APART;
        turn - now
    }
}

/// To whom a call goes.
#[derive(Debug, Clone)]
pub(crate) struct Destination {
    target: String,
    /// The name of the shared bucket, and its rate.
    rate: Option<(String, Rate)>,
}

impl Destination {
    /// A source.
    pub(crate) fn source(ctx: &Context, source: &str) -> Self {
        let target = format!("source/{source}");
        let rate = ctx.config().rates.sources.get(source);
        Self { rate: rate.map(|rate| (target.clone(), *rate)), target }
    }

    /// An endpoint: one that is down keeps no other back.
    pub(crate) fn endpoint(endpoint: Uuid) -> Self {
        Self { target: format!("endpoint/{endpoint}"), rate: None }
    }

    /// A host behind a place on the allow-list.
    pub(crate) fn place(ctx: &Context, place: &str, host: &str) -> Self {
        let rate = ctx.config().rates.places.get(place);
        Self { target: host.to_owned(), rate: rate.map(|rate| (format!("place/{place}"), *rate)) }
    }
}

/// Leave to call. Where it ends without a sign, a probe is left to the next call.
pub(crate) struct Permit {
    ctx: Context,
    destination: Destination,
    ticket: Ticket,
    /// The first request has its token.
    is_paid: AtomicBool,
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("destination", &self.destination).finish_non_exhaustive()
    }
}

/// Asks for leave to call for `job`.
///
/// # Errors
/// [`JobError::Snooze`] with the time when there may be leave.
pub(crate) async fn admit(
    ctx: &Context,
    job: &ClaimedJob,
    destination: Destination,
) -> Result<Permit, JobError> {
    let is_retry = job.errors > 0;
    let ticket = ctx.calls().ask(ctx, &destination.target, is_retry)?;
    let permit = Permit { ctx: ctx.clone(), destination, ticket, is_paid: AtomicBool::new(true) };
    if let Err(wait) = permit.take_token().await {
        ctx.calls().give_back(&permit.destination.target, is_retry && !ticket.is_probe);
        return Err(put_off(ctx, &permit.destination.target, "rate", wait));
    }
    Ok(permit)
}

/// Puts a call off.
fn put_off(ctx: &Context, target: &str, by: &'static str, after: Duration) -> JobError {
    ctx.metrics().calls.paused(target, by);
    let reason = match by {
        "breaker" => format!("calls to {target} are paused: it was down"),
        "budget" => format!("too many calls to {target} are tried again"),
        _ => format!("the rate of {target} allows no call yet, or it asked for fewer"),
    };
    // Zero means "as it was".
    JobError::Snooze { after: after.max(Duration::from_millis(1)), reason }
}

impl Calls {
    /// Leave by breaker and budget. A probe needs no credit: without it nobody would learn.
    fn ask(&self, ctx: &Context, name: &str, is_retry: bool) -> Result<Ticket, JobError> {
        let now = Instant::now();
        let spread = SPREAD.mul_f64((ctx.config().chance)());
        self.with(name, |target| {
            let asked = target.breaker.ask(now);
            ctx.metrics().calls.stands(name, target.breaker.stand());
            let ticket = match asked {
                Ok(ticket) => ticket,
                Err(at) => return Err(put_off(ctx, name, "breaker", target.turn(at, now))),
            };
            if !is_retry {
                target.budget.first();
            } else if !ticket.is_probe {
                let credit = target.budget.retry(now);
                credit.map_err(|wait| put_off(ctx, name, "budget", wait + spread))?;
            }
            Ok(ticket)
        })
    }

    /// A further try was not made.
    fn give_back(&self, name: &str, was_paid: bool) {
        if was_paid {
            self.with(name, |target| target.budget.give_back());
        }
    }

    fn with<T>(&self, name: &str, look: impl FnOnce(&mut Target) -> T) -> T {
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        look(targets.entry(name.to_owned()).or_insert_with(|| Target::new(Instant::now())))
    }

    fn leased(&self, name: &str, rate: Rate) -> Arc<tokio::sync::Mutex<Leased>> {
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(tokio::sync::Mutex::new(Leased::new(name, rate, Instant::now())));
        Arc::clone(rates.entry(name.to_owned()).or_insert_with(new))
    }
}

impl Permit {
    /// Takes a turn of the pace and a token of the rate, or tells when to come again.
    async fn take_token(&self) -> Result<(), Duration> {
        let now = Instant::now();
        self.ctx.calls().with(&self.destination.target, |target| target.pace.ask(now))?;
        let Some((name, rate)) = &self.destination.rate else { return Ok(()) };
        let leased = self.ctx.calls().leased(name, *rate);
        // Held while the database is asked, so that all who wait share one batch.
        let turn = leased.lock().await.take(self.ctx.store()).await;
        match turn {
            Ok(Turn::Now { taken }) => {
                self.ctx.metrics().calls.taken(&self.destination.target, taken);
                Ok(())
            }
            Ok(Turn::Later(wait)) => Err(wait),
            Err(error) => {
                let error = crate::leases::chain(&error);
                tracing::warn!(rate = name, %error, "no tokens taken, trying again");
                Err(NO_ANSWER_WAIT)
            }
        }
    }

    /// Hears what an exchange told.
    pub(crate) fn saw(&self, sign: Sign) {
        let (ctx, target) = (&self.ctx, &self.destination.target);
        ctx.metrics().calls.called(target, sign);
        let (now, chance) = (Instant::now(), (ctx.config().chance)());
        let (opened, stand) = ctx.calls().with(target, |t| {
            t.pace.tell(sign, now);
            (t.breaker.tell(self.ticket, sign, now, chance), t.breaker.stand())
        });
        ctx.metrics().calls.stands(target, stand);
        if opened {
            ctx.metrics().calls.opened(target);
            tracing::warn!(target_name = target, "calls are paused: it fails again and again");
        }
    }
}

impl Gate for Permit {
    /// The first request has its token; a run that makes more of them waits for each.
    fn pass(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            if self.is_paid.swap(false, Ordering::Relaxed) {
                return;
            }
            while let Err(wait) = self.take_token().await {
                tokio::time::sleep(wait).await;
            }
        })
    }

    fn saw(&self, sign: Sign) {
        Self::saw(self, sign);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.ctx.calls().with(&self.destination.target, |t| t.breaker.release(self.ticket));
    }
}

#[cfg(test)]
mod tests;
