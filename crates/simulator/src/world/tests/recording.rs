//! How many videos a session gives, and what they say.

use chrono::TimeDelta;
use serde_json::{Value, json};

use super::play::{Play, time};
use crate::world::Action;
use crate::world::reply::{Reply, ReplyBody};
use crate::{Behaviour, Config, NothingRecorded, RecordingAtDeactivation, StartRecording};

/// Start of the next part minus end of this one, as a client computes it, in milliseconds.
fn gap_ms(first: &Value, second: &Value) -> i64 {
    let end = time(&first["recording_started_at"])
        + TimeDelta::milliseconds(first["duration"].as_i64().unwrap());
    (time(&second["recording_started_at"]) - end).num_milliseconds()
}

#[test]
fn recording_takes_effect_three_to_seven_seconds_later() {
    let mut play = Play::new();
    let id = play.live_stream();
    assert_eq!(play.stream_command(id, "start_recording"), Reply::empty(204));
    play.wait(2.9);
    assert_eq!(play.stream(id)["recording"], false);
    assert_eq!(play.stream(id)["recording_duration"], Value::Null);
    play.wait(4.2);
    assert_eq!(play.stream(id)["recording"], true);
    assert!(play.stream(id)["recording_duration"].is_number());
}

#[test]
fn recording_needs_a_live_stream() {
    let mut play = Play::new();
    let id = play.active_stream();
    assert_eq!(play.stream_command(id, "start_recording").status, 422);
    assert_eq!(play.stream_command(999, "start_recording").status, 404);
}

#[test]
fn a_second_start_changes_nothing() {
    let mut play = Play::new();
    let id = play.recorded_stream();
    assert_eq!(play.stream_command(id, "start_recording").status, 204);
    play.wait(30.0);
    play.stream_command(id, "stop_recording");
    play.wait(30.0);
    assert_eq!(play.videos(id).len(), 1);
}

#[test]
fn success_may_carry_a_warning_or_hide_a_failure() {
    for (start_recording, status, field, records) in [
        (StartRecording::Warning, 200, "/warnings/0/key", true),
        (StartRecording::Errors, 200, "/errors/0/key", false),
        (StartRecording::NoSpace, 422, "/errors/name/0", false),
    ] {
        let mut play = Play::behaving(Behaviour { start_recording, ..Behaviour::default() });
        let id = play.live_stream();
        let reply = play.stream_command(id, "start_recording");
        assert_eq!(reply.status, status);
        assert!(reply.document().pointer(field).is_some(), "{:?}", reply.document());
        play.wait(10.0);
        assert_eq!(play.stream(id)["recording"], records);
    }
}

#[test]
fn stop_answers_with_the_video_named_after_stream_and_end() {
    let mut play = Play::new();
    let id = play.live_stream();
    play.stream_command(id, "start_recording");
    while play.stream(id)["recording"] == false {
        play.wait(0.1);
    }
    let seen = play.now;
    play.wait(30.0);
    let video = play.stream_command(id, "stop_recording").document().clone();
    assert_eq!(video["stream_id"], id);
    assert_eq!(video["status"], "pending");
    assert_eq!(time(&video["created_at"]), play.now);
    let end = play.now.format("%Y-%m-%d %H:%M:%S +0000");
    assert_eq!(video["name"], format!("Stream Record: test_stream, {end}"));
    let started = time(&video["recording_started_at"]);
    assert!(started <= seen && started > seen - TimeDelta::milliseconds(101));
    let elapsed = (play.now - started).num_milliseconds();
    let duration = video["duration"].as_i64().unwrap();
    assert!((elapsed - 1..=elapsed).contains(&duration), "{duration} of {elapsed} ms");
    play.wait(0.5);
    assert_eq!(play.lifecycle().last().unwrap(), "TTF");
}

