//! Encoders that play plans by themselves: connect, drop for short and for long, reconnect in loops,
//! with and without a backup.
//!
//! A *plan* is a list of acts of one live stream, drawn from the seed and the live stream's name when
//! it is switched on. An encoder whose connection was cut or refused tries again, as real ones do,
//! while its plan has it send. Not its job: what the platform sees of it.

use std::collections::BTreeMap;

use rand::RngExt;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

use super::agenda::Step;
use super::encoder::Action;
use super::{Line, World};
use crate::faults::chance::dice;

/// What plans look like. Times are nominal seconds, the shortest and the longest; shares are from 0
/// to 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Encoders {
    /// From the switch to the first connection.
    pub comes_after_s: [f64; 2],
    /// From the first connection to the end of the plan.
    pub length_s: [f64; 2],
    /// Most incidents of one plan. At least two minutes lie between them.
    pub incidents: u32,
    /// Share of the incidents that are short drops: 1 to 8 s.
    pub short: f64,
    /// Share of the incidents that are long drops: 25 to 90 s. What is neither is a reconnect loop:
    /// six connections of a few seconds each.
    pub long: f64,
    /// Share of the plans with a backup encoder beside the primary one.
    pub backup: f64,
    /// Share of the plans that end without a goodbye; a third of the others goes on sending until
    /// somebody switches the live stream off.
    pub vanishes: f64,
}

impl Default for Encoders {
    fn default() -> Self {
        Self {
            comes_after_s: [2.0, 15.0],
            length_s: [300.0, 900.0],
            incidents: 3,
            short: 0.5,
            long: 0.4,
            backup: 0.2,
            vanishes: 0.3,
        }
    }
}

/// Nominal seconds between two tries of an encoder that was refused or cut.
const TRIES_AGAIN_S: f64 = 5.0;

/// Nominal seconds that an incident has for itself.
const INCIDENT_S: f64 = 120.0;

/// One act of a plan.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Act {
    /// Nominal seconds after the begin of the plan.
    at: f64,
    what: What,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    Line(Line, Action),
    /// The plan is over, whatever still sends.
    Done,
}

/// Where an encoder is in its plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum EncoderState {
    /// It plays.
    Playing,
    /// Its plan is over.
    Done,
}

/// An encoder.
struct Member {
    /// Plans so far: an act of an earlier one is stale.
    plan: u64,
    acts: Vec<Act>,
    next: usize,
    /// The lines on which it wants to send.
    wants: [bool; 2],
    /// Connections that its plan began, by line: what looks after an earlier one is stale.
    begun: [u64; 2],
}

/// All encoders.
#[derive(Default)]
pub(super) struct Crew {
    /// `None`: nobody comes by himself.
    style: Option<Encoders>,
    seed: u64,
    members: BTreeMap<i64, Member>,
}

impl Crew {
    /// Makes a crew.
    pub(super) fn new(seed: u64, style: Option<Encoders>) -> Self {
        Self { style, seed, members: BTreeMap::new() }
    }

    /// Where the encoder of a live stream is in its plan, if it has one.
    pub(super) fn state(&self, stream: i64) -> Option<EncoderState> {
        let member = self.members.get(&stream)?;
        let is_done = member.next >= member.acts.len();
        Some(if is_done { EncoderState::Done } else { EncoderState::Playing })
    }
}

/// The place of a line in `wants`.
fn index(line: Line) -> usize {
    match line {
        Line::Primary => 0,
        Line::Backup => 1,
    }
}

impl World {
    /// Changes the plans of live streams that are switched on from now on; `None`: nobody comes.
    pub(crate) fn set_encoders(&mut self, style: Option<Encoders>) {
        self.crew.style = style;
    }

    /// How plans are made now.
    pub(crate) fn encoders(&self) -> Option<&Encoders> {
        self.crew.style.as_ref()
    }

    /// Where each encoder is in its plan.
    pub(crate) fn encoder_states(&self) -> serde_json::Value {
        let state = |id: &i64| (id.to_string(), serde_json::json!(self.crew.state(*id)));
        serde_json::Value::Object(self.crew.members.keys().map(state).collect())
    }

    /// Gives a live stream that was switched on a plan, unless it is in the middle of one.
    pub(super) fn encoder_is_called(&mut self, id: i64) {
        let Some(style) = self.crew.style.clone() else { return };
        let Some(stream) = self.streams.get(&id) else { return };
        if self.crew.state(id) == Some(EncoderState::Playing) {
            return;
        }
        let plan = self.crew.members.get(&id).map_or(0, |member| member.plan) + 1;
        let name = format!("{} {plan}", stream.options.text("name"));
        let acts = plan_of(&style, &mut dice(self.crew.seed, &name));
        let begins = acts.first().map_or(0.0, |act| act.at);
        self.crew
            .members
            .insert(id, Member { plan, acts, next: 0, wants: [false; 2], begun: [0; 2] });
        self.plan(begins, Step::EncoderActs { stream: id, plan });
    }

