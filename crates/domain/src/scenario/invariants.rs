//! What holds of every state that a scenario comes to, and from each to the next: checked after
//! every event, in all tests that play one.

use std::collections::BTreeSet;

use crate::live_stream::LiveStream;
use crate::quota::Quota;
use crate::recording::{Part, Recording};
use crate::session::{Session, Status};
use crate::state::{Body, State};
use crate::webhook::VideoStatus;

/// Asserts what holds of `after`, and of the step from `before` to it.
pub(super) fn assert_kept(before: Option<&State>, after: &State) {
    assert!(before.is_none_or(|b| b.at <= after.at), "domain time runs backwards");
    match (before.map(|b| &b.body), &after.body) {
        (before, Body::LiveStream(after)) => {
            of_live_stream(after);
            if let Some(Body::LiveStream(before)) = before {
                step_of_live_stream(before, after);
            }
        }
        (Some(Body::Video(before)), Body::Video(after)) => {
            let was_deleted = before.seen.status == VideoStatus::Deleted;
            assert!(!was_deleted || after.seen.status == VideoStatus::Deleted, "resurrected");
        }
        (
            _,
            Body::Video(_)
            | Body::Request(_)
            | Body::Broadcast(_)
            | Body::Account(_)
            | Body::Cleanup(_),
        ) => {}
        (_, Body::Quota(quota)) => of_quota(quota),
    }
}

fn of_quota(quota: &Quota) {
    let granted = quota.grants.iter().map(|grant| &grant.claim);
    let sessions: BTreeSet<_> = granted.chain(&quota.queue).map(|claim| claim.session).collect();
    assert_eq!(sessions.len(), quota.grants.len() + quota.queue.len(), "one claim each");
    assert!(quota.queue.is_sorted_by_key(|claim| (claim.round, claim.order)), "in order");
    if let Some(slots) = quota.slots().filter(|_| !quota.just_granted.is_empty()) {
        assert!(quota.in_use() <= usize::try_from(slots).unwrap_or(usize::MAX), "{quota:?}");
    }
}

fn of_live_stream(stream: &LiveStream) {
    let ids: BTreeSet<_> = stream.sessions.iter().map(|s| s.id).collect();
    assert_eq!(ids.len(), stream.sessions.len(), "a session is bound once");
    assert!(stream.sessions.iter().filter(|s| s.calling).count() <= 1, "one session calls");
    let is_open = stream.sessions.iter().any(|s| !s.is_over());
    let moves =
        stream.in_flight.is_some() || stream.next_call().is_some() || stream.wait().is_some();
    assert!(!is_open || moves, "nothing will ever move it: {stream:?}");
    for session in &stream.sessions {
        of_session(session);
        for part in &session.recording.parts {
            assert_eq!(stream.videos.get(&part.video.id), Some(&session.id), "whose part");
        }
    }
}

fn of_session(session: &Session) {
    let last = session.moments.last().map(|m| m.status);
    assert_eq!(last, Some(session.status), "the status is that of the last moment");
    assert!(session.moments.is_sorted_by_key(|m| m.at), "moments are in order");
    let ended = session.moments.iter().filter(|m| m.status == Status::Ended).count();
    assert!(ended <= 1, "over once");
    assert!(!session.is_over() || session.waiting.is_none(), "over, and waits for nothing");
    assert!(!session.is_unstable() || !session.losses.recent.is_empty(), "unstable for a reason");
    if let Some(i) = &session.interruption {
        assert!(session.went_live_at.is_some(), "only what was on air is interrupted");
        assert!(!i.confirmed || i.lasts && i.asked, "confirmed by time and by asking");
    }
    assert!(!session.is_off_air() || !session.slot.open, "off air, and keeps no slot");
    of_recording(&session.recording);
}

fn of_recording(recording: &Recording) {
    let ids: BTreeSet<_> = recording.parts.iter().map(|p| p.video.id).collect();
    assert_eq!(ids.len(), recording.parts.len(), "no part twice");
    let began: Option<Vec<_>> =
        recording.parts.iter().map(|p| p.video.recording_started_at).collect();
    assert!(began.is_none_or(|began| began.is_sorted()), "parts in order of time");
    let gaps = recording.gaps();
    assert!(gaps.iter().all(|gap| gap.ms > 0), "a gap is one");
    assert!(gaps.is_sorted_by(|a, b| a.after_part < b.after_part), "gaps in order");
}

fn step_of_live_stream(before: &LiveStream, after: &LiveStream) {
    assert!(before.calls <= after.calls && before.interruptions <= after.interruptions);
    assert!(!before.deleted || after.deleted, "deleted is deleted");
    assert!(before.in_flight.is_none() || before.next_call().is_none(), "one call at a time");
    for (video, session) in &before.videos {
        assert_eq!(after.videos.get(video), Some(session), "a video keeps its session");
    }
    for was in &before.sessions {
        match after.sessions.iter().find(|s| s.id == was.id) {
            Some(is) => step_of_session(was, is),
            None => assert!(was.is_over(), "a session leaves when it is over"),
        }
    }
}

fn step_of_session(was: &Session, is: &Session) {
    assert!(!was.is_over() || is.is_over(), "over is over");
    assert!(!was.end || is.end, "an end is not taken back");
    assert!(was.interruptions <= is.interruptions);
    if was.went_live_at.is_some() {
        assert_eq!(was.went_live_at, is.went_live_at, "on air first, once");
    }
    if was.off_air_at.is_some() {
        assert_eq!(was.off_air_at, is.off_air_at, "off air once");
    }
    for part in &was.recording.parts {
        let now = is.recording.parts.iter().find(|p| p.video.id == part.video.id);
        step_of_part(part, now);
    }
}

fn step_of_part(was: &Part, is: Option<&Part>) {
    let Some(is) = is else { panic!("a part is never lost: {was:?}") };
    assert!(!was.was_playable || is.was_playable);
    assert!(!was.overdue || is.overdue);
    let was_deleted = was.video.status == VideoStatus::Deleted;
    assert!(!was_deleted || is.video.status == VideoStatus::Deleted, "resurrected");
}
