//! A simulator with a client for it, and waiting without guessing.

use reqwest::{Method, Response};
use serde_json::{Value, json};
use simulator::{Config, Simulator};

use crate::receiver::PATIENCE;

/// A simulator and a client.
pub(crate) struct Stage {
    pub(crate) simulator: Simulator,
    client: reqwest::Client,
}

/// An answer, read to its end.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) text: String,
}

impl Answer {
    /// Returns the body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }
}

impl Stage {
    /// Starts a simulator that is a hundred times as fast as the platform.
    pub(crate) async fn new() -> Self {
        Self::with(Config::default()).await
    }

    /// Starts a simulator; its time scale is 100 unless the configuration says another.
    pub(crate) async fn with(mut config: Config) -> Self {
        if config.time_scale <= 1.0 {
            config.time_scale = 100.0;
        }
        let simulator = Simulator::start(config).await.unwrap();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { simulator, client }
    }

    /// Sends a request with a permanent token; `Null` is no body.
    pub(crate) async fn send(
        &self,
        method: &str,
        target: &str,
        body: Value,
    ) -> reqwest::Result<Response> {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let url = format!("{}{target}", self.simulator.base_url());
        let request = self.client.request(method, url).header("authorization", "apikey 1_secret");
        if body.is_null() { request.send().await } else { request.json(&body).send().await }
    }

    /// Sends a request and reads the answer.
    pub(crate) async fn call(&self, method: &str, target: &str, body: Value) -> Answer {
        let response = self.send(method, target, body).await.unwrap();
        let status = response.status().as_u16();
        Answer { status, text: response.text().await.unwrap() }
    }

    /// Makes an active stream and returns its id.
    pub(crate) async fn active_stream(&self) -> i64 {
        let body = json!({"name": "test_stream", "active": true});
        self.call("POST", "/streaming/streams", body).await.json()["id"].as_i64().unwrap()
    }

    /// Reads until a document passes a test.
    pub(crate) async fn wait_for(&self, target: &str, test: impl Fn(&Value) -> bool) -> Value {
        let found = async {
            loop {
                let document = self.call("GET", target, Value::Null).await.json();
                if test(&document) {
                    return document;
                }
            }
        };
        tokio::time::timeout(PATIENCE, found).await.unwrap()
    }
}
