//! State of a source's quota of active live streams: a fair semaphore, as a fold of the log.
//!
//! A *claim* is a session's ticket with its turn; it waits in the queue, or is granted a slot.
//! *Others* are active live streams that no grant stands for: other users of a shared account, and
//! sessions of before a bound was known. The *bound* is the lower of the number that the
//! configuration gives and the one that a refusal of the platform taught; without any every claim is
//! granted at once and nothing is kept. A *look* asks the platform which live streams are active, and
//! takes back what is granted to one that is not.
//!
//! Turns go round: each account has one claim in a round, and a round that has begun takes no new
//! ones. So an account that asks for fifty slots does not hold up the next one, and accounts that
//! come new again and again do not hold up anybody for ever.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::call::{Call, CallResult};
use crate::event::{Event, TimerElapsed};
use crate::ids::{LiveStreamId, Timestamp};
use crate::slot::{SlotEvent, SlotReleased, SlotRequested};
use crate::timer::TimerKind;

mod decide;
mod look;

pub use look::{Look, Tick};

/// A session's ticket, and its turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The session.
    pub session: Uuid,
    /// The live stream to activate.
    pub live_stream: LiveStreamId,
    /// The product's account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The session's ticket.
    pub ticket: u64,
    /// The round it is served in.
    pub round: u64,
    /// When it came, among those of its round.
    pub order: u64,
    /// Since when the session has waited.
    pub since: Timestamp,
}

/// A slot that was granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// To whom.
    pub claim: Claim,
    /// When.
    pub at: Timestamp,
    /// A look has found its live stream active.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub seen: bool,
}

/// What the platform's refusals taught.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learned {
    /// So many were active when it refused one more, or have been since.
    pub slots: u32,
    /// Grants beyond that which may be tried now.
    pub extra: u32,
    /// Grants that are tried at a time: it doubles while the platform has room for them.
    pub step: u32,
    /// Some were tried since the last look.
    pub tried: bool,
}

/// The quota of active live streams of a source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// The configuration was told; nothing is granted before.
    pub is_configured: bool,
    /// The slots that it gives, where it knows.
    pub configured: Option<u32>,
    /// Times it was told.
    pub configurations: u64,
    /// The slots that there seem to be.
    pub learned: Option<Learned>,
    /// Granted, where there is a bound.
    pub grants: Vec<Grant>,
    /// Waiting, the next first.
    pub queue: Vec<Claim>,
    /// Live streams that are active without a grant.
    pub others: BTreeSet<LiveStreamId>,
    /// The last round that has begun.
    pub round: u64,
    /// Claims so far.
    pub order: u64,
    /// Granted by the last event: the effects of it tell them.
    pub just_granted: Vec<Claim>,
    /// Looks at the platform.
    pub look: Look,
}

/// Most grants that are tried beyond the learnt bound at a time.
const MAX_STEP: u32 = 64;

impl Quota {
    /// How many slots there are, as far as is known; `None`: no bound is known.
    pub fn slots(&self) -> Option<u32> {
        let learned = self.learned.map(|learned| learned.slots);
        match (self.configured, learned) {
            (Some(configured), Some(learned)) => Some(configured.min(learned)),
            (configured, learned) => configured.or(learned),
        }
    }

    /// Slots taken by grants and by others.
    pub fn in_use(&self) -> usize {
        self.grants.len() + self.others.len()
    }

    /// Whether claims are granted: the configuration is known, and what is active is counted.
    pub fn is_open(&self) -> bool {
        self.is_configured && !self.look.holds
    }

    /// The place of a session in the queue, from 1.
    pub fn place(&self, session: Uuid) -> Option<u64> {
        (1..).zip(&self.queue).find(|(_, claim)| claim.session == session).map(|(place, _)| place)
    }

