//! Laws of sweeps: a hint leads to a look and to nothing else, and a session ends alike whether the
//! platform tells everything or nothing.

use proptest::prelude::*;
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::event::{Event, StoredEvent};
use crate::ids::{LiveStreamId, Subject};
use crate::scenario::{SOURCE, Scenario};
use crate::session::Status;
use crate::state::{Body, State, evolve_in_place};
use crate::webhook;

const STREAM: i64 = 320_423;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn subject() -> Subject {
    Subject::live_stream(SOURCE, LiveStreamId(STREAM))
}

/// A session on air with its recording running.
fn live() -> (Scenario, Uuid) {
    let mut s = Scenario::new();
    let session = s.request("key-1", |r| r.options.auto_go_live = true);
    s.encoder_connects(STREAM);
    s.recording_shows(STREAM, true);
    s.pass(seconds(60));
    s.given();
    (s, session)
}

fn signs(active: bool, live: bool, recording: bool) -> SeenOtherwise {
    let (active, live, recording) = (Some(active), Some(live), Some(recording));
    let signs = Some(Signs { active, live, recording, started_at: None });
    SeenOtherwise { signs, ..SeenOtherwise::default() }
}

#[test]
fn a_lost_drop_is_found_by_a_sweep_and_confirmed_by_a_get() {
    let (mut s, session) = live();
    s.platform.set(STREAM, |t| (t.live, t.recording) = (false, false));
    s.pass(seconds(30));
    s.then_calls(&["observe_live_stream"]);
    s.pass(Policy::default().grace);
    s.then_status(session, Status::Interrupted);
}

#[test]
fn what_a_list_shows_in_error_has_no_effect_but_a_get() {
    let (mut s, session) = live();
    s.event(subject(), &Event::SeenOtherwise(signs(false, false, false)));
    s.then_calls(&["observe_live_stream"]);
    s.then_announced(&[]);
    s.then_status(session, Status::Live);
    assert!(s.session(session).interruption.is_none());
}

#[test]
fn a_hint_that_is_known_by_now_leads_to_nothing() {
    let (mut s, _) = live();
    s.event(subject(), &Event::SeenOtherwise(signs(true, true, true)));
    s.then_nothing();
}

#[test]
fn a_hint_while_a_call_is_in_flight_is_looked_into_after_it() {
    let (mut s, session) = live();
    s.platform.hold("stop_recording");
    s.end(session);
    s.given();
    s.event(subject(), &Event::SeenOtherwise(signs(true, true, false)));
    s.then_nothing();
    s.let_go("stop_recording");
    assert_eq!(s.calls().first(), Some(&"observe_live_stream"));
}

#[test]
fn absence_is_asked_for_and_only_then_believed() {
    let (mut s, session) = live();
    let missing = SeenOtherwise { missing: true, ..SeenOtherwise::default() };
    s.event(subject(), &Event::SeenOtherwise(missing.clone()));
    s.then_calls(&["observe_live_stream"]);
    s.then_status(session, Status::Live);
    s.platform.delete_stream(STREAM);
    s.event(subject(), &Event::SeenOtherwise(missing.clone()));
    s.then_calls(&["observe_live_stream"]);
    s.then_status(session, Status::Failed);
    s.event(subject(), &Event::SeenOtherwise(missing));
    s.then_calls(&[]);
}

#[test]
fn one_way_in_that_is_quiet_says_nothing_of_the_other() {
    let of = |object| Signs::of(&webhook::live_stream(&object)).live;
    assert_eq!(of(json!({"live": false, "backup_live": true})), Some(true));
    assert_eq!(of(json!({"live": false, "backup_live": false})), Some(false));
    assert_eq!(of(json!({"live": false})), Some(false), "objects of before the backup");
    assert_eq!(of(json!({"backup_live": false})), None);
    assert_eq!(of(json!({})), None);
}

#[test]
fn looks_double_from_the_first_to_the_longest() {
    let looks = Looks { first: seconds(30), most: 10 };
    let since = Timestamp::UNIX_EPOCH;
    let mut at = Vec::new();
    for second in 1..1600_u32 {
        let now = since + seconds(u64::from(second));
        if looks.before(since, now - seconds(1)) < looks.before(since, now) {
            at.push(second);
        }
    }
    assert_eq!(at, [30, 90, 210, 450, 750, 1050, 1350]);
    assert_eq!(looks.before(since, since - seconds(9)), 0);
}

