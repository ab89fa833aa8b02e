//! The pretend platform as a pure, seeded state machine.
//!
//! A *world* takes requests and encoder actions together with the time at which they happen, answers
//! at once, and plans what follows in its agenda. It reads no clock and does no I/O: whoever owns it
//! tells it the time (`advance`) and carries away the webhooks it wants sent (`take_webhooks`). The
//! same seed, requests and times give the same answers and webhooks, byte for byte.
//!
//! Not its job: the network, faults of the network, sending webhooks.

mod accepts;
mod accounts;
mod agenda;
mod ai;
mod broadcasts;
mod clips;
mod crew;
mod dice;
mod directories;
mod encoder;
mod ingest;
mod live_stream;
mod mishaps;
mod options;
mod overlays;
mod pages;
mod players;
mod playlists;
mod quota;
mod recorder;
mod reply;
mod restreams;
mod routes;
mod shelf;
mod snapshot;
mod statistics;
mod streams;
mod subtitles;
mod transcoder;
mod truth;
mod uploads;
mod video;
mod videos;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

pub use self::crew::Encoders;
pub(crate) use self::encoder::Action;
pub use self::encoder::Line;
pub use self::mishaps::Mishap;
pub use self::reply::ErrorShape;
pub(crate) use self::reply::{Reply, ReplyBody, Request, error_body};
pub(crate) use self::snapshot::Webhook;

use self::accounts::Account;
use self::agenda::{Agenda, Step};
use self::ai::AiTask;
use self::broadcasts::Broadcast;
use self::clips::Clip;
use self::crew::Crew;
use self::dice::{Dice, Pace};
use self::live_stream::LiveStream;
use self::mishaps::Mishaps;
use self::shelf::Shelf;
use self::truth::{Actor, Ledger};
use self::video::Video;
use crate::{Behaviour, Config};

/// The whole state of one pretend account.
pub(crate) struct World {
    behaviour: Behaviour,
    legacy_broadcast_webhooks: bool,
    active_quota: usize,
    account: Account,
    pace: Pace,
    dice: Dice,
    agenda: Agenda,
    ledger: Ledger,
    mishaps: Mishaps,
    crew: Crew,
    outbox: Vec<Webhook>,
    /// The latest time seen; the world's time never runs backwards.
    now: DateTime<Utc>,
    /// When the last webhook is due: they leave in the order in which things happened.
    last_due: DateTime<Utc>,
    streams: BTreeMap<i64, LiveStream>,
    broadcasts: BTreeMap<i64, Broadcast>,
    /// The broadcasts of each stream: a list of a thousand streams asks for each.
    shown_by: BTreeMap<i64, BTreeSet<i64>>,
    videos: BTreeMap<i64, Video>,
    clips: Vec<Clip>,
    overlays: Shelf,
    restreams: Shelf,
    subtitles: Shelf,
    playlists: Shelf,
    directories: Shelf,
    players: Shelf,
    /// The quality sets for live streams and for videos that are used where none is named.
    default_quality_sets: [i64; 2],
    ai_tasks: Vec<AiTask>,
    next_stream: i64,
    next_broadcast: i64,
    next_video: i64,
    next_rendition: i64,
}

/// The account of the tutorial's samples.
const CLIENT_ID: i64 = 58_725;