    /// Applies one event.
    pub(crate) fn evolve(&mut self, event: &Event, at: Timestamp) {
        self.just_granted.clear();
        match event {
            Event::Slot(SlotEvent::Configured(told)) => self.configure(told.slots),
            Event::Slot(SlotEvent::Requested(request)) => self.request(request, at),
            Event::Slot(SlotEvent::Released(released)) => self.release(released),
            Event::CallIntended(intended) => {
                if let Call::ObserveQuota { .. } = intended.call {
                    self.look.begin(intended.intent, at);
                }
            }
            Event::CallSucceeded(done) => {
                if let Some(began) = self.look.end(done.intent, at)
                    && let CallResult::ActiveStreams { active, inactive } = &done.result
                {
                    self.looked(active, inactive, began);
                }
            }
            Event::CallFailed(failed) => {
                self.look.end(failed.intent, at);
            }
            Event::TimerElapsed(elapsed) => self.timer(*elapsed),
            Event::Slot(SlotEvent::Granted(_) | SlotEvent::Queued(_))
            | Event::Cleanup(_)
            | Event::SeenOtherwise(_)
            | Event::WebhookReceived(_)
            | Event::SessionRequested(_)
            | Event::GoLiveRequested(_)
            | Event::EndRequested(_)
            | Event::RetryRequested(_)
            | Event::AccountDeleted(_)
            | Event::AccountErased(_)
            | Event::CleanupRequested(_)
            | Event::ReconcileRequested(_)
            | Event::SessionBound(_)
            | Event::Bound(_)
            | Event::VideoChanged(_)
            | Event::BroadcastChanged(_)
            | Event::LimitExceeded(_)
            | Event::JobCompleted(_)
            | Event::JobDiscarded(_)
            | Event::JobCancelled(_)
            | Event::Announced(_)
            | Event::Unrecognized => {}
        }
        self.admit(at);
        self.look.arm(!self.queue.is_empty(), self.is_taken());
    }

    /// Applies how many slots the configuration gives. Where that makes a first bound, what is
    /// active is counted before anything is granted.
    fn configure(&mut self, slots: Option<u32>) {
        let was_bound = self.slots().is_some();
        // Who changes the number knows better than an old refusal.
        self.learned = self.learned.filter(|_| slots == self.configured);
        (self.is_configured, self.configured) = (true, slots);
        self.configurations += 1;
        self.look.hold(!was_bound && slots.is_some());
        if self.slots().is_none() {
            self.grants.clear();
            self.others.clear();
        }
    }

    /// A session asks. One that has its slot already is told so again; of its earlier tickets
    /// nothing is kept, but a refused one keeps its turn.
    fn request(&mut self, request: &SlotRequested, at: Timestamp) {
        let is_it = |claim: &Claim| claim.session == request.session;
        let known = self.grants.iter().map(|grant| &grant.claim).chain(&self.queue);
        let held: Vec<&Claim> = known.filter(|claim| is_it(claim)).collect();
        if held.iter().any(|claim| claim.ticket >= request.ticket) {
            return;
        }
        let turn = held.first().filter(|_| request.refused).map(|c| (c.round, c.order, c.since));
        self.grants.retain(|grant| !is_it(&grant.claim));
        self.queue.retain(|claim| !is_it(claim));
        if request.refused {
            self.refused();
        }
        self.order += 1;
        let first = if request.refused { 0 } else { self.next_round(request.account.as_deref()) };
        let (round, order, since) = turn.unwrap_or((first, self.order, at));
        self.queue.push(Claim {
            session: request.session,
            live_stream: request.live_stream,
            account: request.account.clone(),
            ticket: request.ticket,
            round,
            order,
            since,
        });
        self.queue.sort_by_key(|claim| (claim.round, claim.order));
    }

    /// The round of an account's next claim: one that has not begun, and holds no other of it.
    fn next_round(&self, account: Option<&str>) -> u64 {
        let of_it = self.queue.iter().filter(|claim| claim.account.as_deref() == account);
        of_it.map(|claim| claim.round).fold(self.round, u64::max) + 1
    }

    /// The platform had no slot for one that was granted: so many as are taken are all there is.
    /// What others took since the last look is not known, so it is looked after.
    fn refused(&mut self) {
        let slots = u32::try_from(self.in_use()).unwrap_or(u32::MAX);
        let is_first = self.slots().is_none();
        self.learned = Some(Learned { slots, extra: 0, step: 1, tried: false });
        self.look.after_refusal(is_first);
    }

