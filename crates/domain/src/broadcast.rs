//! State of a broadcast: its label, reported to its live stream. Not its life: sessions rule that.

use serde::{Deserialize, Serialize};

use crate::effect::Effects;
use crate::event::{BroadcastChanged, Event, RecordedEvent};
use crate::ids::{BroadcastId, LiveStreamId, Subject};
use crate::webhook::Observation;

/// A broadcast.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broadcast {
    /// Its id.
    pub id: BroadcastId,
    /// The live stream it belongs to, once known.
    pub live_stream: Option<LiveStreamId>,
    /// Its last known label.
    pub status: Option<String>,
}

impl Broadcast {
    /// A broadcast of which nothing is known.
    pub(crate) fn new(id: BroadcastId) -> Self {
        Self { id, live_stream: None, status: None }
    }

    /// Applies one event.
    pub(crate) fn evolve(&mut self, event: &Event) {
        if let Event::Bound(bound) = event {
            self.live_stream = Some(bound.live_stream);
        } else if let Some(Observation::Broadcast(seen)) = event.observation()
            && seen.status.is_some()
        {
            self.status.clone_from(&seen.status);
        }
    }

    /// Reports a change to the live stream.
    pub(crate) fn decide(&self, before: Option<&Self>, cause: &RecordedEvent, to: &mut Effects) {
        let (Some(live_stream), Some(status)) = (self.live_stream, &self.status) else { return };
        if before != Some(self) {
            let event = BroadcastChanged { broadcast: self.id, status: status.clone() };
            let subject = Subject::live_stream(cause.subject.source(), live_stream);
            to.forward(subject, &Event::BroadcastChanged(event), None);
        }
    }
}