#[test]
fn live_ones_are_looked_at_more_often_while_webhooks_are_lost() {
    let policy = Policy::default();
    let begun = Timestamp::UNIX_EPOCH;
    let due = |swept: &Swept, now| swept.is_due(&policy, Tier::Live, begun, now);
    let mut swept = Swept::all(begun, false);
    let mut at = Vec::new();
    for n in 1..=18_u64 {
        let now = begun + often(&policy) * u32::try_from(n).unwrap();
        let looked = due(&swept, now);
        if looked {
            at.push(n * 10);
        }
        // The sweep after a minute finds something, no other does.
        swept = swept.then(&policy, now, looked && n == 6);
    }
    assert_eq!(at, [30, 60, 70, 100, 130, 160]);
}

#[test]
fn after_standing_still_all_is_due() {
    let policy = Policy::default();
    let begun = Timestamp::UNIX_EPOCH;
    let swept = Swept::all(begun, false);
    assert!(!swept.is_all_due(&policy, begun + policy.watch));
    assert!(swept.is_all_due(&policy, begun + policy.watch * 3));
    let busy = Swept { at: begun + seconds(3_599), ..swept };
    assert!(!busy.is_all_due(&policy, begun + seconds(3_599)));
    assert!(busy.is_all_due(&policy, begun + seconds(3_600)));
}

#[test]
fn a_second_object_of_one_intent_is_an_orphan_once_the_first_has_its_session() {
    let now = Timestamp::UNIX_EPOCH + seconds(10_000);
    let old = Some(Timestamp::UNIX_EPOCH);
    let made = |n, key, at, had_session| Made {
        live_stream: LiveStreamId(n),
        key: Uuid::from_u128(key),
        at,
        had_session,
    };
    let rows = [
        made(1, 7, old, true),
        made(2, 7, old, false),
        // Too young, and of an age that is not told.
        made(3, 7, Some(now - seconds(60)), false),
        made(4, 7, None, false),
        // Nobody's session yet: the call may be on its way.
        made(5, 8, old, false),
        made(6, 8, old, false),
        // Two sessions of one intent cannot be, and neither is touched.
        made(8, 9, old, true),
        made(9, 9, old, true),
    ];
    assert_eq!(orphans(&rows, now), [LiveStreamId(2)]);
}

fn arb_hint() -> impl Strategy<Value = SeenOtherwise> {
    let flag = || prop::option::of(any::<bool>());
    let signs = (flag(), flag(), flag()).prop_map(|(active, live, recording)| Signs {
        active,
        live,
        recording,
        started_at: None,
    });
    let status = prop::sample::select(vec![
        VideoStatus::Empty,
        VideoStatus::Pending,
        VideoStatus::Viewable,
        VideoStatus::Ready,
        VideoStatus::Error,
    ]);
    let video = (803_111..803_114_i64, prop::option::of(status), any::<[bool; 2]>()).prop_map(
        |(video, status, [missing, is_final])| VideoSigns {
            video: VideoId(video),
            status,
            missing,
            is_final,
        },
    );
    let label = prop::option::of(prop::sample::select(vec!["pending", "live", "finished"]));
    let broadcast =
        (192_470..192_472_i64, label, any::<bool>()).prop_map(|(id, label, missing)| {
            BroadcastSigns { broadcast: BroadcastId(id), status: label.map(str::to_owned), missing }
        });
    let (videos, broadcasts) =
        (prop::collection::vec(video, 0..3), prop::collection::vec(broadcast, 0..2));
    (prop::option::of(signs), any::<bool>(), broadcasts, videos).prop_map(
        |(signs, missing, broadcasts, videos)| SeenOtherwise { signs, missing, broadcasts, videos },
    )
}

/// A state of any stage of a session's life.
fn arb_state() -> impl Strategy<Value = State> {
    (0..6_u8).prop_map(|stage| {
        let mut s = Scenario::new();
        let session = s.request("key-1", |r| r.options.auto_go_live = true);
        if stage > 0 {
            s.encoder_connects(STREAM);
            s.recording_shows(STREAM, true);
        }
        if stage > 1 {
            s.encoder_drops(STREAM);
            s.platform.add_video(STREAM, 803_111, "pending", s.now());
            s.tell_video(803_111, "pending");
        }
        if stage > 2 {
            s.pass(seconds(60));
        }
        if stage > 3 {
            s.end(session);
            s.pass(seconds(60));
        }
        if stage > 4 {
            s.tell_video(803_111, "ready");
        }
        s.state(&subject()).unwrap().clone()
    })
}

