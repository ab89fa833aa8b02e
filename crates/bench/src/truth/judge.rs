//! Compares what we say of a session with what the simulated platform says really happened.
//!
//! A session *matches* if it is over, its parts are the recordings of its live stream in their order,
//! each with the state in which its video really is, and the gaps between them are those between the
//! files. Pure: it takes two documents.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

/// What came of one session.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Verdict {
    /// It is over.
    pub(crate) ended: bool,
    /// What is wrong, in words; nothing: it matches.
    pub(crate) wrong: Vec<String>,
    /// Live streams and broadcasts beyond the one of each.
    pub(crate) duplicates: usize,
    /// Videos and live streams that were deleted by a call, which nobody asked for.
    pub(crate) wrong_deletes: usize,
    /// Recordings that are no part of it.
    pub(crate) lost_parts: usize,
    /// Milliseconds recorded.
    pub(crate) recorded_ms: i64,
    /// Milliseconds during which media reached the platform.
    pub(crate) live_ms: i64,
    /// From the last thing that happened on the platform to our knowing that all is over.
    pub(crate) converged_ms: Option<i64>,
}

/// Judges a session by what is `told` of it and the truth of all live streams that were made for it.
/// `tolerance` is how far gaps may differ.
pub(crate) fn judge(told: &Value, truths: &[&Value], tolerance: TimeDelta) -> Verdict {
    let mut verdict = Verdict { ended: told["status"] == "ended", ..Verdict::default() };
    if !verdict.ended {
        verdict.wrong.push(format!("it is {} and not ended", told["status"]));
    }
    let Some(truth) = truths.iter().find(|one| one["id"] == told["live_stream_id"]) else {
        verdict.wrong.push("its live stream is not among those made for it".to_owned());
        return verdict;
    };
    count_objects(&mut verdict, truths, truth);
    let videos = recordings(truth);
    compare_parts(&mut verdict, told, &videos);
    compare_gaps(&mut verdict, told, &videos, tolerance);
    if truth["active"] == true {
        verdict.wrong.push("its live stream is still active".to_owned());
    }
    for broadcast in list(truth, "broadcasts") {
        let label = list(broadcast, "labels").last().map(|label| label["status"].clone());
        if broadcast["deleted"].is_null() {
            verdict.wrong.push(format!("broadcast {} was not deleted", broadcast["id"]));
        } else if label.is_some_and(|label| label != "finished") {
            verdict.wrong.push(format!("broadcast {} was not finished", broadcast["id"]));
        }
    }
    verdict.recorded_ms = list(truth, "files")
        .filter(|file| !file["video"].is_null())
        .filter_map(|file| file["media_ms"].as_i64())
        .sum();
    verdict.live_ms = media_time(truth).num_milliseconds();
    verdict.converged_ms = converged(told, truth).map(|time| time.num_milliseconds());
    verdict
}

/// Counts what was made more than once, and deleted without reason.
fn count_objects(verdict: &mut Verdict, truths: &[&Value], truth: &Value) {
    let broadcasts = list(truth, "broadcasts").count();
    verdict.duplicates = truths.len() - 1 + broadcasts.saturating_sub(1);
    if truths.len() > 1 {
        verdict.wrong.push(format!("{} live streams were made for it", truths.len()));
    }
    if broadcasts > 1 {
        verdict.wrong.push(format!("{broadcasts} broadcasts were made for it"));
    }
    let by_api = |object: &&Value| object["deleted"]["by"] == "api";
    let videos = list(truth, "videos").filter(by_api).count();
    verdict.wrong_deletes = videos + truths.iter().filter(|truth| by_api(truth)).count();
    if verdict.wrong_deletes > 0 {
        verdict.wrong.push("something was deleted that nobody asked to delete".to_owned());
    }
}

/// The recordings of a live stream, in order of time.
fn recordings(truth: &Value) -> Vec<&Value> {
    let is_recording = |video: &&Value| video["origin"] == "recording";
    let mut videos: Vec<&Value> = list(truth, "videos").filter(is_recording).collect();
    videos.sort_by_key(|video| (time(&video["from"]), video["id"].as_i64()));
    videos
}

/// The state in which a video really is.
fn state(video: &Value) -> &str {
    let is_deleted = !video["deleted"].is_null();
    if is_deleted { "deleted" } else { video["status"].as_str().unwrap_or_default() }
}

