//! Rules of cleanup: what is judged how, and when a run is over.

use std::time::Duration;

use uuid::Uuid;

use super::judge::SHORTEST_ORPHAN;
use super::*;
use crate::announcement::{Announcement, CleanupRunNews};
use crate::event::Event;
use crate::ids::{LiveStreamId, Subject, Timestamp, VideoId};
use crate::scenario::{SOURCE, Scenario};
use crate::state::Body;

const DAY: Duration = Duration::from_hours(24);

fn noon() -> Timestamp {
    "2026-11-23T12:00:00Z".parse().unwrap()
}

fn ago(age: Duration) -> Timestamp {
    noon() - age
}

#[test]
fn a_live_stream_of_a_deleted_account_goes_only_if_all_that_counts_is_known_to_be_so() {
    let idle = InactiveFacts {
        live_stream: LiveStreamId(7),
        account: "~a".to_owned(),
        is_ours: true,
        live: false,
        active: Some(false),
        idle_since: Some(ago(30 * DAY)),
    };
    let judge = |facts: &InactiveFacts| facts.judge(noon(), 30 * DAY);
    assert_eq!(
        judge(&idle),
        Verdict::Propose("idle since 2026-10-24, account ~a deleted".to_owned())
    );
    assert!(judge(&InactiveFacts { active: None, ..idle.clone() }).proposes(), "the call looks");
    for (kept, why) in [
        (InactiveFacts { is_ours: false, ..idle.clone() }, "tag"),
        (InactiveFacts { live: true, ..idle.clone() }, "encoder"),
        (InactiveFacts { active: Some(true), ..idle.clone() }, "active"),
        (InactiveFacts { idle_since: None, ..idle.clone() }, "open session"),
        (InactiveFacts { idle_since: Some(ago(29 * DAY)), ..idle.clone() }, "30 days needed"),
        (InactiveFacts { idle_since: Some(noon() + DAY), ..idle.clone() }, "30 days needed"),
    ] {
        let verdict = judge(&kept);
        assert!(!verdict.proposes() && verdict.reason().contains(why), "{verdict:?}");
    }
}

#[test]
fn an_orphan_goes_only_if_its_request_is_known_and_will_not_take_it() {
    let session = Uuid::nil();
    let orphan = OrphanFacts {
        maker: Maker::Left(session),
        made_at: Some(ago(8 * DAY)),
        live: Some(false),
        active: Some(false),
        recording: None,
    };
    let before = OrphanFacts::before(noon(), 7 * DAY);
    assert!(orphan.judge(before).proposes());
    for (kept, why) in [
        (OrphanFacts { maker: Maker::Unknown, ..orphan }, "no request"),
        (OrphanFacts { maker: Maker::Has(session), ..orphan }, "has it"),
        (OrphanFacts { maker: Maker::MayTake(session), ..orphan }, "may still take it"),
        (OrphanFacts { made_at: None, ..orphan }, "not said to be made before"),
        (OrphanFacts { made_at: Some(ago(6 * DAY)), ..orphan }, "not said to be made before"),
        (OrphanFacts { live: None, ..orphan }, "off air"),
        (OrphanFacts { live: Some(true), ..orphan }, "off air"),
        (OrphanFacts { active: None, ..orphan }, "inactive"),
        (OrphanFacts { active: Some(true), ..orphan }, "inactive"),
        (OrphanFacts { recording: Some(true), ..orphan }, "recorded"),
    ] {
        let verdict = kept.judge(before);
        assert!(!verdict.proposes() && verdict.reason().contains(why), "{verdict:?}");
    }
    // Whatever is configured, a create that is in work is not overtaken.
    assert_eq!(OrphanFacts::before(noon(), Duration::ZERO), ago(SHORTEST_ORPHAN));
}

#[test]
fn a_recording_goes_by_the_rule_of_its_account_else_of_its_source() {
    let rules = Rules {
        keep_recordings: Keep::For(90 * DAY),
        keep_recordings_of: [
            ("a".to_owned(), Keep::Forever),
            ("b".to_owned(), Keep::For(10 * DAY)),
        ]
        .into(),
        ..Rules::default()
    };
    let recording = |age: Duration| RecordingFacts {
        session: Uuid::nil(),
        live_stream: LiveStreamId(7),
        account: None,
        ended_at: ago(age),
        videos: vec![VideoId(1)],
    };
    for (account, age, goes) in [
        (None, 90 * DAY, true),
        (None, 89 * DAY, false),
        (Some("a"), 9_999 * DAY, false),
        (Some("b"), 10 * DAY, true),
        (Some("c"), 89 * DAY, false),
    ] {
        let verdict = recording(age).judge(noon(), rules.keeps(account));
        assert_eq!(verdict.proposes(), goes, "{account:?} {age:?}: {}", verdict.reason());
    }
    assert_eq!(rules.shortest_keep(), Some(10 * DAY));
    assert_eq!(Rules::default().shortest_keep(), None, "for ever, unless told otherwise");
    assert_eq!(Keep::For(10 * DAY).at_least(20 * DAY), Keep::For(20 * DAY));
    assert_eq!(Keep::For(10 * DAY).at_least(DAY), Keep::For(10 * DAY), "never shorter");
    assert_eq!(Keep::Unset.at_least(DAY), Keep::Unset);
    assert_eq!(Keep::Forever.before(noon()), None);
    assert!(!recording(9_999 * DAY).judge(noon(), Keep::Unset).proposes());
}

