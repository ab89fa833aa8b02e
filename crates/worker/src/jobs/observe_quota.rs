//! Asks which live streams of an account are active: they are what takes its slots.
//!
//! Pages are read to the empty one. A list proves no absence, so those that somebody holds a slot for
//! and the list does not show active are asked for one by one.

use std::collections::BTreeSet;

use domain::call::CallResult;
use domain::ids::LiveStreamId;

use super::{CallContext, JobError};

/// Asks. A live stream that is gone is inactive.
pub(super) async fn run(
    call: &CallContext<'_>,
    check: &[LiveStreamId],
) -> Result<CallResult, JobError> {
    let mut active = BTreeSet::new();
    let mut pages = call.platform.streams();
    while let Some(page) = pages.next_page().await? {
        let is_active = page.iter().filter(|stream| stream.active == Some(true));
        active.extend(is_active.map(|stream| LiveStreamId(stream.id)));
    }
    let mut inactive = Vec::new();
    for id in check {
        if active.contains(id) {
            continue;
        }
        match is_active(call, *id).await? {
            Some(true) => {
                active.insert(*id);
            }
            Some(false) => inactive.push(*id),
            None => {}
        }
    }
    Ok(CallResult::ActiveStreams { active: active.into_iter().collect(), inactive })
}

/// Whether a live stream is active; `None`: the platform does not say.
async fn is_active(call: &CallContext<'_>, id: LiveStreamId) -> Result<Option<bool>, JobError> {
    match call.platform.get_stream(id.0).await {
        Ok(stream) => Ok(stream.active),
        Err(error) if error.is_not_found() && call.believes_not_found() => Ok(Some(false)),
        Err(error) => Err(error.into()),
    }
}
