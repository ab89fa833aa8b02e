//! Switches for what the public documents of the platform leave open or answer twice.
//!
//! A *behaviour* is one possible platform: every combination of switches must be survived by a
//! client. The defaults follow the current API reference; the variants follow older pages, or are
//! the plausible answers where no page answers. Durations are nominal seconds: they are divided by
//! the time scale of the run.

use serde::{Deserialize, Serialize};

use crate::faults::Refusal;
use crate::world::ErrorShape;

/// One possible platform; read and written as JSON by `/_control/behaviour`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is one independent switch")]
pub struct Behaviour {
    /// What happens when one more stream would be `active` than the quota allows.
    pub quota_breach: QuotaBreach,
    /// Which body form `POST /streaming/streams` takes.
    pub create_body: BodyForm,
    /// True: a PATCH of a stream without `name` is refused with 422, as the schema implies.
    pub patch_needs_name: bool,
    /// False: creating a broadcast answers 200 without a body, as the API reference has it.
    pub create_broadcast_answers_body: bool,
    /// False: creating a video answers one video and not a list of one, as the platform's own
    /// library reads it.
    pub create_video_answers_list: bool,
    /// How many restreams an account may have.
    pub restream_quota: u16,
    /// How `PUT .../start_recording` answers for a live stream.
    pub start_recording: StartRecording,
    /// How `PUT .../stop_recording` says that nothing was recorded.
    pub nothing_recorded: NothingRecorded,
    /// Seconds for which a recording waits for a lost source; `0` closes the file at once, `None`
    /// waits until somebody stops the recording. 10 by the API reference, 60 by the portal's page.
    pub recording_hold_s: Option<u32>,
    /// True: a source that comes back after the hold is recorded again, into a new file.
    pub recording_resumes: bool,
    /// When switching a stream off closes its recording.
    pub deactivation: RecordingAtDeactivation,
    /// Shorter fragments, in seconds, make no video; `0` lets every fragment make one.
    pub minimum_fragment_s: u32,
    /// Length of a recording file, in seconds, at which it is cut and the next one begins.
    pub cut_after_s: u32,
    /// How `GET` of a stream shows `recording`, a field that the schema lacks.
    pub recording_in_get: FlagInGet,
    /// Seconds by which `live`, `backup_live` and `recording` of a GET lag behind the webhooks.
    pub flags_lag_s: u32,
    /// Whether the video of a clip names the stream that it was cut from.
    pub clip_video: ClipVideo,
    /// Whether an active or live stream may be deleted.
    pub delete_guard: DeleteGuard,
    /// True: a reset of the push token cuts the running ingest (200); false: 202, ingest goes on.
    pub token_reset_cuts_ingest: bool,
    /// How transcoding of a recording ends.
    pub encoding: Encoding,
    /// How often `viewable` is told.
    pub viewable: ViewableWebhooks,
    /// True: stream webhooks have three fields (`id`, `live`, `recording`), as before September 2025.
    pub legacy_stream_webhooks: bool,
    /// True: video webhooks lack `stream_id` and `mp4_url`, as before September 2025.
    pub legacy_video_webhooks: bool,
    /// JSON type of `client_user_id` in webhooks.
    pub user_id_form: UserIdForm,
    /// Protocol that encoders use for PUSH; shown as `stream_source_type` and inside `uri`.
    pub source_type: SourceType,
    /// Items on a page of a list, where the request names no `per_page`; at least 1.
    pub page_size: u16,
    /// True: every second page is half as long, so that a short page is not the last one.
    pub short_pages: bool,
    /// Rows by which later pages begin too early or too late at most, as if the list changed while
    /// it is read.
    pub pages_shift_by: u8,
    /// Status of the streaming service in `GET /iam/clients/me`, e.g. `active` or `paused`.
    pub service_status: String,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            quota_breach: QuotaBreach::default(),
            create_body: BodyForm::Either,
            patch_needs_name: false,
            create_broadcast_answers_body: true,
            create_video_answers_list: true,
            restream_quota: 1,
            start_recording: StartRecording::NoContent,
            nothing_recorded: NothingRecorded::ZeroBytes,
            recording_hold_s: Some(10),
            recording_resumes: true,
            deactivation: RecordingAtDeactivation::AfterHold,
            minimum_fragment_s: 10,
            cut_after_s: 4 * 60 * 60,
            recording_in_get: FlagInGet::Present,
            flags_lag_s: 0,
            clip_video: ClipVideo::Plain,
            delete_guard: DeleteGuard::Accept,
            token_reset_cuts_ingest: true,
            encoding: Encoding::Completes,
            viewable: ViewableWebhooks::Once,
            legacy_stream_webhooks: false,
            legacy_video_webhooks: false,
            user_id_form: UserIdForm::Integer,
            source_type: SourceType::Rtmp,
            page_size: 25,
            short_pages: false,
            pages_shift_by: 0,
            service_status: "active".to_owned(),
        }
    }
}