fn compare_parts(verdict: &mut Verdict, told: &Value, videos: &[&Value]) {
    let real: Vec<i64> = videos.iter().filter_map(|video| video["id"].as_i64()).collect();
    let ours: Vec<i64> = list(told, "parts").filter_map(|part| part["video_id"].as_i64()).collect();
    let known: BTreeSet<i64> = ours.iter().copied().collect();
    verdict.lost_parts = real.iter().filter(|id| !known.contains(id)).count();
    if real != ours {
        verdict.wrong.push(format!("its parts are {real:?}, and we say {ours:?}"));
    }
    for (video, part) in videos.iter().filter_map(|video| {
        list(told, "parts").find(|part| part["video_id"] == video["id"]).map(|part| (video, part))
    }) {
        let (real, ours) = (state(video), part["status"].as_str().unwrap_or_default());
        if real != ours {
            verdict.wrong.push(format!("video {} is {real}, and we say {ours}", video["id"]));
        }
        let (real, ours) = (video["duration_ms"].as_i64(), part["duration_ms"].as_i64());
        if real != ours {
            let id = &video["id"];
            verdict.wrong.push(format!("video {id} lasts {real:?} ms, and we say {ours:?}"));
        }
    }
}

fn compare_gaps(verdict: &mut Verdict, told: &Value, videos: &[&Value], tolerance: TimeDelta) {
    let is_between = |after: i64| usize::try_from(after).is_ok_and(|n| n > 0 && n < videos.len());
    for gap in list(told, "gaps").filter(|gap| !gap["after_part"].as_i64().is_some_and(is_between))
    {
        verdict.wrong.push(format!("no two recordings have the gap {gap} between them"));
    }
    for (n, pair) in videos.windows(2).enumerate() {
        let real = gap(pair[0], pair[1]).unwrap_or_default().max(TimeDelta::zero());
        let after = n + 1;
        let ours = list(told, "gaps").find(|gap| gap["after_part"] == after);
        let ours = ours.and_then(|gap| gap["ms"].as_i64()).unwrap_or_default();
        if (real - TimeDelta::milliseconds(ours)).abs() > tolerance {
            let real = real.num_milliseconds();
            verdict
                .wrong
                .push(format!("the gap after part {after} is {real} ms, and we say {ours}"));
        }
    }
}

/// The time between two files.
fn gap(before: &Value, after: &Value) -> Option<TimeDelta> {
    let length = TimeDelta::milliseconds(before["duration_ms"].as_i64()?);
    Some(time(&after["from"])? - (time(&before["from"])? + length))
}

/// How long media reached the platform: an encoder sent, and the live stream was live.
fn media_time(truth: &Value) -> TimeDelta {
    let stretches = |field: &str| -> Vec<(DateTime<Utc>, DateTime<Utc>)> {
        list(truth, field)
            .filter_map(|one| Some((time(&one["from"])?, time(&one["to"])?)))
            .collect()
    };
    let mut sending = stretches("sending");
    sending.sort_unstable();
    // Two lines that send at once are one.
    let mut merged: Vec<(DateTime<Utc>, DateTime<Utc>)> = Vec::new();
    for (from, to) in sending {
        match merged.last_mut().filter(|last| last.1 >= from) {
            Some(last) => last.1 = last.1.max(to),
            None => merged.push((from, to)),
        }
    }
    let live = stretches("live");
    let both = |(from, to): &(DateTime<Utc>, DateTime<Utc>)| {
        let shared = live.iter().map(|(begin, end)| *to.min(end) - *from.max(begin));
        shared.filter(|time| *time > TimeDelta::zero()).sum::<TimeDelta>()
    };
    merged.iter().map(both).sum()
}

/// The time from the last thing that happened to the end that we tell.
fn converged(told: &Value, truth: &Value) -> Option<TimeDelta> {
    let ended = list(told, "moments").find(|moment| moment["status"] == "ended")?;
    let switched = list(truth, "switches").filter_map(|switch| time(&switch["at"]));
    let videos = list(truth, "videos").filter_map(|video| time(&video["changed_at"]));
    let broadcasts = list(truth, "broadcasts").filter_map(|one| time(&one["deleted"]["at"]));
    let silent = list(truth, "live").filter_map(|live| time(&live["to"]));
    let last = switched.chain(videos).chain(broadcasts).chain(silent).max()?;
    Some((time(&ended["at"])? - last).max(TimeDelta::zero()))
}

/// The items of a list.
fn list<'a>(value: &'a Value, field: &str) -> impl DoubleEndedIterator<Item = &'a Value> {
    value[field].as_array().into_iter().flatten()
}

