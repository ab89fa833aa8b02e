//! Rows of the projections, derived from folded state: what the API reads.
//!
//! A row follows from one state alone, so live rows and rebuilt rows are equal.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::{BroadcastId, LiveStreamId, Subject, Timestamp, VideoId};
use crate::live_stream::LiveStream;
use crate::recording::{Gap, Part, RecordingStatus};
use crate::request::Request;
use crate::session::{Failure, Interruption, Moment, Sent, Session};
use crate::state::{Body, State};
use crate::video::Video;
use crate::webhook::VideoStatus;

/// A row of a projection.
#[expect(clippy::large_enum_variant, reason = "rows are written at once and moved rarely")]
#[derive(Debug, Clone, PartialEq)]
pub enum Row {
    /// Of `session_request`.
    Request(RequestRow),
    /// Of `session`.
    Session(SessionRow),
    /// Of `live_stream`.
    LiveStream(LiveStreamRow),
    /// Of `video`.
    Video(VideoRow),
    /// Of `account`.
    Account(AccountRow),
}

/// What tells the rows of one slice apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowKey {
    /// Of `session_request`.
    Request(Uuid),
    /// Of `session`.
    Session(Uuid),
    /// Of `live_stream`: source and id.
    LiveStream(String, LiveStreamId),
    /// Of `video`: source and id.
    Video(String, VideoId),
    /// Of `account`: source and id.
    Account(String, String),
}

impl Row {
    /// The row's key within its slice.
    pub fn key(&self) -> RowKey {
        match self {
            Self::Request(row) => RowKey::Request(row.session),
            Self::Session(row) => RowKey::Session(row.session),
            Self::LiveStream(row) => RowKey::LiveStream(row.source.clone(), row.id),
            Self::Video(row) => RowKey::Video(row.source.clone(), row.id),
            Self::Account(row) => RowKey::Account(row.source.clone(), row.id.clone()),
        }
    }
}

/// A session before it has its live stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RequestRow {
    /// The session.
    pub session: Uuid,
    /// The platform account.
    pub source: String,
    /// The product's account.
    pub account: Option<String>,
    /// Its name.
    pub name: String,
    /// `requested`, `preparing`, `failed` or `ended`.
    pub status: String,
    /// Why it failed.
    pub failure: Option<String>,
    /// Its live stream, once known.
    pub live_stream: Option<LiveStreamId>,
    /// When it was asked for.
    pub requested_at: Timestamp,
}

/// A session on its live stream.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionRow {
    /// The session.
    pub session: Uuid,
    /// The platform account.
    pub source: String,
    /// The product's account.
    pub account: Option<String>,
    /// Its live stream.
    pub live_stream: LiveStreamId,
    /// Where it stands.
    pub status: String,
    /// When that changed last.
    pub status_at: Timestamp,
    /// The rest.
    pub detail: SessionDetail,
}

/// What is told of a session besides its keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionDetail {
    /// Its name.
    pub name: String,
    /// Its broadcast.
    pub broadcast: Option<BroadcastId>,
    /// When it first went on air.
    pub went_live_at: Option<Timestamp>,
    /// The present interruption.
    pub interruption: Option<Interruption>,
    /// Interruptions so far, short ones included.
    pub interruptions: u64,
    /// Since when its encoder reconnects again and again.
    #[serde(default)]
    pub unstable_since: Option<Timestamp>,
    /// Why it was ended, where nobody commanded it.
    #[serde(default)]
    pub end_reason: Option<String>,
    /// How its recording stands: `none`, `open`, `complete` or `incomplete`.
    #[serde(default)]
    pub recording: Option<String>,
    /// When its encoder sent, and how that is known.
    #[serde(default)]
    pub sent: Vec<Sent>,
    /// Parts of its recording.
    pub parts: Vec<PartDetail>,
    /// Gaps between them.
    pub gaps: Vec<Gap>,
    /// Why it is not recorded.
    pub recording_refused: Option<String>,
    /// What the platform warned of.
    pub recording_warnings: Vec<String>,
    /// The call that failed.
    pub failure: Option<Failure>,
    /// The platform had no slot free for it, in the platform's words: it tries again.
    #[serde(default)]
    pub waits_for_slot: Option<String>,
    /// What went wrong without failing it.
    pub problems: Vec<String>,
    /// How it came to its status.
    pub moments: Vec<Moment>,
    /// The platform call that runs.
    pub in_flight: Option<String>,
}

