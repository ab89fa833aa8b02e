//! The timeline of a session: what its request's subject and its live stream's subject say of it,
//! in the order of the log, without payloads.
//!
//! A live stream serves many sessions. Its events *concern* a session if and only if they lie
//! between the session's binding and its end and speak of no other session, of no other session's
//! video and, once it is off air, of nothing but its videos and itself.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;
use chrono::TimeDelta;
use domain::announcement::Announcement;
use domain::call::Call;
use domain::event::{Event, RecordedEvent};
use domain::ids::{Subject, Timestamp, VideoId};
use domain::slot::SlotEvent;
use serde::Serialize;
use store::SessionView;
use uuid::Uuid;

use super::{READ, RequestLog, find_then, read_request};
use crate::Api;
use crate::cursor::{NotTold, Told};
use crate::error::Problem;
use crate::extract::{Params, SessionId};

/// Events of a live stream that are looked through for one session: with a poll every 30 s, three
/// events each, a session of a day has some 9000.
const MAX_LOOKED_THROUGH: usize = 20_000;

/// The binding is recorded after the request, by one database but perhaps after a step of its clock.
const CLOCK_STEP: TimeDelta = TimeDelta::seconds(60);

/// An event, in short.
#[derive(Debug, Serialize)]
pub(super) struct Entry {
    /// When the fact reached us.
    at: Timestamp,
    #[serde(rename = "type")]
    kind: String,
    subject: String,
    /// One sentence for people.
    summary: String,
    event_id: Uuid,
}

/// A page of a timeline, the oldest first.
#[derive(Debug, Serialize)]
pub(super) struct Timeline {
    pub(super) events: Vec<Entry>,
    /// What to send as `after` for the next page; none: this was all.
    pub(super) next: Option<String>,
}

/// Shows a page of a timeline.
pub(super) async fn timeline(
    State(api): State<Api>,
    SessionId(id): SessionId,
    Params(mut params): Params,
) -> Result<Json<Timeline>, Problem> {
    let limit = params.integer("limit", 1..=500).unwrap_or(100);
    let incarnation = api.incarnation();
    let after = params.text("after", 100).map(|text| Told::read(&text, incarnation));
    match after {
        Some(Err(NotTold::Unreadable)) => {
            params.wrong("after", "is not the `next` of a page of this timeline");
        }
        Some(Err(NotTold::Restored)) => {
            params.wrong("after", "is of the time before the log was restored: begin without it");
        }
        Some(Ok(_)) | None => {}
    }
    let at = params.moment("as_of");
    params.finish()?;
    let view = find_then(&api, id, at).await?.session;
    let until = match at {
        Some(at) => Some(api.store().time_of(at).await?),
        None => None,
    };
    let request = read_request(&api, &view.source, id).await?;
    let after = after.and_then(Result::ok).unwrap_or_default();
    let limit = usize::try_from(limit).unwrap_or_default();
    let page = Page { after, limit, until };
    Ok(Json(read(&api, &view, request.as_ref(), page).await?))
}

/// Which entries to tell.
#[derive(Debug, Clone, Copy)]
pub(super) struct Page {
    /// Only those behind this.
    pub(super) after: Told,
    /// Most of them.
    pub(super) limit: usize,
    /// Only those that were recorded by then.
    pub(super) until: Option<Timestamp>,
}

/// Reads a page.
pub(super) async fn read(
    api: &Api,
    view: &SessionView,
    request: Option<&RequestLog>,
    Page { after, limit, until }: Page,
) -> Result<Timeline, store::Error> {
    let requested = request.map(|log| log.events.as_slice()).unwrap_or_default();
    let since = requested.first().map_or(view.requested_at, |(stored, _)| stored.recorded_at);
    let mut of_live_stream = Vec::new();
    if let Some(live_stream) = view.live_stream {
        let subject = Subject::live_stream(&view.source, live_stream);
        let from = start(api, &subject, since - CLOCK_STEP).await?;
        let span = Span::of(view);
        of_live_stream = concerning(api, &subject, from, span, after.live_stream, limit).await?;
    }
    let was_known = |stored: &RecordedEvent| until.is_none_or(|until| stored.recorded_at <= until);
    let of_live_stream = of_live_stream.iter().filter(|(stored, _)| was_known(stored));
    let requested = requested.iter().filter(|(stored, _)| was_known(stored));
    let requested = requested.filter(|(stored, _)| stored.position > after.request);
    let (events, next) = merge(requested, of_live_stream, after, limit);
    Ok(Timeline { events, next: next.map(|told| told.text(api.incarnation())) })
}

