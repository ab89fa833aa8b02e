//! Serves a router over HTTP/1.1 within limits, and ends gracefully.
//!
//! The router's own serving knows no limits, so connections are accepted here. A connection is
//! *idle* from its last answer to the first byte of its next request. Idle is cheap and allowed for
//! long: closing too early meets requests that are under way, and a webhook is sent once. A request
//! that has begun must send its head soon.
//!
//! Not its job: TLS (a proxy in front has it), limits of bodies (the routes have them).

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::Request;
use hyper::body::Incoming;
use hyper::rt::{Sleep, Timer};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

/// Pause after a failed accept: mostly no file descriptor is left, and some must be closed first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What one listener allows.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Most connections at a time; further ones wait in the listener's queue.
    pub(crate) max_connections: usize,
    /// Longest time for a request's head, from its first byte, or from the connection's start.
    pub(crate) header_timeout: Duration,
    /// Largest head in bytes, request line included; else 431. At least 8192.
    pub(crate) header_bytes: usize,
    /// Longest idle time of a connection. Longer than what senders and proxies keep theirs, so
    /// that they close first.
    pub(crate) idle_timeout: Duration,
    /// Longest wait for requests under way once shut down; then they are cut.
    pub(crate) grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            header_timeout: Duration::from_secs(5),
            header_bytes: 16 << 10,
            // reqwest keeps 90 s, nginx 75 s, a load balancer of AWS 60 s.
            idle_timeout: Duration::from_secs(100),
            grace: Duration::from_secs(25),
        }
    }
}

/// Serves `router` until `shutdown` is cancelled and requests under way have ended, or the grace
/// has. Handlers find `ConnectInfo<SocketAddr>` in the request. Idle connections close at once.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(limits.max_connections.clamp(1, Semaphore::MAX_PERMITS)));
    let (graceful, cut, tasks) =
        (GracefulShutdown::new(), CancellationToken::new(), TaskTracker::new());
    loop {
        // The slot comes first: what cannot be served is not accepted.
        let accepted =
            async { (Arc::clone(&slots).acquire_owned().await, accept(&listener).await) };
        let (slot, (stream, peer)) = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = accepted => accepted,
        };
        let connection =
            connection(stream, peer, router.clone(), limits.clone(), graceful.watcher());
        let cut = cut.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = connection => {}
                () = cut.cancelled() => {}
            }
            drop(slot);
        });
    }
    // New callers are refused at once instead of waiting for an answer that never comes.
    drop(listener);
    if tokio::time::timeout(limits.grace, graceful.shutdown()).await.is_err() {
        tracing::warn!(connections = tasks.len(), "requests cut: the grace has ended");
        cut.cancel();
    }
    tasks.close();
    tasks.wait().await;
}

/// Waits for a connection, whatever happens to others.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::error!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Whether a failed accept means only that its caller has gone.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Serves one connection to its end.
async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    limits: Limits,
    watcher: Watcher,
) {
    // An answer is small and must not wait for more.
    let _ = stream.set_nodelay(true);
    let received = Arc::new(AtomicU64::new(0));
    let (reader, writer) = stream.into_split();
    let reader = Counting { reader, received: Arc::clone(&received) };
    let io = TokioIo::new(tokio::io::join(reader, writer));
    let timer = HeadTimer { received, header_timeout: limits.header_timeout };
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        let answer = router.clone().oneshot(request);
        async { Ok::<_, Infallible>(answer.await.unwrap_or_else(|never| match never {})) }
    });
    let served = http1::Builder::new()
        .timer(timer)
        .header_read_timeout(limits.idle_timeout)
        .max_header_size(limits.header_bytes)
        .max_buf_size(limits.header_bytes.max(64 << 10))
        .serve_connection(io, service);
    if let Err(error) = watcher.watch(served).await {
        // The caller's doing: a head that is late or no HTTP, a connection that broke.
        tracing::debug!(%error, %peer, "connection ended");
    }
}