impl SessionDetail {
    /// Takes over what is known of videos by now. A session that is over is folded no further once
    /// a later one on its live stream is over too; its videos are, each by itself.
    pub fn hear(&mut self, videos: &BTreeMap<VideoId, String>) {
        for part in &mut self.parts {
            let known = VideoStatus::of_name(&part.status);
            let told = videos.get(&part.video).and_then(|name| VideoStatus::of_name(name));
            let Some(told) = told.filter(|told| Some(*told) > known) else { continue };
            told.name().clone_into(&mut part.status);
            part.overdue &= !matches!(told, VideoStatus::Ready | VideoStatus::Error);
            if !told.is_playable() {
                self.recording = Some(RecordingStatus::Incomplete.name().to_owned());
            }
        }
    }
}

/// A part of a recording.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PartDetail {
    /// The platform's video.
    pub video: VideoId,
    /// Its status.
    pub status: String,
    /// Milliseconds.
    pub duration_ms: Option<i64>,
    /// When it begins.
    pub recording_started_at: Option<Timestamp>,
    /// Renditions that can be played.
    pub renditions_complete: usize,
    /// All renditions.
    pub renditions: usize,
    /// HLS manifest.
    pub hls_url: Option<String>,
    /// Why it failed.
    pub error: Option<String>,
    /// It was waited for too long: the recording is completed without it.
    #[serde(default)]
    pub overdue: bool,
    /// Somebody else recorded it: the session was not to be recorded, or not yet.
    #[serde(default)]
    pub by_hand: bool,
}

/// A live stream.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveStreamRow {
    /// The platform account.
    pub source: String,
    /// Its id.
    pub id: LiveStreamId,
    /// The product's account of its latest session.
    pub account: Option<String>,
    /// The installation that made it, by its tag.
    pub installation: Option<Uuid>,
    /// The switch.
    pub active: Option<bool>,
    /// An encoder sends.
    pub live: bool,
    /// Since when it has had no session and was neither live nor active.
    pub idle_since: Option<Timestamp>,
    /// It was deleted.
    pub deleted: bool,
    /// Address for players.
    pub hls_url: Option<String>,
    /// Address for players.
    pub dash_url: Option<String>,
    /// The platform's player page.
    pub iframe_url: Option<String>,
}

/// A video.
#[derive(Debug, Clone, PartialEq)]
pub struct VideoRow {
    /// The platform account.
    pub source: String,
    /// Its id.
    pub id: VideoId,
    /// The live stream it was recorded from.
    pub live_stream: Option<LiveStreamId>,
    /// How far it is.
    pub status: String,
    /// Milliseconds.
    pub duration_ms: Option<i64>,
}

/// An account of the product.
#[derive(Debug, Clone, PartialEq)]
pub struct AccountRow {
    /// The platform account.
    pub source: String,
    /// Its id.
    pub id: String,
    /// When it was deleted.
    pub deleted_at: Option<Timestamp>,
}

/// The rows that follow from the state of `subject`.
pub fn rows(subject: &Subject, state: &State) -> Vec<Row> {
    let source = || subject.source().to_owned();
    match &state.body {
        Body::Request(request) => vec![Row::Request(request_row(request))],
        Body::LiveStream(live_stream) => {
            let sessions = live_stream.sessions.iter();
            let mut rows: Vec<Row> =
                sessions.map(|s| Row::Session(session_row(source(), live_stream, s))).collect();
            rows.push(Row::LiveStream(live_stream_row(source(), live_stream)));
            rows
        }
        Body::Video(video) => vec![Row::Video(video_row(source(), video))],
        Body::Account(account) => vec![Row::Account(AccountRow {
            source: source(),
            id: account.id.clone(),
            deleted_at: account.deleted_at,
        })],
        Body::Broadcast(_) | Body::Quota(_) | Body::Cleanup(_) => Vec::new(),
    }
}

