//! Laws of the fold and of decisions, for any events in any order.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::call::{Call, CallResult};
use crate::decide::decide;
use crate::effect::Effect;
use crate::event::{BroadcastChanged, CallFailed, CallIntended, CallSucceeded, JobEnded};
use crate::ids::{Subject, derived_id};
use crate::scenario::{Answer, SOURCE, Scenario};
use crate::slot::{SlotEvent, SlotGranted};
use crate::timer::Policy;
use crate::view::{Row, RowKey, leaving, rows};
use crate::webhook;

mod arbitrary;

use arbitrary::{arb_event, arb_events, arb_result, session, webhooks};

const STREAM: i64 = 320_423;

/// Decisions that are told again until they are folded, and stored once for their keys.
const ONCE: [&str; 3] = ["CallIntended", "LimitExceeded", "SlotsConfigured"];

fn recorded(subject: &Subject, n: usize, seconds: i64) -> RecordedEvent {
    let received_at = Timestamp::from_timestamp(1_654_262_600 + seconds, 0).unwrap();
    RecordedEvent {
        slice: 2,
        position: i64::try_from(n).unwrap() + 1,
        recorded_at: received_at,
        received_at,
        event_id: derived_id("test", &[&n.to_string()]),
        subject: subject.clone(),
        event_type: String::new(),
        schema_version: 1,
        causation_id: None,
        correlation_id: None,
        meta: None,
        payload: Vec::new(),
    }
}

fn fold(subject: &Subject, from: Option<State>, events: &[(Event, i64)]) -> Option<State> {
    events.iter().enumerate().fold(from, |state, (n, (event, seconds))| {
        evolve(state, &recorded(subject, n, *seconds), event)
    })
}

/// The state once the sessions that the last event ended have left.
fn settled(state: Option<State>) -> Option<State> {
    let mut state = state?;
    if let Body::LiveStream(stream) = &mut state.body {
        let leaves: Vec<bool> = (0..stream.sessions.len()).map(|at| stream.leaves(at)).collect();
        let mut leaves = leaves.into_iter();
        stream.sessions.retain(|_| leaves.next() != Some(true));
    }
    Some(state)
}

