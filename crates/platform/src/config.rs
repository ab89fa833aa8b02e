//! What a client needs to know of one platform account.

use std::{path::PathBuf, time::Duration};

use secrecy::SecretString;

/// Settings of a [`crate::Client`]: one source.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address of the platform without `/streaming`, e.g. `https://api.gcore.com`.
    /// Plain `http` is accepted for loopback hosts only.
    pub base_url: String,
    /// Who calls.
    pub credentials: Credentials,
    /// The form of the body that creates a live stream.
    pub create_body: CreateBody,
    /// Longest time to a connection with TLS done. Above it nothing was sent.
    pub connect_timeout: Duration,
    /// Longest silence while an answer is awaited or read.
    pub read_timeout: Duration,
    /// Longest time of a call in all.
    pub timeout: Duration,
}

impl Config {
    /// The usual settings: flat bodies, 3 s to connect, 10 s of silence, 30 s in all.
    ///
    /// The platform's own library waits 120 s; a job lease does not.
    pub fn new(base_url: impl Into<String>, credentials: Credentials) -> Self {
        Self {
            base_url: base_url.into(),
            credentials,
            create_body: CreateBody::default(),
            connect_timeout: Duration::from_secs(3),
            read_timeout: Duration::from_secs(10),
            timeout: Duration::from_secs(30),
        }
    }
}

/// Who calls. `Debug` shows no secret.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// A permanent API token: header `Authorization: APIKey ...`. The way for services.
    Token(SecretString),
    /// The same in a file, which is read again when it changes and after a 401.
    TokenFile(PathBuf),
    /// A user, who logs in for tokens of one hour.
    Password {
        /// The login name, usually an e-mail address.
        username: String,
        /// The password.
        password: SecretString,
    },
}

/// The form of the body that creates a live stream: the platform's documents disagree.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum CreateBody {
    /// `{"name": ...}`, as the OpenAPI file has it.
    #[default]
    Flat,
    /// `{"stream": {"name": ...}}`, as the tutorial has it.
    Wrapped,
}
