//! The client: one method per operation, one HTTP request per call.
//!
//! Every call goes through [`Client::call`], which adds the ticket, sends, repeats once with a
//! renewed ticket after a 401, and writes one line to the log: operation, status, milliseconds.
//! No addresses and no bodies are logged.

mod broadcasts;
mod decode;
mod pages;
mod recordings;
mod streams;
mod videos;

#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Instant};

use reqwest::Method;
use secrecy::SecretString;
use serde_json::Value;

pub use self::recordings::StartRecording;
use crate::{
    Config, ConfigError, CreateBody, Error, Gate, Operation, Sign,
    auth::{self, Auth, Ticket},
    http::{self, Answer, Broken},
};

/// A client of one platform account. Cloning is cheap; clones share connections and tokens.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
    gate: Option<Arc<dyn Gate>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Client").field("base", &self.inner.base).finish_non_exhaustive()
    }
}

/// What the clones share.
struct Inner {
    http: reqwest::Client,
    /// Without a slash at the end.
    base: String,
    auth: Auth,
    create_body: CreateBody,
    /// Secrets that must not show in messages.
    secrets: Vec<SecretString>,
}

/// One request to be.
struct Call {
    operation: Operation,
    method: Method,
    path: String,
    query: Vec<(&'static str, String)>,
    body: Option<Value>,
    /// Secrets in the body, which an answer may quote.
    secrets: Vec<SecretString>,
}

impl Call {
    /// A request without query and body.
    fn new(operation: Operation, method: Method, path: String) -> Self {
        Self { operation, method, path, query: Vec::new(), body: None, secrets: Vec::new() }
    }

    /// The same with a body.
    fn body(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    /// The same with a parameter.
    fn query(mut self, name: &'static str, value: &impl ToString) -> Self {
        self.query.push((name, value.to_string()));
        self
    }
}

impl Client {
    /// Makes a client; sends nothing.
    ///
    /// # Errors
    /// When the base address or the credentials cannot be used, or TLS cannot be set up.
    #[expect(clippy::needless_pass_by_value, reason = "the credentials change hands")]
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        let base = http::base_url(&config.base_url)?;
        let http = http::client(&config, &base)?;
        let auth = Auth::new(&config.credentials, &http, &base)?;
        let inner = Inner {
            http,
            base: base.as_str().trim_end_matches('/').to_owned(),
            auth,
            create_body: config.create_body,
            secrets: auth::secrets(&config.credentials),
        };
        Ok(Self { inner: Arc::new(inner), gate: None })
    }

    /// The same client, whose requests pass a gate. Renewals of credentials do not.
    #[must_use]
    pub fn behind(&self, gate: Arc<dyn Gate>) -> Self {
        Self { inner: Arc::clone(&self.inner), gate: Some(gate) }
    }

    /// Makes one call: the answer is a success, or this is an error.
    async fn call(&self, call: Call) -> Result<Answer, Error> {
        let started = Instant::now();
        let outcome = self.attempt(&call).await;
        let outcome = match outcome {
            Ok(answer)
                if answer.is_success() && !decode::has_errors_inside(call.operation, &answer) =>
            {
                Ok(answer)
            }
            Ok(answer) => {
                let secrets: Vec<_> =
                    self.inner.secrets.iter().chain(&call.secrets).cloned().collect();
                Err(Error::of_answer(call.operation, &answer, &secrets))
            }
            Err(error) => Err(error),
        };
        log(&call, &outcome, started);
        outcome
    }

    /// Sends with a ticket; after a 401 once more if another ticket is to be had.
    async fn attempt(&self, call: &Call) -> Result<Answer, Error> {
        let auth = &self.inner.auth;
        let failed = |failure| Error::of_failure(call.operation, failure);
        let broken = |broken| Error::of_broken(call.operation, broken);
        let ticket = auth.ticket().await.map_err(failed)?;
        let answer = self.send(call, &ticket).await.map_err(broken)?;
        if answer.status != 401 {
            return Ok(answer);
        }
        let Some(renewed) = auth.renewed(&ticket).await.map_err(failed)? else {
            return Ok(answer);
        };
        let answer = self.send(call, &renewed).await.map_err(broken)?;
        if answer.status == 401 {
            auth.rejected_again().await;
        }
        Ok(answer)
    }

    /// Sends once.
    async fn send(&self, call: &Call, ticket: &Ticket) -> Result<Answer, Broken> {
        let address = format!("{}{}", self.inner.base, call.path);
        let request = self.inner.http.request(call.method.clone(), address);
        let request = request.query(&call.query);
        let request = request.header(reqwest::header::AUTHORIZATION, ticket.header.clone());
        let request = match &call.body {
            Some(body) => request.json(body),
            None => request,
        };
        let Some(gate) = &self.gate else { return http::exchange(request).await };
        gate.pass().await;
        let outcome = http::exchange(request).await;
        gate.saw(Sign::of(outcome.as_ref().ok().map(|answer| answer.status)));
        outcome
    }
}

/// Writes the line of one call: reads at debug, everything that changes something at info.
fn log(call: &Call, outcome: &Result<Answer, Error>, started: Instant) {
    let operation = call.operation.as_str();
    let milliseconds = started.elapsed().as_millis();
    let (status, result) = match outcome {
        Ok(answer) => (Some(answer.status), "success"),
        Err(error) => (error.status(), error.disposition().as_str()),
    };
    if call.method == Method::GET {
        tracing::debug!(operation, status, result, milliseconds, "platform call");
    } else {
        tracing::info!(operation, status, result, milliseconds, "platform call");
    }
}
