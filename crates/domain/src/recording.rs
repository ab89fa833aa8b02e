//! The logical recording of a session: ordered parts, each a platform video, and the gaps between.
//!
//! How many parts there are is observed, never predicted: the platform bridges short drops, cuts
//! long files, and people press buttons.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::{Timestamp, VideoId};
use crate::video::{Video, merge};
use crate::webhook::{VideoObserved, VideoStatus};

/// Starts of a recording without effect after which no further one is tried.
const MAX_STARTS: u32 = 3;

/// Lists without the file of a recording that ran, after which none is expected any more: what is
/// shorter than 10 s never becomes a video.
const MAX_LISTS: u32 = 3;

/// How long the platform may tell that a recording runs which has ended. Where it is longer, a list
/// is asked for in vain.
const FLAGS_LAG: TimeDelta = TimeDelta::seconds(5);

/// A session's recording.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, none is a mode")]
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Recording {
    /// A start was accepted whose effect has not been seen.
    pub starting: bool,
    /// A stop was accepted whose effect has not been seen.
    pub stopping: bool,
    /// Starts without effect so far.
    pub starts: u32,
    /// It ran at least once, or a start was accepted.
    pub ran: bool,
    /// It may have run and nobody told: an encoder sent and no webhook said so, or may have sent to a
    /// used live stream before that was deleted, and the platform may have gone on with what it
    /// recorded before; or the answer to a start was lost.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub may_have_run: bool,
    /// A recording ran whose video has not been heard of.
    pub expects_file: bool,
    /// When an answer last told that one runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_at: Option<Timestamp>,
    /// Somebody else stopped it while on air: not started again.
    pub stopped_by_hand: bool,
    /// Why the platform does not record.
    pub refused: Option<String>,
    /// What the platform warned of.
    pub warnings: Vec<String>,
    /// The parts, in order of time.
    pub parts: Vec<Part>,
    /// Times the platform was asked for all videos after the session's end.
    pub lists: u32,
    /// They need not be asked for again.
    pub listed: bool,
}

/// A part of a recording.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, none is a mode")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// What is known of its video.
    pub video: VideoObserved,
    /// It could be played at some time.
    pub was_playable: bool,
    /// Its final state was asked for.
    pub fetched: bool,
    /// A list of the live stream's videos lacked it, and it has not been asked for by itself.
    pub unlisted: bool,
    /// When it was first heard of, or its session went off air, whichever was later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// It was waited for too long: the recording is completed without it. News of it are heard.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overdue: bool,
}

/// How a recording stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordingStatus {
    /// Nothing was recorded, as far as is known.
    None,
    /// Its session is not off air, or a part is in work.
    Open,
    /// All of it can be played.
    Complete,
    /// A part failed, was deleted, is overdue, or was recorded and never became a video.
    Incomplete,
}

impl RecordingStatus {
    /// Its name, as our API writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Open => "open",
            Self::Complete => "complete",
            Self::Incomplete => "incomplete",
        }
    }
}

/// A gap between two parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The part before it, from 1.
    pub after_part: usize,
    /// Milliseconds between the end of that part and the start of the next, both as the platform
    /// reports them.
    pub ms: i64,
}

impl Part {
    /// Whether its video can change no more.
    pub fn is_final(&self) -> bool {
        self.video.is_final()
    }

    /// Whether nothing more is waited for.
    fn is_settled(&self) -> bool {
        self.overdue || (self.is_final() && !self.needs_fetch())
    }

    /// What it lacks, in words, if anything.
    fn lacks(&self) -> Option<String> {
        let whole =
            self.is_final() && self.video.status.is_playable() && !self.has_failed_rendition();
        (!whole).then(|| format!("video {} is {}", self.video.id, self.video.status.name()))
    }

    fn has_failed_rendition(&self) -> bool {
        self.video.error.is_some() || self.video.renditions.iter().any(|r| r.status == "error")
    }

    /// Whether it is to be asked for by itself.
    fn needs_fetch(&self) -> bool {
        let is_deleted = self.video.status == VideoStatus::Deleted;
        !is_deleted && (self.unlisted || (self.is_final() && !self.fetched))
    }
}

impl Recording {
    /// Whether a start should be sent, given that the session is on air and `running` was told.
    pub(crate) fn wants_start(&self, running: Option<bool>) -> bool {
        running != Some(true)
            && !self.starting
            && !self.stopped_by_hand
            && self.refused.is_none()
            && self.starts < MAX_STARTS
    }

    /// Whether a stop should be sent, given that `running` was told.
    pub(crate) fn wants_stop(&self, running: Option<bool>) -> bool {
        (running == Some(true) || self.starting) && !self.stopping
    }

