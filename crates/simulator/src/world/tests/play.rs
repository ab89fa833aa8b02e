//! A world with a clock that only the test moves.

#![expect(clippy::needless_pass_by_value, reason = "bodies are written where they are sent")]

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::world::{Action, Line, Reply, Request, Webhook, World};
use crate::{Behaviour, Config, ControlError};

/// A world, its time, and every webhook so far.
pub(super) struct Play {
    pub(super) world: World,
    pub(super) now: DateTime<Utc>,
    pub(super) webhooks: Vec<Webhook>,
}

impl Play {
    pub(super) fn new() -> Self {
        Self::with(Config::default())
    }

    pub(super) fn behaving(behaviour: Behaviour) -> Self {
        Self::with(Config { behaviour, ..Config::default() })
    }

    pub(super) fn with(config: Config) -> Self {
        let now = "2026-11-22T12:00:00Z".parse().unwrap();
        Self { world: World::new(&config), now, webhooks: Vec::new() }
    }

    /// Lets time pass.
    pub(super) fn wait(&mut self, seconds: f64) {
        #[expect(clippy::cast_possible_truncation, reason = "whole milliseconds of a test")]
        let millis = (seconds * 1000.0) as i64;
        self.now += TimeDelta::milliseconds(millis);
        self.world.advance(self.now);
        self.webhooks.extend(self.world.take_webhooks());
    }

    /// Sends a request with a permanent token.
    pub(super) fn call(&mut self, method: &str, target: &str, body: Value) -> Reply {
        self.call_as(Some("APIKey 1_secret"), method, target, body)
    }

    /// Sends a request with any `Authorization` header, or none.
    pub(super) fn call_as(
        &mut self,
        authorization: Option<&str>,
        method: &str,
        target: &str,
        body: Value,
    ) -> Reply {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let request = Request {
            method: method.to_owned(),
            path: path.to_owned(),
            query: pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            authorization: authorization.map(str::to_owned),
            body: if body.is_null() { Vec::new().into() } else { body.to_string().into() },
        };
        let reply = self.world.request(self.now, &request);
        self.webhooks.extend(self.world.take_webhooks());
        reply
    }

    /// Sends a GET and returns its document.
    pub(super) fn get(&mut self, target: &str) -> Value {
        self.call("GET", target, Value::Null).document().clone()
    }

    /// Makes an active stream and returns its id.
    pub(super) fn active_stream(&mut self) -> i64 {
        let body = json!({"name": "test_stream", "active": true});
        let reply = self.call("POST", "/streaming/streams", body);
        reply.document()["id"].as_i64().unwrap()
    }

    /// Makes an active stream and waits until it can be played.
    pub(super) fn live_stream(&mut self) -> i64 {
        let id = self.active_stream();
        self.encoder(id, Action::Push).unwrap();
        self.wait(10.0);
        id
    }

    /// Makes a live stream and waits until it is recorded.
    pub(super) fn recorded_stream(&mut self) -> i64 {
        let id = self.live_stream();
        self.stream_command(id, "start_recording");
        self.wait(10.0);
        id
    }

    /// Sends a PUT to one of a stream's commands.
    pub(super) fn stream_command(&mut self, id: i64, command: &str) -> Reply {
        self.call("PUT", &format!("/streaming/streams/{id}/{command}"), Value::Null)
    }

    /// Changes a stream.
    pub(super) fn patch(&mut self, id: i64, stream: Value) -> Reply {
        self.call("PATCH", &format!("/streaming/streams/{id}"), json!({"stream": stream}))
    }

    /// Does an encoder's action on the primary line.
    pub(super) fn encoder(&mut self, id: i64, action: Action) -> Result<(), ControlError> {
        self.encoder_on(id, Line::Primary, action)
    }

    /// Does an encoder's action.
    pub(super) fn encoder_on(
        &mut self,
        id: i64,
        line: Line,
        action: Action,
    ) -> Result<(), ControlError> {
        let outcome = self.world.encoder(self.now, id, line, action);
        self.webhooks.extend(self.world.take_webhooks());
        outcome
    }

    /// Returns the stream as GET answers it.
    pub(super) fn stream(&mut self, id: i64) -> Value {
        self.get(&format!("/streaming/streams/{id}"))
    }

    /// Returns the videos of a stream, oldest first.
    pub(super) fn videos(&mut self, stream: i64) -> Vec<Value> {
        let page = self.get(&format!("/streaming/videos?stream_id={stream}"));
        let mut videos = page.as_array().unwrap().clone();
        videos.reverse();
        videos
    }

    /// Returns (live, transcoding, recording) of every stream webhook so far, e.g. `TTF`.
    pub(super) fn lifecycle(&self) -> Vec<String> {
        let letter = |flag: &Value| if flag == &json!(true) { 'T' } else { 'F' };
        self.bodies("stream")
            .map(|body| {
                let stream = &body["stream"];
                ["live", "transcoding", "recording"].map(|field| letter(&stream[field]))
            })
            .map(String::from_iter)
            .collect()
    }

    /// Returns the statuses of every video webhook so far.
    pub(super) fn video_statuses(&self) -> Vec<&str> {
        self.bodies("video").map(|body| body["video"]["status"].as_str().unwrap()).collect()
    }

    /// Returns the messages of every webhook of one type so far.
    pub(super) fn bodies<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        let of_kind = self.webhooks.iter().filter(move |webhook| webhook.kind == kind);
        of_kind.map(|webhook| &webhook.body["message"])
    }
}

/// Reads a time of the platform.
pub(super) fn time(value: &Value) -> DateTime<Utc> {
    value.as_str().unwrap().parse().unwrap()
}
