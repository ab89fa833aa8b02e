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
    /// Webhooks of a request: one as the platform sends it, more as lines of a batch
    #[arg(long, default_value_t = 1)]
    pub(crate) batch: u64,
    /// Token of batches
    #[arg(long)]
    pub(crate) token: Option<String>,
    /// Number of the first webhook
    #[arg(long)]
    pub(crate) first: u64,
    /// File for what was acknowledged: lines of event id, tab, number
    #[arg(long)]
    pub(crate) acked: PathBuf,
}

/// What came of it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Sent {
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
    let outcome = Sent {
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
            batch: options.batch,
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
    let mut head = format!("POST {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: Gcore\r\n");
    if let Some(token) = &options.token {
        head.push_str("authorization: Bearer ");
        head.push_str(token);
        head.push_str("\r\n");
    }
    head.push_str(if options.batch == 1 {
        "content-type: application/json\r\n"
    } else {
        "content-type: application/x-ndjson\r\n"
    });
    head.push_str("content-length: ");
    head.into_bytes()
}

/// A connection, kept alive.
struct Connection {
    stream: TcpStream,
    webhooks: Arc<Webhooks>,
    head: Vec<u8>,
    batch: u64,
    next: u64,
    step: u64,
}

impl Connection {
    async fn run(mut self, until: Instant) -> Result<Vec<Ack>> {
        let mut acks = Vec::with_capacity(1 << 14);
        let (mut body, mut request, mut answer) = (Vec::new(), Vec::new(), Vec::new());
        let mut now = Instant::now();
        while now < until {
            let first = self.next;
            body.clear();
            self.write(&mut body);
            request.clear();
            request.extend_from_slice(&self.head);
            write!(request, "{}\r\n\r\n", body.len())?;
            request.extend_from_slice(&body);
            let begun = Instant::now();
            self.stream.write_all(&request).await.context("send a request")?;
            let told = self.answer(&mut answer).await?;
            now = Instant::now();
            let micros = u32::try_from((now - begun).as_micros()).unwrap_or(u32::MAX);
            let numbers = (first..).step_by(usize::try_from(self.step)?);
            for (id, number) in Ids(&answer[told..]).zip(numbers) {
                let event = Uuid::try_parse_ascii(id).context("read an event id")?;
                acks.push(Ack { event, number, micros });
            }
        }
        Ok(acks)
    }

    /// Writes a request's body: a webhook, or a line for each of a batch.
    fn write(&mut self, body: &mut Vec<u8>) {
        for _ in 0..self.batch {
            if self.batch > 1 {
                body.extend_from_slice(b"{\"type\":\"WebhookReceived\",\"source\":\"");
                body.extend_from_slice(SOURCE.as_bytes());
                body.extend_from_slice(b"\",\"payload\":");
            }
            self.webhooks.write(self.next, body);
            if self.batch > 1 {
                body.extend_from_slice(b"}\n");
            }
            self.next += self.step;
        }
    }

    /// Reads one answer, an acknowledgement of everything sent; returns where its body begins.
    async fn answer(&mut self, answer: &mut Vec<u8>) -> Result<usize> {
        answer.clear();
        loop {
            if self.stream.read_buf(answer).await.context("read an answer")? == 0 {
                bail!("the connection was closed: {}", String::from_utf8_lossy(answer));
            }
            let Some(body) = whole(answer)? else { continue };
            let ids = Ids(&answer[body..]).count() as u64;
            if !answer.starts_with(b"HTTP/1.1 200 ") || ids != self.batch {
                bail!("not acknowledged: {}", String::from_utf8_lossy(answer));
            }
            return Ok(body);
        }
    }
}

/// Where the body of a complete answer begins; `None` while more is to come.
pub(crate) fn whole(answer: &[u8]) -> Result<Option<usize>> {
    let Some(end) = find(answer, b"\r\n\r\n") else { return Ok(None) };
    // Has no body, and says no length.
    if answer.starts_with(b"HTTP/1.1 204") {
        return Ok(Some(end + 4));
    }
    let Some(length) = content_length(&answer[..end]) else {
        bail!("an answer without its length: {}", String::from_utf8_lossy(&answer[..end]));
    };
    Ok((answer.len() >= end + 4 + length).then_some(end + 4))
}

/// The value of the header, whose name hyper writes in small letters.
fn content_length(head: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"\r\ncontent-length: ";
    let value = &head[find(head, NAME)? + NAME.len()..];
    let end = value.iter().position(|b| !b.is_ascii_digit()).unwrap_or(value.len());
    std::str::from_utf8(&value[..end]).ok()?.parse().ok()
}

/// The ids of acknowledged events in a body: of a webhook the one, of a batch those of lines that
/// say "stored".
struct Ids<'a>(&'a [u8]);

impl<'a> Iterator for Ids<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        const NAME: &[u8] = b"\"event_id\":\"";
        const REFUSED: [&[u8]; 2] = [b"\"duplicate\"", b"\"spooled\""];
        loop {
            let at = find(self.0, NAME)? + NAME.len();
            let (before, rest) = (&self.0[..at], self.0.get(at..at + 36)?);
            self.0 = &self.0[at + 36..];
            if REFUSED.iter().all(|status| find(before, status).is_none()) {
                return Some(rest);
            }
        }
    }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    let (first, rest) = part.split_first()?;
    let mut from = 0;
    // Looking for one byte is much faster than comparing at every place.
    while let Some(at) = text[from..].iter().position(|byte| byte == first) {
        from += at + 1;
        if text[from..].starts_with(rest) {
            return Some(from - 1);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
        content-length: 51\r\ndate: Sun, 22 Nov 2026 16:00:00 GMT\r\n\r\n\
        {\"event_id\":\"019aab4e-92a1-7000-8000-000000000001\"}";

    fn ids(body: &str) -> Vec<String> {
        Ids(body.as_bytes()).map(|id| String::from_utf8(id.to_vec()).unwrap()).collect()
    }

    #[test]
    fn an_answer_is_whole_with_its_last_byte() {
        for end in 0..ANSWER.len() {
            assert_eq!(whole(&ANSWER.as_bytes()[..end]).unwrap(), None, "{end} bytes");
        }
        let body = whole(ANSWER.as_bytes()).unwrap().unwrap();
        assert_eq!(ids(&ANSWER[body..]), ["019aab4e-92a1-7000-8000-000000000001"]);
        assert!(whole(b"HTTP/1.1 200 OK\r\n\r\n").is_err(), "no length");
    }

    #[test]
    fn only_stored_lines_of_a_batch_acknowledge() {
        let line = |status: &str, n: u8| {
            format!(
                "{{\"status\":\"{status}\",\"event_id\":\"019aab4e-92a1-7000-8000-0000000000{n:02}\"}}\n"
            )
        };
        let body = [line("stored", 1), line("spooled", 2), line("duplicate", 3), line("stored", 4)];
        assert_eq!(
            ids(&body.concat()),
            ["019aab4e-92a1-7000-8000-000000000001", "019aab4e-92a1-7000-8000-000000000004"]
        );
        assert!(ids("{\"status\":\"error\",\"error\":\"..\"}\n").is_empty());
    }
}