    /// Applies what was told of the platform's recording flag.
    pub(crate) fn flag(&mut self, before: Option<bool>, now: Option<bool>, on_air: bool) {
        match now {
            Some(true) => {
                if before != Some(true) {
                    // Another file: a stop before it was for the one before.
                    self.stopping = false;
                    self.stopped_by_hand = false;
                    self.refused = None;
                    self.expects_file = true;
                }
                self.ran = true;
                self.starting = false;
                self.starts = 0;
            }
            Some(false) => {
                let fell = before == Some(true);
                self.stopped_by_hand |= fell && on_air && !self.stopping;
                self.stopping = false;
            }
            None => {}
        }
    }

    /// The encoder's connection is gone: its return starts afresh, refused or not.
    pub(crate) fn connection_lost(&mut self) {
        self.starting = false;
        self.stopped_by_hand = false;
        self.refused = None;
        self.starts = 0;
    }

    /// A start was accepted.
    pub(crate) fn started(&mut self, warnings: &[String]) {
        self.starting = true;
        self.stopping = false;
        self.starts += 1;
        self.ran = true;
        self.warnings = warnings.to_vec();
    }

    /// A stop was accepted; `video` is what the platform made of the file.
    pub(crate) fn stopped(&mut self, was_running: bool, video: Option<&VideoObserved>) {
        self.starting = false;
        self.stopping = true;
        self.expects_file |= was_running;
        if let Some(video) = video {
            // The answer names the video; that it is there is believed when it reports itself.
            let named = VideoObserved { status: VideoStatus::Unknown, ..video.clone() };
            self.part(&named, false);
            self.expects_file = false;
        }
    }

    /// A stop was accepted, and what it closed is a file of the session before: none of this one ran.
    pub(crate) fn stopped_another(&mut self) {
        self.starting = false;
        self.stopping = true;
        self.expects_file = false;
    }

    /// The platform was asked after a start, and the recording does not run.
    pub(crate) fn start_had_no_effect(&mut self) {
        self.starting = false;
        if self.starts >= MAX_STARTS {
            self.refused = Some("the platform accepted the start and did not record".to_owned());
        }
    }

    /// Adds or updates a part.
    pub(crate) fn part(&mut self, seen: &VideoObserved, by_api: bool) {
        self.ran = true;
        if let Some(part) = self.parts.iter_mut().find(|part| part.video.id == seen.id) {
            merge(&mut part.video, seen, by_api);
            part.was_playable |= part.video.status.is_playable();
        } else {
            self.expects_file = false;
            let mut video = Video::new(seen.id).seen;
            merge(&mut video, seen, by_api);
            self.parts.push(Part {
                video,
                was_playable: seen.status.is_playable(),
                fetched: false,
                unlisted: false,
                since: None,
                overdue: false,
            });
        }
        self.sort();
    }

    /// Orders the parts: by the time they began where all tell it, else by id, which the platform
    /// gives in the order in which files are closed.
    fn sort(&mut self) {
        let all_tell = self.parts.iter().all(|p| p.video.recording_started_at.is_some());
        let time = |p: &Part| p.video.recording_started_at.filter(|_| all_tell);
        self.parts.sort_by_key(|p| (time(p), p.video.id));
    }

    /// The gaps that are known.
    pub fn gaps(&self) -> Vec<Gap> {
        let end = |part: &Part| {
            let duration = chrono::TimeDelta::try_milliseconds(part.video.duration_ms?)?;
            part.video.recording_started_at?.checked_add_signed(duration)
        };
        // A file that was cut goes on where the one before it ends, to the millisecond or not.
        let gap = |(n, pair): (usize, &[Part])| {
            let ms = (pair[1].video.recording_started_at? - end(&pair[0])?).num_milliseconds();
            (ms > 0).then_some(Gap { after_part: n + 1, ms })
        };
        self.parts.windows(2).enumerate().filter_map(gap).collect()
    }

    /// Where the known parts end, as far as they tell.
    pub(crate) fn known_until(&self) -> Option<Timestamp> {
        let end = |part: &Part| {
            let duration = chrono::TimeDelta::try_milliseconds(part.video.duration_ms?)?;
            part.video.began_at()?.checked_add_signed(duration)
        };
        self.parts.iter().filter_map(end).max()
    }

    /// Whether one ran after all known parts had ended, as far as they tell: the file of that is
    /// not known, whatever else has become a video since.
    pub(crate) fn outran_parts(&self) -> bool {
        let after = self.running_at.zip(self.known_until());
        after.is_some_and(|(running, until)| running - until > FLAGS_LAG)
    }

    /// A video that is to be asked for by itself.
    pub(crate) fn to_fetch(&self) -> Option<VideoId> {
        self.parts.iter().find(|part| part.needs_fetch()).map(|part| part.video.id)
    }

    /// The videos that are waited for and known by name.
    pub(crate) fn awaited(&self) -> impl Iterator<Item = VideoId> {
        let parts = self.parts.iter().filter(|part| !part.is_settled() && !part.needs_fetch());
        parts.map(|part| part.video.id)
    }

