//! A job that is due when its children have ended: `POST /v1/jobs:parent`, all or none.

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use serde::Serialize;
use store::{OnCancel, OnFailure, Ties};
use uuid::Uuid;

use super::{batch, choice, refused};
use crate::Api;
use crate::auth::needs;
use crate::error::Problem;
use crate::extract::{BatchBody, IdempotencyKey, Traceparent, allow_batch};
use crate::token::Scope;

/// What a child that fails may come to.
const ON_FAILURE: [(&str, OnFailure); 3] =
    [("run", OnFailure::Run), ("cancel", OnFailure::Cancel), ("wait", OnFailure::Wait)];

/// What may become of children whose parent is cancelled.
const ON_CANCEL: [(&str, OnCancel); 2] = [("cancel", OnCancel::Cancel), ("keep", OnCancel::Keep)];

/// The routes, for an API with this body limit of single jobs.
pub(crate) fn routes(body_limit: usize) -> Router<Api> {
    let parent = post(enqueue).layer(allow_batch(body_limit));
    Router::new().route("/v1/jobs:parent", needs(Scope::JobsWrite, parent))
}

/// What became of a parent.
#[derive(Debug, Serialize)]
struct Family {
    /// The parent, or the job that has its key; none where it was ignored.
    id: Option<Uuid>,
    /// Whether it was added now.
    is_new: bool,
    /// Their ids, in the order of the request; none where the parent was there already.
    children: Vec<Uuid>,
}

async fn enqueue(
    State(api): State<Api>,
    IdempotencyKey(header): IdempotencyKey,
    trace: Traceparent,
    BatchBody(mut fields): BatchBody,
) -> Result<(StatusCode, Json<Family>), Problem> {
    let mut parent = batch::plain(&api, &mut fields);
    let children = batch::jobs(&api, &mut fields, "children");
    let ties = Ties {
        on_failure: choice(&mut fields, "on_child_failure", &ON_FAILURE).unwrap_or_default(),
        on_cancel: choice(&mut fields, "on_cancel", &ON_CANCEL).unwrap_or_default(),
    };
    if header.is_some() && parent.options.key.is_some() && header != parent.options.key {
        fields.wrong("key", "is not the Idempotency-Key: send one of them");
    }
    parent.options.key = header.or(parent.options.key);
    let trace = trace.or_of(&mut fields);
    fields.finish()?;
    let children = children?;
    let enqueued = api.store().enqueue_parent(&parent, &children, ties, trace.as_deref()).await;
    let (parent, ids) = enqueued.map_err(|error| refused("children", error))?;
    batch::wake(&api, children.into_iter().zip(ids.iter().copied().map(Some)));
    let family = Family { id: parent.id, is_new: parent.is_new, children: ids };
    Ok((StatusCode::CREATED, Json(family)))
}
