//! A gate before PostgreSQL: the store connects to it, and its statements pass one by one, as the
//! driver lets them. So the store's own code is stepped, not a copy of its SQL.
//!
//! A *statement* is what sends the server to work: an execution up to its `Sync`, or a plain query.
//! What has no effect that another session could see passes by itself: preparing, `BEGIN`, `SET`,
//! `ROLLBACK`, and the question which installation this is. A statement can also be lost, or come late and unheard.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What the driver does with a statement that waits at the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It reaches the server, and its answer the client.
    Pass,
    /// The connection breaks before it reaches the server.
    Lose,
    /// The client's connection breaks while the statement is on its way: it will pass later, and
    /// nobody hears the answer.
    Delay,
}

/// One connection through the gate.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// The server's process.
    pub(super) pid: i32,
    /// The statement that waits.
    pub(super) held: Option<String>,
    /// Round trips that the server has not answered.
    pub(super) in_flight: usize,
    /// Whether the server is in a transaction.
    pub(super) in_transaction: bool,
    /// Whether the client has gone, and perhaps its statement is still on its way.
    pub(super) is_late: bool,
    /// Whether nothing passes any more.
    pub(super) is_closed: bool,
    verdict: Option<Verdict>,
}

/// What all parties of a gate know.
struct Shared {
    lines: Mutex<Vec<Line>>,
    /// Raised at each change of a line.
    changes: watch::Sender<u64>,
    /// Replacements in statements, to try what a check is good for.
    sabotage: Mutex<Vec<(&'static str, &'static str)>>,
    /// Whether everything passes.
    is_open: Mutex<bool>,
}

/// A gate; it ends with its test's runtime.
#[derive(Clone)]
pub(super) struct Gate {
    shared: Arc<Shared>,
    /// Its address for the store.
    pub(super) url: String,
}

impl Gate {
    /// A gate before the database of `url`, open.
    pub(super) async fn before(url: &str, changes: watch::Sender<u64>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (user, place) = url.split_once('@').unwrap();
        let (server, database) = place.split_once('/').unwrap();
        let gate = Self {
            shared: Arc::new(Shared {
                lines: Mutex::default(),
                changes,
                sabotage: Mutex::default(),
                is_open: Mutex::new(true),
            }),
            url: format!("{user}@127.0.0.1:{port}/{database}?sslmode=disable"),
        };
        let (own, server) = (gate.clone(), server.to_owned());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.unwrap();
                tokio::spawn(serve(own.clone(), client, server));
            }
        });
        gate
    }

    /// Lets everything pass, or only what the driver lets.
    pub(super) fn set_open(&self, is_open: bool) {
        *self.shared.is_open.lock().unwrap() = is_open;
    }

    /// Replaces `from` by `to` in every statement that is prepared from now on.
    pub(super) fn sabotage(&self, from: &'static str, to: &'static str) {
        self.shared.sabotage.lock().unwrap().push((from, to));
    }

    /// The connections so far.
    pub(super) fn lines(&self) -> MutexGuard<'_, Vec<Line>> {
        self.shared.lines.lock().unwrap()
    }

    /// Decides about the statement that waits on a line.
    pub(super) fn decide(&self, line: usize, verdict: Verdict) {
        self.change(line, |line| {
            assert!(line.held.is_some(), "a verdict is about a statement that waits");
            line.verdict = Some(verdict);
            line.is_late |= verdict != Verdict::Pass;
            line.in_flight += usize::from(verdict == Verdict::Pass);
            if verdict != Verdict::Delay {
                line.held = None;
            }
        });
    }

    /// Changes a line and tells it.
    fn change(&self, line: usize, change: impl FnOnce(&mut Line)) {
        change(&mut self.lines()[line]);
        self.shared.changes.send_modify(|n| *n += 1);
    }

    /// Waits until the driver has decided about the statement that waits.
    async fn verdict(&self, line: usize) -> Verdict {
        let mut changes = self.shared.changes.subscribe();
        loop {
            if let Some(verdict) = self.lines()[line].verdict.take() {
                return verdict;
            }
            changes.changed().await.unwrap();
        }
    }
}

/// The way to a client; `None`: cut.
type Channel = tokio::sync::Mutex<Option<OwnedWriteHalf>>;

/// Carries one connection to its end.
async fn serve(gate: Gate, mut client: TcpStream, mut server: TcpStream) {
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    // The first message has no type.
    let Ok(length) = client.read_i32().await else { return };
    let mut rest = vec![0; usize::try_from(length).unwrap() - 4];
    client.read_exact(&mut rest).await.unwrap();
    server.write_i32(length).await.unwrap();
    server.write_all(&rest).await.unwrap();
    let line = {
        let mut lines = gate.lines();
        lines.push(Line { in_flight: 1, ..Line::default() });
        lines.len() - 1
    };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let to_client = Arc::new(Channel::new(Some(to_client)));
    let mut down = tokio::spawn(answers(gate.clone(), line, from_server, to_client.clone()));
    let up = Up { gate: gate.clone(), line, to_server, to_client, prepared: HashMap::new() };
    if matches!(up.run(from_client).await, Ended::Gone) {
        down.abort();
    }
    let _ = (&mut down).await;
    gate.change(line, |line| {
        line.is_closed = true;
        line.held = None;
    });
}

/// How the way to the server ended.
enum Ended {
    /// One side has gone.
    Gone,
    /// The server has answered a last statement that came late.
    Answered,
}