    /// Whether a file may be missing that nobody has named yet: only a list of the live stream's
    /// videos finds it.
    pub(crate) fn awaits_unnamed(&self) -> bool {
        self.needs_list() && !self.listed && (self.expects_file || self.is_settled())
    }

    /// Notes that a sweep saw a video otherwise: it is asked for by itself.
    pub(crate) fn seen_otherwise(&mut self, video: VideoId) {
        let is_it = |part: &&mut Part| part.video.id == video;
        for part in self.parts.iter_mut().filter(is_it) {
            part.unlisted |= part.video.status != VideoStatus::Deleted;
        }
    }

    /// Notes that a video was asked for, whether or not an answer came.
    pub(crate) fn fetched(&mut self, video: VideoId) {
        for part in self.parts.iter_mut().filter(|part| part.video.id == video) {
            part.unlisted = false;
            part.fetched |= part.is_final();
        }
    }

    /// Notes that a video does not exist any more.
    pub(crate) fn gone(&mut self, video: VideoId) {
        for part in self.parts.iter_mut().filter(|part| part.video.id == video) {
            part.video.status = VideoStatus::Deleted;
            part.unlisted = false;
        }
    }

    /// Notes a list of the live stream's videos, and which of the parts it holds; `in_doubt`: a file
    /// may come of which nobody has told.
    pub(crate) fn listed(
        &mut self,
        off_air: bool,
        in_doubt: bool,
        holds: impl Fn(VideoId) -> bool,
    ) {
        for part in &mut self.parts {
            part.unlisted |= !part.is_final() && !holds(part.video.id);
        }
        if off_air {
            self.lists += 1;
            self.listed = !(self.expects_file || in_doubt) || self.lists >= MAX_LISTS;
        }
    }

    /// Notes that the platform did not tell the live stream's videos.
    pub(crate) fn list_failed(&mut self) {
        self.lists += 1;
        self.listed |= self.lists >= MAX_LISTS;
    }

    /// Whether all videos should be asked for at once: no known one is in work, and none is
    /// expected. Later tries are left to the poll.
    pub(crate) fn wants_list(&self) -> bool {
        self.needs_list() && self.lists == 0 && !self.expects_file && self.is_settled()
    }

    /// Whether one may have run of whose file nothing was told: that a start was accepted tells of none.
    pub(crate) fn is_untold(&self) -> bool {
        self.may_have_run && self.parts.is_empty()
    }

    /// Whether the end of its session is not the end before a list told of its files.
    fn needs_list(&self) -> bool {
        self.ran || self.may_have_run
    }

    /// Whether nothing more is waited for.
    pub(crate) fn is_done(&self) -> bool {
        self.is_settled() && (self.listed || !self.needs_list())
    }

    /// Whether no known part is waited for.
    fn is_settled(&self) -> bool {
        self.parts.iter().all(Part::is_settled)
    }

    /// Lets the wait for the final states of parts begin, where it has not.
    pub(crate) fn await_parts(&mut self, at: Timestamp) {
        for part in &mut self.parts {
            part.since = part.since.or(Some(at));
        }
    }

    /// Notes that these videos were waited for too long.
    pub(crate) fn overdue(&mut self, videos: &[VideoId]) {
        for part in &mut self.parts {
            part.overdue |= videos.contains(&part.video.id) && !part.is_final();
        }
    }

    /// How it stands, of a session that `is_over` or not.
    pub fn status(&self, is_over: bool) -> RecordingStatus {
        if !self.ran && self.parts.is_empty() {
            RecordingStatus::None
        } else if !is_over {
            RecordingStatus::Open
        } else if self.lacks().is_empty() {
            RecordingStatus::Complete
        } else {
            RecordingStatus::Incomplete
        }
    }

    /// What it lacks, in words.
    pub fn lacks(&self) -> Vec<String> {
        let missing = self.expects_file.then(|| "a file never became a video".to_owned());
        self.parts.iter().filter_map(Part::lacks).chain(missing).collect()
    }

    /// Whether a part was announced by a stop and its video has not reported itself.
    pub(crate) fn awaits_part(&self) -> bool {
        self.parts.iter().any(|part| part.video.status <= VideoStatus::Empty)
    }
}

/// Which session a video belongs to, for as long as the live stream is known.
pub(crate) type Owners = std::collections::BTreeMap<VideoId, Uuid>;

/// [`Owners`] as a list of pairs: numbers as keys of a JSON object cannot be read back inside an
/// internally tagged enum.
pub(crate) mod owners {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::{Owners, Uuid, VideoId};

    /// Writes pairs.
    pub(crate) fn serialize<S: Serializer>(owners: &Owners, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(owners)
    }

    /// Reads pairs.
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Owners, D::Error> {
        Vec::<(VideoId, Uuid)>::deserialize(from).map(|pairs| pairs.into_iter().collect())
    }
}

#[cfg(test)]
mod tests;
