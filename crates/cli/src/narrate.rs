//! The log told to people: new events as they come, one line each.

use std::collections::HashMap;

use anyhow::Result;
use domain::event::{Event, RecordedEvent};
use domain::ids::Timestamp;
use domain::summary;
use domain::timer::TimerKind;
use store::{SealingKey, Store};

/// Events of a slice read at once.
const CHUNK: i64 = 1_000;

/// Follows all slices of the log.
#[derive(Debug)]
pub(crate) struct Tail {
    read: HashMap<i16, (i64, Timestamp)>,
    /// What opens personal values.
    sealing: Option<SealingKey>,
}

impl Tail {
    /// Begins with the first event.
    pub(crate) fn from_start(sealing: Option<SealingKey>) -> Self {
        Self { read: HashMap::new(), sealing }
    }

    /// Begins with the next event.
    pub(crate) async fn from_now(store: &Store, sealing: Option<SealingKey>) -> Result<Self> {
        let slices: Vec<i16> = store.slices().slices().collect();
        let heads = store.heads(&slices).await?;
        let read = heads.into_iter().map(|(s, p)| (s, (p, Timestamp::default()))).collect();
        Ok(Self { read, sealing })
    }

    /// The events since the last call, in order of commit time, their personal values in the open.
    pub(crate) async fn next(&mut self, store: &Store) -> Result<Vec<RecordedEvent>> {
        let slices: Vec<i16> = store.slices().slices().collect();
        let mut events = Vec::new();
        for (slice, head) in store.heads(&slices).await? {
            let (position, since) = self.read.get(&slice).copied().unwrap_or_default();
            if head <= position {
                continue;
            }
            let new = store.read_after(slice, position, since, CHUNK).await?;
            if let Some(last) = new.last() {
                self.read.insert(slice, (last.position, last.recorded_at));
            }
            events.extend(new);
        }
        store.open_events(self.sealing.as_ref(), &mut events).await?;
        events.sort_by_key(|event| (event.recorded_at, event.slice, event.position));
        Ok(events)
    }
}

/// What an event says to people; `None`: nothing they would ask for. Commands are forwarded to the
/// live stream, and told once; videos and broadcasts have told by webhook what they forward.
pub(crate) fn tell(stored: &RecordedEvent) -> Option<String> {
    let event = Event::decode(stored);
    let is_request = stored.subject.parts().is_some_and(|(_, kind, _)| kind == "request");
    let is_told = match &event {
        Event::GoLiveRequested(_) | Event::EndRequested(_) | Event::RetryRequested(_) => is_request,
        Event::Bound(_)
        | Event::VideoChanged(_)
        | Event::BroadcastChanged(_)
        | Event::Slot(_)
        | Event::Unrecognized => false,
        Event::TimerElapsed(elapsed) => elapsed.timer == TimerKind::Grace,
        Event::WebhookReceived(_)
        | Event::LimitExceeded(_)
        | Event::SessionRequested(_)
        | Event::AccountDeleted(_)
        | Event::AccountErased(_)
        | Event::CleanupRequested(_)
        | Event::Cleanup(_)
        | Event::ReconcileRequested(_)
        | Event::SeenOtherwise(_)
        | Event::SessionBound(_)
        | Event::CallIntended(_)
        | Event::CallSucceeded(_)
        | Event::CallFailed(_)
        | Event::JobCompleted(_)
        | Event::JobDiscarded(_)
        | Event::JobCancelled(_)
        | Event::Announced(_) => true,
    };
    let sort = match summary::sort(&event) {
        // What the product hears stands out.
        "state" => "STATE",
        sort => sort,
    };
    is_told.then(|| format!("{sort:<9} {}", summary::words(stored, &event)))
}
