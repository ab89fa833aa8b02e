//! Accounts of the product: that one was deleted. What becomes of its live streams is decided by
//! the cleanup.

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Extension, Json, Router};
use domain::event::{AccountDeleted, Event};
use domain::ids::{Subject, derived_id, is_account_id};
use serde::Serialize;

use crate::Api;
use crate::auth::{Caller, needs};
use crate::error::Problem;
use crate::extract::{OptionalBody, Segment};
use crate::token::Scope;

/// The routes.
pub(crate) fn routes() -> Router<Api> {
    Router::new().route("/v1/accounts/{id}/deleted", needs(Scope::AccountsWrite, post(deleted)))
}

/// What was accepted.
#[derive(Debug, Serialize)]
struct Noted {
    account: String,
    sources: Vec<String>,
    accepted: bool,
}

/// Notes that an account was deleted, on the named source or on every one. Telling it again
/// changes nothing.
async fn deleted(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Segment(account): Segment,
    OptionalBody(mut fields): OptionalBody,
) -> Result<(StatusCode, Json<Noted>), Problem> {
    let source = fields.source(api.config());
    if !is_account_id(&account) {
        fields.wrong(
            "id",
            "must be 1 to 200 printable ASCII characters other than blank, /, ?, # and %",
        );
    }
    fields.finish()?;
    let sources = source.map_or_else(|| api.config().sources.clone(), |source| vec![source]);
    for source in &sources {
        let event = Event::AccountDeleted(AccountDeleted { account: account.clone() });
        let key = derived_id("account-deleted", &[source, &account]);
        api.append(&caller, Subject::account(source, &account), &event, Some(key)).await?;
    }
    Ok((StatusCode::ACCEPTED, Json(Noted { account, sources, accepted: true })))
}
