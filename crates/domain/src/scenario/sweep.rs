//! A sweep of a scenario: what the worker's job does, without calls.

use std::collections::BTreeMap;

use super::Platform;
use crate::ids::{Subject, Timestamp};
use crate::live_stream::LiveStream;
use crate::reconcile::{SeenOtherwise, Signs, Swept, Tier, VideoSigns};
use crate::state::{Body, State};
use crate::timer::Policy;
use crate::webhook;

/// What a sweep at `now` sees otherwise.
pub(super) fn hints(
    states: &BTreeMap<Subject, State>,
    platform: &Platform,
    policy: &Policy,
    swept: Swept,
    now: Timestamp,
) -> Vec<(Subject, SeenOtherwise)> {
    let mut hints = Vec::new();
    for (subject, state) in states {
        let Body::LiveStream(stream) = &state.body else { continue };
        let is_due = |tier: Tier| swept.is_due(policy, tier, waits_since(stream), now);
        if stream.tier().is_some_and(is_due)
            && let Some(seen) = stream.compare(look(stream, platform))
        {
            hints.push((subject.clone(), seen));
        }
    }
    hints
}

/// Whether a sweep would look at anything.
pub(super) fn is_wanted(states: &BTreeMap<Subject, State>) -> bool {
    let streams = states.values().filter_map(|state| match &state.body {
        Body::LiveStream(stream) => Some(stream),
        Body::Request(_) | Body::Video(_) | Body::Broadcast(_) | Body::Account(_) => None,
    });
    streams.into_iter().any(|stream| stream.tier().is_some())
}

/// When the first session that is not over came to where it stands.
fn waits_since(stream: &LiveStream) -> Timestamp {
    let open = stream.sessions.iter().find(|session| !session.is_over());
    open.and_then(|session| session.moments.last()).map_or(Timestamp::UNIX_EPOCH, |m| m.at)
}

fn look(stream: &LiveStream, platform: &Platform) -> SeenOtherwise {
    let told = platform.stream(stream.id.0);
    let video = |id| match platform.video(id).and_then(webhook::video) {
        Some(seen) => VideoSigns::of(&seen),
        None => VideoSigns::missing(id),
    };
    SeenOtherwise {
        missing: told.is_none(),
        signs: told.map(|told| Signs::of(&webhook::live_stream(&told))),
        videos: stream.awaited_videos().map(video).collect(),
    }
}
