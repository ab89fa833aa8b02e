//! Serves a router over HTTP/1.1 within limits, and ends gracefully.
//!
//! The router's own serving knows no limits, so connections are accepted here. A connection is
//! *idle* from its last answer to the first byte of its next request. Idle is cheap and allowed for
//! long: closing too early meets requests that are under way, and a webhook is sent once. A request
//! that has begun must send its head soon. When there are too many connections, idle ones go.
//!
//! | module | does |
//! |---|---|
//! | `head` | limits the time of a request's head |
//! | `slots` | knows which connection goes for another |
//!
//! Not its job: TLS (a proxy in front has it), limits of bodies (the routes have them).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::response::Response;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

mod head;
mod slots;
#[cfg(test)]
mod tests;

use head::{Counting, HeadTimer};
use slots::{Seat, Slot, Slots};

/// What is answered to everybody, and so tells nothing of who asks.
const PROBES: [&str; 2] = ["/livez", "/readyz"];

/// Pause after a failed accept: mostly no file descriptor is left, and some must be closed first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What one listener allows.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Most connections at a time; for a further one, the idlest goes.
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
    let slots = Slots::new(limits.max_connections);
    let (graceful, cut, tasks) =
        (GracefulShutdown::new(), CancellationToken::new(), TaskTracker::new());
    loop {
        let accepted = async {
            let accepted = accept(&listener).await;
            (slots.take().await, accepted)
        };
        let (slot, (stream, peer)) = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = accepted => accepted,
        };
        let seat = Arc::clone(&slot.seat);
        let connection =
            connection((stream, peer), seat, router.clone(), limits.clone(), graceful.watcher());
        tasks.spawn(until_closed(connection, slot, cut.clone()));
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

/// Serves a connection until it ends, or goes for another, or all are cut.
async fn until_closed(connection: impl Future<Output = ()>, slot: Slot, cut: CancellationToken) {
    tokio::select! {
        () = connection => {}
        () = slot.seat.closed.cancelled() => {}
        () = cut.cancelled() => {}
    }
    drop(slot);
}

/// Serves one connection to its end.
async fn connection(
    (stream, peer): (TcpStream, SocketAddr),
    seat: Arc<Seat>,
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
        answer(request, router.clone(), Arc::clone(&seat))
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

/// Answers one request, and notes what that tells of the connection.
async fn answer(
    request: Request<Incoming>,
    router: Router,
    seat: Arc<Seat>,
) -> io::Result<Response> {
    if !seat.begin() {
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    let is_probe = PROBES.contains(&request.uri().path());
    let response = router.oneshot(request).await.unwrap_or_else(|never| match never {});
    seat.end(!is_probe && response.status().is_success());
    Ok(response)
}
