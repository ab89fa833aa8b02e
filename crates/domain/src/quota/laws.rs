//! Laws of the semaphore, for whatever order, repetition and loss of messages.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::call::Call;
use crate::event::{CallIntended, CallSucceeded, TimerElapsed};
use crate::slot::SlotsConfigured;
use crate::timer::TimerKind;

const SLOTS: u32 = 3;

/// A session of the model: what its live stream knows.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Model {
    ticket: u64,
    open: bool,
    active: bool,
}

/// What happens.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// A session asks, or asks again.
    Ask(u8),
    /// A session needs its slot no more.
    End(u8),
    /// The first message on its way to the quota arrives, or the one after it.
    Deliver(u8),
    /// The first arrives, and stays on its way.
    Repeat,
    /// The first is lost: its sender says it again some time.
    Lose,
    /// Somebody looks.
    Look,
}

fn arb_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..8_u8).prop_map(Step::Ask),
        2 => (0..8_u8).prop_map(Step::End),
        6 => (0..3_u8).prop_map(Step::Deliver),
        1 => Just(Step::Repeat),
        1 => Just(Step::Lose),
        1 => Just(Step::Look),
    ]
}

/// A quota, its sessions, and messages between them that come late, twice or never.
#[derive(Debug)]
struct World {
    quota: Quota,
    sessions: BTreeMap<u8, Model>,
    to_quota: VecDeque<Event>,
    n: u64,
}

fn id(n: u8) -> Uuid {
    Uuid::from_u128(u128::from(n) + 1)
}

fn stream(n: u8) -> LiveStreamId {
    LiveStreamId(i64::from(n))
}

fn sender(event: Option<&Event>) -> Option<Uuid> {
    if let Some(Event::Slot(SlotEvent::Requested(asked))) = event {
        return Some(asked.session);
    }
    let Some(Event::Slot(SlotEvent::Released(given))) = event else { return None };
    Some(given.session)
}

/// The sessions that have a slot, and those that wait for one.
fn claims(quota: &Quota) -> (BTreeSet<Uuid>, BTreeSet<Uuid>) {
    let granted = quota.grants.iter().map(|grant| grant.claim.session).collect();
    (granted, quota.queue.iter().map(|claim| claim.session).collect())
}

impl World {
    fn new() -> Self {
        let mut quota = Quota::default();
        let configured = SlotsConfigured { slots: Some(SLOTS) };
        quota.evolve(&Event::Slot(SlotEvent::Configured(configured)), Timestamp::default());
        let mut world = Self { quota, sessions: BTreeMap::new(), to_quota: VecDeque::new(), n: 0 };
        world.look();
        world
    }

    fn tell(&mut self, event: &Event) {
        self.n += 1;
        let seconds = i64::try_from(self.n).unwrap();
        let before = self.quota.in_use();
        self.quota.evolve(event, Timestamp::from_timestamp(seconds, 0).unwrap());
        let grants = self.quota.grants.len();
        let slots = usize::try_from(SLOTS).unwrap();
        assert!(grants <= slots, "more grants than slots: {:?}", self.quota);
        let more = self.quota.in_use() > before && !self.quota.just_granted.is_empty();
        assert!(!more || self.quota.in_use() <= slots, "granted what is taken: {:?}", self.quota);
        for claim in self.quota.just_granted.clone() {
            self.granted(u8::try_from(claim.session.as_u128() - 1).unwrap(), claim.ticket);
        }
    }

    /// A live stream takes what it wants and gives back what it does not.
    fn granted(&mut self, n: u8, ticket: u64) {
        let model = self.sessions.entry(n).or_default();
        if model.open && model.ticket == ticket {
            model.active = true;
        } else {
            self.release(n, ticket);
        }
    }

    fn request(&mut self, n: u8) {
        let ticket = self.sessions[&n].ticket;
        self.to_quota.push_back(Event::Slot(SlotEvent::Requested(SlotRequested {
            session: id(n),
            live_stream: stream(n),
            account: Some((n % 3).to_string()),
            ticket,
            refused: false,
            place: None,
        })));
    }

    fn release(&mut self, n: u8, ticket: u64) {
        let inactive = !self.sessions[&n].active;
        let released = SlotReleased { session: id(n), live_stream: stream(n), ticket, inactive };
        self.to_quota.push_back(Event::Slot(SlotEvent::Released(released)));
    }

