//! A permanent token in a file, which may change while we run.
//!
//! Whoever rotates tokens writes the file and restarts nothing: it is looked at every second in
//! which something is sent, and read again after a 401. A file that cannot be read, or is empty
//! because somebody is just writing it, leaves the token in hand.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use secrecy::{ExposeSecret, SecretString};

use super::{Ticket, permanent};
use crate::ConfigError;

/// How long a look at the file's time counts.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A file with a permanent token in it.
pub(crate) struct TokenFile {
    path: PathBuf,
    held: Mutex<Held>,
}

/// What was read last.
struct Held {
    ticket: Ticket,
    token: SecretString,
    stamp: Stamp,
    looked_at: Instant,
}

/// When a file was written, and its length: what a look compares.
type Stamp = Option<(SystemTime, u64)>;

impl TokenFile {
    /// Reads the file for the first time.
    pub(super) fn open(path: &Path) -> Result<Self, ConfigError> {
        let failed = |source| ConfigError::TokenFile { path: path.to_owned(), source };
        let stamp = stamp(path);
        let token = read(path).map_err(failed)?;
        let ticket = permanent(&token, Some(1)).ok_or(ConfigError::Credential { what: "token" })?;
        let held = Held { ticket, token, stamp, looked_at: Instant::now() };
        Ok(Self { path: path.to_owned(), held: Mutex::new(held) })
    }

    /// The ticket for the next request.
    pub(super) fn ticket(&self) -> Ticket {
        let mut held = self.held();
        if held.looked_at.elapsed() >= LOOK_EVERY {
            held.looked_at = Instant::now();
            let stamp = stamp(&self.path);
            if stamp != held.stamp {
                held.stamp = stamp;
                self.read_again(&mut held);
            }
        }
        held.ticket.clone()
    }

    /// A ticket in place of one that was answered with 401; `None` if the file still holds it.
    pub(super) fn renewed(&self, rejected: &Ticket) -> Option<Ticket> {
        let mut held = self.held();
        if held.ticket.generation == rejected.generation {
            self.read_again(&mut held);
        }
        (held.ticket.generation != rejected.generation).then(|| held.ticket.clone())
    }

    /// The token in hand, which must not show in a message.
    pub(super) fn token(&self) -> SecretString {
        self.held().token.clone()
    }

    /// Takes over what the file holds now, if it is a token and another one.
    fn read_again(&self, held: &mut Held) {
        let path = self.path.display();
        let token = match read(&self.path) {
            Ok(token) => token,
            Err(error) => {
                tracing::warn!(%path, %error, "the token file cannot be read: the token in hand stays");
                return;
            }
        };
        if token.expose_secret() == held.token.expose_secret() {
            return;
        }
        let generation = held.ticket.generation.map(|number| number + 1);
        if let Some(ticket) = permanent(&token, generation) {
            tracing::info!(%path, "the token file holds another token");
            held.ticket = ticket;
            held.token = token;
        } else {
            tracing::warn!(%path, "the token file holds no token: the one in hand stays");
        }
    }

    /// What is held; never kept over an await.
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a token; it ends in a line break more often than not.
fn read(path: &Path) -> io::Result<SecretString> {
    fs::read_to_string(path).map(|text| SecretString::from(text.trim()))
}

/// When the file was written and how long it is; `None` if it cannot be seen.
fn stamp(path: &Path) -> Stamp {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        Client, Config, Credentials,
        test_support::{Server, json as reply_json},
    };

    /// A token file of its own.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str, token: &str) -> Self {
            let name = format!("tallylight-token-{}-{name}", std::process::id());
            let scratch = Self(std::env::temp_dir().join(name));
            scratch.write(token);
            scratch
        }

        fn write(&self, token: &str) {
            fs::write(&self.0, token).unwrap();
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    /// A server that accepts `APIKey 2_new` alone, and a client with a token from a file.
    async fn stage(file: &Scratch) -> (Server, Client) {
        let server = Server::start(|request| match request.authorization.as_str() {
            "APIKey 2_new" => reply_json(200, &json!({"id": 7})),
            other => reply_json(401, &json!({"message": format!("Bad token {other}")})),
        })
        .await;
        let config = Config::new(&server.base_url, Credentials::TokenFile(file.0.clone()));
        let client = Client::new(config).unwrap();
        (server, client)
    }

    #[tokio::test]
    async fn a_401_reads_the_file_again_and_repeats_once_if_it_changed() {
        let file = Scratch::new("changed", "1_old\n");
        let (server, client) = stage(&file).await;
        let error = client.get_stream(7).await.unwrap_err();
        assert_eq!(error.disposition(), crate::Disposition::Unauthorized);
        assert!(!error.to_string().contains("1_old"), "{error}");
        assert_eq!(server.requests().len(), 1, "the same token is not tried twice");
        file.write("2_new\n");
        assert_eq!(client.get_stream(7).await.unwrap().id, 7);
        client.get_stream(7).await.unwrap();
        let tokens: Vec<_> =
            server.requests().into_iter().map(|request| request.authorization).collect();
        assert_eq!(tokens[1..], ["APIKey 1_old", "APIKey 2_new", "APIKey 2_new"]);
    }

    #[tokio::test]
    async fn an_empty_or_missing_file_leaves_the_token_in_hand() {
        let file = Scratch::new("empty", "2_new");
        let (_server, client) = stage(&file).await;
        for broken in ["", " \n", "2_\u{7f}new"] {
            file.write(broken);
            let held = TokenFile::open(&file.0).map(|_| ());
            assert!(held.is_err(), "{broken:?} is refused at the start");
            client.get_stream(7).await.unwrap();
        }
        fs::remove_file(&file.0).unwrap();
        client.get_stream(7).await.unwrap();
        let message = TokenFile::open(&file.0).err().unwrap().to_string();
        assert!(message.contains("token file"), "{message}");
    }

    #[test]
    fn a_changed_file_is_noticed_at_the_next_look_without_a_401() {
        let file = Scratch::new("look", "1_old");
        let held = TokenFile::open(&file.0).unwrap();
        file.write("2_newer");
        assert_eq!(held.ticket().header, "APIKey 1_old", "a look counts for a second");
        held.held().looked_at -= LOOK_EVERY;
        assert_eq!(held.ticket().header, "APIKey 2_newer");
    }
}
