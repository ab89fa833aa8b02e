//! Events that cannot be applied stop their subject, and nothing else.

use std::collections::BTreeSet;
use std::sync::Mutex;

use domain::effect::Effect;
use domain::event::{Event, NewEvent, RecordedEvent, SessionOptions, SessionRequested};
use domain::ids::Subject;
use store::Store;
use uuid::Uuid;

use crate::context::now;
use crate::engine::tests::{config, start, until};

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

async fn append_raw(store: &Store, subject: &Subject, event_type: &str) {
    let mut event = NewEvent::new(subject.clone(), &Event::Unrecognized, now(), Uuid::now_v7());
    event_type.clone_into(&mut event.event_type);
    store.append_one(event).await.unwrap();
}

async fn append_request(store: &Store, id: u128) {
    let session = Uuid::from_u128(id);
    let event = Event::SessionRequested(SessionRequested {
        session,
        source: "a".to_owned(),
        account: None,
        name: "a session".to_owned(),
        live_stream: None,
        options: SessionOptions::default(),
    });
    let event = NewEvent::new(Subject::request("a", session), &event, now(), Uuid::now_v7());
    store.append_one(event).await.unwrap();
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
    let parked = until(async || {
        let slices = store.slice_status().await.unwrap();
        let applied = slices.iter().all(|s| s.head == s.position);
        applied.then(|| slices.iter().map(|s| s.parked).sum::<i64>())
    })
    .await;
    worker.shutdown().await;
    assert_eq!(parked, 2, "the bad event, and the later one of its subject");
    for id in 2..40 {
        assert!(store.session(Uuid::from_u128(id)).await.unwrap().is_some(), "session {id}");
    }
    assert!(store.session(bad).await.unwrap().is_none());
}

#[tokio::test]
async fn a_fold_that_panics_stops_its_subject_alone() {
    stops_its_subject_alone("TestPanics").await;
}

#[tokio::test]
async fn an_event_whose_effects_are_refused_stops_its_subject_alone() {
    stops_its_subject_alone("TestIsRefused").await;
}