/// A time.
fn time(value: &Value) -> Option<DateTime<Utc>> {
    value.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TOLERANCE: TimeDelta = TimeDelta::milliseconds(50);

    /// A moment of the run.
    fn at(seconds: u32) -> Value {
        format!("2026-11-22T12:{:02}:{:02}Z", seconds / 60, seconds % 60).into()
    }

    /// A live stream with two files, ten seconds apart.
    fn truth() -> Value {
        json!({
            "id": 1, "active": false, "deleted": null,
            "switches": [{"active": true, "at": at(0)}, {"active": false, "at": at(200)}],
            "sending": [
                {"line": "primary", "from": at(1), "to": at(60)},
                {"line": "backup", "from": at(50), "to": at(70)},
                {"line": "primary", "from": at(80), "to": at(200)},
            ],
            "live": [{"from": at(2), "to": at(73)}, {"from": at(81), "to": at(201)}],
            "files": [
                {"video": 7, "from": at(5), "to": at(70), "media_ms": 65_000},
                {"video": 8, "from": at(80), "to": at(200), "media_ms": 120_000},
            ],
            "videos": [
                {"id": 8, "origin": "recording", "from": at(80), "duration_ms": 120_000,
                 "status": "viewable", "deleted": null, "changed_at": at(230)},
                {"id": 7, "origin": "recording", "from": at(5), "duration_ms": 65_000,
                 "status": "ready", "deleted": null, "changed_at": at(100)},
                {"id": 9, "origin": "clip", "from": at(20), "duration_ms": 10_000,
                 "status": "ready", "deleted": null, "changed_at": at(100)},
            ],
            "broadcasts": [{"id": 3, "labels": [{"status": "finished"}], "deleted": {"by": "api", "at": at(210)}}],
        })
    }

    fn told() -> Value {
        json!({
            "status": "ended", "live_stream_id": 1,
            "parts": [
                {"video_id": 7, "status": "ready", "duration_ms": 65_000},
                {"video_id": 8, "status": "viewable", "duration_ms": 120_000},
            ],
            "gaps": [{"after_part": 1, "ms": 10_000}],
            "moments": [{"status": "ended", "at": at(233)}],
        })
    }

    fn wrong(told: &Value, truth: &Value) -> Vec<String> {
        judge(told, &[truth], TOLERANCE).wrong
    }

    #[test]
    fn what_is_told_as_it_was_matches() {
        let verdict = judge(&told(), &[&truth()], TOLERANCE);
        assert_eq!(verdict.wrong, Vec::<String>::new());
        assert!(verdict.ended);
        assert_eq!(verdict.recorded_ms, 185_000);
        // 2 to 70 and 81 to 200: both lines are one, and what is not live is not counted.
        assert_eq!(verdict.live_ms, 187_000);
        assert_eq!(verdict.converged_ms, Some(3000));
    }

    #[test]
    fn each_difference_is_found() {
        let changed = |path: &str, value: Value| {
            let mut told = told();
            *told.pointer_mut(path).unwrap() = value;
            wrong(&told, &truth())
        };
        assert!(changed("/status", json!("processing"))[0].contains("not ended"));
        assert!(changed("/parts/1/status", json!("ready"))[0].contains("is viewable"));
        assert!(changed("/parts/1/duration_ms", json!(1))[0].contains("lasts"));
        assert!(changed("/gaps/0/ms", json!(9_900))[0].contains("gap after part 1"));
        assert_eq!(changed("/gaps/0/ms", json!(9_960)), Vec::<String>::new());
        assert!(changed("/gaps", json!([]))[0].contains("10000 ms"));
        assert!(changed("/live_stream_id", json!(2))[0].contains("not among"));
    }

    #[test]
    fn a_part_too_few_is_lost() {
        let mut told = told();
        told["parts"].as_array_mut().unwrap().pop();
        assert_eq!(judge(&told, &[&truth()], TOLERANCE).lost_parts, 1);
    }

    #[test]
    fn what_was_made_twice_or_deleted_without_reason_is_counted() {
        let (one, mut two) = (truth(), truth());
        two["id"] = 2.into();
        let verdict = judge(&told(), &[&one, &two], TOLERANCE);
        assert_eq!(verdict.duplicates, 1);
        let mut deleted = truth();
        deleted["videos"][0]["deleted"] = json!({"by": "api", "at": at(240)});
        assert_eq!(judge(&told(), &[&deleted], TOLERANCE).wrong_deletes, 1);
        deleted["videos"][0]["deleted"]["by"] = "portal".into();
        assert_eq!(judge(&told(), &[&deleted], TOLERANCE).wrong_deletes, 0);
    }

    #[test]
    fn what_is_left_behind_is_told() {
        let mut left = truth();
        left["active"] = true.into();
        left["broadcasts"][0]["deleted"] = Value::Null;
        assert_eq!(wrong(&told(), &left).len(), 2);
    }
}
