//! A sweep of a scenario: what the worker's job does, without calls.

use std::collections::BTreeMap;

use super::{Platform, Scenario};
use crate::event::Event;
use crate::ids::{Subject, Timestamp};
use crate::live_stream::LiveStream;
use crate::reconcile::{BroadcastSigns, SeenOtherwise, Signs, Swept, Tier, VideoSigns, often};
use crate::state::{Body, State};
use crate::timer::Policy;
use crate::webhook;

impl Scenario {
    /// Sweeps as often as a worker does. Returns whether something differed before `until`.
    pub(super) fn sweep_until(&mut self, until: Timestamp) -> bool {
        let often = often(&self.policy);
        if !is_wanted(&self.states) {
            self.swept = Swept::all(until.max(self.now), false);
            return false;
        }
        loop {
            let now = crate::effect::later(self.swept.at, often).max(self.now);
            if now > until {
                return false;
            }
            let hints = hints(&self.states, &self.platform, &self.policy, self.swept, now);
            self.swept = self.swept.then(&self.policy, now, !hints.is_empty());
            if !hints.is_empty() {
                self.now = self.now.max(now);
                for (subject, seen) in hints {
                    self.event(subject, &Event::SeenOtherwise(seen));
                }
                return true;
            }
        }
    }
}

/// What a sweep at `now` sees otherwise.
fn hints(
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
fn is_wanted(states: &BTreeMap<Subject, State>) -> bool {
    let streams = states.values().filter_map(|state| match &state.body {
        Body::LiveStream(stream) => Some(stream),
        Body::Request(_)
        | Body::Video(_)
        | Body::Broadcast(_)
        | Body::Account(_)
        | Body::Quota(_)
        | Body::Cleanup(_) => None,
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
    let broadcasts = platform.broadcasts_of(stream.id.0);
    let listed: Vec<BroadcastSigns> =
        broadcasts.iter().filter_map(webhook::broadcast).map(BroadcastSigns::of).collect();
    SeenOtherwise {
        broadcasts: told.iter().filter_map(|_| stream.broadcast_signs(&listed)).collect(),
        missing: told.is_none(),
        signs: told.map(|told| Signs::of(&webhook::live_stream(&told))),
        videos: stream.awaited_videos().map(video).collect(),
    }
}
