//! What a story expects, looked up in the tables and on the platform: the demonstration asks the API
//! and the simulator for the same.

use std::collections::BTreeSet;

use domain::view::SessionRow;
use serde_json::Value;

use super::agree;
use super::story::Expected;

/// What there is to look at.
pub(super) struct Seen<'a> {
    /// The session that something is expected of, once it has its live stream.
    pub(super) row: Option<&'a SessionRow>,
    /// What the platform shows.
    pub(super) state: &'a Value,
    /// What really happened.
    pub(super) truth: &'a [Value],
    /// The videos that we were told of.
    pub(super) told: &'a BTreeSet<i64>,
}

/// The session that something is expected of.
pub(super) fn session_of(expected: &Expected) -> Option<&str> {
    match expected {
        Expected::Is { session, .. }
        | Expected::NeverWas { session, .. }
        | Expected::IsRecorded { session }
        | Expected::WaitsForSlot { session }
        | Expected::Parts { session, .. }
        | Expected::Recording { session, .. }
        | Expected::Agrees { session }
        | Expected::LiveStreams { session, .. } => Some(session),
        Expected::Active { .. } => None,
    }
}

/// Whether it is as expected.
pub(super) fn holds(expected: &Expected, seen: &Seen<'_>) -> bool {
    let is = |holds: &dyn Fn(&SessionRow) -> bool| seen.row.is_some_and(holds);
    match expected {
        Expected::Is { status, .. } => is(&|row| row.status == *status),
        Expected::NeverWas { status, .. } => {
            is(&|row| row.detail.moments.iter().all(|moment| moment.status.name() != status))
        }
        Expected::IsRecorded { .. } => is(&|row| is_recorded(seen.state, row.live_stream.0)),
        Expected::WaitsForSlot { .. } => is(&|row| row.detail.waits_for_slot.is_some()),
        Expected::Parts { count, .. } => is(&|row| row.detail.parts.len() == *count),
        Expected::Recording { word, .. } => {
            is(&|row| row.detail.recording.as_deref() == Some(word.as_str()))
        }
        Expected::Agrees { session } => is(&|row| {
            let sessions = [(session.clone(), row.clone())];
            agree::parts_disagree(&sessions, seen.truth, seen.told).is_none()
        }),
        Expected::LiveStreams { session, count } => {
            let is_made = |one: &&Value| one["tag"]["data"]["story"] == session.as_str();
            seen.truth.iter().filter(is_made).count() == *count
        }
        Expected::Active { count } => seen.state["active_streams"] == *count,
    }
}

fn is_recorded(state: &Value, stream: i64) -> bool {
    let streams = state["streams"].as_array().into_iter().flatten();
    streams.into_iter().any(|one| one["id"] == stream && one["recording"] == true)
}
