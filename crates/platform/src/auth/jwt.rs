//! Login and renewal of a user's tokens, single-flight.
//!
//! A refresh token is blacklisted once used, so at most one renewal runs at a time, each refresh
//! token is sent once, and the renewal runs in a task of its own: a caller that is cancelled in
//! the middle cannot lose the new pair. Lives of the tokens and the paths are those of the
//! platform's IAM OpenAPI file (access 1 h, refresh 24 h).

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use reqwest::{Client, RequestBuilder, Url, header::HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::{Ticket, header};
use crate::{
    Disposition,
    error::Failure,
    http::{self, Answer, Broken},
    refusal::Refusal,
};

/// How long a refused login is remembered. The platform limits logins (5/s in older documents),
/// and a wrong password does not become right: without it every job would try again.
const REFUSAL_MEMORY: Duration = Duration::from_mins(1);

/// How long tokens are used: 80 % of their life, so that none dies on its way.
#[derive(Clone, Copy)]
struct Life {
    access: Duration,
    refresh: Duration,
}

impl Life {
    /// The published lives.
    const PUBLISHED: Self =
        Self { access: Duration::from_hours(1), refresh: Duration::from_hours(24) };
}

/// The tokens of one user.
pub(crate) struct Jwt {
    http: Client,
    login: String,
    refresh: String,
    username: String,
    password: SecretString,
    life: Life,
    pair: Mutex<Option<Pair>>,
    /// Held while a renewal runs, by the renewal's own task only.
    renewing: tokio::sync::Mutex<Renewing>,
}

/// An access token with what it can be renewed by.
#[derive(Clone)]
struct Pair {
    ticket: Ticket,
    /// Taken out before it is sent.
    refresh: Option<SecretString>,
    renew_at: Instant,
    dies_at: Instant,
    refresh_until: Instant,
}

/// What the renewals remember.
#[derive(Default)]
struct Renewing {
    /// Number of pairs so far.
    generation: u64,
    /// The last refusal and when it was.
    refused: Option<(Instant, Failure)>,
}

/// The tokens of an answer.
struct Tokens {
    header: HeaderValue,
    refresh: Option<SecretString>,
}

impl Jwt {
    /// A user who is not logged in yet.
    pub(super) fn new(http: Client, base: &Url, username: String, password: SecretString) -> Self {
        let base = base.as_str().trim_end_matches('/');
        Self {
            http,
            login: format!("{base}/iam/auth/jwt/login"),
            refresh: format!("{base}/iam/auth/jwt/refresh"),
            username,
            password,
            life: Life::PUBLISHED,
            pair: Mutex::new(None),
            renewing: tokio::sync::Mutex::default(),
        }
    }

    /// A ticket that is fresh and not of the `rejected` generation.
    pub(super) async fn ticket(self: &Arc<Self>, rejected: Option<u64>) -> Result<Ticket, Failure> {
        if let Some(ticket) = self.usable(rejected) {
            return Ok(ticket);
        }
        tokio::spawn(Arc::clone(self).renew(rejected)).await.unwrap_or_else(|_| {
            let message = "the login was interrupted, nothing else was sent".to_owned();
            Err(Failure::new(message, Disposition::Retry { after: None }))
        })
    }

    /// Remembers that a token fresh from the platform was refused by it.
    pub(super) async fn rejected_again(&self) {
        let message = "a token fresh from the login was refused".to_owned();
        let refused = Failure::new(message, Disposition::Unauthorized);
        self.renewing.lock().await.refused = Some((Instant::now(), refused));
    }

    /// The ticket in hand, unless it was rejected or is due for renewal.
    fn usable(&self, rejected: Option<u64>) -> Option<Ticket> {
        let pair = self.pair();
        let pair = pair.as_ref()?;
        let fresh = Instant::now() < pair.renew_at;
        (fresh && !pair.is(rejected)).then(|| pair.ticket.clone())
    }

    /// Renews the pair, unless another caller just did.
    async fn renew(self: Arc<Self>, rejected: Option<u64>) -> Result<Ticket, Failure> {
        let mut renewing = self.renewing.lock().await;
        if let Some(ticket) = self.usable(rejected) {
            return Ok(ticket);
        }
        if let Some((at, refused)) = &renewing.refused
            && at.elapsed() < REFUSAL_MEMORY
        {
            return Err(refused.clone());
        }
        match self.fetch().await {
            Ok(tokens) => {
                renewing.generation += 1;
                renewing.refused = None;
                Ok(self.keep(tokens, renewing.generation))
            }
            Err(failure) => {
                if failure.disposition() == Disposition::Unauthorized {
                    renewing.refused = Some((Instant::now(), failure.clone()));
                }
                self.make_do(rejected).ok_or(failure)
            }
        }
    }

    /// A new pair: by the refresh token if there is one, else by login.
    async fn fetch(&self) -> Result<Tokens, Failure> {
        let Some(refresh) = self.take_refresh() else { return self.log_in().await };
        let body = json!({"refresh": refresh.expose_secret()});
        match http::exchange(self.http.post(&self.refresh).json(&body)).await {
            Ok(answer) if answer.is_success() => read("token refresh", &answer),
            // Used, expired or blacklisted.
            Ok(answer) if matches!(answer.status, 400..=407 | 409..=424 | 426..=428) => {
                self.log_in().await
            }
            Ok(answer) => Err(self.refused("token refresh", &answer)),
            Err(broken) => {
                if matches!(broken, Broken::NotSent(_)) {
                    self.put_back(refresh);
                }
                Err(not_answered("token refresh", broken))
            }
        }
    }

    /// A new pair by user name and password.
    async fn log_in(&self) -> Result<Tokens, Failure> {
        let password = self.password.expose_secret();
        let body = json!({"username": self.username, "password": password});
        let request: RequestBuilder = self.http.post(&self.login).json(&body);
        match http::exchange(request).await {
            Ok(answer) if answer.is_success() => read("login", &answer),
            Ok(answer) => Err(self.refused("login", &answer)),
            Err(broken) => Err(not_answered("login", broken)),
        }
    }

    /// A renewal that the platform refused. The call that asked for it was not sent.
    fn refused(&self, step: &'static str, answer: &Answer) -> Failure {
        let disposition = of_renewal(answer);
        tracing::warn!(
            step,
            status = answer.status,
            disposition = disposition.as_str(),
            "platform credentials not renewed"
        );
        let own = std::slice::from_ref(&self.password);
        Failure::of_refusal(answer, Refusal::read(&answer.body, own), disposition).during(step)
    }

    /// Stores a pair and returns its ticket.
    fn keep(&self, tokens: Tokens, generation: u64) -> Ticket {
        let now = Instant::now();
        let ticket = Ticket { header: tokens.header, generation: Some(generation) };
        *self.pair() = Some(Pair {
            ticket: ticket.clone(),
            refresh: tokens.refresh,
            renew_at: now + self.life.access * 4 / 5,
            dies_at: now + self.life.access,
            refresh_until: now + self.life.refresh * 4 / 5,
        });
        ticket
    }

    /// The ticket in hand after a renewal ahead of time failed: it still works for a while.
    fn make_do(&self, rejected: Option<u64>) -> Option<Ticket> {
        let mut pair = self.pair();
        let pair = pair.as_mut()?;
        let now = Instant::now();
        if pair.is(rejected) || now >= pair.dies_at {
            return None;
        }
        pair.renew_at = (now + REFUSAL_MEMORY).min(pair.dies_at);
        Some(pair.ticket.clone())
    }

    /// Takes the refresh token out: whatever comes of it, it is not sent again.
    fn take_refresh(&self) -> Option<SecretString> {
        let mut pair = self.pair();
        let pair = pair.as_mut()?;
        pair.refresh.take().filter(|_| Instant::now() < pair.refresh_until)
    }

    /// Puts a refresh token back that was not sent.
    fn put_back(&self, refresh: SecretString) {
        if let Some(pair) = self.pair().as_mut() {
            pair.refresh = Some(refresh);
        }
    }

    /// The pair; never held over an await.
    fn pair(&self) -> MutexGuard<'_, Option<Pair>> {
        self.pair.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pair {
    /// Whether it is of this generation.
    fn is(&self, generation: Option<u64>) -> bool {
        generation.is_some() && self.ticket.generation == generation
    }
}

/// Reads `{access, refresh}`.
fn read(step: &'static str, answer: &Answer) -> Result<Tokens, Failure> {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let text = |name| body.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let header = text("access").and_then(|access| header("Bearer", access)).ok_or_else(|| {
        let message = format!("{step}: the answer holds no access token");
        Failure::new(message, Disposition::Retry { after: None })
    })?;
    tracing::debug!(step, status = answer.status, "platform credentials renewed");
    Ok(Tokens { header, refresh: text("refresh").map(SecretString::from) })
}

/// The disposition of a call whose renewal was answered so. The call itself was not sent, which
/// makes every passing trouble a plain retry.
fn of_renewal(answer: &Answer) -> Disposition {
    let after = answer.retry_after;
    match answer.status {
        425 | 429 => Disposition::Wait { after },
        503 if after.is_some() => Disposition::Wait { after },
        408 | 500..=599 => Disposition::Retry { after },
        _ => Disposition::Unauthorized,
    }
}

/// A renewal without an answer.
fn not_answered(step: &'static str, broken: Broken) -> Failure {
    tracing::warn!(step, "platform credentials not renewed: no answer");
    let (message, _) = broken.into_parts();
    Failure::new(format!("{step}: {message}"), Disposition::Retry { after: None })
}

#[cfg(test)]
mod tests;
