//! Who may call, and how the quota of active streams refuses.

use std::time::Duration;

use serde_json::{Value, json};

use super::play::Play;
use crate::faults::Refusal;
use crate::world::ErrorShape;
use crate::{Behaviour, Config, QuotaBreach};

const STREAMS: &str = "/streaming/streams";

fn message(play: &mut Play, authorization: Option<&str>) -> (u16, String) {
    let reply = play.call_as(authorization, "GET", STREAMS, Value::Null);
    let message = reply.document()["message"].as_str().unwrap_or_default().to_owned();
    (reply.status, message)
}

#[test]
fn without_credentials_nothing_answers_but_login() {
    let mut play = Play::new();
    for (method, path) in [
        ("GET", STREAMS),
        ("POST", "/streaming/broadcasts"),
        ("GET", "/streaming/videos/1"),
        ("GET", "/streaming/unknown"),
        ("GET", "/iam/clients/me"),
    ] {
        let reply = play.call_as(None, method, path, Value::Null);
        assert_eq!(reply.status, 401, "{method} {path}");
    }
    let expected = (401, "Authentication credentials were not provided.".to_owned());
    assert_eq!(message(&mut play, None), expected);
    assert_eq!(message(&mut play, Some("Basic abc")), expected);
}

#[test]
fn the_scheme_word_is_taken_in_any_case() {
    let mut play = Play::new();
    for scheme in ["APIKey", "apikey", "ApiKey", "APIKEY"] {
        assert_eq!(message(&mut play, Some(&format!("{scheme} 1_secret"))).0, 200);
    }
}

#[test]
fn a_wrong_permanent_token_is_named_without_its_secret() {
    let config = Config { token: Some("7_right".to_owned()), ..Config::default() };
    let mut play = Play::with(config);
    assert_eq!(message(&mut play, Some("APIKey 7_right")).0, 200);
    let expected = (401, "Bad permanent token: 7".to_owned());
    assert_eq!(message(&mut play, Some("APIKey 7_wrong")), expected);
    assert_eq!(message(&mut play, Some("APIKey 7$wrong")), expected);
}

#[test]
fn without_a_configured_token_any_well_formed_one_is_good() {
    let mut play = Play::new();
    for (token, status) in
        [("1_s", 200), ("1$s", 200), ("12_a_b", 200), ("nonsense", 401), ("1_", 401), ("_s", 401)]
    {
        assert_eq!(message(&mut play, Some(&format!("APIKey {token}"))).0, status, "{token}");
    }
}

fn login(play: &mut Play) -> Value {
    let body = json!({"username": "owner@example.com", "password": "simulator"});
    play.call_as(None, "POST", "/iam/auth/jwt/login", body).document().clone()
}

fn refresh(play: &mut Play, pair: &Value) -> (u16, Value) {
    let body = json!({"refresh": pair["refresh"]});
    let reply = play.call_as(None, "POST", "/iam/auth/jwt/refresh", body);
    (reply.status, reply.document().clone())
}

fn bearer(pair: &Value) -> String {
    format!("Bearer {}", pair["access"].as_str().unwrap())
}

#[test]
fn a_login_opens_the_door_until_it_expires() {
    let config = Config { access_token_life: Duration::from_mins(1), ..Config::default() };
    let mut play = Play::with(config);
    let pair = login(&mut play);
    assert_eq!(message(&mut play, Some(&bearer(&pair))).0, 200);
    play.wait(61.0);
    let expected = (401, "Token is invalid or expired".to_owned());
    assert_eq!(message(&mut play, Some(&bearer(&pair))), expected);
}

#[test]
fn a_permanent_token_sent_as_bearer_has_its_own_message() {
    let expected = (401, "Given token not valid for any token type".to_owned());
    assert_eq!(message(&mut Play::new(), Some("Bearer 1_secret")), expected);
}

#[test]
fn bad_logins_are_400_in_the_shapes_of_the_account_service() {
    let mut play = Play::new();
    for (body, field) in [
        (json!({"username": "x"}), "password"),
        (json!({"password": "x"}), "username"),
        (json!({"username": "owner@example.com", "password": "wrong"}), "errors"),
    ] {
        let reply = play.call_as(None, "POST", "/iam/auth/jwt/login", body);
        assert_eq!(reply.status, 400);
        assert!(reply.document()["errors"][field][0].is_string());
    }
}

#[test]
fn a_refresh_token_is_good_for_one_use() {
    let mut play = Play::new();
    let first = login(&mut play);
    let (status, second) = refresh(&mut play, &first);
    assert_eq!(status, 200);
    assert_ne!(second, first);
    assert_eq!(refresh(&mut play, &first).0, 401, "blacklisted");
    assert_eq!(refresh(&mut play, &second).0, 200, "the new pair is not harmed");
}

#[test]
fn a_refresh_token_expires() {
    let config = Config { refresh_token_life: Duration::from_mins(1), ..Config::default() };
    let mut play = Play::with(config);
    let pair = login(&mut play);
    play.wait(61.0);
    assert_eq!(refresh(&mut play, &pair).0, 401);
}

#[test]
fn the_account_shows_its_streaming_service() {
    let behaviour = Behaviour { service_status: "paused".to_owned(), ..Behaviour::default() };
    let mut play = Play::behaving(behaviour);
    let service = play.get("/iam/clients/me")["serviceStatuses"]["STREAMING"].clone();
    assert_eq!(service, json!({"status": "paused", "enabled": false}));
}

#[test]
fn the_fourth_active_stream_is_refused_on_create_and_patch() {
    let mut play = Play::new();
    let ids = [(); 3].map(|()| play.active_stream());
    let create = play.call("POST", STREAMS, json!({"name": "n", "active": true}));
    assert_eq!(create.status, 422);
    assert!(create.document()["errors"]["base"][0].as_str().unwrap().contains("limit"));
    let idle = play.call("POST", STREAMS, json!({"name": "idle"})).document()["id"].clone();
    let idle = idle.as_i64().unwrap();
    assert_eq!(play.patch(idle, json!({"active": true, "name": "new"})).status, 422);
    assert_eq!(play.stream(idle)["name"], "idle", "nothing is applied");

    assert_eq!(play.patch(ids[0], json!({"active": true})).status, 200, "has its slot");
    play.patch(ids[0], json!({"active": false}));
    assert_eq!(play.patch(idle, json!({"active": true})).status, 200);
}

#[test]
fn a_breach_has_any_status_and_shape_or_is_silent() {
    for (shape, pointer) in [
        (ErrorShape::A, "/errors/base/0"),
        (ErrorShape::B, "/error"),
        (ErrorShape::C, "/error"),
        (ErrorShape::E, "/message"),
    ] {
        let quota_breach = QuotaBreach::Refused(Refusal::new(403, shape, "quota exceeded"));
        let behaviour = Behaviour { quota_breach, ..Behaviour::default() };
        let mut play = Play::with(Config { active_quota: 0, behaviour, ..Config::default() });
        let reply = play.call("POST", STREAMS, json!({"name": "n", "active": true}));
        assert_eq!(reply.status, 403);
        assert_eq!(reply.document().pointer(pointer), Some(&json!("quota exceeded")));
    }
    let behaviour = Behaviour { quota_breach: QuotaBreach::StaysInactive, ..Behaviour::default() };
    let mut play = Play::with(Config { active_quota: 0, behaviour, ..Config::default() });
    let reply = play.call("POST", STREAMS, json!({"name": "n", "active": true}));
    assert_eq!((reply.status, &reply.document()["active"]), (200, &json!(false)));
}
