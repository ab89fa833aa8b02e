//! State of a video: how far it is, reported to its live stream. Which session it belongs to is
//! the live stream's business.

use serde::{Deserialize, Serialize};

use crate::call::{Call, CallResult};
use crate::cleanup::CleanupEvent;
use crate::effect::Effects;
use crate::event::{Event, RecordedEvent, VideoChanged};
use crate::ids::{LiveStreamId, Subject, VideoId};
use crate::reconcile::VideoSigns;
use crate::timer::Policy;
use crate::webhook::{self, Observation, Rendition, VideoObserved, VideoStatus};

/// A video.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Video {
    /// What is known of it, from all webhooks and answers.
    pub seen: VideoObserved,
    /// It was asked for, or need not be, to learn its live stream.
    pub looked_up: bool,
    /// Platform calls made about it.
    pub calls: u64,
    /// A call runs.
    pub in_flight: bool,
    /// A sweep saw it otherwise: it is time to ask for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub look_due: bool,
}

impl Video {
    /// A video of which nothing is known.
    pub(crate) fn new(id: VideoId) -> Self {
        Self {
            seen: VideoObserved {
                id,
                live_stream: None,
                tells_live_stream: false,
                status: VideoStatus::Unknown,
                name: None,
                duration_ms: None,
                recording_started_at: None,
                renditions: Vec::new(),
                error: None,
                hls_url: None,
            },
            looked_up: false,
            calls: 0,
            in_flight: false,
            look_due: false,
        }
    }

    /// The live stream it was recorded from, once known.
    pub fn live_stream(&self) -> Option<LiveStreamId> {
        self.seen.live_stream
    }

    /// Applies one event.
    pub(crate) fn evolve(&mut self, event: &Event) {
        match event {
            Event::Bound(bound) => self.seen.live_stream = Some(bound.live_stream),
            Event::WebhookReceived(webhook) => {
                if let Observation::Video(seen) = &webhook.observation {
                    merge(&mut self.seen, seen, false);
                    self.looked_up |= seen.tells_live_stream;
                }
            }
            Event::SeenOtherwise(seen) => {
                self.look_due |= seen.videos.iter().any(|signs| self.differs(*signs));
            }
            Event::CallIntended(_) => (self.in_flight, self.look_due) = (true, false),
            Event::CallFailed(_) => self.call_ended(),
            Event::CallSucceeded(done) => {
                self.call_ended();
                if let CallResult::Gone = done.result {
                    self.seen.status = VideoStatus::Deleted;
                }
                if let CallResult::Video { observed } = &done.result
                    && let Some(seen) = webhook::video(observed)
                {
                    merge(&mut self.seen, &seen, true);
                }
            }
            Event::SessionRequested(_)
            | Event::GoLiveRequested(_)
            | Event::EndRequested(_)
            | Event::RetryRequested(_)
            | Event::AccountDeleted(_)
            | Event::AccountErased(_)
            | Event::CleanupRequested(_)
            | Event::ReconcileRequested(_)
            | Event::SessionBound(_)
            | Event::VideoChanged(_)
            | Event::BroadcastChanged(_)
            | Event::TimerElapsed(_)
            | Event::LimitExceeded(_)
            | Event::Slot(_)
            | Event::JobCompleted(_)
            | Event::JobDiscarded(_)
            | Event::JobCancelled(_)
            | Event::Announced(_)
            | Event::Unrecognized => {}
            Event::Cleanup(cleanup) => {
                if let CleanupEvent::VideoDeleted(_) = cleanup {
                    self.seen.status = VideoStatus::Deleted;
                }
            }
        }
    }

    /// Whether a sweep saw of it what is not known. What was deleted stays so, whatever a list shows.
    fn differs(&self, signs: VideoSigns) -> bool {
        let is = self.seen.status;
        let other = signs.status.is_some_and(|status| status != is);
        signs.video == self.seen.id
            && is != VideoStatus::Deleted
            && (signs.missing || other || signs.is_final && !self.seen.is_final())
    }

    fn call_ended(&mut self) {
        self.calls += 1;
        self.in_flight = false;
        self.looked_up = true;
    }

    /// Reports a change to the live stream; asks the platform where a sweep saw it otherwise, and
    /// once for an unknown live stream.
    pub(crate) fn decide(
        &self,
        policy: &Policy,
        before: Option<&Self>,
        cause: &RecordedEvent,
        to: &mut Effects,
    ) {
        if let Some(live_stream) = self.seen.live_stream
            && before.map(|b| &b.seen) != Some(&self.seen)
        {
            let event = VideoChanged { video: self.seen.clone() };
            let subject = Subject::live_stream(cause.subject.source(), live_stream);
            to.forward(subject, &Event::VideoChanged(event), None);
        }
        let is_lost = self.seen.live_stream.is_none() && !self.looked_up;
        let is_due = (self.look_due || is_lost) && self.seen.status < VideoStatus::Deleted;
        if is_due && !self.in_flight {
            let limit = policy.limits.of_call(true);
            to.call(self.calls, Call::FetchVideo { video: self.seen.id }, limit);
        }
    }
}

/// Merges an observation into what is known. A webhook never lowers the status, since nothing
/// tells the order of webhooks; the API's answer may; nothing undoes a deletion.
pub(crate) fn merge(known: &mut VideoObserved, seen: &VideoObserved, by_api: bool) {
    let status = match (by_api && seen.status != VideoStatus::Unknown, known.status) {
        (_, VideoStatus::Deleted) => VideoStatus::Deleted,
        (true, _) => seen.status,
        (false, status) => status.max(seen.status),
    };
    merge_renditions(&mut known.renditions, &seen.renditions, by_api);
    known.status = status;
    known.live_stream = known.live_stream.or(seen.live_stream);
    known.tells_live_stream |= seen.tells_live_stream;
    keep(&mut known.name, seen.name.as_ref());
    let longest = known.duration_ms.max(seen.duration_ms).filter(|_| !by_api);
    keep(&mut known.duration_ms, longest.or(seen.duration_ms).as_ref());
    keep(&mut known.recording_started_at, seen.recording_started_at.as_ref());
    // Of a video that was repaired the API tells no error any more.
    if by_api && seen.status != VideoStatus::Unknown {
        known.error.clone_from(&seen.error);
    } else {
        keep(&mut known.error, seen.error.as_ref());
    }
    keep(&mut known.hls_url, seen.hls_url.as_ref());
}

/// Merges renditions, in order of their names. As with the status, a webhook never lowers one.
fn merge_renditions(known: &mut Vec<Rendition>, seen: &[Rendition], by_api: bool) {
    if by_api && !seen.is_empty() {
        known.clear();
    }
    for rendition in seen {
        match known.iter_mut().find(|r| r.name == rendition.name) {
            Some(r) if rank(&r.status) < rank(&rendition.status) => {
                r.status.clone_from(&rendition.status);
            }
            Some(_) => {}
            None => known.push(rendition.clone()),
        }
    }
    known.sort_by(|a, b| a.name.cmp(&b.name));
}

/// How far a rendition is, by the platform's word.
fn rank(status: &str) -> u8 {
    match status {
        "complete" => 3,
        "error" => 2,
        "processing" => 1,
        _ => 0,
    }
}

/// Replaces `known` where something was seen.
fn keep<T: Clone>(known: &mut Option<T>, seen: Option<&T>) {
    if seen.is_some() {
        *known = seen.cloned();
    }
}

#[cfg(test)]
mod tests;
