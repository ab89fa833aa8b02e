//! The hub: reads new announcements once for all who listen to this process.
//!
//! Listeners that are up to date get them from here, without a question to the database of their
//! own; one that is behind, or too slow to follow, reads from the log until it is up to date. So
//! what the hub drops is lost to nobody. While nobody listens it asks nothing.

use std::sync::{Arc, Once, Weak};
use std::time::Duration;

use domain::announcement::TOPICS;
use domain::event::RecordedEvent;
use domain::message::Message;
use store::{SealingKey, Store, Wakes};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep, sleep_until};

use crate::error::Problem;

/// Batches that a slow listener may have before it.
const BACKLOG: usize = 256;

/// Announcements that are read at once.
const PAGE: usize = 200;

/// Longest time that a hint can be missed for.
const POLL: Duration = Duration::from_secs(1);

/// Hints gather for this long: under load there are hundreds a second, and a reader notices no 50 ms.
const GATHER: Duration = Duration::from_millis(50);

/// Wait after an error.
const PAUSE: Duration = Duration::from_secs(1);

/// Announcements of a stretch of the log.
#[derive(Debug)]
pub(super) struct News {
    /// The point that they follow.
    pub(super) from: Vec<i64>,
    /// The point up to which they are all of them.
    pub(super) to: Vec<i64>,
    /// By slice and position, in the order in which they are told; each with its name in the log.
    pub(super) messages: Vec<(i16, &'static str, Message)>,
}

/// The hub of a process. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Hub(Arc<Inner>);

struct Inner {
    store: Store,
    sealing_key: Option<SealingKey>,
    news: broadcast::Sender<Arc<News>>,
    wanted: Notify,
    ended: watch::Sender<bool>,
    places: Arc<Semaphore>,
    started: Once,
}

/// Somebody who hears news. Takes a place for as long as it lives.
pub(super) struct Listener {
    news: broadcast::Receiver<Arc<News>>,
    ended: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
}

/// What a listener hears.
pub(super) enum Heard {
    /// New announcements.
    News(Arc<News>),
    /// It was too slow: read the log.
    Missed,
    /// Nothing until the time it named.
    Nothing,
    /// The process stops: whoever listens reads on at another one.
    End,
}

impl Hub {
    /// A hub for so many listeners.
    pub(crate) fn new(store: Store, sealing_key: Option<SealingKey>, listeners: usize) -> Self {
        Self(Arc::new(Inner {
            store,
            sealing_key,
            news: broadcast::channel(BACKLOG).0,
            wanted: Notify::new(),
            ended: watch::channel(false).0,
            places: Arc::new(Semaphore::new(listeners)),
            started: Once::new(),
        }))
    }

    /// Sends all listeners away, and takes none any more.
    pub(crate) fn end(&self) {
        self.0.places.close();
        self.0.ended.send_replace(true);
    }

    /// Takes a place.
    ///
    /// # Errors
    /// 503 where all are taken, or the process stops.
    pub(super) fn listen(&self) -> Result<Listener, Problem> {
        let place = Arc::clone(&self.0.places).try_acquire_owned();
        let place = place.map_err(|_| Problem::too_many_listeners())?;
        let listener = Listener {
            news: self.0.news.subscribe(),
            ended: self.0.ended.subscribe(),
            _place: place,
        };
        self.0.started.call_once(|| {
            tokio::spawn(run(Arc::downgrade(&self.0)));
        });
        self.0.wanted.notify_one();
        Ok(listener)
    }
}

impl Listener {
    /// Waits for news until `deadline`. Returns whether there may be some.
    pub(super) async fn news_before(&mut self, deadline: Instant) -> bool {
        matches!(self.hear(deadline).await, Heard::News(_) | Heard::Missed)
    }

    /// Waits for what comes next, until `deadline`.
    pub(super) async fn hear(&mut self, deadline: Instant) -> Heard {
        if *self.ended.borrow() {
            return Heard::End;
        }
        tokio::select! {
            heard = self.news.recv() => match heard {
                Ok(news) => Heard::News(news),
                Err(RecvError::Lagged(_)) => Heard::Missed,
                Err(RecvError::Closed) => Heard::End,
            },
            _ = self.ended.changed() => Heard::End,
            () = sleep_until(deadline) => Heard::Nothing,
        }
    }
}

/// Where the hub stands.
struct Course {
    /// Up to where announcements were told.
    told: Vec<i64>,
    /// Up to where the log was looked through since.
    seen: Vec<i64>,
}

/// Reads and tells for as long as the process has a hub.
async fn run(hub: Weak<Inner>) {
    let mut course = None;
    let mut wakes = None;
    while let Some(inner) = hub.upgrade() {
        if inner.news.receiver_count() == 0 {
            (course, wakes) = (None, None);
            drop(inner);
            wanted(&hub).await;
            continue;
        }
        match inner.step(&mut course).await {
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => {
                let chain = crate::error::chain(&error);
                tracing::warn!(error = %error, error.chain = chain, "feed not read, trying again");
                drop(inner);
                sleep(PAUSE).await;
                continue;
            }
        }
        if wakes.is_none() {
            wakes = inner.store.listen().await.ok();
        }
        drop(inner);
        hint(&mut wakes).await;
    }
}

/// Waits until somebody listens. Looks up now and then, since a hub that is gone notifies nobody.
async fn wanted(hub: &Weak<Inner>) {
    let Some(inner) = hub.upgrade() else { return };
    let _ = tokio::time::timeout(POLL, inner.wanted.notified()).await;
}

/// Waits for a hint, or as long as one can be missed for.
async fn hint(wakes: &mut Option<Wakes>) {
    let Some(listening) = wakes else {
        sleep(POLL).await;
        return;
    };
    let waited = tokio::time::timeout(POLL, listening.recv()).await;
    match waited {
        Ok(Ok(_)) => sleep(GATHER).await,
        // Away: listened for anew.
        Ok(Err(_)) => {
            *wakes = None;
            sleep(PAUSE).await;
        }
        Err(_) => {}
    }
}

impl Inner {
    /// Reads and tells once. Returns whether there is more.
    async fn step(&self, course: &mut Option<Course>) -> Result<bool, store::Error> {
        let Some(course) = course else {
            let end = self.store.feed_end().await?;
            // Who has looked before this moment looks again: what came in between is not told.
            let news = News { from: end.clone(), to: end.clone(), messages: Vec::new() };
            let _ = self.news.send(Arc::new(news));
            *course = Some(Course { told: end.clone(), seen: end });
            return Ok(true);
        };
        let names = TOPICS.map(|(name, _)| name);
        let page = self.store.announced(&course.seen, &names, PAGE).await?;
        let mut events = page.events;
        if !events.is_empty() {
            self.store.open_events(self.sealing_key.as_ref(), &mut events).await?;
            let told = |event: &RecordedEvent| {
                let name = names.into_iter().find(|name| *name == event.event_type)?;
                Some((event.slice, name, Message::of(event)?))
            };
            let messages = events.iter().filter_map(told).collect();
            let from = std::mem::replace(&mut course.told, page.reached.clone());
            let news = News { from, to: page.reached.clone(), messages };
            // Nobody may be left to hear it.
            let _ = self.news.send(Arc::new(news));
        }
        course.seen = page.reached;
        Ok(!page.is_complete)
    }
}