/// The way from the client to the server.
struct Up {
    gate: Gate,
    line: usize,
    to_server: OwnedWriteHalf,
    to_client: Arc<Channel>,
    /// Texts of prepared statements.
    prepared: HashMap<Vec<u8>, String>,
}

impl Up {
    async fn run(mut self, mut from_client: OwnedReadHalf) -> Ended {
        let mut batch = Vec::new();
        let mut statement: Option<String> = None;
        let mut runs = false;
        while let Ok((kind, mut body)) = message(&mut from_client).await {
            match kind {
                b'P' => body = self.prepare(&body),
                b'B' => statement = self.bound(&body),
                b'E' => runs = true,
                b'Q' => {
                    statement = Some(text(&body));
                    runs = true;
                }
                _ => {}
            }
            put(&mut batch, kind, &body);
            match kind {
                b'S' | b'Q' => {
                    let said = statement.take().filter(|_| std::mem::take(&mut runs));
                    match self.ask(said).await {
                        Verdict::Pass => self.send(&batch).await,
                        Verdict::Lose => return Ended::Gone,
                        Verdict::Delay => return self.come_late(from_client, &batch).await,
                    }
                    batch.clear();
                }
                // Parts of a round trip wait for its end; others (passwords, the end) go at once.
                b'P' | b'B' | b'E' | b'D' | b'C' => {}
                _ => {
                    let _ = self.to_server.write_all(&batch).await;
                    batch.clear();
                }
            }
        }
        Ended::Gone
    }

    /// Notes the text of a statement, and changes it where it is to be sabotaged.
    fn prepare(&mut self, body: &[u8]) -> Vec<u8> {
        let mut parts = body.splitn(3, |byte| *byte == 0);
        let (name, sql) = (parts.next().unwrap(), parts.next().unwrap());
        let types = parts.next().unwrap();
        let mut sql = String::from_utf8(sql.to_vec()).unwrap();
        for (from, to) in self.gate.shared.sabotage.lock().unwrap().iter() {
            sql = sql.replace(from, to);
        }
        let changed = [name, sql.as_bytes(), types].join(&0);
        self.prepared.insert(name.to_vec(), sql);
        changed
    }

    /// The text of the statement that is to be executed.
    fn bound(&self, body: &[u8]) -> Option<String> {
        let name = body.split(|byte| *byte == 0).nth(1)?;
        self.prepared.get(name).cloned()
    }

    /// Asks the driver about a statement; what no other session could see passes.
    async fn ask(&self, statement: Option<String>) -> Verdict {
        let free = ["BEGIN", "SET ", "ROLLBACK", "SELECT id, slices, migrated_to"];
        let statement = statement.filter(|s| !free.iter().any(|f| s.starts_with(f)));
        let is_open = *self.gate.shared.is_open.lock().unwrap();
        let Some(statement) = statement.filter(|_| !is_open) else {
            self.gate.change(self.line, |line| line.in_flight += 1);
            return Verdict::Pass;
        };
        let words: Vec<&str> = statement.split_whitespace().collect();
        self.gate.change(self.line, |line| line.held = Some(words.join(" ")));
        self.gate.verdict(self.line).await
    }

    async fn send(&mut self, batch: &[u8]) {
        // That the server has gone is told by the way back.
        let _ = self.to_server.write_all(batch).await;
    }

    /// The client is cut off; what it sent waits on its way, and passes when the driver says so.
    async fn come_late(mut self, from_client: OwnedReadHalf, batch: &[u8]) -> Ended {
        drop(from_client);
        self.to_client.lock().await.take();
        self.gate.verdict(self.line).await;
        self.send(batch).await;
        // The server must not find its client gone before it has done the statement.
        let mut changes = self.gate.shared.changes.subscribe();
        while self.gate.lines()[self.line].in_flight > 0 {
            changes.changed().await.unwrap();
        }
        Ended::Answered
    }
}

/// The way from the server to the client. Once the client has gone, it ends with the next answer.
async fn answers(gate: Gate, line: usize, mut from: OwnedReadHalf, to: Arc<Channel>) {
    while let Ok((kind, body)) = message(&mut from).await {
        let is_late = gate.lines()[line].is_late;
        if kind == b'K' {
            let pid = i32::from_be_bytes(body[..4].try_into().unwrap());
            gate.change(line, |line| line.pid = pid);
        }
        let mut to = to.lock().await;
        if let Some(to) = &mut *to {
            let mut bytes = Vec::new();
            put(&mut bytes, kind, &body);
            let _ = to.write_all(&bytes).await;
        }
        if kind == b'Z' {
            gate.change(line, |line| {
                line.in_flight -= 1;
                line.in_transaction = body[0] != b'I';
            });
            if is_late {
                return;
            }
        }
    }
    gate.change(line, |line| line.in_flight = 0);
}

/// Reads a message: its type and its body.
async fn message(from: &mut OwnedReadHalf) -> std::io::Result<(u8, Vec<u8>)> {
    let kind = from.read_u8().await?;
    let length = usize::try_from(from.read_i32().await?).unwrap();
    let mut body = vec![0; length - 4];
    from.read_exact(&mut body).await?;
    Ok((kind, body))
}

/// Writes a message.
fn put(to: &mut Vec<u8>, kind: u8, body: &[u8]) {
    to.push(kind);
    to.extend(i32::try_from(body.len() + 4).unwrap().to_be_bytes());
    to.extend(body);
}

/// The text at the beginning of a body.
fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(body.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}
