//! Endpoints: addresses of the product that messages are sent to, registered by its services.
//!
//! A secret is told once, when it is made. Accounts are named by their ids here and by pseudonyms
//! in the database. Sending is the worker's job.

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use domain::endpoint::{Filter, Secret};
use domain::ids::{Timestamp, is_account_id};
use domain::personal::Pseudonym;
use serde::Serialize;
use serde_json::Value;
use store::{AddedEndpoint, EndpointChange, NewEndpoint, SealingKey};
use uuid::Uuid;

use crate::Api;
use crate::auth::needs;
use crate::error::Problem;
use crate::extract::{Body, IdempotencyKey, Segment};
use crate::fields::Fields;
use crate::token::Scope;

mod send;

/// Longest address.
const MAX_URL: usize = 2_048;

/// Longest list of a filter.
const MAX_LIST: usize = 100;

/// The routes.
pub(crate) fn routes() -> Router<Api> {
    let read = |routes| needs(Scope::EndpointsRead, routes);
    let write = |routes| needs(Scope::EndpointsWrite, routes);
    Router::new()
        .route("/v1/endpoints", read(get(list)).merge(write(post(add))))
        .route(
            "/v1/endpoints/{id}",
            read(get(show)).merge(write(axum::routing::patch(change).delete(remove))),
        )
        .route("/v1/endpoints/{id}/rotate", write(post(rotate)))
        .route("/v1/endpoints/{id}/test", write(post(send::test)))
        .route("/v1/endpoints/{id}/deliveries", read(get(send::deliveries)))
        .route("/v1/endpoints/{id}/redeliver", write(post(send::redeliver)))
}

/// An endpoint, for callers.
#[derive(Debug, Serialize)]
struct Endpoint {
    id: Uuid,
    url: String,
    description: Option<String>,
    /// Topics or their beginnings; empty: all.
    types: Vec<String>,
    /// The product's accounts; empty: all.
    accounts: Vec<String>,
    /// Sources; empty: all.
    sources: Vec<String>,
    enabled: bool,
    disabled_at: Option<Timestamp>,
    disabled_reason: Option<String>,
    /// The first failure since the last message that was accepted.
    failing_since: Option<Timestamp>,
    last_error: Option<String>,
    /// Until when the secret before a rotation signs too.
    old_secret_until: Option<Timestamp>,
    made_at: Timestamp,
    changed_at: Timestamp,
}

/// All endpoints.
#[derive(Debug, Serialize)]
struct List {
    endpoints: Vec<Endpoint>,
}

/// An endpoint with its secret, which is told this once.
#[derive(Serialize)]
struct WithSecret {
    #[serde(flatten)]
    endpoint: Endpoint,
    secret: String,
}

async fn list(State(api): State<Api>) -> Result<Json<List>, Problem> {
    let endpoints = api.store().endpoints().await?;
    Ok(Json(List { endpoints: shown(&api, endpoints).await? }))
}

async fn show(State(api): State<Api>, segment: Segment) -> Result<Json<Endpoint>, Problem> {
    Ok(Json(find_shown(&api, id(&segment)?).await?))
}

async fn add(
    State(api): State<Api>,
    IdempotencyKey(once): IdempotencyKey,
    Body(mut fields): Body,
) -> Result<(StatusCode, Json<WithSecret>), Problem> {
    let url = fields.required_text("url", MAX_URL);
    let url = https(&api, &mut fields, url);
    let description = fields.text("description", 255);
    let lists = Lists::read(&mut fields);
    fields.finish()?;
    let filter = Filter {
        types: lists.types.unwrap_or_default(),
        accounts: pseudonyms(&api, lists.accounts.unwrap_or_default()).await?,
        sources: lists.sources.unwrap_or_default(),
    };
    let new = NewEndpoint { url, description, filter };
    let Some(once) = once else {
        let added = api.store().add_endpoint(key(&api)?, &new).await.map_err(refused);
        let (id, secret) = added?;
        return Ok((StatusCode::CREATED, Json(with_secret(&api, id, &secret).await?)));
    };
    let added = api.store().add_endpoint_once(key(&api)?, &new, &once).await.map_err(refused);
    let (status, id, secret) = match added? {
        AddedEndpoint::New(id, secret) => (StatusCode::CREATED, id, secret),
        AddedEndpoint::Again(id, secret) => (StatusCode::OK, id, secret),
        AddedEndpoint::Reused => return Err(Problem::key_reused()),
    };
    Ok((status, Json(with_secret(&api, id, &secret).await?)))
}

async fn change(
    State(api): State<Api>,
    segment: Segment,
    Body(mut fields): Body,
) -> Result<Json<Endpoint>, Problem> {
    let id = id(&segment)?;
    let url = fields.text("url", MAX_URL).map(|url| https(&api, &mut fields, url));
    let description = fields.text("description", 255);
    let enabled = fields.optional_flag("enabled");
    let lists = Lists::read(&mut fields);
    fields.finish()?;
    let accounts = match lists.accounts {
        Some(accounts) => Some(pseudonyms(&api, accounts).await?),
        None => None,
    };
    let (types, sources) = (lists.types, lists.sources);
    let change = EndpointChange { url, description, types, accounts, sources, enabled };
    if !api.store().change_endpoint(id, &change).await.map_err(refused)? {
        return Err(Problem::not_found("endpoint"));
    }
    Ok(Json(find_shown(&api, id).await?))
}

