//! What a quota has done: grants and places told, looks made.

use std::time::Duration;

use uuid::Uuid;

use super::Quota;
use crate::call::Call;
use crate::decide::backed_off;
use crate::effect::{Effects, later};
use crate::event::{Event, RecordedEvent};
use crate::ids::{LiveStreamId, Subject, Timestamp, derived_id};
use crate::slot::{SlotEvent, SlotGranted, SlotQueued, SlotRequested, SlotsConfigured};
use crate::timer::{Policy, TimerKind};

impl Quota {
    /// The effects of `event`, which led from `before` to this.
    pub(crate) fn decide(
        &self,
        policy: &Policy,
        before: Option<&Self>,
        (cause, event): (&RecordedEvent, &Event),
        at: Timestamp,
        to: &mut Effects,
    ) {
        let source = cause.subject.source();
        self.tell_configuration(policy, &cause.subject, to);
        for claim in &self.just_granted {
            tell_granted(source, claim.live_stream, claim.session, claim.ticket, to);
        }
        if self.is_open() && !before.is_some_and(Self::is_open) {
            for (place, claim) in (1..).zip(&self.queue) {
                tell_place(source, claim.live_stream, claim.session, claim.ticket, place, to);
            }
        } else if let Event::Slot(SlotEvent::Requested(request)) = event {
            self.answer(source, request, to);
        }
        if self.look.due && self.look.in_flight.is_none() {
            let check = self.doubted(policy, at);
            let limit = policy.limits.of_call(true);
            to.call(self.look.number, Call::ObserveQuota { check }, limit);
        }
        self.set_timers(policy, before, at, to);
    }

    /// Says what the configuration of this process gives, where the state has it otherwise.
    fn tell_configuration(&self, policy: &Policy, subject: &Subject, to: &mut Effects) {
        let slots = policy.slots.get(subject.source()).copied();
        if self.is_configured && self.configured == slots {
            return;
        }
        let number = self.configurations.to_string();
        let key = derived_id("slots-configured", &[subject.as_str(), &number]);
        let told = SlotEvent::Configured(SlotsConfigured { slots });
        to.append_once(&Event::Slot(told), key);
    }

    /// Tells a session that asks what it may not know yet: that it has its slot, or its place.
    fn answer(&self, source: &str, request: &SlotRequested, to: &mut Effects) {
        let SlotRequested { session, live_stream, ticket, .. } = *request;
        let is_it = |c: &super::Claim| c.session == session && c.ticket == ticket;
        if self.just_granted.iter().any(is_it) {
            return;
        }
        if self.grants.iter().any(|grant| is_it(&grant.claim)) {
            return tell_granted(source, live_stream, session, ticket, to);
        }
        let place = self.queue.iter().any(is_it).then(|| self.place(session)).flatten();
        // Until it is open nobody waits for long.
        if let Some(place) = place.filter(|p| self.is_open() && request.place != Some(*p)) {
            tell_place(source, live_stream, session, ticket, place, to);
        }
    }

    /// Live streams whose grants are to be doubted if they are not among the active ones: they were
    /// active before, or have had their slot for longer than an activation is tried.
    fn doubted(&self, policy: &Policy, at: Timestamp) -> Vec<LiveStreamId> {
        let lease = policy.limits.of_call(false).unwrap_or(policy.slot_sweep);
        let is_old = |since: Timestamp| at >= later(since, lease);
        let doubted = self.grants.iter().filter(|grant| grant.seen || is_old(grant.at));
        doubted.map(|grant| grant.claim.live_stream).collect()
    }

    /// Sets the timers that the fold asked for.
    fn set_timers(&self, policy: &Policy, before: Option<&Self>, at: Timestamp, to: &mut Effects) {
        let was = before.map(|b| b.look.clone()).unwrap_or_default();
        let (queue, sweep) = (self.look.queue, self.look.sweep);
        if queue.number != was.queue.number {
            to.timer(TimerKind::Poll, queue.number, later(at, self.pause(policy, at)));
        }
        if sweep.number != was.sweep.number {
            to.timer(TimerKind::Sweep, sweep.number, later(at, policy.slot_sweep));
        }
    }

    /// How long a queue may stand before the platform is asked: not at all where it was not for long.
    fn pause(&self, policy: &Policy, at: Timestamp) -> Duration {
        let is_known = self.look.last.is_some_and(|last| at < later(last, policy.slot_sweep));
        if is_known { backed_off(policy.slot, self.look.in_vain, 10) } else { Duration::ZERO }
    }
}

fn tell_place(
    source: &str,
    live_stream: LiveStreamId,
    session: Uuid,
    ticket: u64,
    place: u64,
    to: &mut Effects,
) {
    let queued = Event::Slot(SlotEvent::Queued(SlotQueued { session, ticket, place }));
    to.forward(Subject::live_stream(source, live_stream), &queued, None);
}

fn tell_granted(
    source: &str,
    live_stream: LiveStreamId,
    session: Uuid,
    ticket: u64,
    to: &mut Effects,
) {
    let granted = Event::Slot(SlotEvent::Granted(SlotGranted { session, ticket }));
    to.forward(Subject::live_stream(source, live_stream), &granted, None);
}
