//! What happens without a request: the platform's own failures, and people in its portal.
//!
//! One variant of [`Mishap`] is one such thing. It strikes by a rate, seeded, or once on request.

use std::collections::BTreeMap;
use std::fmt;

use chrono::{DateTime, Utc};
use rand::RngExt;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::agenda::Step;
use super::live_stream::LiveStream;
use super::options::Options;
use super::truth::Actor;
use super::{ErrorShape, Reply, World, error_body};
use crate::faults::chance::Chance;

/// What platform and people do by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Mishap {
    /// The platform switches an active live stream off, and tells nobody.
    SwitchesOff,
    /// The platform restarts: for 20 s requests are answered by a proxy's page, encoders are cut and
    /// webhooks are lost.
    Restarts,
    /// The storage is full for two minutes: no recording starts, renditions fail.
    RunsFull,
    /// All access tokens expire at once.
    ExpiresTokens,
    /// Somebody deletes a live stream in the portal.
    DeletesStream,
    /// Somebody gives a live stream another name.
    RenamesStream,
    /// Somebody switches a live stream off in the portal.
    Deactivates,
    /// Somebody stops a recording in the portal.
    StopsRecording,
    /// Somebody starts a recording in the portal.
    StartsRecording,
    /// Somebody deletes a video in the portal.
    DeletesVideo,
    /// Somebody sets a broadcast to `paused` in the portal.
    PausesBroadcast,
    /// Somebody deletes a broadcast in the portal.
    DeletesBroadcast,
    /// Somebody makes an active live stream of their own, and deletes it ten minutes later.
    TakesSlot,
}

impl Mishap {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::SwitchesOff,
        Self::Restarts,
        Self::RunsFull,
        Self::ExpiresTokens,
        Self::DeletesStream,
        Self::RenamesStream,
        Self::Deactivates,
        Self::StopsRecording,
        Self::StartsRecording,
        Self::DeletesVideo,
        Self::PausesBroadcast,
        Self::DeletesBroadcast,
        Self::TakesSlot,
    ];

    /// Who does it.
    fn actor(self) -> Actor {
        match self {
            Self::SwitchesOff | Self::Restarts | Self::RunsFull | Self::ExpiresTokens => {
                Actor::Platform
            }
            Self::DeletesStream
            | Self::RenamesStream
            | Self::Deactivates
            | Self::StopsRecording
            | Self::StartsRecording
            | Self::DeletesVideo
            | Self::PausesBroadcast
            | Self::DeletesBroadcast
            | Self::TakesSlot => Actor::Portal,
        }
    }

    /// Whether it can happen to a live stream.
    fn meets(self, stream: &LiveStream) -> bool {
        match self {
            Self::SwitchesOff | Self::Deactivates => stream.is_active(),
            Self::StopsRecording => stream.is_recording(),
            Self::StartsRecording => stream.is_live() && !stream.is_recording(),
            Self::DeletesStream | Self::RenamesStream => true,
            Self::Restarts
            | Self::RunsFull
            | Self::ExpiresTokens
            | Self::DeletesVideo
            | Self::PausesBroadcast
            | Self::DeletesBroadcast
            | Self::TakesSlot => false,
        }
    }
}

/// As in the configuration.
impl fmt::Display for Mishap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = serde_json::to_value(self).unwrap_or_default();
        f.write_str(name.as_str().unwrap_or_default())
    }
}

/// Nominal seconds of a restart.
const RESTART_S: f64 = 20.0;
/// Nominal seconds for which the storage is full.
const FULL_S: f64 = 120.0;
/// Nominal seconds for which a stranger's live stream holds a slot.
const STRANGER_S: f64 = 600.0;

/// Rates, chance, and what still lasts.
pub(super) struct Mishaps {
    rates: BTreeMap<Mishap, f64>,
    /// Changes of the rates: a strike that was planned under others is stale.
    generation: u64,
    chance: Chance,
    down_until: DateTime<Utc>,
    full_until: DateTime<Utc>,
}

impl Mishaps {
    /// None.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            rates: BTreeMap::new(),
            generation: 0,
            chance: Chance::new(seed, "mishaps"),
            down_until: DateTime::<Utc>::MIN_UTC,
            full_until: DateTime::<Utc>::MIN_UTC,
        }
    }

    /// Nominal seconds to the next strike of something that happens so often in a nominal hour.
    fn wait(dice: &mut StdRng, per_hour: f64) -> f64 {
        let chance: f64 = dice.random_range(f64::EPSILON..1.0);
        -chance.ln() * 3600.0 / per_hour
    }
}

impl World {
    /// Replaces the rates, in strikes a nominal hour.
    pub(crate) fn set_mishaps(&mut self, now: DateTime<Utc>, rates: &BTreeMap<Mishap, f64>) {
        self.advance(now);
        if self.mishaps.rates == *rates {
            return;
        }
        self.mishaps.rates.clone_from(rates);
        self.mishaps.generation += 1;
        for mishap in Mishap::ALL {
            self.plan_strike(mishap);
        }
    }

    /// Plans the next strike, if there is to be one.
    fn plan_strike(&mut self, mishap: Mishap) {
        let rate = self.mishaps.rates.get(&mishap).copied().unwrap_or_default();
        if rate > 0.0 && rate.is_finite() {
            let dice = &mut self.mishaps.chance.next(&format!("when {mishap}"));
            let wait = Mishaps::wait(dice, rate);
            let generation = self.mishaps.generation;
            self.plan(wait, Step::Strikes { mishap, generation });
        }
    }