    fn release(&mut self, released: &SlotReleased) {
        let is_closed = |c: &Claim| c.session == released.session && c.ticket <= released.ticket;
        let held = self.grants.len();
        self.grants.retain(|grant| !is_closed(&grant.claim));
        self.queue.retain(|claim| !is_closed(claim));
        if released.inactive {
            self.look.released(released.live_stream);
            if self.others.remove(&released.live_stream) {
                self.look.freed();
            }
        }
        if self.grants.len() < held {
            self.look.freed();
        }
    }

    /// Applies which live streams are active, and which of those that were asked for are not.
    fn looked(&mut self, active: &[LiveStreamId], inactive: &[LiveStreamId], began: Timestamp) {
        self.grants
            .retain(|grant| !(inactive.contains(&grant.claim.live_stream) && grant.at < began));
        for grant in &mut self.grants {
            grant.seen |= active.contains(&grant.claim.live_stream);
        }
        let granted: BTreeSet<_> = self.grants.iter().map(|g| g.claim.live_stream).collect();
        let freed = self.look.take_released();
        let is_other = |id: &LiveStreamId| !granted.contains(id) && !freed.contains(id);
        if self.slots().is_some() {
            self.others = active.iter().copied().filter(is_other).collect();
        }
        // What is active has its slot, whatever was believed.
        let slots = u32::try_from(active.len()).unwrap_or(u32::MAX);
        if let Some(learned) = self.learned.as_mut() {
            learned.slots = learned.slots.max(slots);
        }
        let binds = |l: &Learned| self.configured.is_none_or(|slots| l.slots < slots);
        self.learned = self.learned.filter(binds);
    }

    /// Time to look, and to try more than the bound that was learnt.
    fn timer(&mut self, elapsed: TimerElapsed) {
        let generation = elapsed.generation;
        if elapsed.timer == TimerKind::Sweep {
            let taken = self.is_taken();
            return self.look.sweep_due(generation, taken);
        }
        let tried = self.learned.is_some_and(|learned| learned.tried);
        if !self.look.queue_stands(generation, self.queue.is_empty(), tried) {
            return;
        }
        if let Some(learned) = self.learned.as_mut() {
            // Those that were tried were not refused: there is room for more.
            let step = if learned.tried { learned.step.saturating_mul(2) } else { learned.step };
            learned.step = step.clamp(1, MAX_STEP);
            learned.extra = learned.step;
            learned.tried = false;
        }
    }

    /// Grants what can be granted.
    fn admit(&mut self, at: Timestamp) {
        if !self.is_open() {
            return;
        }
        // One that is active already takes no slot more.
        let has_slot = |quota: &Self| {
            quota.queue.iter().position(|claim| quota.others.contains(&claim.live_stream))
        };
        while let Some(n) = has_slot(self) {
            self.grant(n, at);
        }
        while !self.queue.is_empty() && self.take_slot() {
            self.round = self.round.max(self.queue[0].round);
            self.grant(0, at);
        }
    }

    /// Grants a slot to the `n`th of the queue.
    fn grant(&mut self, n: usize, at: Timestamp) {
        let claim = self.queue.remove(n);
        self.others.remove(&claim.live_stream);
        self.just_granted.push(claim.clone());
        if self.slots().is_some() {
            self.look.moved = true;
            self.grants.push(Grant { claim, at, seen: false });
        }
    }

    /// Whether there is a slot for one more; one beyond the learnt bound is tried where it may be.
    fn take_slot(&mut self) -> bool {
        let in_use = u32::try_from(self.in_use()).unwrap_or(u32::MAX);
        if self.slots().is_none_or(|slots| in_use < slots) {
            return true;
        }
        let may = self.configured.is_none_or(|slots| in_use < slots);
        let Some(learned) = self.learned.as_mut().filter(|learned| may && learned.extra > 0) else {
            return false;
        };
        learned.extra -= 1;
        learned.slots = in_use.saturating_add(1);
        learned.tried = true;
        true
    }

    /// Whether there is something to hold against what is active.
    fn is_taken(&self) -> bool {
        self.slots().is_some() && self.in_use() > 0
    }
}

#[cfg(test)]
mod laws;
#[cfg(test)]
mod tests;
