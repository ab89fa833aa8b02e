//! Queues for slots, played on whole installations in virtual time.

use std::time::Duration;

use uuid::Uuid;

use super::*;
use crate::announcement::Announcement;
use crate::ids::Subject;
use crate::scenario::{Answer, SOURCE, Scenario};
use crate::session::Status;
use crate::state::Body;

const SLOT: Duration = Duration::from_secs(30);

/// An installation whose platform has `slots`, which it knows or not.
fn installation(slots: usize, is_known: bool) -> Scenario {
    let mut s = Scenario::new();
    s.platform.slots = Some(slots);
    if is_known {
        s.policy.slots.insert(SOURCE.to_owned(), u32::try_from(slots).unwrap());
    }
    s
}

fn quota(s: &Scenario) -> Quota {
    let state = s.state(&Subject::quota(SOURCE)).map(|state| &state.body);
    let Some(Body::Quota(quota)) = state else { panic!("no quota: {state:?}") };
    quota.clone()
}

/// Sessions of `accounts`, in this order.
fn ask(s: &mut Scenario, accounts: &[&str]) -> Vec<Uuid> {
    let first = s.log().len();
    let ask = |(n, account): (usize, &&str)| {
        s.request(&format!("key-{first}-{n}"), |r| r.account = Some((*account).to_owned()))
    };
    accounts.iter().enumerate().map(ask).collect()
}

/// Which of `sessions` has its slot, by number.
fn ready(s: &Scenario, sessions: &[Uuid]) -> Vec<usize> {
    let is_ready = |id: &Uuid| s.session(*id).status == Status::Ready;
    (0..sessions.len()).filter(|n| is_ready(&sessions[*n])).collect()
}

#[test]
fn without_a_bound_everybody_is_let_in_and_nothing_is_kept() {
    let mut s = Scenario::new();
    let sessions = ask(&mut s, &["a", "b", "a"]);
    assert_eq!(ready(&s, &sessions), [0, 1, 2]);
    let quota = quota(&s);
    assert!(quota.grants.is_empty() && quota.queue.is_empty() && quota.others.is_empty());
    assert!(!s.calls().contains(&"observe_quota"));
}

#[test]
fn slots_that_end_are_passed_on_at_once_in_turns_of_the_accounts() {
    let mut s = installation(1, true);
    let sessions = ask(&mut s, &["a", "a", "a", "b", "c"]);
    assert_eq!(ready(&s, &sessions), [0]);
    let mut order = Vec::new();
    let mut at = 0;
    for _ in 1..sessions.len() {
        s.end(sessions[at]);
        let ready = ready(&s, &sessions);
        assert_eq!(ready.len(), 1, "one at a time");
        at = ready[0];
        order.push(at);
    }
    // The second of a came before b and c; its third waits for a turn of theirs.
    assert_eq!(order, [1, 3, 4, 2]);
    let refused =
        s.log().iter().filter(|e| String::from_utf8_lossy(&e.payload).contains("\"deferred\""));
    assert_eq!(refused.count(), 0, "nobody tried in vain");
}

#[test]
fn a_place_is_told_and_visible() {
    let mut s = installation(1, true);
    let sessions = ask(&mut s, &["a", "b", "c"]);
    let told: Vec<_> = s
        .announcements()
        .into_iter()
        .filter_map(|a| if let Announcement::QuotaWaiting(news) = a { Some(news) } else { None })
        .map(|news| (news.session, news.place.unwrap()))
        .collect();
    assert_eq!(told, [(sessions[1], 1), (sessions[2], 2)]);
    assert_eq!(quota(&s).place(sessions[2]), Some(2));
    s.end(sessions[1]);
    assert_eq!(quota(&s).place(sessions[2]), Some(1));
    // It hears of its better place when it asks again.
    s.given();
    s.pass(SLOT);
    s.then_announced(&["QuotaWaiting"]);
    assert_eq!(s.session(sessions[2]).slot.place, Some(1));
}

#[test]
fn whoever_ends_while_waiting_leaves_the_queue() {
    let mut s = installation(1, true);
    let sessions = ask(&mut s, &["a", "b", "c"]);
    s.end(sessions[1]);
    s.then_status(sessions[1], Status::Ended);
    assert_eq!(quota(&s).queue.len(), 1);
    s.end(sessions[0]);
    assert_eq!(ready(&s, &sessions), [2]);
    s.end(sessions[2]);
    let quota = quota(&s);
    assert_eq!((quota.in_use(), quota.queue.len()), (0, 0));
}

#[test]
fn a_refusal_teaches_the_bound_and_what_is_active_is_counted() {
    let mut s = installation(3, false);
    s.platform.set(1, |t| t.active = true);
    let sessions = ask(&mut s, &["a", "b", "c"]);
    assert_eq!(ready(&s, &sessions), [0, 1]);
    let quota = quota(&s);
    assert_eq!((quota.slots(), quota.in_use(), quota.place(sessions[2])), (Some(3), 3, Some(1)));
    s.end(sessions[0]);
    assert_eq!(ready(&s, &sessions), [1, 2], "no refusal holds up what is free");
}

#[test]
fn a_slot_that_others_free_is_found() {
    let mut s = installation(2, true);
    s.platform.set(1, |t| t.active = true);
    let sessions = ask(&mut s, &["a", "b"]);
    assert_eq!(ready(&s, &sessions), [0]);
    s.given();
    s.pass(SLOT);
    assert!(s.calls().contains(&"observe_quota"));
    s.platform.set(1, |t| t.active = false);
    s.pass(SLOT * 2);
    assert_eq!(ready(&s, &sessions), [0, 1]);
}

