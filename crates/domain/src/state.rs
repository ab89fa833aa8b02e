//! `evolve`: state and event to state. Total and pure: live, replay and verify run the same fold.

use serde::{Deserialize, Serialize};

use crate::account::Account;
use crate::broadcast::Broadcast;
use crate::cleanup::CleanupEvent;
use crate::cleanup::run::CleanupRun;
use crate::event::{Event, RecordedEvent, StoredEvent};
use crate::ids::{BroadcastId, LiveStreamId, Timestamp, VideoId};
use crate::live_stream::LiveStream;
use crate::quota::Quota;
use crate::request::Request;
use crate::slot::SlotEvent;
use crate::video::Video;

/// The folded state of a subject.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Domain time: the latest `received_at` of the subject; never runs backwards.
    pub at: Timestamp,
    /// What the subject is.
    pub body: Body,
}

/// What a subject is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Body {
    /// A session's request.
    Request(Request),
    /// A live stream and the sessions on it.
    LiveStream(Box<LiveStream>),
    /// A video.
    Video(Video),
    /// A broadcast.
    Broadcast(Broadcast),
    /// An account of the product.
    Account(Account),
    /// The quota of active live streams of a source.
    Quota(Quota),
    /// A cleanup run.
    Cleanup(CleanupRun),
}

/// Applies `event` to the state of its subject. `None`: the subject has no state, because nothing
/// is folded for its kind or nothing was told yet.
pub fn evolve(state: Option<State>, stored: &RecordedEvent, event: &Event) -> Option<State> {
    let mut state = state;
    evolve_in_place(&mut state, stored.stored(), event);
    state
}

/// Applies `event` to the state of its subject where it lies. `None` stays where the subject has no
/// state yet.
pub fn evolve_in_place(state: &mut Option<State>, stored: StoredEvent<'_>, event: &Event) {
    if state.is_none() {
        let Some(body) = open(stored, event) else { return };
        *state = Some(State { at: stored.received_at, body });
    }
    let Some(state) = state else { return };
    state.at = state.at.max(stored.received_at);
    let at = state.at;
    match &mut state.body {
        Body::Request(request) => request.evolve(event),
        Body::LiveStream(live_stream) => live_stream.evolve(event, at),
        Body::Video(video) => video.evolve(event),
        Body::Broadcast(broadcast) => broadcast.evolve(event),
        Body::Account(account) => account.evolve(event, at),
        Body::Quota(quota) => quota.evolve(event, at),
        Body::Cleanup(run) => {
            if let Event::Cleanup(event) = event {
                run.evolve(event, at);
            }
        }
    }
}

/// Whether `event` may be a subject's first. Others may lie on it, such as the outcome of a plain
/// job that named it, and tell nothing of it.
fn opens(kind: &str, event: &Event) -> bool {
    let webhook = matches!(event, Event::WebhookReceived(_));
    match kind {
        "request" => matches!(event, Event::SessionRequested(_)),
        "stream" => {
            let told = matches!(
                event,
                Event::SessionBound(_)
                    | Event::VideoChanged(_)
                    | Event::BroadcastChanged(_)
                    | Event::CleanupRequested(_)
            );
            webhook || told
        }
        "video" if matches!(event, Event::Cleanup(CleanupEvent::VideoDeleted(_))) => true,
        // A sweep may be the first to tell of a video.
        "video" => webhook || matches!(event, Event::Bound(_) | Event::SeenOtherwise(_)),
        "broadcast" => webhook || matches!(event, Event::Bound(_)),
        "account" => matches!(event, Event::AccountDeleted(_) | Event::AccountErased(_)),
        "quota" => matches!(event, Event::Slot(SlotEvent::Requested(_))),
        "cleanup" => matches!(event, Event::Cleanup(CleanupEvent::Started(_))),
        _ => false,
    }
}

/// The state before a subject's first event.
fn open(stored: StoredEvent<'_>, event: &Event) -> Option<Body> {
    let (kind, id) = stored.subject.kind_and_id()?;
    if !opens(kind, event) {
        return None;
    }
    let number = || id.parse::<i64>().ok();
    match kind {
        "request" => {
            let Event::SessionRequested(request) = event else { return None };
            Some(Body::Request(Request::new(request.clone(), stored.received_at)))
        }
        "stream" => Some(Body::LiveStream(Box::new(LiveStream::new(LiveStreamId(number()?))))),
        "video" => Some(Body::Video(Video::new(VideoId(number()?)))),
        "broadcast" => Some(Body::Broadcast(Broadcast::new(BroadcastId(number()?)))),
        "account" => Some(Body::Account(Account::new(id))),
        "quota" => Some(Body::Quota(Quota::default())),
        "cleanup" => {
            let Event::Cleanup(CleanupEvent::Started(started)) = event else { return None };
            Some(Body::Cleanup(CleanupRun::new(started, stored.received_at)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod laws;
#[cfg(test)]
mod tests;
