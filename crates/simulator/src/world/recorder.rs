//! Recording a live stream into files.
//!
//! A *recording* here is one file in the making. It is *held* while its source is lost: media that
//! comes back within the hold goes on into the same file, and the held time is not part of its
//! duration. After the hold the file is closed; if the source comes back later, a new file begins,
//! until somebody stops the recording or switches the stream off.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::agenda::Step;
use super::{CLIENT_ID, Reply, ReplyBody, World};
use crate::{NothingRecorded, RecordingAtDeactivation, StartRecording};

/// Nominal seconds from `start_recording` to `recording:true`.
const STARTING_S: (f64, f64) = (3.0, 7.0);

/// What a stream knows about recording.
#[derive(Clone, Debug, Default)]
pub(super) struct Recorder {
    /// Recording was asked for and not stopped: it resumes when a lost source returns.
    wanted: bool,
    /// A start was ordered and has not taken effect.
    starting: bool,
    /// Counts the orders to start, and whatever makes an order void.
    order: u64,
    /// Counts losses and returns of the source.
    losses: u64,
    /// Counts the files.
    part: u64,
    open: Option<OpenFile>,
}

/// One file in the making.
#[derive(Clone, Copy, Debug)]
struct OpenFile {
    started_at: DateTime<Utc>,
    /// Media of the stretches that have ended.
    recorded: TimeDelta,
    /// Since when media flows; `None` while held.
    flowing_since: Option<DateTime<Utc>>,
}

impl OpenFile {
    /// Returns the length of the media recorded up to a moment.
    fn duration(&self, now: DateTime<Utc>) -> TimeDelta {
        self.recorded + self.flowing_since.map_or(TimeDelta::zero(), |since| now - since)
    }
}

impl Recorder {
    /// True while a file is in the making, held or not.
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Returns the length of the file in the making, in seconds to the millisecond.
    pub(super) fn seconds(&self, now: DateTime<Utc>) -> Option<f64> {
        let duration = self.open.as_ref()?.duration(now).to_std().ok()?;
        let millis = u32::try_from(duration.as_millis()).ok()?;
        Some(f64::from(millis) / 1000.0)
    }

    /// Makes every order to start void.
    fn void_orders(&mut self) {
        self.starting = false;
        self.order += 1;
    }
}

impl World {
    /// Orders a recording of a live stream; it takes effect some seconds later.
    pub(super) fn start_recording(&mut self, id: i64) -> Reply {
        let Some(stream) = self.streams.get(&id) else { return Reply::not_found() };
        if !stream.is_live() {
            return Reply::invalid("name", "Error text: Stream is not live.");
        }
        let answer =
            if self.is_full() { StartRecording::NoSpace } else { self.behaviour.start_recording };
        match answer {
            StartRecording::NoContent => {
                self.order_recording(id);
                Reply::empty(204)
            }
            StartRecording::Warning => {
                self.order_recording(id);
                Reply::ok(storage_report(id, &storage_warning(), &json!([])))
            }
            StartRecording::Errors => {
                let error = json!([{"key": "no_space", "message": "Recording was not started"}]);
                Reply::ok(storage_report(id, &json!([]), &error))
            }
            StartRecording::NoSpace => {
                Reply::invalid("name", "Error text: No space for recording the stream.")
            }
        }
    }