#[test]
fn a_raised_quota_is_found_by_trying_more_each_time() {
    let mut s = installation(1, false);
    let sessions = ask(&mut s, &["a"; 9]);
    assert_eq!(ready(&s, &sessions).len(), 1);
    s.platform.slots = Some(20);
    // 1 more, 2 more, 4 more, the rest.
    s.pass(SLOT * 2);
    assert!(ready(&s, &sessions).len() >= 2);
    s.pass(SLOT * 4);
    assert_eq!(ready(&s, &sessions).len(), 9);
}

#[test]
fn tries_beyond_the_bound_become_rare() {
    let mut s = installation(1, false);
    ask(&mut s, &["a", "b"]);
    s.given();
    s.pass(Duration::from_hours(1));
    let calls = s.calls();
    let tries = calls.iter().filter(|kind| **kind == "activate_live_stream").count();
    assert!((5..=20).contains(&tries), "{tries} tries in an hour");
}

#[test]
fn a_slot_whose_live_stream_is_found_inactive_is_taken_back() {
    let mut s = installation(1, true);
    let sessions = ask(&mut s, &["a"]);
    s.pass(s.policy.slot_sweep * 2);
    assert!(quota(&s).grants[0].seen, "a sweep found it active");
    // Its own subject hears nothing: the polls are answered as if all were well.
    s.platform.hold("observe_live_stream");
    s.platform.set(320_423, |t| t.active = false);
    s.pass(s.policy.slot_sweep + SLOT);
    let quota = quota(&s);
    assert_eq!((quota.grants.len(), quota.in_use()), (0, 0), "{sessions:?}");
}

#[test]
fn sessions_of_before_the_bound_was_configured_are_counted() {
    let mut s = installation(2, false);
    let before = ask(&mut s, &["a", "b"]);
    assert_eq!(ready(&s, &before), [0, 1]);
    s.policy.slots.insert(SOURCE.to_owned(), 2);
    let after = ask(&mut s, &["c"]);
    assert!(ready(&s, &after).is_empty());
    assert_eq!(quota(&s).others.len(), 2);
    s.end(before[0]);
    assert_eq!(ready(&s, &after), [0]);
}

#[test]
fn a_live_stream_that_somebody_switched_on_already_needs_no_slot_more() {
    let mut s = installation(1, true);
    s.platform.set(320_423, |t| t.active = true);
    s.platform.hold("create_broadcast");
    let session = s.request("key", |_| {});
    s.platform.set(320_423, |t| t.active = true);
    s.let_go("create_broadcast");
    s.then_status(session, Status::Ready);
    assert_eq!(quota(&s).in_use(), 1);
}

#[test]
fn another_number_of_slots_applies_to_those_that_wait() {
    let mut s = installation(5, false);
    s.policy.slots.insert(SOURCE.to_owned(), 1);
    let sessions = ask(&mut s, &["a", "b", "c"]);
    assert_eq!(ready(&s, &sessions), [0]);
    s.policy.slots.insert(SOURCE.to_owned(), 2);
    s.pass(SLOT);
    assert_eq!(ready(&s, &sessions), [0, 1]);
    s.policy.slots.clear();
    s.pass(SLOT * 10);
    assert_eq!(ready(&s, &sessions), [0, 1, 2]);
}

#[test]
fn a_look_that_fails_holds_nobody_up() {
    let mut s = installation(2, true);
    s.platform.script("observe_quota", Answer::Failed("500".to_owned()));
    let sessions = ask(&mut s, &["a", "b", "c"]);
    assert_eq!(ready(&s, &sessions), [0, 1]);
}

#[test]
fn a_session_that_waits_too_long_fails_and_leaves_the_queue() {
    let mut s = installation(1, true);
    s.policy.limits.slot = Duration::from_mins(10);
    s.policy.limits.encoder = Duration::ZERO;
    let sessions = ask(&mut s, &["a", "b"]);
    s.pass(Duration::from_mins(16));
    s.then_status(sessions[1], Status::Failed);
    assert!(quota(&s).queue.is_empty());
    s.retry(sessions[1]);
    assert_eq!(quota(&s).place(sessions[1]), Some(1));
    s.end(sessions[0]);
    s.then_status(sessions[1], Status::Ready);
}

#[test]
fn ten_thousand_grants_leave_a_small_state() {
    let mut quota = Quota::default();
    let at = Timestamp::default();
    quota.evolve(
        &Event::Slot(SlotEvent::Configured(crate::slot::SlotsConfigured { slots: Some(5) })),
        at,
    );
    quota.look.holds = false;
    for n in 0..10_000_u128 {
        let session = Uuid::from_u128(n);
        let live_stream = LiveStreamId(i64::try_from(n).unwrap());
        quota.evolve(
            &Event::Slot(SlotEvent::Requested(SlotRequested {
                session,
                live_stream,
                account: Some(n.to_string()),
                ticket: 1,
                refused: false,
                place: None,
            })),
            at,
        );
        let gone = n.saturating_sub(7);
        quota.evolve(
            &Event::Slot(SlotEvent::Released(SlotReleased {
                session: Uuid::from_u128(gone),
                live_stream: LiveStreamId(i64::try_from(gone).unwrap()),
                ticket: 1,
                inactive: true,
            })),
            at,
        );
    }
    assert!(serde_json::to_vec(&quota).unwrap().len() < 4096);
}
