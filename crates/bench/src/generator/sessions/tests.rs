//! Histories are whole, repeatable, and what a worker would have made.

use std::collections::{BTreeMap, BTreeSet};

use domain::state::Body;

use super::*;

const SESSIONS: u64 = 16;

fn history() -> (Vec<Emitted>, History) {
    history_after(vec![0; 16], Left::default())
}

fn history_after(heads: Vec<i64>, left: Left) -> (Vec<Emitted>, History) {
    let mut history = History::plan(SliceCount::DEFAULT, heads, Uuid::nil(), left, SESSIONS);
    let mut events = Vec::new();
    while let Some(emitted) = history.next() {
        events.extend(emitted);
    }
    (events, history)
}

#[test]
fn every_session_folds_to_ended_and_leaves_nothing_to_do() {
    let (events, history) = history();
    assert_eq!(history.ended(), SESSIONS);
    for (subject, state) in &history.states {
        if let Body::LiveStream(live_stream) = &state.body {
            assert!(live_stream.next_call().is_none() && live_stream.in_flight.is_none());
            assert!(
                live_stream.sessions.iter().all(domain::session::Session::is_over),
                "{subject}"
            );
        }
    }
    let failed = events.iter().filter(|e| e.event.event_type == "SessionFailed").count();
    assert_eq!(failed, 0);
}

#[test]
fn all_kinds_of_events_of_a_session_occur() {
    let (events, _) = history();
    let found: BTreeSet<&str> = events.iter().map(|e| e.event.event_type.as_str()).collect();
    for kind in [
        "WebhookReceived",
        "SessionRequested",
        "GoLiveRequested",
        "EndRequested",
        "SessionBound",
        "Bound",
        "VideoChanged",
        "CallIntended",
        "CallSucceeded",
        "SlotGranted",
        "TimerElapsed",
        "SessionReady",
        "SessionTestStarted",
        "SessionWentLive",
        "SessionInterrupted",
        "SessionResumed",
        "SessionStopped",
        "RecordingPartReady",
        "RecordingReady",
        "SessionEnded",
    ] {
        assert!(found.contains(kind), "no {kind} in {found:?}");
    }
}

#[test]
fn no_key_is_appended_twice_so_that_positions_are_those_of_the_log() {
    let (first, history) = history();
    let (second, history) = history_after(history.heads().to_vec(), history.left());
    let mut keys = BTreeSet::new();
    let mut ids = BTreeSet::new();
    let mut heads = vec![0; 16];
    for Emitted { slice, event } in first.iter().chain(&second) {
        assert!(event.key.is_none_or(|key| keys.insert((*slice, key))), "{event:?}");
        assert!(ids.insert(event.event_id), "{event:?}");
        assert_eq!(SliceCount::DEFAULT.slice_of(&event.subject), *slice);
        heads[usize::from(slice.unsigned_abs())] += 1;
    }
    assert_eq!(heads, history.heads());
}

#[test]
fn histories_repeat_and_those_that_follow_each_other_share_no_subject() {
    let subjects = |events: &[Emitted]| -> BTreeSet<Subject> {
        // All sessions of a source share its quota.
        let own = events.iter().filter(|e| e.event.subject != Subject::quota(SOURCE));
        own.map(|e| e.event.subject.clone()).collect()
    };
    let ((one, first), (same, _)) = (history(), history());
    let (other, _) = history_after(first.heads().to_vec(), first.left());
    assert!(one.iter().map(|e| &e.event).eq(same.iter().map(|e| &e.event)));
    assert!(subjects(&one).is_disjoint(&subjects(&other)));
}

#[test]
fn sessions_overlap_in_the_log() {
    let (events, _) = history();
    let ended = events.iter().position(|e| e.event.event_type == "SessionEnded").unwrap();
    let begun = events[..ended].iter().filter(|e| e.event.event_type == "SessionRequested").count();
    assert!(begun > 5, "{begun} sessions had begun when the first ended");
}

/// Plans rest on these figures; they may change with the rules of a session, and are told here.
#[test]
fn a_session_has_about_as_many_events_as_plans_say() {
    let (events, _) = history();
    let mut subjects: BTreeMap<&Subject, usize> = BTreeMap::new();
    for event in &events {
        *subjects.entry(&event.event.subject).or_default() += 1;
    }
    let bytes: usize = events.iter().map(|e| e.event.payload.len()).sum();
    let per_session = events.len() as u64 / SESSIONS;
    println!(
        "{per_session} events a session, {} subjects a session, {} events a subject, {} bytes",
        subjects.len() as u64 / SESSIONS,
        events.len() / subjects.len(),
        bytes / events.len(),
    );
    assert!((PER_SESSION / 2..PER_SESSION * 2).contains(&per_session), "{per_session}");
}
