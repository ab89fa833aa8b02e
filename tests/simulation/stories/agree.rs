//! What must be so in the end: what we say of each session is what really happened, and nothing is
//! left behind.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;
use domain::ids::Timestamp;
use domain::quota::Quota;
use domain::view::{PartDetail, SessionRow};
use serde_json::Value;

/// How far gaps may differ.
const TOLERANCE: TimeDelta = TimeDelta::seconds(1);

/// The first thing that is otherwise than it really is; `None`: all agrees. Names begin with `ends`
/// or `agrees`, as those of laws.
pub(super) fn disagreement(
    sessions: &[(String, SessionRow)],
    truth: &[Value],
    told: &BTreeSet<i64>,
    quota: Option<&Quota>,
) -> Option<String> {
    let by_stream = streams(sessions);
    let apart = by_stream.iter().find_map(|(id, sessions)| {
        let Some(real) = truth.iter().find(|one| one["id"] == *id) else {
            return Some(format!("live stream {id} never was"));
        };
        parts(sessions, real, told).or_else(|| gaps(sessions)).or_else(|| left(sessions, real))
    });
    apart.map(|told| format!("agrees: {told}")).or_else(|| slots(quota))
}

/// The first part that is otherwise than it really is.
pub(super) fn parts_disagree(
    sessions: &[(String, SessionRow)],
    truth: &[Value],
    told: &BTreeSet<i64>,
) -> Option<String> {
    streams(sessions).iter().find_map(|(id, sessions)| {
        parts(sessions, truth.iter().find(|one| one["id"] == *id)?, told)
    })
}

/// Sessions by their live streams, in the order in which they had it.
fn streams(sessions: &[(String, SessionRow)]) -> BTreeMap<i64, Vec<&(String, SessionRow)>> {
    let mut streams: BTreeMap<i64, Vec<&(String, SessionRow)>> = BTreeMap::new();
    for session in sessions {
        streams.entry(session.1.live_stream.0).or_default().push(session);
    }
    for sessions in streams.values_mut() {
        // Two that were asked for in one moment had it one after the other all the same.
        sessions.sort_by_cached_key(|(_, row)| {
            row.detail.moments.iter().map(|moment| moment.at).collect::<Vec<_>>()
        });
    }
    streams
}

/// The parts of a live stream's sessions are its recordings, in their order and their states; but
/// for what was deleted before anybody was told of it.
fn parts(sessions: &[&(String, SessionRow)], real: &Value, told: &BTreeSet<i64>) -> Option<String> {
    let is_known = |video: &Value| {
        video["deleted"].is_null() || video["id"].as_i64().is_some_and(|id| told.contains(&id))
    };
    let is_recording = |video: &&Value| video["origin"] == "recording" && is_known(video);
    let mut videos: Vec<&Value> = list(real, "videos").filter(is_recording).collect();
    videos.sort_by_key(|video| (time(&video["from"]), video["id"].as_i64()));
    let ours: Vec<&PartDetail> = sessions.iter().flat_map(|(_, row)| &row.detail.parts).collect();
    let real_ids: Vec<i64> = videos.iter().filter_map(|video| video["id"].as_i64()).collect();
    let our_ids: Vec<i64> = ours.iter().map(|part| part.video.0).collect();
    if real_ids != our_ids {
        return Some(format!("the recordings are {real_ids:?}, and we say {our_ids:?}"));
    }
    videos.iter().zip(ours).find_map(|(video, part)| {
        let deleted = !video["deleted"].is_null();
        let status = if deleted { "deleted" } else { video["status"].as_str().unwrap_or_default() };
        let (id, ours) = (part.video.0, part.status.as_str());
        let length = video["duration_ms"].as_i64();
        if status != ours {
            Some(format!("video {id} is {status}, and we say {ours}"))
        } else if length != part.duration_ms {
            Some(format!("video {id} lasts {length:?}, and we say {:?}", part.duration_ms))
        } else {
            None
        }
    })
}

/// The gaps of a session are those between its parts.
fn gaps(sessions: &[&(String, SessionRow)]) -> Option<String> {
    sessions.iter().find_map(|(name, row)| {
        (1..).zip(row.detail.parts.windows(2)).find_map(|(after, pair)| {
            let end = pair[0].recording_started_at? + TimeDelta::milliseconds(pair[0].duration_ms?);
            let real = (pair[1].recording_started_at? - end).max(TimeDelta::zero());
            let ours = row.detail.gaps.iter().find(|gap| gap.after_part == after);
            let ours = TimeDelta::milliseconds(ours.map_or(0, |gap| gap.ms));
            ((real - ours).abs() > TOLERANCE).then(|| {
                format!("the gap after part {after} of {name} is {real}, and we say {ours}")
            })
        })
    })
}

/// Nothing of ours is left active, and no broadcast is left open.
fn left(sessions: &[&(String, SessionRow)], real: &Value) -> Option<String> {
    let id = &real["id"];
    if real["active"] == true {
        return Some(format!("live stream {id} is still active"));
    }
    let ours: BTreeSet<i64> =
        sessions.iter().filter_map(|(_, row)| row.detail.broadcast.map(|id| id.0)).collect();
    list(real, "broadcasts").find_map(|broadcast| {
        let is_ours = broadcast["id"].as_i64().is_some_and(|id| ours.contains(&id));
        if !broadcast["deleted"].is_null() {
            return None;
        }
        let whose = if is_ours { "its session's" } else { "nobody's" };
        Some(format!("broadcast {} of live stream {id} is left, {whose}", broadcast["id"]))
    })
}

/// Nobody has or waits for a slot.
fn slots(quota: Option<&Quota>) -> Option<String> {
    let quota = quota?;
    let is_empty = quota.grants.is_empty() && quota.queue.is_empty();
    (!is_empty).then(|| format!("agrees: slots are left: {:?} {:?}", quota.grants, quota.queue))
}

fn list<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value[field].as_array().into_iter().flatten()
}

fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}
