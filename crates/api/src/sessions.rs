//! Sessions: start, command, list, look. A session is found as soon as its start is answered: what
//! the projection does not know yet is folded from the log.

use axum::Router;
use axum::routing::{get, post};
use domain::event::{Event, RecordedEvent};
use domain::ids::Subject;
use domain::request::Request;
use domain::state::{Body, evolve};
use domain::view::request_row;
use store::{AsOf, SessionThen, SessionView};
use uuid::Uuid;

use crate::Api;
use crate::auth::needs;
use crate::error::Problem;
use crate::token::Scope;

mod commands;
mod create;
mod ingest;
mod list;
mod show;
mod timeline;

/// Events read at once.
const READ: i64 = 500;

/// The routes.
pub(crate) fn routes() -> Router<Api> {
    let read = |routes| needs(Scope::SessionsRead, routes);
    let write = |routes| needs(Scope::SessionsWrite, routes);
    Router::new()
        .route("/v1/sessions", read(get(list::list)).merge(write(post(create::create))))
        .route("/v1/sessions/{id}", read(get(show::show)))
        .route("/v1/sessions/{id}/timeline", read(get(timeline::timeline)))
        .route("/v1/sessions/{id}/ingest", needs(Scope::IngestRead, get(ingest::ingest)))
        .route("/v1/sessions/{id}/go-live", write(post(commands::go_live)))
        .route("/v1/sessions/{id}/end", write(post(commands::end)))
        .route("/v1/sessions/{id}/retry", write(post(commands::retry)))
}

/// A session's request as the log tells it, with its personal values in the open.
struct RequestLog {
    /// All events of its subject, with their meaning.
    events: Vec<(RecordedEvent, Event)>,
    /// What they fold to.
    state: Request,
}

/// Reads and folds a session's request; `None`: it was never asked for.
async fn read_request(
    api: &Api,
    source: &str,
    id: Uuid,
) -> Result<Option<RequestLog>, store::Error> {
    let subject = Subject::request(source, id);
    let mut events = Vec::new();
    let mut state = None;
    let mut after = 0;
    loop {
        let mut page = api.store().read_subject(&subject, after, READ).await?;
        api.store().open_events(api.sealing_key(), &mut page).await?;
        let read = page.len();
        for stored in page {
            after = stored.position;
            let event = Event::decode(&stored);
            state = evolve(state, &stored, &event);
            events.push((stored, event));
        }
        if i64::try_from(read).is_ok_and(|read| read < READ) {
            break;
        }
    }
    match state.map(|state| state.body) {
        Some(Body::Request(state)) => Ok(Some(RequestLog { events, state })),
        _ => Ok(None),
    }
}

/// A session as the projections know it, else as its request folds, with its personal values in the
/// open.
async fn find(api: &Api, id: Uuid) -> Result<SessionView, Problem> {
    if let Some(view) = api.store().session(id).await? {
        return Ok(open(api, view).await?);
    }
    for source in &api.config().sources {
        if let Some(request) = read_request(api, source, id).await? {
            return Ok(unprojected(&request.state));
        }
    }
    Err(Problem::not_found("session"))
}

/// A session with its live stream as they are, or as they were known at a moment.
async fn find_then(api: &Api, id: Uuid, at: Option<AsOf>) -> Result<SessionThen, Problem> {
    let session = find(api, id).await?;
    if let Some(at) = at {
        let then = api.store().session_as_of(&session.source, id, at).await?;
        let then = then.ok_or_else(|| Problem::not_found("session at that time"))?;
        return Ok(SessionThen { session: open(api, then.session).await?, ..then });
    }
    let live_stream = match session.live_stream {
        Some(live_stream) => api.store().live_stream(&session.source, live_stream).await?,
        None => None,
    };
    Ok(SessionThen { session, live_stream })
}

/// The session with its personal values in the open.
async fn open(api: &Api, view: SessionView) -> Result<SessionView, store::Error> {
    let mut views = [view];
    api.store().open_sessions(api.sealing_key(), &mut views).await?;
    let [view] = views;
    Ok(view)
}

/// The view that the projection will have.
fn unprojected(request: &Request) -> SessionView {
    let row = request_row(request);
    SessionView {
        id: row.session,
        source: row.source,
        account: row.account,
        name: row.name,
        status: row.status,
        live_stream: row.live_stream,
        requested_at: row.requested_at,
        failure: row.failure,
        detail: None,
    }
}