/// Merges two subjects in the order in which the database recorded them. Returns what was told too,
/// where there is more.
fn merge<'a>(
    requested: impl Iterator<Item = &'a (RecordedEvent, Event)>,
    of_live_stream: impl Iterator<Item = &'a (RecordedEvent, Event)>,
    after: Told,
    limit: usize,
) -> (Vec<Entry>, Option<Told>) {
    let (mut requested, mut of_live_stream) = (requested.peekable(), of_live_stream.peekable());
    let (mut told, mut events) = (after, Vec::new());
    while events.len() < limit {
        let request_first = match (requested.peek(), of_live_stream.peek()) {
            (Some((request, _)), Some((live, _))) => request.recorded_at <= live.recorded_at,
            (request, _) => request.is_some(),
        };
        let next = if request_first { requested.next() } else { of_live_stream.next() };
        let Some((stored, event)) = next else { break };
        let position = if request_first { &mut told.request } else { &mut told.live_stream };
        *position = stored.position;
        events.push(Entry::of(stored, event));
    }
    let has_more = requested.peek().is_some() || of_live_stream.peek().is_some();
    (events, has_more.then_some(told))
}

impl Entry {
    fn of(stored: &RecordedEvent, event: &Event) -> Self {
        Self {
            at: stored.received_at,
            kind: stored.event_type.clone(),
            subject: stored.subject.to_string(),
            summary: domain::summary::words(stored, event),
            event_id: stored.event_id,
        }
    }
}

/// A position before the first event of `subject` that was recorded at `since` or later.
///
/// A live stream that is reused for years has a long history: it is halved, not read. Positions of
/// a slice are in the order of their recording.
async fn start(api: &Api, subject: &Subject, since: Timestamp) -> Result<i64, store::Error> {
    let slice = api.store().slice_of(subject);
    let heads = api.store().heads(&[slice]).await?;
    let (mut low, mut high) = (0, heads.first().map_or(0, |(_, head)| *head));
    while low < high {
        let middle = low + (high - low) / 2;
        match api.store().read_subject(subject, middle, 1).await?.first() {
            Some(event) if event.recorded_at < since => low = event.position,
            Some(_) | None => high = middle,
        }
    }
    Ok(low)
}

/// The events after `told` that concern the session of `span`: one more than `limit`, so that it
/// shows whether there are more.
async fn concerning(
    api: &Api,
    subject: &Subject,
    from: i64,
    mut span: Span,
    told: i64,
    limit: usize,
) -> Result<Vec<(RecordedEvent, Event)>, store::Error> {
    let (mut found, mut position, mut looked_through) = (Vec::new(), from, 0);
    while found.len() <= limit && !span.is_over && looked_through < MAX_LOOKED_THROUGH {
        let page = api.store().read_subject(subject, position, READ).await?;
        let is_last = i64::try_from(page.len()).is_ok_and(|read| read < READ);
        looked_through += page.len();
        for stored in page {
            position = stored.position;
            let event = Event::decode(&stored);
            if !span.is_over && span.concerns(&event) && position > told {
                found.push((stored, event));
            }
        }
        if is_last {
            break;
        }
    }
    Ok(found)
}

/// Where in its live stream's history a session is, while that is read in order.
#[derive(Debug)]
struct Span {
    session: Uuid,
    /// Its videos.
    videos: BTreeSet<VideoId>,
    /// Calls that concern it.
    calls: BTreeSet<Uuid>,
    is_bound: bool,
    is_off_air: bool,
    is_over: bool,
}

impl Span {
    /// Before the session's binding.
    fn of(view: &SessionView) -> Self {
        let parts = view.detail.iter().flat_map(|detail| &detail.parts);
        Self {
            session: view.id,
            videos: parts.map(|part| part.video).collect(),
            calls: BTreeSet::new(),
            is_bound: false,
            is_off_air: false,
            is_over: false,
        }
    }

    /// Whether `event`, the next one, concerns the session.
    fn concerns(&mut self, event: &Event) -> bool {
        if let Event::SessionBound(bound) = event {
            let is_mine = bound.request.session == self.session;
            self.is_bound |= is_mine;
            return is_mine;
        }
        self.is_bound
            && match event {
                Event::GoLiveRequested(r) | Event::EndRequested(r) | Event::RetryRequested(r) => {
                    r.session == self.session
                }
                Event::Announced(announcement) => self.announced(announcement),
                Event::VideoChanged(changed) => self.videos.contains(&changed.video.id),
                Event::CallIntended(intended) => {
                    let is_mine = self.calls_for(&intended.call);
                    if is_mine {
                        self.calls.insert(intended.intent);
                    }
                    is_mine
                }
                Event::CallSucceeded(done) => self.calls.contains(&done.intent),
                Event::CallFailed(failed) => self.calls.contains(&failed.intent),
                Event::CleanupRequested(_)
                | Event::Cleanup(_)
                | Event::AccountDeleted(_)
                | Event::AccountErased(_)
                | Event::SessionRequested(_)
                | Event::SessionBound(_) => false,
                Event::LimitExceeded(exceeded) => exceeded.session == self.session,
                Event::Slot(SlotEvent::Granted(told)) => told.session == self.session,
                Event::Slot(SlotEvent::Queued(told)) => told.session == self.session,
                Event::WebhookReceived(_)
                | Event::Bound(_)
                | Event::BroadcastChanged(_)
                | Event::Slot(
                    SlotEvent::Requested(_) | SlotEvent::Released(_) | SlotEvent::Configured(_),
                )
                | Event::TimerElapsed(_)
                | Event::ReconcileRequested(_)
                | Event::SeenOtherwise(_)
                | Event::JobCompleted(_)
                | Event::JobDiscarded(_)
                | Event::JobCancelled(_)
                | Event::Unrecognized => !self.is_off_air,
            }
    }

