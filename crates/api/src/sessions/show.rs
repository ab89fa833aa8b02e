//! A session as callers see it: the short form of lists and starts, and the whole.
//!
//! These shapes are the API's own: stored ones may change without it.

use axum::Json;
use axum::extract::State;
use domain::event::SessionOptions;
use domain::ids::{BroadcastId, LiveStreamId, Timestamp, VideoId};
use domain::session::{self, Interruption, Moment, Sent};
use domain::view::{PartDetail, SessionDetail};
use serde::Serialize;
use serde_json::Value;
use store::{SessionThen, SessionView};
use uuid::Uuid;

use super::timeline::{self, Entry, Page};
use super::{find_then, read_request};
use crate::Api;
use crate::cursor::Told;
use crate::error::Problem;
use crate::extract::{Params, SessionId};
use crate::live_streams::Playback;

/// Entries of the timeline that a session carries; the rest is paged.
const TIMELINE: usize = 100;

/// A session, in short.
#[derive(Debug, Serialize)]
pub(super) struct Session {
    id: Uuid,
    source: String,
    account: Option<String>,
    name: String,
    status: String,
    live_stream_id: Option<LiveStreamId>,
    requested_at: Timestamp,
    failure: Option<Failure>,
}

/// The call that failed for good.
#[derive(Debug, Serialize)]
struct Failure {
    call: String,
    reason: String,
}

/// A session, in full.
#[derive(Debug, Serialize)]
pub(super) struct Whole {
    #[serde(flatten)]
    session: Session,
    options: Option<Options>,
    playback: Playback,
    #[serde(flatten)]
    course: Course,
    timeline: Vec<Entry>,
    /// What to send as `after` to the timeline's own resource; none: this was all.
    timeline_next: Option<String>,
}

/// How it was to run.
#[derive(Debug, Serialize)]
struct Options {
    record: bool,
    auto_go_live: bool,
    dvr: bool,
    transcoding_region: Option<String>,
    quality_set_id: Option<i64>,
    client_user_id: Option<i64>,
    data: Option<Value>,
}

/// How it has run; empty before it has its live stream.
#[derive(Debug, Default, Serialize)]
struct Course {
    broadcast_id: Option<BroadcastId>,
    went_live_at: Option<Timestamp>,
    interruption: Option<Interrupted>,
    interruptions: u64,
    /// Since when its encoder reconnects again and again.
    unstable_since: Option<Timestamp>,
    /// When its encoder sent, and how that is known.
    sent: Vec<Stretch>,
    /// Why it was ended, where nobody commanded it.
    end_reason: Option<String>,
    /// `none`, `open`, `complete` or `incomplete`.
    recording: Option<String>,
    parts: Vec<Part>,
    gaps: Vec<Gap>,
    recording_refused: Option<String>,
    recording_warnings: Vec<String>,
    /// Why it waits for a slot, in the platform's words where it was refused one.
    waits_for_slot: Option<String>,
    /// Its place in the queue for slots, from 1.
    slot_place: Option<u64>,
    problems: Vec<String>,
    moments: Vec<Reached>,
    /// The platform call that runs.
    in_flight: Option<String>,
}

/// The encoder is lost.
#[derive(Debug, Serialize)]
struct Interrupted {
    since: Timestamp,
    /// For longer than the grace period.
    confirmed: bool,
}

/// A stretch in which the encoder sent.
#[derive(Debug, Serialize)]
struct Stretch {
    from: Known,
    /// None: it sends.
    to: Option<Known>,
}

/// A moment, and how it is known.
#[derive(Debug, Serialize)]
struct Known {
    at: Timestamp,
    /// `webhook`, `answer` or `platform`.
    source: &'static str,
    /// It was at most so much earlier.
    within_ms: Option<i64>,
}

/// A part of the recording.
#[derive(Debug, Serialize)]
struct Part {
    video_id: VideoId,
    status: String,
    duration_ms: Option<i64>,
    recording_started_at: Option<Timestamp>,
    renditions_complete: usize,
    renditions: usize,
    hls_url: Option<String>,
    error: Option<String>,
    /// It was waited for too long: the recording is completed without it.
    overdue: bool,
    /// Somebody else recorded it.
    by_hand: bool,
}

/// A gap between two parts.
#[derive(Debug, Serialize)]
struct Gap {
    /// The part before it, from 1.
    after_part: usize,
    ms: i64,
}

/// When it came to a status.
#[derive(Debug, Serialize)]
struct Reached {
    status: &'static str,
    at: Timestamp,
}

