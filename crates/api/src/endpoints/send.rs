//! Sending to one endpoint on request: a test, or messages once more.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use domain::ids::Timestamp;
use domain::message::MessageId;
use serde::Serialize;
use store::{Again, Delivery, Resent};
use uuid::Uuid;

use super::{find, id};
use crate::Api;
use crate::error::Problem;
use crate::extract::{Body, Params, Segment};

/// A test on its way.
#[derive(Debug, Serialize)]
pub(super) struct Tested {
    /// The job that sends it, which tells how it went.
    job: Uuid,
}

/// Messages on their way once more.
#[derive(Debug, Serialize)]
pub(super) struct Redelivered {
    /// How many are sent, or would be.
    messages: u64,
    /// There are more: ask again with this as `since`.
    next_since: Option<Timestamp>,
}

/// Longest list of deliveries.
const MAX_DELIVERIES: i64 = 500;

/// The latest deliveries to an endpoint.
#[derive(Debug, Serialize)]
pub(super) struct Deliveries {
    deliveries: Vec<Delivery>,
}

/// Lists what waits for an endpoint, what was given up, and what is kept of what has ended.
pub(super) async fn deliveries(
    State(api): State<Api>,
    segment: Segment,
    Params(mut fields): Params,
) -> Result<Json<Deliveries>, Problem> {
    let undelivered = match fields.text("undelivered", 5).as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => {
            fields.wrong("undelivered", "must be true or false");
            false
        }
    };
    let limit = fields.integer("limit", 1..=MAX_DELIVERIES).unwrap_or(100);
    fields.finish()?;
    let endpoint = find(&api, id(&segment)?).await?.id;
    let deliveries = api.store().deliveries(endpoint, undelivered, limit).await?;
    Ok(Json(Deliveries { deliveries }))
}

/// Sends a message that only tries the endpoint, also a disabled one.
pub(super) async fn test(
    State(api): State<Api>,
    segment: Segment,
) -> Result<(StatusCode, Json<Tested>), Problem> {
    let endpoint = find(&api, id(&segment)?).await?.id;
    let (job, slice) = api.store().test_endpoint(endpoint, api.now()).await?;
    api.0.notifier.enqueued(slice);
    Ok((StatusCode::ACCEPTED, Json(Tested { job })))
}

/// Sends one message again, or all that the endpoint hears since a time.
pub(super) async fn redeliver(
    State(api): State<Api>,
    segment: Segment,
    Body(mut fields): Body,
) -> Result<(StatusCode, Json<Redelivered>), Problem> {
    let message = fields.text("message", 100);
    let (since, until) = (fields.time("since"), fields.time("until"));
    let dry_run = fields.flag("dry_run", false);
    let again = match (message.as_deref().map(MessageId::read), since) {
        (Some(Some(id)), None) => Some(Again::Message(id)),
        (None, Some(since)) => Some(Again::Since { since, until }),
        (Some(None), _) => {
            fields.wrong("message", "is no id of a message, such as evt_11_5021_9f3a2c1b");
            None
        }
        (Some(Some(_)), Some(_)) | (None, None) => {
            fields.wrong("message", "or `since` is needed, and not both");
            None
        }
    };
    fields.finish()?;
    let Some(again) = again else { return Err(Problem::internal()) };
    let endpoint = find(&api, id(&segment)?).await?;
    if endpoint.disabled.is_some() && !dry_run {
        return Err(Problem::conflict("endpoint-disabled", "enable the endpoint first"));
    }
    let resent = api.store().resend(&endpoint, again, dry_run).await?;
    let Some(Resent { messages, next_since, slices }) = resent else {
        return Err(Problem::not_found("message"));
    };
    for slice in slices {
        api.0.notifier.enqueued(slice);
    }
    Ok((StatusCode::ACCEPTED, Json(Redelivered { messages, next_since })))
}