#[test]
fn stop_has_four_ways_to_say_that_nothing_was_recorded() {
    for (nothing_recorded, expected) in [
        (NothingRecorded::ZeroBytes, Reply { status: 200, body: ReplyBody::Empty }),
        (NothingRecorded::Null, Reply::json(200, Value::Null)),
        (NothingRecorded::EmptyObject, Reply::json(200, json!({}))),
        (NothingRecorded::NoContent, Reply::empty(204)),
    ] {
        let mut play = Play::behaving(Behaviour { nothing_recorded, ..Behaviour::default() });
        let id = play.live_stream();
        assert_eq!(play.stream_command(id, "stop_recording"), expected);
    }
}

#[test]
fn a_repeated_stop_is_empty() {
    let mut play = Play::new();
    let id = play.recorded_stream();
    play.wait(30.0);
    assert!(play.stream_command(id, "stop_recording").document().is_object());
    assert_eq!(play.stream_command(id, "stop_recording"), Reply::empty(200));
}

#[test]
fn stop_before_the_start_took_effect_records_nothing() {
    let mut play = Play::new();
    let id = play.live_stream();
    play.stream_command(id, "start_recording");
    play.wait(1.0);
    assert_eq!(play.stream_command(id, "stop_recording"), Reply::empty(200));
    play.wait(60.0);
    assert_eq!(play.stream(id)["recording"], false);
    assert_eq!(play.videos(id).len(), 0);
}

#[test]
fn a_fragment_under_ten_seconds_makes_no_video_unless_told_otherwise() {
    for (minimum_fragment_s, videos) in [(10, 0), (0, 1)] {
        let mut play = Play::behaving(Behaviour { minimum_fragment_s, ..Behaviour::default() });
        let id = play.live_stream();
        play.stream_command(id, "start_recording");
        while play.stream(id)["recording"] == false {
            play.wait(0.1);
        }
        play.wait(9.5);
        play.stream_command(id, "stop_recording");
        assert_eq!(play.videos(id).len(), videos);
        play.wait(1.0);
        assert_eq!(play.lifecycle().last().unwrap(), "TTF", "the end of recording is told");
    }
}

#[test]
fn the_ten_seconds_are_scaled() {
    let mut play = Play::with(Config { time_scale: 100.0, ..Config::default() });
    let id = play.active_stream();
    play.encoder(id, Action::Push).unwrap();
    play.wait(0.1);
    play.stream_command(id, "start_recording");
    play.wait(0.4);
    let video = play.stream_command(id, "stop_recording").document().clone();
    let duration = video["duration"].as_i64().unwrap();
    assert!((330..=370).contains(&duration), "as it really elapsed: {duration}");
}

#[test]
fn an_interruption_longer_than_the_hold_gives_two_videos_with_a_gap() {
    let mut play = Play::new();
    let id = play.recorded_stream();
    play.wait(30.0);
    play.encoder(id, Action::Drop).unwrap();
    play.wait(40.0);
    assert_eq!(play.videos(id).len(), 1, "closed when the hold was over");
    play.encoder(id, Action::Push).unwrap();
    play.wait(60.0);
    assert_eq!(play.stream(id)["recording"], true, "goes on into a new file");
    play.stream_command(id, "stop_recording");
    let videos = play.videos(id);
    assert_eq!(videos.len(), 2);
    let gap = gap_ms(&videos[0], &videos[1]);
    assert!((43_500..=48_500).contains(&gap), "40 s away, and 4 to 9 s to start again: {gap}");
}

#[test]
fn a_return_within_the_hold_gives_one_video_without_the_held_time() {
    let mut play = Play::new();
    let id = play.recorded_stream();
    play.wait(20.0);
    play.encoder(id, Action::Drop).unwrap();
    play.wait(8.0); // 3 s to notice, 5 s of the hold
    assert_eq!(play.stream(id)["recording"], false);
    play.encoder(id, Action::Push).unwrap();
    play.wait(30.0);
    let lifecycle = play.lifecycle();
    assert_eq!(lifecycle[lifecycle.len() - 3..], ["FFF", "TFT", "TTT"]);
    let video = play.stream_command(id, "stop_recording").document().clone();
    let elapsed = play.now - time(&video["recording_started_at"]);
    let held = elapsed.num_milliseconds() - video["duration"].as_i64().unwrap();
    assert!((8_500..=9_500).contains(&held), "8 s away and about 1 s to go live: {held}");
    play.wait(60.0);
    assert_eq!(play.videos(id).len(), 1);
}