impl World {
    /// Makes an empty world. Ids begin with those of the tutorial, so that its walk prints the same.
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            behaviour: config.behaviour.clone(),
            legacy_broadcast_webhooks: config.legacy_broadcast_webhooks,
            active_quota: usize::try_from(config.active_quota).unwrap_or(usize::MAX),
            account: Account::new(config),
            pace: Pace::new(config.time_scale),
            dice: Dice::new(config.seed),
            agenda: Agenda::default(),
            ledger: Ledger::default(),
            mishaps: Mishaps::new(config.seed),
            crew: Crew::new(config.seed, config.encoders.clone()),
            outbox: Vec::new(),
            now: DateTime::<Utc>::MIN_UTC,
            last_due: DateTime::<Utc>::MIN_UTC,
            streams: BTreeMap::new(),
            broadcasts: BTreeMap::new(),
            shown_by: BTreeMap::new(),
            videos: BTreeMap::new(),
            clips: Vec::new(),
            overlays: overlays::shelf(),
            restreams: restreams::shelf(),
            subtitles: subtitles::shelf(),
            playlists: playlists::shelf(),
            directories: directories::shelf(),
            players: players::shelf(),
            default_quality_sets: players::default_quality_sets(),
            ai_tasks: Vec::new(),
            next_stream: 320_423,
            next_broadcast: 192_470,
            next_video: 803_111,
            next_rendition: 25_889_825,
        }
    }

    /// Does everything that is due, each at its own time.
    pub(crate) fn advance(&mut self, now: DateTime<Utc>) {
        while let Some((due, step)) = self.agenda.pop_due(now) {
            self.now = self.now.max(due);
            self.perform(step);
        }
        self.now = self.now.max(now);
    }

    /// Returns when something is due next, or `None` while nothing is planned.
    pub(crate) fn next_due(&self) -> Option<DateTime<Utc>> {
        self.agenda.next_due()
    }

    /// Returns the webhooks that were decided since the last call, in order of their due times.
    pub(crate) fn take_webhooks(&mut self) -> Vec<Webhook> {
        std::mem::take(&mut self.outbox)
    }

    /// Replaces the switches; what is planned already stays planned.
    pub(crate) fn behave(&mut self, behaviour: Behaviour) {
        self.behaviour = behaviour;
    }

    /// Returns the switches in force.
    pub(crate) fn behaviour(&self) -> &Behaviour {
        &self.behaviour
    }

    /// Answers one request of the platform's API.
    pub(crate) fn request(&mut self, now: DateTime<Utc>, request: &Request) -> Reply {
        self.advance(now);
        if self.is_down() {
            return Self::down();
        }
        self.ledger.actor = Actor::Api;
        let reply = self.route(request);
        self.ledger.actor = Actor::Platform;
        reply
    }

    /// Returns the whole state as JSON, for people; it holds secrets until it is redacted.
    pub(crate) fn state(&mut self, now: DateTime<Utc>) -> Value {
        self.advance(now);
        let streams: Vec<Value> = self.streams.values().map(LiveStream::state).collect();
        let broadcasts: Vec<Value> = self.broadcasts.values().map(Broadcast::view).collect();
        let videos: Vec<Value> = self.videos.values().map(Video::view).collect();
        json!({
            "now": timestamp(self.now),
            "active_streams": self.active_streams(),
            "active_quota": self.active_quota,
            "streams": streams,
            "broadcasts": broadcasts,
            "videos": videos,
        })
    }

    /// Does one planned step. A step whose cause has passed does nothing.
    fn perform(&mut self, step: Step) {
        match step {
            Step::IngestLives { stream, line, connection } => {
                self.ingest_lives(stream, line, connection);
            }
            Step::IngestTimesOut { stream, line, connection } => {
                self.ingest_times_out(stream, line, connection);
            }
            Step::TranscodingStarts { stream, run } => self.transcoding_starts(stream, run),
            Step::SwitchedOff { stream, switches } => self.switched_off(stream, switches),
            Step::PullGivesUp { stream, idle } => self.pull_gives_up(stream, idle),
            Step::RecordingStarts { stream, order } => self.recording_starts(stream, order),
            Step::HoldEnds { stream, losses } => self.hold_ends(stream, losses),
            Step::RecordingIsCut { stream, part } => self.recording_is_cut(stream, part),
            Step::Transcodes { video, stage } => self.transcodes(video, stage),
            Step::EncoderActs { stream, plan } => self.encoder_acts(stream, plan),
            Step::EncoderTries { stream, plan, line, begun } => {
                self.encoder_tries(stream, plan, line, begun);
            }
            Step::Strikes { mishap, generation } => self.strikes(mishap, generation),
            Step::StrangerLeaves { stream } => self.stranger_leaves(stream),
        }
    }

    /// Plans a step for the given number of nominal seconds from now.
    fn plan(&mut self, nominal_seconds: f64, step: Step) {
        self.agenda.plan(self.pace.after(self.now, nominal_seconds), step);
    }

    /// Plans a step for a moment between two nominal delays, chosen by the seed.
    fn plan_between(&mut self, low_seconds: f64, high_seconds: f64, step: Step) {
        let delay = self.dice.between(low_seconds, high_seconds);
        self.plan(delay, step);
    }
}

/// Writes a time as the platform does: `2022-06-03T13:24:29.000Z`.
fn timestamp(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}
