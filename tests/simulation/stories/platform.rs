//! The platform of a story: the simulator's world in virtual time, and what it is asked to do held
//! against what may be asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use domain::ids::Timestamp;
use platform::testing::Sent;
use serde_json::Value;
use simulator::testing::{Asked, Encoder, Offline, Outcome};
use simulator::{Config, Faults, Line, Mishap, Rule};
use tokio::sync::Notify;

use super::laws::Laws;
use super::line::lock;
use super::story::{Death, Story};
use crate::clock;

/// The platform, as everybody sees it.
#[derive(Clone)]
pub(super) struct Shared(Arc<Inner>);

struct Inner {
    world: Mutex<Offline>,
    laws: Laws,
    /// Something may be due earlier than expected.
    planned: Notify,
    /// A worker died at a request.
    death: Notify,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    faults: Faults,
    /// Requests at which a worker dies.
    deaths: Vec<Death>,
    /// Workers that died so.
    died: usize,
    /// Calls that change a live stream and are on their way, by the live stream.
    changing: BTreeMap<i64, usize>,
    requests: usize,
}

impl Shared {
    pub(super) fn new(seed: u64, story: &Story, laws: Laws) -> Self {
        let default = Config::default();
        let config = Config {
            seed,
            active_quota: story.quota.unwrap_or(default.active_quota),
            behaviour: story.platform.clone(),
            ..default
        };
        let world = Mutex::new(Offline::new(&config));
        let (planned, death, state) = (Notify::new(), Notify::new(), Mutex::default());
        Self(Arc::new(Inner { world, laws, planned, death, state }))
    }

    /// Does something with the world now.
    fn with<T>(&self, act: impl FnOnce(&mut Offline, Timestamp) -> T) -> T {
        let done = act(&mut lock(&self.0.world), clock::database());
        self.0.planned.notify_one();
        done
    }

    /// Answers a request, and judges what it did.
    pub(super) fn ask(&self, asked: Asked) -> Outcome {
        lock(&self.0.state).requests += 1;
        let (method, path) = (asked.method.clone(), asked.path.clone());
        if method == "DELETE" {
            let state = self.state();
            self.0.laws.deletes(&path, &state);
        }
        let outcome = self.with(|world, now| world.ask(now, asked));
        if method == "POST" {
            self.0.laws.created(&self.truth());
        }
        outcome
    }

    /// The bodies of the webhooks that have arrived.
    pub(super) fn arrived(&self) -> Vec<String> {
        lock(&self.0.world).arrived(clock::database())
    }

    /// When something happens next.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        lock(&self.0.world).next_due()
    }

    /// Waits until something may be due earlier than it was.
    pub(super) async fn planned(&self) {
        self.0.planned.notified().await;
    }

    /// Lets an encoder act. Returns whether it could.
    pub(super) fn encoder(&self, stream: i64, line: Line, act: Encoder) -> bool {
        self.with(|world, now| world.encoder(now, stream, line, act)).is_ok()
    }

    pub(super) fn strike(&self, mishap: Mishap, stream: Option<i64>) -> bool {
        self.with(|world, now| world.strike(now, mishap, stream))
    }

    /// Changes the faults.
    pub(super) fn change(&self, change: impl FnOnce(&mut Faults)) {
        let mut state = lock(&self.0.state);
        change(&mut state.faults);
        let faults = state.faults.clone();
        drop(state);
        self.with(|world, now| world.faults(now, faults));
    }

    /// The network is well again, and nobody dies any more.
    pub(super) fn heal(&self) {
        self.change(|faults| *faults = Faults::default());
        lock(&self.0.state).deaths.clear();
    }

    /// A worker dies at a request.
    pub(super) fn kill_at(&self, death: Death) {
        lock(&self.0.state).deaths.push(death);
    }

    pub(super) fn kills_before(&self, sent: &Sent) -> bool {
        self.kills(|death| matches!(death, Death::Before { request } if meets(request, sent)))
    }

    pub(super) fn kills_after(&self, sent: &Sent) -> bool {
        self.kills(|death| matches!(death, Death::After { request } if meets(request, sent)))
    }

    fn kills(&self, at: impl Fn(&Death) -> bool) -> bool {
        let mut state = lock(&self.0.state);
        let Some(n) = state.deaths.iter().position(at) else { return false };
        state.deaths.remove(n);
        state.died += 1;
        self.0.death.notify_one();
        true
    }

    /// Waits until a worker dies at a request.
    pub(super) async fn death(&self) {
        self.0.death.notified().await;
    }

    /// Workers that have died at requests.
    pub(super) fn died(&self) -> usize {
        lock(&self.0.state).died
    }

    /// A request begins. One at a time may change a live stream, until what is returned is dropped.
    pub(super) fn begins(&self, sent: &Sent) -> Option<Changing> {
        let stream = changed(sent)?;
        let mut state = lock(&self.0.state);
        let changing = state.changing.entry(stream).or_default();
        *changing += 1;
        if *changing > 1 {
            let told = format!("two calls change live stream {stream} at once: {sent:?}");
            self.0.laws.breaks("alone", &told);
        }
        Some(Changing { platform: self.clone(), stream })
    }

    /// A process died: what it had on its way is no longer.
    pub(super) fn forget_changes(&self) {
        lock(&self.0.state).changing.clear();
    }

    pub(super) fn requests(&self) -> usize {
        lock(&self.0.state).requests
    }

    pub(super) fn truth(&self) -> Vec<Value> {
        lock(&self.0.world).truth(clock::database())
    }

    pub(super) fn state(&self) -> Value {
        lock(&self.0.world).state(clock::database())
    }
}

/// A request that changes a live stream and is on its way.
pub(super) struct Changing {
    platform: Shared,
    stream: i64,
}

impl Drop for Changing {
    fn drop(&mut self) {
        lock(&self.platform.0.state).changing.remove(&self.stream);
    }
}

fn meets(request: &str, sent: &Sent) -> bool {
    Rule::is_met(request, &sent.method, &sent.path)
}

/// The live stream that a request changes.
fn changed(sent: &Sent) -> Option<i64> {
    let rest = sent.path.strip_prefix("/streaming/streams/")?;
    let id = rest.split('/').next()?.parse().ok()?;
    (sent.method != "GET").then_some(id)
}
