//! From a call to a request that may be sent: the address is on the list, headers are ones that a
//! caller may set, secrets are put in.

use std::{fmt, time::Duration};

use reqwest::{
    Client, Method, Request,
    header::{CONTENT_TYPE, HeaderName, HeaderValue},
};
use secrecy::{ExposeSecret, SecretString};

use super::{Body, HeaderText, Inner, Outbound, OutboundCall, OutboundError, Reply, allow, answer};

/// Methods of calls.
const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];

/// Headers that belong to the connection or decide who is called.
const RESERVED: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A call that may be sent.
pub struct Prepared {
    http: Client,
    pub(super) request: Request,
    pub(super) expect: Vec<u16>,
    /// Secrets of this call, which an answer may quote.
    pub(super) secrets: Vec<SecretString>,
    place: String,
    host: String,
}

impl fmt::Debug for Prepared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Prepared").field("host", &self.host).finish_non_exhaustive()
    }
}

impl Outbound {
    /// Checks a call and makes its request; sends nothing.
    ///
    /// # Errors
    /// [`crate::Disposition::Refused`] where the address is not on the list, or a part of the call
    /// cannot be sent.
    pub fn prepare(&self, call: OutboundCall) -> Result<Prepared, OutboundError> {
        let places = self.0.places.iter().map(|place| &place.entry);
        let (url, number) = allow::find(places, &call.url)
            .map_err(|unlisted| OutboundError::refused(unlisted.to_string()))?;
        let place = &self.0.places[number];
        let method = method(&call.method)?;
        let mut host = url.host_str().unwrap_or_default().to_owned();
        if let Some(port) = url.port() {
            host = format!("{host}:{port}");
        }
        let mut request = Request::new(method, url);
        let mut secrets = Vec::new();
        for (name, text) in &call.headers {
            let (name, value) = header(&self.0, &place.entry, name, text, &mut secrets)?;
            if request.headers_mut().insert(name.clone(), value).is_some() {
                return Err(OutboundError::refused(format!("the header {name} is given twice")));
            }
        }
        if let Some(body) = call.body {
            set_body(&mut request, body);
        }
        let (http, place) = (place.http.clone(), place.entry.name.clone());
        Ok(Prepared { http, request, expect: call.expect, secrets, place, host })
    }
}

impl Prepared {
    /// The entry of the allow-list that covers it: its [`super::Allow::url`].
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Host, and port where it is not the usual one.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Sends it, and reads the answer within `timeout` in all.
    ///
    /// # Errors
    /// Where no answer came, or one that is not expected.
    pub async fn send(mut self, timeout: Duration) -> Result<Reply, OutboundError> {
        *self.request.timeout_mut() = Some(timeout);
        let what = format!("{} {}", self.request.method(), self.host);
        match self.http.execute(self.request).await {
            Ok(response) => answer::read(&what, response, &self.expect, &self.secrets).await,
            Err(error) => Err(answer::broken(&what, error)),
        }
    }
}

fn method(text: &str) -> Result<Method, OutboundError> {
    let known = METHODS.contains(&text).then(|| Method::from_bytes(text.as_bytes()).ok()).flatten();
    known.ok_or_else(|| {
        OutboundError::refused(format!("the method must be one of {}", METHODS.join(", ")))
    })
}

/// A header that a caller may set. Its secret is added to `secrets`.
fn header(
    inner: &Inner,
    entry: &allow::Entry,
    name: &str,
    text: &HeaderText,
    secrets: &mut Vec<SecretString>,
) -> Result<(HeaderName, HeaderValue), OutboundError> {
    let refused = OutboundError::refused;
    let name: HeaderName =
        name.parse().map_err(|_| refused("a header has a name that no header can have".into()))?;
    if RESERVED.contains(&name.as_str()) {
        return Err(refused(format!("the header {name} cannot be set by a call")));
    }
    let unsendable = || refused(format!("the value of the header {name} cannot be sent"));
    let value = match text {
        HeaderText::Plain(value) => HeaderValue::from_str(value).map_err(|_| unsendable())?,
        HeaderText::Secret { name: secret, prefix } => {
            let allowed = inner.secrets.get(secret).filter(|_| entry.secrets.contains(secret));
            let value = allowed.ok_or_else(|| {
                refused(format!(
                    "the secret \"{secret}\" may not be sent there: name it under `secrets` of the \
                     entry of http_call.allow"
                ))
            })?;
            secrets.push(value.clone());
            let text = format!("{prefix}{}", value.expose_secret());
            let mut header = HeaderValue::from_str(&text).map_err(|_| unsendable())?;
            header.set_sensitive(true);
            header
        }
    };
    Ok((name, value))
}

fn set_body(request: &mut Request, body: Body) {
    let (text, media) = match body {
        Body::Json(value) => (value.to_string(), "application/json"),
        Body::Text(text) => (text, "text/plain; charset=utf-8"),
    };
    *request.body_mut() = Some(text.into());
    request.headers_mut().entry(CONTENT_TYPE).or_insert(HeaderValue::from_static(media));
}