    fn look(&mut self) {
        let intent = Uuid::from_u128(u128::from(self.n));
        let check: Vec<_> =
            self.quota.grants.iter().filter(|g| g.seen).map(|g| g.claim.live_stream).collect();
        self.tell(&Event::CallIntended(CallIntended {
            intent,
            call: Call::ObserveQuota { check: check.clone() },
        }));
        let active: Vec<LiveStreamId> =
            self.sessions.iter().filter(|(_, m)| m.active).map(|(n, _)| stream(*n)).collect();
        let inactive = check.into_iter().filter(|id| !active.contains(id)).collect();
        let result = CallResult::ActiveStreams { active, inactive };
        self.tell(&Event::CallSucceeded(CallSucceeded { intent, result }));
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Ask(n) => {
                let model = self.sessions.entry(n).or_default();
                if !model.open {
                    *model = Model { ticket: model.ticket + 1, open: true, active: false };
                }
                self.request(n);
            }
            Step::End(n) => {
                if let Some(model) = self.sessions.get_mut(&n).filter(|m| m.open) {
                    (model.open, model.active) = (false, false);
                    let ticket = model.ticket;
                    self.release(n, ticket);
                }
            }
            Step::Deliver(at) => {
                // Of one session they come in order, of different ones in any.
                let at = usize::from(at);
                let is_first =
                    (0..at).all(|n| sender(self.to_quota.get(n)) != sender(self.to_quota.get(at)));
                if let Some(event) = self.to_quota.remove(if is_first { at } else { 0 }) {
                    self.tell(&event);
                }
            }
            Step::Repeat => {
                if let Some(event) = self.to_quota.front().cloned() {
                    self.tell(&event);
                }
            }
            Step::Lose => {
                // A release is never lost: it is a job, which is performed until it is done.
                let asks = |e: &Event| matches!(e, Event::Slot(SlotEvent::Requested(_)));
                if self.to_quota.front().is_some_and(asks) {
                    self.to_quota.pop_front();
                }
            }
            Step::Look => self.look(),
        }
    }

    /// Everything on its way arrives, and those that wait ask again.
    fn calm(&mut self) {
        for _ in 0..4 {
            let waiting: Vec<u8> = self
                .sessions
                .iter()
                .filter(|(_, m)| m.open && !m.active)
                .map(|(n, _)| *n)
                .collect();
            for n in waiting {
                self.request(n);
            }
            while let Some(event) = self.to_quota.pop_front() {
                self.tell(&event);
            }
            self.look();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Once all is delivered, nobody holds or waits for a slot that does not want it, and while
    /// somebody waits no slot is free.
    #[test]
    fn no_slot_is_lost_and_none_is_kept_by_what_is_over(
        steps in prop::collection::vec(arb_step(), 0..120),
    ) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.calm();
        let wanted: BTreeSet<Uuid> =
            world.sessions.iter().filter(|(_, m)| m.open).map(|(n, _)| id(*n)).collect();
        let claims = world.quota.grants.iter().map(|g| &g.claim).chain(&world.quota.queue);
        let known: BTreeSet<Uuid> = claims.map(|claim| claim.session).collect();
        prop_assert_eq!(&known, &wanted, "{:?}", world);
        let granted = wanted.len().min(usize::try_from(SLOTS).unwrap());
        prop_assert_eq!(world.quota.grants.len(), granted, "{:?}", world);
        prop_assert!(world.quota.others.is_empty(), "{:?}", world);
        let active = world.sessions.values().filter(|m| m.active).count();
        prop_assert_eq!(active, granted, "{:?}", world);
    }

    /// However many come behind it, and of however many accounts: each session gets its turn.
    #[test]
    fn nobody_is_passed_over_for_ever(
        mine in 1..5_u8,
        ahead in 0..10_u8,
        strangers in any::<bool>(),
    ) {
        let mut quota = Quota::default();
        let at = Timestamp::default();
        let slots = Some(1);
        quota.evolve(&Event::Slot(SlotEvent::Configured(SlotsConfigured { slots })), at);
        quota.look = Look::default();
        let mut next = 0_u64;
        let mut ask = |quota: &mut Quota, account: String| {
            next += 1;
            let session = Uuid::from_u128(u128::from(next));
            quota.evolve(&Event::Slot(SlotEvent::Requested(SlotRequested {
                session,
                live_stream: LiveStreamId(i64::try_from(next).unwrap()),
                account: Some(account),
                ticket: 1,
                refused: false,
                place: None,
            })), at);
            session
        };
        for n in 0..ahead {
            ask(&mut quota, format!("ahead-{}", n % 4));
        }
        let waits = (0..mine).map(|_| ask(&mut quota, "mine".to_owned())).last().unwrap();
        let mut turns = 0_u32;
        while quota.place(waits).is_some() {
            turns += 1;
            let of = if strangers { turns } else { turns % 3 };
            ask(&mut quota, format!("behind-{of}"));
            let grant = quota.grants[0].claim.clone();
            quota.evolve(&Event::Slot(SlotEvent::Released(SlotReleased {
                session: grant.session,
                live_stream: grant.live_stream,
                ticket: 1,
                inactive: true,
            })), at);
            // Each of its account's rounds takes at most as long as it grew while the one before
            // was served.
            prop_assert!(turns <= (u32::from(ahead) + 2) * (u32::from(mine) + 1) * 4);
        }
    }

    /// A message that arrives again, before anything else has, changes nothing.
    #[test]
    fn a_message_counts_once(steps in prop::collection::vec(arb_step(), 0..80), n in 0..8_u8) {
        for end in [false, true] {
            let mut world = World::new();
            for step in &steps {
                world.step(*step);
            }
            let (step, at) = (if end { Step::End(n) } else { Step::Ask(n) }, Timestamp::default());
            let queued = world.to_quota.len();
            world.step(step);
            let Some(message) = world.to_quota.get(queued).cloned() else { continue };
            world.quota.evolve(&message, at);
            let once = claims(&world.quota);
            world.quota.evolve(&message, at);
            prop_assert_eq!(claims(&world.quota), once, "{:?} again: {:?}", message, world.quota);
        }
    }

    /// Who has a claim does not hang on the order in which different sessions ask and give back.
    #[test]
    fn messages_of_different_sessions_claim_alike_in_any_order(
        (first, second) in prop::collection::vec(any::<bool>(), 1..8).prop_flat_map(|ends| {
            let sent: Vec<(u8, bool)> = (0..8).zip(ends).collect();
            (Just(sent.clone()), Just(sent).prop_shuffle())
        }),
    ) {
        let told = |messages: &[(u8, bool)]| {
            let mut world = World::new();
            for n in 0..8 {
                world.sessions.insert(n, Model { ticket: 1, open: true, active: false });
                // Every second one has asked before.
                if n % 2 == 0 {
                    world.request(n);
                }
            }
            while let Some(message) = world.to_quota.pop_front() {
                world.tell(&message);
            }
            for (n, ends) in messages {
                if *ends { world.release(*n, 1) } else { world.request(*n) }
                let message = world.to_quota.pop_back().unwrap();
                world.quota.evolve(&message, Timestamp::default());
            }
            let (grants, queue) = claims(&world.quota);
            grants.union(&queue).copied().collect::<BTreeSet<_>>()
        };
        prop_assert_eq!(told(&first), told(&second));
    }

    /// What is folded does not depend on where it was cut and stored.
    #[test]
    fn a_quota_survives_its_database(steps in prop::collection::vec(arb_step(), 0..80)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
            let text = serde_json::to_string(&world.quota).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Quota>(&text).unwrap(), &world.quota);
        }
    }

    /// Whatever timer comes, those that wait have a look or a timer before them.
    #[test]
    fn a_queue_always_waits_for_something(
        steps in prop::collection::vec((arb_step(), 0..40_u64), 0..80),
    ) {
        let mut world = World::new();
        for (step, generation) in steps {
            world.step(step);
            world.tell(&Event::TimerElapsed(TimerElapsed { timer: TimerKind::Poll, generation }));
            let look = &world.quota.look;
            let moves = look.due || look.in_flight.is_some() || look.queue.pending;
            prop_assert!(world.quota.queue.is_empty() || moves, "{:?}", world.quota);
        }
    }
}
