//! An API over a database of its own, requests to it, and the fold that stands in for the worker.

use std::collections::HashMap;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use domain::event::{Event, NewEvent, SessionBound};
use domain::ids::{LiveStreamId, Subject, Timestamp};
use domain::state::{State, evolve};
use domain::view::{Row, rows};
use serde_json::{Value, json};
use store::{Consumer, Reaction, SealingKey, Store};
use tower::ServiceExt as _;
use uuid::Uuid;

use crate::{Api, Config, Scope, Token, router};

pub(crate) const SOURCE: &str = "gcore-main";

/// An API and what is behind it.
pub(crate) struct App {
    pub(crate) api: Api,
    pub(crate) store: Store,
    router: Router,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
    pub(crate) json: Value,
}

impl Answer {
    /// Asserts a problem document of this status and kind, and returns its detail.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, kind: &str) -> String {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!(self.json["type"], format!("urn:tallylight:problem:{kind}"));
        assert_eq!(self.json["status"], status);
        assert!(self.json["title"].is_string());
        self.json["detail"].as_str().unwrap().to_owned()
    }

    /// Asserts a validation problem and returns the fields it names.
    #[track_caller]
    pub(crate) fn wrong_fields(&self) -> Vec<String> {
        self.problem(422, "invalid");
        let errors = self.json["errors"].as_array().unwrap();
        assert!(errors.iter().all(|e| e["problem"].as_str().is_some_and(|p| !p.is_empty())));
        errors.iter().map(|e| e["field"].as_str().unwrap().to_owned()).collect()
    }

    /// Asserts a status and returns the body.
    #[track_caller]
    pub(crate) fn ok(&self, status: u16) -> &Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        &self.json
    }

    /// The header's text.
    pub(crate) fn header(&self, name: header::HeaderName) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// The secret of the test token that has just `scope`.
pub(crate) fn secret(scope: Scope) -> String {
    format!("secret of {scope}")
}

/// The settings of the tests: a token per scope, one that expired and one that will not for long.
pub(crate) fn config() -> Config {
    let mut tokens: Vec<Token> =
        Scope::ALL.map(|scope| Token::of(scope.name(), &secret(scope), [scope])).into();
    let mut expired = Token::of("expired", "expired", [Scope::Admin]);
    expired.not_after = Some(Timestamp::UNIX_EPOCH);
    let mut lasting = Token::of("lasting", "lasting", [Scope::Admin]);
    lasting.not_after = Some(crate::system_time() + chrono::TimeDelta::days(1));
    tokens.extend([expired, lasting]);
    Config {
        tokens,
        sources: vec![SOURCE.to_owned()],
        known_kinds: vec!["http_call".to_owned(), "send_mail".to_owned()],
        sealing_key: Some(SealingKey::new([7; 32])),
        body_limit: 8 * 1024,
        listeners: 20,
        plain_endpoints: false,
        regions: HashMap::new(),
    }
}

impl App {
    /// An API with the usual settings.
    pub(crate) async fn start() -> Self {
        Self::with(config()).await
    }

    /// An API with these settings.
    pub(crate) async fn with(config: Config) -> Self {
        let store = store::testing::store().await;
        let api = Api::new(store.clone(), store.notifier(), config).unwrap();
        let router = router(api.clone());
        Self { api, store, router }
    }

    /// Another process over the same database.
    pub(crate) fn beside(&self) -> Self {
        self.beside_with(config())
    }

    /// Another process with these settings.
    pub(crate) fn beside_with(&self, config: Config) -> Self {
        let api = Api::new(self.store.clone(), self.store.notifier(), config).unwrap();
        Self { router: router(api.clone()), api, store: self.store.clone() }
    }

