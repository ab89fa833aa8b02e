//! Calls to other services, on behalf of jobs: one call is one HTTP request to an address on the
//! allow-list, and every failure says what may be done next.
//!
//! No redirect is followed, no proxy is used, and no connection goes to a private address unless
//! the entry says so ([`Allow`]). A *secret* is named by the call and put into a header here; what
//! an answer quotes of it is masked before anybody sees the answer. Not the job of this module: when
//! to try again, and how often a place may be called.

mod allow;
mod answer;
mod guard;
mod prepare;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use reqwest::{Client, redirect, retry};
use secrecy::SecretString;
use serde_json::Value;
use thiserror::Error as ThisError;

use self::{
    allow::Entry,
    guard::{Guard, Names, Reach},
};
use crate::{Disposition, Sign};

pub use self::{
    allow::{Allow, AllowError},
    prepare::Prepared,
};

/// Longest time to a connection, with the name looked up and TLS done.
const CONNECT: Duration = Duration::from_secs(3);
/// As for the platform's client.
const POOL_IDLE: Duration = Duration::from_secs(15);

/// The places that may be called. Cloning is cheap; by default there is none.
#[derive(Clone, Default)]
pub struct Outbound(Arc<Inner>);

#[derive(Default)]
struct Inner {
    places: Vec<Place>,
    secrets: BTreeMap<String, SecretString>,
}

/// An entry with its own client, so that connections are not shared between entries.
struct Place {
    entry: Entry,
    http: Client,
}

impl fmt::Debug for Outbound {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls = self.0.places.iter().map(|place| place.entry.url.as_str());
        formatter.debug_list().entries(urls).finish()
    }
}

/// A call to be made. It has no `Debug`: headers and bodies may be personal.
pub struct OutboundCall {
    /// `GET`, `HEAD`, `POST`, `PUT`, `PATCH` or `DELETE`.
    pub method: String,
    /// The absolute address.
    pub url: String,
    /// Header names and values.
    pub headers: Vec<(String, HeaderText)>,
    /// The body.
    pub body: Option<Body>,
    /// Statuses that count as success; empty: 200 to 299.
    pub expect: Vec<u16>,
}

/// The value of a header.
pub enum HeaderText {
    /// As it is.
    Plain(String),
    /// A secret of the configuration.
    Secret {
        /// Its name.
        name: String,
        /// What stands before it, such as `Bearer `.
        prefix: String,
    },
}

/// The body of a call.
pub enum Body {
    /// Sent as `application/json`.
    Json(Value),
    /// Sent as `text/plain`, unless a header says otherwise.
    Text(String),
}

/// A successful answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The body, secrets masked: JSON where it is, else text; null where there is none.
    pub body: Value,
    /// The body was longer than what is kept, or broke off.
    pub is_cut: bool,
}

/// A call that did not succeed. Its text names the host and no more of the address.
#[derive(Debug, ThisError)]
#[error("{message}")]
pub struct OutboundError {
    message: String,
    status: Option<u16>,
    disposition: Disposition,
    #[source]
    source: Option<Box<reqwest::Error>>,
    is_sent: bool,
}

impl OutboundError {
    /// What may be done now: [`Disposition::Retry`] or [`Disposition::Refused`].
    pub fn disposition(&self) -> Disposition {
        self.disposition
    }

    /// The HTTP status, if there was an answer.
    pub fn status(&self) -> Option<u16> {
        self.status
    }

    /// What it tells of the other side; `None`: that side was not asked.
    pub fn sign(&self) -> Option<Sign> {
        let after = if let Disposition::Retry { after } = self.disposition { after } else { None };
        self.is_sent.then(|| Sign::of(self.status, after))
    }

    /// The call itself is wrong; it was not sent.
    fn refused(message: String) -> Self {
        let disposition = Disposition::Refused;
        Self { message, status: None, disposition, source: None, is_sent: false }
    }
}

impl Outbound {
    /// The places that may be called, and the secrets that calls may name.
    ///
    /// # Errors
    /// For an entry that cannot be used, or that names a secret which is not there.
    pub fn new(
        allow: &[Allow],
        secrets: BTreeMap<String, SecretString>,
    ) -> Result<Self, AllowError> {
        Self::resolving(allow, secrets, &Names::System)
    }

    /// All of the public internet by https; with `private` also private networks and this machine,
    /// and plain http. For addresses that whoever may register one answers for.
    ///
    /// # Errors
    /// Where the HTTP client cannot be made.
    pub fn anywhere(private: bool) -> Result<Self, AllowError> {
        Self::anywhere_resolving(private, Names::System)
    }

    fn anywhere_resolving(private: bool, names: Names) -> Result<Self, AllowError> {
        let reach = if private { Reach::Private } else { Reach::Public };
        let unusable = || AllowError::Url { url: String::new() };
        let entry = Entry::open(reach).ok_or_else(unusable)?;
        let http = client(&entry, names)?;
        let places = vec![Place { entry, http }];
        Ok(Self(Arc::new(Inner { places, secrets: BTreeMap::new() })))
    }

    fn resolving(
        allow: &[Allow],
        secrets: BTreeMap<String, SecretString>,
        names: &Names,
    ) -> Result<Self, AllowError> {
        let place = |allow: &Allow| {
            let entry = Entry::parse(allow)?;
            if let Some(secret) = allow.secrets.iter().find(|name| !secrets.contains_key(*name)) {
                let url = entry.url.to_string();
                return Err(AllowError::Secret { url, secret: secret.clone() });
            }
            let http = client(&entry, names.clone())?;
            Ok(Place { entry, http })
        };
        let places = allow.iter().map(place).collect::<Result<_, _>>()?;
        Ok(Self(Arc::new(Inner { places, secrets })))
    }
}

/// The client of one entry.
fn client(entry: &Entry, names: Names) -> Result<Client, AllowError> {
    // reqwest is built without a TLS provider. An error means that one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = Client::builder()
        .user_agent(concat!("tallylight/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT)
        .pool_idle_timeout(POOL_IDLE)
        .redirect(redirect::Policy::none())
        .referer(false)
        .retry(retry::never())
        // A proxy would connect where the guard does not see it.
        .no_proxy()
        .dns_resolver(Guard { reach: entry.reach, names });
    let builder = match entry.url.scheme() {
        "https" if entry.is_open && entry.reach == Reach::Private => builder,
        "https" => builder.https_only(true),
        _ => builder.tls_certs_only([]),
    };
    builder.build().map_err(AllowError::Http)
}