    /// Plans the start of a recording; one that runs or is about to start is left alone.
    fn order_recording(&mut self, id: i64) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let recorder = &mut stream.recorder;
        recorder.wanted = true;
        if recorder.starting || recorder.is_open() {
            return;
        }
        recorder.starting = true;
        recorder.order += 1;
        let order = recorder.order;
        let (low, high) = STARTING_S;
        self.plan_between(low, high, Step::RecordingStarts { stream: id, order });
    }

    /// An ordered recording takes effect, if the stream is still live and nobody stopped it.
    pub(super) fn recording_starts(&mut self, id: i64, order: u64) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if !stream.recorder.starting || stream.recorder.order != order {
            return;
        }
        stream.recorder.starting = false;
        if stream.is_live() {
            self.open_file(id);
            self.tell_stream(id);
        }
    }

    /// Begins a file.
    fn open_file(&mut self, id: i64) {
        let now = self.now;
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let flowing_since = stream.flows().then_some(now);
        let recorder = &mut stream.recorder;
        recorder.part += 1;
        recorder.open =
            Some(OpenFile { started_at: now, recorded: TimeDelta::zero(), flowing_since });
        let part = recorder.part;
        let length = f64::from(self.behaviour.cut_after_s);
        self.plan(length, Step::RecordingIsCut { stream: id, part });
    }

    /// Stops recording and answers with the video, or says that there is none.
    pub(super) fn stop_recording(&mut self, id: i64) -> Reply {
        self.recorder_forgets(id);
        let video = self.close_recording(id);
        self.tell_stream_soon(id);
        match video {
            Some(video) => self.get_video(&video.to_string()),
            None => nothing_recorded(self.behaviour.nothing_recorded),
        }
    }

    /// Drops the wish to record.
    pub(super) fn recorder_forgets(&mut self, id: i64) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.recorder.wanted = false;
            stream.recorder.void_orders();
        }
    }

    /// Closes the open file and returns the id of the video that it becomes. Returns `None` if no
    /// file is open, or if it is empty or too short to become one.
    pub(super) fn close_recording(&mut self, id: i64) -> Option<i64> {
        let now = self.now;
        let stream = self.streams.get_mut(&id)?;
        let file = stream.recorder.open.take()?;
        let duration = file.duration(now);
        let shortest = self.pace.scaled(f64::from(self.behaviour.minimum_fragment_s));
        let is_long = !duration.is_zero() && duration >= shortest;
        let video = is_long.then(|| self.add_recorded_video(id, file.started_at, duration));
        self.ledger.file_closed((file.started_at, now), id, duration, video);
        video
    }

    /// Follows media that begins or ends: the open file grows or is held.
    pub(super) fn flow_changed(&mut self, id: i64) {
        let now = self.now;
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let flows = stream.flows();
        let Some(file) = &mut stream.recorder.open else { return };
        match (file.flowing_since, flows) {
            (None, true) => file.flowing_since = Some(now),
            (Some(since), false) => {
                file.recorded += now - since;
                file.flowing_since = None;
            }
            (None, false) | (Some(_), true) => {}
        }
    }

    /// The stream is live again: an open file goes on, else a wanted recording starts anew.
    pub(super) fn source_is_back(&mut self, id: i64) {
        let resumes = self.behaviour.recording_resumes;
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.recorder.losses += 1;
        let again = stream.recorder.wanted && resumes;
        if again || stream.options.flag("auto_record") {
            self.order_recording(id);
        }
    }

    /// The stream is no longer live: the hold begins.
    pub(super) fn source_is_lost(&mut self, id: i64) {
        let deactivation = self.behaviour.deactivation;
        let hold = self.behaviour.recording_hold_s;
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.recorder.losses += 1;
        let losses = stream.recorder.losses;
        let waits_for_stop =
            !stream.is_active() && deactivation == RecordingAtDeactivation::NeverUntilStop;
        if let (Some(seconds), true, false) = (hold, stream.recorder.is_open(), waits_for_stop) {
            self.plan(f64::from(seconds), Step::HoldEnds { stream: id, losses });
        }
    }

    /// The source has not come back in time: the file is closed.
    pub(super) fn hold_ends(&mut self, id: i64, losses: u64) {
        let is_due = self.streams.get(&id).is_some_and(|stream| stream.recorder.losses == losses);
        if is_due {
            self.close_recording(id);
        }
    }

    /// A file has its full length: it is closed and the next one begins at once.
    pub(super) fn recording_is_cut(&mut self, id: i64, part: u64) {
        let Some(stream) = self.streams.get(&id) else { return };
        if stream.recorder.part == part && stream.recorder.is_open() {
            self.close_recording(id);
            self.open_file(id);
        }
    }
}

/// The body of a `start_recording` that has something to say.
fn storage_report(stream: i64, warnings: &Value, errors: &Value) -> Value {
    json!({
        "data": {"stream": {
            "id": stream,
            "client": {"id": CLIENT_ID, "storage_usage_mb": 9_900, "storage_limit_mb": 10_240},
        }},
        "warnings": warnings,
        "errors": errors,
    })
}

/// The one documented warning.
fn storage_warning() -> Value {
    json!([{
        "key": "client_storage_almost_exceeded",
        "source_object": {"id": CLIENT_ID, "type": "client"},
        "meta": {"storage_usage_mb": 9_900, "storage_limit_mb": 10_240},
    }])
}

/// The chosen reading of "empty response".
fn nothing_recorded(form: NothingRecorded) -> Reply {
    let body = match form {
        NothingRecorded::NoContent => return Reply::empty(204),
        NothingRecorded::ZeroBytes => ReplyBody::Empty,
        NothingRecorded::Null => ReplyBody::Json(Value::Null),
        NothingRecorded::EmptyObject => ReplyBody::Json(json!({})),
    };
    Reply { status: 200, body }
}