    /// Strikes somewhere, and plans the next time.
    pub(super) fn strikes(&mut self, mishap: Mishap, generation: u64) {
        if generation == self.mishaps.generation {
            self.strike(mishap, None);
            self.plan_strike(mishap);
        }
    }

    /// Lets a mishap strike now: the named live stream, or one that chance picks. Returns whether
    /// there was anything to strike.
    pub(crate) fn mishap(
        &mut self,
        now: DateTime<Utc>,
        mishap: Mishap,
        stream: Option<i64>,
    ) -> bool {
        self.advance(now);
        self.strike(mishap, stream)
    }

    fn strike(&mut self, mishap: Mishap, stream: Option<i64>) -> bool {
        let actor = std::mem::replace(&mut self.ledger.actor, mishap.actor());
        let target = self.target(mishap, stream);
        let struck = self.happens(mishap, target);
        self.ledger.actor = actor;
        if struck {
            let told = json!({"at": self.now, "mishap": mishap, "id": target});
            self.ledger.mishaps.push(told);
        }
        struck
    }

    /// Whom it strikes: a live stream, a video or a broadcast, by its id.
    fn target(&mut self, mishap: Mishap, stream: Option<i64>) -> Option<i64> {
        let is_named = |id: i64| stream.is_none_or(|named| named == id);
        let found: Vec<i64> = if mishap == Mishap::DeletesVideo {
            let of_named = |id: Option<i64>| id.map_or(stream.is_none(), is_named);
            let videos = self.videos.values().filter(|video| of_named(video.stream_id));
            videos.map(|video| video.id).collect()
        } else if matches!(mishap, Mishap::PausesBroadcast | Mishap::DeletesBroadcast) {
            match stream {
                Some(id) => self.broadcasts_of(id),
                None => self.broadcasts.keys().copied().collect(),
            }
        } else {
            let streams = self.streams.values();
            let met = streams.filter(|one| is_named(one.id) && mishap.meets(one));
            met.map(|one| one.id).collect()
        };
        let dice = &mut self.mishaps.chance.next(&format!("whom {mishap}"));
        (!found.is_empty()).then(|| found[dice.random_range(0..found.len())])
    }

    /// Does it. Returns whether anything was done.
    fn happens(&mut self, mishap: Mishap, target: Option<i64>) -> bool {
        match (mishap, target) {
            (Mishap::SwitchesOff | Mishap::Deactivates, Some(id)) => self.switch_off(id),
            (Mishap::DeletesStream, Some(id)) => return self.delete_stream(id).status == 204,
            (Mishap::RenamesStream, Some(id)) => self.rename(id),
            (Mishap::StopsRecording, Some(id)) => return self.stop_recording(id).status < 300,
            (Mishap::StartsRecording, Some(id)) => return self.start_recording(id).status == 204,
            (Mishap::DeletesVideo, Some(id)) => {
                return self.delete_video(&id.to_string()).status == 204;
            }
            (Mishap::PausesBroadcast, Some(id)) => self.pause_broadcast(id),
            (Mishap::DeletesBroadcast, Some(id)) => {
                return self.delete_broadcast(&id.to_string()).status == 204;
            }
            (Mishap::Restarts, _) => self.restart(),
            (Mishap::RunsFull, _) => {
                self.mishaps.full_until = self.pace.after(self.now, FULL_S);
            }
            (Mishap::ExpiresTokens, _) => self.account.expire_all(),
            (Mishap::TakesSlot, _) => return self.stranger_comes(),
            (_, None) => return false,
        }
        true
    }

    fn switch_off(&mut self, id: i64) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.options.set_flag("active", false);
            self.switched(id, false);
        }
    }

    fn rename(&mut self, id: i64) {
        let now = self.now;
        if let Some(stream) = self.streams.get_mut(&id) {
            let name = format!("{} (edited)", stream.options.text("name"));
            stream.options.set_text("name", &name);
            self.ledger.edited(now, id);
        }
    }

    /// The platform goes away for a while, and every connection with it.
    fn restart(&mut self) {
        self.mishaps.down_until = self.pace.after(self.now, RESTART_S);
        let ids: Vec<i64> = self.streams.keys().copied().collect();
        for id in ids {
            self.cut_ingest(id);
        }
    }

    /// Somebody of the same account makes a live stream of their own.
    fn stranger_comes(&mut self) -> bool {
        let body = json!({"name": "Somebody else's", "active": true});
        let serde_json::Value::Object(fields) = body else { return false };
        let Ok(options) = Options::default().with(&fields) else { return false };
        if self.active_streams() >= self.active_quota {
            return false;
        }
        let id = self.add_stream(options);
        self.plan(STRANGER_S, Step::StrangerLeaves { stream: id });
        true
    }

    /// The stranger's live stream is deleted.
    pub(super) fn stranger_leaves(&mut self, id: i64) {
        let actor = std::mem::replace(&mut self.ledger.actor, Actor::Portal);
        self.delete_stream(id);
        self.ledger.actor = actor;
    }

    /// True while the platform restarts.
    pub(super) fn is_down(&self) -> bool {
        self.now < self.mishaps.down_until
    }

    /// True while the storage is full.
    pub(super) fn is_full(&self) -> bool {
        self.now < self.mishaps.full_until
    }

    /// The answer of the proxy in front of a platform that restarts.
    pub(super) fn down() -> Reply {
        let page = "<html><head><title>503 Service Temporarily Unavailable</title></head></html>";
        Reply { status: 503, body: error_body(ErrorShape::Raw, 503, page) }
    }
}