async fn remove(State(api): State<Api>, segment: Segment) -> Result<StatusCode, Problem> {
    if api.store().remove_endpoint(id(&segment)?).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(Problem::not_found("endpoint"))
}

async fn rotate(State(api): State<Api>, segment: Segment) -> Result<Json<WithSecret>, Problem> {
    let id = id(&segment)?;
    let secret = api.store().rotate_secret(key(&api)?, id).await?;
    let secret = secret.ok_or_else(|| Problem::not_found("endpoint"))?;
    Ok(Json(with_secret(&api, id, &secret).await?))
}

async fn with_secret(api: &Api, id: Uuid, secret: &Secret) -> Result<WithSecret, Problem> {
    Ok(WithSecret { endpoint: find_shown(api, id).await?, secret: secret.text() })
}

/// The lists of a filter, as they were sent.
struct Lists {
    types: Option<Vec<String>>,
    accounts: Option<Vec<String>>,
    sources: Option<Vec<String>>,
}

impl Lists {
    fn read(fields: &mut Fields) -> Self {
        let (types, sources) = (texts(fields, "types"), texts(fields, "sources"));
        let accounts = texts(fields, "accounts");
        if accounts.iter().flatten().any(|account| !is_account_id(account)) {
            fields.wrong("accounts", "must be ids of accounts");
        }
        Self { types, accounts, sources }
    }
}

/// A list of texts.
fn texts(fields: &mut Fields, name: &'static str) -> Option<Vec<String>> {
    let text = |item: Value| item.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let value = fields.json(name)?;
    let list = match value {
        Value::Array(items) if items.len() <= MAX_LIST => items.into_iter().map(text).collect(),
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => None,
    };
    if list.is_none() {
        fields.wrong(name, format!("must be a list of up to {MAX_LIST} texts"));
    }
    list
}

/// An address that is sent to over TLS, unless the configuration lets others be.
fn https(api: &Api, fields: &mut Fields, url: String) -> String {
    if !url.is_empty() && !url.starts_with("https://") && !api.config().plain_endpoints {
        fields.wrong("url", "must begin with https://");
    }
    url
}

/// What secrets are sealed with.
fn key(api: &Api) -> Result<&SealingKey, Problem> {
    api.sealing_key().ok_or_else(|| {
        Problem::not_set_up(
            "this installation has no sealing key, so it cannot keep the secret of an endpoint",
        )
    })
}

/// What stands for accounts in the log.
async fn pseudonyms(api: &Api, accounts: Vec<String>) -> Result<Vec<String>, Problem> {
    let mut pseudonyms = Vec::new();
    for account in accounts {
        pseudonyms.push(api.account_key(&account).await?.pseudonym().to_string());
    }
    Ok(pseudonyms)
}

fn id(Segment(text): &Segment) -> Result<Uuid, Problem> {
    Uuid::try_parse(text).map_err(|_| Problem::not_found("endpoint"))
}

async fn find(api: &Api, id: Uuid) -> Result<store::Endpoint, Problem> {
    api.store().endpoint(id).await?.ok_or_else(|| Problem::not_found("endpoint"))
}

async fn find_shown(api: &Api, id: Uuid) -> Result<Endpoint, Problem> {
    let found = find(api, id).await?;
    shown(api, vec![found]).await?.pop().ok_or_else(|| Problem::not_found("endpoint"))
}

/// Endpoints with the ids of their accounts.
async fn shown(api: &Api, endpoints: Vec<store::Endpoint>) -> Result<Vec<Endpoint>, store::Error> {
    let accounts = endpoints.iter().flat_map(|endpoint| &endpoint.filter.accounts);
    let wanted = accounts.filter_map(|account| Pseudonym::read(account)).collect();
    let keyring = api.store().keyring(api.sealing_key(), &wanted).await?;
    let shown = endpoints.into_iter().map(|endpoint| {
        let Filter { types, accounts, sources } = endpoint.filter;
        let (disabled_at, disabled_reason) =
            endpoint.disabled.map(|disabled| (disabled.at, disabled.reason)).unzip();
        Endpoint {
            id: endpoint.id,
            url: endpoint.url,
            description: endpoint.description,
            types,
            accounts: accounts.iter().map(|account| keyring.text(account, None)).collect(),
            sources,
            enabled: disabled_at.is_none(),
            disabled_at,
            disabled_reason,
            failing_since: endpoint.failing_since,
            last_error: endpoint.last_error,
            old_secret_until: endpoint.old_secret_until,
            made_at: endpoint.made_at,
            changed_at: endpoint.changed_at,
        }
    });
    Ok(shown.collect())
}

/// What is refused is the caller's to change, and told in words that were made for him.
fn refused(error: store::Error) -> Problem {
    if let store::Error::Invalid { reason } = error {
        return Problem::invalid_field("endpoint", reason);
    }
    error.into()
}
