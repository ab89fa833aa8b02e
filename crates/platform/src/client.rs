//! The client: a method for each operation, one HTTP request per call.
//!
//! Every [`call`] goes through [`Client::call`], which adds the ticket, sends, repeats once with a
//! renewed ticket after a 401, and writes one line to the log: operation, status, milliseconds.
//! No addresses and no bodies are logged.

mod account;
mod ai;
mod broadcasts;
mod call;
mod decode;
mod overlays;
mod pages;
mod players;
mod playlists;
mod recordings;
mod restreams;
mod statistics;
mod streams;
mod subtitles;
mod videos;

#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Instant};

use self::call::Call;
pub use self::{
    ai::AiTaskFilter,
    pages::Pages,
    recordings::StartRecording,
    statistics::{Chart, ChartFilter, CountBy, CountFilter, Span, Watching},
    streams::TokenReset,
    videos::{MOST_VIDEOS, VideoFilter},
};
use crate::{
    Config, ConfigError, CreateBody, Error, Gate, Operation, Sign,
    auth::{Auth, Ticket},
    http::{self, Answer, Broken},
};

/// A client of one platform account. Cloning is cheap; clones share connections and tokens.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
    gate: Option<Arc<dyn Gate>>,
    #[cfg(feature = "testing")]
    transport: Option<Arc<dyn crate::testing::Transport>>,
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
        };
        Ok(Self {
            inner: Arc::new(inner),
            gate: None,
            #[cfg(feature = "testing")]
            transport: None,
        })
    }

    /// The same client, whose requests pass a gate. Renewals of credentials do not.
    #[must_use]
    pub fn behind(&self, gate: Arc<dyn Gate>) -> Self {
        Self { gate: Some(gate), ..self.clone() }
    }

    /// The same client, whose requests go to a test's transport and to no network. Renewals of
    /// credentials do not: a permanent token needs none.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn over(&self, transport: Arc<dyn crate::testing::Transport>) -> Self {
        Self { transport: Some(transport), ..self.clone() }
    }

    /// Makes one call: the answer is a success, or this is an error.
    async fn call(&self, call: &Call<'_>) -> Result<Answer, Error> {
        let started = Instant::now();
        let outcome = self.attempt(call).await.and_then(|answer| self.judge(call, answer));
        log(call.operation, &outcome, started);
        outcome
    }

    /// Whether an answer is a success: by its status, and by what it says inside.
    fn judge(&self, call: &Call<'_>, answer: Answer) -> Result<Answer, Error> {
        let operation = call.operation;
        if answer.is_success()
            && decode::is_markup(&answer)
            && operation != Operation::PreviewPlayer
        {
            return Err(decode::markup(operation, &answer));
        }
        if answer.is_success() && !decode::has_errors_inside(operation, &answer) {
            return Ok(answer);
        }
        let mut secrets = self.inner.auth.secrets();
        secrets.extend(call.secrets.iter().cloned());
        Err(Error::of_answer(operation, &answer, &secrets))
    }

    /// Sends with a ticket; after a 401 once more if another ticket is to be had.
    async fn attempt(&self, call: &Call<'_>) -> Result<Answer, Error> {
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
    async fn send(&self, call: &Call<'_>, ticket: &Ticket) -> Result<Answer, Broken> {
        let address = format!("{}{}", self.inner.base, call.path);
        let request = self.inner.http.request(call.operation.row().method.clone(), address);
        let request = request.query(&call.query);
        let request = request.header(reqwest::header::AUTHORIZATION, ticket.header.clone());
        let request = match &call.body {
            Some(body) => request.json(body),
            None => request,
        };
        let Some(gate) = &self.gate else { return self.exchange(request).await };
        gate.pass().await;
        let outcome = self.exchange(request).await;
        let answer = outcome.as_ref().ok();
        gate.saw(Sign::of(answer.map(|a| a.status), answer.and_then(|a| a.retry_after)));
        outcome
    }

    /// Makes one exchange.
    async fn exchange(&self, request: reqwest::RequestBuilder) -> Result<Answer, Broken> {
        #[cfg(feature = "testing")]
        if let Some(transport) = &self.transport {
            return crate::testing::exchange(transport, request).await;
        }
        http::exchange(request).await
    }
}

/// Writes the line of one call: reads at debug, everything that changes something at info.
fn log(operation: Operation, outcome: &Result<Answer, Error>, started: Instant) {
    let milliseconds = started.elapsed().as_millis();
    let (status, result) = match outcome {
        Ok(answer) => (Some(answer.status), "success"),
        Err(error) => (error.status(), error.disposition().as_str()),
    };
    let is_read = operation.is_read();
    let operation = operation.as_str();
    if is_read {
        tracing::debug!(operation, status, result, milliseconds, "platform call");
    } else {
        tracing::info!(operation, status, result, milliseconds, "platform call");
    }
}
