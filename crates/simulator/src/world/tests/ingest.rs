//! When `live` rises and falls, and what is told of it.

use serde_json::{Value, json};

use super::play::{Play, time};
use crate::world::{Action, Line};
use crate::{Behaviour, Config, ControlError, UserIdForm};

#[test]
fn a_run_is_told_as_ingest_playback_recording_end() {
    let mut play = Play::new();
    let id = play.recorded_stream();
    play.encoder(id, Action::Stop).unwrap();
    assert_eq!(play.lifecycle(), ["TFF", "TTF", "TTT", "FFF"]);
}

#[test]
fn a_stream_webhook_echoes_the_tag_and_shows_the_source() {
    let mut play = Play::new();
    let body =
        json!({"name": "n", "active": true, "client_user_id": 7, "client_entity_data": "tag"});
    let id = play.call("POST", "/streaming/streams", body).document()["id"].as_i64().unwrap();
    play.encoder(id, Action::Push).unwrap();
    play.wait(2.0);
    let token = play.stream(id)["token"].as_str().unwrap().to_owned();
    let body = play.bodies("stream").next().unwrap()["stream"].clone();
    assert_eq!(body["client_entity_data"], "tag");
    assert_eq!(body["client_user_id"], 7);
    assert_eq!(body["stream_source_type"], "rtmp");
    assert_eq!(body["pull"], false);
    assert!(body["uri"].as_str().unwrap().ends_with(&token));
}

#[test]
fn the_user_id_comes_as_number_text_or_null() {
    for (user_id_form, expected) in [
        (UserIdForm::Integer, json!(7)),
        (UserIdForm::Text, json!("7")),
        (UserIdForm::Null, Value::Null),
    ] {
        let mut play = Play::behaving(Behaviour { user_id_form, ..Behaviour::default() });
        let id = play.active_stream();
        play.patch(id, json!({"client_user_id": 7}));
        play.encoder(id, Action::Push).unwrap();
        play.wait(2.0);
        assert_eq!(play.bodies("stream").next().unwrap()["stream"]["client_user_id"], expected);
    }
}

#[test]
fn legacy_stream_webhooks_have_three_fields() {
    let behaviour = Behaviour { legacy_stream_webhooks: true, ..Behaviour::default() };
    let mut play = Play::behaving(behaviour);
    let id = play.active_stream();
    play.encoder(id, Action::Push).unwrap();
    play.wait(2.0);
    let expected = json!({"stream": {"id": id, "live": true, "recording": false}});
    assert_eq!(play.bodies("stream").next(), Some(&expected));
}

#[test]
fn push_to_an_inactive_stream_is_refused() {
    let mut play = Play::new();
    let id = play.active_stream();
    play.patch(id, json!({"active": false}));
    assert_eq!(play.encoder(id, Action::Push), Err(ControlError::Inactive(id)));
    assert_eq!(play.encoder(1, Action::Push), Err(ControlError::UnknownStream(1)));
}

#[test]
fn one_connection_per_line() {
    let mut play = Play::new();
    let id = play.live_stream();
    assert_eq!(play.encoder(id, Action::Push), Err(ControlError::Busy(id)));
    play.encoder(id, Action::Stop).unwrap();
    assert_eq!(play.encoder(id, Action::Stop), Err(ControlError::NotConnected(id)));
    assert_eq!(play.encoder(id, Action::Drop), Err(ControlError::NotConnected(id)));
}

#[test]
fn a_drop_is_seen_after_the_ingest_timeout() {
    let mut play = Play::new();
    let id = play.live_stream();
    play.encoder(id, Action::Drop).unwrap();
    play.wait(2.9);
    assert_eq!(play.stream(id)["live"], true);
    play.wait(0.2);
    let stream = play.stream(id);
    assert_eq!(stream["live"], false);
    assert_eq!(stream["active"], true, "a drop does not turn the switch");
    assert_eq!(
        time(&stream["finished_at_primary"]),
        play.now - chrono::TimeDelta::milliseconds(100)
    );
}

#[test]
fn a_return_before_the_ingest_timeout_is_not_noticed() {
    let mut play = Play::new();
    let id = play.live_stream();
    let told = play.webhooks.len();
    play.encoder(id, Action::Drop).unwrap();
    play.wait(2.0);
    play.encoder(id, Action::Push).unwrap();
    play.wait(60.0);
    assert_eq!(play.webhooks.len(), told);
    assert_eq!(play.stream(id)["live"], true);
}

