//! One message to one endpoint, signed by the Standard Webhooks specification. Tried again by the
//! specification's schedule until it is accepted; then given up, and kept as a dead letter.
//!
//! Repeating it sends the same id and the same body, with a new time and so a new signature. 2xx
//! accepts, 410 disables the endpoint, and everything else is a failure. The body is made from the
//! log at each try: an account that was erased meanwhile is told no more. Not its job: who hears
//! what, which the reaction has decided.

use std::time::Duration;

use domain::announcement::{Announcement, EndpointNews};
use domain::endpoint::{self, DeliverArgs, Told};
use domain::event::{Event, NewEvent, RecordedEvent};
use domain::ids::{Subject, derived_id};
use domain::message::Message;
use platform::Disposition;
use platform::outbound::{Body, HeaderText, OutboundCall, OutboundError};
use serde_json::Value;
use store::{Keyring, Receiver};
use uuid::Uuid;

use super::{Done, JobError};
use crate::calls::{self, Destination};
use crate::claimed::ClaimedJob;
use crate::context::Context;
use crate::leases::chain;

/// Its name.
pub(super) const KIND: &str = endpoint::DELIVER;

/// Time of one exchange; senders wait 15 to 30 s by the specification.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Wait where the endpoint has as many messages on their way as it may.
const CROWDED: Duration = Duration::from_millis(500);

/// The answer of an endpoint that wants no messages any more.
const GONE: u16 = 410;

/// Waits after the failures: 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h; three days in all.
const SCHEDULE: [Duration; 9] = [
    Duration::from_secs(5),
    Duration::from_mins(5),
    Duration::from_mins(30),
    Duration::from_hours(2),
    Duration::from_hours(5),
    Duration::from_hours(10),
    Duration::from_hours(14),
    Duration::from_hours(20),
    Duration::from_hours(24),
];

/// Sends the message.
pub(super) async fn run(ctx: &Context, job: &ClaimedJob) -> Result<Done, JobError> {
    let args: DeliverArgs = serde_json::from_value(job.args.clone())
        .map_err(|error| JobError::fail(format!("its arguments are wrong: {error}")))?;
    let is_test = matches!(args.message, Told::Test(_));
    let receiver = ctx.store().receiver(ctx.sealing_key(), args.endpoint).await?;
    // An endpoint is tried while it is disabled, to see whether it may be enabled.
    let Some(receiver) = receiver.filter(|receiver| is_test || !receiver.is_disabled) else {
        ctx.metrics().webhooks.ended("dropped");
        return Ok(Done::Quiet);
    };
    let message = message(ctx, job, &args).await?;
    let Some(_place) = ctx.deliveries().take(args.endpoint) else {
        let reason = "as many messages as may be are on their way to the endpoint".to_owned();
        return Err(JobError::Snooze { after: CROWDED, reason });
    };
    match send(ctx, job, args.endpoint, &receiver, &message).await? {
        Ok(()) => {
            ctx.metrics().webhooks.ended("accepted");
            if receiver.is_failing {
                ctx.store().endpoint_accepted(args.endpoint).await?;
            }
            Ok(Done::Quiet)
        }
        Err(error) => {
            ctx.metrics().webhooks.ended("failed");
            if is_test {
                return Err(JobError::fail(chain(&error)));
            }
            Err(failed(ctx, job, args.endpoint, &error).await?)
        }
    }
}

/// The message, its personal values in the open.
async fn message(ctx: &Context, job: &ClaimedJob, args: &DeliverArgs) -> Result<Message, JobError> {
    let (slice, position) = match args.message {
        Told::At(slice, position) => (slice, position),
        Told::Test(at) => return Ok(Message::test(args.endpoint, job.id, at)),
    };
    let missing = || JobError::fail(format!("no announcement is at {slice}:{position} of the log"));
    let mut stored = ctx.store().read_event(slice, position).await?.ok_or_else(missing)?;
    open(ctx, &mut stored).await?;
    Message::of(&stored).ok_or_else(missing)
}

/// Opens what is sealed in the body of an event.
async fn open(ctx: &Context, stored: &mut RecordedEvent) -> Result<(), JobError> {
    let Ok(mut body) = serde_json::from_slice::<Value>(&stored.payload) else { return Ok(()) };
    let wanted = Keyring::wanted_by(&body);
    if !wanted.is_empty() {
        ctx.store().keyring(Some(ctx.sealing_key()), &wanted).await?.open(&mut body);
        stored.payload = serde_json::to_vec(&body).unwrap_or_default();
    }
    Ok(())
}

