//! Helps of this crate's tests: a database behind a wire that can be cut, an endpoint, requests.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Request, StatusCode};
use domain::event::RecordedEvent;
use domain::ids::Timestamp;
use http_body_util::BodyExt;
use hyper::body::Frame;
use prometheus_client::registry::Registry;
use store::Store;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::{
    BatchToken, Config, Error, Ingest, Known, Lanes, Metrics, PathToken, SourceTokens, Spool,
    SpoolDir, lanes, router, spool,
};

pub(crate) const SOURCE: &str = "gcore-main";
pub(crate) const TOKEN: &str = "Zm9ydHktdHdvLWZvcnR5LXR3bw";
pub(crate) const PEER: [u8; 4] = [192, 0, 2, 1];

/// Waits until `holds`, and fails after two minutes.
pub(crate) async fn eventually<F: Future<Output = bool>>(mut holds: impl FnMut() -> F) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(2), wait).await.expect("it comes true in time");
}

/// All events of the log, slice by slice. Reading fails where positions are not dense.
pub(crate) async fn log(store: &Store) -> Vec<RecordedEvent> {
    let mut events = Vec::new();
    for slice in store.slices().slices() {
        events.extend(store.read_after(slice, 0, Timestamp::default(), 100_000).await.unwrap());
    }
    events
}

/// What the wire does at the moment.
#[derive(Clone, Copy)]
struct Line {
    /// New connections are forwarded.
    up: bool,
    /// Answers longer than a ping's are swallowed.
    mute: bool,
    /// Connections of another generation are cut.
    generation: u32,
    /// The connection that is next to send an event is cut as soon as it has.
    cut_next: bool,
}

/// A wire to the database.
pub(crate) struct Wire {
    line: Arc<watch::Sender<Line>>,
    /// The database by itself.
    pub(crate) direct: Store,
    /// The database through the wire.
    pub(crate) wired: Store,
    /// The database's address through the wire.
    pub(crate) url: String,
    /// Where its lanes spool.
    pub(crate) dir: TempDir,
}

impl Wire {
    /// A wire to a database of its own, with at most `connections`.
    pub(crate) async fn new(connections: u32) -> Self {
        let direct_url = store::testing::database().await;
        let (login, rest) = direct_url.rsplit_once('@').unwrap();
        let (address, database) = rest.split_once('/').unwrap();
        let server: SocketAddr = address.parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = listener.local_addr().unwrap();
        let line = Line { up: true, mute: false, generation: 0, cut_next: false };
        let line = Arc::new(watch::Sender::new(line));
        tokio::spawn(accept(listener, server, Arc::clone(&line)));
        let direct = Store::connect(&store::Config::new(direct_url.clone())).await.unwrap();
        let url = format!("{login}@{near}/{database}");
        let mut config = store::Config::new(url.clone());
        config.max_connections = connections;
        // Logging in takes a while in a debug build: a shorter wait would never succeed.
        config.acquire_timeout = Duration::from_secs(5);
        let wired = Store::connect(&config).await.unwrap();
        Self { line, direct, wired, url, dir: tempfile::tempdir().unwrap() }
    }

    /// Cuts all connections.
    pub(crate) fn cut(&self) {
        self.line.send_modify(|line| line.generation += 1);
    }

    /// Cuts the connection that is next to send an event: when all of it is on its way to the
    /// database, and before anything is answered.
    pub(crate) fn cut_next_append(&self) {
        self.line.send_modify(|line| line.cut_next = true);
    }

    /// Whether such a connection is still to come.
    pub(crate) fn is_to_cut(&self) -> bool {
        self.line.borrow().cut_next
    }

    /// Cuts all connections and takes no new ones.
    pub(crate) fn down(&self) {
        self.line.send_modify(|line| line.up = false);
        self.cut();
    }

    /// Takes connections again, and answers get through.
    pub(crate) fn up(&self) {
        self.line.send_modify(|line| (line.up, line.mute) = (true, false));
    }

