//! Requests to our own API and to the simulated platform's controls, on loopback.
//!
//! One request per connection: a measurement of minutes makes some dozens a second.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest wait for an answer: the machine is busy with what is measured.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server, and how to be let in.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    address: SocketAddr,
    authorization: Option<String>,
}

impl Server {
    /// Our API.
    pub(crate) fn api(address: SocketAddr, token: &str) -> Self {
        Self { address, authorization: Some(format!("Bearer {token}")) }
    }

    /// The controls of the simulated platform.
    pub(crate) fn platform(address: SocketAddr) -> Self {
        Self { address, authorization: None }
    }

    /// `GET path`, as JSON.
    ///
    /// # Errors
    /// Where it does not answer, or not with success.
    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        let (status, body) = self.send("GET", path, None, None).await?;
        read(path, status, &body)
    }

    /// `GET path`, as text.
    pub(crate) async fn text(&self, path: &str) -> Result<String> {
        let (status, body) = self.send("GET", path, None, None).await?;
        if status != 200 {
            bail!("{path} is answered {status}: {body}");
        }
        Ok(body)
    }

    /// `METHOD path` with a JSON body. Returns the status and the answer.
    pub(crate) async fn change(
        &self,
        method: &str,
        path: &str,
        body: &Value,
        key: Option<&str>,
    ) -> Result<(u16, Value)> {
        let (status, text) = self.send(method, path, Some(body), key).await?;
        Ok((status, serde_json::from_str(&text).unwrap_or_default()))
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        key: Option<&str>,
    ) -> Result<(u16, String)> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n",
            self.address,
            body.len(),
        );
        for (name, value) in
            [("Authorization", self.authorization.as_deref()), ("Idempotency-Key", key)]
        {
            if let Some(value) = value {
                let _ = write!(head, "{name}: {value}\r\n");
            }
        }
        let exchange = async {
            let mut stream = TcpStream::connect(self.address).await?;
            stream.write_all(format!("{head}\r\n{body}").as_bytes()).await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            Ok::<_, std::io::Error>(answer)
        };
        let answer = timeout(PATIENCE, exchange)
            .await
            .with_context(|| format!("{method} {path} is not answered"))?
            .with_context(|| format!("{method} {path}"))?;
        parse(&String::from_utf8_lossy(&answer)).with_context(|| format!("{method} {path}"))
    }
}

/// Reads a successful answer.
fn read(path: &str, status: u16, body: &str) -> Result<Value> {
    if !(200..300).contains(&status) {
        bail!("{path} is answered {status}: {body}");
    }
    serde_json::from_str(body).with_context(|| format!("read the answer to {path}"))
}

/// Takes an answer apart.
fn parse(answer: &str) -> Result<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer has a head")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.context("an answer has a status")?, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_apart() {
        let answer = "HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(parse(answer).unwrap(), (201, "{}".to_owned()));
        assert!(parse("nothing").is_err());
    }
}