/// Makes the request; the error inside is the endpoint's.
async fn send(
    ctx: &Context,
    job: &ClaimedJob,
    endpoint: Uuid,
    receiver: &Receiver,
    message: &Message,
) -> Result<Result<(), OutboundError>, JobError> {
    let call = request(receiver, message, ctx.now().timestamp());
    let prepared = match ctx.config().endpoints.prepare(call) {
        Ok(prepared) => prepared,
        Err(error) => return Ok(Err(error)),
    };
    let permit = calls::admit(ctx, job, Destination::endpoint(endpoint)).await?;
    match prepared.send(TIMEOUT).await {
        Ok(_) => {
            permit.saw(platform::Sign::Up);
            Ok(Ok(()))
        }
        Err(error) => {
            if let Some(sign) = error.sign() {
                permit.saw(sign);
            }
            Ok(Err(error))
        }
    }
}

/// The request, signed with every secret that is valid.
fn request(receiver: &Receiver, message: &Message, at: i64) -> OutboundCall {
    let body = message.body();
    let sign = |secret: &endpoint::Secret| secret.sign(&message.id, at, &body);
    let signatures: Vec<String> = receiver.secrets.iter().map(sign).collect();
    let header = |name: &str, value: String| (name.to_owned(), HeaderText::Plain(value));
    OutboundCall {
        method: "POST".to_owned(),
        url: receiver.url.clone(),
        headers: vec![
            header("content-type", "application/json".to_owned()),
            header("webhook-id", message.id.clone()),
            header("webhook-timestamp", at.to_string()),
            header("webhook-signature", signatures.join(" ")),
        ],
        body: Some(Body::Text(body)),
        expect: Vec::new(),
    }
}

/// What a failure means for the message, and for its endpoint.
async fn failed(
    ctx: &Context,
    job: &ClaimedJob,
    endpoint: Uuid,
    error: &OutboundError,
) -> Result<JobError, JobError> {
    let reason = chain(error);
    let failing = ctx.store().endpoint_failed(endpoint, &reason).await?;
    let Some(failing) = failing else { return Ok(JobError::fail(reason)) };
    let limit = ctx.config().disable_endpoints_after;
    let why = if error.status() == Some(GONE) {
        Some("it answered 410 Gone".to_owned())
    } else if limit.is_some_and(|limit| failing.since >= limit) {
        let days = failing.since.as_secs() / 86_400;
        Some(format!("it has accepted nothing for {days} days: {reason}"))
    } else {
        None
    };
    if let Some(why) = why {
        disable(ctx, endpoint, failing.version, why).await?;
        return Ok(JobError::fail(reason));
    }
    let asked = match error.disposition() {
        Disposition::Retry { after } => after,
        Disposition::Done
        | Disposition::Wait { .. }
        | Disposition::Ambiguous
        | Disposition::Refused
        | Disposition::Unauthorized
        | Disposition::Quota
        | Disposition::FeatureMissing => None,
    };
    let after = wait(job.errors, (ctx.config().chance)()).max(asked.unwrap_or_default());
    Ok(JobError::Retry { after: Some(after), reason })
}

/// The wait after a failure, when there were `errors` before it: a little less than the schedule's,
/// by chance, so that what failed together returns apart.
fn wait(errors: i32, chance: f64) -> Duration {
    let nth = usize::try_from(errors).unwrap_or_default();
    SCHEDULE[nth.min(SCHEDULE.len() - 1)].mul_f64(1.0 - chance.clamp(0.0, 1.0) / 10.0)
}

/// Disables an endpoint, and says so: once for each of its versions, whoever disables it. It is said
/// first, so that a process that dies in between leaves no silence.
async fn disable(
    ctx: &Context,
    endpoint: Uuid,
    version: i64,
    reason: String,
) -> Result<(), JobError> {
    let subject = Subject::endpoint(endpoint);
    let slice = ctx.store().slice_of(&subject);
    let key = derived_id("endpoint-disabled", &[&endpoint.to_string(), &version.to_string()]);
    let news = EndpointNews { endpoint, reason: reason.clone() };
    let event = Event::Announced(Announcement::EndpointDisabled(news));
    let event = NewEvent::new(subject, &event, ctx.now(), key).with_key(key);
    ctx.store().append_one(event).await?;
    ctx.events_appended(slice);
    if ctx.store().disable_endpoint(endpoint, version, &reason).await? {
        ctx.metrics().webhooks.disabled.inc();
        tracing::error!(%endpoint, reason, "endpoint disabled: nothing is sent there any more");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