    /// Swallows the database's answers from now on.
    pub(crate) fn mute(&self) {
        self.line.send_modify(|line| line.mute = true);
    }

    /// Lanes through the wire, with a spool. Hints take no part: they go directly.
    pub(crate) fn lanes(&self, config: lanes::Config) -> Lanes {
        let spool = spool(&self.wired, &spool::Config::new(self.dir.path()));
        self.lanes_on(spool, config)
    }

    /// Lanes through the wire on a spool of the test's own.
    pub(crate) fn lanes_on(&self, (spool, metrics): Opened, config: lanes::Config) -> Lanes {
        Lanes::start(self.wired.clone(), self.direct.notifier(), spool, metrics, config)
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, line: Arc<watch::Sender<Line>>) {
    while let Ok((client, _)) = listener.accept().await {
        if line.borrow().up {
            tokio::spawn(forward(client, server, Arc::clone(&line)));
        }
    }
}

/// Forwards both ways until an end closes or the wire is cut.
async fn forward(mut client: TcpStream, server: SocketAddr, line: Arc<watch::Sender<Line>>) {
    /// `ReadyForQuery` alone: the answer to a ping.
    const PING_ANSWER: usize = 6;
    let mut server = TcpStream::connect(server).await.unwrap();
    let mut news = line.subscribe();
    let generation = line.borrow().generation;
    let (mut asked, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let forwarded = tokio::select! {
            () = async { drop(news.wait_for(|line| line.generation != generation).await) } => break,
            read = client.read(&mut asked) => match read {
                Ok(n @ 1..) => {
                    let forwarded = server.write_all(&asked[..n]).await;
                    let cut = |line: &mut Line| std::mem::take(&mut line.cut_next);
                    if sends_event(&asked[..n]) && line.send_if_modified(cut) {
                        break;
                    }
                    forwarded
                }
                _ => break,
            },
            read = server.read(&mut answered) => match read {
                Ok(n @ 1..) if line.borrow().mute && n > PING_ANSWER => Ok(()),
                Ok(n @ 1..) => client.write_all(&answered[..n]).await,
                _ => break,
            },
        };
        if forwarded.is_err() {
            break;
        }
    }
}

/// Whether these bytes hold the subject of an event.
fn sends_event(bytes: &[u8]) -> bool {
    let subject = format!("{SOURCE}/");
    bytes.windows(subject.len()).any(|window| window == subject.as_bytes())
}

/// Settings with one source and one token.
pub(crate) fn config() -> Config {
    let tokens = vec![PathToken::of(TOKEN).unwrap()];
    let source = SourceTokens { source: SOURCE.to_owned(), tokens, networks: Vec::new() };
    let batch = BatchToken {
        name: "backfill".to_owned(),
        token: PathToken::of(TOKEN).unwrap(),
        sources: [SOURCE.to_owned()].into(),
    };
    Config { sources: vec![source], batch_tokens: vec![batch], ..Config::default() }
}

/// One of the numbers as an operator reads them.
pub(crate) fn told(lanes: &Lanes, name: &str) -> f64 {
    let (mut registry, mut text) = (Registry::default(), String::new());
    lanes.metrics().register(&mut registry);
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let line = text.lines().find(|line| line.split(' ').next() == Some(name));
    line.unwrap_or_else(|| panic!("no {name} in {text}"))
        .split(' ')
        .next_back()
        .unwrap()
        .parse()
        .unwrap()
}

/// Waits that are never over, on whatever machine.
pub(crate) fn patient() -> lanes::Config {
    let long = Duration::from_mins(1);
    lanes::Config { spool_after: long, deadline: long, grace: long, ..lanes::Config::default() }
}

/// Waits that are over soon.
pub(crate) fn impatient() -> lanes::Config {
    let (soon, grace) = (Duration::from_millis(50), Duration::from_millis(200));
    lanes::Config { spool_after: soon, deadline: soon * 4, grace, ..lanes::Config::default() }
}

/// A spool and the numbers it tells.
pub(crate) type Opened = (Spool, Arc<Metrics>);

/// Locks a spool's directory. A lock that is being let go is waited for.
pub(crate) fn lock(config: &spool::Config) -> SpoolDir {
    let begun = std::time::Instant::now();
    loop {
        match SpoolDir::lock(config.clone()) {
            Err(Error::SpoolTaken { .. }) if begun.elapsed() < Duration::from_secs(20) => {
                std::thread::yield_now();
            }
            locked => return locked.unwrap(),
        }
    }
}

/// Opens a spool for `store`.
pub(crate) fn spool(store: &Store, config: &spool::Config) -> Opened {
    let known = Known { installation: store.installation(), slices: store.slices() };
    let metrics = Arc::new(Metrics::new());
    (lock(config).open(known, Arc::clone(&metrics)).unwrap(), metrics)
}

/// Lanes straight to a database, on a spool in a directory that goes with the process.
pub(crate) fn lanes_of(store: &Store, config: lanes::Config) -> Lanes {
    let dir = tempfile::tempdir().unwrap().keep();
    let (spool, metrics) = spool(store, &spool::Config::new(dir));
    Lanes::start(store.clone(), store.notifier(), spool, metrics, config)
}

/// An endpoint on a database of its own.
pub(crate) async fn endpoint(config: Config) -> (Router, Store, Lanes) {
    let store = store::testing::store().await;
    let lanes = lanes_of(&store, patient());
    (routes(config, &store, &lanes), store, lanes)
}

/// The routes of an endpoint.
pub(crate) fn routes(config: Config, store: &Store, lanes: &Lanes) -> Router {
    let draining = CancellationToken::new();
    router(Ingest::new(config, store.clone(), lanes.clone(), draining).unwrap())
}

/// The right path.
pub(crate) fn path() -> String {
    format!("/webhooks/{SOURCE}/{TOKEN}")
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// The id of the stored event.
    pub(crate) fn event_id(&self) -> uuid::Uuid {
        assert_eq!(self.status, StatusCode::OK, "{self:?}");
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        body["event_id"].as_str().unwrap().parse().unwrap()
    }
}

/// Sends a request from [`PEER`].
pub(crate) async fn send(router: &Router, mut request: Request<Body>) -> Answer {
    let peer = SocketAddr::from((PEER, 4711));
    request.extensions_mut().insert(ConnectInfo(peer));
    let answer = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = answer.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer { status: parts.status, headers: parts.headers, body }
}

/// Posts a body.
pub(crate) async fn post(router: &Router, path: &str, body: impl Into<Body>) -> Answer {
    send(router, Request::post(path).body(body.into()).unwrap()).await
}

/// Asks for a page.
pub(crate) async fn get(router: &Router, path: &str) -> Answer {
    send(router, Request::get(path).body(Body::empty()).unwrap()).await
}

/// A body of unknown length: chunks, then an end, a break or nothing more.
pub(crate) struct Chunks {
    pub(crate) chunks: VecDeque<Vec<u8>>,
    pub(crate) end: End,
}

/// How a body of chunks goes on after them.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum End {
    Whole,
    Broken,
    Stalled,
}

impl hyper::body::Body for Chunks {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        match (self.chunks.pop_front(), self.end) {
            (Some(chunk), _) => Poll::Ready(Some(Ok(Frame::data(chunk.into())))),
            (None, End::Whole) => Poll::Ready(None),
            (None, End::Broken) => Poll::Ready(Some(Err(std::io::ErrorKind::BrokenPipe.into()))),
            (None, End::Stalled) => Poll::Pending,
        }
    }
}

/// A body of chunks.
pub(crate) fn chunks(chunks: impl IntoIterator<Item = Vec<u8>>, end: End) -> Body {
    Body::new(Chunks { chunks: chunks.into_iter().collect(), end })
}
