//! Starting a session: one `Idempotency-Key` is one session, however often it is sent.

use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use domain::event::{Event, SessionOptions, SessionRequested};
use domain::ids::{LiveStreamId, Subject, derived_id, is_account_id, session_id};
use domain::personal::{ERASED, Sealed};
use domain::region::is_country;
use serde_json::Value;

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
    let names_region = fields.has("transcoding_region");
    let request = read(fields, api.config(), &key.required()?)?;
    let id = request.session;
    // Looked for first: a repeat makes no key anew for an account that was erased since.
    let is_known = read_request(&api, &request.source, id).await?.is_some();
    let is_new = !is_known && append(&api, &caller, request.clone()).await?;
    if !is_new {
        require_same(&api, request, names_region).await?;
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

/// Appends a request, its personal values sealed with the key of its account. Returns whether it was
/// stored now.
async fn append(
    api: &Api,
    caller: &Caller,
    mut request: SessionRequested,
) -> Result<bool, Problem> {
    let id = request.session;
    if let Some(account) = &request.account {
        api.account_key(account).await?.seal_request(&mut request)?;
    }
    let key = derived_id("request", &[&id.to_string()]);
    let subject = Subject::request(&request.source, id);
    Ok(api.append(caller, subject, &Event::SessionRequested(request), Some(key)).await?)
}

/// Refuses a request that differs from the one the key stands for. Of one that was erased only the
/// rest can be compared, and a region that follows from rules may be another since they changed.
async fn require_same(
    api: &Api,
    request: SessionRequested,
    names_region: bool,
) -> Result<(), Problem> {
    let stored = read_request(api, &request.source, request.session).await?;
    let mut stored = stored.ok_or_else(Problem::internal)?.state.request;
    let mut sent = as_stored(&request).ok_or_else(Problem::internal)?;
    if !names_region {
        sent.options.transcoding_region.clone_from(&stored.options.transcoding_region);
    }
    if stored.account.as_deref() == Some(ERASED) {
        for request in [&mut stored, &mut sent] {
            request.account = None;
            request.name.clear();
            request.options.client_user_id = None;
            request.options.data = None;
        }
    }
    if sent == stored { Ok(()) } else { Err(Problem::key_reused()) }
}

/// The request as it comes back from the log: a number may lose digits on the way.
fn as_stored(request: &SessionRequested) -> Option<SessionRequested> {
    serde_json::from_slice(&serde_json::to_vec(request).ok()?).ok()
}

/// Reads a body.
fn read(mut fields: Fields, config: &Config, key: &str) -> Result<SessionRequested, Problem> {
    let source = fields.required_source(config);
    let live_stream = fields.integer("live_stream_id", 1..=i64::MAX).map(LiveStreamId);
    let transcoding_region = region(&mut fields, config, &source, live_stream.is_some());
    let request = SessionRequested {
        session: session_id(&source, key),
        source,
        account: account(&mut fields),
        name: name(&mut fields),
        live_stream,
        options: SessionOptions {
            record: fields.flag("record", true),
            auto_go_live: fields.flag("auto_go_live", false),
            dvr: fields.flag("dvr", false),
            transcoding_region,
            quality_set_id: fields.integer("quality_set_id", 1..=i64::MAX),
            client_user_id: fields.integer("client_user_id", 0..=i64::MAX),
            data: data(&mut fields),
            sealed: None,
        },
    };
    fields.finish()?;
    Ok(request)
}

/// The region that is asked for, else the one that the source's rules have for the user's country.
/// A live stream that is reused keeps its region, unless one of them is told.
fn region(fields: &mut Fields, config: &Config, source: &str, is_reuse: bool) -> Option<String> {
    let asked = fields.text("transcoding_region", 63);
    let country = fields.text("country", 2);
    if country.as_deref().is_some_and(|country| !is_country(country)) {
        fields.wrong("country", "must be two letters by ISO 3166-1, such as DE");
    }
    let rules = config.regions.get(source).filter(|_| !is_reuse || country.is_some());
    asked.or_else(|| rules?.region(country.as_deref()).map(str::to_owned))
}

fn name(fields: &mut Fields) -> String {
    let name = fields.required_text("name", MAX_NAME);
    if Sealed::read(&name).is_some() {
        fields.wrong("name", "looks like a sealed value: choose another");
    }
    name
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
