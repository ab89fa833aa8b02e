//! One HTTP request to another service, as a durable job: made again after what passes, given up
//! after what stays, put off while the service is down or its rate is used up.
//!
//! A second run sends the same request with the same idempotency key, the job's id: an answer that
//! was lost is asked for again, and it is for the other side to do its work once for each key.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::event::RecordedEvent;
use platform::Disposition;
use platform::outbound::{Body, HeaderText, OutboundCall, OutboundError};
use serde::Deserialize;
use serde_json::{Value, json};
use store::Ties;

use super::{Done, JobError};
use crate::calls::{self, Destination};
use crate::claimed::ClaimedJob;
use crate::context::Context;
use crate::leases::chain;
use crate::steps::{Steps, Waited};

/// Its name.
pub(super) const KIND: &str = "http_call";

/// The usual name of the header that carries the key.
const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

/// Time of one exchange, if the job names none.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Time of a run for all but the exchange.
const ASIDE: Duration = Duration::from_secs(5);

/// Arguments of a call.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HttpCall {
    method: String,
    url: String,
    /// Texts, or `{"secret": NAME, "prefix": TEXT}`.
    #[serde(default)]
    headers: BTreeMap<String, Value>,
    /// A text is sent as it is, anything else as JSON.
    body: Option<Value>,
    /// For one exchange.
    timeout_seconds: Option<u64>,
    /// From when the job was enqueued; then it is given up.
    deadline_seconds: Option<u64>,
    /// Statuses that count as success; without them 200 to 299.
    #[serde(default)]
    expect: Vec<u16>,
    /// Another name for the header that carries the key.
    idempotency_header: Option<String>,
    /// What is put into the body, an object, beside what it has.
    #[serde(default)]
    include: Vec<Include>,
}

/// What a call may tell of what its job waited for.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Include {
    /// How its children ended.
    Children,
    /// The event that started it; null where none came in time.
    Event,
}

/// A reference to a secret of the configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SecretRef {
    secret: String,
    #[serde(default)]
    prefix: String,
}

/// Makes the call.
pub(super) async fn run(ctx: &Context, job: &ClaimedJob) -> Result<Done, JobError> {
    let args: HttpCall = serde_json::from_value(job.args.clone())
        .map_err(|error| JobError::fail(format!("its arguments are wrong: {error}")))?;
    let args = included(ctx, job, args).await?;
    let timeout = timeout(ctx, &args)?;
    let left = time_left(ctx, job, args.deadline_seconds).await?;
    let prepared =
        ctx.config().outbound.prepare(outbound(job, args)?).map_err(|error| failed(&error))?;
    let destination = Destination::place(ctx, prepared.place(), prepared.host());
    let permit = calls::admit(ctx, job, destination).await.map_err(|error| until(error, left))?;
    match prepared.send(timeout.min(left)).await {
        Ok(reply) => {
            permit.saw(platform::Sign::Up);
            Ok(Done::Value(json!({
                "status": reply.status, "body": reply.body, "is_cut": reply.is_cut,
            })))
        }
        Err(error) => {
            if let Some(sign) = error.sign() {
                permit.saw(sign);
            }
            Err(failed(&error))
        }
    }
}

/// The arguments with what their body is to include.
async fn included(
    ctx: &Context,
    job: &ClaimedJob,
    mut args: HttpCall,
) -> Result<HttpCall, JobError> {
    if args.include.is_empty() {
        return Ok(args);
    }
    let steps = Steps::of(ctx, job);
    let Value::Object(body) = args.body.get_or_insert_with(|| json!({})) else {
        return Err(JobError::fail("include needs a body that is a JSON object, or none"));
    };
    for what in &args.include {
        match what {
            Include::Children => {
                let children = steps.children("children", Vec::new, Ties::default()).await?;
                body.insert("children".to_owned(), json!(children));
            }
            Include::Event => {
                let event = match steps.started_by().await? {
                    Some(Waited::Event(event)) => told(&event),
                    Some(Waited::TimedOut) | None => Value::Null,
                };
                body.insert("event".to_owned(), event);
            }
        }
    }
    Ok(args)
}