/// The reading half of a connection; counts its bytes.
struct Counting<R> {
    reader: R,
    received: Arc<AtomicU64>,
}

impl<R: AsyncRead + Unpin> AsyncRead for Counting<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.reader).poll_read(cx, buffer);
        let more = buffer.filled().len() - before;
        self.received.fetch_add(more as u64, Ordering::Relaxed);
        read
    }
}

/// The server asks it for one alarm per head, set to the idle timeout before anything is read. It
/// comes sooner once the head has begun.
struct HeadTimer {
    received: Arc<AtomicU64>,
    header_timeout: Duration,
}

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(HeadAlarm {
            alarm: Box::pin(tokio::time::sleep_until(deadline.into())),
            before: self.received.load(Ordering::Relaxed),
            received: Arc::clone(&self.received),
            header_timeout: self.header_timeout,
            begun: false,
        })
    }
}

/// The alarm of one head. It is looked at after every read.
struct HeadAlarm {
    alarm: Pin<Box<tokio::time::Sleep>>,
    /// Bytes of the connection when the wait began; 0: its first head.
    before: u64,
    received: Arc<AtomicU64>,
    header_timeout: Duration,
    begun: bool,
}

impl Sleep for HeadAlarm {}

impl Future for HeadAlarm {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let has_more = self.received.load(Ordering::Relaxed) != self.before;
        if !self.begun && (has_more || self.before == 0) {
            self.begun = true;
            let deadline = tokio::time::Instant::now() + self.header_timeout;
            self.alarm.as_mut().reset(deadline);
        }
        self.alarm.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Notify;
    use tokio::task::JoinHandle;
    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_millis(100);
    const LATE: Duration = Duration::from_secs(10);
    const REQUEST: &[u8] = b"GET /peer HTTP/1.1\r\nhost: x\r\n\r\n";

    /// A server that serves.
    struct Served {
        address: SocketAddr,
        shutdown: CancellationToken,
        ended: JoinHandle<()>,
        /// Lets `POST /held` answer.
        held: Arc<Notify>,
    }

