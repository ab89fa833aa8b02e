//! The time that a request's head may take. An idle connection may wait for long, but a head that
//! has begun must come soon, and the server knows one timeout for both: so the bytes are counted.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};
use tokio::io::{AsyncRead, ReadBuf};

/// The reading half of a connection; counts its bytes.
pub(super) struct Counting<R> {
    pub(super) reader: R,
    pub(super) received: Arc<AtomicU64>,
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
pub(super) struct HeadTimer {
    pub(super) received: Arc<AtomicU64>,
    pub(super) header_timeout: Duration,
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