/// An event as a call tells it.
fn told(event: &RecordedEvent) -> Value {
    json!({
        "subject": event.subject,
        "type": event.event_type,
        "id": event.event_id,
        "slice": event.slice,
        "position": event.position,
        "payload": serde_json::from_slice::<Value>(&event.payload).ok(),
    })
}

/// What a failed call means for its job.
fn failed(error: &OutboundError) -> JobError {
    let reason = chain(error);
    match error.disposition() {
        Disposition::Retry { after } => JobError::Retry { after, reason },
        Disposition::Done
        | Disposition::Wait { .. }
        | Disposition::Ambiguous
        | Disposition::Refused
        | Disposition::Unauthorized
        | Disposition::Quota
        | Disposition::FeatureMissing => JobError::Fail { reason },
    }
}

/// The time of one exchange, which must fit into a run.
fn timeout(ctx: &Context, args: &HttpCall) -> Result<Duration, JobError> {
    let most = ctx.config().job_timeout.saturating_sub(ASIDE);
    match args.timeout_seconds.map(Duration::from_secs) {
        None => Ok(TIMEOUT.min(most)),
        Some(given) if !given.is_zero() && given <= most => Ok(given),
        Some(_) => Err(JobError::fail(format!("timeout_seconds must be 1 to {}", most.as_secs()))),
    }
}

/// The time until the deadline, by the database's clock, which also dated the job.
async fn time_left(
    ctx: &Context,
    job: &ClaimedJob,
    deadline: Option<u64>,
) -> Result<Duration, JobError> {
    let Some(deadline) = deadline.map(Duration::from_secs) else { return Ok(Duration::MAX) };
    let age = ctx.store().job_age(job.slice, job.id).await?.unwrap_or_default();
    match deadline.checked_sub(age).filter(|left| !left.is_zero()) {
        Some(left) => Ok(left),
        None => Err(JobError::fail(format!("its deadline of {} s is over", deadline.as_secs()))),
    }
}

/// A wait that is not longer than the deadline, so that the job is given up in time.
fn until(error: JobError, left: Duration) -> JobError {
    match error {
        JobError::Snooze { after, reason } => JobError::Snooze { after: after.min(left), reason },
        other @ (JobError::Retry { .. }
        | JobError::Wait { .. }
        | JobError::Fail { .. }
        | JobError::Cancel { .. }) => other,
    }
}

/// The call, with its key.
fn outbound(job: &ClaimedJob, args: HttpCall) -> Result<OutboundCall, JobError> {
    let mut headers = Vec::new();
    for (name, value) in args.headers {
        headers.push((name.clone(), header(&name, value)?));
    }
    let only_reads = matches!(args.method.as_str(), "GET" | "HEAD");
    let usual = (!only_reads).then(|| IDEMPOTENCY_KEY.to_owned());
    if let Some(name) = args.idempotency_header.or(usual) {
        headers.push((name, HeaderText::Plain(job.id.to_string())));
    }
    let body = args.body.map(|body| match body {
        Value::String(text) => Body::Text(text),
        json @ (Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::Array(_)
        | Value::Object(_)) => Body::Json(json),
    });
    let (method, url, expect) = (args.method, args.url, args.expect);
    Ok(OutboundCall { method, url, headers, body, expect })
}

fn header(name: &str, value: Value) -> Result<HeaderText, JobError> {
    if let Value::String(text) = value {
        return Ok(HeaderText::Plain(text));
    }
    // Its value is not quoted: somebody may have put the secret itself there.
    let reference: SecretRef = serde_json::from_value(value).map_err(|_| {
        JobError::fail(format!(
            "the header {name} must be a text or {{\"secret\": NAME, \"prefix\": TEXT}}"
        ))
    })?;
    Ok(HeaderText::Secret { name: reference.secret, prefix: reference.prefix })
}

#[cfg(test)]
mod tests;