    async fn served(limits: Limits) -> Served {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (shutdown, held) = (CancellationToken::new(), Arc::new(Notify::new()));
        let peer = |ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.to_string() };
        let release = Arc::clone(&held);
        let wait = || async move { release.notified().await };
        let router = Router::new().route("/peer", get(peer)).route("/held", post(wait));
        let ended = tokio::spawn(serve(listener, router, limits, shutdown.clone()));
        Served { address, shutdown, ended, held }
    }

    /// Reads one whole answer.
    async fn answer(stream: &mut TcpStream) -> String {
        let mut read = Vec::new();
        while !is_whole(&read) {
            let n = timeout(LATE, stream.read_buf(&mut read)).await.unwrap().unwrap();
            assert!(n > 0, "closed after {:?}", String::from_utf8_lossy(&read));
        }
        String::from_utf8(read).unwrap()
    }

    /// Whether the head and as much of the body as it tells are there.
    fn is_whole(answer: &[u8]) -> bool {
        let text = String::from_utf8_lossy(answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        body.len() >= length.unwrap().parse().unwrap()
    }

    /// Reads until the server closes.
    async fn rest(stream: &mut TcpStream) -> String {
        let mut read = Vec::new();
        // A reset is an end, too.
        let _ = timeout(LATE, stream.read_to_end(&mut read)).await.expect("the server closes");
        String::from_utf8(read).unwrap()
    }

    async fn connect(served: &Served) -> TcpStream {
        TcpStream::connect(served.address).await.unwrap()
    }

    #[tokio::test]
    async fn handlers_know_their_peer_and_connections_are_kept() {
        let served = served(Limits::default()).await;
        let mut stream = connect(&served).await;
        let ours = stream.local_addr().unwrap().to_string();
        for _ in 0..3 {
            stream.write_all(REQUEST).await.unwrap();
            let answer = answer(&mut stream).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            assert!(answer.ends_with(&ours), "{answer}");
        }
    }

    #[tokio::test]
    async fn a_head_that_is_late_ends_the_connection() {
        let limits = Limits { header_timeout: SOON, idle_timeout: LATE * 2, ..Limits::default() };
        let served = served(limits).await;
        // Nothing at all, a part of the first head, a part of a later head.
        let mut silent = connect(&served).await;
        assert_eq!(rest(&mut silent).await, "");
        let mut slow = connect(&served).await;
        slow.write_all(&REQUEST[..10]).await.unwrap();
        assert_eq!(rest(&mut slow).await, "");
        let mut later = connect(&served).await;
        later.write_all(REQUEST).await.unwrap();
        answer(&mut later).await;
        later.write_all(&REQUEST[..10]).await.unwrap();
        assert_eq!(rest(&mut later).await, "");
    }

    #[tokio::test]
    async fn an_idle_connection_outlives_the_header_timeout_and_not_the_idle_timeout() {
        let limits = Limits { header_timeout: SOON, idle_timeout: SOON * 4, ..Limits::default() };
        let served = served(limits).await;
        let mut stream = connect(&served).await;
        stream.write_all(REQUEST).await.unwrap();
        answer(&mut stream).await;
        let idle_since = Instant::now();
        assert_eq!(rest(&mut stream).await, "");
        assert!(idle_since.elapsed() >= SOON * 3, "{:?}", idle_since.elapsed());
    }

    #[tokio::test]
    async fn a_head_that_is_too_large_is_refused() {
        let served = served(Limits { header_bytes: 8192, ..Limits::default() }).await;
        let mut stream = connect(&served).await;
        let request = format!("GET /peer HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(10_000));
        stream.write_all(request.as_bytes()).await.unwrap();
        assert!(rest(&mut stream).await.starts_with("HTTP/1.1 431"));
    }

    #[tokio::test]
    async fn connections_above_the_limit_wait_for_their_turn() {
        let served = served(Limits { max_connections: 1, ..Limits::default() }).await;
        let mut first = connect(&served).await;
        first.write_all(REQUEST).await.unwrap();
        answer(&mut first).await;
        let mut second = connect(&served).await;
        second.write_all(REQUEST).await.unwrap();
        assert!(timeout(SOON, answer(&mut second)).await.is_err(), "served beside the first");
        drop(first);
        answer(&mut second).await;
    }

    #[tokio::test]
    async fn shutdown_ends_idle_connections_and_waits_for_requests_under_way() {
        let mut served = served(Limits::default()).await;
        let mut idle = connect(&served).await;
        idle.write_all(REQUEST).await.unwrap();
        answer(&mut idle).await;
        let mut busy = connect(&served).await;
        busy.write_all(b"POST /held HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
            .await
            .unwrap();
        // The idle connection's next answer shows that the server has seen the busy one.
        idle.write_all(REQUEST).await.unwrap();
        answer(&mut idle).await;
        served.shutdown.cancel();
        assert_eq!(rest(&mut idle).await, "");
        assert!(timeout(SOON, &mut served.ended).await.is_err(), "ended before the request");
        assert!(TcpStream::connect(served.address).await.is_err(), "accepts while draining");
        served.held.notify_one();
        assert!(rest(&mut busy).await.starts_with("HTTP/1.1 200"));
        timeout(LATE, served.ended).await.expect("it ends").unwrap();
    }

    #[tokio::test]
    async fn the_grace_ends_what_does_not_end() {
        let served = served(Limits { grace: SOON, ..Limits::default() }).await;
        let mut busy = connect(&served).await;
        busy.write_all(b"POST /held HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
            .await
            .unwrap();
        let mut other = connect(&served).await;
        other.write_all(REQUEST).await.unwrap();
        answer(&mut other).await;
        served.shutdown.cancel();
        timeout(LATE, served.ended).await.expect("it ends").unwrap();
        assert_eq!(rest(&mut busy).await, "");
    }
}
