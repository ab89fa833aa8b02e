//! The list of sessions, the latest first, page by page.

use axum::Json;
use axum::extract::State;
use domain::session::Status;
use serde::Serialize;
use store::{Page, SessionFilter};

use super::show::Session;
use crate::Api;
use crate::cursor;
use crate::error::Problem;
use crate::extract::Params;
use crate::fields::Fields;

/// The status before a session has its live stream; the others are those of [`Status`].
const REQUESTED: &str = "requested";

/// A page of sessions.
#[derive(Debug, Serialize)]
pub(super) struct Sessions {
    sessions: Vec<Session>,
    /// What to send as `before` for the next page; none: this was the last.
    next: Option<String>,
}

/// Lists sessions.
pub(super) async fn list(
    State(api): State<Api>,
    Params(mut params): Params,
) -> Result<Json<Sessions>, Problem> {
    let filter = SessionFilter {
        source: params.source(api.config()),
        account: params.text("account", 200),
        status: status(&mut params),
    };
    let limit = params.integer("limit", 1..=500).unwrap_or(50);
    let before = params.text("before", 100);
    let before = before.and_then(|text| {
        let cursor = cursor::read_session(&text);
        if cursor.is_none() {
            params.wrong("before", "is not the `next` of a page of this list");
        }
        cursor
    });
    params.finish()?;
    // One more than asked for tells whether there is a next page.
    let mut views = api.store().sessions(&filter, &Page { limit: limit + 1, before }).await?;
    let limit = usize::try_from(limit).unwrap_or_default();
    let has_more = views.len() > limit;
    views.truncate(limit);
    api.store().open_sessions(api.sealing_key(), &mut views).await?;
    let last = views.last().filter(|_| has_more);
    let next = last.map(|last| cursor::of_session(last.requested_at, last.id));
    Ok(Json(Sessions { sessions: views.iter().map(Session::of).collect(), next }))
}

/// A status that exists.
fn status(params: &mut Fields) -> Option<String> {
    let status = params.text("status", 20)?;
    let known = || std::iter::once(REQUESTED).chain(Status::ALL.iter().map(|s| s.name()));
    if !known().any(|name| name == status) {
        let names: Vec<_> = known().collect();
        params.wrong("status", format!("is not one of {}", names.join(", ")));
    }
    Some(status)
}
