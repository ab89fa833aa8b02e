//! Outcomes that belong to another slice than their job: a job with a limit key lies in the slice
//! of that key, and its subject may lie in another one. A transaction stays on one slice, so such
//! an outcome becomes a forward in the transaction that ends the job: appended once, a little later.

use domain::effect::ForwardArgs;
use domain::event::{Meta, NewEvent};
use domain::ids::derived_id;
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::Error;

/// A forward to be: its id, subject and arguments.
pub(crate) type Forward = (Uuid, String, Value);

/// The forward that appends an event to the slice of its subject.
///
/// # Errors
/// [`Error::Data`] for a body that is no JSON, which no outcome has.
pub(crate) fn forward(event: &NewEvent) -> Result<Forward, Error> {
    let refused = |reason: String| Error::Data { source: sqlx::Error::InvalidArgument(reason) };
    let payload = serde_json::from_slice(&event.payload)
        .map_err(|error| refused(format!("an event for another slice is no JSON: {error}")))?;
    let key = event.key.unwrap_or(event.event_id);
    let args = ForwardArgs {
        subject: event.subject.clone(),
        event_type: event.event_type.clone(),
        schema_version: event.schema_version,
        key,
        received_at: event.received_at,
        causation_id: event.causation_id,
        correlation_id: event.correlation_id,
        payload,
        cause_at: None,
        trace: event.meta.as_ref().and_then(Meta::trace),
    };
    let args = serde_json::to_value(args).map_err(|error| refused(error.to_string()))?;
    Ok((derived_id("forward-outcome", &[&key.to_string()]), event.subject.to_string(), args))
}

/// Inserts forwards into the slice of the jobs that ended, due at once.
pub(super) async fn insert(
    connection: &mut PgConnection,
    slice: i16,
    forwards: Vec<Forward>,
) -> Result<(), Error> {
    if forwards.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = forwards.iter().map(|(id, _, _)| *id).collect();
    let subjects: Vec<String> = forwards.iter().map(|(_, subject, _)| subject.clone()).collect();
    let args: Vec<Value> = forwards.into_iter().map(|(_, _, args)| args).collect();
    sqlx::query!(
        "INSERT INTO tallylight.job (slice, id, subject, args, kind, queue, max_attempts)
         SELECT $1, u.*, 'forward', 'platform', 2147483647
           FROM unnest($2::uuid[], $3::text[], $4::jsonb[]) AS u ON CONFLICT DO NOTHING",
        slice,
        &ids,
        &subjects,
        &args,
    )
    .execute(connection)
    .await?;
    Ok(())
}