fn stored(state: Option<&State>) -> Option<State> {
    let text = serde_json::to_string(&state).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn subjects() -> Vec<Subject> {
    let object = |kind: &str, id: &str| Subject::from_stored(format!("{SOURCE}/{kind}/{id}"));
    vec![
        object("stream", "320423"),
        object("video", "803111"),
        object("broadcast", "192470"),
        object("request", &session(0).to_string()),
        object("account", "user-17"),
        object("restream", "1"),
        object("unrecognized", ""),
        Subject::quota(SOURCE),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_fold_may_be_cut_and_stored_anywhere(events in arb_events(), cut in 0..40_usize) {
        let cut = cut.min(events.len());
        for subject in subjects() {
            let whole = fold(&subject, None, &events);
            let half = stored(fold(&subject, None, &events[..cut]).as_ref());
            prop_assert_eq!(fold(&subject, half, &events[cut..]), whole);
        }
    }

    #[test]
    fn no_order_of_events_panics_or_decides_a_second_call(events in arb_events()) {
        for subject in subjects() {
            let mut state = None;
            for (n, (event, seconds)) in events.iter().enumerate() {
                let cause = recorded(&subject, n, *seconds);
                let after = evolve(state.clone(), &cause, event);
                let effects = decide(&Policy::default(), state.as_ref(), &cause, event, after.as_ref());
                let intended = effects.iter().filter(|effect| matches!(effect,
                    Effect::Append(event) if event.event_type == "CallIntended")).count();
                prop_assert!(intended <= 1);
                if let Some(State { body: Body::LiveStream(stream), .. }) = &after {
                    prop_assert!(stream.in_flight.is_none() || intended == 0);
                    prop_assert!(stream.in_flight.is_none() || stream.next_call().is_none());
                }
                if let Some(after) = &after {
                    let _ = rows(&subject, after);
                    prop_assert!(state.as_ref().is_none_or(|before| before.at <= after.at));
                }
                state = after;
            }
        }
    }

    /// A session that is not over has a call due or in flight, or a wait.
    #[test]
    fn nothing_is_ever_stuck(events in arb_events()) {
        let subject = Subject::live_stream(SOURCE, LiveStreamId(STREAM));
        let Some(State { body: Body::LiveStream(stream), .. }) = fold(&subject, None, &events)
        else { return Ok(()) };
        prop_assert!(!is_stuck(&stream), "{:?}", stream);
    }

    /// An outcome, whatever it says, never leads to the very call that it is the outcome of: a
    /// refusal of the platform is not answered in a tight loop.
    #[test]
    fn no_outcome_leads_to_the_same_call(
        events in prop::collection::vec((arb_input(), prop::option::weighted(0.4, arb_outcome())), 1..60),
    ) {
        let mut walk = Walk::default();
        for (event, outcome) in events {
            walk.apply(&event);
            let mut outcome = outcome;
            for calls in 0.. {
                prop_assert!(calls < 30, "calls without end: {:?}", walk.stream());
                walk.grant();
                let Some(call) = walk.stream().and_then(LiveStream::next_call) else { break };
                let intent = derived_id("walk", &[&walk.n.to_string()]);
                walk.apply(&Event::CallIntended(CallIntended { intent, call: call.clone() }));
                match outcome.take().unwrap_or_else(|| Some(obedient(&call))) {
                    Some(result) => walk.apply(&Event::CallSucceeded(CallSucceeded { intent, result })),
                    None => walk.apply(&Event::CallFailed(CallFailed { intent, reason: "r".to_owned() })),
                }
                let next = walk.stream().and_then(LiveStream::next_call);
                prop_assert_ne!(next, Some(call), "{:?}", walk.stream());
            }
            prop_assert!(!walk.stream().is_some_and(is_stuck), "{:?}", walk.stream());
        }
    }

    /// Whatever came before: a webhook that comes again changes nothing of what is known.
    #[test]
    fn a_repeated_webhook_changes_no_state(
        events in arb_events(),
        body in prop::sample::select(webhooks()),
    ) {
        let webhook = Event::WebhookReceived(webhook::read(&body));
        for subject in subjects() {
            let known = fold(&subject, fold(&subject, None, &events), &[(webhook.clone(), 200_000)]);
            let again = fold(&subject, known.clone(), &[(webhook.clone(), 200_000)]);
            prop_assert_eq!(settled(again), settled(known));
        }
    }

    /// What holds of the states of whole sessions holds after any events in any order.
    #[test]
    fn no_order_of_events_breaks_what_holds_of_every_state(events in arb_events()) {
        for subject in subjects() {
            let (mut state, mut bound) = (None, std::collections::BTreeSet::new());
            for (n, (event, seconds)) in events.iter().enumerate() {
                // Its key lets it come once.
                if let Event::SessionBound(b) = event && !bound.insert(b.request.session) {
                    continue;
                }
                let after = evolve(state.clone(), &recorded(&subject, n, *seconds), event);
                if let Some(after) = &after {
                    let kept = crate::scenario::invariants::check(state.as_ref(), after);
                    prop_assert_eq!(kept, Ok(()), "{:?} after {:?}", event, state);
                }
                state = after;
            }
        }
    }

    /// What a webhook tells twice is known once.
    #[test]
    fn a_repeated_webhook_announces_and_calls_nothing(
        events in arb_events(),
        body in prop::sample::select(webhooks()),
    ) {
        let webhook = Event::WebhookReceived(webhook::read(&body));
        for subject in subjects() {
            let known = fold(&subject, fold(&subject, None, &events), &[(webhook.clone(), 200_000)]);
            let cause = recorded(&subject, 99, 200_000);
            let after = evolve(known.clone(), &cause, &webhook);
            let effects = decide(&Policy::default(), known.as_ref(), &cause, &webhook, after.as_ref());
            let due = |state: &Option<State>| match state.as_ref().map(|s| &s.body) {
                Some(Body::LiveStream(stream)) => stream.next_call(),
                Some(Body::Request(_) | Body::Video(_) | Body::Broadcast(_) | Body::Account(_) | Body::Quota(_) | Body::Cleanup(_))
                | None => None,
            };
            // A call that was due before is named again and kept once by its intent, and so is a
            // limit that was exceeded.
            let news = effects.iter().any(|effect| matches!(effect,
                Effect::Append(event) if !ONCE.contains(&event.event_type.as_str())));
            prop_assert!(!news, "{:?}", effects);
            prop_assert_eq!(due(&known), due(&after));
        }
    }
}

/// Whether a session is open and nothing will ever move it: no call due or in flight, no wait with
/// a timer.
fn is_stuck(stream: &LiveStream) -> bool {
    let open = stream.sessions.iter().any(|s| !s.is_over());
    let moves =
        stream.in_flight.is_some() || stream.next_call().is_some() || stream.wait().is_some();
    open && !moves
}

/// A live stream whose calls are made one by one.
struct Walk {
    subject: Subject,
    state: Option<State>,
    n: usize,
}

impl Default for Walk {
    fn default() -> Self {
        Self { subject: Subject::live_stream(SOURCE, LiveStreamId(STREAM)), state: None, n: 0 }
    }
}

impl Walk {
    fn apply(&mut self, event: &Event) {
        let seconds = i64::try_from(self.n).unwrap();
        let cause = recorded(&self.subject, self.n, seconds);
        self.state = evolve(self.state.take(), &cause, event);
        self.n += 1;
    }

    /// Gives the session its slot that waits for one.
    fn grant(&mut self) {
        let Some(running) = self.stream().and_then(LiveStream::running) else { return };
        if running.lacks_slot() {
            let (session, ticket) = (running.id, running.slot.ticket);
            let granted = SlotEvent::Granted(SlotGranted { session, ticket });
            self.apply(&Event::Slot(granted));
        }
    }

    fn stream(&self) -> Option<&LiveStream> {
        match &self.state.as_ref()?.body {
            Body::LiveStream(stream) => Some(stream),
            Body::Request(_)
            | Body::Video(_)
            | Body::Broadcast(_)
            | Body::Account(_)
            | Body::Quota(_)
            | Body::Cleanup(_) => None,
        }
    }
}

/// What comes from outside, not from our own calls.
fn arb_input() -> impl Strategy<Value = Event> {
    arb_event().prop_filter("an input", |event| {
        !matches!(event, Event::CallIntended(_) | Event::CallSucceeded(_) | Event::CallFailed(_))
    })
}

/// An answer, fitting or not; `None`: the call was given up.
fn arb_outcome() -> impl Strategy<Value = Option<CallResult>> {
    prop::option::weighted(0.8, arb_result())
}

/// The answer of a platform on which nothing goes wrong.
fn obedient(call: &Call) -> CallResult {
    match call {
        Call::CreateBroadcast { .. } => {
            CallResult::Broadcast { observed: json!({"id": 192_470, "status": "pending"}) }
        }
        Call::StartRecording { .. } => CallResult::RecordingStarted { warnings: Vec::new() },
        Call::StopRecording { .. } => CallResult::RecordingStopped { video: None },
        Call::ListVideos { .. } => CallResult::Videos { observed: Vec::new() },
        Call::ObserveQuota { .. } => {
            CallResult::ActiveStreams { active: Vec::new(), inactive: Vec::new() }
        }
        Call::CreateLiveStream { .. }
        | Call::UpdateLiveStream { .. }
        | Call::ClearDvr { .. }
        | Call::ActivateLiveStream { .. }
        | Call::DeactivateLiveStream { .. }
        | Call::SetBroadcastStatus { .. }
        | Call::DeleteBroadcast { .. }
        | Call::ObserveLiveStream { .. }
        | Call::ObserveBroadcast { .. }
        | Call::FetchVideo { .. }
        | Call::DeleteLiveStream { .. }
        | Call::ProbeLiveStream { .. }
        | Call::DeleteRecordings { .. } => CallResult::Done,
    }
}

proptest! {
    // Each case is days of a whole installation.
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A whole installation, driven at random: whatever happens, commands to end and time end
    /// every session, and the platform's answers are obeyed by no loop.
    #[test]
    fn whatever_happens_every_session_can_be_ended(steps in prop::collection::vec(0..17_u8, 0..40)) {
        let mut s = Scenario::new();
        let ids = drive(&mut s, &steps);
        for kind in KINDS {
            s.platform.release(kind);
        }
        while let Some(kind) = s.held().first().map(|held| held.call.kind()) {
            s.let_go(kind);
        }
        s.platform.set(STREAM, |t| { t.live = false; t.backup_live = false; t.recording = false; });
        s.given();
        for _ in 0..15 {
            for id in &ids {
                s.end(*id);
            }
            s.pass(std::time::Duration::from_mins(10));
        }
        prop_assert!(s.calls().len() < 1000);
        let open: Vec<_> = s.states().filter_map(|(_, state)| match &state.body {
            Body::LiveStream(stream) => Some(stream),
            Body::Request(_) | Body::Video(_) | Body::Broadcast(_) | Body::Account(_) | Body::Quota(_) | Body::Cleanup(_) => None,
        }).flat_map(|stream| &stream.sessions).filter(|session| {
            session.recording.parts.iter().all(crate::recording::Part::is_final) && !session.is_over()
        }).collect();
        prop_assert!(open.is_empty(), "{:?}", open);
    }
}

/// States and rows with their positions, from events read whole and rows derived at every event.
fn live(log: &[RecordedEvent]) -> Folded {
    let mut folded = Folded::default();
    for stored in log {
        let (slice, position) = (stored.slice, stored.position);
        let before = folded.0.remove(&stored.subject).map(|(state, _)| state);
        let Some(state) = evolve(before, stored, &Event::decode(stored)) else { continue };
        for row in rows(&stored.subject, &state) {
            folded.1.insert((slice, row.key()), (row, position));
        }
        folded.0.insert(stored.subject.clone(), (state, position));
    }
    folded
}

/// The same as a rebuild does it: bodies without meaning skipped, rows derived from what leaves a
/// state and from last states alone.
fn rebuilt(log: &[RecordedEvent]) -> Folded {
    let (mut states, mut kept) = Folded::<Option<State>>::default();
    for stored in log {
        let (state, position) = states.entry(stored.subject.clone()).or_insert((None, 0));
        for row in state.iter().flat_map(|state| leaving(&stored.subject, state)) {
            kept.insert((stored.slice, row.key()), (row, *position));
        }
        let event = Event::decode_for_fold(stored.stored());
        evolve_in_place(state, stored.stored(), &event);
        *position = stored.position;
    }
    let slices: BTreeMap<Subject, i16> =
        log.iter().map(|stored| (stored.subject.clone(), stored.slice)).collect();
    states.retain(|_, (state, _)| state.is_some());
    for (subject, (state, position)) in &states {
        for row in state.iter().flat_map(|state| rows(subject, state)) {
            kept.insert((slices[subject], row.key()), (row, *position));
        }
    }
    let states = states.into_iter().map(|(s, (state, p))| (s, (state.unwrap(), p))).collect();
    (states, kept)
}

type Folded<S = State> = (BTreeMap<Subject, (S, i64)>, BTreeMap<(i16, RowKey), (Row, i64)>);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_rebuild_folds_to_the_states_and_rows_of_the_live_fold(
        steps in prop::collection::vec(0..17_u8, 0..60),
    ) {
        let mut s = Scenario::new();
        let ids = drive(&mut s, &steps);
        for id in ids {
            s.end(id);
        }
        s.pass(std::time::Duration::from_mins(30));
        s.delete_account("user-17");
        let (live, rebuilt) = (live(s.log()), rebuilt(s.log()));
        prop_assert_eq!(live.0, rebuilt.0);
        prop_assert_eq!(live.1, rebuilt.1);
    }
}

/// Every type of event on every kind of subject: where a fold skips a body, the body means nothing.
#[test]
fn a_body_is_skipped_only_where_it_changes_nothing() {
    let mut s = Scenario::new();
    let ids = drive(&mut s, &[1, 6, 3, 2, 14, 15, 1, 4, 14, 0, 5, 12, 16]);
    s.tell_broadcast(192_470, "live");
    s.delete_account("user-17");
    for _ in 0..3 {
        s.end(ids[0]);
        s.pass(std::time::Duration::from_mins(10));
    }
    let states: Vec<(Subject, State)> =
        s.states().map(|(subject, state)| (subject.clone(), state.clone())).collect();
    let mut seen = std::collections::BTreeSet::new();
    for event in s.log() {
        seen.insert(event.event_type.clone());
        for (subject, state) in &states {
            let event = RecordedEvent { subject: subject.clone(), ..event.clone() };
            for before in [None, Some(state.clone())] {
                let whole = evolve(before.clone(), &event, &Event::decode(&event));
                let skipped = Event::decode_for_fold(event.stored());
                assert_eq!(evolve(before, &event, &skipped), whole, "{event:?}");
            }
        }
    }
    assert!(seen.len() > 15, "{seen:?}");
}

const KINDS: [&str; 6] = [
    "create_live_stream",
    "create_broadcast",
    "activate_live_stream",
    "set_broadcast_status",
    "stop_recording",
    "deactivate_live_stream",
];

/// Plays `steps` on an installation; returns its sessions.
fn drive(s: &mut Scenario, steps: &[u8]) -> Vec<Uuid> {
    let mut ids = vec![s.request("key-0", |r| r.options.auto_go_live = true)];
    for (n, step) in steps.iter().enumerate() {
        let kind = KINDS[n % KINDS.len()];
        match step {
            0 => ids.push(s.request(&format!("key-{n}"), |r| {
                r.live_stream = Some(LiveStreamId(STREAM));
            })),
            1 => s.encoder_connects(STREAM),
            2 => s.encoder_drops(STREAM),
            3 => s.recording_shows(STREAM, true),
            4 => s.recording_shows(STREAM, false),
            5 => s.end(ids[n % ids.len()]),
            6 => s.go_live(ids[n % ids.len()]),
            7 => s.retry(ids[n % ids.len()]),
            8 => s.platform.script(kind, Answer::Failed("500".to_owned())),
            9 => s.platform.script(kind, Answer::Done(CallResult::Gone)),
            10 => s.platform.hold(kind),
            11 => s.platform.release(kind),
            12 => s.tell_video(803_111 + i64::try_from(n % 3).unwrap(), "ready"),
            13 => s.platform.script("observe_live_stream", Answer::Failed("503".to_owned())),
            14 => s.reconcile(STREAM),
            _ => s.pass(std::time::Duration::from_secs(u64::from(*step) * 2)),
        }
    }
    ids
}

#[test]
fn domain_time_never_runs_backwards() {
    let subject = Subject::live_stream(SOURCE, LiveStreamId(STREAM));
    let told = Event::BroadcastChanged(BroadcastChanged {
        broadcast: BroadcastId(1),
        status: "live".to_owned(),
    });
    let late = fold(&subject, None, &[(told, 60), (Event::Unrecognized, 10)]).unwrap();
    assert_eq!(late.at, Timestamp::from_timestamp(1_654_262_660, 0).unwrap());
}

#[test]
fn what_tells_nothing_of_a_subject_opens_no_state() {
    let job = Event::JobCompleted(JobEnded {
        job: Uuid::nil(),
        kind: "maintain".to_owned(),
        attempt: 1,
        value: None,
        error: None,
    });
    for subject in ["a/stream/1", "a/video/1", "a/broadcast/1", "a/account/x", "a/request/x"] {
        let subject = Subject::from_stored(subject.to_owned());
        assert_eq!(fold(&subject, None, &[(job.clone(), 0)]), None, "{subject}");
    }
}
