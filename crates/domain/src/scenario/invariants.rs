//! What holds of every state, and from each to the next: checked after every event, in all tests
//! that play a scenario, and after every transaction of the simulation.

use std::collections::BTreeSet;

use crate::live_stream::LiveStream;
use crate::quota::Quota;
use crate::recording::{Part, Recording};
use crate::session::{Session, Status};
use crate::state::{Body, State};
use crate::webhook::VideoStatus;

/// What does not hold, in words.
type Broken = String;

/// Fails with a law where it does not hold.
macro_rules! law {
    ($holds:expr, $($told:tt)+) => {
        if !$holds {
            return Err(format!($($told)+));
        }
    };
}

/// Checks what holds of `after`, and of the step from `before` to it.
///
/// # Errors
/// The law that is broken.
pub fn check(before: Option<&State>, after: &State) -> Result<(), Broken> {
    law!(before.is_none_or(|b| b.at <= after.at), "domain time runs backwards");
    match (before.map(|b| &b.body), &after.body) {
        (before, Body::LiveStream(after)) => {
            of_live_stream(after)?;
            let Some(Body::LiveStream(before)) = before else { return Ok(()) };
            step_of_live_stream(before, after)
        }
        (Some(Body::Video(before)), Body::Video(after)) => {
            let was_deleted = before.seen.status == VideoStatus::Deleted;
            law!(
                !was_deleted || after.seen.status == VideoStatus::Deleted,
                "a deleted video is resurrected: {after:?}"
            );
            Ok(())
        }
        (
            _,
            Body::Video(_)
            | Body::Request(_)
            | Body::Broadcast(_)
            | Body::Account(_)
            | Body::Cleanup(_),
        ) => Ok(()),
        (_, Body::Quota(quota)) => of_quota(quota),
    }
}

fn of_quota(quota: &Quota) -> Result<(), Broken> {
    let granted = quota.grants.iter().map(|grant| &grant.claim);
    let sessions: BTreeSet<_> = granted.chain(&quota.queue).map(|claim| claim.session).collect();
    law!(sessions.len() == quota.grants.len() + quota.queue.len(), "a session claims twice");
    let in_order = quota.queue.is_sorted_by_key(|claim| (claim.round, claim.order));
    law!(in_order, "the queue is out of order");
    if let Some(slots) = quota.slots().filter(|_| !quota.just_granted.is_empty()) {
        let is_within = quota.in_use() <= usize::try_from(slots).unwrap_or(usize::MAX);
        law!(is_within, "more slots than there are: {quota:?}");
    }
    Ok(())
}

fn of_live_stream(stream: &LiveStream) -> Result<(), Broken> {
    let ids: BTreeSet<_> = stream.sessions.iter().map(|s| s.id).collect();
    law!(ids.len() == stream.sessions.len(), "a session is bound twice");
    let calling = stream.sessions.iter().filter(|s| s.calling).count();
    law!(calling <= 1, "{calling} sessions call");
    let is_open = stream.sessions.iter().any(|s| !s.is_over());
    let moves =
        stream.in_flight.is_some() || stream.next_call().is_some() || stream.wait().is_some();
    law!(!is_open || moves, "nothing will ever move it: {stream:?}");
    for session in &stream.sessions {
        of_session(session)?;
        for part in &session.recording.parts {
            let owner = stream.videos.get(&part.video.id);
            law!(owner == Some(&session.id), "video {} is {owner:?}'s too", part.video.id.0);
        }
    }
    Ok(())
}

fn of_session(session: &Session) -> Result<(), Broken> {
    let last = session.moments.last().map(|m| m.status);
    law!(last == Some(session.status), "{:?} is not the last moment's status", session.status);
    law!(session.moments.is_sorted_by_key(|m| m.at), "moments are out of order");
    let ended = session.moments.iter().filter(|m| m.status == Status::Ended).count();
    law!(ended <= 1, "over {ended} times");
    law!(!session.is_over() || session.waiting.is_none(), "over, and waits for something");
    let unstable = session.is_unstable();
    law!(!unstable || !session.losses.recent.is_empty(), "unstable without a reason");
    if let Some(i) = &session.interruption {
        law!(session.went_live_at.is_some(), "interrupted, and never was on air");
        law!(!i.confirmed || i.lasts && i.asked, "an interruption nobody confirmed: {i:?}");
    }
    law!(!session.is_off_air() || !session.slot.open, "off air, and keeps a slot");
    of_recording(&session.recording)
}

fn of_recording(recording: &Recording) -> Result<(), Broken> {
    let ids: BTreeSet<_> = recording.parts.iter().map(|p| p.video.id).collect();
    law!(ids.len() == recording.parts.len(), "a part is there twice");
    let began: Option<Vec<_>> =
        recording.parts.iter().map(|p| p.video.recording_started_at).collect();
    law!(began.is_none_or(|began| began.is_sorted()), "parts are out of order");
    let gaps = recording.gaps();
    law!(gaps.iter().all(|gap| gap.ms > 0), "a gap is none: {gaps:?}");
    let in_order = gaps.is_sorted_by(|a, b| a.after_part < b.after_part);
    law!(in_order, "gaps are out of order: {gaps:?}");
    Ok(())
}

fn step_of_live_stream(before: &LiveStream, after: &LiveStream) -> Result<(), Broken> {
    law!(before.calls <= after.calls, "calls are counted backwards");
    law!(before.interruptions <= after.interruptions, "interruptions are counted backwards");
    law!(!before.deleted || after.deleted, "a deleted live stream is back");
    law!(before.in_flight.is_none() || before.next_call().is_none(), "two calls at a time");
    for (video, session) in &before.videos {
        let now = after.videos.get(video);
        law!(now == Some(session), "video {} goes from {session} to {now:?}", video.0);
    }
    for was in &before.sessions {
        match after.sessions.iter().find(|s| s.id == was.id) {
            Some(is) => step_of_session(was, is)?,
            None => law!(was.is_over(), "a session leaves that is not over"),
        }
    }
    Ok(())
}

fn step_of_session(was: &Session, is: &Session) -> Result<(), Broken> {
    law!(!was.is_over() || is.is_over(), "over, and not over again");
    law!(!was.end || is.end, "an end is taken back");
    law!(was.interruptions <= is.interruptions, "interruptions are counted backwards");
    let first = was.went_live_at;
    law!(first.is_none() || first == is.went_live_at, "on air for the first time twice");
    let off = was.off_air_at;
    law!(off.is_none() || off == is.off_air_at, "off air twice");
    for part in &was.recording.parts {
        let now = is.recording.parts.iter().find(|p| p.video.id == part.video.id);
        step_of_part(part, now)?;
    }
    Ok(())
}

fn step_of_part(was: &Part, is: Option<&Part>) -> Result<(), Broken> {
    let Some(is) = is else { return Err(format!("a part is lost: {was:?}")) };
    law!(!was.was_playable || is.was_playable, "a part was never playable any more");
    law!(!was.overdue || is.overdue, "a part is not overdue any more");
    let was_deleted = was.video.status == VideoStatus::Deleted;
    law!(
        !was_deleted || is.video.status == VideoStatus::Deleted,
        "a deleted part is resurrected: {is:?}"
    );
    Ok(())
}
