//! What platform and people do by themselves, and the switches that make answers lag and shift.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::play::Play;
use crate::world::{Action, Mishap};
use crate::{Behaviour, ClipVideo, Config, ControlError, QuotaBreach};

impl Play {
    /// Lets a mishap strike a stream.
    fn strikes(&mut self, mishap: Mishap, stream: Option<i64>) -> bool {
        let struck = self.world.mishap(self.now, mishap, stream);
        self.webhooks.extend(self.world.take_webhooks());
        struck
    }
}

/// A state without the present time.
fn without_time(mut state: Value) -> Value {
    state["now"] = Value::Null;
    state
}

#[test]
fn every_mishap_changes_what_it_says_and_is_in_the_truth_with_its_author() {
    for mishap in Mishap::ALL {
        let mut play = Play::new();
        let id = play.recorded_stream();
        play.wait(20.0);
        if matches!(mishap, Mishap::StartsRecording | Mishap::DeletesVideo) {
            play.stream_command(id, "stop_recording");
            play.wait(60.0);
        }
        let body = json!({"name": "b", "status": "live", "stream_ids": [id]});
        play.call("POST", "/streaming/broadcasts", json!({"broadcast": body}));
        let before = without_time(play.world.state(play.now));
        assert!(play.strikes(mishap, None), "{mishap}");
        let told = play.world.truth(play.now, 0, 10);
        assert_eq!(told[0]["mishaps"][0]["mishap"], mishap.to_string());
        play.wait(8.0);
        let is_inner = matches!(mishap, Mishap::RunsFull | Mishap::ExpiresTokens);
        assert!(is_inner || without_time(play.world.state(play.now)) != before, "{mishap}");
    }
}

#[test]
fn what_somebody_deletes_is_theirs_in_the_truth() {
    let mut play = Play::new();
    let id = play.active_stream();
    assert!(play.strikes(Mishap::DeletesStream, Some(id)));
    assert!(!play.strikes(Mishap::DeletesStream, Some(id)), "it is gone");
    let told = play.world.truth(play.now, 0, 10);
    assert_eq!(told[1]["created"]["by"], "api");
    assert_eq!(told[1]["deleted"]["by"], "portal");
}

#[test]
fn a_restart_answers_with_a_page_cuts_encoders_and_loses_webhooks() {
    let mut play = Play::new();
    let id = play.recorded_stream();
    play.wait(20.0);
    play.webhooks.clear();
    assert!(play.strikes(Mishap::Restarts, None));
    let reply = play.call("GET", "/streaming/streams", Value::Null);
    assert_eq!(reply.status, 503);
    assert_eq!(play.encoder(id, Action::Push), Err(ControlError::Down(id)));
    play.wait(19.0);
    assert_eq!(play.webhooks, []);
    play.wait(2.0);
    assert_eq!(play.stream(id)["live"], false);
    assert_eq!(play.stream(id)["active"], true);
    assert_eq!(play.videos(id).len(), 1);
}

#[test]
fn a_full_storage_starts_no_recording_until_there_is_room_again() {
    let mut play = Play::new();
    let id = play.live_stream();
    assert!(play.strikes(Mishap::RunsFull, None));
    let refusal = play.stream_command(id, "start_recording");
    assert_eq!(refusal.status, 422);
    assert!(refusal.document().to_string().contains("No space"));
    play.wait(121.0);
    assert_eq!(play.stream_command(id, "start_recording").status, 204);
}

#[test]
fn expired_tokens_are_refused_and_the_permanent_one_is_not() {
    let mut play = Play::new();
    let login = json!({"username": "owner@example.com", "password": "simulator"});
    let pair = play.call_as(None, "POST", "/iam/auth/jwt/login", login).document().clone();
    let bearer = format!("Bearer {}", pair["access"].as_str().unwrap());
    let streams = "/streaming/streams";
    assert_eq!(play.call_as(Some(&bearer), "GET", streams, Value::Null).status, 200);
    assert!(play.strikes(Mishap::ExpiresTokens, None));
    assert_eq!(play.call_as(Some(&bearer), "GET", streams, Value::Null).status, 401);
    assert_eq!(play.call("GET", streams, Value::Null).status, 200);
}

