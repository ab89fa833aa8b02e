//! The tutorial's nineteen steps, looked for in their order in what happened: requests from the
//! simulator's log, webhooks from ours.

use domain::event::RecordedEvent;
use domain::ids::Timestamp;
use serde_json::Value;
use simulator::RequestLogEntry;

/// Something that happened.
enum Happened<'a> {
    Request(&'a RequestLogEntry),
    Webhook(Value),
}

/// How many distinct steps were found, each after the one before it.
pub(crate) fn steps_in_order(requests: &[RequestLogEntry], webhooks: &[RecordedEvent]) -> usize {
    let done = requests.iter().filter(|r| (200..300).contains(&r.status));
    let mut all: Vec<(Timestamp, Happened<'_>)> =
        done.map(|r| (r.at, Happened::Request(r))).collect();
    for webhook in webhooks {
        let body = serde_json::from_slice(&webhook.payload).unwrap_or_default();
        all.push((webhook.received_at, Happened::Webhook(body)));
    }
    all.sort_by_key(|(at, _)| *at);
    let mut next = 1;
    for (_, happened) in &all {
        // The session is interrupted between steps 8 and 9; the last part's steps are looked for.
        if is_step(next, happened) {
            next += 1;
        }
    }
    next - 1
}

/// Whether `happened` is the tutorial's step `n`.
fn is_step(n: usize, happened: &Happened<'_>) -> bool {
    match happened {
        Happened::Request(request) => request_step(request) == Some(n),
        Happened::Webhook(body) => webhook_is_step(n, body),
    }
}

/// The step that a request is.
fn request_step(request: &RequestLogEntry) -> Option<usize> {
    let body = request.body.as_ref().unwrap_or(&Value::Null);
    let path: Vec<&str> = request.path.trim_start_matches("/streaming/").split('/').collect();
    match (request.method.as_str(), path.as_slice()) {
        ("POST", ["streams"]) if field(body, "stream", "active") == Some(&Value::Bool(false)) => {
            Some(1)
        }
        ("POST", ["broadcasts"]) if body["broadcast"]["status"] == "pending" => Some(2),
        ("PATCH", ["streams", _]) if body["stream"]["active"] == true => Some(3),
        ("PATCH", ["broadcasts", _]) if body["broadcast"]["status"] == "live" => Some(5),
        ("PUT", ["streams", _, "start_recording"]) => Some(7),
        ("PUT", ["streams", _, "stop_recording"]) => Some(9),
        ("PATCH", ["broadcasts", _]) if body["broadcast"]["status"] == "finished" => Some(12),
        ("PATCH", ["streams", _]) if body["stream"]["active"] == false => Some(14),
        ("DELETE", ["broadcasts", _]) => Some(16),
        ("GET", ["videos", _]) => Some(19),
        _ => None,
    }
}

/// Whether a webhook may be step `n`: the same bytes can be several steps.
fn webhook_is_step(n: usize, body: &Value) -> bool {
    let stream = |live: bool, recording: bool| {
        let told = &body["message"]["stream"];
        body["type"] == "stream" && told["live"] == live && told["recording"] == recording
    };
    let broadcast = |status: &str| {
        body["type"] == "broadcast" && body["message"]["broadcast"]["status"] == status
    };
    let video =
        |status: &str| body["type"] == "video" && body["message"]["video"]["status"] == status;
    match n {
        4 | 10 => stream(true, false),
        6 => broadcast("live"),
        8 => stream(true, true),
        11 => video("pending"),
        13 => broadcast("finished"),
        15 => stream(false, false),
        17 => video("viewable"),
        18 => video("ready"),
        _ => false,
    }
}

/// A field of a body that is flat or wrapped.
fn field<'a>(body: &'a Value, wrapper: &str, name: &str) -> Option<&'a Value> {
    body.get(name).or_else(|| body.get(wrapper)?.get(name))
}
