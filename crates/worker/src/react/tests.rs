//! Events that cannot be applied stop their subject, and nothing else.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use domain::effect::Effect;
use domain::event::{Event, NewEvent, RecordedEvent, SessionOptions, SessionRequested};
use domain::ids::Subject;
use serde_json::json;
use store::{
    Consumer, EnqueueOptions, ParkedSubject, RebuildOptions, RebuildProgress, Request, SliceStatus,
    Store,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::commits::Commits;
use super::follower::Follower;
use crate::context::{Context, now};
use crate::engine::tests::{config, context, start, until};
use crate::leases::Leases;
use crate::{Config, Worker};

/// Events that are mended: today's code can apply them.
static MENDED: Mutex<BTreeSet<Uuid>> = Mutex::new(BTreeSet::new());

/// Makes the fold of two event types go wrong: one panics, one leads to what the database refuses.
pub(super) fn poisoned(stored: &RecordedEvent, mut effects: Vec<Effect>) -> Vec<Effect> {
    let is_mended = MENDED.lock().unwrap().contains(&stored.event_id);
    assert!(stored.event_type != "TestPanics" || is_mended, "as asked for");
    if stored.event_type == "TestIsRefused" && !is_mended {
        let subject = Subject::from_stored("a/request/\0".to_owned());
        let event = NewEvent::new(subject, &Event::Unrecognized, now(), Uuid::now_v7());
        effects.push(Effect::Append(event));
    }
    effects
}

/// Whether an event is among those that are mended.
pub(super) fn is_mended(stored: &RecordedEvent) -> bool {
    MENDED.lock().unwrap().contains(&stored.event_id)
}

/// Appends an event that is poisoned, by its type.
async fn append_raw(store: &Store, subject: &Subject, event_type: &str) -> Uuid {
    let mut event = NewEvent::new(subject.clone(), &Event::Unrecognized, now(), Uuid::now_v7());
    event_type.clone_into(&mut event.event_type);
    let id = event.event_id;
    store.append_one(event).await.unwrap();
    id
}

fn request(session: Uuid) -> NewEvent {
    let event = Event::SessionRequested(SessionRequested {
        session,
        source: "a".to_owned(),
        account: None,
        name: "a session".to_owned(),
        live_stream: None,
        options: SessionOptions::default(),
    });
    NewEvent::new(Subject::request("a", session), &event, now(), Uuid::now_v7())
}

async fn append_request(store: &Store, id: u128) {
    store.append_one(request(Uuid::from_u128(id))).await.unwrap();
}

/// Waits until everything is applied, and returns how many events wait.
async fn applied(store: &Store) -> i64 {
    until(async || {
        let slices = store.slice_status().await.unwrap();
        let applied = slices.iter().all(|s| s.lag() == 0);
        applied.then(|| slices.iter().map(|s| s.parked).sum())
    })
    .await
}

/// Waits until a request about a subject has its answer: what waits of it then, if anything does.
async fn answer(store: &Store, subject: &Subject) -> Option<ParkedSubject> {
    until(async || {
        let parked = store.parked().await.unwrap().into_iter().find(|p| p.subject == *subject);
        (!parked.as_ref().is_some_and(|p| p.is_requested)).then_some(parked)
    })
    .await
}

async fn is_known(store: &Store, session: Uuid) -> bool {
    store.session(session).await.unwrap().is_some()
}

/// Whether a rebuild leaves everything as it is.
async fn rebuilds_alike(store: &Store) -> bool {
    let live = store.digest().await.unwrap();
    store.rebuild(&RebuildOptions::default(), &RebuildProgress::default()).await.unwrap();
    store.digest().await.unwrap() == live
}

async fn stops_its_subject_alone(event_type: &str) {
    let store = store::testing::store().await;
    let bad = Uuid::from_u128(1);
    for id in 2..20 {
        append_request(&store, id).await;
    }
    append_raw(&store, &Subject::request("a", bad), event_type).await;
    append_request(&store, 1).await;
    for id in 20..40 {
        append_request(&store, id).await;
    }
    let worker = start(&store, config());
    let parked = applied(&store).await;
    worker.shutdown().await;
    assert_eq!(parked, 2, "the bad event, and the later one of its subject");
    for id in 2..40 {
        assert!(is_known(&store, Uuid::from_u128(id)).await, "session {id}");
    }
    assert!(!is_known(&store, bad).await);
}

#[tokio::test]
async fn a_fold_that_panics_stops_its_subject_alone() {
    stops_its_subject_alone("TestPanics").await;
}

#[tokio::test]
async fn an_event_whose_effects_are_refused_stops_its_subject_alone() {
    stops_its_subject_alone("TestIsRefused").await;
}

/// A store with one parked subject: a poisoned event, then the request of its session, then a
/// second poisoned one. The worker goes on.
async fn parked(event_type: &str) -> (Store, Worker, Subject, [Uuid; 2]) {
    let store = store::testing::store().await;
    let subject = Subject::request("a", Uuid::from_u128(1));
    let first = append_raw(&store, &subject, event_type).await;
    append_request(&store, 1).await;
    let second = append_raw(&store, &subject, event_type).await;
    let worker = start(&store, config());
    assert_eq!(applied(&store).await, 3);
    (store, worker, subject, [first, second])
}

async fn ask(store: &Store, subject: &Subject, request: Request) -> Option<ParkedSubject> {
    let parked = store.parked().await.unwrap();
    let position = parked.iter().find(|p| p.subject == *subject).unwrap().position;
    store.request_parked(subject, position, request, "me", Some("a test")).await.unwrap();
    answer(store, subject).await
}

async fn is_retried_in_order(event_type: &str) {
    let (store, worker, subject, [first, second]) = parked(event_type).await;
    let still = ask(&store, &subject, Request::Retry).await.expect("today's code is the same");
    assert_eq!((still.position, still.events, still.attempts), (1, 3, 2));

    MENDED.lock().unwrap().insert(first);
    let still = ask(&store, &subject, Request::Retry).await.expect("the second fails still");
    // What the request led to may wait behind it already.
    assert_eq!((still.position, still.attempts), (3, 1));
    assert!(is_known(&store, Uuid::from_u128(1)).await, "what stood before it is applied");

    MENDED.lock().unwrap().insert(second);
    assert_eq!(ask(&store, &subject, Request::Retry).await, None);
    // Later events of the subject are applied as they come.
    append_raw(&store, &subject, "Told").await;
    assert_eq!(applied(&store).await, 0);
    worker.shutdown().await;
    assert!(rebuilds_alike(&store).await);
}

#[tokio::test]
async fn a_retry_applies_in_order_up_to_what_fails_again() {
    is_retried_in_order("TestPanics").await;
}

#[tokio::test]
async fn a_retry_of_refused_events_applies_in_order_up_to_what_is_refused_again() {
    is_retried_in_order("TestIsRefused").await;
}

#[tokio::test]
async fn a_skip_passes_one_event_over_for_a_rebuild_too() {
    let (store, worker, subject, _) = parked("TestPanics").await;
    let still = ask(&store, &subject, Request::Skip).await.expect("the second is bad as well");
    assert_eq!(still.position, 3);
    assert!(is_known(&store, Uuid::from_u128(1)).await);
    assert_eq!(ask(&store, &subject, Request::Skip).await, None);
    worker.shutdown().await;
    let skipped = store.skipped().await.unwrap();
    let positions: Vec<i64> = skipped.iter().map(|s| s.position).collect();
    assert_eq!(positions, [1, 3]);
    assert_eq!(skipped[0].reason.as_deref(), Some("a test"));
    assert!(rebuilds_alike(&store).await);
}

#[tokio::test]
async fn rows_that_differ_from_the_log_are_found_counted_and_told_until_they_are_mended() {
    let store = store::testing::store().await;
    append_request(&store, 1).await;
    let worker = start(&store, config());
    applied(&store).await;
    let verify = async || {
        let args = json!({ "part": 1 });
        let id = store.enqueue("verify", &args, &EnqueueOptions::default()).await.unwrap();
        let subject = Subject::job(id);
        let told = until(async || store.read_subject(&subject, 0, 1).await.unwrap().pop()).await;
        let Event::JobCompleted(ended) = Event::decode(&told) else { panic!("{told:?}") };
        (ended.value.unwrap()["differing"].clone(), worker.context().health())
    };
    let (differing, health) = verify().await;
    assert_eq!((differing, health.notes), (json!(0), Vec::new()));

    store::testing::forge_requests(&store).await;
    let (differing, health) = verify().await;
    assert_eq!(differing, json!(1));
    assert!(health.is_well(), "it works on");
    let slice = store.slice_of(&Subject::request("a", Uuid::from_u128(1)));
    let note = &health.notes[0];
    assert!(note.contains(&format!("1 rows of slice {slice}")), "{note}");
    assert!(note.contains("session_request") && note.contains(&format!("{slice}:1")), "{note}");
    assert_eq!(worker.context().metrics().verify_mismatch.get(), 1);

    store.rebuild(&RebuildOptions::default(), &RebuildProgress::default()).await.unwrap();
    let (differing, health) = verify().await;
    assert_eq!((differing, health.notes), (json!(0), Vec::new()));
    assert!(worker.context().metrics().replay_events_per_second.get() > 0.0);
    worker.shutdown().await;
}

#[tokio::test]
async fn a_request_outlives_the_worker_that_it_was_meant_for() {
    let (store, worker, subject, _) = parked("TestPanics").await;
    worker.shutdown().await;
    store.request_parked(&subject, 1, Request::Skip, "me", None).await.unwrap();
    let worker = start(&store, config());
    let still = answer(&store, &subject).await.unwrap();
    assert_eq!(still.position, 3);
    worker.shutdown().await;
}

#[tokio::test]
async fn an_event_of_a_newer_version_waits_for_a_newer_build() {
    let store = store::testing::store().await;
    let mut newer = request(Uuid::from_u128(1));
    newer.schema_version = 99;
    let subject = newer.subject.clone();
    store.append_one(newer).await.unwrap();
    append_raw(&store, &Subject::request("a", Uuid::from_u128(2)), "OfAnUnknownType").await;
    let worker = start(&store, config());
    assert_eq!(applied(&store).await, 1, "an unknown type passes");
    // Counted after the commit.
    until(async || (worker.context().metrics().events_unrecognized.get() == 1).then_some(())).await;
    worker.shutdown().await;
    let parked = &store.parked().await.unwrap()[0];
    assert_eq!(parked.subject, subject);
    let error = parked.error.as_deref().unwrap();
    assert!(error.contains("version 99"), "{error}");
}

#[tokio::test]
async fn an_event_of_a_newer_version_is_applied_by_the_first_build_that_knows_it() {
    let (store, worker, poisoned, _) = parked("TestPanics").await;
    let subject = Subject::request("a", Uuid::from_u128(7));
    let mut newer = request(Uuid::from_u128(8));
    newer.schema_version = 99;
    newer.subject = subject.clone();
    let id = newer.event_id;
    store.append_one(newer).await.unwrap();
    append_request(&store, 7).await;
    assert_eq!(applied(&store).await, 5, "what stands behind it waits as well");
    worker.shutdown().await;

    MENDED.lock().unwrap().insert(id);
    let worker = start(&store, config());
    let left = until(async || {
        let parked = store.parked().await.unwrap();
        (parked.len() == 1).then_some(parked)
    })
    .await;
    assert!(is_known(&store, Uuid::from_u128(7)).await, "what waited behind it is applied");
    worker.shutdown().await;
    // What a new build alone does not mend waits for a person.
    assert_eq!((&left[0].subject, left[0].attempts), (&poisoned, 1));
}

#[tokio::test]
async fn a_hole_stops_its_slice_alone_and_is_cried_out() {
    let store = store::testing::store().await;
    for id in 1..200 {
        append_request(&store, id).await;
    }
    let broken = store.slice_of(&Subject::request("a", Uuid::from_u128(1)));
    store::testing::lose_event(&store, broken, 3).await;
    let worker = start(&store, config());
    until(async || {
        let slices = store.slice_status().await.unwrap();
        let level = |s: &SliceStatus| {
            if s.slice == broken { s.position == 2 && s.has_hole() } else { s.lag() == 0 }
        };
        slices.iter().all(level).then_some(())
    })
    .await;
    until(async || is_missing(worker.context(), 3).then_some(())).await;
    let health = worker.context().health();
    assert_eq!(health.complaints.len(), 1);
    assert_eq!((health.complaints[0].slice, health.complaints[0].consumer), (broken, "react"));
    assert_eq!(worker.context().metrics().holes.get(), 1);
    worker.shutdown().await;
}

#[tokio::test]
async fn an_event_that_is_missing_at_the_end_is_a_hole_behind_all_that_stands_before_it() {
    // The head may be known before the first read, and it may be learnt after it.
    for knows_head in [true, false] {
        let store = store::testing::store().await;
        let subject = Subject::from_stored("a/unrecognized".to_owned());
        for _ in 0..3 {
            append_raw(&store, &subject, "Told").await;
        }
        let slice = store.slice_of(&subject);
        store::testing::lose_event(&store, slice, 3).await;
        let ctx = context(&store, config());
        let limit = Duration::from_mins(1);
        let lease = store.claim(Consumer::React, slice, ctx.process(), limit).await;
        let lease = lease.unwrap().unwrap();
        let leases = Leases::default();
        leases.insert(Consumer::React, lease, tokio::time::Instant::now() + limit);
        ctx.progress().opened(&lease, 0);
        if knows_head {
            ctx.progress().saw_head(slice, 3);
        }
        let stop = CancellationToken::new();
        let mut follower = Follower::new(ctx.clone(), leases, Commits::default(), lease);
        tokio::join!(follower.run(&stop), async {
            until(async || {
                let has_applied = ctx.metrics().events_applied.get() == 2;
                if has_applied && ctx.progress().saw_head(slice, 3) {
                    ctx.wake_slice(slice);
                }
                is_missing(&ctx, 3).then_some(())
            })
            .await;
            stop.cancel();
        });
    }
}

/// Whether the worker complains of a missing position. On a slow machine it complains first that
/// the slice stands still.
fn is_missing(ctx: &Context, position: i64) -> bool {
    let told = format!("position {position} is missing");
    ctx.health().complaints.iter().any(|c| c.what.contains(&told))
}

#[tokio::test]
async fn two_workers_share_the_slices_and_apply_everything_once() {
    let store = store::testing::store().await;
    let workers = [start(&store, config()), start(&store, config())];
    until(async || {
        let slices = store.slice_status().await.unwrap();
        let owners: BTreeSet<Option<Uuid>> = slices.iter().map(|s| s.owner).collect();
        (owners.len() == 2 && !owners.contains(&None)).then_some(())
    })
    .await;
    for id in 1..200 {
        append_request(&store, id).await;
    }
    assert_eq!(applied(&store).await, 0);
    // Announcements and other events of their own count as well, each after its commit.
    let counted = |worker: &Worker| worker.context().metrics().events_applied.get();
    until(async || (workers.iter().map(counted).sum::<u64>() >= 199).then_some(())).await;
    for worker in workers {
        assert!(worker.context().health().is_well(), "{:?}", worker.context().health());
        worker.shutdown().await;
    }
    for id in 1..200 {
        assert!(is_known(&store, Uuid::from_u128(id)).await, "session {id}");
    }
}

#[tokio::test]
async fn a_clean_stop_hands_the_slices_over_long_before_a_lease_ends() {
    let store = store::testing::store().await;
    let lease = Duration::from_mins(1);
    let leaver = start(&store, Config { lease, ..config() });
    let stays = start(&store, Config { lease, ..config() });
    let owners = async |n: usize| {
        let slices = store.slice_status().await.unwrap();
        let owners: BTreeSet<Option<Uuid>> = slices.iter().map(|s| s.owner).collect();
        (owners.len() == n && !owners.contains(&None)).then_some(())
    };
    until(async || owners(1).await.or(owners(2).await)).await;
    let begun = Instant::now();
    leaver.shutdown().await;
    until(async || owners(1).await).await;
    assert!(begun.elapsed() < lease / 4, "not by waiting for the next look");
    stays.shutdown().await;
}
