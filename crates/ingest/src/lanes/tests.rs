//! Lanes on a real database, without HTTP.

mod spooling;

use domain::event::NewEvent;
use domain::ids::{Subject, Timestamp};
use store::Store;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::{Config, Ended, Kept, Lanes};
use crate::Rejected;
use crate::testing::{eventually, lanes_of, log, patient, told};

fn event(subject: &str, payload: &[u8]) -> NewEvent {
    NewEvent {
        event_id: Uuid::now_v7(),
        subject: Subject::from_stored(subject.to_owned()),
        event_type: "WebhookReceived".to_owned(),
        schema_version: 1,
        key: None,
        received_at: Timestamp::default(),
        causation_id: None,
        correlation_id: None,
        meta: None,
        payload: payload.to_vec(),
    }
}

async fn lanes(config: Config) -> (Lanes, Store) {
    let store = store::testing::store().await;
    (lanes_of(&store, config), store)
}

/// Appends all at once, in order, and returns how each ended, in order.
async fn append_all(lanes: &Lanes, events: Vec<NewEvent>) -> Vec<Ended> {
    let mut appends = JoinSet::new();
    for (n, event) in events.into_iter().enumerate() {
        let lanes = lanes.clone();
        appends.spawn(async move { (n, lanes.append(event).await) });
    }
    let mut ended = appends.join_all().await;
    ended.sort_by_key(|(n, _)| *n);
    ended.into_iter().map(|(_, result)| result).collect()
}

/// Payloads of the log's events.
fn payloads(events: &[domain::event::RecordedEvent]) -> Vec<&[u8]> {
    events.iter().map(|event| event.payload.as_slice()).collect()
}

// One thread: tasks then queue their events in the order they were spawned.
#[tokio::test]
async fn events_of_a_lane_keep_their_order_across_batches() {
    let (lanes, store) = lanes(Config { batch_events: 7, ..patient() }).await;
    let bodies: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    let events = bodies.iter().map(|body| event("a/stream/1", body.as_bytes())).collect();
    let ended = append_all(&lanes, events).await;
    assert!(ended.iter().all(Result::is_ok));
    assert_eq!(
        payloads(&log(&store).await),
        bodies.iter().map(String::as_bytes).collect::<Vec<_>>()
    );
    let batches = told(&lanes, "append_batch_events_count");
    assert!((15.0..50.0).contains(&batches), "{batches}");
}

#[tokio::test]
async fn a_batch_ends_at_its_bytes_and_a_larger_event_goes_alone() {
    let (lanes, store) = lanes(Config { batch_bytes: 100, ..patient() }).await;
    let sizes = [40, 40, 40, 300, 1, 99, 100, 0];
    let events = sizes.iter().map(|size| event("a/stream/1", &vec![b'x'; *size])).collect();
    assert!(append_all(&lanes, events).await.iter().all(Result::is_ok));
    let stored: Vec<usize> = log(&store).await.iter().map(|e| e.payload.len()).collect();
    assert_eq!(stored, sizes);
    assert!(told(&lanes, "append_batch_events_count").total_cmp(&5.0).is_eq());
}

// One thread: all events are queued before a lane takes the first.
#[tokio::test]
async fn the_slices_of_a_lane_share_a_call() {
    let (lanes, store) = lanes(Config { slices_per_lane: 4, ..patient() }).await;
    let subjects: Vec<String> = (0..64).map(|n| format!("a/stream/{n}")).collect();
    let events = |n: u8| subjects.iter().map(move |subject| event(subject, &[n]));
    let ended = append_all(&lanes, events(0).chain(events(1)).collect()).await;
    assert!(ended.iter().all(|ended| *ended == Ok(Kept::Appended)));
    let stored = log(&store).await;
    for subject in &subjects {
        let own = stored.iter().filter(|event| event.subject.as_str() == subject);
        assert_eq!(own.map(|event| event.payload[0]).collect::<Vec<_>>(), [0, 1], "{subject}");
    }
    let touched: std::collections::BTreeSet<i16> = stored.iter().map(|event| event.slice).collect();
    assert!(touched.len() > 12, "{touched:?}");
    assert!(told(&lanes, "append_batch_events_count").total_cmp(&4.0).is_eq());
}

#[tokio::test]
async fn room_for_one_event_still_stores_all() {
    let config = Config { queued_bytes: 600, queue: 1, ..patient() };
    let (lanes, store) = lanes(config).await;
    let events = (0..20).map(|n| event(&format!("a/stream/{n}"), &[b'x'; 1000])).collect();
    assert!(append_all(&lanes, events).await.iter().all(Result::is_ok));
    assert_eq!(log(&store).await.len(), 20);
}

#[tokio::test]
async fn a_refused_event_does_not_fail_its_neighbours() {
    let (lanes, store) = lanes(patient()).await;
    let slice = store.slice_of(&Subject::from_stored("a\0b".to_owned()));
    let neighbours = (0..).map(|n| format!("a/stream/{n}"));
    let neighbours = neighbours
        .filter(|subject| store.slice_of(&Subject::from_stored(subject.clone())) == slice);
    let mut subjects: Vec<String> = neighbours.take(30).collect();
    subjects.insert(11, "a\0b".to_owned());
    subjects.insert(23, "a\0b".to_owned());
    let ended = append_all(&lanes, subjects.iter().map(|s| event(s, s.as_bytes())).collect()).await;
    for (subject, ended) in subjects.iter().zip(ended) {
        let expected = if subject == "a\0b" { Kept::Unrecognized } else { Kept::Appended };
        assert_eq!(ended, Ok(expected), "{subject:?}");
    }
    subjects.retain(|subject| subject != "a\0b");
    let expected: Vec<&[u8]> = subjects.iter().map(String::as_bytes).collect();
    let mut stored = log(&store).await;
    stored.retain(|event| event.subject.as_str() != "unknown/unrecognized");
    assert_eq!(payloads(&stored), expected);
}

#[tokio::test]
async fn draining_stores_what_is_queued_and_takes_no_more() {
    let (lanes, store) = lanes(patient()).await;
    let mut appends = JoinSet::new();
    for n in 0..50 {
        let lanes = lanes.clone();
        appends.spawn(async move { lanes.append(event(&format!("a/stream/{n}"), b"")).await });
    }
    let (ended, drained) = tokio::join!(appends.join_all(), async {
        eventually(async || lanes.inner.room.available_permits() < lanes.inner.rooms).await;
        lanes.drain().await
    });
    assert!(drained);
    let stored = ended.iter().filter(|ended| ended.is_ok()).count();
    assert!(stored > 0);
    assert_eq!(log(&store).await.len(), stored);
    assert!(matches!(lanes.append(event("a", b"")).await, Err(Rejected::Draining)));
}
