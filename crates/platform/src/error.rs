//! The errors of this crate: a call that failed, and settings that no client can be made from.

use std::{io, path::PathBuf, time::Duration};

use secrecy::SecretString;
use thiserror::Error as ThisError;

use crate::{
    Disposition, Operation, disposition,
    http::{Answer, Broken},
    refusal::Refusal,
};

/// A call that did not succeed, or whose success cannot be known.
#[derive(Debug, ThisError)]
#[error("{operation}{}: {}", status_text(failure.status), failure.message)]
pub struct Error {
    operation: Operation,
    #[source]
    source: Option<Box<reqwest::Error>>,
    failure: Failure,
}

/// What went wrong, whichever operation asked.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    status: Option<u16>,
    message: String,
    retry_after: Option<Duration>,
    disposition: Disposition,
    /// Whether the body was a page for people.
    is_markup: bool,
}

impl Error {
    /// The operation that was called.
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// The HTTP status, if the operation itself was answered.
    pub fn status(&self) -> Option<u16> {
        self.failure.status
    }

    /// What the platform said, or what happened on the way: redacted, at most some 400 characters.
    pub fn message(&self) -> &str {
        &self.failure.message
    }

    /// How long the platform asks to wait, at most one hour.
    pub fn retry_after(&self) -> Option<Duration> {
        self.failure.retry_after
    }

    /// What may be done now.
    pub fn disposition(&self) -> Disposition {
        self.failure.disposition
    }

    /// Whether the platform answered that there is no such object (404 or 410 for an operation on
    /// one object, and not by a proxy's page). Right after a webhook it may only lag.
    pub fn is_not_found(&self) -> bool {
        matches!(self.failure.status, Some(404 | 410))
            && !self.failure.is_markup
            && disposition::is_on_object(self.operation)
    }

    /// Whether the platform refuses the request for what this field of it is, or lacks: its errors
    /// name the field before what they say of it.
    pub fn is_of_field(&self, field: &str) -> bool {
        let names = |text: &str| text.split_once(':').is_some_and(|(name, _)| name == field);
        self.failure.status == Some(422) && self.failure.message.split("; ").any(names)
    }

    /// A failure while the credentials were renewed.
    pub(crate) fn of_failure(operation: Operation, failure: Failure) -> Self {
        Self { operation, source: None, failure }
    }

    /// An answer that is no success.
    pub(crate) fn of_answer(operation: Operation, answer: &Answer, own: &[SecretString]) -> Self {
        let refusal = Refusal::read(&answer.body, own);
        let retry_after = answer.retry_after;
        let disposition = disposition::of_answer(operation, answer.status, &refusal, retry_after);
        Self::of_failure(operation, Failure::of_refusal(answer, refusal, disposition))
    }

    /// A success whose body is not what the operation answers.
    pub(crate) fn of_body(operation: Operation, status: u16, message: String) -> Self {
        let disposition = disposition::of_unknown(operation, None);
        let mut failure = Failure::new(message, disposition);
        failure.status = Some(status);
        Self::of_failure(operation, failure)
    }

    /// No complete answer.
    pub(crate) fn of_broken(operation: Operation, broken: Broken) -> Self {
        let disposition = match &broken {
            Broken::NotSent(_) => Disposition::Retry { after: None },
            Broken::Unknown(_) | Broken::TooLarge => disposition::of_unknown(operation, None),
        };
        let (message, source) = broken.into_parts();
        let failure = Failure::new(message, disposition);
        Self { operation, source: source.map(Box::new), failure }
    }

    /// A listing that did not come to its end.
    pub(crate) fn of_endless_list(operation: Operation, pages: u32) -> Self {
        let message = format!(
            "no empty page within {pages} pages: nothing may be concluded from what is absent"
        );
        Self::of_failure(operation, Failure::new(message, Disposition::Refused))
    }
}

impl Failure {
    /// An answer that is no success.
    pub(crate) fn of_refusal(answer: &Answer, refusal: Refusal, disposition: Disposition) -> Self {
        let is_markup = refusal.is_markup();
        let message = match refusal.message {
            empty if empty.is_empty() => "no message".to_owned(),
            message => message,
        };
        let (status, retry_after) = (Some(answer.status), answer.retry_after);
        Self { status, message, retry_after, disposition, is_markup }
    }

    /// A failure without an answer of its own.
    pub(crate) fn new(message: String, disposition: Disposition) -> Self {
        Self { status: None, message, retry_after: None, disposition, is_markup: false }
    }

    /// The same for a step before the operation. The status moves into the message: a 404 of the
    /// login must not read as "the object is gone".
    pub(crate) fn during(mut self, step: &str) -> Self {
        let status = status_text(self.status.take());
        self.message = format!("{step}{status}: {}", self.message);
        self
    }

    /// What may be done now.
    pub(crate) fn disposition(&self) -> Disposition {
        self.disposition
    }
}

/// ` answered 422`, or nothing.
fn status_text(status: Option<u16>) -> String {
    status.map(|status| format!(" answered {status}")).unwrap_or_default()
}

/// Settings that no client can be made from.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum ConfigError {
    /// The base address is not an address, or has a part that it may not have.
    #[error("base_url {base_url:?} is not usable: write it like https://api.gcore.com")]
    BaseUrl {
        /// The address as given; without user name and query.
        base_url: String,
    },
    /// Credentials would cross the network in the clear.
    #[error("base_url must begin with https:// for the host {host}; http is for loopback only")]
    Insecure {
        /// The host of the address.
        host: String,
    },
    /// A credential is empty or cannot be sent in a header.
    #[error("the {what} is empty or has characters that no header can hold: check for line breaks")]
    Credential {
        /// Which one.
        what: &'static str,
    },
    /// The file of the token cannot be read.
    #[error("the token file {} cannot be read: check its path and who may read it", path.display())]
    TokenFile {
        /// Where it should be.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The HTTP client cannot be made, e.g. without root certificates on the machine.
    #[error("the http client cannot be set up: are root certificates (ca-certificates) installed?")]
    Http(#[source] reqwest::Error),
}