    /// Whether an announcement is about the session; notes what it says of its course.
    fn announced(&mut self, announcement: &Announcement) -> bool {
        let session = match announcement {
            Announcement::SessionReady(news)
            | Announcement::SessionTestStarted(news)
            | Announcement::SessionWentLive(news)
            | Announcement::SessionInterrupted(news)
            | Announcement::SessionResumed(news)
            | Announcement::SessionStopped(news)
            | Announcement::SessionEnded(news)
            | Announcement::SessionFailed(news)
            | Announcement::SessionUnstable(news)
            | Announcement::RecordingReady(news) => news.session,
            Announcement::QuotaWaiting(news) => news.session,
            Announcement::RecordingPartReady(news)
            | Announcement::RecordingPartOverdue(news)
            | Announcement::RecordingPartDeleted(news) => news.session,
            Announcement::CleanupDone(_)
            | Announcement::CleanupFinished(_)
            | Announcement::EndpointDisabled(_) => return false,
        };
        let is_mine = session == self.session;
        self.is_off_air |= is_mine && matches!(announcement, Announcement::SessionStopped(_));
        self.is_over |= is_mine && matches!(announcement, Announcement::SessionEnded(_));
        is_mine
    }

    /// Whether a call is made for the session.
    fn calls_for(&self, call: &Call) -> bool {
        match call {
            Call::FetchVideo { video } => self.videos.contains(video),
            Call::ListVideos { .. } => true,
            Call::CreateLiveStream { .. }
            | Call::UpdateLiveStream { .. }
            | Call::ClearDvr { .. }
            | Call::CreateBroadcast { .. }
            | Call::ActivateLiveStream { .. }
            | Call::DeactivateLiveStream { .. }
            | Call::SetBroadcastStatus { .. }
            | Call::StartRecording { .. }
            | Call::StopRecording { .. }
            | Call::DeleteBroadcast { .. }
            | Call::ObserveLiveStream { .. }
            | Call::ObserveBroadcast { .. }
            | Call::ObserveQuota { .. }
            | Call::ProbeLiveStream { .. }
            | Call::DeleteLiveStream { .. }
            | Call::DeleteRecordings { .. } => !self.is_off_air,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::support::App;
    use domain::event::TimerElapsed;
    use domain::ids::LiveStreamId;
    use domain::timer::TimerKind;

    #[tokio::test]
    async fn the_start_lies_just_before_the_first_event_of_the_time() {
        let app = App::start().await;
        let subject = Subject::live_stream("gcore-main", LiveStreamId(1));
        let slice = app.store.slice_of(&subject);
        // Other subjects of the slice lie between.
        let neighbour = (2..).map(|n| Subject::live_stream("gcore-main", LiveStreamId(n)));
        let neighbour = neighbour.into_iter().find(|s| app.store.slice_of(s) == slice).unwrap();
        let poll = Event::TimerElapsed(TimerElapsed { timer: TimerKind::Poll, generation: 0 });
        for n in 0..40 {
            app.append(if n % 3 == 0 { &subject } else { &neighbour }, &poll).await;
        }
        let events = app.store.read_subject(&subject, 0, 100).await.unwrap();
        for event in &events {
            let from = start(&app.api, &subject, event.recorded_at).await.unwrap();
            let next = app.store.read_subject(&subject, from, 1).await.unwrap();
            assert_eq!(next[0].recorded_at, event.recorded_at);
            assert!(from < event.position);
        }
        let later = events[events.len() - 1].recorded_at + TimeDelta::seconds(1);
        let from = start(&app.api, &subject, later).await.unwrap();
        assert!(app.store.read_subject(&subject, from, 1).await.unwrap().is_empty());
        let nowhere = Subject::live_stream("gcore-main", LiveStreamId(0));
        assert_eq!(start(&app.api, &nowhere, later).await.unwrap(), 0);
    }
}
