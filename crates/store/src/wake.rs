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

/// News remembered while a notification is under way; more are dropped, polling finds them.
const BACKLOG: usize = 1024;

/// Longest payload of a notification, below PostgreSQL's 8000 bytes.
const MAX_PAYLOAD: usize = 7_900;

/// What a notification about leases says instead of slices.
const LEASES: &str = "leases";

/// What a notification about schedules says.
const SCHEDULES: &str = "schedules";

/// What may be new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// What is new in which slices.
    Slices {
        /// Those with new events.
        events: BTreeSet<i16>,
        /// Those with new jobs.
        jobs: BTreeSet<i16>,
    },
    /// Leases were given back: somebody should take them.
    Leases,
    /// Schedules were changed: the next fire may be another one.
    Schedules,
    /// Anything: hints were missed, or were too many to be told.
    Everything,
}

impl Hint {
    fn read(payload: &str) -> Self {
        match payload {
            LEASES => Self::Leases,
            SCHEDULES => Self::Schedules,
            _ => News::read(payload).map_or(Self::Everything, Self::from),
        }
    }
}

/// What a notification tells of.
#[derive(Debug, Default)]
pub(crate) struct News {
    events: BTreeSet<i16>,
    jobs: BTreeSet<i16>,
}

impl From<News> for Hint {
    fn from(News { events, jobs }: News) -> Self {
        Self::Slices { events, jobs }
    }
}

/// Something new.
#[derive(Debug, Clone, Copy)]
enum New {
    Events(i16),
    Jobs(i16),
}

impl News {
    fn add(&mut self, new: New) {
        match new {
            New::Events(slice) => self.events.insert(slice),
            New::Jobs(slice) => self.jobs.insert(slice),
        };
    }

    /// The slices, comma-separated: those with events, and behind a semicolon those with jobs, if
    /// there are any. Empty where they are too many to be told.
    fn payload(&self) -> String {
        let list = |slices: &BTreeSet<i16>| {
            slices.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        };
        let mut text = list(&self.events);
        if !self.jobs.is_empty() {
            text = format!("{text};{}", list(&self.jobs));
        }
        Some(text).filter(|text| text.len() <= MAX_PAYLOAD).unwrap_or_default()
    }

    /// `None`: it is none of ours, or tells nothing.
    fn read(payload: &str) -> Option<Self> {
        let list = |text: &str| -> Option<BTreeSet<i16>> {
            let slices = text.split(',').filter(|_| !text.is_empty());
            slices.map(|slice| slice.parse().ok()).collect()
        };
        let (events, jobs) = payload.split_once(';').unwrap_or((payload, ""));
        let news = Self { events: list(events)?, jobs: list(jobs)? };
        Some(news).filter(|news| !news.events.is_empty() || !news.jobs.is_empty())
    }
}

/// Tells other processes that slices have something new.
#[derive(Debug, Clone)]
pub struct Notifier {
    news: mpsc::Sender<New>,
}

impl Notifier {
    /// Starts a task that tells `send` what is new, never twice in a short time.
    pub(crate) fn start<F>(send: impl Fn(News) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send,
    {
        let (news, mut queue) = mpsc::channel(BACKLOG);
        tokio::spawn(async move {
            while let Some(first) = queue.recv().await {
                let mut told = News::default();
                told.add(first);
                while let Ok(more) = queue.try_recv() {
                    told.add(more);
                }
                send(told).await;
                tokio::time::sleep(DEBOUNCE).await;
            }
        });
        Self { news }
    }

    /// Notes that `slice` has new events. Never waits.
    pub fn moved(&self, slice: i16) {
        // A full queue means that a notification is due anyway.
        let _ = self.news.try_send(New::Events(slice));
    }

    /// Notes that `slice` has new jobs. Never waits.
    pub fn enqueued(&self, slice: i16) {
        let _ = self.news.try_send(New::Jobs(slice));
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
        Notifier::start(move |news| {
            let pool = pool.clone();
            async move {
                if let Err(error) = notify(&pool, &news.payload()).await {
                    tracing::debug!(error = %error, "notification not sent; polling will find it");
                }
            }
        })
    }

    /// Wakes the holder of a slice at once.
    pub(crate) async fn wake_slice(&self, slice: i16) -> Result<(), Error> {
        let mut told = News::default();
        told.add(New::Events(slice));
        Ok(notify(&self.pool, &told.payload()).await?)
    }

    /// Tells the other processes that leases were given back.
    pub async fn leases_given_back(&self) -> Result<(), Error> {
        // Told by who keeps the leases.
        Ok(notify(&self.lifeline, LEASES).await?)
    }

    /// Tells workers that schedules were changed.
    pub(crate) async fn tell_schedules(&self) -> Result<(), Error> {
        Ok(notify(&self.pool, SCHEDULES).await?)
    }

    /// Listens for hints, on a connection of its own.
    pub async fn listen(&self) -> Result<Wakes, Error> {
        // Of its own, since it is held for as long as somebody listens: taken from the pool, it would
        // be missed there, and of a pool of one nothing would be left.
        let own = self.pool.options().clone().max_connections(1);
        let own = own.connect_lazy_with((*self.pool.connect_options()).clone());
        let mut listener = PgListener::connect_with(&own).await?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn news(events: &[i16], jobs: &[i16]) -> News {
        News { events: events.iter().copied().collect(), jobs: jobs.iter().copied().collect() }
    }

    #[test]
    fn a_payload_is_never_too_long() {
        assert_eq!(news(&[3, 1], &[]).payload(), "1,3");
        let all: Vec<i16> = (0..4096).collect();
        assert_eq!(news(&all, &[]).payload(), "");
        assert_eq!(news(&[], &all).payload(), "");
    }

    #[test]
    fn a_hint_tells_events_and_jobs_apart() {
        for (events, jobs, text) in
            [(&[1, 3][..], &[][..], "1,3"), (&[], &[2], ";2"), (&[1], &[1, 2], "1;1,2")]
        {
            let told = news(events, jobs);
            assert_eq!(told.payload(), text);
            let News { events, jobs } = told;
            assert_eq!(Hint::read(text), Hint::Slices { events, jobs });
        }
    }

    #[test]
    fn a_hint_that_cannot_be_read_may_be_anything() {
        assert_eq!(Hint::read(LEASES), Hint::Leases);
        assert_eq!(Hint::read(SCHEDULES), Hint::Schedules);
        for unreadable in ["", ";", "1,x", "leases,1", "1;2;3", "1;,"] {
            assert_eq!(Hint::read(unreadable), Hint::Everything);
        }
    }
}