    /// Sends a request as it is.
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let json = serde_json::from_str(&text).unwrap_or_default();
        Answer { status: parts.status, headers: parts.headers, text, json }
    }

    /// Sends a request whose answer goes on and on.
    pub(crate) async fn open(&self, request: Request<Body>) -> axum::response::Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    /// GETs with the admin's token.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.get_as(Scope::Admin, path).await
    }

    /// GETs with the token of `scope`.
    pub(crate) async fn get_as(&self, scope: Scope, path: &str) -> Answer {
        self.send(request(Method::GET, path, scope).body(Body::empty()).unwrap()).await
    }

    /// POSTs JSON with the admin's token.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_text(path, &body.to_string()).await
    }

    /// POSTs a text that claims to be JSON, with the admin's token.
    pub(crate) async fn post_text(&self, path: &str, body: &str) -> Answer {
        let request = request(Method::POST, path, Scope::Admin)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_owned()));
        self.send(request.unwrap()).await
    }

    /// POSTs nothing, perhaps with an idempotency key.
    pub(crate) async fn command(&self, path: &str, key: Option<&str>) -> Answer {
        let mut request = request(Method::POST, path, Scope::Admin);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        self.send(request.body(Body::empty()).unwrap()).await
    }

    /// Asks for a session.
    pub(crate) async fn start_session(&self, key: &str, body: &Value) -> Answer {
        self.start_session_with(key, &body.to_string()).await
    }

    /// Asks for a session with this very text.
    pub(crate) async fn start_session_with(&self, key: &str, body: &str) -> Answer {
        let request = request(Method::POST, "/v1/sessions", Scope::Admin)
            .header("idempotency-key", key)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_owned()));
        self.send(request.unwrap()).await
    }

    /// Asks for a session that is accepted, and returns its id.
    pub(crate) async fn session(&self, key: &str, body: &Value) -> Uuid {
        let answer = self.start_session(key, body).await;
        answer.ok(201)["id"].as_str().unwrap().parse().unwrap()
    }

    /// Appends an event as a worker would.
    pub(crate) async fn append(&self, subject: &Subject, event: &Event) {
        let now = crate::system_time();
        let new = NewEvent::new(subject.clone(), event, now, Uuid::now_v7());
        self.store.append_one(new).await.unwrap();
    }

    /// Binds a session to a live stream, as the worker forwards it.
    pub(crate) async fn bind(&self, session: Uuid, live_stream: i64) -> Subject {
        let subject = Subject::request(SOURCE, session);
        let log = self.store.read_subject(&subject, 0, 1).await.unwrap();
        let Event::SessionRequested(request) = Event::decode(&log[0]) else { panic!("no request") };
        let live_stream = LiveStreamId(live_stream);
        let subject = Subject::live_stream(SOURCE, live_stream);
        let bound = SessionBound {
            created: request.live_stream.is_none(),
            request,
            live_stream,
            observed: None,
            go_live: false,
            end: false,
        };
        self.append(&subject, &Event::SessionBound(bound)).await;
        subject
    }

    /// The subject of an account, which is named by its pseudonym.
    pub(crate) async fn account(&self, source: &str, account: &str) -> Subject {
        let pseudonym = self.store.pseudonym_of(account).await.unwrap();
        Subject::account(source, &pseudonym.map_or_else(String::new, |p| p.to_string()))
    }

    /// The events of a subject, their personal values in the open.
    pub(crate) async fn events(&self, subject: &Subject) -> Vec<Event> {
        let mut stored = self.store.read_subject(subject, 0, 1000).await.unwrap();
        self.store.open_events(self.api.sealing_key(), &mut stored).await.unwrap();
        stored.iter().map(Event::decode).collect()
    }

    /// The names of the events of a request.
    pub(crate) async fn commands(&self, session: Uuid) -> Vec<&'static str> {
        let events = self.events(&Subject::request(SOURCE, session)).await;
        events.iter().map(Event::name).collect()
    }

    /// Folds what is new in every slice into the projections.
    pub(crate) async fn project(&self) {
        for slice in self.store.slices().slices() {
            self.project_slice(slice).await;
        }
    }

    async fn project_slice(&self, slice: i16) {
        let (process, ttl) = (Uuid::now_v7(), Duration::from_mins(1));
        let claimed = self.store.claim(Consumer::React, slice, process, ttl).await.unwrap();
        let mut lease = claimed.expect("nobody else holds the slice");
        loop {
            let (position, since) = (lease.position, lease.recorded_at);
            let events = self.store.read_after(slice, position, since, 500).await.unwrap();
            let Some(last) = events.last() else { break };
            let subjects: Vec<Subject> = events.iter().map(|e| e.subject.clone()).collect();
            let mut states = self.store.load_states(slice, &subjects).await.unwrap();
            let mut touched: HashMap<Subject, (State, i64)> = HashMap::new();
            let mut latest: HashMap<String, (Row, i64)> = HashMap::new();
            for stored in &events {
                let subject = stored.subject.clone();
                let before = states.remove(&subject);
                let Some(after) = evolve(before, stored, &Event::decode(stored)) else { continue };
                for row in rows(&subject, &after) {
                    latest.insert(row_key(&row), (row, stored.position));
                }
                states.insert(subject.clone(), after.clone());
                touched.insert(subject, (after, stored.position));
            }
            let reaction = Reaction {
                to: last.position,
                recorded_at: last.recorded_at,
                states: touched.into_iter().map(|(s, (state, at))| (s, state, at)).collect(),
                rows: latest.into_values().collect(),
                ..Reaction::default()
            };
            lease = self.store.commit_reaction(&lease, &reaction, ttl).await.unwrap().lease;
        }
        self.store.release(Consumer::React, slice, lease.epoch).await.unwrap();
    }
}

/// What tells rows apart.
fn row_key(row: &Row) -> String {
    match row {
        Row::Request(r) => format!("request {}", r.session),
        Row::Session(r) => format!("session {}", r.session),
        Row::LiveStream(r) => format!("live stream {} {}", r.source, r.id),
        Row::Video(r) => format!("video {} {}", r.source, r.id),
        Row::Account(r) => format!("account {} {}", r.source, r.id),
    }
}

/// A request with the token of `scope`.
pub(crate) fn request(method: Method, path: &str, scope: Scope) -> axum::http::request::Builder {
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::AUTHORIZATION, format!("Bearer {}", secret(scope)))
}

/// The shortest body that starts a session.
pub(crate) fn named(name: &str) -> Value {
    json!({ "name": name })
}
