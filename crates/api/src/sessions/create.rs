//! Starting a session: one `Idempotency-Key` is one session, however often it is sent.

use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use domain::event::{Event, SessionOptions, SessionRequested};
use domain::ids::{LiveStreamId, Subject, derived_id, is_account_id, session_id};
use serde_json::Value;
use uuid::Uuid;

use super::{find, read_request, show};
use crate::Api;
use crate::auth::Caller;
use crate::config::Config;
use crate::error::Problem;
use crate::extract::{Body, IdempotencyKey};
use crate::fields::Fields;

/// Longest `data`, bytes of JSON: with our ownership tag it stands in one field of the platform's
/// live stream, which takes 4096 characters.
const MAX_DATA: usize = 3 * 1024;
/// Longest name, characters.
const MAX_NAME: usize = 255;

/// Asks for a session: 201 for a new one, 200 for a repeat, 422 where the key was sent with
/// another body.
pub(super) async fn create(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    key: IdempotencyKey,
    Body(fields): Body,
) -> Result<Response, Problem> {
    let request = read(fields, api.config(), &key.required()?)?;
    let id = request.session;
    let key = derived_id("request", &[&id.to_string()]);
    let subject = Subject::request(&request.source, id);
    let event = Event::SessionRequested(request);
    let is_new = api.append(&caller, subject, &event, Some(key)).await?;
    if !is_new {
        require_same(&api, event, id).await?;
    }
    let session = show::Session::of(&find(&api, id).await?);
    if !is_new {
        return Ok(Json(session).into_response());
    }
    let mut response = (StatusCode::CREATED, Json(session)).into_response();
    if let Ok(location) = HeaderValue::try_from(format!("/v1/sessions/{id}")) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

/// Refuses a request that differs from the one the key stands for.
async fn require_same(api: &Api, event: Event, id: Uuid) -> Result<(), Problem> {
    let Event::SessionRequested(request) = event else { return Err(Problem::internal()) };
    let stored = read_request(api, &request.source, id).await?.ok_or_else(Problem::internal)?;
    let is_same = as_stored(&request).is_some_and(|request| request == stored.state.request);
    if is_same { Ok(()) } else { Err(Problem::key_reused()) }
}

/// The request as it comes back from the log: a number may lose digits on the way.
fn as_stored(request: &SessionRequested) -> Option<SessionRequested> {
    serde_json::from_slice(&serde_json::to_vec(request).ok()?).ok()
}

/// Reads a body.
fn read(mut fields: Fields, config: &Config, key: &str) -> Result<SessionRequested, Problem> {
    let source = fields.required_source(config);
    let request = SessionRequested {
        session: session_id(&source, key),
        source,
        account: account(&mut fields),
        name: fields.required_text("name", MAX_NAME),
        live_stream: fields.integer("live_stream_id", 1..=i64::MAX).map(LiveStreamId),
        options: SessionOptions {
            record: fields.flag("record", true),
            auto_go_live: fields.flag("auto_go_live", false),
            dvr: fields.flag("dvr", false),
            transcoding_region: fields.text("transcoding_region", 63),
            quality_set_id: fields.integer("quality_set_id", 1..=i64::MAX),
            client_user_id: fields.integer("client_user_id", 0..=i64::MAX),
            data: data(&mut fields),
        },
    };
    fields.finish()?;
    Ok(request)
}

fn account(fields: &mut Fields) -> Option<String> {
    let account = fields.text("account", 200)?;
    if !is_account_id(&account) {
        fields
            .wrong("account", "must be printable ASCII characters other than blank, /, ?, # and %");
    }
    Some(account)
}

fn data(fields: &mut Fields) -> Option<Value> {
    let data = fields.json("data")?;
    let length = data.to_string().len();
    if length > MAX_DATA {
        fields.wrong("data", format!("must be at most {MAX_DATA} bytes of JSON, and has {length}"));
    }
    Some(data)
}