#[test]
fn a_stranger_takes_a_slot_and_leaves() {
    let mut play = Play::with(Config { active_quota: 1, ..Config::default() });
    assert!(play.strikes(Mishap::TakesSlot, None));
    let body = json!({"name": "n", "active": true});
    assert_eq!(play.call("POST", "/streaming/streams", body.clone()).status, 422);
    play.wait(601.0);
    assert_eq!(play.call("POST", "/streaming/streams", body).status, 200);
}

#[test]
fn mishaps_come_at_their_rate_and_the_same_for_one_seed() {
    let strikes = |seed| {
        let mut play = Play::with(Config { seed, ..Config::default() });
        play.active_stream();
        let rates = BTreeMap::from([(Mishap::RunsFull, 60.0), (Mishap::ExpiresTokens, 6.0)]);
        play.world.set_mishaps(play.now, &rates);
        play.wait(3600.0);
        play.world.truth(play.now, 0, 0)[0]["mishaps"].clone()
    };
    let told = strikes(4);
    let count =
        |name: &str| told.as_array().unwrap().iter().filter(|one| one["mishap"] == name).count();
    assert!((35..90).contains(&count("runs_full")), "{}", count("runs_full"));
    assert!((1..15).contains(&count("expires_tokens")), "{}", count("expires_tokens"));
    assert_eq!(told, strikes(4));
    assert_ne!(told, strikes(5));
}

#[test]
fn flags_of_a_get_lag_behind_the_webhook() {
    let mut play = Play::behaving(Behaviour { flags_lag_s: 5, ..Behaviour::default() });
    let id = play.active_stream();
    play.encoder(id, Action::Push).unwrap();
    play.wait(2.0);
    assert_eq!(play.bodies("stream").next().unwrap()["stream"]["live"], true);
    assert_eq!(play.stream(id)["live"], false);
    play.wait(5.0);
    assert_eq!(play.stream(id)["live"], true);
}

#[test]
fn pages_that_shift_repeat_and_skip_rows_and_end_all_the_same() {
    let behaviour = Behaviour { page_size: 5, pages_shift_by: 2, ..Behaviour::default() };
    let mut play = Play::behaving(behaviour);
    for n in 0..40 {
        play.call("POST", "/streaming/streams", json!({"name": n.to_string()}));
    }
    let mut rows = Vec::new();
    for page in 1..20 {
        let list = play.get(&format!("/streaming/streams?page={page}"));
        rows.extend(list.as_array().unwrap().iter().map(|row| row["id"].as_i64().unwrap()));
    }
    let distinct: BTreeSet<i64> = rows.iter().copied().collect();
    assert!(distinct.len() < rows.len(), "rows are repeated");
    assert!(play.get("/streaming/streams?page=30").as_array().unwrap().is_empty());
}

#[test]
fn a_varied_quota_refuses_in_several_ways() {
    let behaviour = Behaviour { quota_breach: QuotaBreach::Varied, ..Behaviour::default() };
    let mut play = Play::with(Config { behaviour, active_quota: 0, ..Config::default() });
    let id = play.call("POST", "/streaming/streams", json!({"name": "n"})).document()["id"]
        .as_i64()
        .unwrap();
    let answers: BTreeSet<u16> =
        (0..60).map(|_| play.patch(id, json!({"active": true})).status).collect();
    assert!(answers.is_superset(&BTreeSet::from([200, 400, 403, 409, 422])), "{answers:?}");
    assert_eq!(play.stream(id)["active"], false);
}

#[test]
fn a_clip_is_no_recording_unless_the_switch_says_that_it_looks_like_one() {
    for (clip_video, is_listed) in [(ClipVideo::Plain, false), (ClipVideo::OfStream, true)] {
        let mut play = Play::behaving(Behaviour { clip_video, ..Behaviour::default() });
        let id = play.live_stream();
        play.patch(id, json!({"dvr_enabled": true}));
        let clip = json!({"duration": 10, "vod_required": true});
        let path = format!("/streaming/streams/{id}/clip_recording");
        let video = play.call("PUT", &path, clip).document()["video_id"].as_i64().unwrap();
        assert_eq!(!play.videos(id).is_empty(), is_listed, "{clip_video:?}");
        let told = play.get(&format!("/streaming/videos/{video}"));
        assert_eq!(told["recording_started_at"].is_null(), !is_listed);
        let truth = play.world.truth(play.now, 0, 10);
        assert_eq!(truth[1]["videos"][0]["origin"], "clip");
    }
}