#[test]
fn the_hold_is_a_switch() {
    for (recording_hold_s, away_s, videos) in [
        (Some(0), 4.0, 2),
        (Some(10), 30.0, 2),
        (Some(60), 30.0, 1),
        (Some(60), 90.0, 2),
        (None, 3600.0, 1),
    ] {
        let mut play = Play::behaving(Behaviour { recording_hold_s, ..Behaviour::default() });
        let id = play.recorded_stream();
        play.wait(30.0);
        play.encoder(id, Action::Drop).unwrap();
        play.wait(away_s);
        play.encoder(id, Action::Push).unwrap();
        play.wait(60.0);
        play.stream_command(id, "stop_recording");
        assert_eq!(play.videos(id).len(), videos, "hold {recording_hold_s:?}, away {away_s}");
    }
}

#[test]
fn stop_while_held_closes_the_file_and_nothing_resumes() {
    let mut play = Play::new();
    let id = play.recorded_stream();
    play.wait(30.0);
    play.encoder(id, Action::Drop).unwrap();
    play.wait(5.0);
    assert!(play.stream_command(id, "stop_recording").document()["id"].is_i64());
    play.encoder(id, Action::Push).unwrap();
    play.wait(60.0);
    assert_eq!(play.stream(id)["recording"], false);
    assert_eq!(play.videos(id).len(), 1);
}

#[test]
fn a_long_recording_is_cut_without_a_gap() {
    let mut play = Play::behaving(Behaviour { cut_after_s: 100, ..Behaviour::default() });
    let id = play.recorded_stream();
    play.wait(250.0);
    play.stream_command(id, "stop_recording");
    let videos = play.videos(id);
    assert_eq!(videos.len(), 3);
    assert_eq!(videos[0]["duration"], 100_000);
    assert_eq!(gap_ms(&videos[0], &videos[1]), 0);
    assert_eq!(gap_ms(&videos[1], &videos[2]), 0);
}

#[test]
fn auto_record_needs_no_command() {
    let mut play = Play::new();
    let id = play.active_stream();
    play.patch(id, json!({"auto_record": true}));
    play.encoder(id, Action::Push).unwrap();
    play.wait(30.0);
    assert_eq!(play.stream(id)["recording"], true);
}

#[test]
fn deactivation_closes_the_recording_at_once_after_the_hold_or_never() {
    for (deactivation, at_once, after_hold) in [
        (RecordingAtDeactivation::AtOnce, 1, 1),
        (RecordingAtDeactivation::AfterHold, 0, 1),
        (RecordingAtDeactivation::NeverUntilStop, 0, 0),
    ] {
        let mut play = Play::behaving(Behaviour { deactivation, ..Behaviour::default() });
        let id = play.recorded_stream();
        play.wait(30.0);
        play.patch(id, json!({"active": false}));
        assert_eq!(play.videos(id).len(), at_once, "{deactivation:?}");
        play.wait(3600.0);
        assert_eq!(play.videos(id).len(), after_hold, "{deactivation:?}");
        play.stream_command(id, "stop_recording");
        assert_eq!(play.videos(id).len(), 1, "{deactivation:?}");
    }
}

#[test]
fn deleting_a_stream_keeps_its_videos_and_closes_its_recording() {
    let mut play = Play::new();
    let id = play.recorded_stream();
    play.wait(30.0);
    let path = format!("/streaming/streams/{id}");
    assert_eq!(play.call("DELETE", &path, Value::Null), Reply::empty(204));
    assert_eq!(play.call("GET", &path, Value::Null).status, 404);
    let videos = play.videos(id);
    assert_eq!(videos.len(), 1);
    assert_eq!(videos[0]["stream_id"], id, "dangles");
    play.wait(120.0);
    assert_eq!(play.video_statuses(), ["pending", "viewable", "ready"]);
}
