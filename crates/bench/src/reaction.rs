//! `reaction`: from a webhook, sent to `tallylight ingest`, to the platform call that follows from it,
//! received by the simulator: ingest, worker and simulator are processes of their own.
//!
//! Sessions stand ready, and each webhook says that the encoder of one of them sends: the call that
//! is waited for shows its broadcast. Between the two lie three commits: the webhook's, the
//! reaction's and the start's. The floor is two commits in a row and one POST over loopback.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use chrono::{DateTime, SubsecRound as _, Utc};
use domain::event::{Event, NewEvent, SessionOptions, SessionRequested};
use domain::ids::Subject;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::PgConnection;
use store::Store;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, MissedTickBehavior, sleep};
use uuid::Uuid;

use crate::processes::{Home, Installation, SOURCE};
use crate::report::{Table, as_thousandths, finish, median, p50_and_p99, whole};
use crate::work::now;

/// Turns.
const TURNS: usize = 5;

/// Webhooks a second.
const PACE: u32 = 200;

/// Connections that webhooks are sent on, in turns.
const CONNECTIONS: usize = 8;

/// Longest wait for sessions to stand ready, and for calls.
const PATIENCE: Duration = Duration::from_mins(3);

/// What calls may take until the simulator is asked for them.
const SETTLE: Duration = Duration::from_millis(500);

/// How often is looked whether they are ready.
const LOOK: Duration = Duration::from_millis(100);

/// Medians of all turns.
#[derive(Debug, Serialize)]
struct Figures {
    #[serde(serialize_with = "as_thousandths")]
    p50_ms: f64,
    #[serde(serialize_with = "as_thousandths")]
    p99_ms: f64,
    #[serde(serialize_with = "as_thousandths")]
    floor_p50_ms: f64,
    #[serde(serialize_with = "as_thousandths")]
    floor_p99_ms: f64,
    webhooks: u64,
    calls: usize,
}

/// Measures.
pub(crate) async fn run(home: &Home) -> Result<()> {
    let per_turn: u64 = if home.quick { 400 } else { 1_000 };
    let turns = if home.quick { 2 } else { TURNS };
    let installation = home.installation().await?;
    installation.say_header(&format!(
        "reaction: {turns} turns, each {} webhooks at {PACE}/s; webhook sent to platform call \
         received; floor: two durable commits and one POST over loopback, one after the other",
        whole(f64::from(u32::try_from(per_turn)?)),
    ));
    let (simulator, platform) = installation.start_simulator(per_turn * turns as u64).await?;
    let mut ingest = installation.start("ingest")?;
    let address = ingest.address().await?;
    let mut worker = installation.start("worker")?;
    let store = Store::connect(&store::Config::new(installation.cluster.url())).await?;
    let mut connection = installation.cluster.connect().await?;
    let mut floor = Floor::prepare(&installation).await?;
    let table = Table::begin(&["floor p50", "p99", "ours p50", "p99"]);
    let mut all: [Vec<f64>; 4] = Default::default();
    let mut received = 0;
    for n in 1..=turns {
        let sessions = ready(&store, &mut connection, per_turn).await?;
        installation.cluster.checkpoint().await?;
        let floor = p50_and_p99(floor.turn(per_turn).await?);
        let took = turn(address, platform, &sessions).await?;
        received += took.len();
        let ours = p50_and_p99(took);
        worker.check_runs()?;
        let cells = [floor[0], floor[1], ours[0], ours[1]];
        table.line(n, &cells.map(|ms| format!("{ms:.2}")));
        for (all, one) in all.iter_mut().zip(cells) {
            all.push(one);
        }
    }
    worker.stop().await?;
    ingest.stop().await?;
    simulator.stop().await?;
    let medians = all.each_ref().map(|turns| median(turns));
    table.line("median", &medians.map(|ms| format!("{ms:.2}")));
    let [floor_p50_ms, floor_p99_ms, p50_ms, p99_ms] = medians;
    let webhooks = per_turn * turns as u64;
    finish(&Figures { p50_ms, p99_ms, floor_p50_ms, floor_p99_ms, webhooks, calls: received })
}

/// A session that stands ready.
#[derive(Debug, Clone, Copy)]
struct Ready {
    live_stream: i64,
    broadcast: i64,
}

