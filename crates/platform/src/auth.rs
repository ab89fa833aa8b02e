//! Who calls: a permanent token, given or in a file, or a user whose short-lived tokens are renewed.
//!
//! A *ticket* is the value of the header `Authorization` for one request. Not the job of this
//! module: deciding when a request is repeated; it only says whether a new ticket is to be had.

mod file;
mod jwt;

use std::sync::Arc;

use reqwest::{Client, Url, header::HeaderValue};
use secrecy::{ExposeSecret, SecretString};

use self::{file::TokenFile, jwt::Jwt};
use crate::{ConfigError, Credentials, error::Failure};

/// The value of the header `Authorization` for one request.
#[derive(Clone)]
pub(crate) struct Ticket {
    /// The header's value, marked as sensitive.
    pub(crate) header: HeaderValue,
    /// Which renewal it comes from; `None` for a token that is never renewed.
    generation: Option<u64>,
}

/// The source of tickets.
pub(crate) enum Auth {
    /// A permanent API token.
    Token(Ticket, SecretString),
    /// A permanent API token in a file.
    File(TokenFile),
    /// A user who logs in, and the password.
    Password(Arc<Jwt>, SecretString),
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
                // A token from elsewhere ends in a line break more often than not.
                let token = SecretString::from(token.expose_secret().trim());
                let ticket = permanent(&token, None);
                let ticket = ticket.ok_or(ConfigError::Credential { what: "token" })?;
                Ok(Self::Token(ticket, token))
            }
            Credentials::TokenFile(path) => TokenFile::open(path).map(Self::File),
            Credentials::Password { username, password } => {
                if username.is_empty() {
                    return Err(ConfigError::Credential { what: "username" });
                }
                if password.expose_secret().is_empty() {
                    return Err(ConfigError::Credential { what: "password" });
                }
                let jwt = Jwt::new(http.clone(), base, username.clone(), password.clone());
                Ok(Self::Password(Arc::new(jwt), password.clone()))
            }
        }
    }

    /// A ticket for the next request; logs in or renews if it must.
    pub(crate) async fn ticket(&self) -> Result<Ticket, Failure> {
        match self {
            Self::Token(ticket, _) => Ok(ticket.clone()),
            Self::File(file) => Ok(file.ticket()),
            Self::Password(jwt, _) => jwt.ticket(None).await,
        }
    }

    /// A ticket in place of one that was answered with 401; `None` if there can be no other.
    pub(crate) async fn renewed(&self, rejected: &Ticket) -> Result<Option<Ticket>, Failure> {
        match self {
            Self::Token(..) => Ok(None),
            Self::File(file) => Ok(file.renewed(rejected)),
            Self::Password(jwt, _) => jwt.ticket(rejected.generation).await.map(Some),
        }
    }

    /// Notes that even a renewed ticket was answered with 401, so that not every call logs in.
    pub(crate) async fn rejected_again(&self) {
        match self {
            Self::Token(..) | Self::File(_) => {}
            Self::Password(jwt, _) => jwt.rejected_again().await,
        }
    }

    /// The secrets that must not show in a message.
    pub(crate) fn secrets(&self) -> Vec<SecretString> {
        match self {
            Self::Token(_, secret) | Self::Password(_, secret) => vec![secret.clone()],
            Self::File(file) => vec![file.token()],
        }
    }
}

/// The ticket of a permanent token; `None` if it cannot be one.
fn permanent(token: &SecretString, generation: Option<u64>) -> Option<Ticket> {
    let token = token.expose_secret();
    let header = header("APIKey", token).filter(|_| !token.is_empty())?;
    Some(Ticket { header, generation })
}

/// A header value that does not show in `Debug`; `None` for characters that no header can hold.
fn header(scheme: &str, token: &str) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_str(&format!("{scheme} {token}")).ok()?;
    header.set_sensitive(true);
    Some(header)
}
