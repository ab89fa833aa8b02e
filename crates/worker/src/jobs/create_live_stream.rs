//! Creates a live stream, inactive, with our ownership tag. Never twice for one session: the
//! platform has no idempotency keys, so every start but the first looks for the tag, and so does
//! the first one where an earlier call was given up without knowing whether it had its effect.

use domain::call::CallResult;
use domain::event::SessionOptions;
use domain::ids::{LiveStreamId, Subject};
use domain::webhook::Tag;
use platform::wire::{NewStream, Stream};
use uuid::Uuid;

use super::{CallContext, JobError};

/// Looks, creates, seals the push addresses, and tells what was made.
pub(super) async fn run(
    call: &CallContext<'_>,
    name: String,
    options: SessionOptions,
    earlier: &[Uuid],
    only_look: bool,
) -> Result<CallResult, JobError> {
    let tag = Tag::new(call.ctx.store().installation(), call.intent, options.data.clone());
    let must_look = call.must_look_first() || !earlier.is_empty();
    let found = if must_look { find(call, &tag, earlier).await? } else { None };
    let stream = match found {
        // Nobody needs its addresses.
        Some(stream) if only_look => {
            return Ok(CallResult::LiveStream { observed: stream.observed() });
        }
        Some(stream) => stream,
        None if only_look => return Ok(CallResult::Gone),
        None => call.platform.create_stream(&new_stream(name, &options, &tag)).await?,
    };
    seal(call, &stream).await?;
    Ok(CallResult::LiveStream { observed: stream.observed() })
}

/// The live stream that an earlier start made, of this call or of an `earlier` one.
async fn find(
    call: &CallContext<'_>,
    tag: &Tag,
    earlier: &[Uuid],
) -> Result<Option<Stream>, JobError> {
    let ours = |stream: &Stream| {
        let found = stream.client_entity_data.as_deref().and_then(Tag::read);
        found.is_some_and(|t| {
            t.installation == tag.installation && (t.key == tag.key || earlier.contains(&t.key))
        })
    };
    let streams = call.platform.streams().matching(ours).await?;
    // Of several, the oldest: every process adopts the same.
    Ok(streams.into_iter().min_by_key(|stream| stream.id))
}

fn new_stream(name: String, options: &SessionOptions, tag: &Tag) -> NewStream {
    NewStream {
        name,
        // An active live stream counts against the quota: it is activated when its session is.
        active: Some(false),
        auto_record: Some(false),
        dvr_enabled: Some(options.dvr),
        quality_set_id: options.quality_set_id,
        client_user_id: options.client_user_id,
        client_entity_data: Some(tag.text()),
        transcoding_region: options.transcoding_region.clone(),
        ..NewStream::default()
    }
}

/// Seals the push addresses for the API to hand out: they never enter the log.
pub(super) async fn seal(call: &CallContext<'_>, stream: &Stream) -> Result<(), JobError> {
    let credentials = stream.ingest_credentials();
    if credentials.is_empty() {
        return Ok(());
    }
    let subject = Subject::live_stream(call.job.subject.source(), LiveStreamId(stream.id));
    let secret = credentials.expose().to_string();
    call.ctx.store().seal(call.ctx.sealing_key(), &subject, secret.as_bytes()).await?;
    Ok(())
}
