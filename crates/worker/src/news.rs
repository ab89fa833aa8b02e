//! News of jobs: in which slices something may be due that nobody has read yet. Only a hint: whoever
//! misses one polls.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// Slices that may have new due jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News {
    /// These; none: no news.
    Of(BTreeSet<i16>),
    /// Any of them.
    All,
}

impl Default for News {
    fn default() -> Self {
        Self::Of(BTreeSet::new())
    }
}

impl News {
    /// Of one slice.
    pub(crate) fn of(slice: i16) -> Self {
        Self::Of(BTreeSet::from([slice]))
    }

    /// Whether there are any.
    pub(crate) fn any(&self) -> bool {
        *self != Self::default()
    }

    /// Adds others.
    pub(crate) fn add(&mut self, more: Self) {
        match (&mut *self, more) {
            (Self::Of(slices), Self::Of(more)) => slices.extend(more),
            _ => *self = Self::All,
        }
    }
}

/// News on their way to the engine: told by anybody, gathered until it hears them.
#[derive(Debug, Default)]
pub(crate) struct JobNews {
    gathered: Mutex<News>,
    bell: Notify,
}

impl JobNews {
    /// Tells news.
    pub(crate) fn tell(&self, news: News) {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner).add(news);
        self.bell.notify_one();
    }

    /// Waits for news and takes all there are.
    pub(crate) async fn heard(&self) -> News {
        loop {
            self.bell.notified().await;
            let mut gathered = self.gathered.lock().unwrap_or_else(PoisonError::into_inner);
            let news = std::mem::take(&mut *gathered);
            if news.any() {
                return news;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn news_gather_until_they_are_heard() {
        let news = JobNews::default();
        news.tell(News::of(3));
        news.tell(News::of(1));
        assert_eq!(news.heard().await, News::Of(BTreeSet::from([1, 3])));
        news.tell(News::of(2));
        news.tell(News::All);
        news.tell(News::of(4));
        assert_eq!(news.heard().await, News::All);
        assert!(!news.gathered.lock().unwrap().any());
    }
}