    /// Does the next act of a plan and plans the one after.
    pub(super) fn encoder_acts(&mut self, id: i64, plan: u64) {
        let Some(member) = self.crew.members.get_mut(&id).filter(|one| one.plan == plan) else {
            return;
        };
        let Some(act) = member.acts.get(member.next).copied() else { return };
        member.next += 1;
        let next = member.acts.get(member.next).map(|next| next.at - act.at);
        if let What::Line(line, action) = act.what {
            member.wants[index(line)] = action == Action::Push;
            member.begun[index(line)] += 1;
            let begun = member.begun[index(line)];
            // A refusal is met by another try.
            let _ = self.act(id, line, action);
            if action == Action::Push {
                let step = Step::EncoderTries { stream: id, plan, line, begun };
                self.plan(TRIES_AGAIN_S, step);
            }
        }
        if let Some(after) = next {
            self.plan(after.max(0.0), Step::EncoderActs { stream: id, plan });
        }
    }

    /// Connects an encoder again that wants to send and does not.
    pub(super) fn encoder_tries(&mut self, id: i64, plan: u64, line: Line, begun: u64) {
        let wants = |one: &&Member| {
            one.plan == plan && one.wants[index(line)] && one.begun[index(line)] == begun
        };
        let Some(member) = self.crew.members.get(&id).filter(wants) else { return };
        let is_done = member.next >= member.acts.len();
        let Some(stream) = self.streams.get(&id) else { return };
        if !stream.ingest(line).connected {
            // Nobody fights against a switch that was turned when the show was over.
            if is_done && !stream.is_active() {
                return;
            }
            let _ = self.act(id, line, Action::Push);
        }
        self.plan(TRIES_AGAIN_S, Step::EncoderTries { stream: id, plan, line, begun });
    }
}

/// Draws a plan.
fn plan_of(style: &Encoders, dice: &mut StdRng) -> Vec<Act> {
    let begin = between(dice, style.comes_after_s);
    let end = begin + between(dice, style.length_s).max(1.0);
    let mut acts = vec![push(begin, Line::Primary)];
    if dice.random_bool(style.backup.clamp(0.0, 1.0)) {
        acts.push(push(begin + between(dice, [1.0, 3.0]), Line::Backup));
    }
    let has_backup = acts.len() > 1;
    // Each incident has a stretch of its own, and the show a while before and after them.
    let room = ((end - begin) / INCIDENT_S).floor() - 1.0;
    let most = if room > 0.0 { style.incidents.min(whole(room)) } else { 0 };
    let count = dice.random_range(0..=most);
    for n in 1..=count {
        let at = begin + f64::from(n) * (end - begin) / f64::from(count + 1);
        acts.extend(incident(style, dice, at));
    }
    let farewell = if dice.random_bool(style.vanishes.clamp(0.0, 1.0)) {
        Some(Action::Drop)
    } else {
        // Two of three say goodbye, the third goes on.
        (dice.random_range(0..3) > 0).then_some(Action::Stop)
    };
    if let Some(action) = farewell {
        acts.push(line(end, Line::Primary, action));
        acts.extend(has_backup.then(|| line(end + 0.5, Line::Backup, action)));
    }
    acts.push(Act { at: end + 1.0, what: What::Done });
    acts
}

/// One thing that goes wrong on the primary line.
fn incident(style: &Encoders, dice: &mut StdRng, at: f64) -> Vec<Act> {
    let away = |at: f64, seconds: f64| {
        [line(at, Line::Primary, Action::Drop), push(at + seconds, Line::Primary)]
    };
    let kind = dice.random_range(0.0..1.0);
    if kind < style.short {
        return away(at, between(dice, [1.0, 8.0])).into();
    }
    if kind < style.short + style.long {
        return away(at, between(dice, [25.0, 90.0])).into();
    }
    let mut now = at;
    let mut acts = Vec::new();
    for _ in 0..6 {
        let seconds = between(dice, [3.5, 6.0]);
        acts.extend(away(now, seconds));
        now += seconds + between(dice, [4.0, 8.0]);
    }
    acts
}

fn push(at: f64, on: Line) -> Act {
    line(at, on, Action::Push)
}

fn line(at: f64, line: Line, action: Action) -> Act {
    Act { at, what: What::Line(line, action) }
}

fn between(dice: &mut StdRng, [low, high]: [f64; 2]) -> f64 {
    if low < high { dice.random_range(low..high) } else { low }
}

/// A small number of incidents.
fn whole(value: f64) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to a few hundred before"
    )]
    let whole = value.clamp(0.0, 500.0) as u32;
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_in_order_and_the_same_for_one_seed_and_name() {
        for n in 0..200 {
            let name = format!("session {n}");
            let plan = plan_of(&Encoders::default(), &mut dice(1, &name));
            assert_eq!(plan, plan_of(&Encoders::default(), &mut dice(1, &name)));
            assert!(plan.is_sorted_by(|a, b| a.at <= b.at), "{plan:?}");
            assert_eq!(plan.last().map(|act| act.what), Some(What::Done));
        }
    }

    #[test]
    fn a_plan_that_is_short_has_no_incidents() {
        let style = Encoders { length_s: [60.0, 60.0], backup: 0.0, ..Encoders::default() };
        for n in 0..50 {
            let plan = plan_of(&style, &mut dice(2, &n.to_string()));
            assert!(plan.len() <= 3, "{plan:?}");
        }
    }
}