#[test]
fn start_and_end_of_the_last_run_stay_readable() {
    let mut play = Play::new();
    let id = play.live_stream();
    let first = time(&play.stream(id)["started_at_primary"]);
    assert_eq!(play.stream(id)["finished_at_primary"], Value::Null);
    play.encoder(id, Action::Stop).unwrap();
    let finished = time(&play.stream(id)["finished_at_primary"]);
    assert!(finished > first);
    play.wait(60.0);
    play.encoder(id, Action::Push).unwrap();
    play.wait(5.0);
    let stream = play.stream(id);
    assert!(time(&stream["started_at_primary"]) > finished);
    assert_eq!(time(&stream["finished_at_primary"]), finished, "never reset");
}

#[test]
fn deactivation_answers_live_and_live_falls_later() {
    let mut play = Play::new();
    let id = play.live_stream();
    let answer = play.patch(id, json!({"active": false}));
    assert_eq!(answer.document()["active"], false);
    assert_eq!(answer.document()["live"], true);
    play.wait(0.9);
    assert_eq!(play.stream(id)["live"], true);
    play.wait(2.2);
    assert_eq!(play.stream(id)["live"], false);
    assert_eq!(play.lifecycle().last().unwrap(), "FFF");
    assert_eq!(play.encoder(id, Action::Push), Err(ControlError::Inactive(id)));
}

#[test]
fn reactivation_within_the_lag_keeps_the_encoder() {
    let mut play = Play::new();
    let id = play.live_stream();
    play.patch(id, json!({"active": false}));
    play.patch(id, json!({"active": true}));
    play.wait(60.0);
    assert_eq!(play.stream(id)["live"], true);
}

#[test]
fn failover_to_the_backup_is_no_interruption() {
    let mut play = Play::new();
    let id = play.recorded_stream();
    play.encoder_on(id, Line::Backup, Action::Push).unwrap();
    play.wait(5.0);
    play.encoder(id, Action::Drop).unwrap();
    play.wait(60.0);
    let stream = play.stream(id);
    assert_eq!((&stream["live"], &stream["backup_live"]), (&json!(false), &json!(true)));
    assert_eq!(stream["recording"], true);
    assert_eq!(play.videos(id).len(), 0, "the recording goes on");
}

#[test]
fn a_pull_goes_live_when_source_and_switch_are_on() {
    let mut play = Play::new();
    let body = json!({"name": "n", "pull": true, "uri": "https://source.example/live.m3u8"});
    let id = play.call("POST", "/streaming/streams", body).document()["id"].as_i64().unwrap();
    play.encoder(id, Action::Push).unwrap();
    play.wait(60.0);
    assert_eq!(play.stream(id)["live"], false, "switched off");
    play.patch(id, json!({"active": true}));
    play.wait(5.0);
    assert_eq!(play.stream(id)["live"], true);
    let body = &play.bodies("stream").next().unwrap()["stream"];
    assert_eq!(body["uri"], "https://source.example/live.m3u8");
    assert_eq!(body["stream_source_type"], "https");
}

#[test]
fn an_idle_pull_is_switched_off_after_two_hours_without_a_word() {
    let mut play = Play::new();
    let body =
        json!({"name": "n", "pull": true, "uri": "https://source.example/x", "active": true});
    let id = play.call("POST", "/streaming/streams", body).document()["id"].as_i64().unwrap();
    play.wait(7199.0);
    assert_eq!(play.stream(id)["active"], true);
    play.wait(2.0);
    assert_eq!(play.stream(id)["active"], false);
    assert!(play.webhooks.is_empty());
}

#[test]
fn a_token_reset_cuts_the_ingest_or_says_that_it_could_not() {
    for (token_reset_cuts_ingest, status) in [(true, 200), (false, 202)] {
        let mut play =
            Play::behaving(Behaviour { token_reset_cuts_ingest, ..Behaviour::default() });
        let id = play.live_stream();
        let before = play.stream(id)["token"].clone();
        let reset = format!("/streaming/streams/{id}/reset_push_token");
        assert_eq!(play.call("POST", &reset, Value::Null).status, status);
        assert_ne!(play.stream(id)["token"], before);
        assert_eq!(play.stream(id)["live"], !token_reset_cuts_ingest);
    }
}

#[test]
fn all_delays_shrink_with_the_time_scale() {
    let mut play = Play::with(Config { time_scale: 100.0, ..Config::default() });
    let id = play.active_stream();
    play.encoder(id, Action::Push).unwrap();
    play.wait(0.1); // 10 s of the platform
    assert_eq!(play.lifecycle(), ["TFF", "TTF"]);
}

#[test]
fn webhooks_leave_in_the_order_of_the_changes() {
    let mut play = Play::new();
    let id = play.recorded_stream();
    play.stream_command(id, "stop_recording");
    play.encoder(id, Action::Stop).unwrap();
    play.wait(60.0);
    assert!(play.webhooks.is_sorted_by_key(|webhook| webhook.due));
}
