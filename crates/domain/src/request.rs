//! State of a session's request: from "run this session" until its live stream is known. From
//! then on it only forwards commands to the live stream's subject.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::announcement::{Announcement, SessionNews};
use crate::call::{Call, CallResult};
use crate::effect::Effects;
use crate::event::{
    CallSucceeded, CleanupRequested, Event, RecordedEvent, SessionBound, SessionRef,
    SessionRequested,
};
use crate::ids::{LiveStreamId, Subject, Timestamp, derived_id};
use crate::timer::Policy;

/// A request.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, none is a mode")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// What was asked for.
    pub request: SessionRequested,
    /// When.
    pub requested_at: Timestamp,
    /// Platform calls made for it.
    pub calls: u64,
    /// A call runs.
    pub in_flight: bool,
    /// Its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<Uuid>,
    /// Calls that were given up, each of which may have made a live stream all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub given_up: Vec<Uuid>,
    /// The live stream, once known.
    pub live_stream: Option<LiveStreamId>,
    /// Go-live was commanded.
    pub go_live: bool,
    /// The end was commanded.
    pub end: bool,
    /// Why the live stream could not be made.
    pub failure: Option<String>,
    /// It is over, and what calls that were given up may have made is looked for, or was.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub looked: bool,
    /// What was found: nobody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orphan: Option<LiveStreamId>,
}

impl Request {
    /// The request that a `SessionRequested` opens.
    pub(crate) fn new(request: SessionRequested, at: Timestamp) -> Self {
        Self {
            live_stream: request.live_stream,
            request,
            requested_at: at,
            calls: 0,
            in_flight: false,
            intent: None,
            given_up: Vec::new(),
            go_live: false,
            end: false,
            failure: None,
            looked: false,
            orphan: None,
        }
    }

    /// Applies one event.
    pub(crate) fn evolve(&mut self, event: &Event) {
        match event {
            Event::GoLiveRequested(_) => self.go_live = true,
            Event::EndRequested(_) => self.end = true,
            Event::RetryRequested(_) => self.failure = None,
            Event::CallIntended(intended) => {
                self.in_flight = true;
                self.intent = Some(intended.intent);
                self.looked |=
                    matches!(intended.call, Call::CreateLiveStream { only_look: true, .. });
            }
            Event::CallSucceeded(done) => self.call_succeeded(done),
            Event::CallFailed(failed) => {
                if self.take_call(failed.intent) && !self.looked {
                    self.given_up.push(failed.intent);
                    self.failure = Some(failed.reason.clone());
                }
            }
            Event::WebhookReceived(_)
            | Event::SessionRequested(_)
            | Event::AccountDeleted(_)
            | Event::AccountErased(_)
            | Event::CleanupRequested(_)
            | Event::ReconcileRequested(_)
            | Event::SeenOtherwise(_)
            | Event::SessionBound(_)
            | Event::Bound(_)
            | Event::VideoChanged(_)
            | Event::BroadcastChanged(_)
            | Event::TimerElapsed(_)
            | Event::LimitExceeded(_)
            | Event::Slot(_)
            | Event::JobCompleted(_)
            | Event::JobDiscarded(_)
            | Event::JobCancelled(_)
            | Event::Cleanup(_)
            | Event::Announced(_)
            | Event::Unrecognized => {}
        }
    }

    /// Whether the call in flight is `intent`, which has ended.
    fn take_call(&mut self, intent: Uuid) -> bool {
        let is_it = self.in_flight && self.intent.is_none_or(|running| running == intent);
        if is_it {
            self.calls += 1;
            self.in_flight = false;
            self.intent = None;
        }
        is_it
    }

    /// Applies that the live stream was made: by the call in flight, or by one that was given up
    /// and run again by somebody.
    fn call_succeeded(&mut self, done: &CallSucceeded) {
        let was_given_up =
            !self.in_flight && self.live_stream.is_none() && self.given_up.contains(&done.intent);
        if !self.take_call(done.intent) && !was_given_up {
            return;
        }
        if self.looked && !was_given_up {
            if let CallResult::LiveStream { observed } = &done.result {
                self.orphan = created_id(observed);
            }
            return;
        }
        if let CallResult::LiveStream { observed } = &done.result {
            self.live_stream = created_id(observed);
            self.failure = None;
        }
        if self.live_stream.is_none() {
            self.failure = Some("the platform's answer names no live stream".to_owned());
        }
    }