/// The platform's answer to a breach of the active-stream quota; no document prints it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuotaBreach {
    /// The request is refused and changes nothing.
    Refused(Refusal),
    /// The request is answered with 200 and carried out, but `active` stays false.
    StaysInactive,
    /// Refused in another way each time: with every plausible status, in every shape, and now and
    /// then by an `active` that stays false.
    Varied,
}

impl Default for QuotaBreach {
    fn default() -> Self {
        Self::Refused(Refusal::new(422, ErrorShape::A, "Live streams limit is exceeded"))
    }
}

/// Which body form a create operation takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BodyForm {
    /// `{"name":..}` and `{"stream":{"name":..}}`.
    Either,
    /// Only `{"name":..}`, as the API reference has it.
    Flat,
    /// Only `{"stream":{"name":..}}`, as the tutorial has it.
    Wrapped,
}

/// The answer of `start_recording` for a live stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartRecording {
    /// 204: it will record.
    NoContent,
    /// 200 with a storage warning: it will record.
    Warning,
    /// 200 with a non-empty `errors` list: it will not record.
    Errors,
    /// 422 "No space for recording the stream": it will not record.
    NoSpace,
}

/// The four readings of "empty response".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NothingRecorded {
    /// 200 with a body of zero bytes.
    ZeroBytes,
    /// 200 with `null`.
    Null,
    /// 200 with `{}`.
    EmptyObject,
    /// 204.
    NoContent,
}

/// When switching a stream off closes its recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordingAtDeactivation {
    /// In the moment of the PATCH.
    AtOnce,
    /// As after any loss of the source: when the hold is over.
    AfterHold,
    /// Only by `stop_recording` or the deletion of the stream.
    NeverUntilStop,
}

/// How an optional flag appears in a GET answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlagInGet {
    /// As a boolean.
    Present,
    /// Not at all.
    Absent,
    /// As `null`.
    Null,
}

/// What the video of a clip tells. The documents say of `stream_id` and `recording_started_at` that
/// they are set if the video "was saved from a stream", and print no video of a clip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClipVideo {
    /// Neither: it is known by the clip alone.
    Plain,
    /// Both, so that it looks like a recording that overlaps the one it was cut from.
    OfStream,
}

/// Whether an active or live stream may be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeleteGuard {
    /// Any stream is deleted.
    Accept,
    /// An active or live stream is refused with 422.
    Refuse,
}

/// How transcoding of a recording ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// All renditions complete: `ready`.
    Completes,
    /// The last rendition fails for lack of storage: `viewable` for ever.
    RenditionFails,
    /// No rendition completes: `error`.
    Fails,
    /// One video in ten ends as `RenditionFails`, one in twenty as `Fails`, by its id.
    Varied,
    /// No further rendition ends while this is set.
    Waits,
}

/// How often `viewable` is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ViewableWebhooks {
    /// With the first rendition.
    Once,
    /// With every rendition but the last.
    PerRendition,
    /// Never: `ready` follows `pending`.
    Skipped,
}

/// JSON type of `client_user_id` in webhooks: one page says string, another integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserIdForm {
    /// `1001`
    Integer,
    /// `"1001"`
    Text,
    /// `null`, whatever the stream says.
    Null,
}

/// Protocol of an encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceType {
    /// RTMP or RTMPS.
    Rtmp,
    /// SRT.
    Srt,
    /// WHIP.
    Webrtc,
}
