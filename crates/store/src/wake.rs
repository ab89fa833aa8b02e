//! Wake-ups: a hint that slices have something new. The database says what; polling repairs what
//! a hint missed.
//!
//! NOTIFY takes a lock of the whole cluster until commit, so it is never sent in an append's
//! transaction: a task of its own sends at most one in five milliseconds, after the commits.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream, Stream};
use sqlx::PgPool;
use sqlx::postgres::PgListener;
use tokio::sync::mpsc;

use crate::{Error, Store};

/// The channel.
const CHANNEL: &str = "tallylight";

/// The shortest time between two notifications of a process.
const DEBOUNCE: Duration = Duration::from_millis(5);

/// Slices remembered while a notification is under way; more are dropped, polling finds them.
const BACKLOG: usize = 1024;

/// Longest payload of a notification, below PostgreSQL's 8000 bytes.
const MAX_PAYLOAD: usize = 7_900;

/// What a notification about leases says instead of slices.
const LEASES: &str = "leases";

/// What may be new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// Events or jobs of these slices.
    Slices(Vec<i16>),
    /// Leases were given back: somebody should take them.
    Leases,
    /// Anything: hints were missed, or were too many to be told.
    Everything,
}

impl Hint {
    fn read(payload: &str) -> Self {
        if payload == LEASES {
            return Self::Leases;
        }
        let slices: Result<Vec<i16>, _> = payload.split(',').map(str::parse).collect();
        slices.map_or(Self::Everything, Self::Slices)
    }
}

/// Tells other processes that slices have something new.
#[derive(Debug, Clone)]
pub struct Notifier {
    moved: mpsc::Sender<i16>,
}

impl Notifier {
    /// Starts a task that tells `send` which slices moved, never twice in a short time.
    pub(crate) fn start<F>(send: impl Fn(BTreeSet<i16>) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send,
    {
        let (moved, mut queue) = mpsc::channel(BACKLOG);
        tokio::spawn(async move {
            while let Some(first) = queue.recv().await {
                let mut slices = BTreeSet::from([first]);
                while let Ok(slice) = queue.try_recv() {
                    slices.insert(slice);
                }
                send(slices).await;
                tokio::time::sleep(DEBOUNCE).await;
            }
        });
        Self { moved }
    }

    /// Notes that `slice` has something new. Never waits.
    pub fn moved(&self, slice: i16) {
        // A full queue means that a notification is due anyway.
        let _ = self.moved.try_send(slice);
    }
}

/// Hears of new things.
pub struct Wakes {
    hints: BoxStream<'static, Result<Hint, Error>>,
}

impl fmt::Debug for Wakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wakes").finish_non_exhaustive()
    }
}

impl Wakes {
    /// Hears `hints`.
    pub(crate) fn of(hints: impl Stream<Item = Result<Hint, Error>> + Send + 'static) -> Self {
        Self { hints: hints.boxed() }
    }

    /// Waits for a hint. After a lost connection it reconnects and returns too, since hints may
    /// have been missed.
    ///
    /// # Errors
    /// [`Error::Unreachable`] while the database is away: wait and call again.
    pub async fn recv(&mut self) -> Result<Hint, Error> {
        self.hints.next().await.unwrap_or(Ok(Hint::Everything))
    }
}

impl Store {
    /// Starts the task that notifies; it ends when the last `Notifier` is dropped.
    pub fn notifier(&self) -> Notifier {
        let pool = self.pool.clone();
        Notifier::start(move |slices| {
            let pool = pool.clone();
            async move {
                if let Err(error) = notify(&pool, &payload(&slices)).await {
                    tracing::debug!(error = %error, "notification not sent; polling will find it");
                }
            }
        })
    }

    /// Wakes the holder of a slice at once.
    pub(crate) async fn wake_slice(&self, slice: i16) -> Result<(), Error> {
        Ok(notify(&self.pool, &payload(&BTreeSet::from([slice]))).await?)
    }

    /// Tells the other processes that leases were given back.
    pub async fn leases_given_back(&self) -> Result<(), Error> {
        Ok(notify(&self.pool, LEASES).await?)
    }

    /// Listens for hints, on a connection of its own.
    pub async fn listen(&self) -> Result<Wakes, Error> {
        let mut listener = PgListener::connect_with(&self.pool).await?;
        listener.listen(CHANNEL).await?;
        let hints = stream::unfold(listener, |mut listener| async {
            let heard = listener.try_recv().await;
            let heard = heard
                .map(|heard| heard.map_or(Hint::Everything, |heard| Hint::read(heard.payload())));
            Some((heard.map_err(Error::from), listener))
        });
        Ok(Wakes::of(hints))
    }
}

/// Sends one notification. It need not outlive a crash, so its commit waits for no disk.
async fn notify(pool: &PgPool, payload: &str) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, $2)",
        CHANNEL,
        payload,
    )
    .fetch_one(pool)
    .await?;
    Ok(())
}

/// The slices, comma-separated; empty where they are too many to be told.
fn payload(slices: &BTreeSet<i16>) -> String {
    let list: Vec<String> = slices.iter().map(ToString::to_string).collect();
    Some(list.join(",")).filter(|list| list.len() <= MAX_PAYLOAD).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_never_too_long() {
        assert_eq!(payload(&BTreeSet::from([3, 1])), "1,3");
        assert_eq!(payload(&(0..4096).collect()), "");
    }

    #[test]
    fn a_hint_that_cannot_be_read_may_be_anything() {
        assert_eq!(Hint::read("1,3"), Hint::Slices(vec![1, 3]));
        assert_eq!(Hint::read(LEASES), Hint::Leases);
        for unreadable in ["", "1,x", "leases,1"] {
            assert_eq!(Hint::read(unreadable), Hint::Everything);
        }
    }
}
