//! How the platform sees a source: when `live` rises and falls, and what hangs on it.
//!
//! A *run* lasts while at least one line is live. Its webhooks are (live, transcoding, recording) =
//! (T,F,F), (T,T,F), (T,T,T), (F,F,F): the first one comes before anybody can play the stream.

use super::World;
use super::agenda::Step;
use super::encoder::Line;
use crate::RecordingAtDeactivation;

/// Nominal seconds from a connection to `live:true`.
const GOING_LIVE_S: (f64, f64) = (0.5, 1.5);
/// Nominal seconds from `live:true` to `transcoding:true`.
const TRANSCODING_S: (f64, f64) = (2.0, 5.0);
/// Nominal seconds for which a PULL stream looks for its source before it is switched off.
const PULL_PATIENCE_S: f64 = 2.0 * 60.0 * 60.0;

impl World {
    /// Follows a source that may have become visible: connected, on a stream that is switched on.
    pub(super) fn source_is_seen(&mut self, id: i64, line: Line) {
        let Some(stream) = self.streams.get(&id) else { return };
        let ingest = stream.ingest(line);
        if !ingest.connected || !stream.is_active() {
            return;
        }
        if ingest.live {
            self.flow_changed(id); // back before the ingester noticed
            return;
        }
        let connection = ingest.connection;
        let (low, high) = GOING_LIVE_S;
        self.plan_between(low, high, Step::IngestLives { stream: id, line, connection });
    }

    /// A connected line becomes live.
    pub(super) fn ingest_lives(&mut self, id: i64, line: Line, connection: u64) {
        let now = self.now;
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let is_active = stream.is_active();
        let was_live = stream.is_live();
        let ingest = stream.ingest_mut(line);
        if !is_active || !ingest.connected || ingest.live || ingest.connection != connection {
            return;
        }
        ingest.live = true;
        ingest.started_at = Some(now);
        stream.idle += 1;
        if !was_live {
            self.run_begins(id);
        }
        self.flow_changed(id);
        self.tell_stream(id);
    }

    /// The first line has become live.
    fn run_begins(&mut self, id: i64) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.run += 1;
        stream.lives.push((self.now, None));
        self.ledger.lives(self.now, id, true);
        let run = stream.run;
        let (low, high) = TRANSCODING_S;
        self.plan_between(low, high, Step::TranscodingStarts { stream: id, run });
        self.source_is_back(id);
        self.restreams_follow(id, true);
    }

    /// Playback becomes possible, if this run still lasts.
    pub(super) fn transcoding_starts(&mut self, id: i64, run: u64) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.run == run && stream.is_live() && !stream.transcoding {
            stream.transcoding = true;
            self.tell_stream(id);
        }
    }

    /// The ingester gives up a connection that has not come back.
    pub(super) fn ingest_times_out(&mut self, id: i64, line: Line, connection: u64) {
        let Some(stream) = self.streams.get(&id) else { return };
        let ingest = stream.ingest(line);
        if ingest.live && !ingest.connected && ingest.connection == connection {
            self.line_ends(id, line);
        }
    }

    /// A line stops being live.
    pub(super) fn line_ends(&mut self, id: i64, line: Line) {
        let now = self.now;
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let ingest = stream.ingest_mut(line);
        if !ingest.live {
            return;
        }
        ingest.live = false;
        ingest.finished_at = Some(now);
        if !stream.is_live() {
            stream.transcoding = false;
            if let Some((_, ended)) = stream.lives.last_mut() {
                *ended = Some(now);
            }
            self.ledger.lives(now, id, false);
            self.source_is_lost(id);
            self.restreams_follow(id, false);
            self.pull_waits(id);
        }
        self.tell_stream(id);
    }

    /// Cuts whatever is connected, as after a switch to `active:false` or a new push token.
    pub(super) fn cut_ingest(&mut self, id: i64) {
        let now = self.now;
        for line in [Line::Primary, Line::Backup] {
            if let Some(stream) = self.streams.get_mut(&id) {
                // A PULL source is not ours to cut: it stays there, we stop fetching it.
                let stays = stream.is_pull();
                stream.ingest_mut(line).connected &= stays;
                if !stays {
                    self.ledger.sends(now, id, line, false);
                }
            }
            self.line_ends(id, line);
            self.flow_changed(id);
        }
    }

    /// A switch to `active:false` takes effect, unless it was switched again.
    pub(super) fn switched_off(&mut self, id: i64, switches: u64) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.switches != switches || stream.is_active() {
            return;
        }
        self.cut_ingest(id);
        self.recorder_forgets(id);
        if self.behaviour.deactivation == RecordingAtDeactivation::AtOnce {
            self.close_recording(id);
        }
    }

    /// Lets an active PULL stream without a source wait for one.
    pub(super) fn pull_waits(&mut self, id: i64) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.is_pull() && stream.is_active() && !stream.is_live() {
            stream.idle += 1;
            let idle = stream.idle;
            self.plan(PULL_PATIENCE_S, Step::PullGivesUp { stream: id, idle });
        }
    }

    /// Switches off a PULL stream whose source never came. No webhook tells it.
    pub(super) fn pull_gives_up(&mut self, id: i64, idle: u64) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.idle == idle && stream.is_pull() && !stream.is_live() {
            stream.options.set_flag("active", false);
            stream.switches += 1;
            self.ledger.switched(self.now, id, false);
        }
    }
}