/// Shows a session, as it is or as it was known at `as_of`.
pub(super) async fn show(
    State(api): State<Api>,
    SessionId(id): SessionId,
    Params(mut params): Params,
) -> Result<Json<Whole>, Problem> {
    let at = params.moment("as_of");
    params.finish()?;
    let SessionThen { session: view, live_stream } = find_then(&api, id, at).await?;
    let request = read_request(&api, &view.source, id).await?;
    let until = match at {
        Some(at) => Some(api.store().time_of(at).await?),
        None => None,
    };
    let slot_place = match at {
        // How the queue stood in the past nobody asks.
        Some(_) => None,
        None => api.store().slot_place(&view).await?,
    };
    let page = Page { after: Told::default(), limit: TIMELINE, until };
    let page = timeline::read(&api, &view, request.as_ref(), page).await?;
    Ok(Json(Whole {
        session: Session::of(&view),
        options: request.map(|request| Options::of(request.state.request.options)),
        playback: live_stream.map(Playback::of).unwrap_or_default(),
        course: Course { slot_place, ..view.detail.map(Course::of).unwrap_or_default() },
        timeline: page.events,
        timeline_next: page.next,
    }))
}

impl Session {
    /// The short form.
    pub(super) fn of(view: &SessionView) -> Self {
        Self {
            id: view.id,
            source: view.source.clone(),
            account: view.account.clone(),
            name: view.name.clone(),
            status: view.status.clone(),
            live_stream_id: view.live_stream,
            requested_at: view.requested_at,
            failure: failure(view),
        }
    }
}

/// Before the live stream exists, only making it can have failed.
fn failure(view: &SessionView) -> Option<Failure> {
    match (&view.detail, &view.failure) {
        (Some(detail), _) => {
            let failure = detail.failure.as_ref()?;
            Some(Failure { call: failure.call.clone(), reason: failure.reason.clone() })
        }
        (None, Some(reason)) => {
            Some(Failure { call: "create_live_stream".to_owned(), reason: reason.clone() })
        }
        (None, None) => None,
    }
}

impl Options {
    fn of(options: SessionOptions) -> Self {
        Self {
            record: options.record,
            auto_go_live: options.auto_go_live,
            dvr: options.dvr,
            transcoding_region: options.transcoding_region,
            quality_set_id: options.quality_set_id,
            client_user_id: options.client_user_id,
            data: options.data,
        }
    }
}

impl Course {
    fn of(detail: SessionDetail) -> Self {
        let gap = |gap: domain::recording::Gap| Gap { after_part: gap.after_part, ms: gap.ms };
        Self {
            broadcast_id: detail.broadcast,
            went_live_at: detail.went_live_at,
            interruption: detail.interruption.as_ref().map(Interrupted::of),
            interruptions: detail.interruptions,
            unstable_since: detail.unstable_since,
            sent: detail.sent.iter().map(Stretch::of).collect(),
            end_reason: detail.end_reason,
            recording: detail.recording,
            parts: detail.parts.into_iter().map(Part::of).collect(),
            gaps: detail.gaps.into_iter().map(gap).collect(),
            recording_refused: detail.recording_refused,
            recording_warnings: detail.recording_warnings,
            waits_for_slot: detail.waits_for_slot,
            slot_place: None,
            problems: detail.problems,
            moments: detail.moments.into_iter().map(Reached::of).collect(),
            in_flight: detail.in_flight,
        }
    }
}

impl Interrupted {
    fn of(interruption: &Interruption) -> Self {
        Self { since: interruption.since, confirmed: interruption.confirmed }
    }
}

impl Stretch {
    fn of(sent: &Sent) -> Self {
        let moment = |known: session::Known| Known {
            at: known.at,
            source: known.source.name(),
            within_ms: known.within_ms,
        };
        Self { from: moment(sent.from), to: sent.to.map(moment) }
    }
}

impl Reached {
    fn of(moment: Moment) -> Self {
        Self { status: moment.status.name(), at: moment.at }
    }
}

impl Part {
    fn of(part: PartDetail) -> Self {
        Self {
            video_id: part.video,
            status: part.status,
            duration_ms: part.duration_ms,
            recording_started_at: part.recording_started_at,
            renditions_complete: part.renditions_complete,
            renditions: part.renditions,
            hls_url: part.hls_url,
            error: part.error,
            overdue: part.overdue,
            by_hand: part.by_hand,
        }
    }
}
