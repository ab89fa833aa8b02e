//! A small JSON client for our own API on loopback, for the demonstration and health checks.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use axum::body::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// Our API.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    address: SocketAddr,
    token: String,
}

impl Client {
    /// A client of the API at `address`.
    pub(crate) fn new(address: SocketAddr, token: String) -> Self {
        Self { address, token }
    }

    /// `GET path`.
    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        let (status, body) = self.send(Method::GET, path, None, None).await?;
        checked(status, body)
    }

    /// `POST path` with a JSON body and an idempotency key.
    pub(crate) async fn post(&self, path: &str, body: &Value, key: &str) -> Result<Value> {
        let (status, body) = self.send(Method::POST, path, Some(body), Some(key)).await?;
        checked(status, body)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        key: Option<&str>,
    ) -> Result<(StatusCode, Value)> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token));
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        let (status, bytes) = send(self.address, request, body).await?;
        let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes)? };
        Ok((status, body))
    }
}

/// The status that `GET path` is answered with.
pub(crate) async fn status(address: SocketAddr, path: &str) -> Result<StatusCode> {
    let request = Request::builder().method(Method::GET).uri(path);
    Ok(send(address, request, String::new()).await?.0)
}

/// One request on a connection of its own.
async fn send(
    address: SocketAddr,
    request: hyper::http::request::Builder,
    body: String,
) -> Result<(StatusCode, Bytes)> {
    let stream = TcpStream::connect(address).await.with_context(|| format!("reach {address}"))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = request.header(header::HOST, address.to_string());
    let response = sender.send_request(request.body(Full::new(Bytes::from(body)))?).await?;
    let status = response.status();
    let bytes = response.into_body().collect().await?.to_bytes();
    connection.abort();
    Ok((status, bytes))
}

fn checked(status: StatusCode, body: Value) -> Result<Value> {
    if !status.is_success() {
        bail!("the API answered {status}: {body}");
    }
    Ok(body)
}
