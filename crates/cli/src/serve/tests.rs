//! A listener as its callers see it.

use std::time::Instant;

use axum::routing::{get, post};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;

const SOON: Duration = Duration::from_millis(100);
const LATE: Duration = Duration::from_secs(10);
const REQUEST: &[u8] = b"GET /peer HTTP/1.1\r\nhost: x\r\n\r\n";
const HELD: &[u8] = b"POST /held HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";

/// A server that serves.
struct Served {
    address: SocketAddr,
    shutdown: CancellationToken,
    ended: JoinHandle<()>,
    /// Lets `POST /held` answer.
    held: Arc<Notify>,
    /// Told when `POST /held` has begun.
    begun: Arc<Notify>,
}

async fn served(limits: Limits) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (shutdown, held) = (CancellationToken::new(), Arc::new(Notify::new()));
    let peer = |ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.to_string() };
    let begun = Arc::new(Notify::new());
    let (release, tell) = (Arc::clone(&held), Arc::clone(&begun));
    let wait = || async move {
        tell.notify_one();
        release.notified().await;
    };
    let router = Router::new()
        .route("/peer", get(peer))
        .route("/held", post(wait))
        .route("/livez", get(|| async {}));
    let ended = tokio::spawn(serve(listener, router, limits, shutdown.clone()));
    Served { address, shutdown, ended, held, begun }
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
async fn a_connection_above_the_limit_closes_one_that_waits_and_none_that_is_answered() {
    let served = served(Limits { max_connections: 2, ..Limits::default() }).await;
    let mut busy = connect(&served).await;
    busy.write_all(HELD).await.unwrap();
    served.begun.notified().await;
    let mut idle = connect(&served).await;
    idle.write_all(REQUEST).await.unwrap();
    answer(&mut idle).await;
    let mut third = connect(&served).await;
    third.write_all(REQUEST).await.unwrap();
    answer(&mut third).await;
    assert_eq!(rest(&mut idle).await, "");
    served.held.notify_one();
    assert!(answer(&mut busy).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn whoever_was_answered_with_success_is_served_while_strangers_hold_all_they_can() {
    let served = served(Limits { max_connections: 8, ..Limits::default() }).await;
    let mut known = connect(&served).await;
    known.write_all(REQUEST).await.unwrap();
    answer(&mut known).await;
    let mut strangers = Vec::new();
    for n in 0..200 {
        let mut stranger = connect(&served).await;
        match n % 4 {
            // Says nothing; begins a head; was refused; was answered what everybody is.
            0 => {}
            1 => stranger.write_all(&REQUEST[..10]).await.unwrap(),
            2 => stranger.write_all(b"GET /none HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap(),
            _ => stranger.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap(),
        }
        strangers.push(stranger);
    }
    for _ in 0..3 {
        // One that was open before, and a new one.
        known.write_all(REQUEST).await.unwrap();
        answer(&mut known).await;
        let mut new = connect(&served).await;
        new.write_all(REQUEST).await.unwrap();
        answer(&mut new).await;
    }
    assert_eq!(rest(&mut strangers[0]).await, "");
}

#[tokio::test]
async fn shutdown_ends_idle_connections_and_waits_for_requests_under_way() {
    let mut served = served(Limits::default()).await;
    let mut idle = connect(&served).await;
    idle.write_all(REQUEST).await.unwrap();
    answer(&mut idle).await;
    let mut busy = connect(&served).await;
    busy.write_all(HELD).await.unwrap();
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
    busy.write_all(HELD).await.unwrap();
    let mut other = connect(&served).await;
    other.write_all(REQUEST).await.unwrap();
    answer(&mut other).await;
    served.shutdown.cancel();
    timeout(LATE, served.ended).await.expect("it ends").unwrap();
    assert_eq!(rest(&mut busy).await, "");
}
