//! Creates a broadcast bound to a live stream, pending. Broadcasts have no opaque field, so a
//! suffix of the name, made from the intent, tells ours; every start but the first looks for it.

use domain::call::CallResult;
use domain::ids::LiveStreamId;
use platform::wire::{Broadcast, BroadcastStatus, NewBroadcast};
use uuid::Uuid;

use super::{CallContext, JobError};

/// Digits of the intent in a name.
const SUFFIX: usize = 8;

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
    format!(" [{}]", &intent.simple().to_string()[..SUFFIX])
}

/// Whether a broadcast is named as ours are, and shows this live stream and no other.
pub(super) fn is_ours_alone(broadcast: &Broadcast, live_stream: LiveStreamId) -> bool {
    let suffix =
        broadcast.name.as_deref().and_then(|name| name.strip_suffix(']')?.rsplit_once(" ["));
    let is_suffix =
        |text: &str| text.len() == SUFFIX && text.bytes().all(|b| b.is_ascii_hexdigit());
    let named = suffix.is_some_and(|(_, text)| is_suffix(text));
    named && broadcast.stream_ids.as_deref() == Some(&[live_stream.0])
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_is_named_as_ours_and_shows_one_live_stream_is_ours_alone() {
        let ours = format!("Algebra [1] {}", suffix(Uuid::from_u128(7)).trim_start());
        let of = |name: &str, streams: &[i64]| {
            let told = json!({"id": 3, "name": name, "stream_ids": streams});
            serde_json::from_value::<Broadcast>(told).unwrap()
        };
        let is_ours = |broadcast| is_ours_alone(&broadcast, LiveStreamId(1));
        assert!(is_ours(of(&ours, &[1])));
        for (name, streams) in [
            (ours.as_str(), [1, 2].as_slice()),
            (&ours, &[2]),
            (&ours, &[]),
            ("Algebra", &[1]),
            ("Algebra [2026]", &[1]),
            ("Algebra [semester]", &[1]),
            ("[0000000g]", &[1]),
        ] {
            assert!(!is_ours(of(name, streams)), "{name} {streams:?}");
        }
        let untold = serde_json::from_value(json!({"id": 3, "name": ours})).unwrap();
        assert!(!is_ours(untold), "of no live stream that is told");
    }
}
