//! Who calls: a permanent token, or a user whose short-lived tokens are renewed.
//!
//! A *ticket* is the value of the header `Authorization` for one request. Not the job of this
//! module: deciding when a request is repeated; it only says whether a new ticket is to be had.

mod jwt;

use std::sync::Arc;

use reqwest::{Client, Url, header::HeaderValue};
use secrecy::{ExposeSecret, SecretString};

use self::jwt::Jwt;
use crate::{ConfigError, Credentials, error::Failure};

/// The value of the header `Authorization` for one request.
#[derive(Clone)]
pub(crate) struct Ticket {
    /// The header's value, marked as sensitive.
    pub(crate) header: HeaderValue,
    /// Which renewal it comes from; `None` for a permanent token.
    generation: Option<u64>,
}

/// The source of tickets.
pub(crate) enum Auth {
    /// A permanent API token.
    Token(Ticket),
    /// A user who logs in.
    Password(Arc<Jwt>),
}

impl Auth {
    /// Checks the credentials; makes no request.
    pub(crate) fn new(
        credentials: &Credentials,
        http: &Client,
        base: &Url,
    ) -> Result<Self, ConfigError> {
        match credentials {
            Credentials::Token(token) => {
                // A token from a file ends in a line break more often than not.
                let token = token.expose_secret().trim();
                let header = header("APIKey", token).filter(|_| !token.is_empty());
                let header = header.ok_or(ConfigError::Credential { what: "token" })?;
                Ok(Self::Token(Ticket { header, generation: None }))
            }
            Credentials::Password { username, password } => {
                if username.is_empty() {
                    return Err(ConfigError::Credential { what: "username" });
                }
                if password.expose_secret().is_empty() {
                    return Err(ConfigError::Credential { what: "password" });
                }
                let jwt = Jwt::new(http.clone(), base, username.clone(), password.clone());
                Ok(Self::Password(Arc::new(jwt)))
            }
        }
    }

    /// A ticket for the next request; logs in or renews if it must.
    pub(crate) async fn ticket(&self) -> Result<Ticket, Failure> {
        match self {
            Self::Token(ticket) => Ok(ticket.clone()),
            Self::Password(jwt) => jwt.ticket(None).await,
        }
    }

    /// A ticket in place of one that was answered with 401; `None` if there can be no other.
    pub(crate) async fn renewed(&self, rejected: &Ticket) -> Result<Option<Ticket>, Failure> {
        match self {
            Self::Token(_) => Ok(None),
            Self::Password(jwt) => jwt.ticket(rejected.generation).await.map(Some),
        }
    }

    /// Notes that even a renewed ticket was answered with 401, so that not every call logs in.
    pub(crate) async fn rejected_again(&self) {
        match self {
            Self::Token(_) => {}
            Self::Password(jwt) => jwt.rejected_again().await,
        }
    }
}

/// A header value that does not show in `Debug`; `None` for characters that no header can hold.
fn header(scheme: &str, token: &str) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_str(&format!("{scheme} {token}")).ok()?;
    header.set_sensitive(true);
    Some(header)
}

/// The secrets that must not show in a message.
pub(crate) fn secrets(credentials: &Credentials) -> Vec<SecretString> {
    match credentials {
        Credentials::Token(token) => vec![SecretString::from(token.expose_secret().trim())],
        Credentials::Password { password, .. } => vec![password.clone()],
    }
}
