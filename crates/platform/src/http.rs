//! The one place where an HTTP client is built and an exchange is made.
//!
//! An exchange ends in an [`Answer`] or is *broken*, and then it matters above all whether the
//! request can have reached the platform.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use reqwest::{
    Client, RequestBuilder, Response, Url,
    header::{DATE, HeaderMap, RETRY_AFTER},
    redirect, retry,
};

use crate::{Config, ConfigError, retry_after};

/// Largest body that is read. A page of streams has some 2 KiB per stream.
const BODY_LIMIT: usize = 8 * 1024 * 1024;
/// Idle connections are dropped before a proxy between us drops them: a request sent on a
/// connection that is being closed has an unknown outcome.
const POOL_IDLE: Duration = Duration::from_secs(15);
/// A dead peer is noticed while a connection idles.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// A complete answer of any status.
pub(crate) struct Answer {
    /// The HTTP status.
    pub(crate) status: u16,
    /// What `Retry-After` asks for.
    pub(crate) retry_after: Option<Duration>,
    /// The body.
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// Whether the status is 2xx.
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// An exchange without a complete answer.
#[derive(Debug)]
pub(crate) enum Broken {
    /// No connection came about: the platform cannot have seen the request.
    NotSent(Option<reqwest::Error>),
    /// The request may have been carried out.
    Unknown(Option<reqwest::Error>),
    /// A success with a body above [`BODY_LIMIT`].
    TooLarge,
}

impl Broken {
    /// Sorts an error of the HTTP client.
    fn of(error: reqwest::Error) -> Self {
        let error = error.without_url();
        if error.is_connect() || error.is_builder() {
            Self::NotSent(Some(error))
        } else {
            Self::Unknown(Some(error))
        }
    }

    /// The message and the cause.
    pub(crate) fn into_parts(self) -> (String, Option<reqwest::Error>) {
        let (message, error) = match self {
            Self::NotSent(error) => ("no connection, nothing was sent", error),
            Self::Unknown(Some(error)) if error.is_timeout() => {
                ("no complete answer in time, the outcome is unknown", Some(error))
            }
            Self::Unknown(error) => ("the connection broke, the outcome is unknown", error),
            Self::TooLarge => ("the answer is larger than 8 MiB", None),
        };
        (message.to_owned(), error)
    }
}

/// Checks the base address and returns it without a slash at the end.
pub(crate) fn base_url(given: &str) -> Result<Url, ConfigError> {
    let unusable = |shown: &str| ConfigError::BaseUrl { base_url: shown.to_owned() };
    let url = Url::parse(given.trim()).map_err(|_| unusable("(not an address)"))?;
    let host = url.host_str().unwrap_or_default().to_owned();
    let plain = url.username().is_empty() && url.password().is_none();
    if !plain || url.query().is_some() || url.fragment().is_some() || host.is_empty() {
        return Err(unusable(&format!("{}://{host}", url.scheme())));
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(&host) => Ok(url),
        "http" => Err(ConfigError::Insecure { host }),
        _ => Err(unusable(url.as_str())),
    }
}

/// Whether the host is this machine.
fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Builds the HTTP client: no redirects, no retries, nothing but https except on loopback.
pub(crate) fn client(config: &Config, base: &Url) -> Result<Client, ConfigError> {
    // reqwest is built without a TLS provider. An error means that one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = Client::builder()
        .user_agent(concat!("tallylight/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(config.connect_timeout)
        .read_timeout(config.read_timeout)
        .timeout(config.timeout)
        .pool_idle_timeout(POOL_IDLE)
        .tcp_keepalive(KEEPALIVE)
        .redirect(redirect::Policy::none())
        .referer(false)
        .retry(retry::never());
    let builder = if base.scheme() == "https" {
        builder.https_only(true)
    } else {
        // On loopback no certificate is ever checked, so none need be installed.
        builder.tls_certs_only([])
    };
    builder.build().map_err(ConfigError::Http)
}

/// Sends one request and reads its answer.
pub(crate) async fn exchange(request: RequestBuilder) -> Result<Answer, Broken> {
    let response = request.send().await.map_err(Broken::of)?;
    let status = response.status().as_u16();
    let retry_after = retry_after(response.headers());
    let is_success = response.status().is_success();
    match read(response).await {
        Ok(body) => Ok(Answer { status, retry_after, body }),
        Err(broken) if is_success => Err(broken),
        // The status says enough; the text was only for people.
        Err(_) => Ok(Answer { status, retry_after, body: Vec::new() }),
    }
}

/// Reads the body up to [`BODY_LIMIT`].
async fn read(mut response: Response) -> Result<Vec<u8>, Broken> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(Broken::of)? {
        if body.len() + chunk.len() > BODY_LIMIT {
            return Err(Broken::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Reads `Retry-After` against the server's own clock, where it tells it.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?;
    let date =
        headers.get(DATE).and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
    retry_after::parse(value, date.unwrap_or_else(SystemTime::now))
}