/// Those of [`rows`] that no later event of `subject` touches: its next event takes their sessions
/// out of the state. A fold that derives rows from last states alone keeps these before each event.
pub fn leaving(subject: &Subject, state: &State) -> Vec<Row> {
    let Body::LiveStream(live_stream) = &state.body else { return Vec::new() };
    let sessions = live_stream.sessions.iter().enumerate();
    let leaving = sessions.filter(|(at, _)| live_stream.leaves(*at)).map(|(_, session)| session);
    let row = |s| Row::Session(session_row(subject.source().to_owned(), live_stream, s));
    leaving.map(row).collect()
}

/// The row of a request; the API derives it too, where the projection has none yet.
pub fn request_row(state: &Request) -> RequestRow {
    RequestRow {
        session: state.request.session,
        source: state.request.source.clone(),
        account: state.request.account.clone(),
        name: state.request.name.clone(),
        status: state.status().to_owned(),
        failure: state.failure.clone(),
        live_stream: state.live_stream,
        requested_at: state.requested_at,
    }
}

fn session_row(source: String, live_stream: &LiveStream, session: &Session) -> SessionRow {
    let has_stream = live_stream.running().is_some_and(|running| running.id == session.id);
    let in_flight = live_stream.in_flight.as_ref().filter(|_| has_stream);
    let recording = &session.recording;
    SessionRow {
        session: session.id,
        source,
        account: session.account.clone(),
        live_stream: live_stream.id,
        status: session.status.name().to_owned(),
        status_at: session.moments.last().map_or_else(Timestamp::default, |m| m.at),
        detail: SessionDetail {
            name: session.name.clone(),
            broadcast: session.open_broadcast().map(|b| b.id),
            went_live_at: session.went_live_at,
            interruption: session.interruption.clone(),
            interruptions: session.interruptions,
            unstable_since: session.losses.unstable_since,
            end_reason: session.end_reason.clone(),
            recording: Some(recording.status(session.is_over()).name().to_owned()),
            sent: session.sent.clone(),
            parts: recording.parts.iter().map(|part| part_detail(session, part)).collect(),
            gaps: recording.gaps(),
            recording_refused: recording.refused.clone(),
            recording_warnings: recording.warnings.clone(),
            failure: session.failure.clone(),
            waits_for_slot: session.waits_for_slot.clone(),
            problems: session.problems.clone(),
            moments: session.moments.clone(),
            in_flight: in_flight.map(|call| call.call.kind().to_owned()),
        },
    }
}

fn part_detail(session: &Session, part: &Part) -> PartDetail {
    let video = &part.video;
    PartDetail {
        video: video.id,
        status: video.status.name().to_owned(),
        duration_ms: video.duration_ms,
        recording_started_at: video.recording_started_at,
        renditions_complete: video.renditions.iter().filter(|r| r.status == "complete").count(),
        renditions: video.renditions.len(),
        hls_url: video.hls_url.clone(),
        error: video.error.clone(),
        overdue: part.overdue && !part.is_final(),
        by_hand: session.is_by_hand(part),
    }
}

fn live_stream_row(source: String, live_stream: &LiveStream) -> LiveStreamRow {
    let playback = live_stream.playback.clone().unwrap_or_default();
    LiveStreamRow {
        source,
        id: live_stream.id,
        account: live_stream.account.clone(),
        installation: live_stream.owner.map(|o| o.installation),
        active: live_stream.active,
        live: live_stream.is_on_air(),
        idle_since: live_stream.idle_since,
        deleted: live_stream.deleted,
        hls_url: playback.hls_url,
        dash_url: playback.dash_url,
        iframe_url: playback.iframe_url,
    }
}

fn video_row(source: String, video: &Video) -> VideoRow {
    VideoRow {
        source,
        id: video.seen.id,
        live_stream: video.seen.live_stream,
        status: video.seen.status.name().to_owned(),
        duration_ms: video.seen.duration_ms,
    }
}
