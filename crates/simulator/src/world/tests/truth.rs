//! The truth of a whole life, and encoders that play by themselves.

use serde_json::{Value, json};

use super::play::{Play, time};
use crate::world::Action;
use crate::{Config, Encoders};

/// The one live stream of a truth.
fn line(play: &mut Play) -> Value {
    play.world.truth(play.now, 0, 10)[1].clone()
}

#[test]
fn the_truth_tells_a_life_with_times_and_authors() {
    let mut play = Play::new();
    let tag = json!({"owner": "tallylight", "key": "k"}).to_string();
    let body = json!({"name": "n", "client_entity_data": tag});
    let id = play.call("POST", "/streaming/streams", body).document()["id"].as_i64().unwrap();
    let broadcast = json!({"broadcast": {"name": "b", "status": "pending", "stream_ids": [id]}});
    let broadcast = play.call("POST", "/streaming/broadcasts", broadcast);
    let broadcast = broadcast.document()["id"].as_i64().unwrap();
    play.patch(id, json!({"active": true}));
    play.encoder(id, Action::Push).unwrap();
    play.wait(10.0);
    play.stream_command(id, "start_recording");
    play.wait(60.0);
    play.stream_command(id, "stop_recording");
    play.patch(id, json!({"active": false}));
    play.wait(60.0);
    play.call("DELETE", &format!("/streaming/broadcasts/{broadcast}"), Value::Null);
    let video = play.videos(id)[0].clone();
    let told = line(&mut play);
    assert_eq!(told["id"], id);
    assert_eq!(told["tag"]["key"], "k");
    assert_eq!(told["created"]["by"], "api");
    assert_eq!(told["active"], false);
    assert_eq!(told["switches"][0]["active"], true);
    assert_eq!(told["switches"][1]["by"], "api");
    assert_eq!(told["sending"][0]["line"], "primary");
    assert!(time(&told["sending"][0]["to"]) > time(&told["sending"][0]["from"]));
    assert!(time(&told["live"][0]["from"]) > time(&told["sending"][0]["from"]));
    assert_eq!(told["files"][0]["video"], video["id"]);
    assert_eq!(told["files"][0]["media_ms"], video["duration"]);
    assert_eq!(told["videos"][0]["status"], "ready");
    assert_eq!(told["videos"][0]["origin"], "recording");
    assert_eq!(told["broadcasts"][0]["labels"][0]["status"], "pending");
    assert_eq!(told["broadcasts"][0]["deleted"]["by"], "api");
    let run = play.world.truth(play.now, id, 10);
    assert_eq!(run.len(), 1, "nothing comes after it");
    assert_eq!(run[0]["keys"]["k"], json!({"created": 1, "deleted": 0}));
}

#[test]
fn what_is_deleted_stays_in_the_truth() {
    let mut play = Play::new();
    let id = play.recorded_stream();
    play.wait(30.0);
    play.stream_command(id, "stop_recording");
    play.wait(60.0);
    let video = play.videos(id)[0]["id"].as_i64().unwrap();
    play.call("DELETE", &format!("/streaming/videos/{video}"), Value::Null);
    play.call("DELETE", &format!("/streaming/streams/{id}"), Value::Null);
    let told = line(&mut play);
    assert_eq!(told["deleted"]["by"], "api");
    assert!(told["sending"][0]["to"].is_string());
    assert_eq!(told["videos"][0]["status"], "ready");
    assert_eq!(told["videos"][0]["deleted"]["by"], "api");
}

#[test]
fn a_file_that_was_too_short_is_told_without_a_video() {
    let mut play = Play::new();
    let id = play.recorded_stream();
    play.stream_command(id, "stop_recording");
    let told = line(&mut play);
    assert_eq!(told["files"][0]["video"], Value::Null);
    assert!(told["files"][0]["media_ms"].as_i64().unwrap() < 10_000);
}

/// A world whose encoders come by themselves.
fn with_encoders(encoders: Encoders) -> Play {
    Play::with(Config { encoders: Some(encoders), ..Config::default() })
}

#[test]
fn an_encoder_plays_its_plan_without_a_driver() {
    let style = Encoders { incidents: 0, backup: 0.0, vanishes: 1.0, ..Encoders::default() };
    let mut play = with_encoders(style);
    let id = play.active_stream();
    assert_eq!(line(&mut play)["encoder"], "playing");
    play.wait(60.0);
    assert_eq!(play.stream(id)["live"], true);
    play.wait(900.0);
    assert_eq!(line(&mut play)["encoder"], "done");
    assert_eq!(play.stream(id)["live"], false);
    assert_eq!(line(&mut play)["sending"].as_array().unwrap().len(), 1);
}

#[test]
fn a_loop_is_six_connections_and_more() {
    let style = Encoders {
        length_s: [500.0, 500.0],
        incidents: 1,
        short: 0.0,
        long: 0.0,
        backup: 0.0,
        ..Encoders::default()
    };
    let most = (1..8).map(|seed| {
        let encoders = Some(style.clone());
        let mut play = Play::with(Config { seed, encoders, ..Config::default() });
        play.active_stream();
        play.wait(600.0);
        line(&mut play)["sending"].as_array().unwrap().len()
    });
    assert_eq!(most.max(), Some(7));
}

#[test]
fn an_encoder_that_was_cut_comes_back_while_its_plan_lasts() {
    let style = Encoders { incidents: 0, backup: 0.0, ..Encoders::default() };
    let mut play = with_encoders(style);
    let id = play.active_stream();
    play.wait(60.0);
    play.patch(id, json!({"active": false}));
    play.wait(10.0);
    assert_eq!(play.stream(id)["live"], false);
    play.patch(id, json!({"active": true}));
    play.wait(10.0);
    assert_eq!(play.stream(id)["live"], true);
}
