//! What the world will do and when, in the order of the due times.
//!
//! A *step* is a planned consequence. It names the occasion that caused it by a counter (connection,
//! run, order, ..): if the counter has moved on, the step is stale and does nothing. So nothing is
//! ever cancelled.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::{Line, Mishap};

/// One planned consequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The ingester shows a connected source as live.
    IngestLives { stream: i64, line: Line, connection: u64 },
    /// The ingester gives up a connection that went silent.
    IngestTimesOut { stream: i64, line: Line, connection: u64 },
    /// Playback becomes possible in this run of the stream.
    TranscodingStarts { stream: i64, run: u64 },
    /// A switch to `active:false` cuts the ingest.
    SwitchedOff { stream: i64, switches: u64 },
    /// A PULL stream without a source is switched off by the platform.
    PullGivesUp { stream: i64, idle: u64 },
    /// A requested recording takes effect.
    RecordingStarts { stream: i64, order: u64 },
    /// A recording has waited long enough for its lost source.
    HoldEnds { stream: i64, losses: u64 },
    /// A recording file has its full length.
    RecordingIsCut { stream: i64, part: u64 },
    /// Transcoding of a video gets on.
    Transcodes { video: i64, stage: Stage },
    /// An encoder does the next act of its plan.
    EncoderActs { stream: i64, plan: u64 },
    /// An encoder looks whether it still sends as its plan wants.
    EncoderTries { stream: i64, plan: u64, line: Line, begun: u64 },
    /// Platform or people do something by themselves.
    Strikes { mishap: Mishap, generation: u64 },
    /// A stranger's live stream is deleted.
    StrangerLeaves { stream: i64 },
}

/// How far transcoding of a video has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The file is in the queue.
    Queued,
    /// Renditions are being made.
    Begun,
    /// The rendition with this index has ended, well or badly.
    RenditionEnds(usize),
}

/// Planned steps by due time; steps of one moment stay in the order of planning.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    steps: BTreeMap<(DateTime<Utc>, u64), Step>,
    planned: u64,
}

impl Agenda {
    /// Adds a step.
    pub(super) fn plan(&mut self, due: DateTime<Utc>, step: Step) {
        self.planned += 1;
        self.steps.insert((due, self.planned), step);
    }

    /// Returns the earliest due time.
    pub(super) fn next_due(&self) -> Option<DateTime<Utc>> {
        self.steps.keys().next().map(|(due, _)| *due)
    }

    /// Takes out the earliest step that is due by `now`.
    pub(super) fn pop_due(&mut self, now: DateTime<Utc>) -> Option<(DateTime<Utc>, Step)> {
        if self.next_due()? > now {
            return None;
        }
        self.steps.pop_first().map(|((due, _), step)| (due, step))
    }
}
