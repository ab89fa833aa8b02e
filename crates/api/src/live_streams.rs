//! Live streams as the projections know them: the platform's objects that were heard of.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use domain::ids::{LiveStreamId, Timestamp};
use serde::Serialize;
use store::LiveStreamView;

use crate::Api;
use crate::auth::needs;
use crate::cursor;
use crate::error::Problem;
use crate::extract::{Params, Segment};
use crate::token::Scope;

/// The routes.
pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/live-streams", needs(Scope::LiveStreamsRead, get(list)))
        .route("/v1/live-streams/{id}", needs(Scope::LiveStreamsRead, get(show)))
}

/// A live stream, for callers.
#[derive(Debug, Serialize)]
struct LiveStream {
    id: LiveStreamId,
    source: String,
    account: Option<String>,
    /// This installation made it, and may delete it.
    ours: bool,
    active: Option<bool>,
    live: bool,
    idle_since: Option<Timestamp>,
    deleted: bool,
    playback: Playback,
}

/// Addresses for players.
#[derive(Debug, Default, Serialize)]
#[expect(clippy::struct_field_names, reason = "the names of the answer are the platform's")]
pub(crate) struct Playback {
    hls_url: Option<String>,
    dash_url: Option<String>,
    iframe_url: Option<String>,
}

impl Playback {
    /// Those of a live stream.
    pub(crate) fn of(view: LiveStreamView) -> Self {
        Self { hls_url: view.hls_url, dash_url: view.dash_url, iframe_url: view.iframe_url }
    }
}

/// A page of live streams, by id and source.
#[derive(Debug, Serialize)]
struct Page {
    live_streams: Vec<LiveStream>,
    /// What to send as `after` for the next page; none: this was the last.
    next: Option<String>,
}

async fn list(State(api): State<Api>, Params(mut params): Params) -> Result<Json<Page>, Problem> {
    let source = params.source(api.config());
    let account = params.text("account", 200);
    let limit = params.integer("limit", 1..=500).unwrap_or(50);
    let after = params.text("after", 100);
    let after = after.and_then(|text| {
        let cursor = cursor::read_live_stream(&text);
        if cursor.is_none() {
            params.wrong("after", "is not the `next` of a page of this list");
        }
        cursor
    });
    params.finish()?;
    // One more than asked for tells whether there is a next page.
    let (source, account) = (source.as_deref(), account.as_deref());
    let after = after.as_ref().map(|(id, source)| (*id, source.as_str()));
    let mut views = api.store().live_streams(source, account, after, limit + 1).await?;
    let limit = usize::try_from(limit).unwrap_or_default();
    let has_more = views.len() > limit;
    views.truncate(limit);
    api.store().open_live_streams(api.sealing_key(), &mut views).await?;
    let last = views.last().filter(|_| has_more);
    let next = last.map(|last| cursor::of_live_stream(last.id, &last.source));
    let live_streams = views.into_iter().map(|view| of(&api, view)).collect();
    Ok(Json(Page { live_streams, next }))
}

async fn show(
    State(api): State<Api>,
    Segment(id): Segment,
    Params(mut params): Params,
) -> Result<Json<LiveStream>, Problem> {
    let source = params.required_source(api.config());
    params.finish()?;
    let not_found = || Problem::not_found("live stream");
    let id = id.parse().map(LiveStreamId).map_err(|_| not_found())?;
    let mut views = [api.store().live_stream(&source, id).await?.ok_or_else(not_found)?];
    api.store().open_live_streams(api.sealing_key(), &mut views).await?;
    let [view] = views;
    Ok(Json(of(&api, view)))
}

/// A live stream, for callers.
fn of(api: &Api, view: LiveStreamView) -> LiveStream {
    LiveStream {
        id: view.id,
        source: view.source.clone(),
        account: view.account.clone(),
        ours: view.installation == Some(api.store().installation()),
        active: view.active,
        live: view.live,
        idle_since: view.idle_since,
        deleted: view.deleted,
        playback: Playback::of(view),
    }
}
