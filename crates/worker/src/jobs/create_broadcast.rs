//! Creates a broadcast bound to a live stream, pending. Broadcasts have no opaque field, so a
//! suffix of the name, made from the intent, tells ours; every start but the first looks for it.

use domain::call::CallResult;
use domain::ids::LiveStreamId;
use platform::wire::{Broadcast, BroadcastStatus, NewBroadcast};
use uuid::Uuid;

use super::{CallContext, JobError};

/// Looks, creates, and tells what was made. The answer's body may be empty: then it is looked up.
pub(super) async fn run(
    call: &CallContext<'_>,
    live_stream: LiveStreamId,
    name: &str,
    earlier: &[Uuid],
    only_look: bool,
) -> Result<CallResult, JobError> {
    let own = suffix(call.intent);
    let suffixes: Vec<String> =
        earlier.iter().map(|intent| suffix(*intent)).chain([own.clone()]).collect();
    if (call.must_look_first() || !earlier.is_empty())
        && let Some(found) = find(call, live_stream, &suffixes).await?
    {
        return Ok(CallResult::Broadcast { observed: found.observed() });
    }
    if only_look {
        return Ok(CallResult::Gone);
    }
    let new = NewBroadcast {
        name: format!("{name}{own}"),
        status: BroadcastStatus::Pending,
        stream_ids: vec![live_stream.0],
        pending_message: None,
        show_dvr_after_finish: None,
        player_id: None,
    };
    let made = call.platform.create_broadcast(&new).await?;
    if made.id.is_some() {
        return Ok(CallResult::Broadcast { observed: made.observed() });
    }
    let found = find(call, live_stream, &suffixes).await?;
    let found = found.ok_or_else(|| {
        JobError::retry("the platform accepted the broadcast and does not list it yet")
    })?;
    Ok(CallResult::Broadcast { observed: found.observed() })
}

/// What the name of a call's broadcast ends with.
fn suffix(intent: Uuid) -> String {
    format!(" [{}]", &intent.simple().to_string()[..8])
}

/// The broadcast that an earlier start made, of this call or of an earlier one.
async fn find(
    call: &CallContext<'_>,
    live_stream: LiveStreamId,
    suffixes: &[String],
) -> Result<Option<Broadcast>, JobError> {
    let ours = |broadcast: &Broadcast| {
        let named = broadcast
            .name
            .as_deref()
            .is_some_and(|name| suffixes.iter().any(|suffix| name.ends_with(suffix)));
        let bound = broadcast.stream_ids.as_ref().is_none_or(|ids| ids.contains(&live_stream.0));
        named && bound && broadcast.id.is_some()
    };
    let broadcasts = call.platform.broadcasts().matching(ours).await?;
    Ok(broadcasts.into_iter().min_by_key(|broadcast| broadcast.id))
}