/// Asks for sessions and waits until all stand ready. They go live when the encoder sends, and are
/// not recorded, so that one call follows and no second one.
async fn ready(store: &Store, connection: &mut PgConnection, count: u64) -> Result<Vec<Ready>> {
    let mut ids = Vec::new();
    for n in 0..count {
        let session = Uuid::now_v7();
        let event = Event::SessionRequested(SessionRequested {
            session,
            source: SOURCE.to_owned(),
            account: None,
            name: format!("reaction {n}"),
            live_stream: None,
            options: SessionOptions { record: false, auto_go_live: true, ..Default::default() },
        });
        let subject = Subject::request(SOURCE, session);
        let now = Utc::now().trunc_subsecs(6);
        store.append_one(NewEvent::new(subject, &event, now, Uuid::now_v7())).await?;
        ids.push(session);
    }
    let begun = Instant::now();
    loop {
        let rows: Vec<(i64, i64)> = sqlx::query_as(
            "SELECT live_stream_id, (detail ->> 'broadcast')::bigint FROM tallylight.session
              WHERE session_id = ANY ($1) AND status = 'ready' AND detail ->> 'broadcast' IS NOT NULL",
        )
        .bind(&ids)
        .fetch_all(&mut *connection)
        .await
        .context("look which sessions are ready")?;
        if rows.len() == ids.len() {
            let ready = |(live_stream, broadcast)| Ready { live_stream, broadcast };
            return Ok(rows.into_iter().map(ready).collect());
        }
        if begun.elapsed() > PATIENCE {
            bail!("{} of {count} sessions are ready, and no more", rows.len());
        }
        sleep(LOOK).await;
    }
}

/// Microseconds from each webhook to its call.
async fn turn(ingest: SocketAddr, platform: SocketAddr, sessions: &[Ready]) -> Result<Vec<u32>> {
    let mut senders = Vec::new();
    for n in 0..CONNECTIONS {
        let sessions: Vec<Ready> = sessions.iter().copied().skip(n).step_by(CONNECTIONS).collect();
        senders.push(tokio::spawn(send(ingest, platform, sessions, n)));
    }
    let mut sent: HashMap<i64, DateTime<Utc>> = HashMap::new();
    for sender in senders {
        sent.extend(sender.await.context("send webhooks")??);
    }
    let begun = Instant::now();
    loop {
        // The simulator's whole log is long: it is asked for when the last calls are made.
        sleep(SETTLE).await;
        let received = received(platform).await?;
        let found: Vec<u32> = sent
            .iter()
            .filter_map(|(broadcast, sent)| {
                let took = *received.get(broadcast)? - *sent;
                u32::try_from(took.num_microseconds()?).ok()
            })
            .collect();
        if found.len() == sent.len() {
            return Ok(found);
        }
        if begun.elapsed() > PATIENCE {
            bail!("{} of {} calls came", found.len(), sent.len());
        }
    }
}

/// Sends the webhook of each session at an even pace; when, by broadcast. What it tells is so on the
/// platform a moment later: else each look of the worker's sweeps would find hundreds of differences.
async fn send(
    ingest: SocketAddr,
    platform: SocketAddr,
    sessions: Vec<Ready>,
    n: usize,
) -> Result<Vec<(i64, DateTime<Utc>)>> {
    let every = Duration::from_secs(1) * u32::try_from(CONNECTIONS)? / PACE;
    let mut line = Line::connect(ingest).await?;
    let mut encoders = Line::connect(platform).await?;
    let first = Instant::now() + every * u32::try_from(n)? / u32::try_from(CONNECTIONS)?;
    let mut due = tokio::time::interval_at(first, every);
    due.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut sent = Vec::new();
    for session in sessions {
        due.tick().await;
        let body = json!({"type": "stream", "message": {"stream": {
            "id": session.live_stream, "live": true, "backup_live": false, "recording": false,
            "transcoding": true,
        }}});
        let at = Utc::now();
        line.post(&Installation::webhook_path(), &body.to_string()).await?;
        sent.push((session.broadcast, at));
        encoders.post(&format!("/_control/streams/{}/push", session.live_stream), "").await?;
    }
    Ok(sent)
}

/// A request as the simulator logs it.
#[derive(Debug, Deserialize)]
struct Logged {
    at: DateTime<Utc>,
    method: String,
    path: String,
    body: Option<Value>,
}

