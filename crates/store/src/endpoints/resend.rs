//! Messages sent to an endpoint on request: a test, one again, or all that it hears since a time.
//!
//! They are jobs like those of a reaction, of the same messages with the same ids. One that waits
//! from an earlier request is not enqueued beside it.

use std::collections::BTreeSet;

use domain::endpoint::{DELIVER, DeliverArgs, MAX_ATTEMPTS, QUEUE, Told, delivery};
use domain::event::{Event, RecordedEvent};
use domain::ids::{Subject, Timestamp};
use domain::message::MessageId;
use serde_json::Value;
use uuid::Uuid;

use super::Endpoint;
use crate::{EnqueueOptions, Error, PlainJob, Store, feed};

/// Messages of one request: whoever wants more asks again.
const MOST: u64 = 10_000;

/// Messages that are read and enqueued at once.
const PAGE: usize = 500;

/// What is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// One message, whether the endpoint's filter lets it through or not.
    Message(MessageId),
    /// All that the endpoint hears.
    Since {
        /// Recorded then or later.
        since: Timestamp,
        /// And before this.
        until: Option<Timestamp>,
    },
}

/// What was sent again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resent {
    /// How many messages.
    pub messages: u64,
    /// There are more, recorded then or later.
    pub next_since: Option<Timestamp>,
    /// The slices that have new jobs.
    pub slices: BTreeSet<i16>,
}

impl Store {
    /// Sends a test to an endpoint. Returns the job, and its slice.
    pub async fn test_endpoint(&self, id: Uuid, at: Timestamp) -> Result<(Uuid, i16), Error> {
        let subject = Subject::delivery(id, &Subject::from_stored("test".to_owned()));
        let args = DeliverArgs { endpoint: id, message: Told::Test(at) };
        let options = EnqueueOptions {
            subject: Some(subject.to_string()),
            queue: Some(QUEUE.to_owned()),
            max_attempts: Some(1),
            ..EnqueueOptions::default()
        };
        let args = serde_json::to_value(args).unwrap_or_default();
        let job = self.enqueue(DELIVER, &args, &options).await?;
        Ok((job, self.slice_of(&subject)))
    }

    /// Sends messages to an endpoint once more; with `dry_run` it only counts them. `None`: there is
    /// no such message.
    ///
    /// # Errors
    /// [`Error::NoHistory`] and [`Error::Segment`] where what is sealed cannot be read.
    pub async fn resend(
        &self,
        endpoint: &Endpoint,
        again: Again,
        dry_run: bool,
    ) -> Result<Option<Resent>, Error> {
        match again {
            Again::Message(id) => {
                let Some(stored) = self.announcement(id).await? else { return Ok(None) };
                let mut resent = Resent::default();
                self.enqueue_again(endpoint.id, &[stored], dry_run, &mut resent).await?;
                Ok(Some(resent))
            }
            Again::Since { since, until } => {
                self.resend_since(endpoint, since, until, dry_run).await.map(Some)
            }
        }
    }

    async fn resend_since(
        &self,
        endpoint: &Endpoint,
        since: Timestamp,
        until: Option<Timestamp>,
        dry_run: bool,
    ) -> Result<Resent, Error> {
        let mut resent = Resent::default();
        // What comes after this moment is told anyway.
        let end = match until {
            Some(until) => self.feed_since(until).await?,
            None => self.feed_end().await?,
        };
        let mut point = self.feed_since(since).await?;
        while point.iter().zip(&end).any(|(at, end)| at < end) {
            let page = self.announced(&point, &feed::names(), PAGE).await?;
            let is_meant = |event: &RecordedEvent| {
                let end = usize::try_from(event.slice).ok().and_then(|nth| end.get(nth));
                end.is_some_and(|end| event.position <= *end) && hears(endpoint, event)
            };
            let mut events = page.events;
            events.retain(is_meant);
            self.enqueue_again(endpoint.id, &events, dry_run, &mut resent).await?;
            point = page.reached;
            if resent.messages >= MOST {
                resent.next_since = self.first_between(&point, &end).await?;
                break;
            }
        }
        Ok(resent)
    }

    /// Enqueues the messages of some announcements.
    async fn enqueue_again(
        &self,
        endpoint: Uuid,
        events: &[RecordedEvent],
        dry_run: bool,
        resent: &mut Resent,
    ) -> Result<(), Error> {
        resent.messages += events.len() as u64;
        if dry_run || events.is_empty() {
            return Ok(());
        }
        let jobs: Vec<PlainJob> = events.iter().map(|event| plain(endpoint, event)).collect();
        self.enqueue_many(&jobs, None).await?;
        let slices =
            events.iter().map(|event| self.slice_of(&Subject::delivery(endpoint, &event.subject)));
        resent.slices.extend(slices);
        Ok(())
    }
}

/// Whether an endpoint hears an announcement.
fn hears(endpoint: &Endpoint, stored: &RecordedEvent) -> bool {
    let Event::Announced(announcement) = Event::decode(stored) else { return false };
    endpoint.filter.hears(stored.subject.source(), &announcement)
}

/// The job of a message once more: in the order of the messages, and once while it waits.
fn plain(endpoint: Uuid, stored: &RecordedEvent) -> PlainJob {
    let first = delivery(endpoint, stored);
    let options = EnqueueOptions {
        subject: Some(first.subject.to_string()),
        run_at: Some(stored.recorded_at),
        key: Some(MessageId::of(stored).to_string()),
        queue: Some(QUEUE.to_owned()),
        priority: Some(first.priority),
        max_attempts: Some(MAX_ATTEMPTS),
        ..EnqueueOptions::default()
    };
    let args: Value = first.args;
    PlainJob { kind: DELIVER.to_owned(), args, options }
}
