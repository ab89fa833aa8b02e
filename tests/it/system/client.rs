//! The API as a backend service calls it.

use std::net::SocketAddr;

use reqwest::{Method, StatusCode};
use serde_json::Value;

/// A caller with one token.
pub(crate) struct Client {
    http: reqwest::Client,
    address: SocketAddr,
    token: String,
}

/// What the API answered; the body is null where there was none.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Value,
}

impl Client {
    /// A caller of the API at `address`.
    pub(crate) fn new(address: SocketAddr, token: &str) -> Self {
        Self { http: http(), address, token: token.to_owned() }
    }

    /// Where the API listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// `GET path`.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, None, None).await
    }

    /// `POST path` with a body and, where it has one, an idempotency key.
    pub(crate) async fn post(&self, path: &str, body: &Value, key: Option<&str>) -> Answer {
        self.send(Method::POST, path, Some(body), key).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        key: Option<&str>,
    ) -> Answer {
        let url = format!("http://{}{path}", self.address);
        let mut request = self.http.request(method, url).bearer_auth(&self.token);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        Answer { status, body: serde_json::from_str(&text).unwrap_or_default() }
    }
}

impl Answer {
    /// The body of an answer that must be a success.
    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        assert!(self.status.is_success(), "the API answered {}: {}", self.status, self.body);
        self.body
    }
}

/// A client without proxies. The simulator, started before, has installed the TLS provider that
/// it must have although it speaks plain HTTP here.
pub(crate) fn http() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}
