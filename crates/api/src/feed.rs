//! The feed: the same messages that endpoints are told, to be read on from a cursor.
//!
//! A *cursor* is a point of the log, told as text: everything before it was handed out, and reading
//! on from it misses nothing, over whichever process. `GET /v1/events` hands out pages and waits for
//! the next one if asked to; `GET /v1/events/stream` goes on for as long as the caller listens.
//! Messages come at least once; within a live stream in order, across them in none.

use std::time::Duration;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use domain::announcement::TOPICS;
use domain::endpoint::matches;
use domain::event::RecordedEvent;
use domain::message::Message;
use serde::Serialize;
use tokio::time::Instant;

use crate::Api;
use crate::auth::needs;
use crate::error::Problem;
use crate::extract::Params;
use crate::fields::Fields;
use crate::token::Scope;

mod cursor;
mod hub;
mod stream;

use cursor::{Cursor, NotACursor};
pub(crate) use hub::Hub;

/// Longest list of types in a query.
const MAX_TYPES: usize = 500;

/// Longest cursor: one of 4,096 slices with positions of ten bytes.
const MAX_CURSOR: usize = 64 * 1024;

/// The routes.
pub(crate) fn routes() -> Router<Api> {
    let read = |routes| needs(Scope::EventsRead, routes);
    Router::new()
        .route("/v1/events", read(get(list)))
        .route("/v1/events/stream", read(get(stream::stream)))
}

/// A page of messages.
#[derive(Debug, Serialize)]
struct Page {
    events: Vec<Message>,
    /// What to send as `after` to read on, now or later.
    next: String,
    /// There may be more at once.
    has_more: bool,
}

/// What a caller wants to hear.
#[derive(Debug)]
struct Wanted {
    /// The names in the log of the types that are wanted.
    names: Vec<&'static str>,
    /// Where to begin.
    after: Begin,
}

/// Where a caller begins.
#[derive(Debug)]
enum Begin {
    /// Before all that is in the database.
    Start,
    /// Behind all that is there now.
    Now,
    /// Behind what was read.
    Point(Vec<i64>),
}

async fn list(State(api): State<Api>, Params(mut params): Params) -> Result<Json<Page>, Problem> {
    let limit = params.integer("limit", 1..=500).unwrap_or(100);
    let wait = params.integer("wait", 0..=60).unwrap_or_default();
    let after = params.text("after", MAX_CURSOR);
    let wanted = Wanted::read(&api, &mut params, after.as_deref())?;
    params.finish()?;
    let limit = usize::try_from(limit).unwrap_or_default();
    let deadline = Instant::now() + Duration::from_secs(wait.unsigned_abs());
    // Before the first look, so that nothing falls between that and the wait.
    let mut listener = if wait > 0 { Some(api.hub().listen()?) } else { None };
    let mut point = wanted.point(&api).await?;
    loop {
        let page = api.store().announced(&point, &wanted.names, limit).await?;
        if let Some(listener) = &mut listener
            && page.is_complete
            && page.events.is_empty()
            && listener.news_before(deadline).await
        {
            point = page.reached;
            continue;
        }
        let next = api.cursor(page.reached);
        let messages = messages(&api, page.events).await?;
        let events = messages.into_iter().map(|(_, message)| message).collect();
        return Ok(Json(Page { events, next, has_more: !page.is_complete }));
    }
}

impl Wanted {
    /// Reads what is wanted, and where to begin.
    fn read(api: &Api, params: &mut Fields, after: Option<&str>) -> Result<Self, Problem> {
        let after = match after {
            None => Begin::Start,
            Some("now") => Begin::Now,
            Some(text) => match Cursor::read(text, api.incarnation(), api.store().slices()) {
                Ok(Cursor { point, .. }) => Begin::Point(point),
                Err(NotACursor::Restored) => return Err(restored()),
                Err(NotACursor::Unreadable) => {
                    params.wrong("after", "is neither `now` nor the `next` of a page");
                    Begin::Start
                }
            },
        };
        Ok(Self { names: names(params), after })
    }

    /// The point to begin at.
    async fn point(&self, api: &Api) -> Result<Vec<i64>, store::Error> {
        match &self.after {
            Begin::Start => api.store().feed_start().await,
            Begin::Now => api.store().feed_end().await,
            Begin::Point(point) => Ok(point.clone()),
        }
    }
}

/// The names in the log of the types that a query names; of all where it names none.
fn names(params: &mut Fields) -> Vec<&'static str> {
    let text = params.text("types", MAX_TYPES);
    let patterns: Vec<&str> = text.iter().flat_map(|text| text.split(',')).map(str::trim).collect();
    if let Some(unknown) = patterns.iter().find(|pattern| !domain::endpoint::is_pattern(pattern)) {
        params.wrong("types", format!("has \"{unknown}\", which means no message"));
    }
    let is_wanted =
        |topic: &str| patterns.is_empty() || patterns.iter().any(|pattern| matches(pattern, topic));
    TOPICS.iter().filter(|(_, topic)| is_wanted(topic)).map(|(name, _)| *name).collect()
}

/// 410: the positions of a cursor may be other events' now.
fn restored() -> Problem {
    Problem::gone(
        "log-restored",
        "the cursor is of the time before the log was restored: begin anew, without `after`",
    )
}

/// Messages with their personal values in the open, each with its slice.
async fn messages(
    api: &Api,
    mut events: Vec<RecordedEvent>,
) -> Result<Vec<(i16, Message)>, store::Error> {
    api.store().open_events(api.sealing_key(), &mut events).await?;
    Ok(events.iter().filter_map(|event| Some((event.slice, Message::of(event)?))).collect())
}

impl Api {
    /// A point as text.
    fn cursor(&self, point: Vec<i64>) -> String {
        Cursor { incarnation: self.incarnation(), point }.to_string()
    }
}
