//! A scripted HTTP server for tests: one reply per request, connections closed after each.

use std::sync::{Arc, Mutex, PoisonError};

use secrecy::SecretString;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};

use crate::{Client, Config, Credentials};

/// A request as the server read it.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) authorization: String,
    pub(crate) body: Value,
}

/// What the server does about a request.
pub(crate) enum Reply {
    /// Answers in full: status, further header lines, body.
    Answer(u16, &'static str, Vec<u8>),
    /// Answers the head of a success and then nothing.
    HeadOnly,
    /// Closes the connection without an answer.
    Close,
    /// Never answers.
    Silence,
}

/// An answer with a JSON body.
pub(crate) fn json(status: u16, body: &Value) -> Reply {
    Reply::Answer(status, "", body.to_string().into_bytes())
}

/// A running server.
pub(crate) struct Server {
    pub(crate) base_url: String,
    requests: Arc<Mutex<Vec<Request>>>,
    task: AbortHandle,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Serves `respond`.
    pub(crate) async fn start(
        respond: impl Fn(&Request) -> Reply + Clone + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&requests);
        let task = tokio::spawn(async move {
            loop {
                let (mut connection, _) = listener.accept().await.unwrap();
                let (respond, log) = (respond.clone(), Arc::clone(&log));
                tokio::spawn(async move {
                    let Some(request) = read(&mut connection).await else { return };
                    log.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
                    reply(&mut connection, respond(&request)).await;
                });
            }
        });
        Self { base_url, requests, task: task.abort_handle() }
    }

    /// The requests so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many requests came whose path ends so.
    pub(crate) fn count(&self, ending: &str) -> usize {
        self.requests().iter().filter(|request| request.target.ends_with(ending)).count()
    }

    /// Settings for a client of this server, with the permanent token `1_token`.
    pub(crate) fn config(&self) -> Config {
        Config::new(&self.base_url, Credentials::Token(SecretString::from("1_token")))
    }

    /// A client of this server with a permanent token.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.config()).unwrap()
    }
}

/// Reads one request; `None` if the connection closes before.
async fn read(connection: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let header = |name: &str| {
                let mut lines = head.lines().filter_map(|line| line.split_once(": "));
                let found = lines.find(|(key, _)| key.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.to_owned()).unwrap_or_default()
            };
            if body.len() >= header("content-length").parse().unwrap_or(0) {
                let mut words = head.split(' ').map(str::to_owned);
                return Some(Request {
                    method: words.next()?,
                    target: words.next()?,
                    authorization: header("authorization"),
                    body: serde_json::from_str(body).unwrap_or_default(),
                });
            }
        }
        if connection.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// Does what the script says.
async fn reply(connection: &mut TcpStream, reply: Reply) {
    let head = |status: u16, headers: &str, length: usize| {
        format!(
            "HTTP/1.1 {status} -\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n"
        )
    };
    match reply {
        Reply::Answer(status, headers, body) => {
            let length = if status == 204 { 0 } else { body.len() };
            // The client may hang up in the middle of a large body.
            let _ = connection.write_all(head(status, headers, length).as_bytes()).await;
            let _ = connection.write_all(&body[..length]).await;
        }
        Reply::HeadOnly => {
            let _ = connection.write_all(head(200, "", 100).as_bytes()).await;
            std::future::pending::<()>().await;
        }
        Reply::Close => {}
        Reply::Silence => std::future::pending::<()>().await,
    }
}