    /// Creates the live stream, binds the session to it, forwards commands.
    pub(crate) fn decide(
        &self,
        policy: &Policy,
        before: Option<&Self>,
        event: &Event,
        cause: &RecordedEvent,
        to: &mut Effects,
    ) {
        if let Some(live_stream) = self.live_stream {
            let subject = Subject::live_stream(&self.request.source, live_stream);
            if before.is_none_or(|b| b.live_stream.is_none()) {
                // A session is bound once, whatever is told twice. The intent's own key is taken by
                // its `CallIntended`, which may lie in the live stream's slice too.
                let key = derived_id("bound", &[cause.subject.as_str()]);
                to.forward(
                    subject,
                    &Event::SessionBound(self.bound(live_stream, event)),
                    Some(key),
                );
            } else if is_command(event) {
                to.forward(subject, event, None);
            }
        } else if !self.in_flight && self.failure.is_none() && !self.end {
            let (name, options) = (self.request.name.clone(), self.request.options.clone());
            let earlier = self.given_up.clone();
            let call = Call::CreateLiveStream { name, options, earlier, only_look: false };
            to.call(self.calls, call, policy.limits.of_call(false));
        } else if self.end && !self.in_flight && !self.looked && !self.given_up.is_empty() {
            let (name, options) = (self.request.name.clone(), self.request.options.clone());
            let earlier = self.given_up.clone();
            let call = Call::CreateLiveStream { name, options, earlier, only_look: true };
            to.call(self.calls, call, policy.limits.of_call(true));
        }
        self.remove_orphan(before, to);
        self.announce(before, to);
    }

    /// Proposes to delete what a call made that was given up: its session has ended without it.
    fn remove_orphan(&self, before: Option<&Self>, to: &mut Effects) {
        let Some(orphan) = self.orphan.filter(|_| before.is_none_or(|b| b.orphan.is_none())) else {
            return;
        };
        let subject = Subject::live_stream(&self.request.source, orphan);
        let run = derived_id("orphan", &[subject.as_str()]);
        let reason = "made by a call that was given up, for a session that has ended".to_owned();
        let event = CleanupRequested::idle(run, reason);
        to.forward(subject, &Event::CleanupRequested(event), Some(run));
    }

    /// Says that the live stream could not be made, or was not wanted any more. Once it is bound
    /// its own subject speaks.
    fn announce(&self, before: Option<&Self>, to: &mut Effects) {
        let status = self.status();
        if before.map(Self::status) == Some(status) {
            return;
        }
        let news = SessionNews {
            session: self.request.session,
            live_stream: None,
            account: self.request.account.clone(),
            note: self.failure.as_ref().map(|reason| format!("create_live_stream: {reason}")),
            derived: None,
        };
        match status {
            "failed" => to.announce(Announcement::SessionFailed(news)),
            "ended" => to.announce(Announcement::SessionEnded(news)),
            _ => {}
        }
    }

    /// What the live stream's subject is told.
    fn bound(&self, live_stream: LiveStreamId, event: &Event) -> SessionBound {
        let observed = if let Event::CallSucceeded(done) = event
            && let CallResult::LiveStream { observed } = &done.result
        {
            Some(observed.clone())
        } else {
            None
        };
        SessionBound {
            request: self.request.clone(),
            live_stream,
            created: self.request.live_stream.is_none(),
            observed,
            go_live: self.go_live,
            end: self.end,
        }
    }

    /// Its status while no live stream is bound.
    pub fn status(&self) -> &'static str {
        match (&self.live_stream, &self.failure) {
            (Some(_), _) => "preparing",
            (None, _) if self.end && (!self.in_flight || self.looked) => "ended",
            (None, Some(_)) => "failed",
            (None, None) => "requested",
        }
    }
}

/// Whether `event` commands a session.
fn is_command(event: &Event) -> bool {
    matches!(
        event,
        Event::GoLiveRequested(SessionRef { .. })
            | Event::EndRequested(SessionRef { .. })
            | Event::RetryRequested(SessionRef { .. })
    )
}

/// The id of a created live stream.
fn created_id(observed: &Value) -> Option<LiveStreamId> {
    observed.get("id").and_then(Value::as_i64).filter(|id| *id > 0).map(LiveStreamId)
}

#[cfg(test)]
mod tests;
