//! The sender of webhooks: a process of its own, one thread, requests written by hand.
//!
//! It shares two cores with what it measures, so it does as little as it can: a buffer per connection,
//! one write and one read per request. *Closed loop*: a connection sends its next webhook when the
//! one before is answered. Acknowledged means: status 200 and an event id, both read.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use domain::slice::SliceCount;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::generator::webhooks::Webhooks;
use crate::processes::SOURCE;
use crate::report::{percentile, say};

/// What to send where.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// The webhook endpoint
    #[arg(long)]
    pub(crate) address: SocketAddr,
    /// The path, with its secret
    #[arg(long)]
    pub(crate) path: String,
    /// Connections, each with one request at a time
    #[arg(long)]
    pub(crate) connections: u64,
    /// How long requests are begun
    #[arg(long)]
    pub(crate) seconds: f64,
    /// Number of the first webhook
    #[arg(long)]
    pub(crate) first: u64,
    /// File for what was acknowledged: lines of event id, tab, number
    #[arg(long)]
    pub(crate) acked: PathBuf,
}

/// What came of it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Webhooks acknowledged.
    pub(crate) acked: u64,
    /// From the first request to the last answer.
    pub(crate) seconds: f64,
    /// Half of the answers came within this time.
    pub(crate) p50_us: u32,
    /// 99 of 100 answers came within this time.
    pub(crate) p99_us: u32,
}

/// An acknowledged webhook.
struct Ack {
    event: Uuid,
    number: u64,
    micros: u32,
}

/// Sends, writes what was acknowledged, prints the outcome.
///
/// # Errors
/// Where a connection breaks or an answer is no acknowledgement.
pub(crate) fn run(options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (acks, seconds) = runtime.block_on(send(options))?;
    let mut latencies: Vec<u32> = acks.iter().map(|ack| ack.micros).collect();
    latencies.sort_unstable();
    write_acks(options, &acks)?;
    let outcome = Outcome {
        acked: acks.len() as u64,
        seconds,
        p50_us: percentile(&latencies, 0.5),
        p99_us: percentile(&latencies, 0.99),
    };
    say(serde_json::to_string(&outcome)?);
    Ok(())
}

fn write_acks(options: &Options, acks: &[Ack]) -> Result<()> {
    let file = File::create(&options.acked)
        .with_context(|| format!("write {}", options.acked.display()))?;
    let mut file = BufWriter::new(file);
    for ack in acks {
        writeln!(file, "{}\t{}", ack.event, ack.number)?;
    }
    file.flush().context("write what was acknowledged")
}

async fn send(options: &Options) -> Result<(Vec<Ack>, f64)> {
    let webhooks = Arc::new(Webhooks::of(SOURCE, SliceCount::DEFAULT));
    let mut connections = Vec::new();
    for n in 0..options.connections {
        let stream = TcpStream::connect(options.address).await.context("connect to ingest")?;
        stream.set_nodelay(true)?;
        connections.push(Connection {
            stream,
            webhooks: webhooks.clone(),
            head: head(options),
            next: options.first + n,
            step: options.connections,
        });
    }
    let begun = Instant::now();
    let until = begun + Duration::from_secs_f64(options.seconds);
    let tasks: Vec<_> =
        connections.into_iter().map(|connection| tokio::spawn(connection.run(until))).collect();
    let mut acks = Vec::new();
    for task in tasks {
        acks.append(&mut task.await.context("send webhooks")??);
    }
    Ok((acks, begun.elapsed().as_secs_f64()))
}

/// A request up to the value of its content length.
fn head(options: &Options) -> Vec<u8> {
    let (path, host) = (&options.path, options.address);
    format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: Gcore\r\n\
         content-type: application/json\r\ncontent-length: "
    )
    .into_bytes()
}

/// A connection, kept alive.
struct Connection {
    stream: TcpStream,
    webhooks: Arc<Webhooks>,
    head: Vec<u8>,
    next: u64,
    step: u64,
}

impl Connection {
    async fn run(mut self, until: Instant) -> Result<Vec<Ack>> {
        let mut acks = Vec::with_capacity(1 << 14);
        let (mut body, mut request, mut answer) = (Vec::new(), Vec::new(), vec![0; 4096]);
        let mut now = Instant::now();
        while now < until {
            let number = self.next;
            self.next += self.step;
            body.clear();
            self.webhooks.write(number, &mut body);
            request.clear();
            request.extend_from_slice(&self.head);
            write!(request, "{}\r\n\r\n", body.len())?;
            request.extend_from_slice(&body);
            let begun = Instant::now();
            self.stream.write_all(&request).await.context("send a webhook")?;
            let event = self.answer(&mut answer).await?;
            now = Instant::now();
            let micros = u32::try_from((now - begun).as_micros()).unwrap_or(u32::MAX);
            acks.push(Ack { event, number, micros });
        }
        Ok(acks)
    }

    /// Reads one answer and returns the id in it.
    async fn answer(&mut self, buffer: &mut [u8]) -> Result<Uuid> {
        let mut length = 0;
        loop {
            let read = self.stream.read(&mut buffer[length..]).await.context("read an answer")?;
            if read == 0 {
                bail!("the connection was closed: {}", String::from_utf8_lossy(&buffer[..length]));
            }
            length += read;
            if let Some(event) = acknowledged(&buffer[..length])? {
                return Ok(event);
            }
        }
    }
}

/// The event id of a complete answer; `None` while more is to come.
fn acknowledged(answer: &[u8]) -> Result<Option<Uuid>> {
    let Some(end) = find(answer, b"\r\n\r\n") else { return Ok(None) };
    let (head, body) = (&answer[..end], &answer[end + 4..]);
    let Some(length) = content_length(head) else {
        bail!("an answer without its length: {}", String::from_utf8_lossy(head));
    };
    if body.len() < length {
        return Ok(None);
    }
    if !head.starts_with(b"HTTP/1.1 200 ") {
        bail!("not acknowledged: {}", String::from_utf8_lossy(answer));
    }
    let id = find(body, b"\"event_id\":\"").and_then(|at| body.get(at + 12..at + 48));
    let id = id.and_then(|id| Uuid::try_parse_ascii(id).ok());
    Ok(Some(id.with_context(|| format!("no id: {}", String::from_utf8_lossy(body)))?))
}

/// The value of the header, whose name hyper writes in small letters.
fn content_length(head: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"\r\ncontent-length: ";
    let value = &head[find(head, NAME)? + NAME.len()..];
    let end = value.iter().position(|b| !b.is_ascii_digit()).unwrap_or(value.len());
    std::str::from_utf8(&value[..end]).ok()?.parse().ok()
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
        content-length: 51\r\ndate: Sun, 22 Nov 2026 16:00:00 GMT\r\n\r\n\
        {\"event_id\":\"019aab4e-92a1-7000-8000-000000000001\"}";

    #[test]
    fn an_answer_acknowledges_when_it_is_whole() {
        for end in 0..ANSWER.len() {
            assert_eq!(acknowledged(&ANSWER.as_bytes()[..end]).unwrap(), None, "{end} bytes");
        }
        let event = acknowledged(ANSWER.as_bytes()).unwrap();
        assert_eq!(event, "019aab4e-92a1-7000-8000-000000000001".parse().ok());
    }

    #[test]
    fn anything_but_success_is_an_error() {
        for status in ["503 Service Unavailable", "404 Not Found", "202 Accepted"] {
            let answer = ANSWER.replace("200 OK", status);
            assert!(acknowledged(answer.as_bytes()).is_err(), "{status}");
        }
        assert!(acknowledged(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(acknowledged(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").is_err());
    }
}