fn told(state: &State, hints: &[SeenOtherwise]) -> State {
    let mut state = Some(state.clone());
    let subject = subject();
    for hint in hints {
        let event = Event::SeenOtherwise(hint.clone());
        let stored = StoredEvent {
            received_at: Timestamp::UNIX_EPOCH,
            subject: &subject,
            event_type: event.name(),
            schema_version: 1,
            payload: &[],
        };
        evolve_in_place(&mut state, stored, &event);
    }
    state.unwrap()
}

fn stream(state: &mut State) -> &mut LiveStream {
    let Body::LiveStream(stream) = &mut state.body else { panic!("no live stream") };
    stream
}

/// The state without what may be asked next, and the waits that end by asking.
fn known(mut state: State) -> State {
    let stream = stream(&mut state);
    stream.look_due = false;
    stream.broadcasts_due.clear();
    stream.watch = crate::plan::Watch::default();
    for part in stream.sessions.iter_mut().flat_map(|s| &mut s.recording.parts) {
        part.unlisted = false;
    }
    state
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// What is known, and so all that is decided but to ask, is the same with any hints.
    #[test]
    fn hints_change_nothing_but_what_is_asked(
        state in arb_state(),
        hints in prop::collection::vec(arb_hint(), 1..4),
    ) {
        let after = told(&state, &hints);
        prop_assert_eq!(known(after.clone()), known(state));
        let mut after = after;
        prop_assert!(stream(&mut after).next_call().is_none_or(|call| call.is_read()));
    }

    #[test]
    fn hints_may_come_in_any_order_and_again(
        state in arb_state(),
        (hints, other) in prop::collection::vec(arb_hint(), 1..4).prop_flat_map(|hints| {
            let twice: Vec<_> = hints.iter().chain(&hints).cloned().collect();
            (Just(hints), Just(twice).prop_shuffle())
        }),
    ) {
        prop_assert_eq!(told(&state, &hints), told(&state, &other));
    }
}

/// What the encoder does, and for how long.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    sends: bool,
    minutes: u64,
}

/// A whole session by a plan; `heard`: the webhooks arrive.
fn play(plan: &[Stretch], heard: bool) -> (Scenario, Uuid) {
    let mut s = Scenario::new();
    let session = s.request("key-1", |r| r.options.auto_go_live = true);
    let tell = |s: &mut Scenario| {
        if heard {
            s.tell(STREAM);
        }
    };
    let (mut video, mut began) = (900_000, None);
    for stretch in plan {
        s.platform.set(STREAM, |t| t.live = stretch.sends);
        if let Some(began) = began.take().filter(|_| !stretch.sends) {
            // The file of a connection that was lost.
            s.platform.set(STREAM, |t| t.recording = false);
            s.platform.add_video(STREAM, video, "pending", began);
            video += 1;
        }
        tell(&mut s);
        let until = s.now() + seconds(stretch.minutes * 60);
        while s.now() < until {
            s.pass(seconds(5));
            let starts = s.calls().contains(&"start_recording");
            if starts && stretch.sends {
                s.platform.set(STREAM, |t| t.recording = true);
                began = Some(s.now());
                tell(&mut s);
            }
        }
    }
    s.end(session);
    s.pass(seconds(5));
    s.platform.set(STREAM, |t| (t.live, t.recording) = (false, false));
    tell(&mut s);
    s.pass(seconds(300));
    for video in s.platform.videos() {
        s.platform.set_video(video, "ready");
        if heard {
            s.tell_video(video, "ready");
        }
    }
    s.pass(seconds(3 * 3600));
    (s, session)
}

fn arb_plan() -> impl Strategy<Value = Vec<Stretch>> {
    // Longer than it takes to notice each by itself.
    prop::collection::vec(6..20_u64, 1..5).prop_map(|minutes| {
        let stretch = |(n, minutes)| Stretch { sends: n % 2 == 0, minutes };
        minutes.into_iter().enumerate().map(stretch).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_session_ends_alike_with_all_webhooks_and_with_none(plan in arb_plan()) {
        let of = |heard| {
            let (s, id) = play(&plan, heard);
            let session = s.session(id);
            let parts = session.recording.parts.iter();
            let parts: Vec<_> = parts.map(|p| (p.video.id, p.video.status)).collect();
            let ends = (session.status, session.recording.status(session.is_over()));
            (ends, parts, session.interruptions, session.problems.clone())
        };
        let heard = of(true);
        prop_assert_eq!(heard.0.0, Status::Ended);
        prop_assert_eq!(of(false), heard);
    }
}