#[test]
fn times_too_far_away_keep_everything() {
    assert_eq!(earlier(noon(), Duration::MAX), Timestamp::MIN_UTC);
}

#[test]
fn samples_that_touch_are_one_time_on_air() {
    let minute = Duration::from_mins(1);
    let at = |n: u32| noon() + minute * n;
    let samples = [(at(1), Some(100.0)), (at(0), Some(300.0)), (at(2), None), (at(9), None)];
    let times = air_times(samples, minute);
    let first = AirTime { from: at(0), until: at(3), avg_bitrate: Some(200.0) };
    assert_eq!(times, [first, AirTime { from: at(9), until: at(10), avg_bitrate: None }]);
    assert_eq!(air_times([], minute), []);
}

/// The subject of a run, and the run, begun.
fn begun(s: &mut Scenario, dry_run: bool) -> (Subject, Uuid) {
    let run = run_id(Uuid::nil(), SOURCE);
    let subject = Subject::cleanup(SOURCE, run);
    let started = CleanupStarted {
        run,
        job: Uuid::nil(),
        policy: CleanupPolicy::Inactive,
        dry_run,
        cap: 20,
        rule: "r".to_owned(),
    };
    s.event(subject.clone(), &Event::Cleanup(CleanupEvent::Started(started)));
    (subject, run)
}

fn judged(s: &mut Scenario, subject: &Subject, live_stream: i64, proposed: bool) {
    let (_, _, run) = subject.parts().unwrap();
    let event = CleanupEvent::Judged(CleanupJudged {
        run: run.parse().unwrap(),
        live_stream: LiveStreamId(live_stream),
        videos: Vec::new(),
        proposed,
        reason: "r".to_owned(),
        delete_recordings: false,
        made_before: None,
    });
    s.event(subject.clone(), &Event::Cleanup(event));
}

fn listed(s: &mut Scenario, subject: &Subject, run: Uuid, proposed: u64, kept: u64) {
    let looked_at = proposed + kept;
    let listed = CleanupListed { run, looked_at, proposed, kept, left: 0 };
    s.event(subject.clone(), &Event::Cleanup(CleanupEvent::Listed(listed)));
}

fn finished(s: &mut Scenario) -> Vec<CleanupRunNews> {
    let news = s.announcements().into_iter().filter_map(|a| {
        let Announcement::CleanupFinished(news) = a else { return None };
        Some(news)
    });
    news.collect()
}

#[test]
fn a_dry_run_is_over_when_all_is_judged() {
    let mut s = Scenario::new();
    let (subject, run) = begun(&mut s, true);
    judged(&mut s, &subject, 7, true);
    judged(&mut s, &subject, 8, false);
    assert!(finished(&mut s).is_empty());
    listed(&mut s, &subject, run, 1, 1);
    listed(&mut s, &subject, run, 1, 1);
    let told = finished(&mut s);
    assert_eq!(told.len(), 1, "once");
    assert_eq!((told[0].proposed, told[0].kept, told[0].deleted), (1, 1, 0));
}

#[test]
fn a_run_is_over_when_each_of_its_proposals_has_ended() {
    let mut s = Scenario::new();
    let session = s.request("key-1", |_| {});
    s.end(session);
    let stream = 320_423;
    let (subject, run) = begun(&mut s, false);
    judged(&mut s, &subject, stream, true);
    judged(&mut s, &subject, 8, false);
    listed(&mut s, &subject, run, 1, 1);
    assert!(finished(&mut s).is_empty());
    s.clean_up_by(stream, run, &[]);
    let told = finished(&mut s).pop().unwrap();
    assert_eq!((told.proposed, told.deleted, told.kept), (1, 1, 1));
    let Some(Body::Cleanup(state)) = s.state(&subject).map(|state| &state.body) else {
        panic!("no run")
    };
    assert_eq!((state.status(), state.open.len()), ("finished", 0));
}
