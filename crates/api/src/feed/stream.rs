//! The stream: messages as server-sent events, from where the caller stopped reading.
//!
//! Each has the cursor behind it as its id, so that a client which reconnects with `Last-Event-ID`
//! goes on there, at any process. A heartbeat is an id alone: it moves the client's cursor past what
//! it does not want to hear. A slow reader holds one page in memory and reads the rest from the log.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse as _, Response};
use domain::message::Message;
use futures_util::stream;
use tokio::time::Instant;

use super::hub::{Heard, Listener, News};
use super::{MAX_CURSOR, Wanted, messages};
use crate::Api;
use crate::error::Problem;
use crate::extract::Params;

/// Between two signs of life: proxies give up connections that are silent for a minute.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// A stream ends after this time and is taken up again by the client: tokens expire, and processes
/// come and go.
const LONGEST: Duration = Duration::from_mins(30);

/// How long clients wait before they connect again.
const RECONNECT: Duration = Duration::from_secs(2);

/// Messages read at once.
const PAGE: usize = 100;

/// The header of a client that connects again.
const LAST_EVENT_ID: &str = "last-event-id";

/// Opens a stream.
pub(super) async fn stream(
    State(api): State<Api>,
    headers: HeaderMap,
    Params(mut params): Params,
) -> Result<Response, Problem> {
    let after = params.text("after", MAX_CURSOR);
    // A client that was here before knows better than the address it was given.
    let last = headers.get(LAST_EVENT_ID).and_then(|value| value.to_str().ok());
    let last = last.filter(|id| !id.is_empty()).map(str::to_owned);
    let wanted = Wanted::read(&api, &mut params, last.or(after).as_deref())?;
    params.finish()?;
    let listener = api.hub().listen()?;
    let point = wanted.point(&api).await?;
    let reader = Reader::new(api, listener, wanted.names, point);
    let frames = stream::unfold(reader, |mut reader| async {
        let frame = reader.next().await?;
        Some((Ok::<_, Infallible>(frame), reader))
    });
    let mut response = Sse::new(frames).into_response();
    // nginx hands on at once then.
    let unbuffered = HeaderName::from_static("x-accel-buffering");
    response.headers_mut().insert(unbuffered, HeaderValue::from_static("no"));
    Ok(response)
}

/// A caller that listens.
struct Reader {
    api: Api,
    listener: Listener,
    names: Vec<&'static str>,
    /// Up to where it was told, what waits in `ready` included.
    point: Vec<i64>,
    /// What it can be sent at once.
    ready: VecDeque<Event>,
    /// The log has nothing behind `point` that the hub will not tell.
    is_up_to_date: bool,
    until: Instant,
}

impl Reader {
    fn new(api: Api, listener: Listener, names: Vec<&'static str>, point: Vec<i64>) -> Self {
        let first = Event::default().retry(RECONNECT).id(api.cursor(point.clone()));
        let until = Instant::now() + LONGEST;
        let ready = VecDeque::from([first]);
        Self { api, listener, names, point, ready, is_up_to_date: false, until }
    }

    /// The next frame; `None`: the stream ends.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Some(frame);
            }
            if Instant::now() >= self.until {
                return None;
            }
            if self.is_up_to_date {
                let heartbeat = Instant::now() + HEARTBEAT;
                match self.listener.hear(heartbeat.min(self.until)).await {
                    Heard::News(news) => self.take(&news),
                    Heard::Missed => self.is_up_to_date = false,
                    Heard::Nothing => {
                        // Should the hub be unwell, the log is looked at all the same.
                        self.is_up_to_date = false;
                        let id = self.api.cursor(self.point.clone());
                        return Some(Event::default().id(id));
                    }
                    Heard::End => return None,
                }
            } else if let Err(error) = self.read().await {
                let chain = crate::error::chain(&error);
                tracing::warn!(error = %error, error.chain = chain, "stream of events ended");
                return None;
            }
        }
    }

    /// Reads a page from the log.
    async fn read(&mut self) -> Result<(), store::Error> {
        let page = self.api.store().announced(&self.point, &self.names, PAGE).await?;
        self.is_up_to_date = page.is_complete;
        for (slice, message) in messages(&self.api, page.events).await? {
            self.tell(slice, &message);
        }
        self.point = page.reached;
        Ok(())
    }

    /// Takes what the hub read, if it follows what was told.
    fn take(&mut self, news: &News) {
        if self.point.iter().zip(&news.from).any(|(own, from)| own < from) {
            self.is_up_to_date = false;
            return;
        }
        for (slice, name, message) in &news.messages {
            if self.names.contains(name) {
                self.tell(*slice, message);
            }
        }
        for (own, to) in self.point.iter_mut().zip(&news.to) {
            *own = (*own).max(*to);
        }
    }

    /// Makes a frame of a message that was not told yet.
    fn tell(&mut self, slice: i16, message: &Message) {
        let own = usize::try_from(slice).ok().and_then(|nth| self.point.get_mut(nth));
        let Some(own) = own.filter(|own| **own < message.sequence) else { return };
        *own = message.sequence;
        let id = self.api.cursor(self.point.clone());
        self.ready.push_back(Event::default().id(id).data(message.body()));
    }
}