/// When each broadcast was shown, by the simulator's log.
async fn received(platform: SocketAddr) -> Result<HashMap<i64, DateTime<Utc>>> {
    let log = Line::connect(platform).await?.get("/_control/requests").await?;
    let log: Vec<Logged> = serde_json::from_slice(&log).context("read the simulator's log")?;
    let shown = |entry: &Logged| {
        let broadcast = entry.path.strip_prefix("/streaming/broadcasts/")?.parse().ok()?;
        let body = entry.body.as_ref()?;
        let status = body.get("broadcast").unwrap_or(body).get("status")?;
        (entry.method == "PATCH" && *status == "live").then_some((broadcast, entry.at))
    };
    // The first of each, as it is the oldest.
    Ok(log.iter().rev().filter_map(shown).collect())
}

/// A connection that one request after the other goes over.
struct Line {
    stream: TcpStream,
    host: SocketAddr,
    answer: Vec<u8>,
}

impl Line {
    async fn connect(host: SocketAddr) -> Result<Self> {
        let stream =
            TcpStream::connect(host).await.with_context(|| format!("connect to {host}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, host, answer: Vec::new() })
    }

    async fn post(&mut self, path: &str, body: &str) -> Result<()> {
        let (host, length) = (self.host, body.len());
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n{body}"
        );
        self.ask(&request).await?;
        Ok(())
    }

    async fn get(&mut self, path: &str) -> Result<Vec<u8>> {
        let body = self.ask(&format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", self.host)).await?;
        Ok(self.answer.split_off(body))
    }

    /// Sends a request and reads its answer, a success; where its body begins.
    async fn ask(&mut self, request: &str) -> Result<usize> {
        self.stream.write_all(request.as_bytes()).await.context("send a request")?;
        self.answer.clear();
        loop {
            if self.stream.read_buf(&mut self.answer).await.context("read an answer")? == 0 {
                bail!("{} closed the connection", self.host);
            }
            if let Some(body) = crate::load::whole(&self.answer)? {
                if !self.answer.starts_with(b"HTTP/1.1 2") {
                    bail!("{} answered {}", self.host, String::from_utf8_lossy(&self.answer));
                }
                return Ok(body);
            }
        }
    }
}

/// Two commits and a POST, as short as they can be.
struct Floor {
    connection: PgConnection,
    line: Line,
    last: i64,
}

impl Floor {
    async fn prepare(installation: &Installation<'_>) -> Result<Self> {
        let mut connection = installation.cluster.connect().await?;
        sqlx::raw_sql("CREATE TABLE reaction_floor (n bigint PRIMARY KEY, payload text NOT NULL)")
            .execute(&mut connection)
            .await
            .context("make the floor's table")?;
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listen")?;
        let line = Line::connect(listener.local_addr()?).await?;
        let (mut stream, _) = listener.accept().await.context("accept the floor's connection")?;
        stream.set_nodelay(true)?;
        // Tells in its answer when it had the request.
        tokio::spawn(async move {
            let mut request = Vec::new();
            while stream.read_buf(&mut request).await.is_ok_and(|n| n > 0) {
                if !matches!(crate::load::whole(&request), Ok(Some(_))) {
                    continue;
                }
                request.clear();
                let at = now().to_string();
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{at}", at.len());
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        });
        Ok(Self { connection, line, last: 0 })
    }

    async fn turn(&mut self, count: u64) -> Result<Vec<u32>> {
        let mut took = Vec::new();
        let mut due = tokio::time::interval(Duration::from_secs(1) / PACE);
        for _ in 0..count {
            due.tick().await;
            let begun = now();
            for _ in 0..2 {
                self.last += 1;
                sqlx::query("INSERT INTO reaction_floor VALUES ($1, repeat('x', 400))")
                    .bind(self.last)
                    .execute(&mut self.connection)
                    .await
                    .context("insert a row")?;
            }
            self.line.post("/", "{}").await?;
            let at = String::from_utf8_lossy(&self.line.answer);
            let at: u64 = at.rsplit("\r\n").next().unwrap_or_default().parse()?;
            took.push(u32::try_from(at.saturating_sub(begun) / 1_000).unwrap_or(u32::MAX));
        }
        Ok(took)
    }
}
