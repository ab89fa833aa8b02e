//! Accounts of the product: that one was deleted, and that its data shall be erased. What becomes of
//! the live streams of a deleted one is decided by the cleanup.

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{delete, post};
use axum::{Extension, Json, Router};
use domain::event::{AccountDeleted, Event};
use domain::ids::{Subject, derived_id, is_account_id};
use serde::Serialize;
use serde_json::json;
use store::Error;

use crate::Api;
use crate::auth::{Caller, needs};
use crate::error::Problem;
use crate::extract::{OptionalBody, Segment};
use crate::fields::Fields;
use crate::token::Scope;

/// The routes.
pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/accounts/{id}/deleted", needs(Scope::AccountsWrite, post(deleted)))
        .route("/v1/accounts/{id}/data", needs(Scope::AccountsErase, delete(erase)))
}

/// What was accepted.
#[derive(Debug, Serialize)]
struct Noted {
    account: String,
    sources: Vec<String>,
    accepted: bool,
}

/// What was erased.
#[derive(Debug, Serialize)]
struct Forgotten {
    account: String,
    /// Whether something was held, and is not any more.
    erased: bool,
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
    check(&account, &mut fields);
    fields.finish()?;
    let sources = source.map_or_else(|| api.config().sources.clone(), |source| vec![source]);
    let pseudonym = api.account_key(&account).await?.pseudonym().to_string();
    for source in &sources {
        let event = Event::AccountDeleted(AccountDeleted { account: pseudonym.clone() });
        let key = derived_id("account-deleted", &[source, &pseudonym]);
        api.append(&caller, Subject::account(source, &pseudonym), &event, Some(key)).await?;
    }
    Ok((StatusCode::ACCEPTED, Json(Noted { account, sources, accepted: true })))
}

/// Erases what is held of an account. Doing it again changes nothing.
async fn erase(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Segment(account): Segment,
    OptionalBody(mut fields): OptionalBody,
) -> Result<Json<Forgotten>, Problem> {
    check(&account, &mut fields);
    fields.finish()?;
    let sources = &api.config().sources;
    let meta = json!({ "token": caller.name() });
    let erased = match api.store().erase_account(&account, sources, api.now(), &meta).await {
        Ok(erased) => erased,
        Err(error @ Error::SessionsRun { .. }) => {
            return Err(Problem::conflict("sessions-run", error.to_string()));
        }
        Err(error) => return Err(error.into()),
    };
    for source in sources {
        if let Some(erased) = &erased {
            let subject = Subject::account(source, &erased.pseudonym.to_string());
            api.0.notifier.moved(api.store().slice_of(&subject));
        }
    }
    Ok(Json(Forgotten { account, erased: erased.is_some() }))
}

/// Refuses what cannot be an account's id.
fn check(account: &str, fields: &mut Fields) {
    if !is_account_id(account) {
        fields.wrong(
            "id",
            "must be 1 to 200 printable ASCII characters other than blank, /, ?, # and %",
        );
    }
}
