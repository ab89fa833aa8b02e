//! A client without a network: its requests go to a *transport* of the test, which may be a platform
//! in memory that lives in virtual time.
//!
//! Everything else is the client's own: what it sends, what it reads, and what a failure means.

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use reqwest::RequestBuilder;

use crate::http::{Answer, Broken};

/// A request as it would go out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Upper-case method.
    pub method: String,
    /// Path without the query.
    pub path: String,
    /// Decoded query, in order.
    pub query: Vec<(String, String)>,
    /// Value of the header `Authorization`.
    pub authorization: String,
    /// The body.
    pub body: Vec<u8>,
}

/// What comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// A complete answer.
    Answer {
        /// The HTTP status.
        status: u16,
        /// What `Retry-After` asks for.
        retry_after: Option<Duration>,
        /// The body.
        body: Vec<u8>,
    },
    /// No connection came about.
    NotSent,
    /// The connection broke: the request may have been carried out.
    Unknown,
}

/// An answer on its way.
pub type Exchange<'a> = Pin<Box<dyn Future<Output = Received> + Send + 'a>>;

/// What takes the requests of a client.
pub trait Transport: fmt::Debug + Send + Sync {
    /// Makes one exchange.
    fn exchange(&self, sent: Sent) -> Exchange<'_>;
}

/// Makes an exchange over a transport.
pub(crate) async fn exchange(
    transport: &Arc<dyn Transport>,
    request: RequestBuilder,
) -> Result<Answer, Broken> {
    let request = request.build().map_err(|error| Broken::NotSent(Some(error)))?;
    let authorization = request.headers().get(reqwest::header::AUTHORIZATION);
    let pair = |(key, value): (std::borrow::Cow<'_, str>, std::borrow::Cow<'_, str>)| {
        (key.into_owned(), value.into_owned())
    };
    let sent = Sent {
        method: request.method().as_str().to_owned(),
        path: request.url().path().to_owned(),
        query: request.url().query_pairs().map(pair).collect(),
        authorization: authorization
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned(),
        body: request.body().and_then(|body| body.as_bytes()).unwrap_or_default().to_vec(),
    };
    match transport.exchange(sent).await {
        Received::Answer { status, retry_after, body } => Ok(Answer { status, retry_after, body }),
        Received::NotSent => Err(Broken::NotSent(None)),
        Received::Unknown => Err(Broken::Unknown(None)),
    }
}
